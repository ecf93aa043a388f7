//! Objectives: how the rows of a step become weighted micro-shards.
//!
//! A run knows nothing of task kinds. An objective knows its rows; the run asks it for
//! the shards of each step and does the rest: order, gradients, optimizer, state.

use std::fmt::Debug;
use std::ops::Range;

use super::run::RunError;
use crate::data::{Average, Example};
use crate::loss::{self, Gold, Row};
use crate::model::{Batch, Model};

/// What an objective may look at when it makes the shards of a step.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The model as trained so far; `model.without_adapter()` is the reference.
    pub model: &'a Model,
    /// Steps taken before this one. With `seed` it keys whatever the objective draws.
    pub number: u64,
    /// A seed of the objective's own, drawn from the recipe's.
    pub seed: u64,
    /// Worker threads; what is made must not depend on them.
    pub workers: usize,
    /// Most tokens of a shard of several rows.
    pub shard_tokens: usize,
}

/// What to show of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shown {
    /// The loss, in the units of the kind's score.
    pub loss: f64,
    /// The share of right answers, for kinds that know any.
    pub accuracy: Option<f64>,
}

impl Shown {
    /// The mean of rows, each with its loss and whether it is right.
    pub(crate) fn mean(rows: impl Iterator<Item = (f64, bool)>) -> Self {
        let (count, loss, right) = rows.fold((0u32, 0.0, 0u32), |(count, sum, right), (loss, hit)| {
            (count + 1, sum + loss, right + u32::from(hit))
        });
        let count = f64::from(count.max(1));
        Self { loss: loss / count, accuracy: Some(f64::from(right) / count) }
    }
}

/// What a run learns from.
///
/// Everything must be a function of the rows and of [`Step`]: a restarted run asks again.
pub trait Objective: Debug + Sync {
    /// The tokens of every row: for order, packing and buckets.
    fn lengths(&self) -> Vec<usize>;

    /// Makes the shards of a step from row numbers, in order. Weights add up to what the
    /// optimizer is to descend.
    ///
    /// # Errors
    /// [`RunError`] when a row does not fit the model.
    fn shards(&self, step: &Step<'_>, rows: &[usize]) -> Result<Vec<Batch>, RunError>;

    /// The loss to show for a step: given each target's weight and loss, in shard order.
    fn loss(&self, targets: &mut dyn Iterator<Item = (f64, f64)>) -> f64 {
        targets.map(|(weight, loss)| weight * loss).sum()
    }

    /// What to show for a step of these rows; given as to [`Self::loss`].
    fn shown(&self, _rows: &[usize], targets: &mut dyn Iterator<Item = (f64, f64)>) -> Shown {
        Shown { loss: self.loss(targets), accuracy: None }
    }

    /// The share of the recipe's learning rate that a step takes, by the steps before it.
    fn rate_share(&self, _step: u64) -> f64 {
        1.0
    }
}

/// Supervised learning: the completions of examples.
#[derive(Debug, Clone, Copy)]
pub struct Completions<'a> {
    /// The rows.
    pub examples: &'a [Example],
    /// How their losses are averaged over a step.
    pub average: Average,
}

impl Objective for Completions<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.examples.iter().map(|example| example.ids.len()).collect()
    }

    fn shards(&self, step: &Step<'_>, rows: &[usize]) -> Result<Vec<Batch>, RunError> {
        let examples: Vec<&Example> = rows.iter().filter_map(|&row| self.examples.get(row)).collect();
        let targets: usize = examples.iter().map(|example| example.targets()).sum();
        let weighted = examples.iter().map(|example| {
            let weight = match self.average {
                Average::Token => loss::mean_weight(targets),
                Average::Example => loss::mean_weight(examples.len() * example.targets()),
            };
            Row::completion(example.ids.clone(), example.prompt, weight)
        });
        Ok(loss::shards(&weighted.collect::<Vec<_>>(), step.shard_tokens))
    }
}

/// A sequence of which some tokens are learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// All tokens.
    pub ids: Vec<u32>,
    /// The tokens that carry loss, by index, in order; the first token of all carries none.
    pub learned: Vec<Range<usize>>,
}

impl Part {
    /// The number of tokens that carry loss.
    pub fn targets(&self) -> usize {
        self.learned.iter().map(Range::len).sum()
    }
}

/// Supervised learning where several stretches of a sequence are learned, as in a chat.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    /// The sequences.
    pub parts: Vec<&'a Part>,
    /// How their losses are averaged over a step.
    pub average: Average,
}

impl Objective for Parts<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.parts.iter().map(|part| part.ids.len()).collect()
    }

    fn shards(&self, step: &Step<'_>, rows: &[usize]) -> Result<Vec<Batch>, RunError> {
        let parts: Vec<&Part> = rows.iter().filter_map(|&row| self.parts.get(row).copied()).collect();
        let targets: usize = parts.iter().map(|part| part.targets()).sum();
        let weighted = parts.iter().map(|part| {
            let weight = match self.average {
                Average::Token => loss::mean_weight(targets),
                Average::Example => loss::mean_weight(parts.len() * part.targets()),
            };
            let golds = part.learned.iter().cloned().flatten().map(|at| Gold { at, weight }).collect();
            Row { ids: part.ids.clone(), golds }
        });
        Ok(loss::shards(&weighted.collect::<Vec<_>>(), step.shard_tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelError;

    #[test]
    fn weights_of_a_step_add_up_to_one_in_both_averages() -> Result<(), ModelError> {
        let example = |len: usize| Example { ids: vec![1; len], prompt: 2 };
        let examples: Vec<Example> = [10, 700, 500, 30, 900].map(example).to_vec();
        let model = Model::random(crate::fit::pretrain::tiny(8, 0), 1)?;
        for average in [Average::Token, Average::Example] {
            let step = Step { model: &model, number: 0, seed: 0, workers: 1, shard_tokens: 1_024 };
            let objective = Completions { examples: &examples, average };
            let batches = objective.shards(&step, &[0, 1, 2, 3, 4]).expect("rows fit");
            assert_eq!(batches.iter().map(Batch::tokens).collect::<Vec<_>>(), [710, 530, 900]);
            let weights = batches.iter().flat_map(|batch| batch.targets()).map(|t| f64::from(t.weight));
            assert!((weights.sum::<f64>() - 1.0).abs() < 1e-4);
        }
        Ok(())
    }
}
