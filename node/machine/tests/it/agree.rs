//! Four validators agree, in good and bad weather, and carry transactions.

use tiltyard_ledger::query;
use tiltyard_machine::Event;
use tiltyard_machine::io::Input;
use tiltyard_proto::units::MicroCredits;

use crate::world::{CALM, Weather, World, account};

#[test]
fn four_validators_decide_at_the_pace_of_the_network() {
    let mut world = World::validators(1, 4);
    world.start_all();
    world.run(10_500);
    world.assert_agreement();
    let height = world.lowest();
    // 10.5 s at one block per 200 ms, less the way of the first messages.
    assert!((48..=54).contains(&height), "{height} blocks");
}

#[test]
fn every_block_is_decided_in_the_first_round_when_nothing_is_lost() {
    let mut world = World::validators(2, 4);
    world.start_all();
    world.run(5_000);
    for node in &world.nodes {
        for event in &node.events {
            assert!(!matches!(event, Event::RoundStarted { .. } | Event::Trouble { .. }), "{event:?}");
        }
    }
}

#[test]
fn transfers_given_to_any_node_take_effect_everywhere() {
    let mut world = World::validators(3, 4);
    world.start_all();
    world.run(1_000);
    let to = account(9).public();
    for (at, seed) in [(0u8, 1u8), (1, 2), (2, 3), (3, 4)] {
        for nonce in 0..25 {
            let transaction = world.transfer(seed, nonce, to, 10);
            world.give(usize::from(at), Input::Submit(Box::new(transaction)));
        }
    }
    world.run(5_000);
    world.assert_agreement();
    for node in &world.nodes {
        let balance = query::account(&node.disk.borrow().state, &to).unwrap().balance;
        assert_eq!(balance, MicroCredits::new(1_000));
        let included = node
            .events
            .iter()
            .filter(|event| matches!(event, Event::TransactionIncluded { ok: true, .. }))
            .count();
        assert_eq!(included, 25);
        assert_eq!(node.machine.as_ref().unwrap().status().own_pending, 0);
        assert_eq!(node.machine.as_ref().unwrap().status().pending_transactions, 0);
    }
}

#[test]
fn loss_duplication_and_delay_cost_time_but_neither_agreement_nor_transactions() {
    for seed in 10..16 {
        let mut world = World::validators(seed, 4);
        world.weather = Weather { lost_percent: 20, twice_percent: 20, delay_ms_max: 60 };
        world.start_all();
        world.run(1_000);
        let to = account(9).public();
        for nonce in 0..10 {
            let transaction = world.transfer(1, nonce, to, 10);
            world.give(0, Input::Submit(Box::new(transaction)));
        }
        world.run(40_000);
        world.assert_agreement();
        assert!(world.lowest() >= 30, "seed {seed}: {} blocks", world.lowest());
        let disk = world.nodes[3].disk.borrow();
        let balance = query::account(&disk.state, &to).unwrap().balance;
        assert_eq!(balance, MicroCredits::new(100), "seed {seed}");
    }
}

#[test]
fn one_of_four_may_be_down_and_two_may_not() {
    let mut world = World::validators(4, 4);
    world.start_all();
    world.run(2_000);
    world.kill(3);
    let before = world.height(0);
    world.run(10_000);
    assert!(world.height(0) >= before + 10, "{} blocks with three of four", world.height(0) - before);
    world.kill(2);
    world.run(1_000);
    let stuck = world.height(0);
    world.run(10_000);
    assert_eq!(world.height(0), stuck);
    world.start(2);
    world.run(10_000);
    assert!(world.height(0) > stuck + 5, "{} blocks after the return", world.height(0) - stuck);
    world.start(3);
    world.weather = CALM;
    world.run(3_000);
    world.assert_agreement();
    assert!(world.height(3) + 2 >= world.height(0));
}

#[test]
fn the_same_seed_gives_the_same_chain() {
    let run = |seed| {
        let mut world = World::validators(seed, 4);
        world.weather = Weather { lost_percent: 10, twice_percent: 10, delay_ms_max: 40 };
        world.start_all();
        world.run(8_000);
        world.nodes[0].disk.take().blocks
    };
    assert_eq!(run(77), run(77));
    assert_ne!(run(77), run(78));
}

#[test]
fn a_height_costs_a_validator_four_writes_and_little_time() {
    let mut world = World::validators(5, 4);
    world.start_all();
    world.run(10_000);
    for (at, node) in world.nodes.iter().enumerate() {
        let height = world.height(at);
        // Body, prevote, precommit, block; one height may be on its way.
        assert!(node.durable <= height * 4 + 4, "{} writes for {height} blocks", node.durable);
        for event in &node.events {
            if let Event::Decided { finality_ms, .. } = event {
                // Three messages of at most 5 ms, where the proposer may start 5 ms before this node.
                assert!(finality_ms.is_some_and(|ms| ms <= 25), "{event:?}");
            }
        }
    }
}
