//! What byzantine validators do with what their machines want said. Each runs a real machine under its own disk; the
//! treason lies in what leaves it.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;
use tiltyard_keys::Signature;
use tiltyard_proto::block::Block;
use tiltyard_proto::codec;
use tiltyard_proto::ids::{BlockHash, StateRoot};
use tiltyard_proto::limits::BLOCK_BYTES_HARD_MAX;
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::{Blocks, Height, Round, UnixMillis};
use tiltyard_proto::vote::{Proposal, SignedVote, Vote, VoteKind};
use tiltyard_proto::wire::{BlockFrame, BodyFrame, ConsensusFrame, ConsensusMessage, GossipMessage, Topic};

use super::plan::Treason;
use super::wire::Frame;
use super::world::World;

const EVERYONE: u64 = u64::MAX;
/// Old frames that a byzantine node keeps to say again.
const OLD_MAX: usize = 64;

/// What byzantine nodes share.
#[derive(Debug, Default)]
pub(crate) struct Plot {
    /// The other block that was offered in the same round.
    twins: BTreeMap<BlockHash, BlockHash>,
    /// Those of them that were made second: for the half that is not the audience.
    second: BTreeSet<BlockHash>,
    bodies: BTreeMap<BlockHash, Vec<u8>>,
    old: Vec<(usize, Topic, Vec<u8>)>,
    counter: u64,
}

impl Plot {
    /// Returns a block that no machine knows.
    pub(crate) fn body(&self, block: &BlockHash) -> Option<ByteBuf> {
        self.bodies.get(block).map(|bytes| ByteBuf::from(bytes.clone()))
    }
}

impl World {
    /// A byzantine node's machine wants something said.
    pub(crate) fn betray(&mut self, at: usize, topic: Topic, bytes: Vec<u8>, lag_ms: u64) {
        let ways = self.plan.treason[at].clone();
        if ways.contains(&Treason::Forge) && self.dice.percent(15) {
            self.forge(at, lag_ms);
        }
        let Ok(frame) = Frame::decode(topic, &bytes) else {
            return;
        };
        match &frame.message {
            GossipMessage::Consensus(said) => self.betray_consensus(at, &ways, said, bytes, lag_ms),
            GossipMessage::Body(said) => self.betray_body(at, &ways, said, bytes, lag_ms),
            GossipMessage::Transactions(_, list) => {
                let opens = list.iter().any(|one| matches!(one.transaction.action, Action::ScoreOpen { .. }));
                if !(opens && ways.contains(&Treason::HideScores)) {
                    self.tell(at, topic, &bytes, lag_ms, EVERYONE);
                }
            }
            GossipMessage::Block(_) => self.tell(at, topic, &bytes, lag_ms, EVERYONE),
        }
    }

    fn tell(&mut self, at: usize, topic: Topic, bytes: &[u8], lag_ms: u64, audience: u64) {
        if let Ok(frame) = Frame::decode(topic, bytes) {
            self.trace.note(self.now_ms, at, 8, &frame.id, || {
                format!("# to {audience:x}: {}", super::shell::frame_name(&frame))
            });
            self.nodes[at].seen.insert(frame.id);
            self.spread(at, lag_ms, &frame, audience);
        }
    }

    /// Tells what a byzantine node says in agreement, to whom and when it pleases.
    fn tell_slyly(
        &mut self,
        at: usize,
        ways: &BTreeSet<Treason>,
        (topic, bytes): (Topic, Vec<u8>),
        lag_ms: u64,
        audience: u64,
    ) {
        if ways.contains(&Treason::Silent) {
            return;
        }
        let mut lag_ms = lag_ms;
        if ways.contains(&Treason::Stale) {
            lag_ms += self.dice.between(100, 1_500);
            self.say_old(at, lag_ms);
            if self.plot.old.len() >= OLD_MAX {
                self.plot.old.remove(0);
            }
            self.plot.old.push((at, topic, bytes.clone()));
        }
        let audience =
            if ways.contains(&Treason::Selective) { audience & self.plan.audience } else { audience };
        self.tell(at, topic, &bytes, lag_ms, audience);
    }

