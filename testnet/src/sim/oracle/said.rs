//! What nodes say, to each other and to people: nothing before it is durable, nothing twice, no blame on the honest.

use tiltyard_ledger::LedgerEvent;
use tiltyard_machine::Event;
use tiltyard_proto::vote::VoteKind;
use tiltyard_proto::wire::{ConsensusMessage, GossipMessage};

use super::{Content, Frame, Oracle, Violation};

impl Oracle {
    /// An honest node sends a frame of its own.
    pub(crate) fn published(&mut self, node: usize, frame: &Frame, durable: &Content) {
        let (slot, block) = match &frame.message {
            GossipMessage::Consensus(frame) => match &frame.message {
                ConsensusMessage::Vote(signed) => {
                    let vote = &signed.vote;
                    let kind = match vote.kind {
                        VoteKind::Prevote => 0,
                        VoteKind::Precommit => 1,
                    };
                    ((node, vote.height, vote.round, kind), vote.block)
                }
                ConsensusMessage::Proposal(signed) => {
                    let said = &signed.proposal;
                    ((node, said.height, said.round, 2), Some(said.block))
                }
                ConsensusMessage::Polka { .. } | ConsensusMessage::RoundChange { .. } => return,
            },
            GossipMessage::Transactions(_, list) => {
                let height = self.height();
                if let Some(timely) = &mut self.timely {
                    timely.sent(height, list);
                }
                return;
            }
            GossipMessage::Body(_) | GossipMessage::Block(_) => return,
        };
        let (_, height, round, kind) = slot;
        let what = ["prevote", "precommit", "proposal"].get(usize::from(kind)).copied().unwrap_or_default();
        if let Some(block) = block {
            let in_log = durable.block(height.get());
            let kept = durable.bodies.contains_key(&block)
                || in_log.is_some_and(|decided| decided.block.hash() == block);
            if !kept {
                let fact = format!("{what} for {block} at height {height}, whose body is not durable");
                self.say(Violation::Undurable { node, fact });
            }
        }
        if let Some(before) = self.said.insert(slot, block)
            && before != block
        {
            let fact = format!("{what} at height {height} round {round}: {before:?}, then {block:?}");
            self.say(Violation::Contradiction { node, fact });
        }
    }

    /// An honest node refused a frame as provably bad.
    pub(crate) fn rejected(&mut self, by: usize, from: usize, frame: &Frame) {
        if self.is_honest(from) {
            let text: String = format!("{:?}", frame.message).chars().take(400).collect();
            let fact = format!("node {by} rejected what it forwarded: {text}");
            self.say(Violation::Punished { node: from, fact });
        }
    }

    /// An honest node blamed a peer.
    pub(crate) fn penalized(&mut self, by: usize, whom: Option<usize>, fact: &str) {
        if let Some(node) = whom.filter(|node| self.is_honest(*node)) {
            let fact = format!("node {by} says that it {fact}");
            self.say(Violation::Punished { node, fact });
        }
    }

    /// An honest node tells people something.
    pub(crate) fn told(&mut self, by: usize, event: &Event) {
        let accused = match event {
            Event::Equivocation { validator, height } => {
                let seen = self.height();
                if let Some(timely) = &mut self.timely {
                    timely.offended(*validator, seen);
                }
                Some((validator, height, "accused"))
            }
            Event::Ledger { height, event: LedgerEvent::Slashed { validator, height: of, .. } } => {
                self.punished.entry((*validator, of.get())).or_insert(height.get());
                if let Some(timely) = &mut self.timely {
                    timely.punished(validator);
                }
                Some((validator, height, "slashed"))
            }
            Event::TransactionIncluded { id, height, ok } => {
                if self.included.get(id) != Some(&(height.get(), *ok)) {
                    let fact = format!("transaction {id} is not in block {height} as it says");
                    self.say(Violation::Lost { node: by, fact });
                }
                None
            }
            Event::Undecided(told) => {
                self.stalls.push((by, told.to_string()));
                None
            }
            Event::Decided { .. }
            | Event::Syncing { .. }
            | Event::Synced { .. }
            | Event::Joining { .. }
            | Event::Stale { .. }
            | Event::Fresh { .. }
            | Event::TaskPhase { .. }
            | Event::Ledger { .. }
            | Event::DutyDone { .. }
            | Event::TransactionAccepted { .. }
            | Event::TransactionDropped { .. }
            | Event::RoundStarted { .. }
            | Event::BlockRefused { .. }
            | Event::Listening { .. }
            | Event::TaskDeclined { .. }
            | Event::Trouble { .. } => None,
        };
        if let Some((validator, height, what)) = accused
            && let Some(node) = self.keys.get(validator).copied().filter(|node| self.is_honest(*node))
        {
            let fact = format!("node {by} saw it {what} at height {height}");
            self.say(Violation::Punished { node, fact });
        }
    }
}
