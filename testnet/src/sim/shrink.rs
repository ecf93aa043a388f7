//! Makes a failing seed smaller: fewer faults, fewer heights, the same kind of violation.

use std::collections::BTreeSet;

use super::plan::Plan;
use super::run_seed;
use super::shape::Shape;
use super::violation::Violation;

/// Runs spent on one failing seed.
const RUNS_MAX: usize = 60;

/// The smallest shape found that still fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The seed.
    pub seed: u64,
    /// The shape.
    pub shape: Shape,
    /// Faults that are left.
    pub faults: usize,
    /// What fails.
    pub violation: Violation,
}

impl Shrunk {
    /// Returns the command that runs it again.
    #[must_use]
    pub fn command(&self) -> String {
        let Shape { nodes, byzantine, heights, planted, only, treason, calm, strike, life } = &self.shape;
        let mut text = format!(
            "tiltyard-testnet sim --seeds {}..{} --nodes {nodes} --byzantine {byzantine} --heights {heights}",
            self.seed,
            self.seed.saturating_add(1)
        );
        if let Some(bug) = planted {
            text.push_str(&format!(" --planted {}", bug.name()));
        }
        if let Some(treason) = treason {
            text.push_str(&format!(" --treason {}", treason.name()));
        }
        if let Some(strike) = strike {
            text.push_str(&format!(" --crash {strike}"));
        }
        for (flag, is_set) in [(" --calm", *calm), (" --life", *life)] {
            text.push_str(if is_set { flag } else { "" });
        }
        if let Some(only) = only {
            let list: Vec<String> = only.iter().map(ToString::to_string).collect();
            let list = if list.is_empty() { "none".to_owned() } else { list.join(",") };
            text.push_str(&format!(" --only {list}"));
        }
        text
    }
}

/// Shrinks a failing seed. Returns `None` when it does not fail.
///
/// # Errors
/// As [`run_seed`].
pub fn shrink(seed: u64, shape: &Shape) -> anyhow::Result<Option<Shrunk>> {
    let fails = |shape: &Shape| -> anyhow::Result<Option<(Violation, u64)>> {
        let outcome = run_seed(seed, shape, false)?;
        Ok(outcome.violations.into_iter().next().map(|violation| (violation, outcome.heights)))
    };
    let Some((mut violation, mut reached)) = fails(shape)? else {
        return Ok(None);
    };
    let mut runs = 1;
    // The one crash that a shape asks for is part of what it is.
    let all: BTreeSet<usize> = Plan::of(seed, &Shape { strike: None, ..shape.clone() })
        .faults
        .iter()
        .map(|(number, _)| *number)
        .collect();
    let mut best =
        if all.is_empty() { shape.clone() } else { Shape { only: Some(all.clone()), ..shape.clone() } };
    let mut left: Vec<usize> = all.into_iter().collect();
    while let Some(number) = left.pop() {
        let only = best.only.iter().flatten().copied().filter(|at| *at != number).collect();
        let smaller = Shape { only: Some(only), ..best.clone() };
        runs += 1;
        if runs > RUNS_MAX {
            break;
        }
        if let Some((found, height)) = fails(&smaller)?.filter(|(found, _)| found.kind() == violation.kind())
        {
            (violation, reached, best) = (found, height, smaller);
        }
    }
    let lower = Shape { heights: reached.min(best.heights), ..best.clone() };
    if lower != best
        && let Some((found, _)) = fails(&lower)?.filter(|(found, _)| found.kind() == violation.kind())
    {
        (violation, best) = (found, lower);
    }
    let faults = best.only.as_ref().map_or(0, BTreeSet::len);
    Ok(Some(Shrunk { seed, shape: best, faults, violation }))
}
