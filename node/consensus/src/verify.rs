//! Checks consensus messages before the core sees them, and remembers what was checked.

use std::collections::BTreeSet;

use tiltyard_keys::{PublicKey, Signature, SignatureError, Verifier};
use tiltyard_proto::hash;
use tiltyard_proto::units::Stake;
use tiltyard_proto::validators::{ValidatorSet, more_than_one_third};
use tiltyard_proto::vote::{SignedProposal, SignedVote, VoteKind};
use tiltyard_proto::wire::{ConsensusMessage, VoteProof};

/// Verified signatures remembered; a height of 128 validators needs a few hundred.
const MEMO_MAX: usize = 8_192;

/// Says why a consensus message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a member of the set; it may be one of another height.
    #[error("{key} is no validator of this height")]
    NotMember {
        /// Who claims to speak.
        key: PublicKey,
    },
    /// A signature that does not fit.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Votes that do not prove what the message claims.
    #[error("the votes do not prove the claim: {fact}")]
    Proof {
        /// What is wrong.
        fact: &'static str,
    },
}

/// Verifies signatures of one network once; the memory of verified ones is bounded.
#[derive(Debug)]
pub struct Authenticator {
    verifier: Verifier,
    fresh: BTreeSet<[u8; 32]>,
    old: BTreeSet<[u8; 32]>,
}

impl Authenticator {
    /// Makes an authenticator for the verifier's network.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, fresh: BTreeSet::new(), old: BTreeSet::new() }
    }

    /// Checks membership, signatures and proofs of a message against the set of its height.
    ///
    /// # Errors
    /// [`Refusal`] naming the first thing wrong.
    pub fn check(&mut self, message: &ConsensusMessage, set: &ValidatorSet) -> Result<(), Refusal> {
        match message {
            ConsensusMessage::Vote(vote) => self.vote_of_member(vote, set).map(|_| ()),
            ConsensusMessage::Proposal(signed) => {
                let key = signed.proposal.proposer;
                set.find(&key).ok_or(Refusal::NotMember { key })?;
                let lock = signed.proposal.lock_round;
                if lock.is_some_and(|lock| lock >= signed.proposal.round) {
                    return Err(Refusal::Proof { fact: "the lock is not of an earlier round" });
                }
                Ok(self.proposal(signed)?)
            }
            ConsensusMessage::Polka { block, proof } => {
                let fits = |vote: &SignedVote| {
                    vote.vote.kind == VoteKind::Prevote && vote.vote.block == Some(*block)
                };
                let stake = self.proof(proof, set, fits)?;
                quorum(set.is_quorum(stake))
            }
            ConsensusMessage::RoundChange { kind, proof } => match kind {
                VoteKind::Prevote => {
                    let stake = self.proof(proof, set, |_| true)?;
                    quorum(more_than_one_third(stake, set.total()))
                }
                VoteKind::Precommit => {
                    let precommit = |vote: &SignedVote| vote.vote.kind == VoteKind::Precommit;
                    let stake = self.proof(proof, set, precommit)?;
                    quorum(set.is_quorum(stake))
                }
            },
        }
    }

    fn proof(
        &mut self,
        proof: &VoteProof,
        set: &ValidatorSet,
        fits: impl Fn(&SignedVote) -> bool,
    ) -> Result<Stake, Refusal> {
        // A skip may carry both votes of a member.
        if proof.votes.len() > set.members().len().saturating_mul(2) {
            return Err(Refusal::Proof { fact: "more votes than the set can cast" });
        }
        let mut seen = BTreeSet::new();
        let mut stake = Stake::ZERO;
        for vote in &proof.votes {
            let of_round = vote.vote.height == proof.height && vote.vote.round == proof.round;
            if !of_round || !fits(vote) {
                return Err(Refusal::Proof { fact: "a vote for something else" });
            }
            let weight = self.vote_of_member(vote, set)?;
            if seen.insert(vote.vote.validator) {
                stake = stake.saturating_add(weight);
            }
        }
        Ok(stake)
    }

    fn vote_of_member(&mut self, vote: &SignedVote, set: &ValidatorSet) -> Result<Stake, Refusal> {
        let key = vote.vote.validator;
        let (_, member) = set.find(&key).ok_or(Refusal::NotMember { key })?;
        self.vote(vote)?;
        Ok(member.stake)
    }

    /// Checks a vote's signature alone.
    ///
    /// # Errors
    /// [`SignatureError`] when it does not fit.
    pub fn vote(&mut self, vote: &SignedVote) -> Result<(), SignatureError> {
        let name = name_of(b'v', &vote.vote.validator, &vote.vote.payload(), &vote.signature);
        let verifier = self.verifier;
        self.once(name, || vote.verify(&verifier))
    }

    /// Checks a proposal's signature alone.
    ///
    /// # Errors
    /// [`SignatureError`] when it does not fit.
    pub fn proposal(&mut self, signed: &SignedProposal) -> Result<(), SignatureError> {
        let proposal = &signed.proposal;
        let name = name_of(b'p', &proposal.proposer, &proposal.payload(), &signed.signature);
        let verifier = self.verifier;
        self.once(name, || signed.verify(&verifier))
    }

    fn once(
        &mut self,
        name: [u8; 32],
        verify: impl FnOnce() -> Result<(), SignatureError>,
    ) -> Result<(), SignatureError> {
        if self.fresh.contains(&name) || self.old.contains(&name) {
            return Ok(());
        }
        verify()?;
        if self.fresh.len() >= MEMO_MAX / 2 {
            self.old = core::mem::take(&mut self.fresh);
        }
        self.fresh.insert(name);
        Ok(())
    }
}

fn quorum(met: bool) -> Result<(), Refusal> {
    if met { Ok(()) } else { Err(Refusal::Proof { fact: "too little stake" }) }
}

fn name_of(purpose: u8, key: &PublicKey, payload: &[u8], signature: &Signature) -> [u8; 32] {
    hash::plain(&[&[purpose], key.as_bytes().as_slice(), signature.as_bytes(), payload].concat())
}
