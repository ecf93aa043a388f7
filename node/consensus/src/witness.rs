//! Remembers what every validator said, and proves when one said two different things.
//!
//! The core forgets a height once it is decided; contradictions that arrive later are caught here.

use std::collections::{BTreeMap, BTreeSet};

use tiltyard_keys::PublicKey;
use tiltyard_proto::evidence::Evidence;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Height, Round};
use tiltyard_proto::vote::{SignedProposal, SignedVote, VoteKind};
use tiltyard_proto::wire::ConsensusMessage;

/// Heights behind the newest one that are remembered.
const HEIGHTS_KEPT: u64 = 16;
/// Most different (round, kind) slots remembered per validator and height.
const SLOTS_MAX: usize = 64;

#[derive(Debug, Default)]
struct Sayings {
    votes: BTreeMap<(Round, VoteKind), SignedVote>,
    proposals: BTreeMap<Round, SignedProposal>,
    proven: bool,
}

/// A bounded table (height, validator, round, kind) → what was said. Holds verified messages only.
#[derive(Debug, Default)]
pub struct Witness {
    said: BTreeMap<(Height, PublicKey), Sayings>,
}

impl Witness {
    /// Notes a verified message; returns proof the first time a validator contradicts itself at a height.
    pub fn note(&mut self, message: &ConsensusMessage) -> Vec<Evidence> {
        match message {
            ConsensusMessage::Vote(vote) => self.vote(*vote).into_iter().collect(),
            ConsensusMessage::Proposal(proposal) => self.proposal(*proposal).into_iter().collect(),
            ConsensusMessage::Polka { proof, .. } | ConsensusMessage::RoundChange { proof, .. } => {
                proof.votes.iter().filter_map(|vote| self.vote(*vote)).collect()
            }
        }
    }

    fn vote(&mut self, vote: SignedVote) -> Option<Evidence> {
        let sayings = self.said.entry((vote.vote.height, vote.vote.validator)).or_default();
        let slot = (vote.vote.round, vote.vote.kind);
        match sayings.votes.get(&slot) {
            None => {
                if sayings.votes.len() < SLOTS_MAX {
                    sayings.votes.insert(slot, vote);
                }
                None
            }
            Some(before) if before.vote == vote.vote || sayings.proven => None,
            Some(before) => {
                let evidence = Evidence::votes(*before, vote);
                sayings.proven = true;
                Some(evidence)
            }
        }
    }

    fn proposal(&mut self, proposal: SignedProposal) -> Option<Evidence> {
        let said = &proposal.proposal;
        let sayings = self.said.entry((said.height, said.proposer)).or_default();
        match sayings.proposals.get(&said.round) {
            None => {
                if sayings.proposals.len() < SLOTS_MAX {
                    sayings.proposals.insert(said.round, proposal);
                }
                None
            }
            Some(before) if before.proposal == proposal.proposal || sayings.proven => None,
            Some(before) => {
                let evidence = Evidence::proposals(*before, proposal);
                sayings.proven = true;
                Some(evidence)
            }
        }
    }

    /// Says whether this very message was noted before.
    #[must_use]
    pub fn has(&self, message: &ConsensusMessage) -> bool {
        match message {
            ConsensusMessage::Vote(vote) => self
                .said
                .get(&(vote.vote.height, vote.vote.validator))
                .and_then(|sayings| sayings.votes.get(&(vote.vote.round, vote.vote.kind)))
                .is_some_and(|before| before == vote),
            ConsensusMessage::Proposal(signed) => self
                .said
                .get(&(signed.proposal.height, signed.proposal.proposer))
                .and_then(|sayings| sayings.proposals.get(&signed.proposal.round))
                .is_some_and(|before| before == signed),
            ConsensusMessage::Polka { .. } | ConsensusMessage::RoundChange { .. } => false,
        }
    }

    /// Lists who voted for or proposed `block` at `height`.
    #[must_use]
    pub fn holders(&self, height: Height, block: &BlockHash) -> BTreeSet<PublicKey> {
        self.of_height(height)
            .filter(|(_, sayings)| {
                sayings.votes.values().any(|vote| vote.vote.block == Some(*block))
                    || sayings.proposals.values().any(|said| said.proposal.block == *block)
            })
            .map(|(key, _)| *key)
            .collect()
    }

    /// Lists who was heard at `height`.
    #[must_use]
    pub fn speakers(&self, height: Height) -> BTreeSet<PublicKey> {
        self.of_height(height).map(|(key, _)| *key).collect()
    }

    fn of_height(&self, height: Height) -> impl Iterator<Item = (&PublicKey, &Sayings)> {
        let first = (height, PublicKey::from_bytes([0; 32]));
        let last = (height, PublicKey::from_bytes([0xff; 32]));
        self.said.range(first..=last).map(|((_, key), sayings)| (key, sayings))
    }

    /// Forgets what is too far behind `height`.
    pub fn prune(&mut self, height: Height) {
        let oldest = Height::new(height.get().saturating_sub(HEIGHTS_KEPT));
        self.said.retain(|(at, _), _| *at >= oldest);
    }
}
