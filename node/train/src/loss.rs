//! The weighted cross-entropy: the one primitive that every kind of task is made of.
//!
//! A row is a sequence of tokens and the positions that are predicted, each with a
//! weight. [`log_probs`] gives the log-probability of every predicted token;
//! [`Model::gradients`] gives the gradient of the sum of weight × negative
//! log-probability. What differs between kinds is only the weight:
//!
//! | kind | weight of a token of the loss |
//! |---|---|
//! | supervised | `1 / n` with `n` predicted tokens of the step ([`mean_weight`]) |
//! | DPO (arXiv:2305.18290) | `±β·σ(−margin) / B`, + on the chosen row ([`Pair`]) |
//! | GRPO (arXiv:2402.03300) | `advantage / (G · length)` ([`group_weights`]) |
//!
//! ```text
//! let reference = model.without_adapter();               // shares the weights
//! let before = log_probs(&reference, &rows, workers)?;   // per row, per token
//! let said = model.generate(&prompts, &generation)?;     // batched, key-value cache
//! let shards = shards(&rows, shard_tokens);              // fixed cuts
//! let g = fit::shard::gradients(&model, &shards, pass, workers)?; // same bytes at any number
//! ```
//!
//! A kind trains through [`crate::fit::objective::Objective`], which says how the rows of
//! a step become such shards; the run, its optimizer, its saved state and its schedule
//! are the same for all. A weight that depends on the losses of the same pass (DPO) is
//! given to the batch as a function ([`Batch::weighed_by`]), so no second pass is needed.

use crate::kernel::head::Target;
use crate::model::{Batch, Model, ModelError, Weigh};

/// Tokens of whole rows computed together without gradients.
const FORWARD_TOKENS: usize = 512;

/// One predicted position of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gold {
    /// Index in the row's tokens of the token that is predicted; at least 1.
    pub at: usize,
    /// The weight of its negative log-probability.
    pub weight: f32,
}

/// A sequence of tokens and what is predicted in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// All tokens.
    pub ids: Vec<u32>,
    /// The predicted positions, in order.
    pub golds: Vec<Gold>,
}

impl Row {
    /// A row that predicts every token from index `prompt` (at least 1) on, each of `weight`.
    pub fn completion(ids: Vec<u32>, prompt: usize, weight: f32) -> Self {
        let golds = (prompt.max(1)..ids.len()).map(|at| Gold { at, weight }).collect();
        Self { ids, golds }
    }
}

/// Joins whole rows into one batch; `first_row` is as in [`Batch::new`].
pub fn batch(rows: &[Row], first_row: u64) -> Batch {
    let ids: Vec<&[u32]> = rows.iter().map(|row| row.ids.as_slice()).collect();
    let (mut targets, mut start) = (Vec::new(), 0);
    for row in rows {
        let predicted = row.golds.iter().filter(|gold| (1..row.ids.len()).contains(&gold.at));
        targets.extend(predicted.map(|gold| Target {
            row: start + gold.at - 1,
            token: row.ids[gold.at],
            weight: gold.weight,
        }));
        start += row.ids.len();
    }
    Batch::new(&ids, targets, first_row)
}

/// Cuts lengths, in order, into groups of at most `tokens`; a longer row stands alone.
pub fn cuts(lengths: impl IntoIterator<Item = usize>, tokens: usize) -> Vec<std::ops::Range<usize>> {
    let (mut groups, mut start, mut held, mut end) = (Vec::new(), 0, 0, 0);
    for length in lengths {
        if end > start && held + length > tokens {
            groups.push(start..end);
            (start, held) = (end, 0);
        }
        held += length;
        end += 1;
    }
    if end > start {
        groups.push(start..end);
    }
    groups
}

/// Cuts rows into micro-shards of at most `tokens` tokens, in order.
///
/// The cuts depend on the rows alone, so gradients summed in shard order have the same
/// bytes at any number of workers.
pub fn shards(rows: &[Row], tokens: usize) -> Vec<Batch> {
    let mut first = 0u64;
    let cut = cuts(rows.iter().map(|row| row.ids.len()), tokens).into_iter();
    let shard = cut.map(|range| {
        let shard = batch(&rows[range], first);
        first += shard.tokens() as u64;
        shard
    });
    shard.collect()
}

/// Cuts groups of rows into micro-shards as [`shards`] does, each group whole, with weights
/// that are functions of the losses: `weigh` is given the groups of a shard, by number.
pub fn grouped_shards(
    groups: &[Vec<Row>],
    tokens: usize,
    weigh: impl Fn(std::ops::Range<usize>) -> Weigh,
) -> Vec<Batch> {
    let length = |group: &Vec<Row>| group.iter().map(|row| row.ids.len()).sum();
    let mut first = 0u64;
    let cut = cuts(groups.iter().map(length), tokens).into_iter();
    let shard = cut.map(|range| {
        let shard = batch(&groups[range.clone()].concat(), first).weighed_by(weigh(range));
        first += shard.tokens() as u64;
        shard
    });
    shard.collect()
}

