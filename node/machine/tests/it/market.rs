//! The whole life of a task on four validators, three miners and a requester, whatever crashes on the way.

use std::collections::BTreeMap;

use tiltyard_keys::PublicKey;
use tiltyard_ledger::query;
use tiltyard_machine::Event;
use tiltyard_machine::io::{Input, JobOutcome};
use tiltyard_proto::hash;
use tiltyard_proto::ids::{BlobRoot, FileHash, SealKey, TaskId};
use tiltyard_proto::manifest::{BlobKind, BlobRef, FileEntry, Manifest};
use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy, training_seed};
use tiltyard_proto::score::{MicroNats, Row};
use tiltyard_proto::state::{Phase, Verdict};
use tiltyard_proto::task::{Payout, SealedSet, TaskKind, TaskSpec, Windows, seal_key_hash};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::{Blocks, MicroCredits, Ppm};

use crate::world::{Part, Weather, World, account};

const NODES: [Part; 8] = [
    Part::Validator,
    Part::Validator,
    Part::Validator,
    Part::Validator,
    Part::Miner,
    Part::Miner,
    Part::Miner,
    Part::Observer,
];
const REQUESTER: usize = 7;
const KEY: SealKey = SealKey::from_bytes([0x5e; 32]);

fn blob(name: u8) -> BlobRef {
    BlobRef { root: BlobRoot::from_bytes([name; 32]), bytes: 1_000 }
}

fn spec() -> TaskSpec {
    TaskSpec {
        title: "in memory".to_owned(),
        kind: TaskKind::Instruction,
        base: blob(1),
        training: blob(2),
        evaluation: SealedSet {
            ciphertext: blob(3),
            key_hash: seal_key_hash(&KEY),
            examples: 200,
            plaintext_bytes: 9_000,
        },
        windows: Windows {
            open: Blocks::new(10),
            commit: Blocks::new(25),
            reveal: Blocks::new(10),
            held: Blocks::new(12),
            key: Blocks::new(10),
            score_commit: Blocks::new(20),
            score_open: Blocks::new(16),
        },
        pot: MicroCredits::new(100_000_000),
        payout: Payout::ThreePlaces,
        min_gain: Ppm::new(1_000),
        bond: MicroCredits::new(1_000_000),
        entrants_max: 8,
        unbonded_max: 0,
        checkpoint_bytes_max: 1 << 20,
        reference: None,
        small_set: false,
    }
}

fn manifest(task: &TaskId, base: BlobRoot, miner: &PublicKey) -> (Manifest, Recipe) {
    let recipe = Recipe {
        version: 1,
        trainer: "memory 1".to_owned(),
        strategy: Strategy::Search,
        method: Method::Full,
        learning_rate_nano: 1_000,
        schedule: Schedule::Constant,
        warmup_ppm: 0,
        batch_rows: 1,
        accumulation: 1,
        steps: 10,
        sequence_tokens: 64,
        packing: false,
        weight_decay_ppm: 0,
        clip_milli: 0,
        seed: training_seed(task, miner),
        tokens_trained: 640,
        extra: vec![],
    };
    let file = |name: &str, bytes: u64| FileEntry {
        name: name.to_owned(),
        bytes,
        hash: FileHash::from_bytes(hash::plain(
            &[task.as_bytes().as_slice(), miner.as_bytes(), name.as_bytes()].concat(),
        )),
    };
    let manifest = Manifest {
        version: Manifest::VERSION,
        kind: BlobKind::Adapter,
        base: Some(base),
        recipe: Some(recipe.hash()),
        files: vec![file("adapter_config.json", 100), file("adapter_model.safetensors", 5_000)],
    };
    (manifest, recipe)
}

/// What a training job of the test brings.
pub(crate) fn trained(task: &TaskId, spec: &TaskSpec, miner: &PublicKey) -> JobOutcome {
    let (manifest, recipe) = manifest(task, spec.base.root, miner);
    JobOutcome::Trained { manifest: Box::new(manifest), recipe: Box::new(recipe), resumed_from_step: 0 }
}

/// What an evaluation job of the test brings: the base loses 3 nats, a checkpoint what its miner's skill says.
pub(crate) fn evaluated(
    skill: &BTreeMap<u8, u32>,
    task: &TaskId,
    spec: &TaskSpec,
    subject: Option<&BlobRoot>,
) -> JobOutcome {
    let loss = match subject {
        None => 3_000_000,
        Some(root) => *skill
            .iter()
            .find(|(seed, _)| manifest(task, spec.base.root, &account(**seed).public()).0.root() == *root)
            .map(|(_, loss)| loss)
            .expect("only the test's miners enter"),
    };
    let cell = |at: u32| {
        // Paired noise: harder examples are harder for everyone, and a little for each alone.
        let shared = u64::from(at.wrapping_mul(7919) % 100_000);
        let own = u64::from((at ^ loss).wrapping_mul(104_729) % 20_000);
        MicroNats::clamped(u64::from(loss) + shared + own)
    };
    JobOutcome::Evaluated { row: Row::Scores((0..spec.evaluation.examples).map(cell).collect()) }
}

