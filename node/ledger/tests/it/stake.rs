//! Stake, sets, absence, evidence, subsidy.

use tiltyard_keys::PublicKey;
use tiltyard_ledger::{LedgerEvent, MarketError, query};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::evidence::Evidence;
use tiltyard_proto::genesis::Params;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::state::{Standing, ValidatorRecord};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::{Height, Round, Stake};
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_proto::vote::{SignedVote, Vote, VoteKind};

use crate::race::spec;
use crate::world::{GRANT, JUDGES, World, key, micro, params, secret};

fn record(world: &World, who: &str) -> ValidatorRecord {
    query::validator(&world.state, &key(who)).expect("readable").expect("there is a record")
}

fn set(world: &World, height: u64) -> ValidatorSet {
    query::set_at(&world.state, Height::new(height)).expect("known")
}

fn has(set: &ValidatorSet, who: &str) -> bool {
    set.find(&key(who)).is_some()
}

fn rich() -> World {
    let mut world = World::with([100; 4], Params { faucet: micro(100_000_000), ..params() });
    world.act("x", Action::Faucet { to: key("x") });
    world
}

#[test]
fn bonded_stake_votes_one_epoch_after_the_epoch_ends() {
    let mut world = rich();
    world.act("x", Action::Bond { stake: Stake::new(20) });
    assert_eq!(record(&world, "x").stake, Stake::new(20));
    world.pass(Height::new(10));
    assert!(!has(&set(&world, 11), "x") && !has(&set(&world, 20), "x"));
    assert!(has(&set(&world, 21), "x"));
    assert!(world.events.contains(&LedgerEvent::SetComputed { epoch: 2, members: 5 }));
    world.pass(Height::new(20));
    let task = world.post(spec(4));
    world.act("x", Action::Accept { task });
}

#[test]
fn unbonded_stake_returns_after_its_delay() {
    let mut world = rich();
    world.act("x", Action::Bond { stake: Stake::new(20) });
    let before = world.balance("x");
    world.act("x", Action::Unbond { stake: Stake::new(20) });
    let until = record(&world, "x").unbonding[0].until;
    assert_eq!(until, Height::new(world.height.get() + 171));
    world.pass(until);
    assert_eq!(world.balance("x"), before - 10, "it waits for the end of the epoch");
    world.pass(Height::new(until.get().next_multiple_of(10)));
    assert_eq!(world.balance("x"), before - 10 + 20_000_000);
    assert_eq!(query::validator(&world.state, &key("x")).expect("readable"), None, "nothing is left of it");
}

#[test]
fn stake_that_a_task_holds_stays() {
    let mut world = World::new();
    let task = world.open(spec(4));
    assert_eq!(record(&world, "v1").duties, 1);
    world.close_commits(task);
    assert_eq!(record(&world, "v1").duties, 0);
}

#[test]
fn stake_rules_name_what_is_wrong() {
    let mut world = rich();
    let bond = |stake| Action::Bond { stake: Stake::new(stake) };
    let unbond = |stake| Action::Unbond { stake: Stake::new(stake) };
    assert_eq!(world.refused("x", bond(0)), MarketError::NothingToDo);
    assert_eq!(world.refused("x", unbond(0)), MarketError::NothingToDo);
    assert_eq!(world.refused("x", unbond(1)), MarketError::NoStake { key: key("x") });
    let (stake, needed) = (Stake::new(9), Stake::new(10));
    assert_eq!(world.refused("x", bond(9)), MarketError::StakeTooSmall { stake, needed });
    assert!(matches!(world.refused("x", bond(1_000_000)), MarketError::Balance { .. }));
    assert_eq!(world.refused("x", bond(u64::MAX)), MarketError::StakeTotal);
    assert_eq!(
        world.refused("x", bond(1 << 44)),
        MarketError::Balance {
            needed: Stake::new(1 << 44).to_micro_credits().expect("fits"),
            balance: micro(world.balance("x")),
        }
    );
    world.act("x", bond(40));
    assert_eq!(world.refused("x", unbond(41)), MarketError::StakeTooLarge { bonded: Stake::new(40) });
    assert_eq!(world.refused("x", unbond(31)), MarketError::StakeTooSmall { stake, needed });
    for _ in 0..16 {
        world.act("x", unbond(1));
    }
    assert_eq!(world.refused("x", unbond(1)), MarketError::UnbondingsFull { count: 16 });
    assert_eq!(world.refused("x", Action::Unjail), MarketError::NotJailed);
    assert_eq!(world.refused("a", Action::Unjail), MarketError::NoStake { key: key("a") });
}

