//! Late joiners and observers catch up; liars cost time only.

use tiltyard_machine::Event;
use tiltyard_machine::io::{Input, Missing};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::{Height, Stake};

use crate::world::{Part, World, secret};

const FOUR_AND_ONE: [Part; 5] =
    [Part::Validator, Part::Validator, Part::Validator, Part::Validator, Part::Observer];

#[test]
fn an_observer_follows_block_by_block() {
    let mut world = World::new(20, &FOUR_AND_ONE);
    world.start_all();
    world.run(6_000);
    world.assert_agreement();
    assert!(world.height(4) + 1 >= world.height(0));
}

#[test]
fn a_late_observer_fetches_the_whole_chain() {
    let mut world = World::new(21, &FOUR_AND_ONE);
    for at in 0..4 {
        world.start(at);
    }
    world.run(40_000);
    assert!(world.height(0) > 150);
    world.blocks_given.clear();
    world.start(4);
    let done = world.run_until(world.now_ms + 5_000, |world| world.height(4) + 1 >= world.height(0));
    assert!(done, "{} of {} blocks", world.height(4), world.height(0));
    assert!(world.blocks_given.len() > 1, "blocks came from one peer alone: {:?}", world.blocks_given);
    world.run(2_000);
    world.assert_agreement();
    assert!(world.nodes[4].events.iter().any(|event| matches!(event, Event::Synced { .. })));
}

#[test]
fn a_validator_that_was_away_for_long_catches_up_and_signs_again() {
    let mut world = World::validators(22, 4);
    world.start_all();
    world.run(2_000);
    world.kill(0);
    world.run(60_000);
    let away = world.height(1) - world.height(0);
    assert!(away > 70, "{away} blocks missed");
    world.start(0);
    world.run(6_000);
    world.assert_agreement();
    assert!(world.height(0) + 1 >= world.height(1));
    let key = secret(1).public();
    let set = world.genesis.validator_set().unwrap();
    let (position, _) = set.find(&key).unwrap();
    let disk = world.nodes[1].disk.borrow();
    let signed = disk
        .blocks
        .iter()
        .rev()
        .take(10)
        .any(|decided| decided.certificate.signed_by(4).unwrap().iter().any(|(at, _)| *at == position));
    assert!(signed);
}

#[test]
fn three_liars_of_four_delay_a_joiner_but_one_honest_peer_is_enough() {
    let mut world = World::new(23, &FOUR_AND_ONE);
    for at in 0..4 {
        world.start(at);
    }
    world.run(20_000);
    world.liars = [0, 1, 2].into();
    world.start(4);
    let done = world.run_until(world.now_ms + 30_000, |world| world.height(4) + 1 >= world.height(0));
    assert!(done, "{} of {} blocks", world.height(4), world.height(0));
    world.assert_agreement();
    assert!(!world.nodes[4].penalties.is_empty());
}

#[test]
fn blocks_that_a_disk_lost_come_back_even_from_among_liars() {
    let mut world = World::validators(25, 4);
    world.start_all();
    world.run(20_000);
    let whole = world.nodes[3].disk.borrow().blocks.clone();
    assert!(whole.len() > 45, "{} blocks", whole.len());
    world.liars = [1, 2].into();
    let named = whole[40].block.header.parent;
    let missing = Missing { from: Height::new(3), to: Height::new(40), hash: named };
    world.give(0, Input::Missing(Some(missing)));
    world.run_until(world.now_ms + 15_000, |world| !world.nodes[0].repaired.is_empty());
    let found = world.nodes[0].repaired.clone();
    assert_eq!(found.len(), 38, "each missing block once");
    for (at, decided) in found.iter().enumerate() {
        assert_eq!(decided.block, whole[39 - at].block, "from the last one down");
    }
    world.run(3_000);
    world.assert_agreement();
    assert_eq!(world.nodes[0].repaired.len(), 38, "what is there is not asked for again");
}