pub(crate) fn post(world: &mut World) -> TaskId {
    let requester = world.nodes[REQUESTER].seed;
    world.give(REQUESTER, Input::KeepKey { ciphertext: spec().evaluation.ciphertext.root, key: KEY });
    let transaction = world.sign(requester, 0, Action::Post(Box::new(spec())));
    let task = TaskId::from_bytes(*transaction.id().as_bytes());
    world.give(REQUESTER, Input::Submit(Box::new(transaction)));
    task
}

pub(crate) fn verdict(world: &World, at: usize, task: &TaskId) -> Option<Verdict> {
    query::verdict(&world.nodes[at].disk.borrow().state, task).unwrap()
}

fn settled_world(seed: u64, trouble: impl Fn(&mut World)) -> (World, TaskId) {
    let mut world = World::new(seed, &NODES);
    world.skill = [(5, 2_000_000), (6, 1_500_000), (7, 2_500_000)].into();
    world.start_all();
    world.run(1_500);
    let task = post(&mut world);
    trouble(&mut world);
    let until = world.now_ms + 120_000;
    let done = world.run_until(until, |world| (0..8).all(|at| verdict(world, at, &task).is_some()));
    assert!(done, "task is not over at heights {:?}", (0..8).map(|at| world.height(at)).collect::<Vec<_>>());
    world.run(1_000);
    world.assert_agreement();
    (world, task)
}

/// The better the loss, the better the place, and the pot is paid.
pub(crate) fn assert_ranks(world: &World, task: &TaskId) {
    let disk = world.nodes[0].disk.borrow();
    let ranks: Vec<Option<u8>> = [6u8, 5, 7]
        .into_iter()
        .map(|seed| {
            let miner = account(seed).public();
            let verdict = query::entrant_verdict(&disk.state, task, &miner).unwrap().unwrap();
            assert!(verdict.reward > MicroCredits::ZERO, "seed {seed}: {verdict:?}");
            verdict.rank
        })
        .collect();
    assert_eq!(ranks, [Some(1), Some(2), Some(3)]);
}

#[test]
fn a_task_runs_from_post_to_settlement() {
    let (world, task) = settled_world(500, |_| {});
    assert_ranks(&world, &task);
    let phases: Vec<Phase> = world.nodes[0]
        .events
        .iter()
        .filter_map(|event| match event {
            Event::TaskPhase { task: of, phase } if *of == task => Some(*phase),
            _ => None,
        })
        .collect();
    assert_eq!(
        phases,
        [
            Phase::Accepting,
            Phase::Committing,
            Phase::Revealing,
            Phase::Holding,
            Phase::KeyOpening,
            Phase::ScoreCommitting,
            Phase::ScoreOpening,
            Phase::Settled,
        ]
    );
}

#[test]
fn a_task_settles_the_same_when_every_node_crashes_on_its_way() {
    for seed in 0..3 {
        let (world, task) = settled_world(600 + seed, |world| {
            for at in 0..8 {
                world.run(1_500);
                world.nodes[at].crash_after = Some(world.random(12));
            }
        });
        assert_ranks(&world, &task);
        for node in &world.nodes {
            assert_eq!(node.stopped_signing, None);
        }
    }
}

#[test]
fn a_task_settles_in_bad_weather() {
    let (world, task) = settled_world(700, |world| {
        world.weather = Weather { lost_percent: 10, twice_percent: 10, delay_ms_max: 40 };
    });
    assert_ranks(&world, &task);
}

#[test]
fn a_checkpoint_that_a_disk_damaged_is_fetched_again_and_scored_as_it_was_revealed() {
    let (world, task) = settled_world(800, |world| world.damaging = [0, 2].into());
    assert_ranks(&world, &task);
    assert!(world.damaging.is_empty(), "both disks did damage");
    for at in [0, 2] {
        let mut count = BTreeMap::new();
        for (_, root) in world.fetched.iter().filter(|(node, _)| *node == at) {
            *count.entry(*root).or_insert(0u32) += 1;
        }
        assert_eq!(count.values().filter(|times| **times == 2).count(), 1, "node {at}: {count:?}");
    }
}
