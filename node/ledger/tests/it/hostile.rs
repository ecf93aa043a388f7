//! Random and hostile sequences: any input gives a typed result, nothing is lost, a replay gives the same root.

use proptest::prelude::*;
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use tiltyard_ledger::{execute, fee_due, query, select, totals};
use tiltyard_proto::evidence::Evidence;
use tiltyard_proto::ids::{BlockHash, SealKey, TaskId};
use tiltyard_proto::score::{Fault, MicroNats, Row};
use tiltyard_proto::state::Phase;
use tiltyard_proto::transaction::{Action, VerifiedTransaction};
use tiltyard_proto::units::{Height, Round, Stake};
use tiltyard_proto::vote::{Vote, VoteKind};

use crate::race::{Checkpoint, open_action, seal_key, spec};
use crate::world::{JUDGES, World, key, micro, params, secret};

const NAMES: [&str; 14] = ["r", "a", "b", "c", "d", "e", "x", "y", "v1", "v2", "v3", "v4", "v1", "v2"];

/// What a name does next; numbers choose among tasks, bonds, rows.
#[derive(Debug, Clone)]
struct Move {
    who: usize,
    what: u8,
    one: u8,
    two: u8,
    fee: u64,
    nonce_off: u8,
}

fn moves() -> impl Strategy<Value = Vec<Vec<Move>>> {
    let one = (
        0..NAMES.len(),
        0u8..32,
        any::<u8>(),
        any::<u8>(),
        prop_oneof![Just(0u64), Just(10), Just(11)],
        0u8..20,
    )
        .prop_map(|(who, what, one, two, fee, nonce_off)| Move { who, what, one, two, fee, nonce_off });
    proptest::collection::vec(proptest::collection::vec(one, 1..6), 30..60)
}

fn rows(world: &World, task: TaskId, judge: &str, flavour: u8) -> Vec<Row> {
    let entrants = query::task(&world.state, &task).ok().flatten().map_or(0, |task| task.entrants.len());
    (0..=entrants)
        .map(|row| match (flavour % 5, row) {
            (0, 0) => Row::Fault(Fault::EvaluationUnusable),
            (1, 1) => Row::Fault(Fault::Crashed),
            _ => {
                let noise = u64::from(judge.as_bytes().last().copied().unwrap_or(0));
                let score = 90_000 / (1 + row as u64) + noise * u64::from(flavour % 3);
                Row::Scores((0..4).map(|cell| MicroNats::clamped(score + cell * 1_000)).collect())
            }
        })
        .collect()
}

/// The same rows at sealing and at opening, so that honest openings happen often.
fn flavour_of(judge: &str, task: TaskId) -> u8 {
    task.as_bytes()[0].wrapping_add(judge.len() as u8) % 7
}

fn double_vote(world: &World, who: &str, height: u64) -> Action {
    let sign = |block: u8| {
        Vote {
            kind: VoteKind::Prevote,
            height: Height::new(height),
            round: Round::ZERO,
            block: Some(BlockHash::from_bytes([block; 32])),
            validator: key(who),
        }
        .sign(&secret(who).signer(world.genesis.hash()))
    };
    Action::Evidence(Box::new(Evidence::votes(sign(1), sign(2))))
}

