//! Statistics: pure functions with fixed seeds. The task is the unit.
//!
//! A comparison on one task is decided by a paired bootstrap: seeds are drawn with replacement, then examples within
//! each, and the mean difference is looked at. Over tasks, whole tasks are drawn (cluster bootstrap).

use tiltyard_train::rng::Rng;

/// Draws of a bootstrap.
const DRAWS: usize = 2_000;
/// Part of the draws outside the interval, on each side.
const TAIL: f64 = 0.025;
/// A mean difference below this is a tie, in nats: the ledger's own margin.
const MARGIN_NATS: f64 = 1e-3;

/// How a comparison on one task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Win,
    Tie,
    Loss,
}

/// A mean and the interval around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn interval(mean: f64, mut draws: Vec<f64>) -> Interval {
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * draws.len().saturating_sub(1) as f64).round() as usize;
        draws.get(place).copied().unwrap_or(mean)
    };
    Interval { mean, low: at(TAIL), high: at(1.0 - TAIL) }
}

/// Decides between us and them on one task: losses of each example, in nats, a pair of rows a seed.
///
/// Returns the verdict for us and the interval of the mean of theirs minus ours; none without a pair.
pub(super) fn compare(seeds: &[(Vec<f64>, Vec<f64>)]) -> Option<(Verdict, Interval)> {
    let differences: Vec<Vec<f64>> = seeds
        .iter()
        .map(|(ours, theirs)| ours.iter().zip(theirs).map(|(ours, theirs)| theirs - ours).collect())
        .filter(|row: &Vec<f64>| !row.is_empty())
        .collect();
    if differences.is_empty() {
        return None;
    }
    let mut rng = Rng::new(0xB007);
    let mut draws = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let mut sum = 0.0;
        for _ in 0..differences.len() {
            let row = &differences[rng.below(differences.len())];
            let drawn: f64 = (0..row.len()).map(|_| row[rng.below(row.len())]).sum();
            sum += drawn / row.len() as f64;
        }
        draws.push(sum / differences.len() as f64);
    }
    let means: Vec<f64> = differences.iter().map(|row| mean(row)).collect();
    let found = interval(mean(&means), draws);
    let verdict = if found.low > 0.0 && found.mean >= MARGIN_NATS {
        Verdict::Win
    } else if found.high < 0.0 && found.mean <= -MARGIN_NATS {
        Verdict::Loss
    } else {
        Verdict::Tie
    };
    Some((verdict, found))
}

/// The mean over tasks, with tasks drawn with replacement; none without tasks.
pub(super) fn over_tasks(values: &[f64]) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let mut rng = Rng::new(0xC1A5);
    let draw = |rng: &mut Rng| {
        let drawn: f64 = (0..values.len()).map(|_| values[rng.below(values.len())]).sum();
        drawn / values.len() as f64
    };
    let draws = (0..DRAWS).map(|_| draw(&mut rng)).collect();
    Some(interval(mean(values), draws))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(level: f64) -> Vec<f64> {
        (0..60).map(|row| level + f64::from(row * 37 % 60) / 60.0).collect()
    }

    #[test]
    fn a_steady_difference_wins_and_its_mirror_loses() {
        let pairs = [(losses(1.0), losses(1.1)), (losses(1.0), losses(1.2))];
        let (verdict, found) = compare(&pairs).expect("pairs");
        assert_eq!(verdict, Verdict::Win);
        assert!((found.mean - 0.15).abs() < 1e-9 && found.low > 0.09 && found.high < 0.21, "{found:?}");
        let mirrored = pairs.map(|(ours, theirs)| (theirs, ours));
        assert_eq!(compare(&mirrored).expect("pairs").0, Verdict::Loss);
    }

    #[test]
    fn noise_a_seed_that_says_otherwise_and_a_margin_missed_are_ties() {
        let noisy: Vec<f64> = losses(1.0).iter().rev().copied().collect();
        assert_eq!(compare(&[(losses(1.0), noisy)]).expect("a pair").0, Verdict::Tie);
        let seeds = [(losses(1.0), losses(1.3)), (losses(1.2), losses(1.0))];
        assert_eq!(compare(&seeds).expect("pairs").0, Verdict::Tie);
        let (verdict, found) = compare(&[(losses(1.0), losses(1.0005))]).expect("a pair");
        assert!(found.low > 0.0);
        assert_eq!(verdict, Verdict::Tie);
        assert_eq!(compare(&[]), None);
        assert_eq!(compare(&[(Vec::new(), Vec::new())]), None);
    }

    #[test]
    fn few_tasks_make_a_wide_interval_and_the_same_one_every_time() {
        let few = over_tasks(&[1.0, 9.0]).expect("tasks");
        assert_eq!((few.mean, few.low, few.high), (5.0, 1.0, 9.0));
        let many: Vec<f64> = (0..50).map(|task| if task % 2 == 0 { 1.0 } else { 9.0 }).collect();
        let found = over_tasks(&many).expect("tasks");
        assert!(found.low > 3.5 && found.high < 6.5, "{found:?}");
        assert_eq!(over_tasks(&many), Some(found));
        assert_eq!(over_tasks(&[]), None);
    }
}
