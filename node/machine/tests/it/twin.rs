//! One key in two places, or a folder older than what its key has said: nothing is ever signed twice.

use tiltyard_ledger::query;
use tiltyard_machine::Event;
use tiltyard_proto::state::Standing;

use crate::world::{Part, World, secret};

const FOUR_AND_A_TWIN: [Part; 5] =
    [Part::Validator, Part::Validator, Part::Validator, Part::Validator, Part::Newcomer];

/// Nobody signed two things, nobody was accused, and everyone has the same blocks.
fn assert_innocent(world: &World) {
    world.assert_agreement();
    for (at, node) in world.nodes.iter().enumerate() {
        let accused = node.events.iter().find(|event| matches!(event, Event::Equivocation { .. }));
        assert_eq!(accused, None, "node {at}");
    }
    let disk = world.nodes[1].disk.borrow();
    for seed in 1..=4 {
        let record = query::validator(&disk.state, &secret(seed).public()).unwrap().unwrap();
        assert_eq!(record.standing, Standing::Active, "validator {seed}");
    }
}

fn listened(world: &World, at: usize) -> bool {
    world.nodes[at].events.iter().any(|event| matches!(event, Event::Listening { .. }))
}

/// Counts the newest `blocks` that validator 1 signed.
fn signed_lately(world: &World, blocks: usize) -> usize {
    let disk = world.nodes[1].disk.borrow();
    let set = world.genesis.validator_set().unwrap();
    let (position, _) = set.find(&secret(1).public()).unwrap();
    let newest = disk.blocks.iter().rev().take(blocks);
    newest
        .filter(|decided| {
            decided.certificate.signed_by(4).unwrap().iter().any(|(signer, _)| *signer == position)
        })
        .count()
}

#[test]
fn a_second_process_with_the_same_key_hears_the_first_and_never_signs() {
    for seed in 50..54 {
        let mut world = World::new(seed, &FOUR_AND_A_TWIN);
        world.nodes[4].seed = 1;
        for at in 0..4 {
            world.start(at);
        }
        world.run(4_000);
        world.start(4);
        world.run(6_000);
        let fact = world.nodes[4].stopped_signing.clone().expect("it heard its own key");
        assert!(fact.contains("runs elsewhere"), "{fact}");
        assert_eq!(world.nodes[0].stopped_signing, None, "the first one goes on");
        assert!(world.height(4) + 2 >= world.height(0), "the second one still follows");
        assert!(signed_lately(&world, 8) >= 4);
        assert_innocent(&world);
    }
}

#[test]
fn a_restored_backup_listens_before_it_signs() {
    for seed in 60..66 {
        let mut world = World::validators(seed, 4);
        world.start_all();
        world.run(2_000 + seed * 7);
        let backup = world.nodes[0].disk.borrow().clone();
        world.run(3_000);
        world.kill(0);
        *world.nodes[0].disk.borrow_mut() = backup;
        world.start(0);
        world.run(5_000);
        assert!(listened(&world, 0), "seed {seed}");
        assert_eq!(world.nodes[0].stopped_signing, None, "seed {seed}");
        assert!(signed_lately(&world, 6) > 0, "seed {seed}: it signs again");
        assert_innocent(&world);
    }
}

#[test]
fn a_wiped_validator_comes_back_without_a_double_vote() {
    for seed in 70..76 {
        let mut world = World::validators(seed, 4);
        world.start_all();
        world.run(3_000 + seed * 11);
        world.kill(0);
        world.wipe(0);
        world.start(0);
        let back = world.height(1);
        world.run(5_000);
        assert!(listened(&world, 0), "seed {seed}");
        // Nothing of the height that ran, and of the one after it.
        let disk = world.nodes[1].disk.borrow();
        let set = world.genesis.validator_set().unwrap();
        let (position, _) = set.find(&secret(1).public()).unwrap();
        let first = disk.blocks.iter().map(|decided| &decided.certificate).find(|certificate| {
            certificate.height.get() > back + 1
                && certificate.signed_by(4).unwrap().iter().any(|(signer, _)| *signer == position)
        });
        assert!(first.is_some_and(|first| first.height.get() > back + 2), "seed {seed}");
        drop(disk);
        assert_innocent(&world);
    }
}

#[test]
fn a_network_that_restarts_as_a_whole_does_not_wait_for_itself() {
    let mut world = World::validators(80, 4);
    world.start_all();
    world.run(3_000);
    for at in 0..4 {
        world.kill(at);
    }
    let before = world.height(0);
    world.start_all();
    world.run(4_000);
    assert!(world.lowest() >= before + 8, "{} blocks after the restart", world.lowest() - before);
    assert_innocent(&world);
}

#[test]
fn a_network_that_lost_every_journal_starts_when_nothing_moved_for_a_while() {
    let mut world = World::validators(81, 4);
    world.start_all();
    world.run(3_000);
    for at in 0..4 {
        world.kill(at);
        world.nodes[at].disk.borrow_mut().journal.clear();
    }
    let before = world.lowest();
    world.start_all();
    // Twice a height, a rebroadcast and the three timeouts: 1.8 s.
    world.run(1_500);
    assert!(world.lowest() <= before + 1, "it listens");
    assert!((0..4).any(|at| listened(&world, at)));
    world.run(4_500);
    assert!(world.lowest() >= before + 8, "{} blocks after the wait", world.lowest() - before);
    world.assert_agreement();
}