fn action(world: &World, tasks: &[TaskId], step: &Move) -> Action {
    let name = NAMES[step.who];
    let task = match tasks.len() {
        0 => TaskId::from_bytes([step.one; 32]),
        count => tasks[usize::from(step.one) % count],
    };
    let amount = u64::from(step.two) * 40;
    let weights = if step.two.is_multiple_of(7) { "shared" } else { name };
    let checkpoint =
        Checkpoint::new(name, weights, if step.two.is_multiple_of(9) { "reference" } else { name });
    let mut posted = spec(4);
    posted.title = format!("task {}", step.two);
    posted.pot = micro(amount * 100 + u64::from(step.one));
    posted.entrants_max = step.one % 5;
    posted.unbonded_max = step.two % 3;
    let scores = rows(world, task, name, flavour_of(name, task));
    match step.what {
        0 => Action::Transfer { to: key(NAMES[usize::from(step.one) % NAMES.len()]), amount: micro(amount) },
        1 => Action::Faucet { to: key(name) },
        2 | 3 => Action::Post(Box::new(posted)),
        4 if step.two < 20 => Action::Cancel { task },
        4..=6 => Action::Accept { task },
        7 | 8 => Action::Commit {
            task,
            commitment: checkpoint.commitment(world, task, name),
            bond: micro(if step.two < 60 { 0 } else { amount }),
            stamp: (step.two < 30).then_some(u64::from(step.one)),
            reference: (30..60).contains(&step.two),
        },
        9 | 10 => checkpoint.reveal(task),
        11 | 12 => Action::Held { task, entrants: ByteBuf::from(vec![step.two | 1]) },
        13 if step.two < 250 => Action::OpenKey { task, key: SealKey::from_bytes([step.two; 32]) },
        13 | 14 if step.two > 40 => {
            let ready = query::task(&world.state, &task).ok().flatten().map(|task| task.phase);
            let key =
                if ready == Some(Phase::KeyOpening) { seal_key() } else { SealKey::from_bytes([1; 32]) };
            Action::OpenKey { task, key }
        }
        13 | 14 => Action::OpenKey { task, key: seal_key() },
        15 | 16 => world.seal_action(task, name, &scores),
        17 | 18 => {
            let row = usize::from(step.two) % scores.len();
            open_action(task, name, &scores, row)
        }
        19 => Action::Bond { stake: Stake::new(u64::from(step.one)) },
        20 => Action::Unbond { stake: Stake::new(u64::from(step.one)) },
        _ if step.one < 8 => double_vote(world, name, u64::from(step.two) % 64),
        _ if step.one < 60 => Action::Unjail,
        _ if step.one < 120 => Action::Revoke { validator: key(name), unbond: step.two > 128 },
        _ => Action::SetValidator {
            peer: vec![1; usize::from(step.one % 80)].into(),
            addresses: vec!["x".repeat(usize::from(step.two))],
            payout: key("a"),
        },
    }
}

/// What honest people do with a live task in its phase: the hostile moves happen in between.
fn chorus(world: &World, step: &Move) -> Vec<(&'static str, Action)> {
    let live = query::live_tasks(&world.state).expect("readable");
    let Some(task) = live.get(usize::from(step.one) % live.len().max(1)).copied() else {
        return Vec::new();
    };
    let record = world.task(task);
    let miners = ["a", "b", "c", "d", "e"];
    let honest = |name| Checkpoint::new(name, name, name);
    let few = usize::from(step.two % 5) + 1;
    match record.phase {
        Phase::Accepting => JUDGES.map(|judge| (judge, Action::Accept { task })).to_vec(),
        Phase::Committing => miners[..few]
            .iter()
            .map(|name| (*name, honest(name).commit(world, task, name, 1_000 * u64::from(step.two % 4 + 1))))
            .collect(),
        Phase::Revealing => miners.iter().map(|name| (*name, honest(name).reveal(task))).collect(),
        Phase::Holding => {
            let bits = (1u16 << record.entrants.len()) - 1;
            let held = ByteBuf::from(vec![u8::try_from(bits).expect("few entrants")]);
            JUDGES[..few.min(4)]
                .iter()
                .map(|judge| (*judge, Action::Held { task, entrants: held.clone() }))
                .collect()
        }
        Phase::KeyOpening => vec![("r", Action::OpenKey { task, key: seal_key() })],
        Phase::ScoreCommitting => JUDGES
            .iter()
            .map(|judge| {
                let scores = rows(world, task, judge, flavour_of(judge, task));
                (*judge, world.seal_action(task, judge, &scores))
            })
            .collect(),
        Phase::ScoreOpening => JUDGES
            .iter()
            .flat_map(|judge| {
                let scores = rows(world, task, judge, flavour_of(judge, task));
                (0..scores.len())
                    .map(|row| (*judge, open_action(task, judge, &scores, row)))
                    .collect::<Vec<_>>()
            })
            .collect(),
        Phase::Settled | Phase::Refunded(_) => Vec::new(),
    }
}

fn candidates(world: &World, tasks: &[TaskId], steps: &[Move]) -> Vec<VerifiedTransaction> {
    let mut nonces: BTreeMap<&str, u64> = BTreeMap::new();
    let mut signed = Vec::new();
    let (honest, hostile): (Vec<_>, Vec<_>) = steps.iter().partition(|step| step.what >= 22);
    // One honest move a block, and first: a refused duty spoils the nonces of its sender behind it.
    for step in honest.into_iter().take(1).chain(hostile) {
        let name = NAMES[step.who];
        let (honest, actions) = if step.what >= 22 {
            (true, chorus(world, step))
        } else {
            (false, vec![(name, action(world, tasks, step))])
        };
        for (name, action) in actions {
            let next = nonces.entry(name).or_insert_with(|| world.nonce(name));
            let wrong = u64::from(!honest && step.nonce_off == 0);
            let fee = if honest || step.fee > 10 {
                fee_due(&action, &world.genesis.params)
            } else {
                micro(step.fee)
            };
            signed.push(world.sign_with(name, *next + wrong, fee, action));
            // A refused free action leaves its nonce unused: the guess is sometimes wrong, as in life.
            *next += 1;
        }
    }
    signed
}

