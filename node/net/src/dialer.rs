//! Keeps connections to known peers: dials, waits longer after each failure, dials again.

use std::time::Duration;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use tokio::time::Instant;

use crate::config::Target;

const KEPT_MAX: usize = 64;
const FOREIGN_FAILURES: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting {
        since_failure: u32,
        until: Instant,
    },
    Dialing {
        failures: u32,
        id: ConnectionId,
    },
    Connected {
        peer: PeerId,
    },
    /// The address is this node's own.
    Own,
}

#[derive(Debug)]
struct Slot {
    target: Target,
    bootstrap: bool,
    phase: Phase,
}

/// The peers to stay connected to and where each of them stands.
#[derive(Debug)]
pub(crate) struct Dialer {
    slots: Vec<Slot>,
    pause_min: Duration,
    pause_max: Duration,
    jitter: u64,
}

impl Dialer {
    /// `seed` spreads the dialing times of nodes that lost the same peer.
    pub(crate) fn new(bootstrap: &[Target], pause_min: Duration, pause_max: Duration, seed: u64) -> Self {
        let now = Instant::now();
        let slots = bootstrap.iter().map(|target| Slot::new(target.clone(), true, now)).collect();
        Self { slots, pause_min, pause_max, jitter: seed | 1 }
    }

    /// Replaces the targets that are not bootstrap peers.
    pub(crate) fn keep(&mut self, targets: Vec<Target>) {
        let now = Instant::now();
        self.slots.retain(|slot| slot.bootstrap || targets.contains(&slot.target));
        let room = KEPT_MAX.saturating_sub(self.slots.iter().filter(|slot| !slot.bootstrap).count());
        let fresh: Vec<Target> = targets
            .into_iter()
            .filter(|target| self.slots.iter().all(|slot| slot.target != *target))
            .take(room)
            .collect();
        self.slots.extend(fresh.into_iter().map(|target| Slot::new(target, false, now)));
    }

    /// Returns what is to be dialed now.
    pub(crate) fn due(&mut self, connected: impl Fn(&PeerId) -> bool) -> Vec<DialOpts> {
        let now = Instant::now();
        let mut out = Vec::new();
        for slot in &mut self.slots {
            let Phase::Waiting { since_failure, until } = slot.phase else { continue };
            if let Some(peer) = slot.target.peer_id().filter(&connected) {
                slot.phase = Phase::Connected { peer };
            } else if until <= now {
                let options = dial_options(&slot.target);
                slot.phase = Phase::Dialing { failures: since_failure, id: options.connection_id() };
                out.push(options);
            }
        }
        out
    }

    /// A connection that was dialed is up.
    pub(crate) fn on_connected(&mut self, id: ConnectionId, peer: PeerId) {
        for slot in &mut self.slots {
            if matches!(slot.phase, Phase::Dialing { id: dialing, .. } if dialing == id) {
                slot.phase = Phase::Connected { peer };
            }
        }
    }

    /// The last connection to a peer is gone.
    pub(crate) fn on_lost(&mut self, peer: PeerId, foreign: bool) {
        for at in 0..self.slots.len() {
            if matches!(self.slots[at].phase, Phase::Connected { peer: held } if held == peer) {
                let failures = if foreign { FOREIGN_FAILURES } else { 0 };
                self.wait(at, failures);
            }
        }
    }

    /// A dial failed. `own` when this node answered itself.
    pub(crate) fn on_failed(&mut self, id: ConnectionId, own: bool) {
        for at in 0..self.slots.len() {
            if let Phase::Dialing { failures, id: dialing } = self.slots[at].phase
                && dialing == id
            {
                if own {
                    self.slots[at].phase = Phase::Own;
                } else {
                    self.wait(at, failures.saturating_add(1));
                }
            }
        }
    }

    fn wait(&mut self, at: usize, failures: u32) {
        let pause = self.pause(failures);
        if let Some(slot) = self.slots.get_mut(at) {
            slot.phase = Phase::Waiting { since_failure: failures, until: Instant::now() + pause };
        }
    }

    /// Doubles with each failure up to the longest pause, then takes up to a quarter off.
    fn pause(&mut self, failures: u32) -> Duration {
        let full = self.pause_min.saturating_mul(1 << failures.min(16)).min(self.pause_max);
        // xorshift64 (Marsaglia 2003): spreads retries, protects nothing.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let cut = u32::try_from(self.jitter % 256).unwrap_or(0);
        full.saturating_sub(full.saturating_mul(cut) / 1_024)
    }
}

impl Slot {
    fn new(target: Target, bootstrap: bool, now: Instant) -> Self {
        Self { target, bootstrap, phase: Phase::Waiting { since_failure: 0, until: now } }
    }
}

/// Returns how to dial a target: by peer id where one is named, so that another peer there is refused.
pub(crate) fn dial_options(target: &Target) -> DialOpts {
    match target.peer_id() {
        Some(peer) => DialOpts::peer_id(peer)
            .addresses(vec![target.address().clone()])
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .build(),
        None => DialOpts::unknown_peer_id().address(target.address().clone()).build(),
    }
}

#[cfg(test)]
#[path = "dialer_tests.rs"]
mod tests;
