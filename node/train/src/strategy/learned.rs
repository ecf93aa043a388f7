//! What past tasks teach: a prior over learning rates, and recipes worth a try.
//!
//! A past recipe is a claim. It counts by the score that it reproduces here: it enters the first
//! round like any candidate, on the same small budget, and at most half of the candidates are
//! such recipes. So a ledger full of lies costs a few cheap rungs and decides nothing. The prior
//! narrows the range of learning rates only as far as many tasks agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tiltyard_proto::recipe::{Method, Recipe, Schedule};

use super::form::ScheduleName;
use super::space::{AVERAGES, Point, Space};
use crate::fit::settings::EMA_KEY;

/// Most lines read from a file of past recipes.
pub const LINES_MAX: usize = 100_000;
/// Learning rates that a past recipe may have to be tried, around the space's own range.
const RATE_SLACK: f64 = 10.0;
/// Largest rank and most rows in a step of a past recipe that is tried.
const LARGEST: (u32, u32) = (256, 256);
/// Tasks that the prior before any data counts for, and its spread in natural logarithms.
const BEFORE: (f64, f64) = (2.0, 1.2);
/// Least spread of the prior, in natural logarithms: past tasks are not this task.
const SPREAD_MIN: f64 = 0.35;
/// Standard deviations on each side that are searched.
const REACH: f64 = 1.5;

/// One entrant of a past task, a line of the file that a miner learns from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Past {
    /// The task.
    pub task: String,
    /// Mean score of the untouched base, in micro-units.
    pub base_micro: u64,
    /// Mean score of the entrant.
    pub mean_micro: u64,
    /// How it was made, by its own word.
    pub recipe: Recipe,
}

/// Says why a file of past recipes is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    /// A line is none.
    #[error(
        "line {line} of the past recipes cannot be read: {fact}; make the file with `tiltyard recipe list --out`"
    )]
    Line {
        /// Its number, from 1.
        line: usize,
        /// The parser's words.
        fact: String,
    },
    /// Too many lines.
    #[error("there are more than {LINES_MAX} past recipes; keep the newest")]
    TooMany,
}

/// Reads JSON lines.
///
/// # Errors
/// [`PastError`] naming the line.
pub fn parse(bytes: &[u8]) -> Result<Vec<Past>, PastError> {
    let mut all = Vec::new();
    for (at, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if all.len() == LINES_MAX {
            return Err(PastError::TooMany);
        }
        let read = serde_json::from_slice(line);
        all.push(read.map_err(|error| PastError::Line { line: at + 1, fact: error.to_string() })?);
    }
    Ok(all)
}

/// A normal distribution of the logarithm of the learning rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Belief {
    /// Mean, in natural logarithms.
    pub mean: f64,
    /// Spread, in natural logarithms.
    pub spread: f64,
    /// Tasks that it rests on.
    pub tasks: usize,
}

impl Belief {
    /// The learning rates to search, lowest and highest.
    pub fn window(&self) -> (f64, f64) {
        ((self.mean - REACH * self.spread).exp(), (self.mean + REACH * self.spread).exp())
    }
}

/// What past tasks teach.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    adapter: Belief,
    full: Belief,
    /// Recipes worth a try, the best supported first, at most one a task.
    points: Vec<Point>,
    /// Past recipes that cannot be tried here.
    pub skipped: usize,
}

impl Prior {
    /// Fits the prior: each task has one vote, that of its best recipe that can be tried here.
    pub fn fit(past: &[Past]) -> Self {
        let mut best: BTreeMap<&str, (u64, Point)> = BTreeMap::new();
        let mut skipped = 0;
        for entry in past {
            let Some(point) = point(&entry.recipe) else {
                skipped += 1;
                continue;
            };
            // An entrant that is no better than the base teaches nothing.
            if entry.mean_micro >= entry.base_micro {
                continue;
            }
            let share = entry.mean_micro.saturating_mul(1_000_000) / entry.base_micro.max(1);
            let held = best.get(entry.task.as_str());
            if held.is_none_or(|(lowest, _)| share < *lowest) {
                best.insert(&entry.task, (share, point));
            }
        }
        let mut votes: Vec<(u64, Point)> = best.into_values().collect();
        votes.sort_by_key(|(share, _)| *share);
        let points: Vec<Point> = votes.into_iter().map(|(_, point)| point).collect();
        Self { adapter: belief(&points, false), full: belief(&points, true), points, skipped }
    }

