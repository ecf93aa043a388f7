//! Joins by snapshot: beside a running chain, among liars, across kills, and without signing twice.

use tiltyard_machine::io::Input;
use tiltyard_machine::{Event, JoinConfig};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::Height;

use crate::world::{CALM, Disk, Part, World, secret};

const FOUR_AND_ONE: [Part; 5] =
    [Part::Validator, Part::Validator, Part::Validator, Part::Validator, Part::Observer];
const FROM_GENESIS: JoinConfig = JoinConfig { checkpoint: None };

/// Four validators that have decided so many blocks, with transfers in them, and a joiner that is off.
fn running(random: u64, parts: &[Part], blocks: u64) -> World {
    let mut world = World::new(random, parts);
    world.snapshot_every = 20;
    for at in 0..4 {
        world.start(at);
    }
    let mut nonce = 0;
    while world.height(0) < blocks {
        for seed in 1..=3 {
            let to = secret(100 + u8::try_from(nonce % 100).unwrap()).public();
            let transfer = world.transfer(seed, nonce, to, 5);
            world.give(0, Input::Submit(Box::new(transfer)));
        }
        nonce += 1;
        world.run(600);
    }
    world
}

fn joins(world: &mut World, at: usize, within_ms: u64) {
    let done = world.run_until(world.now_ms + within_ms, |world| {
        world.height(at) + 1 >= world.height(0) && world.height(at) > 0
    });
    assert!(done, "node {at} is at {} of {}", world.height(at), world.height(0));
    world.run(3_000);
    world.assert_agreement();
}

fn base(world: &World, at: usize) -> u64 {
    world.nodes[at].disk.borrow().base + 1
}

#[test]
fn a_joiner_takes_a_snapshot_and_the_blocks_after_it_while_the_chain_goes_on() {
    let mut world = running(31, &FOUR_AND_ONE, 50);
    world.nodes[4].join = Some(FROM_GENESIS);
    world.start(4);
    joins(&mut world, 4, 10_000);
    assert!(base(&world, 4) >= 40, "it begins at {}", base(&world, 4));
    assert!(world.nodes[4].events.iter().any(|event| matches!(event, Event::Joining { .. })));
    // Chunks of one snapshot came from several peers.
    assert!(world.chunks_given.len() > 1, "{:?}", world.chunks_given);
    assert!(world.nodes[4].penalties.is_empty(), "{:?}", world.nodes[4].penalties);
}

#[test]
fn three_liars_of_four_cannot_keep_a_joiner_from_the_snapshot_of_the_honest_one() {
    let mut world = running(32, &FOUR_AND_ONE, 50);
    world.liars = [0, 1, 2].into();
    world.nodes[4].join = Some(FROM_GENESIS);
    world.start(4);
    joins(&mut world, 4, 60_000);
    assert!(base(&world, 4) >= 40);
    let lies = &world.nodes[4].penalties;
    assert!(lies.contains(&"gave a chunk that is not the certified state's"), "{lies:?}");
}

#[test]
fn peers_that_never_answer_cost_time_only() {
    for random in 0..3 {
        let mut world = running(33 + random, &FOUR_AND_ONE, 50);
        world.mutes = [0, 1, 2].into();
        world.nodes[4].join = Some(FROM_GENESIS);
        world.start(4);
        joins(&mut world, 4, 120_000);
        assert!(base(&world, 4) >= 40);
    }
}

#[test]
fn a_joiner_killed_at_any_moment_goes_on_with_the_chunks_it_kept() {
    let mut kept = 0;
    for crash_after in [1, 5, 13, 21, 34, 50, 65] {
        let mut world = running(36, &FOUR_AND_ONE, 45);
        world.nodes[4].join = Some(FROM_GENESIS);
        world.nodes[4].crash_after = Some(crash_after);
        world.start(4);
        let down = world.run_until(world.now_ms + 10_000, |world| world.nodes[4].machine.is_none());
        assert!(down);
        let had = world.nodes[4].disk.borrow().chunks.len();
        kept += usize::from(had > 0);
        // What is kept is not saved again: the disk of this test would say so.
        joins(&mut world, 4, 20_000);
        assert!(base(&world, 4) >= 40);
    }
    assert!(kept > 0, "no kill fell between two chunks");
}

#[test]
fn a_checkpoint_that_the_user_names_is_enough_and_a_false_one_leads_nowhere() {
    let mut world = running(37, &FOUR_AND_ONE, 50);
    let block: DecidedBlock = world.nodes[1].disk.borrow().blocks[24].clone();
    let height = block.block.header.height;
    // What is before the checkpoint is kept by nobody.
    for node in &world.nodes[..4] {
        node.disk.borrow_mut().prune_through(24);
    }
    world.nodes[4].join = Some(JoinConfig { checkpoint: Some((height, block.block.hash())) });
    world.start(4);
    joins(&mut world, 4, 10_000);
    assert!(base(&world, 4) >= 40);

    let mut world = running(38, &FOUR_AND_ONE, 50);
    let false_hash = BlockHash::from_bytes([7; 32]);
    world.nodes[4].join = Some(JoinConfig { checkpoint: Some((Height::new(25), false_hash)) });
    for node in &world.nodes[..4] {
        node.disk.borrow_mut().prune_through(24);
    }
    world.start(4);
    world.run(20_000);
    assert_eq!(world.height(4), 0, "nothing was proven from a false checkpoint");
}

