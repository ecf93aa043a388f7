//! The vote journal's entries: what must survive a crash so that a restarted node says nothing else than before.
//!
//! A batch is the canonical bytes of the height and the entries that were made durable together.

use malachite_core::{Input, ProposedValue};
use malachite_types as mt;
use serde::{Deserialize, Serialize};
use tiltyard_keys::PublicKey;
use tiltyard_proto::codec::{self, CodecError};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Height, Round};
use tiltyard_proto::wire::ConsensusMessage;

use crate::context::{Address, At, Candidate, Context};
use crate::convert;
use crate::durable::{JournalWrite, Sealed};

/// Largest batch read back, in bytes.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Says why a journal cannot be used. The node must not sign with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A batch that is not what this program wrote.
    #[error("vote journal is damaged: {0}; restore it or retire this validator key")]
    Damaged(#[from] CodecError),
}

/// A step's timeout that was acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    Propose,
    Prevote,
    Precommit,
}

/// One input that consensus acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Entry {
    Message(ConsensusMessage),
    Timeout { step: Step, round: Round },
    Value(RecordedValue),
}

/// A proposed block as it was judged before a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedValue {
    /// Height.
    pub height: Height,
    /// Round it was offered in.
    pub round: Round,
    /// Round of the proof of lock that came with it.
    pub lock_round: Option<Round>,
    /// Who offered it.
    pub proposer: PublicKey,
    /// The block.
    pub block: BlockHash,
    /// Whether it was found valid.
    pub valid: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Batch {
    height: Height,
    entries: Vec<Entry>,
}

/// Lists the blocks that journal batches of `height` judged, so that the caller can execute them again and compare.
///
/// # Errors
/// [`JournalError`] when a batch cannot be read.
pub fn recorded_values(height: Height, batches: &[Vec<u8>]) -> Result<Vec<RecordedValue>, JournalError> {
    let mut values = Vec::new();
    for entry in entries(height, batches)? {
        match entry {
            Entry::Value(value) => values.push(value),
            Entry::Message(_) | Entry::Timeout { .. } => {}
        }
    }
    Ok(values)
}

/// Returns the height that a journal belongs to; `None` for an empty one.
///
/// # Errors
/// [`JournalError`] when its newest batch cannot be read.
pub fn recorded_height(batches: &[Vec<u8>]) -> Result<Option<Height>, JournalError> {
    let Some(bytes) = batches.last() else { return Ok(None) };
    let batch: Batch = codec::decode("vote journal batch", bytes, BATCH_BYTES_MAX)?;
    Ok(Some(batch.height))
}

fn entries(height: Height, batches: &[Vec<u8>]) -> Result<Vec<Entry>, JournalError> {
    let mut all = Vec::new();
    for bytes in batches {
        let batch: Batch = codec::decode("vote journal batch", bytes, BATCH_BYTES_MAX)?;
        if batch.height == height {
            all.extend(batch.entries);
        }
    }
    Ok(all)
}

/// Collects entries until something is about to leave the node.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    height: Height,
    pending: Vec<Entry>,
    /// Encodings already durable, known during replay only.
    replayed: std::collections::BTreeSet<Vec<u8>>,
    /// The durable journal already belongs to this height.
    begun: bool,
    /// Batches taken in this run.
    batches: u64,
}

impl Journal {
    /// Begins a height. Returns the inputs that were recorded for it.
    pub(crate) fn begin(
        &mut self,
        height: Height,
        batches: &[Vec<u8>],
    ) -> Result<Vec<Input<Context>>, JournalError> {
        let recorded = entries(height, batches)?;
        self.height = height;
        self.pending.clear();
        self.begun = !recorded.is_empty();
        self.replayed = recorded.iter().map(codec::encode).collect();
        Ok(recorded.iter().map(to_input).collect())
    }

    /// Ends replay: from here every entry is new.
    pub(crate) fn replayed(&mut self) {
        self.replayed.clear();
    }