    /// What is believed of a method's learning rate.
    pub fn belief(&self, full: bool) -> Belief {
        if full { self.full } else { self.adapter }
    }

    /// Up to `count` recipes to try, as unlike each other as the votes allow: the one nearest to the
    /// belief first, then always the one farthest from those chosen.
    pub fn recipes(&self, full_allowed: bool, count: usize) -> Vec<Point> {
        let usable: Vec<&Point> = self.points.iter().filter(|point| full_allowed || !point.full).collect();
        let mut chosen: Vec<Point> = Vec::new();
        let centre = |point: &Point| (point.learning_rate.ln() - self.belief(point.full).mean).abs();
        while chosen.len() < count {
            let distance =
                |point: &Point| chosen.iter().map(|other| apart(point, other)).fold(f64::MAX, f64::min);
            let next = match chosen.is_empty() {
                true => usable.iter().min_by(|a, b| centre(a).total_cmp(&centre(b))),
                false => usable.iter().max_by(|a, b| distance(a).total_cmp(&distance(b))),
            };
            match next {
                Some(point) if chosen.is_empty() || distance(point) > 0.1 => chosen.push((*point).clone()),
                Some(_) | None => break,
            }
        }
        chosen
    }
}

fn apart(a: &Point, b: &Point) -> f64 {
    let log = |x: f64, y: f64| (x / y).ln().abs();
    log(a.learning_rate, b.learning_rate)
        + if a.full == b.full { 0.0 } else { 2.0 }
        + 0.3 * log(f64::from(a.rank), f64::from(b.rank))
        + 0.5 * log(f64::from(a.batch_rows), f64::from(b.batch_rows))
}

/// The posterior of a normal prior over the votes of a method.
fn belief(points: &[Point], full: bool) -> Belief {
    let rates = points.iter().filter(|point| point.full == full).map(|point| point.learning_rate.ln());
    let rates: Vec<f64> = rates.collect();
    let (low, high) = Space::rates(full);
    let middle = f64::midpoint(low.ln(), high.ln());
    let (weight, spread) = BEFORE;
    let count = rates.len() as f64;
    let mean = (weight * middle + rates.iter().sum::<f64>()) / (weight + count);
    let around = |rate: &f64| (rate - mean).powi(2);
    let scatter = weight * (spread.powi(2) + around(&middle)) + rates.iter().map(around).sum::<f64>();
    Belief { mean, spread: (scatter / (weight + count)).sqrt().max(SPREAD_MIN), tasks: rates.len() }
}

/// The point of a past recipe; none when it is no recipe that this trainer would try.
fn point(recipe: &Recipe) -> Option<Point> {
    let (full, rank, dropout_ppm, targets) = match recipe.method {
        Method::Full => (true, Point::PLAIN.rank, 0, Method::ALL_LINEAR),
        Method::Lora { rank, dropout_ppm, targets, .. } => (false, rank, dropout_ppm, targets),
    };
    let rate = recipe.learning_rate_nano as f64 / 1e9;
    let rows = recipe.batch_rows.checked_mul(recipe.accumulation.max(1))?;
    let (low, high) = Space::rates(full);
    let sane = (low / RATE_SLACK..=high * RATE_SLACK).contains(&rate)
        && (1..=LARGEST.0).contains(&rank)
        && (1..=LARGEST.1).contains(&rows)
        && dropout_ppm <= 500_000
        && !recipe.packing;
    let averaged = recipe.extra.iter().any(|(key, _)| key == EMA_KEY);
    sane.then(|| Point {
        full,
        learning_rate: rate,
        rank,
        attention_only: targets & Method::ALL_LINEAR == 0b1111,
        batch_rows: rows,
        schedule: match recipe.schedule {
            Schedule::Constant => ScheduleName::Constant,
            Schedule::Linear => ScheduleName::Linear,
            Schedule::Cosine => ScheduleName::Cosine,
        },
        dropout: f64::from(dropout_ppm) / 1e6,
        ema: AVERAGES[usize::from(averaged)],
    })
}

