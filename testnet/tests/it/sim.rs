//! The simulator: it repeats itself, finds nothing where nothing is wrong, and finds what was planted.

use tiltyard_testnet::sim::{Bug, Outcome, Shape, Violation, run_seed, shrink};

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
        let shape = Shape { planted: Some(*bug), ..Shape::of(4, 0) };
        assert!(first_failure(&shape).is_some(), "{} was not caught within 200 seeds", bug.name());
    }
}

#[test]
fn a_seed_gives_the_same_trace_each_time_and_another_seed_another() {
    let shape = Shape::of(4, 1);
    let (one, again, other) = (run(7, &shape), run(7, &shape), run(8, &shape));
    assert_eq!(one, again);
    assert_ne!(one.trace, other.trace);
}

#[test]
fn honest_validators_agree_through_crashes_splits_and_bad_clocks() {
    let outcomes = clean(0..25, &Shape::of(4, 0));
    assert!(outcomes.iter().any(|outcome| outcome.is_settled), "some task is settled");
    assert!(outcomes.iter().any(|outcome| outcome.late_rounds > 0), "some height needs another round");
}

#[test]
fn one_liar_of_four_breaks_nothing_and_is_slashed_where_it_is_seen() {
    let outcomes = clean(0..20, &Shape::of(4, 1));
    assert!(outcomes.iter().any(|outcome| outcome.slashed > 0), "some liar is slashed");
}

#[test]
fn two_liars_of_seven_break_nothing() {
    clean(0..3, &Shape::of(7, 2));
}

#[test]
fn more_liars_than_the_promise_bears_are_seen_to_fork_the_chain() {
    let shape = Shape::of(4, 2);
    let forked = (0..200).any(|seed| {
        let violations = run(seed, &shape).violations;
        violations.iter().any(|found| matches!(found, Violation::Fork { .. }))
    });
    assert!(forked, "two equivocating validators of four fork the chain in some seed");
}

#[test]
fn bugs_of_the_disk_and_of_the_order_of_effects_are_caught() {
    assert_caught(&[
        Bug::SendBeforeWrite,
        Bug::ForgottenJournal,
        Bug::DroppedBodies,
        Bug::UnsyncedJournal,
        Bug::EarlyAcknowledgement,
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
        Bug::ForgottenRearm,
    ]);
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
