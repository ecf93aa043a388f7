//! The tip of the chain and the blocks that may come next.

mod build;
mod judge;
mod verified;

use std::collections::BTreeMap;

use tiltyard_keys::Verifier;
use tiltyard_ledger::{Executed, ReadError, StateRead, query};
use tiltyard_proto::block::{Block, DecidedBlock};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::genesis::{Genesis, Params};
use tiltyard_proto::ids::{BlockHash, ValidatorsHash};
use tiltyard_proto::transaction::{SignedTransaction, TransactionError, VerifiedTransaction};
use tiltyard_proto::units::{Height, Round, UnixMillis};
use tiltyard_proto::validators::ValidatorSet;

pub(crate) use judge::{Unfit, decode};
use verified::Verified;

/// Candidates kept for the next height; every round's proposer can add one.
const CANDIDATES_MAX: usize = 32;

/// The last durable block, and what decides the next one.
#[derive(Debug, Clone)]
pub(crate) struct Tip {
    pub(crate) height: Height,
    pub(crate) hash: BlockHash,
    pub(crate) time: UnixMillis,
    /// What decided it; none at genesis.
    pub(crate) certificate: Option<Certificate>,
    /// The set that decided it; the first set at genesis.
    pub(crate) set: ValidatorSet,
    /// The set that decides the next block.
    pub(crate) next_set: ValidatorSet,
    pub(crate) next_set_hash: ValidatorsHash,
    /// Parameters in force in the next block.
    pub(crate) params: Params,
}

impl Tip {
    /// Reads the tip from the last block and the state after it.
    pub(crate) fn read(
        genesis: &Genesis,
        state: &dyn StateRead,
        last: Option<&DecidedBlock>,
    ) -> Result<Self, ReadError> {
        let params = query::params(state)?;
        let height = last.map_or(Height::ZERO, |decided| decided.block.header.height);
        let next_set = query::set_at(state, height.next())?;
        Ok(Self {
            height,
            hash: last.map_or_else(|| genesis.block_hash(), |decided| decided.block.hash()),
            time: last.map_or(genesis.time, |decided| decided.block.header.time),
            certificate: last.map(|decided| decided.certificate.clone()),
            set: query::set_at(state, height)?,
            next_set_hash: next_set.hash(),
            next_set,
            params,
        })
    }

    /// Returns the largest block allowed next, in bytes.
    pub(crate) fn block_bytes_max(&self) -> usize {
        usize::try_from(self.params.block_bytes_max).unwrap_or(usize::MAX)
    }
}

/// A proposed block that was executed.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) block: Block,
    pub(crate) bytes: Vec<u8>,
    pub(crate) executed: Result<Box<Executed>, Unfit>,
    /// Round and proposer that it was first offered by.
    pub(crate) offered: (Round, tiltyard_keys::PublicKey),
    /// Monotone clock at its first sight.
    pub(crate) seen_ms: u64,
    /// Its time is too far from this node's clock: agreement hears of it only with a proof of lock.
    pub(crate) withheld: bool,
}

/// The tip and the candidates for the next height.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) verifier: Verifier,
    pub(crate) tip: Tip,
    candidates: BTreeMap<BlockHash, Candidate>,
    verified: Verified,
}

impl Chain {
    pub(crate) fn new(verifier: Verifier, tip: Tip) -> Self {
        Self { verifier, tip, candidates: BTreeMap::new(), verified: Verified::default() }
    }

    /// Verifies a transaction's signature, unless just this was verified with a body for the next height.
    ///
    /// # Errors
    /// [`TransactionError`]
    pub(crate) fn verify(&self, signed: SignedTransaction) -> Result<VerifiedTransaction, TransactionError> {
        self.verified.verify(&self.verifier, signed)
    }

    pub(crate) fn next_height(&self) -> Height {
        self.tip.height.next()
    }

    pub(crate) fn candidate(&self, block: &BlockHash) -> Option<&Candidate> {
        self.candidates.get(block)
    }

    pub(crate) fn candidate_mut(&mut self, block: &BlockHash) -> Option<&mut Candidate> {
        self.candidates.get_mut(block)
    }

    pub(crate) fn candidates(&self) -> impl Iterator<Item = (&BlockHash, &Candidate)> {
        self.candidates.iter()
    }

    /// Keeps a candidate. A full table gives up an invalid one, else the one of the earliest round: peers still
    /// have it if it matters.
    pub(crate) fn keep(&mut self, hash: BlockHash, candidate: Candidate) {
        if self.candidates.len() >= CANDIDATES_MAX {
            let least = self
                .candidates
                .iter()
                .min_by_key(|(_, known)| (known.executed.is_ok(), known.offered.0))
                .map(|(hash, _)| *hash);
            if let Some(least) = least {
                self.candidates.remove(&least);
            }
        }
        self.candidates.insert(hash, candidate);
    }

    /// Takes the candidate that was decided.
    pub(crate) fn take(&mut self, block: &BlockHash) -> Option<Candidate> {
        self.candidates.remove(block)
    }

    /// Moves on; candidates of the old height are of no use any more.
    pub(crate) fn advance(&mut self, tip: Tip) {
        self.tip = tip;
        self.candidates.clear();
        self.verified.clear();
    }
}
