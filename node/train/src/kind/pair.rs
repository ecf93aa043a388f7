//! DPO (arXiv:2305.18290): prefer one answer to another, against the base as reference.
//!
//! The reference is always the untouched base, whether an adapter or all weights are
//! trained. Its log-probabilities are computed once per set of rows.

use std::sync::{Arc, OnceLock};

use super::column::{object, text};
use super::{Rows, Scored, Seen, Work};
use crate::data::{Example, Row, RowFault, Template};
use crate::fit::objective::{Objective, Shown, Step};
use crate::fit::run::RunError;
use crate::fit::settings::Settings;
use crate::loss::{self, Pair, log_probs};
use crate::model::{Batch, Model, ModelError, Weigh};

/// The largest score of a pair: four times the base's.
const CLIP: f64 = 4.0 * std::f64::consts::LN_2;

/// A prompt with its chosen and its rejected answer.
#[derive(Debug, Clone)]
struct Sides {
    chosen: Example,
    rejected: Example,
}

impl Sides {
    fn each(&self) -> [&Example; 2] {
        [&self.chosen, &self.rejected]
    }

    fn sequences(&self) -> [loss::Row; 2] {
        self.each().map(|side| loss::Row::completion(side.ids.clone(), side.prompt, 1.0))
    }
}

/// Rows of `prompt`, `chosen` and `rejected`.
#[derive(Debug, Clone)]
pub struct Pairs {
    template: Arc<Template>,
    fit: usize,
    beta: f64,
    rows: Vec<Sides>,
    /// The pairs under the base, once they were needed.
    references: OnceLock<Vec<Pair>>,
}

impl Pairs {
    /// No rows yet, with β in thousandths.
    pub fn new(template: Arc<Template>, fit: usize, beta_milli: u32) -> Self {
        let beta = f64::from(beta_milli) / 1e3;
        Self { template, fit, beta, rows: Vec::new(), references: OnceLock::new() }
    }

    fn side(&self, prompt: &str, answer: &str, column: &'static str) -> Result<Example, RowFault> {
        let row = Row { prompt: prompt.to_owned(), completion: answer.to_owned() };
        self.template.example(&row, self.fit).map_err(|fault| match fault {
            RowFault::Empty { column: "completion" } => RowFault::Empty { column },
            other => other,
        })
    }

    /// The summed log-probabilities of both answers of every row.
    fn sums(&self, model: &Model, workers: usize) -> Result<Vec<[f64; 2]>, ModelError> {
        let rows: Vec<loss::Row> = self.rows.iter().flat_map(Sides::sequences).collect();
        let found = log_probs(model, &rows, workers)?;
        let sums: Vec<f64> = found.iter().map(|tokens| tokens.iter().sum()).collect();
        Ok(sums.as_chunks::<2>().0.to_vec())
    }

    fn references(&self, base: &Model, workers: usize) -> Result<&[Pair], ModelError> {
        if self.references.get().is_none() {
            let pair = |[reference_chosen, reference_rejected]: [f64; 2]| Pair {
                reference_chosen,
                reference_rejected,
                beta: self.beta,
            };
            let pairs = self.sums(base, workers)?.into_iter().map(pair).collect();
            // Another thread would have found the same.
            let _ = self.references.set(pairs);
        }
        Ok(self.references.get().map_or(&[], Vec::as_slice))
    }
}

/// A pair's score and whether the chosen answer gained on the rejected one.
fn judge(pair: &Pair, [chosen, rejected]: [f64; 2]) -> (f64, bool) {
    (pair.loss(chosen, rejected), pair.margin(chosen, rejected) > 0.0)
}

impl Rows for Pairs {
    fn add(&mut self, line: &[u8]) -> Result<Seen, RowFault> {
        let row = object(line)?;
        let (prompt, good, bad) = (text(&row, "prompt")?, text(&row, "chosen")?, text(&row, "rejected")?);
        let chosen = self.side(prompt, good, "chosen")?;
        let rejected = self.side(prompt, bad, "rejected")?;
        if chosen == rejected {
            return Err(RowFault::SameSides);
        }
        self.rows.push(Sides { chosen, rejected });
        self.references = OnceLock::new();
        Ok(Seen { asked: Some(prompt.to_owned()), said: format!("{good}\n{bad}"), answer: good.to_owned() })
    }

