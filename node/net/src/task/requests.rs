//! Requests under way, ours and others', and gossip messages that wait for judgement. All tables are bounded.

use std::collections::{BTreeMap, HashMap};

use libp2p::PeerId;
use libp2p::gossipsub::MessageId;
use libp2p::request_response::{InboundRequestId, OutboundRequestId, ResponseChannel};
use tiltyard_proto::wire::SyncResponse;

const MESSAGES_MAX: usize = 8_192;
const ASKED_MAX: usize = 64;
const ASKED_PER_PEER_MAX: usize = 16;
const INBOUND_MAX: usize = 256;

/// A gossip message that waits for judgement.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: MessageId,
    pub(super) from: PeerId,
}

/// A request of a peer that waits for our answer.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) id: InboundRequestId,
    pub(super) from: PeerId,
    pub(super) channel: ResponseChannel<SyncResponse>,
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    next_token: u64,
    messages: BTreeMap<u64, Waiting>,
    inbound: BTreeMap<u64, Inbound>,
    asked: HashMap<OutboundRequestId, (u64, PeerId)>,
}

impl Requests {
    fn token(&mut self) -> u64 {
        self.next_token = self.next_token.wrapping_add(1);
        self.next_token
    }

    /// Keeps a message; returns its token and the oldest message when there are too many.
    pub(super) fn add_message(&mut self, id: MessageId, from: PeerId) -> (u64, Option<Waiting>) {
        let token = self.token();
        self.messages.insert(token, Waiting { id, from });
        let oldest = if self.messages.len() > MESSAGES_MAX {
            self.messages.pop_first().map(|(_, oldest)| oldest)
        } else {
            None
        };
        (token, oldest)
    }

    pub(super) fn take_message(&mut self, token: u64) -> Option<Waiting> {
        self.messages.remove(&token)
    }

    /// Keeps a peer's request; `None` when there are too many.
    pub(super) fn add_inbound(
        &mut self,
        id: InboundRequestId,
        from: PeerId,
        channel: ResponseChannel<SyncResponse>,
    ) -> Option<u64> {
        if self.inbound.len() >= INBOUND_MAX {
            return None;
        }
        let token = self.token();
        self.inbound.insert(token, Inbound { id, from, channel });
        Some(token)
    }

    pub(super) fn take_inbound(&mut self, token: u64) -> Option<Inbound> {
        self.inbound.remove(&token)
    }

    /// Forgets a request that failed before it was answered.
    pub(super) fn drop_inbound(&mut self, id: InboundRequestId) -> Option<Inbound> {
        let token = self.inbound.iter().find(|(_, inbound)| inbound.id == id).map(|(token, _)| *token)?;
        self.inbound.remove(&token)
    }

    /// Says whether one more request may go to `peer`.
    pub(super) fn may_ask(&self, peer: &PeerId) -> bool {
        self.asked.len() < ASKED_MAX
            && self.asked.values().filter(|(_, asked)| asked == peer).count() < ASKED_PER_PEER_MAX
    }

    pub(super) fn add_asked(&mut self, id: OutboundRequestId, token: u64, peer: PeerId) {
        self.asked.insert(id, (token, peer));
    }

    pub(super) fn take_asked(&mut self, id: OutboundRequestId) -> Option<u64> {
        self.asked.remove(&id).map(|(token, _)| token)
    }
}
