//! Proof that one key signed two different things where it may sign one.

use serde::{Deserialize, Serialize};
use tiltyard_keys::{PublicKey, SignatureError, Verifier};

use crate::units::Height;
use crate::vote::{SignedProposal, SignedVote};

/// Two contradicting messages of one key, the smaller encoding first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// Two votes of one kind in one round.
    Votes(Box<SignedVote>, Box<SignedVote>),
    /// Two proposals in one round.
    Proposals(Box<SignedProposal>, Box<SignedProposal>),
}

/// Says why evidence proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Different keys, heights, rounds or kinds.
    #[error("the two messages are not by one key for one height, round and kind")]
    NotComparable,
    /// The same value twice, or in the wrong order.
    #[error("the two messages agree, or are not in order")]
    NoConflict,
    /// A signature that does not fit.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl Evidence {
    /// Orders two votes into evidence.
    #[must_use]
    pub fn votes(a: SignedVote, b: SignedVote) -> Self {
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        Self::Votes(Box::new(first), Box::new(second))
    }

    /// Orders two proposals into evidence.
    #[must_use]
    pub fn proposals(a: SignedProposal, b: SignedProposal) -> Self {
        let (first, second) = if a <= b { (a, b) } else { (b, a) };
        Self::Proposals(Box::new(first), Box::new(second))
    }

    /// Returns the key accused.
    #[must_use]
    pub fn culprit(&self) -> PublicKey {
        match self {
            Self::Votes(a, _) => a.vote.validator,
            Self::Proposals(a, _) => a.proposal.proposer,
        }
    }

    /// Returns the height at which it happened.
    #[must_use]
    pub fn height(&self) -> Height {
        match self {
            Self::Votes(a, _) => a.vote.height,
            Self::Proposals(a, _) => a.proposal.height,
        }
    }

    /// Checks both signatures and that they contradict each other.
    ///
    /// # Errors
    /// [`EvidenceError`] naming what does not fit.
    pub fn verify(&self, verifier: &Verifier) -> Result<(), EvidenceError> {
        match self {
            Self::Votes(a, b) => {
                let (x, y) = (&a.vote, &b.vote);
                if (x.kind, x.height, x.round, x.validator) != (y.kind, y.height, y.round, y.validator) {
                    return Err(EvidenceError::NotComparable);
                }
                if x.block == y.block || a > b {
                    return Err(EvidenceError::NoConflict);
                }
                a.verify(verifier)?;
                b.verify(verifier)?;
            }
            Self::Proposals(a, b) => {
                let (x, y) = (&a.proposal, &b.proposal);
                if (x.height, x.round, x.proposer) != (y.height, y.round, y.proposer) {
                    return Err(EvidenceError::NotComparable);
                }
                let same = (x.block, x.lock_round) == (y.block, y.lock_round);
                if same || a > b {
                    return Err(EvidenceError::NoConflict);
                }
                a.verify(verifier)?;
                b.verify(verifier)?;
            }
        }
        Ok(())
    }
}
