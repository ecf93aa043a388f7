//! Frames and links: what reaches whom, when, and how often.

use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tiltyard_machine::io::{Input, MessageToken, RequestToken};
use tiltyard_proto::codec::{self, CodecError};
use tiltyard_proto::limits::{BLOCK_BYTES_HARD_MAX, BODY_FRAME_EXTRA_BYTES, FRAME_BYTES_MAX};
use tiltyard_proto::transaction::SignedTransaction;
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::{
    Acceptance, BlockFrame, BodyFrame, ConsensusFrame, ConsensusMessage, GossipMessage, Peer, SyncRequest,
    SyncResponse, Topic, TransactionFrame,
};

use super::network::{node_of, peer};
use super::plan::{FAIR, Fault, Treason, Weather};
use super::planted::Bug;
use super::view::BUGGY;
use super::world::{Due, World};

/// Blocks given at a time.
const BLOCKS_MAX: usize = 64;
/// How long it takes to see that a request leads nowhere, in milliseconds.
const UNANSWERED_MS: u64 = 1_000;

/// A gossip frame, decoded once for all who get it.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) id: [u8; 32],
    pub(crate) message: GossipMessage,
}

fn read<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    codec::decode("frame", bytes, max)
}

impl Frame {
    /// Decodes a frame as the network shell does, and names it as the gossip layer does: by its content, a decided
    /// header by its height.
    pub(crate) fn decode(topic: Topic, bytes: &[u8]) -> Result<Rc<Self>, CodecError> {
        let mut name = blake3::Hasher::new();
        name.update(format!("{topic:?}").as_bytes());
        let message = match topic {
            Topic::Tasks | Topic::Checkpoints | Topic::Transactions => {
                let frame: TransactionFrame = read(bytes, FRAME_BYTES_MAX)?;
                let list: Result<Vec<_>, _> =
                    frame.transactions.iter().map(|one| SignedTransaction::decode(one)).collect();
                GossipMessage::Transactions(topic, list?)
            }
            Topic::Consensus => {
                let frame: ConsensusFrame = read(bytes, FRAME_BYTES_MAX)?;
                GossipMessage::Consensus(frame)
            }
            Topic::Bodies => {
                let frame: BodyFrame = read(bytes, BLOCK_BYTES_HARD_MAX + BODY_FRAME_EXTRA_BYTES)?;
                GossipMessage::Body(frame)
            }
            Topic::Blocks => {
                let frame: BlockFrame = read(bytes, FRAME_BYTES_MAX)?;
                GossipMessage::Block(Box::new(frame))
            }
        };
        match &message {
            GossipMessage::Block(frame) => name.update(&frame.header.height.get().to_be_bytes()),
            GossipMessage::Transactions(..) | GossipMessage::Consensus(_) | GossipMessage::Body(_) => {
                name.update(bytes)
            }
        };
        Ok(Rc::new(Self { id: *name.finalize().as_bytes(), message }))
    }
}

impl World {
    /// Says whether anything passes from one node to another now.
    pub(crate) fn is_open(&self, from: usize, to: usize) -> bool {
        self.active_faults().all(|(_, timed)| match &timed.fault {
            Fault::Partition { side, .. } => (side >> from) & 1 == (side >> to) & 1,
            Fault::Cut { from: a, to: b } => (*a, *b) != (from, to),
            Fault::Crash { .. }
            | Fault::Storm(_)
            | Fault::Clock { .. }
            | Fault::Freeze { .. }
            | Fault::Wipe { .. } => true,
        })
    }

    fn weather(&self) -> Weather {
        if self.is_healed() {
            return FAIR;
        }
        let storm = self.active_faults().find_map(|(_, timed)| match &timed.fault {
            Fault::Storm(weather) => Some(*weather),
            Fault::Crash { .. }
            | Fault::Partition { .. }
            | Fault::Cut { .. }
            | Fault::Clock { .. }
            | Fault::Freeze { .. }
            | Fault::Wipe { .. } => None,
        });
        storm.unwrap_or(self.plan.weather)
    }

    fn travel_ms(&mut self, from: usize, to: usize, jitter_ms: u64) -> u64 {
        self.plan.latency_ms[from][to] + self.dice.below(jitter_ms + 1)
    }

