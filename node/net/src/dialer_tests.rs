use std::time::Duration;

use libp2p::PeerId;

use super::*;

fn target(port: u16) -> Target {
    Target::parse(&format!("/ip4/127.0.0.1/tcp/{port}")).unwrap()
}

fn dialer(targets: &[Target]) -> Dialer {
    Dialer::new(targets, Duration::from_millis(100), Duration::from_secs(2), 7)
}

#[tokio::test(start_paused = true)]
async fn failures_lengthen_the_pause_up_to_its_limit() {
    let mut dialer = dialer(&[target(1)]);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let begun = Instant::now();
        let options = loop {
            match dialer.due(|_| false).pop() {
                Some(options) => break options,
                None => tokio::time::advance(Duration::from_millis(5)).await,
            }
        };
        pauses.push(begun.elapsed());
        dialer.on_failed(options.connection_id(), false);
    }
    assert_eq!(pauses[0], Duration::ZERO, "the first dial is immediate");
    for (failures, pause) in (1u32..).zip(&pauses[1..]) {
        let full = Duration::from_millis(100 * (1 << failures)).min(Duration::from_secs(2));
        assert!(*pause <= full + Duration::from_millis(5) && *pause >= full * 3 / 4, "{failures}: {pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_peer_is_dialed_again_soon_and_a_foreign_one_late() {
    let mut dialer = dialer(&[target(1)]);
    let peer = PeerId::random();
    let options = dialer.due(|_| false).pop().unwrap();
    dialer.on_connected(options.connection_id(), peer);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(dialer.due(|_| false).is_empty(), "connected");
    dialer.on_lost(peer, false);
    tokio::time::advance(Duration::from_millis(100)).await;
    let options = dialer.due(|_| false).pop().unwrap();
    dialer.on_connected(options.connection_id(), peer);
    dialer.on_lost(peer, true);
    tokio::time::advance(Duration::from_millis(1_400)).await;
    assert!(dialer.due(|_| false).is_empty());
    tokio::time::advance(Duration::from_millis(700)).await;
    assert_eq!(dialer.due(|_| false).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_own_address_is_dialed_once_and_kept_targets_replace_each_other() {
    let mut dialer = dialer(&[target(1)]);
    let options = dialer.due(|_| false).pop().unwrap();
    dialer.on_failed(options.connection_id(), true);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(dialer.due(|_| false).is_empty());
    dialer.keep((10..200).map(target).collect());
    assert_eq!(dialer.due(|_| false).len(), KEPT_MAX);
    dialer.keep(vec![target(500)]);
    assert_eq!(dialer.slots.len(), 2, "the bootstrap peer stays");
}
