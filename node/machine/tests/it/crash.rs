//! A validator dies between any two effects and comes back.

use tiltyard_consensus::recorded_values;
use tiltyard_machine::Event;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::units::Height;

use crate::world::{Part, Weather, World};

fn signed_by(world: &World, decided: &DecidedBlock, at: usize) -> bool {
    let key = crate::world::secret(world.nodes[at].seed).public();
    let set = world.genesis.validator_set().unwrap();
    let (position, _) = set.find(&key).unwrap();
    decided
        .certificate
        .signed_by(set.members().len())
        .is_some_and(|signed| signed.iter().any(|(member, _)| *member == position))
}

fn assert_honest(world: &World) {
    for (at, node) in world.nodes.iter().enumerate() {
        assert_eq!(node.stopped_signing, None, "node {at}");
        for event in &node.events {
            assert!(!matches!(event, Event::Equivocation { .. }), "node {at}: {event:?}");
        }
    }
}

#[test]
fn a_crash_at_any_effect_boundary_of_a_height_neither_forks_nor_double_signs() {
    for boundary in 0..36 {
        let mut world = World::validators(100 + boundary, 4);
        // Back within the same height, or when it is long over.
        world.restart_after_ms = if boundary % 3 == 0 { 500 } else { 10 };
        world.start_all();
        world.run(2_000);
        world.nodes[1].crash_after = Some(boundary);
        world.run(3_000);
        world.assert_agreement();
        assert_honest(&world);
        assert!(world.height(1) + 2 >= world.height(0), "boundary {boundary}: node 1 is back in step");
        let disk = world.nodes[0].disk.borrow();
        let last = disk.blocks.iter().rev().take(8);
        assert!(
            last.into_iter().any(|decided| signed_by(&world, decided, 1)),
            "boundary {boundary}: node 1 signs again"
        );
    }
}

#[test]
fn all_validators_crash_again_and_again_in_bad_weather_without_a_fork() {
    for seed in 0..4 {
        let mut world = World::validators(seed, 4);
        world.weather = Weather { lost_percent: 5, twice_percent: 5, delay_ms_max: 30 };
        world.start_all();
        world.run(1_000);
        for _ in 0..25 {
            let at = usize::try_from(world.random(4)).unwrap();
            world.nodes[at].crash_after = Some(world.random(30));
            world.restart_after_ms = 1 + world.random(400);
            world.run(700);
        }
        world.run(10_000);
        world.assert_agreement();
        assert_honest(&world);
        assert!(world.lowest() > 20, "seed {seed}: {} blocks", world.lowest());
    }
}

#[test]
fn a_lone_validator_continues_after_each_crash() {
    for boundary in 0..12 {
        let mut world = World::new(200 + boundary, &[Part::Validator]);
        world.start_all();
        world.run(1_500);
        world.nodes[0].crash_after = Some(boundary);
        world.run(4_000);
        assert_honest(&world);
        assert!(world.height(0) > 12, "boundary {boundary}: {} blocks", world.height(0));
    }
}

/// Runs until node 2 has recorded a valid block of its running height, and returns that height.
fn recorded_height(world: &mut World) -> u64 {
    for _ in 0..2_000 {
        world.run(1);
        let disk = world.nodes[2].disk.borrow();
        let height = disk.blocks.len() as u64 + 1;
        let recorded = recorded_values(Height::new(height), &disk.journal).unwrap();
        if recorded.iter().any(|value| value.valid) {
            return height;
        }
    }
    panic!("no block was recorded in 2 s");
}

#[test]
fn a_validator_whose_recorded_body_is_gone_stops_signing_and_follows() {
    let mut stopped = 0;
    for seed in 300..305 {
        let mut world = World::validators(seed, 4);
        world.start_all();
        world.run(2_000);
        let height = recorded_height(&mut world);
        // Without 2 and 3 nothing is decided, unless it was already.
        world.kill(2);
        world.kill(3);
        world.nodes[2].disk.borrow_mut().bodies.clear();
        world.run(500);
        world.start(2);
        world.run(1_500);
        if world.height(0) < height {
            let fact = world.nodes[2].stopped_signing.clone().expect("its journal contradicts it");
            assert!(fact.contains("body was not kept"), "{fact}");
            stopped += 1;
        }
        world.start(3);
        world.run(8_000);
        world.assert_agreement();
        assert!(world.height(2) + 2 >= world.height(0), "seed {seed}: it follows");
        let disk = world.nodes[0].disk.borrow();
        let halted = world.nodes[2].stopped_signing.is_some();
        let signs = disk.blocks.iter().rev().take(8).any(|block| signed_by(&world, block, 2));
        assert_eq!(signs, !halted, "seed {seed}");
    }
    assert!(stopped > 0, "no seed stopped between recording and deciding");
}