    /// Sends a frame to everyone in `audience`, a bit each, who has not seen it.
    pub(crate) fn spread(&mut self, from: usize, lag_ms: u64, frame: &Rc<Frame>, audience: u64) {
        for to in 0..self.nodes.len() {
            let wanted = (audience >> to) & 1 == 1;
            if to != from && wanted && !self.nodes[to].seen.contains(&frame.id) {
                self.send(from, to, lag_ms, frame);
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, lag_ms: u64, frame: &Rc<Frame>) {
        let weather = self.weather();
        let lost = self.dice.percent(weather.lost_percent);
        let twice = self.dice.percent(weather.twice_percent);
        if lost || !self.is_open(from, to) || !self.connected.contains(&(from, to)) {
            return;
        }
        let life = self.nodes[to].life;
        for again in [false, true] {
            if !again || twice {
                let delay = lag_ms + self.travel_ms(from, to, weather.jitter_ms);
                self.later(delay, Due::Frame { to, life, from, frame: Rc::clone(frame), again });
            }
        }
    }

    /// A frame arrives. `again` marks a copy that gets past the gossip layer's memory.
    pub(crate) fn hear(&mut self, to: usize, from: usize, frame: Rc<Frame>, again: bool) {
        let censors = self.plan.treason[to].contains(&Treason::Censor);
        let node = &mut self.nodes[to];
        if node.machine.is_none() || (!node.seen.insert(frame.id) && !again) {
            return;
        }
        let bug = self.plan.shape.planted.filter(|_| to == BUGGY);
        let mut message = match &frame.message {
            GossipMessage::Transactions(..) if censors || bug == Some(Bug::DeafProposer) => return,
            other => Box::new(other.clone()),
        };
        if let (Some(Bug::FlippedBit), GossipMessage::Consensus(said)) = (bug, message.as_mut())
            && let ConsensusMessage::Vote(vote) = &mut said.message
        {
            let mut bytes = *vote.signature.as_bytes();
            bytes[0] ^= 1;
            vote.signature = tiltyard_keys::Signature::from_bytes(bytes);
        }
        self.token += 1;
        let token = MessageToken(self.token);
        node.judging.insert(token.0, (frame, from));
        self.give(to, Input::Gossip { token, from: peer(from), message });
    }

    /// A machine judged a frame: what it accepts goes on to everyone who has not seen it.
    pub(crate) fn judged(&mut self, at: usize, token: MessageToken, acceptance: Acceptance, lag_ms: u64) {
        let Some((frame, from)) = self.nodes[at].judging.remove(&token.0) else {
            return;
        };
        match acceptance {
            Acceptance::Accept if self.plan.is_honest(at) => self.spread(at, lag_ms, &frame, !(1 << from)),
            Acceptance::Reject if self.plan.is_honest(at) => self.oracle.rejected(at, from, &frame),
            Acceptance::Accept | Acceptance::Ignore | Acceptance::Reject => {}
        }
    }

    /// Connects two running nodes that can reach each other and are not connected.
    fn connect(&mut self, a: usize, b: usize) {
        let both_run = self.nodes[a].machine.is_some() && self.nodes[b].machine.is_some();
        let open = self.is_open(a, b) && self.is_open(b, a);
        if !both_run || !open || self.connected.contains(&(a, b)) {
            return;
        }
        self.connected.extend([(a, b), (b, a)]);
        for (one, other) in [(a, b), (b, a)] {
            self.give_later(one, 2, Input::PeerUp(peer(other)));
            for topic in Topic::ALL {
                self.give_later(one, 3, Input::Subscribed(peer(other), topic));
            }
        }
    }

    /// Connects everyone who can be.
    pub(crate) fn connect_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in 0..a {
                self.connect(a, b);
            }
        }
    }

    pub(crate) fn disconnect(&mut self, a: usize, b: usize) {
        if self.connected.remove(&(a, b)) {
            self.connected.remove(&(b, a));
            self.give_later(a, 1, Input::PeerDown(peer(b)));
            self.give_later(b, 1, Input::PeerDown(peer(a)));
        }
    }

    /// Ends the connections between two sides.
    pub(crate) fn hang_up(&mut self, side: u64) {
        for a in 0..self.nodes.len() {
            for b in 0..a {
                if (side >> a) & 1 != (side >> b) & 1 {
                    self.disconnect(a, b);
                }
            }
        }
    }

