//! Scores: integers in micro-units, lower is better, one per example (SPEC.md, "Scoring v1").

use serde::{Deserialize, Serialize};
use tiltyard_keys::{GenesisHash, PublicKey};

use crate::hash::{context, derive};
use crate::ids::{MerkleRoot, Salt, ScoreCommitment, TaskId};
use crate::limits::EXAMPLES_MAX;

/// A score of one example: micro-nats for losses, micro-units elsewhere; clamped to 2^25.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroNats(u32);

impl MicroNats {
    /// The largest score; larger ones are clamped to it.
    pub const MAX: Self = Self(1 << 25);

    /// Clamps a number of micro-units into a score.
    #[must_use]
    pub const fn clamped(value: u64) -> Self {
        if value > Self::MAX.0 as u64 { Self::MAX } else { Self(value as u32) }
    }

    /// Returns the micro-units.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Why an entrant has no scores. Ties in a vote go to the first in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fault {
    /// The bytes are not the ones revealed, or not all there.
    Unavailable,
    /// Not the files the task asks for, or refused by the safe loader.
    Malformed,
    /// Shapes or names do not fit the task's base.
    WrongBase,
    /// Larger than the task or the loader allows.
    OverLimits,
    /// Weights or scores that are not finite numbers.
    NotFinite,
    /// The evaluation ended without a result.
    Crashed,
    /// The evaluation took more time or memory than the task allows.
    OutOfResources,
    /// The evaluation set itself cannot be used (row 0 only): the requester's fault.
    EvaluationUnusable,
}

impl Fault {
    /// Every fault, in order.
    pub const ALL: [Self; 8] = [
        Self::Unavailable,
        Self::Malformed,
        Self::WrongBase,
        Self::OverLimits,
        Self::NotFinite,
        Self::Crashed,
        Self::OutOfResources,
        Self::EvaluationUnusable,
    ];

    /// Returns the byte that stands for the fault on the ledger.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unavailable => 0,
            Self::Malformed => 1,
            Self::WrongBase => 2,
            Self::OverLimits => 3,
            Self::NotFinite => 4,
            Self::Crashed => 5,
            Self::OutOfResources => 6,
            Self::EvaluationUnusable => 7,
        }
    }
}

/// What one validator says of one entrant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    /// One score per example, in the order of the evaluation set.
    Scores(Vec<MicroNats>),
    /// No scores, and why.
    Fault(Fault),
}

/// Says why row bytes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Neither one fault byte nor four bytes an example.
    #[error("row has {length} bytes; a task of {examples} examples has rows of {} bytes, or 1 for a fault", examples.saturating_mul(4))]
    Length {
        /// Bytes given.
        length: usize,
        /// Examples of the task.
        examples: usize,
    },
    /// No fault has this code.
    #[error("row says fault {code}, which does not exist; the sender speaks another version")]
    UnknownFault {
        /// The byte given.
        code: u8,
    },
    /// A score above the clamp.
    #[error("score {score} of example {example} is above 2^25; scores are clamped before they are sent")]
    AboveClamp {
        /// Position of the example, from 0.
        example: usize,
        /// The score given.
        score: u32,
    },
}

impl Row {
    /// Returns the bytes that go on the ledger: 4 big-endian bytes a score, or one byte for a fault.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Scores(scores) => scores.iter().flat_map(|s| s.0.to_be_bytes()).collect(),
            Self::Fault(fault) => vec![fault.code()],
        }
    }

    /// Reads the bytes of a row for a task of `examples` examples.
    ///
    /// # Errors
    /// [`RowError`] when the length does not fit or a value is out of range.
    pub fn from_bytes(bytes: &[u8], examples: usize) -> Result<Self, RowError> {
        if let [code] = bytes {
            return Fault::ALL
                .into_iter()
                .find(|fault| fault.code() == *code)
                .map(Self::Fault)
                .ok_or(RowError::UnknownFault { code: *code });
        }
        let expected = examples.saturating_mul(4);
        if bytes.len() != expected || examples == 0 || examples > EXAMPLES_MAX {
            return Err(RowError::Length { length: bytes.len(), examples });
        }
        let mut scores = Vec::with_capacity(examples);
        for (example, cell) in bytes.as_chunks::<4>().0.iter().enumerate() {
            let score = u32::from_be_bytes(*cell);
            if score > MicroNats::MAX.0 {
                return Err(RowError::AboveClamp { example, score });
            }
            scores.push(MicroNats(score));
        }
        Ok(Self::Scores(scores))
    }
}

/// Returns the commitment that hides `rows_root` until the rows are opened.
#[must_use]
pub fn score_commitment(
    genesis: &GenesisHash,
    task: &TaskId,
    validator: &PublicKey,
    rows_root: &MerkleRoot,
    salt: &Salt,
) -> ScoreCommitment {
    ScoreCommitment::from_bytes(derive(
        context::SCORE,
        &[genesis.as_bytes(), task.as_bytes(), validator.as_bytes(), rows_root.as_bytes(), salt.as_bytes()],
    ))
}
