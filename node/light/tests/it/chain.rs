//! A small chain in memory, signed by real keys, as an honest or a lying source.

use std::cell::Cell;

use serde_bytes::ByteBuf;
use tiltyard_keys::{PublicKey, SecretKey, Signature};
use tiltyard_light::{Source, SourceError};
use tiltyard_proto::block::Header;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Params};
use tiltyard_proto::ids::{BlockHash, CertificateHash, MerkleRoot, StateRoot};
use tiltyard_proto::light::LightBlock;
use tiltyard_proto::receipt::{Entry, Receipt};
use tiltyard_proto::state::StateKey;
use tiltyard_proto::state_proof::StateProof;
use tiltyard_proto::units::{Height, Round, Stake, UnixMillis};
use tiltyard_proto::validators::{Validator, ValidatorSet};

pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// Blocks 1.. of one network, one a second.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) genesis: Genesis,
    pub(crate) blocks: Vec<LightBlock>,
    pub(crate) asked: Cell<u32>,
}

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn set(seeds: &[u8]) -> ValidatorSet {
    let mut members: Vec<Validator> =
        seeds.iter().map(|seed| Validator { key: secret(*seed).public(), stake: Stake::new(10) }).collect();
    members.sort();
    ValidatorSet::try_from(members).expect("distinct seeds make a set")
}

/// Makes a chain whose set is `sets[i]` during the i-th stretch of `stretch` blocks. `mark` tells forks apart.
pub(crate) fn chain(sets: &[&[u8]], stretch: u64, mark: u8) -> Chain {
    let first = set(sets[0]);
    let validators = first
        .members()
        .iter()
        .map(|member| GenesisValidator {
            key: member.key,
            stake: member.stake,
            peer: ByteBuf::new(),
            addresses: Vec::new(),
            payout: member.key,
        })
        .collect();
    let genesis = Genesis {
        version: Genesis::VERSION,
        name: "light-test".to_owned(),
        time: UnixMillis::new(START_MS),
        params: Params::default_for(4),
        validators,
        grants: Vec::new(),
    };
    let mut blocks: Vec<LightBlock> = Vec::new();
    let heights = stretch * sets.len() as u64;
    let mut parent = BlockHash::from_bytes(*genesis.hash().as_bytes());
    for height in 1..=heights {
        let seeds_at = |height: u64| sets[(((height - 1) / stretch) as usize).min(sets.len() - 1)];
        let block = block(&genesis, height, parent, seeds_at(height), seeds_at(height + 1), mark);
        parent = block.header.hash();
        blocks.push(block);
    }
    Chain { genesis, blocks, asked: Cell::new(0) }
}

fn block(
    genesis: &Genesis,
    height: u64,
    parent: BlockHash,
    seeds: &[u8],
    next: &[u8],
    mark: u8,
) -> LightBlock {
    let (set, next_set) = (set(seeds), set(next));
    let header = Header {
        version: Header::VERSION,
        genesis: genesis.hash(),
        height: Height::new(height),
        time: UnixMillis::new(START_MS + height * 1_000),
        parent,
        parent_certificate: CertificateHash::from_bytes([0; 32]),
        builder: set.members()[0].key,
        tx_root: MerkleRoot::from_bytes([mark; 32]),
        state_root: StateRoot::from_bytes(tiltyard_proto::state_proof::EMPTY_SUBTREE),
        validators_hash: set.hash(),
        next_validators_hash: next_set.hash(),
        params_hash: genesis.params.hash(),
    };
    let unsigned = Certificate::build(header.height, Round::ZERO, header.hash(), &set, &[]).payload();
    let precommits: Vec<(PublicKey, Signature)> = seeds
        .iter()
        .map(|seed| (secret(*seed).public(), secret(*seed).signer(genesis.hash()).sign_vote(&unsigned)))
        .collect();
    let certificate = Certificate::build(header.height, Round::ZERO, header.hash(), &set, &precommits);
    LightBlock { header, certificate, set, next_set }
}

impl Source for Chain {
    fn genesis(&self) -> Result<Genesis, SourceError> {
        Ok(self.genesis.clone())
    }

    fn block(&self, height: Option<Height>) -> Result<LightBlock, SourceError> {
        self.asked.set(self.asked.get() + 1);
        let at = height.map_or(self.blocks.len(), |height| height.get() as usize);
        self.blocks.get(at.wrapping_sub(1)).cloned().ok_or(SourceError::Refused {
            url: "memory".to_owned(),
            status: 404,
            fact: "no such block".to_owned(),
        })
    }

    fn state(&self, key: &StateKey) -> Result<Receipt, SourceError> {
        let tip = self.block(None)?;
        Ok(Receipt {
            version: Receipt::VERSION,
            genesis: self.genesis.hash(),
            genesis_bytes: None,
            changes: Vec::new(),
            header: tip.header,
            certificate: tip.certificate,
            entry: Entry::State {
                key: *key,
                value: None,
                proof: StateProof { leaf: None, siblings: Vec::new() },
            },
        })
    }
}
