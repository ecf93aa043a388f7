//! The simulator: it repeats itself, finds nothing where nothing is wrong, and finds what was planted.

use tiltyard_testnet::sim::{Bug, Outcome, Plan, Shape, Violation, WriteFate, run_seed, shrink, strikes};

fn run(seed: u64, shape: &Shape) -> Outcome {
    run_seed(seed, shape, false).expect("the shape is a network")
}

/// Runs seeds and says what they came to together.
fn clean(seeds: core::ops::Range<u64>, shape: &Shape) -> Vec<Outcome> {
    let outcomes: Vec<Outcome> = seeds.clone().map(|seed| run(seed, shape)).collect();
    for (seed, outcome) in seeds.zip(&outcomes) {
        assert_eq!(outcome.violations, [], "seed {seed} of {shape:?}");
        assert!(outcome.heights >= shape.heights, "seed {seed} reached {}", outcome.heights);
    }
    outcomes
}

/// Returns the first of 200 seeds in which a shape fails, and how.
fn first_failure(shape: &Shape) -> Option<(u64, Violation)> {
    (0..200).find_map(|seed| run(seed, shape).violations.into_iter().next().map(|found| (seed, found)))
}

fn assert_caught(bugs: &[Bug]) {
    for bug in bugs {
        let shape = bug.shape(Shape::of(4, 0));
        assert!(first_failure(&shape).is_some(), "{} was not caught within 200 seeds", bug.name());
    }
}

#[test]
fn a_seed_gives_the_same_trace_each_time_and_another_seed_another() {
    let shape = Shape::of(4, 1);
    let (one, again, other) = (run(7, &shape), run(7, &shape), run(8, &shape));
    assert_eq!(one, again);
    assert_ne!(one.trace, other.trace);
    let elsewhere = std::thread::spawn(move || run(7, &Shape::of(4, 1))).join().expect("the run ends");
    assert_eq!(one.trace, elsewhere.trace);
}

#[test]
fn stake_moves_validators_leave_and_come_back_and_committees_stay_frozen() {
    let outcomes = clean(0..3, &Shape { life: true, ..Shape::of(4, 0) });
    for outcome in &outcomes {
        assert!(outcome.is_settled, "a task is settled across changing sets");
        assert!(outcome.set_changes > 0, "the set changes within the run");
    }
    clean(0..2, &Shape { life: true, ..Shape::of(4, 1) });
}

#[test]
fn a_write_torn_at_any_point_of_a_height_harms_nothing() {
    let shape = Shape::of(4, 0);
    let all = strikes(0, &shape, &(30..31)).expect("the quiet run passes");
    // Every effect of every node and every fate: `sim --every-effect`, which CI runs.
    let torn = all.into_iter().filter(|strike| strike.node == 1 && strike.fate == WriteFate::Torn);
    let mut count = 0;
    for strike in torn {
        let outcome = run(0, &Shape { strike: Some(strike), ..shape.clone() }.calm());
        assert_eq!(outcome.violations, [], "crash {strike}");
        assert_eq!(outcome.crashes, 1, "crash {strike} happens");
        count += 1;
    }
    assert!(count >= 4, "a height is at least a journal begun, a body, a vote and a commit; {count} writes");
}

#[test]
fn honest_validators_agree_through_crashes_splits_and_bad_clocks() {
    let outcomes = clean(0..8, &Shape::of(4, 0));
    assert!(outcomes.iter().any(|outcome| outcome.is_settled), "some task is settled");
    assert!(outcomes.iter().any(|outcome| outcome.late_rounds > 0), "some height needs another round");
}

#[test]
fn one_liar_of_four_breaks_nothing_and_is_slashed_where_it_is_seen() {
    let outcomes = clean(0..8, &Shape::of(4, 1));
    assert!(outcomes.iter().any(|outcome| !outcome.punished.is_empty()), "some liar is slashed");
}

/// The first seeds in which a node loses its disk.
fn wiping(shape: &Shape, count: usize) -> impl Iterator<Item = u64> {
    (0..).filter(|seed| Plan::of(*seed, shape).has_joins()).take(count)
}

#[test]
fn a_validator_that_lost_its_disk_joins_by_snapshot_and_contradicts_nothing_it_said_even_among_liars() {
    for (shape, count) in [(Shape::of(4, 0), 4), (Shape::of(4, 1), 3)] {
        let mut joins = 0;
        for seed in wiping(&shape, count) {
            let outcome = run(seed, &shape);
            assert_eq!(outcome.violations, [], "seed {seed} of {shape:?}");
            assert_eq!(outcome.wiped, 1, "seed {seed} of {shape:?}");
            joins += outcome.joins;
        }
        assert!(joins > 0, "no node joined by a snapshot: {shape:?}");
    }
}

#[test]
fn two_liars_of_seven_break_nothing() {
    clean(0..1, &Shape::of(7, 2));
}

#[test]
fn more_liars_than_the_promise_bears_are_seen_to_fork_the_chain() {
    let shape = Shape::of(4, 2);
    // No earlier seed forks; `sim --planted all` begins at the first one.
    let forked = (30..200).any(|seed| {
        let violations = run(seed, &shape).violations;
        violations.iter().any(|found| matches!(found, Violation::Fork { .. }))
    });
    assert!(forked, "two equivocating validators of four fork the chain in some seed");
}

// Bugs that take dozens of seeds (the journal not synced, an early acknowledgement, a timer not set again) are left to
// `sim --planted all`, which CI runs in the release profile.
#[test]
fn bugs_of_the_disk_and_of_the_order_of_effects_are_caught() {
    assert_caught(&[
        Bug::SendBeforeWrite,
        Bug::ForgottenJournal,
        Bug::DroppedBodies,
        Bug::RestoredBackup,
        Bug::SkippedReplay,
    ]);
}

#[test]
fn bugs_of_rules_reads_and_timers_are_caught() {
    assert_caught(&[
        Bug::SettlementRounding,
        Bug::UnsortedEntrants,
        Bug::WeakQuorum,
        Bug::LostWrite,
        Bug::StaleCache,
        Bug::SyncOffByOne,
        Bug::WrongScores,
        Bug::FlippedBit,
        Bug::ShortJoin,
    ]);
}

#[test]
fn bugs_that_only_delay_are_caught_where_nothing_else_does() {
    assert_caught(&[Bug::DeafProposer, Bug::ForgivenOffence]);
}

#[test]
fn a_failing_seed_shrinks_to_one_that_fails_the_same_way() {
    let shape = Shape { planted: Some(Bug::RestoredBackup), ..Shape::of(4, 0) };
    let (seed, found) = first_failure(&shape).expect("a restored backup is caught");
    let small = shrink(seed, &shape).expect("the shape is a network").expect("the seed fails");
    assert_eq!(small.violation.kind(), found.kind());
    assert_eq!(small.faults, 1, "one crash is enough: {}", small.command());
    assert_eq!(run(seed, &small.shape).violations.first(), Some(&small.violation));
    assert!(small.command().contains(&format!("--seeds {seed}..{}", seed + 1)), "{}", small.command());
}