#[test]
fn a_node_that_meets_only_pruned_peers_says_what_helps_and_one_that_may_joins() {
    let mut world = running(39, &FOUR_AND_ONE, 50);
    for node in &world.nodes[..4] {
        node.disk.borrow_mut().prune_through(30);
    }
    world.start(4);
    world.run(5_000);
    assert_eq!(world.height(4), 0);
    let told = world.nodes[4]
        .events
        .iter()
        .any(|event| matches!(event, Event::Trouble { fact } if fact.contains("sync = \"snapshot\"")));
    assert!(told, "{:?}", world.nodes[4].events);
    world.kill(4);
    world.nodes[4].join = Some(FROM_GENESIS);
    world.start(4);
    joins(&mut world, 4, 20_000);
}

#[test]
fn a_young_network_has_no_snapshot_and_starts_all_the_same() {
    let mut world = World::validators(40, 4);
    for node in &mut world.nodes {
        node.join = Some(FROM_GENESIS);
    }
    world.start_all();
    world.run(8_000);
    world.assert_agreement();
    assert!(world.lowest() > 10, "{} blocks", world.lowest());
}

#[test]
fn a_wiped_validator_rejoins_by_snapshot_and_signs_nothing_that_it_may_have_signed_before() {
    let parts = [Part::Validator; 5];
    let mut world = World::new(41, &parts);
    world.snapshot_every = 20;
    world.start_all();
    world.run_until(60_000, |world| world.height(0) >= 45);
    world.kill(0);
    let seen = world.height(1);
    *world.nodes[0].disk.borrow_mut() = Disk::default();
    let genesis = tiltyard_ledger::genesis(&world.genesis).unwrap();
    world.nodes[0].disk.borrow_mut().state.apply(&genesis);
    world.nodes[0].join = Some(FROM_GENESIS);
    world.start(0);
    let done =
        world.run_until(world.now_ms + 20_000, |world| !world.nodes[0].disk.borrow().journal.is_empty());
    assert!(done, "it never signed again");
    let height = world.height(0);
    assert!(height > seen, "it signs for {} and may have signed for {}", height + 1, seen + 1);
    world.run(5_000);
    world.assert_agreement();
    let equivocated = world.nodes.iter().flat_map(|node| &node.events);
    assert!(!equivocated.clone().any(|event| matches!(event, Event::Equivocation { .. })));
}

#[test]
fn a_state_that_other_keys_decided_is_refused_however_well_it_fits_together() {
    let mut world = running(42, &FOUR_AND_ONE, 50);
    world.forgers = [0, 1, 2].into();
    world.nodes[4].join = Some(FROM_GENESIS);
    world.start(4);
    let done = world.run_until(world.now_ms + 30_000, |world| world.nodes[4].disk.borrow().begun_by_snapshot);
    assert!(done, "it found no snapshot");
    // From here on the forgers' false blocks are of no interest: the state is.
    world.forgers.clear();
    joins(&mut world, 4, 30_000);
    let refused = &world.nodes[4].penalties;
    assert!(refused.contains(&"gave a header that does not verify"), "{refused:?}");
}

#[test]
fn a_wiped_validator_leaves_a_height_that_waits_for_it_to_the_others() {
    let mut world = running(43, &[Part::Validator; 4], 45);
    // Nothing that is said arrives any more: each signs for the next height, and nobody hears of it.
    world.weather.lost_percent = 100;
    world.run(5_000);
    let stalled = world.height(1);
    assert!(!world.nodes[0].disk.borrow().journal.is_empty());
    for at in [0, 2, 3] {
        world.kill(at);
    }
    world.weather = CALM;
    *world.nodes[0].disk.borrow_mut() = Disk::default();
    let genesis = tiltyard_ledger::genesis(&world.genesis).unwrap();
    world.nodes[0].disk.borrow_mut().state.apply(&genesis);
    world.nodes[0].join = Some(FROM_GENESIS);
    world.start(0);
    // With it there would be a quorum again; its old vote of this height is not known to it.
    world.start(2);
    world.run(60_000);
    assert_eq!((world.height(0), world.height(1)), (stalled, stalled));
    assert!(world.nodes[0].disk.borrow().journal.is_empty(), "it signed a height that it had signed before");
    world.start(3);
    let done =
        world.run_until(world.now_ms + 60_000, |world| !world.nodes[0].disk.borrow().journal.is_empty());
    assert!(done && world.height(1) > stalled, "it never signed again");
    world.run(5_000);
    world.assert_agreement();
    let told = world.nodes.iter().flat_map(|node| &node.events);
    assert!(!told.clone().any(|event| matches!(event, Event::Equivocation { .. })));
}