    /// A machine asks a peer.
    pub(crate) fn ask(
        &mut self,
        at: usize,
        lag_ms: u64,
        token: RequestToken,
        to: &Peer,
        request: SyncRequest,
    ) {
        let life = self.nodes[at].life;
        match node_of(to).filter(|to| self.connected.contains(&(at, *to)) && self.is_open(at, *to)) {
            Some(to) => {
                let delay = lag_ms + self.travel_ms(at, to, 5);
                self.later(delay, Due::Serve { to, from: at, life, token, request });
            }
            None => {
                let from = to.clone();
                self.give_later(at, UNANSWERED_MS, Input::Response { token, from, response: None });
            }
        }
    }

    /// A request arrives: the shell answers for old blocks, the machine for the rest.
    pub(crate) fn serve(&mut self, to: usize, asker: (usize, u64, RequestToken), request: SyncRequest) {
        if self.nodes[to].machine.is_none() {
            return self.answer(to, asker, 0, None);
        }
        let ways = &self.plan.treason[to];
        let (lies, withholds) = (ways.contains(&Treason::Lie), ways.contains(&Treason::Withhold));
        let bug = self.plan.shape.planted;
        let content = self.nodes[to].disk.live.borrow();
        let response = match &request {
            SyncRequest::Status => {
                let tip = if lies { 1_000 + content.tip() } else { content.tip() };
                Some(SyncResponse::Status { tip: Height::new(tip), first: Height::new(content.base + 1) })
            }
            SyncRequest::Blocks { from, max } => {
                let skipped = u64::from(bug == Some(Bug::SyncOffByOne));
                // What is before a snapshot is not there.
                let start = (from.get() + skipped).checked_sub(content.base + 1);
                let start = start.map_or(usize::MAX, |start| start as usize);
                let most = (*max as usize).min(BLOCKS_MAX);
                let mut blocks: Vec<_> = content
                    .blocks
                    .iter()
                    .skip(start)
                    .take(most)
                    .map(|decided| decided.as_ref().clone())
                    .collect();
                if lies {
                    blocks.iter_mut().for_each(|decided| decided.block.body.transactions.clear());
                    blocks.iter_mut().skip(1).for_each(|decided| decided.block.header.version += 1);
                }
                Some(SyncResponse::Blocks(blocks))
            }
            SyncRequest::Body { block } => match self.plot.body(block) {
                Some(bytes) => Some(SyncResponse::Body(Some(bytes))),
                None => withholds.then_some(SyncResponse::Body(None)),
            },
            SyncRequest::PendingIds
            | SyncRequest::Pending { .. }
            | SyncRequest::LightBlock { .. }
            | SyncRequest::Snapshots
            | SyncRequest::SnapshotCut { .. }
            | SyncRequest::SnapshotChunk { .. } => None,
        };
        drop(content);
        match response {
            Some(response) => self.answer(to, asker, 0, Some(response)),
            None => self.serve_rest(to, asker, request),
        }
    }

    /// Gives a request to the machine.
    pub(crate) fn pass_on(&mut self, to: usize, asker: (usize, u64, RequestToken), request: SyncRequest) {
        self.token += 1;
        self.requests.insert(self.token, asker);
        let token = RequestToken(self.token);
        self.give(to, Input::Request { token, from: peer(asker.0), request });
    }

    /// A machine answered a request.
    pub(crate) fn respond(&mut self, at: usize, lag_ms: u64, token: RequestToken, response: SyncResponse) {
        if let Some(asker) = self.requests.remove(&token.0) {
            self.answer(at, asker, lag_ms, Some(response));
        }
    }

    pub(crate) fn answer(
        &mut self,
        at: usize,
        (to, life, token): (usize, u64, RequestToken),
        lag_ms: u64,
        response: Option<SyncResponse>,
    ) {
        let censors = self.plan.treason[to].contains(&Treason::Censor);
        let deaf = self.plan.shape.planted == Some(Bug::DeafProposer) && to == BUGGY;
        let pending = matches!(response, Some(SyncResponse::Pending(_) | SyncResponse::PendingIds(_)));
        let response = response.filter(|_| self.is_open(at, to) && !((censors || deaf) && pending));
        let delay = match &response {
            Some(_) => lag_ms + self.travel_ms(at, to, 5),
            None => UNANSWERED_MS,
        };
        let response = response.map(Box::new);
        let input = Box::new(Input::Response { token, from: peer(at), response });
        self.later(delay, Due::Input { to, life, input });
    }
}
