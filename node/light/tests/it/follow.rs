//! What a light client accepts and refuses.

use tiltyard_keys::{GenesisHash, PublicKey};
use tiltyard_light::{Client, FollowError, default_options};
use tiltyard_proto::genesis::GenesisError;
use tiltyard_proto::light::LightError;
use tiltyard_proto::receipt::Fact;
use tiltyard_proto::state::StateKey;
use tiltyard_proto::units::{Height, UnixMillis};

use crate::chain::{Chain, START_MS, chain};

fn now(chain: &Chain) -> UnixMillis {
    UnixMillis::new(START_MS + chain.blocks.len() as u64 * 1_000 + 500)
}

fn start(chain: &Chain) -> Client<Chain> {
    Client::start(chain.clone(), &chain.genesis.hash(), default_options()).expect("honest genesis")
}

#[test]
fn steady_set_is_skipped_in_one_step() {
    let chain = chain(&[&[1, 2, 3, 4]], 500, 0);
    let mut client = start(&chain);
    let trusted = client.follow(now(&chain)).expect("followed");
    assert_eq!(trusted.height(), Height::new(500));
    assert_eq!(client.headers_asked(), 1);
}

#[test]
fn changed_sets_are_bridged_by_headers_between() {
    let chain = chain(&[&[1, 2, 3, 4], &[3, 4, 5, 6], &[5, 6, 7, 8], &[7, 8, 9, 10]], 64, 0);
    let mut client = start(&chain);
    let trusted = client.follow(now(&chain)).expect("followed");
    assert_eq!(trusted.height(), Height::new(256));
    assert!((2..40).contains(&client.headers_asked()), "{} headers", client.headers_asked());
}

#[test]
fn foreign_genesis_is_refused() {
    let chain = chain(&[&[1, 2, 3, 4]], 4, 0);
    let error = Client::start(chain, &GenesisHash::from_bytes([9; 32]), default_options());
    assert!(matches!(error, Err(FollowError::Genesis(GenesisError::Foreign { .. }))));
}

#[test]
fn stale_tip_is_refused() {
    let chain = chain(&[&[1, 2, 3, 4]], 4, 0);
    let late = UnixMillis::new(now(&chain).get() + 3_600_000);
    let error = start(&chain).follow(late).expect_err("an hour old");
    assert!(matches!(error, FollowError::Light(LightError::Stale { .. })), "{error}");
}

#[test]
fn changed_header_is_refused() {
    let mut lying = chain(&[&[1, 2, 3, 4]], 8, 0);
    let tip = lying.blocks.last_mut().expect("a tip");
    tip.header.state_root = tiltyard_proto::ids::StateRoot::from_bytes([7; 32]);
    let error = start(&lying).follow(now(&lying)).expect_err("the certificate is for another header");
    assert!(matches!(error, FollowError::Light(LightError::OtherBlock { .. })), "{error}");
}

#[test]
fn witness_on_the_same_chain_agrees_and_on_a_fork_raises_the_alarm() {
    let ours = chain(&[&[1, 2, 3, 4]], 8, 0);
    let fork = chain(&[&[1, 2, 3, 4]], 8, 1);
    let mut client = start(&ours);
    client.follow(now(&ours)).expect("followed");
    client.cross_check(&ours, now(&ours)).expect("the same chain");
    let error = client.cross_check(&fork, now(&ours)).expect_err("two certified blocks");
    assert!(matches!(error, FollowError::Fork { culprits: 4, .. }), "{error}");
}

#[test]
fn absence_is_proven_at_a_fresh_height() {
    let chain = chain(&[&[1, 2, 3, 4]], 8, 0);
    let key = StateKey::Account(PublicKey::from_bytes([5; 32]));
    let proven = start(&chain).prove(&key, now(&chain)).expect("the empty tree proves it");
    assert_eq!(proven.fact, Fact::Absent { key });
    assert_eq!(proven.height, Height::new(8));
}

#[test]
fn receipt_of_a_lower_height_holds_on_the_way_to_the_tip() {
    use tiltyard_light::Source as _;
    let mut short = chain(&[&[1, 2, 3, 4]], 8, 0);
    let full = short.clone();
    short.blocks.truncate(3);
    let key = StateKey::Totals;
    let mut receipt = short.state(&key).expect("made in memory");
    let mut client = start(&full);
    let checked = client.verify_receipt(&receipt, now(&full)).expect("holds");
    assert_eq!(checked.height, Height::new(3));
    client.follow(now(&full)).expect("on to the tip");
    receipt.header.time = UnixMillis::new(1);
    assert!(start(&full).verify_receipt(&receipt, now(&full)).is_err());
}