/// Computes the natural log-probability of every predicted token of every row.
///
/// The same bits at any number of workers and in any company.
///
/// # Errors
/// [`ModelError::Batch`] when a row does not fit the model.
///
/// # Panics
/// When a worker panicked: a bug, passed on.
pub fn log_probs(model: &Model, rows: &[Row], workers: usize) -> Result<Vec<Vec<f64>>, ModelError> {
    let groups = cuts(rows.iter().map(|row| row.ids.len()), FORWARD_TOKENS);
    let score = |group: &std::ops::Range<usize>| -> Result<Vec<Vec<f64>>, ModelError> {
        let rows = &rows[group.clone()];
        let mut losses = model.losses(&batch(rows, 0))?.into_iter();
        let counted = rows
            .iter()
            .map(|row| row.golds.iter().filter(|gold| (1..row.ids.len()).contains(&gold.at)).count());
        Ok(counted.map(|count| losses.by_ref().take(count).map(|loss| -loss).collect()).collect())
    };
    Ok(in_order(&groups, workers, score)?.into_iter().flatten().collect())
}

/// Applies `f` to every item on `workers` threads and returns the results in order.
///
/// # Errors
/// The error of the first item, in order, that has one.
///
/// # Panics
/// When a worker panicked: a bug, passed on.
pub(crate) fn in_order<T: Sync, R: Send, E: Send>(
    items: &[T],
    workers: usize,
    f: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let workers = workers.clamp(1, items.len().max(1));
    if workers == 1 {
        return items.iter().map(f).collect();
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, f(item)));
        }
    };
    let mut results: Vec<(usize, Result<R, E>)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, Vec<(usize, Result<R, E>)>>| match handle.join()
        {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        handles.into_iter().flat_map(join).collect()
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The weight of a token when a step's `targets` predicted tokens count alike.
pub fn mean_weight(targets: usize) -> f32 {
    1.0 / targets.max(1) as f32
}

/// One preference pair: log-probabilities of whole completions under the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Summed log-probability of the chosen completion under the reference.
    pub reference_chosen: f64,
    /// Summed log-probability of the rejected completion under the reference.
    pub reference_rejected: f64,
    /// β of DPO.
    pub beta: f64,
}

impl Pair {
    /// β × (how much more than the reference the model prefers the chosen completion).
    pub fn margin(&self, chosen: f64, rejected: f64) -> f64 {
        self.beta * ((chosen - self.reference_chosen) - (rejected - self.reference_rejected))
    }

    /// The loss of the pair, −ln σ(margin), in nats.
    pub fn loss(&self, chosen: f64, rejected: f64) -> f64 {
        let margin = self.margin(chosen, rejected);
        // ln(1 + e^-m), without overflow on either side.
        (-margin).max(0.0) + (-margin.abs()).exp().ln_1p()
    }

    /// The weights of every token of the chosen and of the rejected completion, for a step
    /// of `pairs` pairs: `(β·σ(−margin) / pairs, −β·σ(−margin) / pairs)`.
    pub fn weights(&self, chosen: f64, rejected: f64, pairs: usize) -> (f32, f32) {
        let pull = self.beta / (1.0 + self.margin(chosen, rejected).exp()) / pairs.max(1) as f64;
        (pull as f32, -pull as f32)
    }
}

/// The weights of the tokens of one group's completions: `advantage / (completions · length)`,
/// advantage = (reward − mean) / (deviation + 1e-4) inside the group.
///
/// `groups` is the number of groups in the step; lengths are in tokens.
pub fn group_weights(rewards: &[f64], lengths: &[usize], groups: usize) -> Vec<f32> {
    let count = rewards.len().max(1) as f64;
    let mean = rewards.iter().sum::<f64>() / count;
    let variance = rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / count;
    let spread = variance.sqrt() + 1e-4;
    let weigh = |(reward, &length): (&f64, &usize)| {
        ((reward - mean) / spread / (count * length.max(1) as f64 * groups.max(1) as f64)) as f32
    };
    rewards.iter().zip(lengths).map(weigh).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_keep_rows_whole_and_in_order() {
        assert_eq!(cuts([3, 3, 3, 20, 1], 6), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(cuts([], 6), Vec::<std::ops::Range<usize>>::new());
    }

    #[test]
    fn a_pairs_weight_is_the_derivative_of_its_loss() {
        let pair = Pair { reference_chosen: -3.0, reference_rejected: -2.5, beta: 0.3 };
        for (chosen, rejected) in [(-2.0, -4.0), (-9.0, -1.0), (-3.0, -2.5)] {
            let (up, down) = pair.weights(chosen, rejected, 1);
            let slope = |at: f64, other: f64| {
                (pair.loss(chosen + at, rejected + other) - pair.loss(chosen - at, rejected - other)) / 2e-6
            };
            // A weight multiplies the negative log-probability: the slope with its sign turned.
            assert!((f64::from(up) + slope(1e-6, 0.0)).abs() < 1e-6);
            assert!((f64::from(down) + slope(0.0, 1e-6)).abs() < 1e-6);
        }
        assert!(pair.loss(-1e6, 1e6).is_finite());
    }

    #[test]
    fn a_group_of_equal_rewards_teaches_nothing() {
        assert_eq!(group_weights(&[0.5; 4], &[3, 4, 5, 6], 2), [0.0; 4]);
        let weights = group_weights(&[1.0, 0.0], &[2, 4], 1);
        assert!(weights[0] > 0.24 && weights[1] < -0.12, "{weights:?}");
    }

    #[test]
    fn results_stay_in_order_at_any_number_of_workers() {
        let items: Vec<u32> = (0..100).collect();
        for workers in [1, 2, 7, 200] {
            let doubled = in_order(&items, workers, |item| Ok::<_, ()>(item * 2));
            assert_eq!(doubled, Ok(items.iter().map(|item| item * 2).collect()));
            let failed = in_order(&items, workers, |&item| if item > 40 { Err(item) } else { Ok(()) });
            assert_eq!(failed, Err(41));
        }
    }
}