#[test]
fn a_validator_publishes_where_it_is() {
    let mut world = rich();
    world.act("x", Action::Bond { stake: Stake::new(20) });
    let place = |peer: Vec<u8>, addresses: Vec<String>| Action::SetValidator {
        peer: peer.into(),
        addresses,
        payout: key("a"),
    };
    world.act("x", place(vec![1; 38], vec!["/ip4/127.0.0.1/tcp/4000".into()]));
    assert_eq!(record(&world, "x").payout, key("a"));
    for bad in [
        place(vec![], vec![]),
        place(vec![1; 65], vec![]),
        place(vec![1], vec!["x".into(); 9]),
        place(vec![1], vec!["x".repeat(129)]),
    ] {
        assert_eq!(world.refused("x", bad), MarketError::Whereabouts);
    }
}

/// Applies an empty block whose certificate lacks the names given.
fn without(world: &mut World, absent: &[&str]) {
    let parents = set(world, world.height.get().max(1));
    let precommits: Vec<_> = parents
        .members()
        .iter()
        .filter(|member| !absent.iter().any(|name| key(name) == member.key))
        .map(|member| (member.key, tiltyard_keys::Signature::from_bytes([0; 64])))
        .collect();
    let block = BlockHash::from_bytes([1; 32]);
    let certificate = Certificate::build(world.height, Round::ZERO, block, &parents, &precommits);
    let mut context = world.context();
    context.parent_certificate = Some((&certificate, &parents));
    world.apply_in(&context, &[]).expect("valid");
}

#[test]
fn who_misses_more_than_half_a_window_is_jailed_and_may_return() {
    let mut world = World::with([100; 4], Params { faucet: micro(1_000), ..params() });
    world.act("v4", Action::Faucet { to: key("v4") });
    for _ in 0..5 {
        without(&mut world, &["v4"]);
    }
    assert_eq!(record(&world, "v4").standing, Standing::Active, "5 of 10 are not more than half");
    without(&mut world, &["v4"]);
    let until = Height::new(world.height.get() + 5);
    assert_eq!(record(&world, "v4").standing, Standing::Jailed { until });
    without(&mut world, &["v4"]);
    assert_eq!(world.refused("v4", Action::Unjail), MarketError::StillJailed { until });
    world.pass(Height::new(10));
    assert!(!has(&set(&world, 21), "v4"));
    world.pass(until);
    world.act("v4", Action::Unjail);
    world.pass(Height::new(20));
    assert!(has(&set(&world, 31), "v4"));
}

#[test]
fn absence_is_forgotten_with_its_window() {
    let mut world = World::new();
    for _ in 0..5 {
        without(&mut world, &["v4"]);
    }
    world.advance(6);
    for _ in 0..5 {
        without(&mut world, &["v4"]);
    }
    assert_eq!(record(&world, "v4").standing, Standing::Active);
}

#[test]
fn a_certificate_of_the_wrong_shape_spoils_the_block() {
    let world = World::new();
    let parents = set(&world, 1);
    let block = BlockHash::from_bytes([1; 32]);
    let mut certificate = Certificate::build(world.height, Round::ZERO, block, &parents, &[]);
    certificate.signers = vec![0xff].into();
    let mut context = world.context();
    context.parent_certificate = Some((&certificate, &parents));
    let error = tiltyard_ledger::execute(&world.state, &context, &[]).expect_err("invalid");
    assert!(error.to_string().contains("does not fit a set of 4"), "{error}");
}

fn vote(world: &World, who: &str, height: u64, block: u8) -> SignedVote {
    Vote {
        kind: VoteKind::Precommit,
        height: Height::new(height),
        round: Round::ZERO,
        block: Some(BlockHash::from_bytes([block; 32])),
        validator: key(who),
    }
    .sign(&secret(who).signer(world.genesis.hash()))
}