    /// Adds an entry; returns false for an input that must never be recorded.
    pub(crate) fn add(&mut self, input: &Input<Context>) -> bool {
        let Some(entry) = from_input(input) else {
            return false;
        };
        // Replay appends only what the crash kept from being recorded, else a second crash could lose it.
        if self.replayed.is_empty() || !self.replayed.contains(&codec::encode(&entry)) {
            self.pending.push(entry);
        }
        true
    }

    /// Seals something that leaves until what is recorded so far is durable.
    pub(crate) fn seal<T>(&self, content: T) -> Sealed<T> {
        let waits = u64::from(!self.pending.is_empty());
        Sealed::new(self.batches.saturating_add(waits), content)
    }

    /// Takes what has to become durable, with `true` when it replaces an earlier height's journal.
    pub(crate) fn take(&mut self) -> Option<(bool, JournalWrite)> {
        if self.pending.is_empty() {
            return None;
        }
        let batch = Batch { height: self.height, entries: core::mem::take(&mut self.pending) };
        let fresh = !self.begun;
        self.begun = true;
        self.batches = self.batches.saturating_add(1);
        Some((fresh, JournalWrite::new(self.batches, codec::encode(&batch))))
    }
}

fn from_input(input: &Input<Context>) -> Option<Entry> {
    Some(match input {
        Input::Vote(vote) => Entry::Message(ConsensusMessage::Vote(convert::signed_vote_of(vote))),
        Input::Proposal(proposal) => {
            Entry::Message(ConsensusMessage::Proposal(convert::signed_proposal_of(proposal)))
        }
        Input::PolkaCertificate(polka) => Entry::Message(convert::polka_of(polka)),
        Input::TimeoutElapsed(timeout) => Entry::Timeout {
            step: match timeout.kind {
                mt::TimeoutKind::Propose => Step::Propose,
                mt::TimeoutKind::Prevote => Step::Prevote,
                mt::TimeoutKind::Precommit => Step::Precommit,
                mt::TimeoutKind::Rebroadcast | mt::TimeoutKind::FinalizeHeight(_) => return None,
            },
            round: convert::round_of(timeout.round)?,
        },
        Input::ProposedValue(value, _) => Entry::Value(RecordedValue {
            height: value.height.0,
            round: convert::round_of(value.round)?,
            lock_round: convert::round_of(value.valid_round),
            proposer: value.proposer.0,
            block: value.value.0,
            valid: value.validity.is_valid(),
        }),
        Input::StartHeight(..)
        | Input::RoundCertificate(_)
        | Input::Propose(_)
        | Input::SyncValueResponse(_) => return None,
    })
}

fn to_input(entry: &Entry) -> Input<Context> {
    match entry {
        Entry::Message(message) => message_input(message),
        Entry::Timeout { step, round } => {
            let kind = match step {
                Step::Propose => mt::TimeoutKind::Propose,
                Step::Prevote => mt::TimeoutKind::Prevote,
                Step::Precommit => mt::TimeoutKind::Precommit,
            };
            Input::TimeoutElapsed(mt::Timeout::new(convert::core_round(*round), kind))
        }
        Entry::Value(value) => Input::ProposedValue(
            ProposedValue {
                height: At(value.height),
                round: convert::core_round(value.round),
                valid_round: value.lock_round.map_or(mt::Round::Nil, convert::core_round),
                proposer: Address(value.proposer),
                value: Candidate(value.block),
                validity: mt::Validity::from_bool(value.valid),
            },
            mt::ValueOrigin::Consensus,
        ),
    }
}

/// Turns a checked message into an input of the core.
pub(crate) fn message_input(message: &ConsensusMessage) -> Input<Context> {
    match message {
        ConsensusMessage::Vote(vote) => Input::Vote(convert::core_signed_vote(vote)),
        ConsensusMessage::Proposal(proposal) => Input::Proposal(convert::core_signed_proposal(proposal)),
        ConsensusMessage::Polka { block, proof } => {
            Input::PolkaCertificate(convert::core_polka(*block, proof))
        }
        ConsensusMessage::RoundChange { kind, proof } => {
            Input::RoundCertificate(convert::core_round_change(*kind, proof))
        }
    }
}
