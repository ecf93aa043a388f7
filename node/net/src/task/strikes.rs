//! Strikes against peers: each expires after a minute, too many are a ban.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::PeerId;
use tokio::time::Instant;

const EXPIRY: Duration = Duration::from_secs(60);
const PEERS_MAX: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Record {
    points: u32,
    newest: Instant,
}

/// Who did wrong lately and who is banned until when.
#[derive(Debug)]
pub(super) struct Strikes {
    records: HashMap<PeerId, Record>,
    banned: HashMap<PeerId, Instant>,
    points_max: u32,
    ban: Duration,
}

impl Strikes {
    pub(super) fn new(points_max: u32, ban: Duration) -> Self {
        Self { records: HashMap::new(), banned: HashMap::new(), points_max, ban }
    }

    /// Counts strikes; true when the peer is to be banned now.
    pub(super) fn add(&mut self, peer: PeerId, points: u32) -> bool {
        let now = Instant::now();
        let left = self.points(&peer);
        let sum = left.saturating_add(points);
        if sum >= self.points_max {
            self.records.remove(&peer);
            return true;
        }
        if self.records.len() >= PEERS_MAX && !self.records.contains_key(&peer) {
            let oldest = self.records.iter().min_by_key(|(_, record)| record.newest).map(|(peer, _)| *peer);
            if let Some(oldest) = oldest {
                self.records.remove(&oldest);
            }
        }
        self.records.insert(peer, Record { points: sum, newest: now });
        false
    }

    /// Returns the strikes that have not expired.
    pub(super) fn points(&self, peer: &PeerId) -> u32 {
        self.records.get(peer).map_or(0, |record| {
            let minutes = record.newest.elapsed().as_secs() / EXPIRY.as_secs();
            record.points.saturating_sub(u32::try_from(minutes).unwrap_or(u32::MAX))
        })
    }

    /// Bans a peer; returns a peer whose ban ends early because the table is full.
    pub(super) fn ban(&mut self, peer: PeerId) -> Option<PeerId> {
        let evicted = if self.banned.len() >= PEERS_MAX {
            self.banned.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
        } else {
            None
        };
        if let Some(evicted) = &evicted {
            self.banned.remove(evicted);
        }
        self.banned.insert(peer, Instant::now() + self.ban);
        evicted
    }

    /// Forgets expired strikes and returns the peers whose ban has ended.
    pub(super) fn expire(&mut self) -> Vec<PeerId> {
        let now = Instant::now();
        let over: Vec<PeerId> =
            self.banned.iter().filter(|(_, until)| **until <= now).map(|(peer, _)| *peer).collect();
        for peer in &over {
            self.banned.remove(peer);
        }
        let expired: Vec<PeerId> =
            self.records.keys().filter(|peer| self.points(peer) == 0).copied().collect();
        for peer in &expired {
            self.records.remove(peer);
        }
        over
    }
}

#[cfg(test)]
#[path = "strikes_tests.rs"]
mod tests;
