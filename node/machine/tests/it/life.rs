//! The whole life of a validator, while a task runs across the sets that it is in and out of.

use tiltyard_ledger::query;
use tiltyard_machine::io::Input;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::state::{Standing, ValidatorRecord};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::{Blocks, Height, Ppm, Round, Stake};
use tiltyard_proto::vote::{Vote, VoteKind};
use tiltyard_proto::wire::{ConsensusFrame, ConsensusMessage, GossipMessage};

use crate::market::{assert_ranks, post, verdict};
use crate::world::{Part, World, secret};

const NODES: [Part; 9] = [
    Part::Validator,
    Part::Validator,
    Part::Validator,
    Part::Validator,
    Part::Miner,
    Part::Miner,
    Part::Miner,
    Part::Observer,
    Part::Newcomer,
];
const NEWCOMER: usize = 8;
const SEED: u8 = 9;

fn record(world: &World) -> Option<ValidatorRecord> {
    query::validator(&world.nodes[0].disk.borrow().state, &secret(SEED).public()).unwrap()
}

/// Says whether the newcomer decides the block after the newest.
fn is_in_set(world: &World) -> bool {
    let disk = world.nodes[0].disk.borrow();
    let next = Height::new(disk.blocks.len() as u64 + 1);
    query::set_at(&disk.state, next).unwrap().find(&secret(SEED).public()).is_some()
}

fn until(world: &mut World, what: &str, done: impl Fn(&World) -> bool) {
    let end = world.now_ms + 60_000;
    assert!(world.run_until(end, done), "waited in vain: {what}, at height {}", world.height(0));
}

fn act(world: &mut World, nonce: u64, action: Action) {
    let transaction = world.sign_with(&secret(SEED), nonce, action);
    world.give(0, Input::Submit(Box::new(transaction)));
}

fn vote_twice(world: &mut World) {
    let height = Height::new(world.height(0) + 1);
    for block in [7u8, 8] {
        let vote = Vote {
            kind: VoteKind::Precommit,
            height,
            round: Round::ZERO,
            block: Some(BlockHash::from_bytes([block; 32])),
            validator: secret(SEED).public(),
        };
        let message = ConsensusMessage::Vote(vote.sign(&secret(SEED).signer(world.genesis.hash())));
        for to in 0..4 {
            let frame = ConsensusFrame { counter: 0, message: message.clone() };
            world.gossip(NEWCOMER, to, 1, GossipMessage::Consensus(frame));
        }
    }
}

#[test]
fn a_validator_joins_misses_is_jailed_returns_double_signs_and_ends_while_a_task_runs() {
    let mut world = World::new(900, &NODES).with_params(|params| {
        params.absence_window = Blocks::new(16);
        params.absence_max = Ppm::new(500_000);
        // Longer than an epoch: some set is computed without it.
        params.jail = Blocks::new(12);
    });
    world.skill = [(5, 2_000_000), (6, 1_500_000), (7, 2_500_000)].into();
    world.start_all();
    world.run(1_500);
    act(&mut world, 0, Action::Bond { stake: Stake::new(1_000) });
    until(&mut world, "the newcomer is in the set", is_in_set);

    let task = post(&mut world);
    until(&mut world, "the committee is frozen", |world| {
        record(world).is_some_and(|record| record.duties == 1)
    });
    world.kill(NEWCOMER);
    until(&mut world, "it is jailed for absence", |world| {
        matches!(record(world).unwrap().standing, Standing::Jailed { .. })
    });
    let Standing::Jailed { until: free } = record(&world).unwrap().standing else { unreachable!() };
    world.start(NEWCOMER);
    until(&mut world, "its sentence is over", |world| world.height(0) >= free.get());
    act(&mut world, 1, Action::Unjail);
    until(&mut world, "it is active again", |world| record(world).unwrap().standing == Standing::Active);
    until(&mut world, "the set was without it", |world| !is_in_set(world));
    until(&mut world, "the set has it back", is_in_set);
    assert_eq!(verdict(&world, 0, &task), None, "the task still runs");

    vote_twice(&mut world);
    until(&mut world, "it is tombstoned", |world| record(world).unwrap().standing == Standing::Tombstoned);
    let found = record(&world).unwrap();
    assert_eq!(found.stake, Stake::new(900), "a tenth is burned");
    assert_eq!(found.duties, 1, "the frozen committee keeps its stake all the while");
    assert_eq!(verdict(&world, 0, &task), None, "the task still runs");

    until(&mut world, "the task is settled", |world| (0..8).all(|at| verdict(world, at, &task).is_some()));
    until(&mut world, "no set has it any more", |world| !is_in_set(world));
    world.run(2_000);
    world.assert_agreement();
    assert_ranks(&world, &task);
    let found = record(&world).unwrap();
    assert_eq!((found.duties, found.standing), (0, Standing::Tombstoned));
    act(&mut world, 2, Action::Unjail);
    world.run(2_000);
    assert_eq!(record(&world).unwrap().standing, Standing::Tombstoned, "there is no way back");
}
