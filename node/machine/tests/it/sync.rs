//! Late joiners and observers catch up; liars cost time only.

use tiltyard_machine::Event;

use crate::world::{Part, World};

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
    world.start(4);
    let done = world.run_until(world.now_ms + 5_000, |world| world.height(4) + 1 >= world.height(0));
    assert!(done, "{} of {} blocks", world.height(4), world.height(0));
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
    let key = crate::world::secret(1).public();
    let set = world.genesis.validator_set().unwrap();
    let (position, _) = set.find(&key).unwrap();
    let disk = world.nodes[1].disk.borrow();
    let signed = disk.blocks.iter().rev().take(10).any(|decided| {
        decided.certificate.signed_by(4).unwrap().iter().any(|(at, _)| *at == position)
    });
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
