//! Parts that samples and tests are made of.

use tiltyard_proto::block::{Block, Body, DecidedBlock, Header};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::ids::*;
use tiltyard_proto::keys::{GenesisHash, PublicKey, SecretKey, Signature};
use tiltyard_proto::manifest::{BlobKind, BlobRef, FileEntry, Manifest};
use tiltyard_proto::merkle::MerklePath;
use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy};
use tiltyard_proto::state_proof::{ProofLeaf, StateProof};
use tiltyard_proto::task::{Payout, SealedSet, TaskKind, TaskSpec, Windows, seal_key_hash};
use tiltyard_proto::transaction::{Action, SignedTransaction, Transaction};
use tiltyard_proto::units::*;
use tiltyard_proto::validators::{Validator, ValidatorSet};
use tiltyard_proto::vote::{Vote, VoteKind};

pub(crate) fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

pub(crate) fn key(n: u8) -> PublicKey {
    secret(n).public()
}

/// Secrets of the sample validators, sorted by public key.
pub(crate) fn validators() -> Vec<SecretKey> {
    let mut secrets: Vec<SecretKey> = (1..=4).map(secret).collect();
    secrets.sort_by_key(SecretKey::public);
    secrets
}

pub(crate) fn set() -> ValidatorSet {
    set_of(&validators(), 1_000)
}

pub(crate) fn set_of(secrets: &[SecretKey], stake: u64) -> ValidatorSet {
    let mut members: Vec<Validator> =
        secrets.iter().map(|s| Validator { key: s.public(), stake: Stake::new(stake) }).collect();
    members.sort();
    ValidatorSet::try_from(members).expect("sample keys are distinct and strong")
}

pub(crate) fn genesis() -> Genesis {
    let validators = validators()
        .iter()
        .map(|secret| GenesisValidator {
            key: secret.public(),
            stake: Stake::new(1_000),
            peer: vec![0, 36, 8, 1, 18, 32].into(),
            addresses: vec!["/ip4/127.0.0.1/tcp/4001".to_owned()],
            payout: key(20),
        })
        .collect();
    let mut grants = vec![
        Grant { account: key(10), amount: MicroCredits::new(5_000_000) },
        Grant { account: key(11), amount: MicroCredits::new(7_000_000) },
    ];
    grants.sort();
    Genesis {
        version: 1,
        name: "sample".to_owned(),
        time: UnixMillis::new(1_795_000_000_000),
        params: Params::default_for(4),
        validators,
        grants,
    }
}

pub(crate) fn genesis_hash() -> GenesisHash {
    genesis().hash()
}

pub(crate) fn task() -> TaskId {
    TaskId::from_bytes([0x70; 32])
}

pub(crate) fn seal_key() -> SealKey {
    SealKey::from_bytes([0x5e; 32])
}

pub(crate) fn salt() -> Salt {
    Salt::from_bytes([0x5a; 32])
}

pub(crate) fn blob(n: u8) -> BlobRef {
    BlobRef { root: BlobRoot::from_bytes([n; 32]), bytes: 1_000_000 + u64::from(n) }
}

pub(crate) fn spec(kind: TaskKind) -> TaskSpec {
    TaskSpec {
        title: "define".to_owned(),
        kind,
        base: blob(0xb0),
        training: blob(0xb1),
        evaluation: SealedSet {
            ciphertext: blob(0xb2),
            key_hash: seal_key_hash(&seal_key()),
            examples: 200,
            plaintext_bytes: 40_000,
        },
        windows: Windows {
            open: Blocks::new(8),
            commit: Blocks::new(130),
            reveal: Blocks::new(8),
            held: Blocks::new(8),
            key: Blocks::new(8),
            score_commit: Blocks::new(50),
            score_open: Blocks::new(8),
        },
        pot: MicroCredits::new(1_000_000),
        payout: Payout::ThreePlaces,
        min_gain: Ppm::new(10_000),
        bond: MicroCredits::new(200_000),
        entrants_max: 16,
        unbonded_max: 2,
        checkpoint_bytes_max: 8_000_000,
        reference: Some(recipe().hash()),
        small_set: false,
    }
}

