//! The connected peers and what is known of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use tiltyard_proto::wire::Topic;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::event::PeerInfo;
use crate::peers::to_peer;

/// A peer that does not say within this time which network it belongs to is disconnected.
const IDENTIFY_MAX: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Member {
    pub(super) address: Multiaddr,
    pub(super) outbound: bool,
    pub(super) since: Instant,
    pub(super) round_trip: Option<Duration>,
    pub(super) pings_missed: u32,
    pub(super) topics: BTreeSet<Topic>,
    /// It said that it belongs to this network; the node was told of it.
    pub(super) up: bool,
    pub(super) foreign: bool,
    pub(super) requests: u32,
}

/// Everybody who is connected.
#[derive(Debug)]
pub(super) struct Roster {
    members: HashMap<PeerId, Member>,
    published: watch::Sender<Arc<Vec<PeerInfo>>>,
}

impl Roster {
    pub(super) fn new(published: watch::Sender<Arc<Vec<PeerInfo>>>) -> Self {
        Self { members: HashMap::new(), published }
    }

    pub(super) fn connect(&mut self, peer: PeerId, address: Multiaddr, outbound: bool) {
        let fresh = || Member {
            address: address.clone(),
            outbound,
            since: Instant::now(),
            round_trip: None,
            pings_missed: 0,
            topics: BTreeSet::new(),
            up: false,
            foreign: false,
            requests: 0,
        };
        let member = self.members.entry(peer).or_insert_with(fresh);
        member.address = address;
    }

    pub(super) fn remove(&mut self, peer: &PeerId) -> Option<Member> {
        self.members.remove(peer)
    }

    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Member> {
        self.members.get_mut(peer)
    }

    pub(super) fn is_up(&self, peer: &PeerId) -> bool {
        self.members.get(peer).is_some_and(|member| member.up)
    }

    pub(super) fn all(&self) -> Vec<PeerId> {
        self.members.keys().copied().collect()
    }

    pub(super) fn up(&self) -> Vec<PeerId> {
        let mut peers: Vec<PeerId> =
            self.members.iter().filter(|(_, member)| member.up).map(|(peer, _)| *peer).collect();
        peers.sort_unstable();
        peers
    }

    /// Returns peers that have kept silent about their network for too long.
    pub(super) fn silent(&self) -> Vec<PeerId> {
        self.members
            .iter()
            .filter(|(_, member)| !member.up && member.since.elapsed() > IDENTIFY_MAX)
            .map(|(peer, _)| *peer)
            .collect()
    }

    /// Publishes the list that people see.
    pub(super) fn publish(&self, rate: impl Fn(&PeerId) -> (i64, u32)) {
        let list = self
            .up()
            .iter()
            .filter_map(|peer| self.members.get(peer).map(|member| describe(peer, member, rate(peer))))
            .collect();
        self.published.send_replace(Arc::new(list));
    }
}

fn describe(peer: &PeerId, member: &Member, (score_milli, strikes): (i64, u32)) -> PeerInfo {
    PeerInfo {
        peer: to_peer(peer),
        address: member.address.to_string(),
        outbound: member.outbound,
        round_trip_us: member.round_trip.and_then(|time| u64::try_from(time.as_micros()).ok()),
        score_milli,
        strikes,
        topics: member.topics.iter().copied().collect(),
    }
}