    fn betray_consensus(
        &mut self,
        at: usize,
        ways: &BTreeSet<Treason>,
        said: &ConsensusFrame,
        bytes: Vec<u8>,
        lag_ms: u64,
    ) {
        let versions = match &said.message {
            ConsensusMessage::Proposal(signed) => self.two_proposals(at, ways, &signed.proposal),
            ConsensusMessage::Vote(signed) => self.two_votes(at, ways, &signed.vote),
            ConsensusMessage::Polka { .. } | ConsensusMessage::RoundChange { .. } => None,
        };
        let audience = self.plan.audience;
        match versions {
            None => self.tell_slyly(at, ways, (Topic::Consensus, bytes), lag_ms, EVERYONE),
            Some((one, other)) => {
                for (message, audience) in [(one, audience), (other, !audience)] {
                    let frame = ConsensusFrame { counter: said.counter, message };
                    let bytes = codec::encode(&frame);
                    self.tell_slyly(at, ways, (Topic::Consensus, bytes), lag_ms, audience);
                }
            }
        }
    }

    /// Makes another block of one of this node's own, and remembers it.
    fn twin(&mut self, at: usize, ways: &BTreeSet<Treason>, block: &BlockHash) -> Option<BlockHash> {
        if let Some(twin) = self.plot.twins.get(block) {
            return Some(*twin);
        }
        let bytes = self.nodes[at].disk.live.borrow().bodies.get(block).map(|(_, bytes)| bytes.to_vec())?;
        let mut other = Block::decode(&bytes, BLOCK_BYTES_HARD_MAX).ok()?;
        if ways.contains(&Treason::WrongRoot) {
            other.header.state_root = StateRoot::from_bytes([0xbad_u16 as u8; 32]);
        } else {
            // No rule of the ledger reads a block's time: the twin is as valid as the block.
            other.header.time = other.header.time.saturating_add(UnixMillis::new(1));
        }
        let twin = other.hash();
        self.plot.twins.extend([(*block, twin), (twin, *block)]);
        self.plot.second.insert(twin);
        self.plot.bodies.insert(twin, other.encode());
        Some(twin)
    }

    fn two_proposals(
        &mut self,
        at: usize,
        ways: &BTreeSet<Treason>,
        said: &Proposal,
    ) -> Option<(ConsensusMessage, ConsensusMessage)> {
        let (equivocates, bends) = (ways.contains(&Treason::Equivocate), ways.contains(&Treason::WrongRoot));
        if !equivocates && !bends {
            return None;
        }
        let block = self.twin(at, ways, &said.block)?;
        let signer = self.nodes[at].key.signer(self.genesis.hash());
        let other = ConsensusMessage::Proposal(Proposal { block, ..*said }.sign(&signer));
        let one = if equivocates { ConsensusMessage::Proposal(said.sign(&signer)) } else { other.clone() };
        Some((one, other))
    }

    fn two_votes(
        &mut self,
        at: usize,
        ways: &BTreeSet<Treason>,
        said: &Vote,
    ) -> Option<(ConsensusMessage, ConsensusMessage)> {
        if !ways.contains(&Treason::Equivocate) {
            return None;
        }
        let block = match &said.block {
            Some(block) => self.plot.twins.get(block).copied(),
            None => self.some_body(at, said.height),
        };
        let signer = self.nodes[at].key.signer(self.genesis.hash());
        let vote = |vote: Vote| ConsensusMessage::Vote(vote.sign(&signer));
        let (as_said, otherwise) = (vote(*said), vote(Vote { block, ..*said }));
        let swapped = said.block.is_some_and(|block| self.plot.second.contains(&block));
        Some(if swapped { (otherwise, as_said) } else { (as_said, otherwise) })
    }

    fn some_body(&self, at: usize, height: Height) -> Option<BlockHash> {
        let content = self.nodes[at].disk.live.borrow();
        content.bodies.iter().find(|(_, (of, _))| *of == height).map(|(block, _)| *block)
    }