#[test]
fn an_eclipsed_node_takes_no_bad_block_raises_the_alarm_and_recovers_with_one_honest_peer() {
    let parts = [&FOUR_AND_ONE[..], &[Part::Observer]].concat();
    let mut world = World::new(26, &parts);
    for at in 0..5 {
        world.start(at);
    }
    world.run(5_000);
    assert!(world.nodes[4].events.iter().all(|event| !matches!(event, Event::Stale { .. })));
    world.liars = [0, 1, 2, 3].into();
    world.eclipsed = Some(4);
    let eclipsed_ms = world.now_ms;
    let stale = |world: &World| world.nodes[4].machine.as_ref().unwrap().status().stale;
    let raised = world.run_until(eclipsed_ms + 30_000, stale);
    assert!(raised, "no alarm within 30 s");
    let told = |wanted: fn(&Event) -> bool| move |world: &World| world.nodes[4].events.iter().any(wanted);
    assert!(told(|event| matches!(event, Event::Stale { .. }))(&world));
    world.run(30_000);
    world.assert_agreement();
    assert!(world.height(4) + 100 < world.height(0), "{} of {}", world.height(4), world.height(0));
    // The others are surrounded by nobody: only this node stands still.
    assert!(!world.nodes[0].machine.as_ref().unwrap().status().stale);
    world.start(5);
    let level = world.run_until(world.now_ms + 30_000, |world| world.height(4) + 2 >= world.height(0));
    assert!(level, "{} of {}", world.height(4), world.height(0));
    assert!(world.run_until(world.now_ms + 3_000, told(|event| matches!(event, Event::Fresh { .. }))));
    assert!(!stale(&world));
    world.assert_agreement();
}

#[test]
fn a_newcomer_that_bonds_stake_votes_from_the_epoch_after_next_and_leaves_the_same_way() {
    let parts = [Part::Validator, Part::Validator, Part::Validator, Part::Validator, Part::Newcomer];
    let mut world = World::new(24, &parts);
    world.start_all();
    world.run(1_000);
    let key = secret(5);
    let bond = world.sign_with(&key, 0, Action::Bond { stake: Stake::new(5_000) });
    world.give(4, Input::Submit(Box::new(bond)));
    world.run(8_000);
    world.assert_agreement();
    assert!(world.nodes[4].machine.as_ref().unwrap().status().validating);
    // With more than half of the stake nothing is decided without it.
    {
        let disk = world.nodes[0].disk.borrow();
        let last = disk.blocks.last().unwrap();
        let set = tiltyard_ledger::query::set_at(&disk.state, last.block.header.height).unwrap();
        let (position, member) = set.find(&key.public()).unwrap();
        assert_eq!(member.stake, Stake::new(5_000));
        let signed = last.certificate.signed_by(set.members().len()).unwrap();
        assert!(signed.iter().any(|(at, _)| *at == position));
    }
    let unbond = world.sign_with(&key, 1, Action::Unbond { stake: Stake::new(5_000) });
    world.give(4, Input::Submit(Box::new(unbond)));
    world.run(8_000);
    world.assert_agreement();
    assert!(!world.nodes[4].machine.as_ref().unwrap().status().validating);
    let before = world.height(0);
    world.kill(4);
    world.run(3_000);
    assert!(world.height(0) >= before + 12, "{} blocks without it", world.height(0) - before);
}

#[test]
fn three_peers_of_four_that_claim_much_and_never_answer_delay_a_joiner_only() {
    for random in 25..28 {
        let mut world = World::new(random, &FOUR_AND_ONE);
        for at in 0..4 {
            world.start(at);
        }
        world.run(20_000);
        world.mutes = [0, 1, 2].into();
        world.start(4);
        // Sooner than a request is given up: what the tip waits for was asked of the fourth meanwhile.
        let done = world.run_until(world.now_ms + 9_000, |world| world.height(4) + 1 >= world.height(0));
        assert!(done, "{} of {} blocks", world.height(4), world.height(0));
        world.assert_agreement();
    }
}

#[test]
fn a_false_tip_does_not_keep_validators_from_deciding() {
    for silent in [false, true] {
        let mut world = World::new(28, &FOUR_AND_ONE);
        if silent {
            world.mutes = [4].into();
        } else {
            world.liars = [4].into();
        }
        world.start_all();
        world.run(20_000);
        world.assert_agreement();
        assert!(world.height(0) > 40, "{} blocks in 20 s at 5 a second", world.height(0));
    }
}
