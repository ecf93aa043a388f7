//! What the swarm reports.

use std::io;
use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId};
use libp2p::request_response::{self, OutboundFailure};
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{PeerId, identify, ping};
use tiltyard_proto::wire::{SyncRequest, SyncResponse};
use tracing::{debug, info, warn};

use super::Task;
use crate::behaviour::{BehaviourEvent, identify_name};
use crate::event::NetEvent;
use crate::exchange::{Garbled, Question};
use crate::gossip::decode::decode_frame;
use crate::gossip::score::GRAYLIST_SCORE;
use crate::peers::to_peer;

const PINGS_MISSED_MAX: u32 = 3;
const REQUESTS_PER_PEER_MAX: u32 = 8;
const MALFORMED_STRIKES: u32 = 2;
const GARBLED_STRIKES: u32 = 4;

type ExchangeEvent = request_response::Event<Question, SyncResponse>;

impl Task {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                let outbound = matches!(endpoint, ConnectedPoint::Dialer { .. });
                self.roster.connect(peer_id, endpoint.get_remote_address().clone(), outbound);
                if outbound {
                    self.dialer.on_connected(connection_id, peer_id);
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, .. } => {
                if num_established == 0 {
                    self.on_lost(peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, peer_id } => {
                let own = matches!(error, DialError::LocalPeerId { .. })
                    || matches!(&error, DialError::WrongPeerId { obtained, .. } if obtained == self.swarm.local_peer_id());
                debug!(peer = ?peer_id, %error, "a peer could not be reached");
                self.dialer.on_failed(connection_id, own);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                let full = address.with_p2p(*self.swarm.local_peer_id()).unwrap_or_else(|same| same);
                info!(address = %full, "listening");
                self.emit(NetEvent::Listening(full.to_string()));
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                warn!(?addresses, ?reason, "a listener closed; no peer can connect there any more");
            }
            // The library's enum is open; what is not named above needs no action.
            other => debug!(event = ?other, "swarm"),
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Exchange(event) => self.on_exchange(event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, &info.protocol_version);
            }
            BehaviourEvent::Identify(_) => {}
            BehaviourEvent::Ping(ping::Event { peer, result, .. }) => self.on_ping(peer, result),
            BehaviourEvent::Blobs(()) => {}
        }
    }

    fn on_ping(&mut self, peer: PeerId, result: Result<Duration, ping::Failure>) {
        let Some(member) = self.roster.get_mut(&peer) else { return };
        match result {
            Ok(time) => {
                member.round_trip = Some(time);
                member.pings_missed = 0;
            }
            // Old or foreign software: identify decides about it.
            Err(ping::Failure::Unsupported) => {}
            Err(error @ (ping::Failure::Timeout | ping::Failure::Other { .. })) => {
                member.pings_missed = member.pings_missed.saturating_add(1);
                if member.pings_missed >= PINGS_MISSED_MAX {
                    info!(%peer, %error, "a peer does not answer; disconnected");
                    self.disconnect(peer);
                }
            }
        }
    }

    /// A peer said which network it belongs to.
    fn on_identified(&mut self, peer: PeerId, said: &str) {
        let ours = identify_name(&self.config.genesis);
        let Some(member) = self.roster.get_mut(&peer) else { return };
        if said != ours {
            member.foreign = true;
            let theirs: String = said.chars().take(80).collect();
            warn!(%peer, theirs, ours, "a peer of another network is disconnected; check its genesis file");
            self.ban(peer);
            return;
        }
        if member.up {
            return;
        }
        member.up = true;
        let topics: Vec<_> = member.topics.iter().copied().collect();
        self.transfers.set_connected(self.roster.up());
        self.emit(NetEvent::PeerUp(to_peer(&peer)));
        for topic in topics {
            self.emit(NetEvent::Subscribed(to_peer(&peer), topic));
        }
        self.publish_roster();
    }

    fn on_lost(&mut self, peer: PeerId) {
        let member = self.roster.remove(&peer);
        self.dialer.on_lost(peer, member.as_ref().is_some_and(|member| member.foreign));
        if member.is_some_and(|member| member.up) {
            self.transfers.set_connected(self.roster.up());
            self.emit(NetEvent::PeerDown(to_peer(&peer)));
            self.publish_roster();
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.on_message(propagation_source, message_id, &message);
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                let Some(topic) = self.topics.find(&topic) else { return };
                let Some(member) = self.roster.get_mut(&peer_id) else { return };
                if member.topics.insert(topic) && member.up {
                    self.emit(NetEvent::Subscribed(to_peer(&peer_id), topic));
                }
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                if let (Some(topic), Some(member)) = (self.topics.find(&topic), self.roster.get_mut(&peer_id))
                {
                    member.topics.remove(&topic);
                }
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                debug!(peer = %peer_id, "no gossip with a peer")
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                debug!(peer = %peer_id, ?failed_messages, "a peer takes gossip slowly");
            }
        }
    }

    fn on_message(&mut self, from: PeerId, id: MessageId, message: &gossipsub::Message) {
        let decoded = self
            .topics
            .find(&message.topic)
            .map(|topic| (topic, decode_frame(topic, &message.data, self.config.block_bytes_max)));
        match decoded {
            Some((_, Ok(message))) => {
                let (token, oldest) = self.requests.add_message(id, from);
                if let Some(oldest) = oldest {
                    self.judge(&oldest.id, &oldest.from, MessageAcceptance::Ignore);
                }
                self.emit(NetEvent::Message { token, from: to_peer(&from), message: Box::new(message) });
            }
            Some((topic, Err(error))) => {
                debug!(peer = %from, ?topic, %error, "malformed gossip");
                self.judge(&id, &from, MessageAcceptance::Reject);
                self.strike(from, MALFORMED_STRIKES, "malformed gossip");
            }
            None => self.judge(&id, &from, MessageAcceptance::Ignore),
        }
    }

    fn judge(&mut self, id: &MessageId, from: &PeerId, verdict: MessageAcceptance) {
        self.swarm.behaviour_mut().gossip.report_message_validation_result(id, from, verdict);
    }

    fn on_exchange(&mut self, event: ExchangeEvent) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request_id, request, channel } => match request {
                    Ok(request) => self.on_request(peer, request_id, request, channel),
                    Err(Garbled(fact)) => {
                        debug!(%peer, %fact, "malformed request");
                        self.strike(peer, GARBLED_STRIKES, "a request that cannot be decoded");
                    }
                },
                request_response::Message::Response { request_id, response } => {
                    if let Some(token) = self.requests.take_asked(request_id) {
                        let response = Some(Box::new(response));
                        self.emit(NetEvent::Response { token, from: to_peer(&peer), response });
                    }
                }
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                debug!(%peer, %error, "a request failed");
                if matches!(&error, OutboundFailure::Io(error) if is_garbled(error)) {
                    self.strike(peer, GARBLED_STRIKES, "an answer that cannot be decoded");
                }
                if let Some(token) = self.requests.take_asked(request_id) {
                    self.emit(NetEvent::Response { token, from: to_peer(&peer), response: None });
                }
            }
            request_response::Event::InboundFailure { peer, request_id, error, .. } => {
                debug!(%peer, %error, "a peer's request failed");
                if self.requests.drop_inbound(request_id).is_some() {
                    self.request_over(&peer);
                }
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn on_request(
        &mut self,
        peer: PeerId,
        id: request_response::InboundRequestId,
        request: SyncRequest,
        channel: request_response::ResponseChannel<SyncResponse>,
    ) {
        let room = self
            .roster
            .get_mut(&peer)
            .is_some_and(|member| member.up && member.requests < REQUESTS_PER_PEER_MAX);
        if !room {
            debug!(%peer, "a request beyond the cap, or before the peer named its network, is dropped");
            return;
        }
        let Some(token) = self.requests.add_inbound(id, peer, channel) else {
            debug!(%peer, "too many requests are under way; one is dropped");
            return;
        };
        if let Some(member) = self.roster.get_mut(&peer) {
            member.requests = member.requests.saturating_add(1);
        }
        self.emit(NetEvent::Request { token, from: to_peer(&peer), request });
    }

    /// Counts strikes; bans at the limit.
    pub(super) fn strike(&mut self, peer: PeerId, points: u32, fact: &str) {
        info!(%peer, points, fact, "strike");
        if self.strikes.add(peer, points) {
            warn!(%peer, fact, seconds = self.config.limits.ban.as_secs(), "a peer is banned");
            self.ban(peer);
        }
    }

    fn ban(&mut self, peer: PeerId) {
        if let Some(early) = self.strikes.ban(peer) {
            self.swarm.behaviour_mut().blocked.unblock_peer(early);
        }
        self.swarm.behaviour_mut().blocked.block_peer(peer);
        self.disconnect(peer);
    }

    fn disconnect(&mut self, peer: PeerId) {
        // Fails only when the peer is gone already.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    pub(super) fn on_tick(&mut self) {
        for peer in self.strikes.expire() {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        }
        for peer in self.roster.silent() {
            debug!(%peer, "a peer did not name its network; disconnected");
            self.disconnect(peer);
        }
        for peer in self.roster.all() {
            let score = self.swarm.behaviour().gossip.peer_score(&peer);
            if score.is_some_and(|score| score <= GRAYLIST_SCORE) {
                warn!(%peer, "a peer is banned for its gossip score");
                self.ban(peer);
            }
        }
        let swarm = &self.swarm;
        for options in self.dialer.due(|peer| swarm.is_connected(peer)) {
            let id = options.connection_id();
            if let Err(error) = self.swarm.dial(options) {
                debug!(%error, "not dialed");
                self.dialer.on_failed(id, matches!(error, DialError::LocalPeerId { .. }));
            }
        }
        self.publish_roster();
    }

    fn publish_roster(&mut self) {
        let gossip = &self.swarm.behaviour().gossip;
        let strikes = &self.strikes;
        self.roster.publish(|peer| {
            let score = gossip.peer_score(peer).unwrap_or(0.0);
            // Saturates: a score for people, not for decisions.
            ((score * 1_000.0) as i64, strikes.points(peer))
        });
    }
}

fn is_garbled(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}