    fn betray_body(
        &mut self,
        at: usize,
        ways: &BTreeSet<Treason>,
        said: &BodyFrame,
        bytes: Vec<u8>,
        lag_ms: u64,
    ) {
        if ways.contains(&Treason::Withhold) {
            return;
        }
        let decoded = Block::decode(&said.block, BLOCK_BYTES_HARD_MAX).ok();
        let other = decoded.and_then(|block| {
            let height = block.header.height;
            let twin = self.plot.twins.get(&block.hash()).copied()?;
            Some((height, twin, self.plot.body(&twin)?))
        });
        let Some((height, twin, block)) = other else {
            return self.tell_slyly(at, ways, (Topic::Bodies, bytes), lag_ms, EVERYONE);
        };
        let signer = self.nodes[at].key.signer(self.genesis.hash());
        let signature = signer.sign_body(&BodyFrame::payload(height, said.round, &twin));
        let frame =
            BodyFrame { counter: said.counter, block, round: said.round, sender: said.sender, signature };
        let twin_bytes = codec::encode(&frame);
        let audience = self.plan.audience;
        if ways.contains(&Treason::Equivocate) {
            self.tell_slyly(at, ways, (Topic::Bodies, bytes), lag_ms, audience);
            self.tell_slyly(at, ways, (Topic::Bodies, twin_bytes), lag_ms, !audience);
        } else {
            self.tell_slyly(at, ways, (Topic::Bodies, twin_bytes), lag_ms, EVERYONE);
        }
    }

    /// Says something old again, in a frame that nobody has seen.
    fn say_old(&mut self, at: usize, lag_ms: u64) {
        let own: Vec<usize> = (0..self.plot.old.len()).filter(|old| self.plot.old[*old].0 == at).collect();
        let Some(old) = own.get(self.dice.index(own.len())) else {
            return;
        };
        let (_, topic, bytes) = self.plot.old[*old].clone();
        let Ok(frame) = Frame::decode(topic, &bytes) else {
            return;
        };
        self.plot.counter += 1;
        let counter = self.plot.counter;
        let again = match &frame.message {
            GossipMessage::Consensus(said) => codec::encode(&ConsensusFrame { counter, ..said.clone() }),
            GossipMessage::Body(said) => codec::encode(&BodyFrame { counter, ..said.clone() }),
            GossipMessage::Transactions(..) | GossipMessage::Block(_) => return,
        };
        self.tell(at, topic, &again, lag_ms, EVERYONE);
    }

    /// Says what is not true, in one's own name and in others'.
    fn forge(&mut self, at: usize, lag_ms: u64) {
        let tip = self.nodes[at].disk.live.borrow().blocks.last().cloned();
        let Some(tip) = tip else {
            return;
        };
        let height = tip.block.header.height.next();
        let signer = self.nodes[at].key.signer(self.genesis.hash());
        let victim = self.nodes[(at + 1) % self.nodes.len()].key.public();
        let vote = |validator, height| Vote {
            kind: VoteKind::Precommit,
            height,
            round: Round::ZERO,
            block: Some(tip.block.hash()),
            validator,
        };
        self.plot.counter += 1;
        let counter = self.plot.counter;
        let consensus = |message| codec::encode(&ConsensusFrame { counter, message });
        let (topic, bytes) = match self.dice.below(5) {
            0 => {
                let signature = Signature::from_bytes([7; 64]);
                let message = ConsensusMessage::Vote(SignedVote { vote: vote(victim, height), signature });
                (Topic::Consensus, consensus(message))
            }
            1 => {
                let far = height.plus(Blocks::new(3));
                (
                    Topic::Consensus,
                    consensus(ConsensusMessage::Vote(vote(signer.public(), far).sign(&signer))),
                )
            }
            2 => {
                let round = Round::new(self.dice.below(3) as u32);
                let (block, proposer) = (tip.block.hash(), signer.public());
                let proposal = Proposal { height, round, block, lock_round: None, proposer };
                (Topic::Consensus, consensus(ConsensusMessage::Proposal(proposal.sign(&signer))))
            }
            3 => {
                let mut header = tip.block.header.clone();
                header.height = height.plus(Blocks::new(self.dice.below(2)));
                let mut certificate = tip.certificate.clone();
                certificate.height = header.height;
                certificate.block = header.hash();
                (Topic::Blocks, codec::encode(&BlockFrame { header, certificate }))
            }
            _ => {
                let mut frame = BodyFrame {
                    counter,
                    block: ByteBuf::from(tip.block.encode()),
                    round: Round::ZERO,
                    sender: victim,
                    signature: Signature::from_bytes([9; 64]),
                };
                if self.dice.percent(50) {
                    frame.block = ByteBuf::from(vec![0xff; 100]);
                }
                (Topic::Bodies, codec::encode(&frame))
            }
        };
        self.tell(at, topic, &bytes, lag_ms, EVERYONE);
    }
}
