//! What the node wants.

use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, PublishError};
use tiltyard_proto::wire::{Acceptance, Peer, SyncRequest, SyncResponse, Topic};
use tracing::{debug, warn};

use super::Task;
use super::transfers::Ended;
use crate::dialer::dial_options;
use crate::event::NetEvent;
use crate::gossip::decode::frame_bytes_max;
use crate::handle::Command;
use crate::peers::to_peer_id;

const PENALTY_STRIKES: u32 = 4;

impl Task {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { topic, bytes } => self.publish(topic, bytes),
            Command::Report { token, acceptance } => self.report(token, acceptance),
            Command::Ask { token, to, request } => self.ask(token, to, request),
            Command::Respond { token, response } => self.respond(token, *response),
            Command::Penalize { peer, fact } => {
                if let Some(peer) = to_peer_id(&peer) {
                    self.strike(peer, PENALTY_STRIKES, &fact);
                }
            }
            Command::Fetch { blob, manifest } => {
                if !self.transfers.fetch(blob, manifest.map(|manifest| *manifest)) {
                    let fact = "too many blobs are being fetched; cancel some or wait".to_owned();
                    self.emit(NetEvent::BlobFailed { root: blob.root, fact });
                }
            }
            Command::Cancel { root } => self.transfers.cancel(&root),
            Command::Dial { target } => {
                if let Err(error) = self.swarm.dial(dial_options(&target)) {
                    debug!(address = %target.address(), %error, "not dialed");
                }
            }
            Command::Keep { targets } => self.dialer.keep(targets),
        }
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        let length = bytes.len();
        let max = frame_bytes_max(topic, self.config.block_bytes_max);
        if length > max {
            warn!(?topic, bytes = length, max, "a frame is too large to be published");
            return;
        }
        let name = self.topics.ident(topic).hash();
        match self.swarm.behaviour_mut().gossip.publish(name, bytes) {
            Ok(_) => {}
            Err(PublishError::Duplicate) => debug!(?topic, "already published"),
            Err(PublishError::NoPeersSubscribedToTopic) => debug!(?topic, "nobody listens"),
            Err(error) => warn!(?topic, bytes = length, %error, "not published"),
        }
    }

    pub(super) fn report(&mut self, token: u64, acceptance: Acceptance) {
        let Some(waiting) = self.requests.take_message(token) else {
            debug!(token, "a message was judged twice or too late");
            return;
        };
        let verdict = match acceptance {
            Acceptance::Accept => MessageAcceptance::Accept,
            Acceptance::Ignore => MessageAcceptance::Ignore,
            Acceptance::Reject => MessageAcceptance::Reject,
        };
        self.swarm.behaviour_mut().gossip.report_message_validation_result(
            &waiting.id,
            &waiting.from,
            verdict,
        );
        if acceptance == Acceptance::Reject {
            self.strike(waiting.from, 1, "gossip that the node refused");
        }
    }

    fn ask(&mut self, token: u64, to: Peer, request: SyncRequest) {
        let able = to_peer_id(&to).filter(|peer| self.roster.is_up(peer) && self.requests.may_ask(peer));
        match able {
            Some(peer) => {
                let id = self.swarm.behaviour_mut().exchange.send_request(&peer, Ok(request));
                self.requests.add_asked(id, token, peer);
            }
            None => self.emit(NetEvent::Response { token, from: to, response: None }),
        }
    }

    fn respond(&mut self, token: u64, response: SyncResponse) {
        let Some(inbound) = self.requests.take_inbound(token) else {
            debug!(token, "a request was answered too late");
            return;
        };
        self.request_over(&inbound.from);
        if self.swarm.behaviour_mut().exchange.send_response(inbound.channel, response).is_err() {
            debug!(peer = %inbound.from, "the asker is gone");
        }
    }

    /// One request of a peer less under way.
    pub(super) fn request_over(&mut self, peer: &PeerId) {
        if let Some(member) = self.roster.get_mut(peer) {
            member.requests = member.requests.saturating_sub(1);
        }
    }

    pub(super) fn on_fetch_ended(&mut self, ended: Ended) {
        match ended {
            Ended::Done(root) => {
                if self.transfers.forget(&root) {
                    self.emit(NetEvent::BlobDone { root });
                }
            }
            Ended::Failed(root, fact) => {
                warn!(%root, %fact, "a blob cannot be fetched");
                if self.transfers.forget(&root) {
                    self.emit(NetEvent::BlobFailed { root, fact });
                }
            }
            Ended::Quiet => {}
        }
    }
}
