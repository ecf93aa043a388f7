use std::time::Duration;

use libp2p::PeerId;

use super::*;

#[tokio::test(start_paused = true)]
async fn strikes_add_up_to_a_ban_and_expire_one_a_minute() {
    let mut strikes = Strikes::new(4, Duration::from_secs(10));
    let peer = PeerId::random();
    assert!(!strikes.add(peer, 3));
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(strikes.points(&peer), 2);
    assert!(!strikes.add(peer, 1));
    assert!(strikes.add(peer, 1));
    assert_eq!(strikes.points(&peer), 0, "a ban settles the account");
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(strikes.expire(), Vec::<PeerId>::new());
}

#[tokio::test(start_paused = true)]
async fn bans_end_and_tables_stay_bounded() {
    let mut strikes = Strikes::new(4, Duration::from_secs(10));
    let first = PeerId::random();
    assert_eq!(strikes.ban(first), None);
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut evicted = Vec::new();
    for _ in 0..PEERS_MAX {
        let peer = PeerId::random();
        strikes.add(peer, 1);
        evicted.extend(strikes.ban(peer));
    }
    strikes.add(PeerId::random(), 1);
    assert_eq!(evicted, [first], "the ban that would end first ends early");
    assert_eq!(strikes.records.len(), PEERS_MAX);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(strikes.expire().len(), PEERS_MAX);
    assert!(strikes.expire().is_empty());
}