pub(crate) fn recipe() -> Recipe {
    Recipe {
        version: 1,
        trainer: "tiltyard-train 0.1.0".to_owned(),
        strategy: Strategy::Fixed("autotrain-ui".to_owned()),
        method: Method::Lora {
            rank: 16,
            alpha_milli: 32_000,
            dropout_ppm: 50_000,
            targets: Method::ALL_LINEAR,
        },
        learning_rate_nano: 200_000,
        schedule: Schedule::Linear,
        warmup_ppm: 100_000,
        batch_rows: 2,
        accumulation: 4,
        steps: 150,
        sequence_tokens: 1_024,
        packing: true,
        weight_decay_ppm: 10_000,
        clip_milli: 1_000,
        seed: u64::MAX,
        tokens_trained: 300_000,
        extra: vec![("attention".to_owned(), "eager".to_owned())],
    }
}

pub(crate) fn manifest() -> Manifest {
    let file = |name: &str, bytes, n| FileEntry {
        name: name.to_owned(),
        bytes,
        hash: FileHash::from_bytes([n; 32]),
    };
    Manifest {
        version: 1,
        kind: BlobKind::Adapter,
        base: Some(blob(0xb0).root),
        recipe: Some(recipe().hash()),
        files: vec![file("adapter_config.json", 512, 1), file("adapter_model.safetensors", 70_000, 2)],
    }
}

pub(crate) fn path() -> MerklePath {
    MerklePath { index: 1, count: 3, siblings: vec![MerkleRoot::from_bytes([1; 32]); 2] }
}

pub(crate) fn proof() -> StateProof {
    let leaf =
        ProofLeaf { key_hash: MerkleRoot::from_bytes([2; 32]), value_hash: MerkleRoot::from_bytes([3; 32]) };
    StateProof { leaf: Some(leaf), siblings: vec![MerkleRoot::from_bytes([4; 32])] }
}

pub(crate) fn transaction(action: Action) -> Transaction {
    Transaction {
        version: 1,
        genesis: genesis_hash(),
        sender: key(10),
        nonce: Nonce::new(3),
        fee: MicroCredits::new(1_000),
        valid_until: Height::new(300),
        action,
    }
}

pub(crate) fn signed(action: Action) -> SignedTransaction {
    transaction(action).sign(&secret(10).signer(genesis_hash())).into_signed()
}

pub(crate) fn transfer() -> Action {
    Action::Transfer { to: key(11), amount: MicroCredits::new(25) }
}

pub(crate) fn header() -> Header {
    Header {
        version: 1,
        genesis: genesis_hash(),
        height: Height::new(1),
        time: UnixMillis::new(1_795_000_001_000),
        parent: genesis().block_hash(),
        parent_certificate: CertificateHash::from_bytes([0; 32]),
        builder: key(1),
        tx_root: body().tx_root(),
        state_root: StateRoot::from_bytes([6; 32]),
        validators_hash: set().hash(),
        next_validators_hash: set().hash(),
        params_hash: genesis().params.hash(),
    }
}

pub(crate) fn body() -> Body {
    Body { parent_certificate: None, transactions: vec![signed(transfer())] }
}

pub(crate) fn block() -> Block {
    Block { header: header(), body: body() }
}

/// Signs `header` in `round` with the secrets at `who`.
pub(crate) fn certify(header: &Header, round: u32, secrets: &[SecretKey], who: &[usize]) -> Certificate {
    let vote = |secret: &SecretKey| Vote {
        kind: VoteKind::Precommit,
        height: header.height,
        round: Round::new(round),
        block: Some(header.hash()),
        validator: secret.public(),
    };
    let votes: Vec<(PublicKey, Signature)> = who
        .iter()
        .map(|at| {
            let secret = &secrets[*at];
            (secret.public(), vote(secret).sign(&secret.signer(header.genesis)).signature)
        })
        .collect();
    Certificate::build(header.height, Round::new(round), header.hash(), &set_of(secrets, 1_000), &votes)
}

pub(crate) fn certificate() -> Certificate {
    certify(&header(), 0, &validators(), &[0, 1, 3])
}

pub(crate) fn decided() -> DecidedBlock {
    DecidedBlock { block: block(), certificate: certificate() }
}

pub(crate) fn vote(kind: VoteKind, block: Option<BlockHash>) -> Vote {
    Vote { kind, height: Height::new(9), round: Round::new(2), block, validator: key(1) }
}

/// A generator for tests: splitmix64, the same numbers on every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}
