//! Attacks on agreement and on deadlines, each as a network that lives through it. Named in the threat table.

use tiltyard_testnet::sim::{
    Damage, Fault, Outcome, Plan, Shape, Timed, Treason, Violation, WriteFate, run_plan, run_seed,
};

fn run(seed: u64, shape: &Shape) -> Outcome {
    run_seed(seed, shape, false).expect("the shape is a network")
}

fn assert_settled(seed: u64, outcome: &Outcome) {
    assert_eq!(outcome.violations, [], "seed {seed}");
    assert!(outcome.is_settled, "seed {seed}: a task is settled");
}

/// Makes a plan of a calm network in which `faults` happen, each at a time and for so long, in milliseconds.
fn plan(seed: u64, faults: &[(u64, u64, Fault)]) -> Plan {
    let timed = |(at_ms, for_ms, fault): &(u64, u64, Fault)| Timed {
        at_ms: *at_ms,
        for_ms: *for_ms,
        fault: fault.clone(),
    };
    let mut plan = Plan::of(seed, &Shape::of(4, 0).calm());
    plan.faults = faults.iter().map(timed).enumerate().collect();
    plan.heal_ms = faults.iter().map(|(at_ms, for_ms, _)| at_ms + for_ms + 500).max().unwrap_or(1_000);
    plan
}

fn down(node: usize) -> Fault {
    Fault::Crash { node, effects: 0, fate: WriteFate::Lost, damage: Damage::None }
}

fn blocks_between(outcome: &Outcome, from_ms: u64, to_ms: u64) -> usize {
    outcome.block_ms.iter().filter(|at_ms| (from_ms..to_ms).contains(at_ms)).count()
}

#[test]
fn a_commit_sent_in_time_is_in_the_next_honest_block_whatever_a_censor_does() {
    let shape = Shape::of(4, 1).with_treason(Treason::Censor).calm();
    (0..4).for_each(|seed| assert_settled(seed, &run(seed, &shape)));
}

#[test]
fn a_judge_that_hides_its_scores_changes_no_verdict() {
    let shape = Shape::of(4, 1).with_treason(Treason::HideScores).calm();
    (0..4).for_each(|seed| assert_settled(seed, &run(seed, &shape)));
}

#[test]
fn a_third_less_one_may_be_down_and_blocks_go_on() {
    for seed in 0..2 {
        let outcome = run_plan(plan(seed, &[(3_000, 4_000, down(1))]), false).expect("it is a network");
        assert_settled(seed, &outcome);
        let blocks = blocks_between(&outcome, 3_500, 7_000);
        assert!(blocks >= 5, "seed {seed}: {blocks} blocks in 3.5 s with one of four down");
    }
}

#[test]
fn with_a_third_down_the_chain_halts_says_so_and_resumes_within_ten_seconds() {
    for seed in 0..2 {
        let faults = [(3_000, 14_000, down(1)), (3_000, 14_000, down(2))];
        let outcome = run_plan(plan(seed, &faults), false).expect("it is a network");
        assert_settled(seed, &outcome);
        assert_eq!(blocks_between(&outcome, 4_000, 17_000), 0, "seed {seed}: half the stake decides nothing");
        assert!(blocks_between(&outcome, 17_000, 27_500) > 0, "seed {seed}: it resumes");
        assert!(outcome.stalls.iter().any(|(node, _)| *node == 0), "seed {seed}: node 0 tells its operator");
    }
}

#[test]
fn silence_of_a_third_halts_the_chain_and_tells_operators_who_is_silent() {
    let outcome = run(1, &Shape::of(4, 2).with_treason(Treason::Silent).calm());
    assert_eq!(outcome.heights, 0, "nothing is decided");
    assert!(matches!(outcome.violations[..], [Violation::NoProgress { .. }]), "{:?}", outcome.violations);
    let (_, told) = outcome.stalls.first().expect("operators are told");
    assert!(told.starts_with("no block at height 1 for 1"), "{told}");
    assert!(told.contains("validators with 2000 of 4000 stake are heard, more than 2/3 is needed"), "{told}");
    let (_, names) = told.split_once("silent: ").expect("it names them");
    let (names, remedy) = names.split_once("; ").expect("it says what to do");
    assert_eq!(names.split(", ").count(), 2, "{told}");
    assert!(remedy.contains("start them"), "{told}");
}

#[test]
fn a_double_signer_is_slashed_within_ten_blocks_and_no_honest_key_ever() {
    let shape = Shape::of(4, 1).with_treason(Treason::Equivocate).calm();
    let mut slashed = 0;
    for seed in 0..6 {
        let outcome = run(seed, &shape);
        assert_settled(seed, &outcome);
        slashed += usize::from(!outcome.punished.is_empty());
        let first = outcome.punished.iter().min_by_key(|(_, landed)| *landed);
        if let Some((offence, landed)) = first {
            assert!(landed - offence <= 10, "seed {seed}: offence at {offence}, slashed at {landed}");
        }
    }
    assert!(slashed >= 5, "{slashed} of 6 double signers were slashed");
}

#[test]
fn clocks_an_hour_off_and_jumping_move_no_deadline() {
    const HOUR_MS: i64 = 3_600_000;
    for seed in 0..2 {
        let faults = [
            (1_500, 3_000, Fault::Clock { node: 1, by_ms: HOUR_MS }),
            (5_000, 3_000, Fault::Clock { node: 1, by_ms: -HOUR_MS }),
        ];
        let mut jumping = plan(seed, &faults);
        jumping.skew_ms = vec![3_000, 0, -3_000, 1_000];
        assert_settled(seed, &run_plan(jumping, false).expect("it is a network"));
        let mut skewed = plan(seed, &[]);
        skewed.skew_ms = vec![0, HOUR_MS, 0, 0];
        assert_settled(seed, &run_plan(skewed, false).expect("it is a network"));
    }
}