fn evidence(world: &World, who: &str, height: u64) -> Action {
    Action::Evidence(Box::new(Evidence::votes(vote(world, who, height, 1), vote(world, who, height, 2))))
}

#[test]
fn a_double_signer_loses_a_tenth_of_all_its_stake_and_its_place() {
    let mut world = World::with([105, 100, 100, 100], params());
    world.act("a", Action::Transfer { to: key("v1"), amount: micro(1_000) });
    world.act("v1", Action::Unbond { stake: Stake::new(30) });
    world.advance(3);
    let action = evidence(&world, "v1", 2);
    world.act("x", action.clone());
    let found = record(&world, "v1");
    assert_eq!(found.stake, Stake::new(75 - 7), "whole credits, rounded down");
    assert_eq!(found.unbonding[0].amount, micro(27_000_000));
    assert_eq!(found.standing, Standing::Tombstoned);
    assert_eq!(world.burned(), 20 + 7_000_000 + 3_000_000);
    assert!(world.events.iter().any(|event| matches!(event, LedgerEvent::Slashed { .. })));
    let again = MarketError::AlreadyPunished { key: key("v1"), height: Height::new(2) };
    assert_eq!(world.refused("x", action), again);
    world.pass(Height::new(10));
    assert!(!has(&set(&world, 21), "v1"));
    let bond = Action::Bond { stake: Stake::new(10) };
    assert_eq!(world.refused("v1", bond), MarketError::Tombstoned { key: key("v1") });
    assert_eq!(world.refused("v1", Action::Unjail), MarketError::Tombstoned { key: key("v1") });
}

#[test]
fn evidence_that_proves_nothing_burns_nothing() {
    let mut world = World::new();
    world.advance(35);
    let old = evidence(&world, "v1", 4);
    let error = world.refused("x", old);
    assert!(matches!(error, MarketError::EvidenceAge { .. }), "{error:?}");
    let future = evidence(&world, "v1", 1_000);
    assert!(matches!(world.refused("x", future), MarketError::EvidenceAge { .. }));
    let stranger = evidence(&world, "a", 30);
    let error = MarketError::NotInSet { key: key("a"), height: Height::new(30) };
    assert_eq!(world.refused("x", stranger), error);
    let (mut forged, honest) = (vote(&world, "v1", 30, 1), vote(&world, "v1", 30, 2));
    forged.signature = honest.signature;
    let action = Action::Evidence(Box::new(Evidence::votes(forged, honest)));
    assert!(matches!(world.refused("x", action), MarketError::Evidence(_)));
    let same = Action::Evidence(Box::new(Evidence::votes(honest, honest)));
    assert!(matches!(world.refused("x", same), MarketError::Evidence(_)));
    assert_eq!(record(&world, "v1").stake, Stake::new(100));
}

#[test]
fn subsidy_goes_to_validators_by_stake_and_its_dust_waits() {
    let mut world = World::with([100, 100, 100, 33], Params { subsidy_per_epoch: micro(1_000), ..params() });
    world.pass(Height::new(10));
    assert_eq!(JUDGES.map(|judge| world.balance(judge)), [300, 300, 300, 99]);
    let totals = query::totals(&world.state).expect("readable");
    assert_eq!((totals.subsidy, totals.pending_subsidy), (micro(1_000), micro(1)));
    world.pass(Height::new(20));
    assert_eq!(query::totals(&world.state).expect("readable").pending_subsidy, micro(2));
}

#[test]
fn the_last_set_stays_when_nobody_is_left() {
    let mut world = World::new();
    for judge in JUDGES {
        world.act("a", Action::Transfer { to: key(judge), amount: micro(100) });
        world.act(judge, Action::Unbond { stake: Stake::new(100) });
    }
    world.pass(Height::new(20));
    assert_eq!(set(&world, 31).members().len(), 4);
    assert_eq!(world.balance("a"), GRANT - 4 * 110);
    let keys: Vec<PublicKey> = query::validators(&world.state).expect("readable");
    assert_eq!(keys.len(), 4);
}

/// `v1` with the cold account `c` as payout; the hot key has credits for fees.
fn with_cold_key() -> World {
    let mut world = World::new();
    world.act("a", Action::Transfer { to: key("v1"), amount: micro(1_000) });
    world.act("v1", payout_to("c"));
    assert_eq!(record(&world, "v1").payout, key("c"), "from the hot key itself it changes at once");
    world
}

