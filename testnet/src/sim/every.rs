//! A crash at every effect: the same calm run again and again, each time with one node dying one effect later.

use std::ops::Range;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Outcome, Shape, Strike, WriteFate, pool, run_seed, shrink};

/// Failing crashes that are printed; the rest is counted.
const PRINTED_MAX: usize = 5;

/// Lists every crash of every honest node within `heights`: between two effects, and at a write with each fate.
///
/// # Errors
/// As [`run_seed`]; when the run without a crash fails.
pub fn strikes(seed: u64, shape: &Shape, heights: &Range<u64>) -> Result<Vec<Strike>> {
    let quiet = Shape { strike: None, ..shape.clone() }.calm();
    let outcome = run_seed(seed, &quiet, false)?;
    ensure!(outcome.violations.is_empty(), "seed {seed} fails without a crash: {:?}", outcome.violations);
    let plan = super::Plan::of(seed, &quiet);
    let mut all = Vec::new();
    for (node, carried) in outcome.carried.iter().enumerate().filter(|(node, _)| plan.is_honest(*node)) {
        let within = carried.iter().zip(0u64..).filter(|(boundary, _)| heights.contains(&boundary.height));
        for (boundary, effect) in within {
            let fates: &[WriteFate] = match boundary.is_write {
                true => &[WriteFate::Lost, WriteFate::Kept, WriteFate::Torn],
                // Nothing is being written: all fates are one.
                false => &[WriteFate::Kept],
            };
            all.extend(fates.iter().map(|fate| Strike { node, effect, fate: *fate }));
        }
    }
    Ok(all)
}

#[derive(Debug, Serialize)]
struct Summary {
    nodes: usize,
    byzantine: usize,
    seeds: u64,
    heights: String,
    crashes: usize,
    settled: usize,
    failed: usize,
    failures: Vec<String>,
    wall_seconds: f64,
}

/// Runs every crash of every seed. Returns whether nothing went wrong.
pub(crate) fn run(
    shape: &Shape,
    seeds: Range<u64>,
    heights: &Range<u64>,
    threads: Option<usize>,
    json: bool,
) -> Result<bool> {
    let began = Instant::now();
    let mut all = Vec::new();
    for seed in seeds.clone() {
        all.extend(strikes(seed, shape, heights)?.into_iter().map(|strike| (seed, strike)));
    }
    ensure!(
        !all.is_empty(),
        "no node carries anything out within heights {heights:?}; runs end before height 45"
    );
    let of = |strike: Strike| Shape { strike: Some(strike), ..shape.clone() }.calm();
    let outcomes: Vec<Outcome> =
        pool::each(&all, threads, |(seed, strike)| run_seed(*seed, &of(*strike), false))
            .into_iter()
            .collect::<Result<_>>()?;
    let mut failures = Vec::new();
    for ((seed, strike), outcome) in all.iter().zip(&outcomes) {
        if outcome.violations.is_empty() {
            ensure!(outcome.crashes == 1, "crash {strike} of seed {seed} did not happen");
            continue;
        }
        let small = if failures.len() < PRINTED_MAX { shrink(*seed, &of(*strike))? } else { None };
        failures.push(small.map_or_else(
            || format!("seed {seed}, crash {strike}"),
            |small| format!("{}; again: {}", small.violation, small.command()),
        ));
    }
    let summary = Summary {
        nodes: shape.nodes,
        byzantine: shape.byzantine,
        seeds: seeds.end - seeds.start,
        heights: format!("{}..{}", heights.start, heights.end),
        crashes: all.len(),
        settled: outcomes.iter().filter(|outcome| outcome.is_settled).count(),
        failed: failures.len(),
        failures,
        wall_seconds: began.elapsed().as_secs_f64(),
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        summary.failures.iter().take(PRINTED_MAX).for_each(|failure| println!("{failure}"));
        println!(
            "{} crashes, one at each effect and write fate of heights {} at {} nodes ({} byzantine, {} seeds): {} failed, a task settled in {}; {:.1} s",
            summary.crashes,
            summary.heights,
            summary.nodes,
            summary.byzantine,
            summary.seeds,
            summary.failed,
            summary.settled,
            summary.wall_seconds
        );
    }
    Ok(summary.failed == 0)
}
