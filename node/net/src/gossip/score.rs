//! Scoring of gossip peers: invalid messages and protocol abuse count, quiet topics and shared loopback addresses do not.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use libp2p::gossipsub::{PeerScoreParams, PeerScoreThresholds, TopicScoreParams};
use tiltyard_proto::wire::Topic;

use super::settings::Topics;

/// Below this score nothing of a peer is read any more, and its connection is closed.
pub(crate) const GRAYLIST_SCORE: f64 = -800.0;

/// Returns how peers are scored.
///
/// Counters decay every second. One invalid message costs 10, four cost 160, nine cost 810 (the square counts): nine
/// within a few seconds graylist a peer. Deliveries earn at most 20 a topic.
pub(crate) fn params(topics: &Topics) -> PeerScoreParams {
    let per_topic = Topic::ALL.into_iter().map(|topic| (topics.ident(topic).hash(), topic_params()));
    PeerScoreParams {
        topics: per_topic.collect::<HashMap<_, _>>(),
        topic_score_cap: 60.0,
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: -5.0,
        ip_colocation_factor_threshold: 10.0,
        ip_colocation_factor_whitelist: [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            .into_iter()
            .collect(),
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: 0.8,
        decay_interval: Duration::from_secs(1),
        decay_to_zero: 0.01,
        retain_score: Duration::from_secs(600),
        slow_peer_weight: -0.05,
        slow_peer_threshold: 100.0,
        slow_peer_decay: 0.5,
    }
}

/// Returns the scores at which a peer loses gossip, publications, and everything.
pub(crate) fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -100.0,
        publish_threshold: -400.0,
        graylist_threshold: GRAYLIST_SCORE,
        accept_px_threshold: 1_000.0,
        opportunistic_graft_threshold: 1.0,
    }
}

fn topic_params() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 500.0,
        first_message_deliveries_weight: 0.15,
        first_message_deliveries_decay: 0.97,
        first_message_deliveries_cap: 100.0,
        // A topic may be silent for hours: missing deliveries say nothing about a peer.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: 0.98,
        ..TopicScoreParams::default()
    }
}