/// Every task's phase, to see that it only goes forward.
fn phases(world: &World, tasks: &[TaskId]) -> Vec<Option<Phase>> {
    tasks
        .iter()
        .map(|task| query::task(&world.state, task).expect("readable").map(|task| task.phase))
        .collect()
}

fn drive(blocks: &[Vec<Move>]) -> Result<(World, usize), TestCaseError> {
    let mut world = World::with([100, 90, 80, 70], params());
    let start = world.state.clone();
    let mut tasks: Vec<TaskId> = Vec::new();
    let mut log: Vec<Vec<VerifiedTransaction>> = Vec::new();
    let mut applied = 0;
    for steps in blocks {
        let all = candidates(&world, &tasks, steps);
        let selected = select(&world.state, &world.context(), &all).expect("selection always works");
        prop_assert_eq!(selected.included.len() + selected.refused.len(), all.len());
        let kept: Vec<_> = selected.included.iter().map(|at| all[*at].clone()).collect();
        let before = phases(&world, &tasks);
        let outcomes = world.apply(&kept).expect("what was selected is valid");
        prop_assert_eq!(&selected.executed.changes.state_root, &world.root);
        applied += outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        for (before, after) in before.iter().zip(phases(&world, &tasks)) {
            prop_assert!(*before <= after, "a phase went back from {before:?} to {after:?}");
        }
        for (signed, outcome) in kept.iter().zip(&outcomes) {
            if outcome.is_ok() && matches!(signed.transaction().action, Action::Post(_)) {
                tasks.push(TaskId::from_bytes(*signed.id().as_bytes()));
            }
        }
        log.push(kept);
    }
    // Everything ends: 29 more blocks cover every window.
    world.advance(40);
    prop_assert!(query::live_tasks(&world.state).expect("readable").is_empty());
    let ended = query::totals(&world.state).expect("readable");
    prop_assert_eq!((ended.escrow, ended.bonds), (micro(0), micro(0)));
    for task in &tasks {
        let verdict = query::verdict(&world.state, task).expect("readable").expect("over");
        for miner in &verdict.entrants {
            prop_assert!(query::entrant_verdict(&world.state, task, miner).expect("readable").is_some());
        }
    }
    replay(&world, start, &log)?;
    Ok((world, applied))
}

fn replay(
    world: &World,
    start: tiltyard_ledger::memory::MemoryState,
    log: &[Vec<VerifiedTransaction>],
) -> Result<(), TestCaseError> {
    let mut state = start;
    let mut context = world.context();
    context.height = Height::ZERO;
    let empty = Vec::new();
    for transactions in log.iter().chain(core::iter::repeat_n(&empty, 40)) {
        context.height = context.height.next();
        let executed = execute(&state, &context, transactions).expect("it was valid before");
        state.apply(&executed.changes);
    }
    prop_assert_eq!(&state, &world.state);
    prop_assert_eq!(totals::recount(&state).expect("readable"), query::totals(&state).expect("readable"));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_conserves_supply_ends_every_task_and_replays(blocks in moves()) {
        drive(&blocks)?;
    }
}

/// The generator must reach the interesting places, or the property above says little.
#[test]
fn random_sequences_reach_reveals_scores_and_verdicts() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..24 {
        let blocks = moves().new_tree(&mut runner).expect("generates").current();
        let (world, applied) = drive(&blocks).expect("the property holds");
        *seen.entry("applied".into()).or_default() += applied;
        for event in &world.events {
            let text = format!("{event:?}");
            let name = match event {
                tiltyard_ledger::LedgerEvent::TaskPhase { phase, .. } => format!("{phase:?}"),
                _ => text.split([' ', '{']).next().unwrap_or_default().to_string(),
            };
            *seen.entry(name).or_default() += 1;
        }
    }
    for needed in [
        "Committing",
        "Revealing",
        "Holding",
        "KeyOpening",
        "ScoreCommitting",
        "ScoreOpening",
        "Settled",
        "Committed",
        "Revealed",
        "Evicted",
        "KeyOpened",
    ] {
        assert!(seen.contains_key(needed), "never reached {needed}: {seen:?}");
    }
    println!("{seen:?}");
}