fn payout_to(who: &str) -> Action {
    Action::SetValidator { peer: vec![1; 38].into(), addresses: vec![], payout: key(who) }
}

fn revoke(unbond: bool) -> Action {
    Action::Revoke { validator: key("v1"), unbond }
}

#[test]
fn a_stolen_hot_key_moves_the_payout_only_after_the_delay() {
    let mut world = with_cold_key();
    world.act("v1", payout_to("x"));
    let change = record(&world, "v1").payout_change.expect("it is pending");
    assert_eq!((change.to, change.from.get()), (key("x"), world.height.get() + 171));
    world.act("v1", payout_to("x"));
    assert_eq!(record(&world, "v1").payout_change, Some(change), "saying it again gains nothing");
    world.pass(Height::new(change.from.get() - 1));
    world.act("v1", payout_to("d"));
    let later = record(&world, "v1").payout_change.expect("another one waits anew");
    assert!(later.from > change.from);
    world.pass(Height::new(later.from.get() - 1));
    assert_eq!(record(&world, "v1").payout, key("c"));
    world.pass(Height::new(later.from.get().next_multiple_of(10)));
    assert_eq!((record(&world, "v1").payout, record(&world, "v1").payout_change), (key("d"), None));
}

#[test]
fn the_cold_key_wins_the_race_up_to_the_last_block() {
    let mut world = with_cold_key();
    world.act("v1", payout_to("x"));
    let from = record(&world, "v1").payout_change.expect("it is pending").from;
    world.pass(Height::new(from.get().next_multiple_of(10) - 1));
    world.act("c", revoke(false));
    assert_eq!((record(&world, "v1").payout, record(&world, "v1").payout_change), (key("c"), None));
    world.pass(Height::new(world.height.get() + 20));
    assert_eq!(record(&world, "v1").payout, key("c"), "the change does not come back");
    world.act("v1", payout_to("x"));
    world.act("v1", payout_to("c"));
    assert_eq!(record(&world, "v1").payout_change, None, "naming the present one ends it too");
}

#[test]
fn a_stolen_hot_key_unbonds_to_the_cold_account_only() {
    let mut world = with_cold_key();
    // Both at once: the stake is due no later than the change, and goes first.
    world.act("v1", Action::Unbond { stake: Stake::new(100) });
    world.act("v1", payout_to("x"));
    let (cold, hot) = (world.balance("c"), world.balance("v1"));
    world.pass(Height::new((world.height.get() + 171).next_multiple_of(10)));
    assert_eq!(world.balance("c"), cold + 100_000_000);
    assert_eq!((world.balance("v1"), world.balance("x")), (hot, GRANT));
}

#[test]
fn the_cold_key_takes_all_stake_out_even_when_the_thief_filled_every_part() {
    let mut world = with_cold_key();
    for _ in 0..16 {
        world.act("v1", Action::Unbond { stake: Stake::new(1) });
    }
    world.act("c", revoke(true));
    let found = record(&world, "v1");
    assert_eq!((found.stake, found.unbonding.len()), (Stake::ZERO, 16));
    assert_eq!(found.unbonding[15].amount, micro(85_000_000));
    world.pass(Height::new((world.height.get() + 171).next_multiple_of(10)));
    assert_eq!(world.balance("c"), GRANT - 10 + 100_000_000);
    assert!(!has(&set(&world, world.height.get() + 1), "v1"));
}

#[test]
fn only_the_present_payout_key_revokes_and_only_what_is_there() {
    let mut world = with_cold_key();
    let (validator, payout) = (key("v1"), key("c"));
    assert_eq!(world.refused("x", revoke(true)), MarketError::NotPayoutKey { validator, payout });
    assert_eq!(world.refused("v1", revoke(true)), MarketError::NotPayoutKey { validator, payout });
    assert_eq!(world.refused("c", revoke(false)), MarketError::NothingToDo);
    let stranger = Action::Revoke { validator: key("b"), unbond: true };
    assert_eq!(world.refused("c", stranger), MarketError::NoStake { key: key("b") });
}
