//! Consensus messages: votes, proposals, and the bytes that are signed for them.

use serde::{Deserialize, Serialize};
use tiltyard_keys::{PublicKey, Signature, SignatureError, Signer, Verifier};

use crate::ids::BlockHash;
use crate::units::{Height, Round};

/// Which of the two votes of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum VoteKind {
    /// First vote of a round.
    Prevote,
    /// Second vote of a round; more than 2/3 of them decide.
    Precommit,
}

/// What one validator says in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Vote {
    /// Which vote.
    pub kind: VoteKind,
    /// Height voted on.
    pub height: Height,
    /// Round voted on.
    pub round: Round,
    /// The block, or nil.
    pub block: Option<BlockHash>,
    /// Who votes.
    pub validator: PublicKey,
}

impl Vote {
    /// Returns the signed payload: kind (1 or 2) ‖ height ‖ round ‖ 0, or 1 ‖ block hash; integers big-endian.
    ///
    /// The voter's key is not part of it, so that a certificate needs one payload for all signatures.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(46);
        out.push(match self.kind {
            VoteKind::Prevote => 1,
            VoteKind::Precommit => 2,
        });
        out.extend_from_slice(&self.height.get().to_be_bytes());
        out.extend_from_slice(&self.round.get().to_be_bytes());
        match &self.block {
            None => out.push(0),
            Some(hash) => {
                out.push(1);
                out.extend_from_slice(hash.as_bytes());
            }
        }
        out
    }

    /// Signs the vote.
    #[must_use]
    pub fn sign(self, signer: &Signer) -> SignedVote {
        SignedVote { vote: self, signature: signer.sign_vote(&self.payload()) }
    }
}

/// A vote with its signature, not yet verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SignedVote {
    /// The vote.
    pub vote: Vote,
    /// The voter's signature over [`Vote::payload`].
    pub signature: Signature,
}

impl SignedVote {
    /// Checks the signature.
    ///
    /// # Errors
    /// [`SignatureError`] when it does not fit.
    pub fn verify(&self, verifier: &Verifier) -> Result<(), SignatureError> {
        verifier.verify_vote(&self.vote.validator, &self.vote.payload(), &self.signature)
    }
}

/// A proposer's offer of a block for one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Proposal {
    /// Height proposed for.
    pub height: Height,
    /// Round proposed in.
    pub round: Round,
    /// The block.
    pub block: BlockHash,
    /// Round of the proof of lock, for a re-proposed block.
    pub lock_round: Option<Round>,
    /// Who proposes.
    pub proposer: PublicKey,
}

impl Proposal {
    /// Returns the signed payload: height ‖ round ‖ block hash ‖ 0, or 1 ‖ lock round; integers big-endian.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(49);
        out.extend_from_slice(&self.height.get().to_be_bytes());
        out.extend_from_slice(&self.round.get().to_be_bytes());
        out.extend_from_slice(self.block.as_bytes());
        match self.lock_round {
            None => out.push(0),
            Some(round) => {
                out.push(1);
                out.extend_from_slice(&round.get().to_be_bytes());
            }
        }
        out
    }

    /// Signs the proposal.
    #[must_use]
    pub fn sign(self, signer: &Signer) -> SignedProposal {
        SignedProposal { proposal: self, signature: signer.sign_proposal(&self.payload()) }
    }
}

/// A proposal with its signature, not yet verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SignedProposal {
    /// The proposal.
    pub proposal: Proposal,
    /// The proposer's signature over [`Proposal::payload`].
    pub signature: Signature,
}

impl SignedProposal {
    /// Checks the signature.
    ///
    /// # Errors
    /// [`SignatureError`] when it does not fit.
    pub fn verify(&self, verifier: &Verifier) -> Result<(), SignatureError> {
        verifier.verify_proposal(&self.proposal.proposer, &self.proposal.payload(), &self.signature)
    }
}