#[cfg(test)]
mod tests {
    use tiltyard_proto::recipe::Strategy;

    use super::*;

    fn past(task: u32, rate: f64, mean_micro: u64) -> Past {
        let point = Point { learning_rate: rate, ..Point::PLAIN };
        let recipe = point.recipe(Strategy::Search, 1, 40, 100);
        Past { task: format!("t{task}"), base_micro: 4_000_000, mean_micro, recipe }
    }

    #[test]
    fn the_window_narrows_with_agreement_and_stays_wide_without() {
        let width = |past: &[Past]| {
            let (low, high) = Prior::fit(past).belief(false).window();
            high / low
        };
        let agreed: Vec<Past> = (0..20).map(|task| past(task, 4e-3, 2_000_000)).collect();
        let split: Vec<Past> =
            (0..20).map(|task| past(task, if task % 2 == 0 { 4e-4 } else { 4e-2 }, 2_000_000)).collect();
        let (none, one, many, torn) = (width(&[]), width(&agreed[..1]), width(&agreed), width(&split));
        assert!(many < one && one < none, "{many} {one} {none}");
        assert!(torn > 4.0 * many, "tasks that disagree teach little: {torn} {many}");
        let (low, high) = Prior::fit(&agreed).belief(false).window();
        assert!(low < 4e-3 && 4e-3 < high);
    }

    #[test]
    fn a_task_has_one_vote_however_many_entrants_lie_about_it() {
        let honest: Vec<Past> = (0..5).map(|task| past(task, 4e-3, 2_000_000)).collect();
        let mut flooded = honest.clone();
        flooded.extend((0..500).map(|_| past(0, 3e-1, 2_100_000)));
        assert_eq!(Prior::fit(&flooded).belief(false), Prior::fit(&honest).belief(false));
    }

    #[test]
    fn recipes_that_cannot_be_meant_are_skipped_and_counted() {
        let mut absurd = vec![past(0, 1e-12, 1), past(1, 9.0, 1), past(2, 4e-3, 1), past(3, 4e-3, 1)];
        absurd[2].recipe.batch_rows = u32::MAX;
        absurd[2].recipe.accumulation = 2;
        absurd[3].recipe.method =
            Method::Lora { rank: 1 << 30, alpha_milli: 1, dropout_ppm: 0, targets: 127 };
        let prior = Prior::fit(&absurd);
        assert_eq!((prior.skipped, prior.recipes(true, 3).len()), (4, 0));
        assert_eq!(prior.belief(false), Prior::fit(&[]).belief(false));
        let worse = Prior::fit(&[past(0, 4e-3, 4_000_001)]);
        assert_eq!(worse.belief(false).tasks, 0, "worse than the base teaches nothing");
    }

    #[test]
    fn recipes_to_try_are_unlike_each_other() {
        let all = [past(0, 4e-3, 1), past(1, 4.1e-3, 2), past(2, 1e-3, 3), past(3, 2e-2, 4)];
        let prior = Prior::fit(&all);
        let rates: Vec<f64> = prior.recipes(false, 3).iter().map(|point| point.learning_rate).collect();
        assert_eq!(rates.len(), 3);
        let near = |a: f64, b: f64| (a / b).ln().abs() < 0.2;
        assert!(
            !near(rates[0], rates[1]) && !near(rates[1], rates[2]) && !near(rates[0], rates[2]),
            "{rates:?}"
        );
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let line = serde_json::to_string(&past(0, 4e-3, 1)).expect("written");
        assert_eq!(parse(format!("{line}\n\n{line}\n").as_bytes()).expect("two").len(), 2);
        let error = parse(format!("{line}\n{{}}\n").as_bytes()).expect_err("no past");
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