    fn count(&self) -> usize {
        self.rows.len()
    }

    fn pick(&self, rows: &[usize]) -> Box<dyn Rows> {
        let rows = rows.iter().filter_map(|&row| self.rows.get(row).cloned()).collect();
        let references = OnceLock::new();
        Box::new(Self { template: self.template.clone(), fit: self.fit, beta: self.beta, rows, references })
    }

    fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.each().map(|side| side.ids.len()).iter().sum()).collect()
    }

    fn work(&self) -> Vec<Work> {
        let work = |side: &Example| Work { tokens: side.ids.len() as u64, targets: side.targets() as u64 };
        self.rows.iter().flat_map(|row| row.each().map(work)).collect()
    }

    fn passes(&self) -> u64 {
        2
    }

    fn objective<'a>(
        &'a self,
        base: &'a Model,
        _settings: &Settings,
        workers: usize,
    ) -> Result<Box<dyn Objective + 'a>, RunError> {
        Ok(Box::new(Against { rows: self, pairs: self.references(base, workers)? }))
    }

    fn score(&self, base: &Model, model: &Model, workers: usize) -> Result<Scored, ModelError> {
        let pairs = self.references(base, workers)?;
        let judged = pairs.iter().zip(self.sums(model, workers)?).map(|(pair, sums)| judge(pair, sums));
        let (losses, right): (Vec<f64>, Vec<bool>) = judged.unzip();
        // `min` would make a number of what is none.
        let clip = |loss: f64| if loss > CLIP { CLIP } else { loss };
        Ok(Scored {
            scores: losses.into_iter().map(clip).collect(),
            right: Some(right.into_iter().filter(|right| *right).count()),
        })
    }
}

/// What a run descends: the score without its clip, every pair alike.
#[derive(Debug)]
struct Against<'a> {
    rows: &'a Pairs,
    pairs: &'a [Pair],
}

impl Against<'_> {
    /// The pairs of a step with the targets of each side.
    fn drawn(&self, rows: &[usize]) -> Vec<(Pair, [usize; 2])> {
        let one = |&row: &usize| {
            let sides = self.rows.rows.get(row)?;
            Some((*self.pairs.get(row)?, sides.each().map(Example::targets)))
        };
        rows.iter().filter_map(one).collect()
    }
}

/// The summed log-probabilities of both sides out of the losses of a pair's targets.
fn sums(counts: [usize; 2], losses: &mut dyn Iterator<Item = f64>) -> [f64; 2] {
    counts.map(|count| -losses.take(count).sum::<f64>())
}

impl Objective for Against<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.rows.lengths()
    }

    fn shards(&self, step: &Step<'_>, rows: &[usize]) -> Result<Vec<Batch>, RunError> {
        let drawn = self.drawn(rows);
        let sides = rows.iter().filter_map(|&row| self.rows.rows.get(row));
        let groups: Vec<Vec<loss::Row>> = sides.map(|sides| sides.sequences().to_vec()).collect();
        let count = drawn.len();
        let weigh = |range: std::ops::Range<usize>| {
            let drawn = drawn[range].to_vec();
            Weigh::new(move |losses| {
                let mut losses = losses.iter().copied();
                let mut weights = Vec::new();
                for &(pair, counts) in &drawn {
                    let [chosen, rejected] = sums(counts, &mut losses);
                    let (up, down) = pair.weights(chosen, rejected, count);
                    weights.extend(std::iter::repeat_n(up, counts[0]));
                    weights.extend(std::iter::repeat_n(down, counts[1]));
                }
                weights
            })
        };
        Ok(loss::grouped_shards(&groups, step.shard_tokens, weigh))
    }

    fn shown(&self, rows: &[usize], targets: &mut dyn Iterator<Item = (f64, f64)>) -> Shown {
        let mut losses = targets.map(|(_, loss)| loss);
        Shown::mean(self.drawn(rows).iter().map(|(pair, counts)| judge(pair, sums(*counts, &mut losses))))
    }
}
