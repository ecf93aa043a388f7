//! Classification: the loss of the gold label among the declared ones.
//!
//! A label is a completion of the text like any other, end token included, so that no
//! label is a part of another. With s(l) the summed log-probability of label l, the score
//! is ln Σ e^s(l) − s(gold); its derivative by s(l) is the label's probability, less 1 for
//! the gold one, which is what a run descends.

use std::sync::Arc;

use super::column::{object, text};
use super::{Rows, Scored, Seen, Work};
use crate::data::{DataError, RowFault, Template};
use crate::fit::objective::{Objective, Shown, Step};
use crate::fit::run::RunError;
use crate::fit::settings::Settings;
use crate::loss::{self, log_probs};
use crate::model::{Batch, Model, ModelError, Weigh};

/// The declared labels.
#[derive(Debug)]
struct Labels {
    names: Vec<String>,
    /// The tokens of each, end token included.
    tokens: Vec<Vec<u32>>,
}

/// A text and its label.
#[derive(Debug, Clone)]
struct Choice {
    text: Vec<u32>,
    gold: usize,
}

/// Rows of `text` and `label`.
#[derive(Debug, Clone)]
pub struct Choices {
    template: Arc<Template>,
    fit: usize,
    labels: Arc<Labels>,
    rows: Vec<Choice>,
}

/// The loss of the gold label and whether it is the likeliest, by the summed
/// log-probability of each label; the first of equals counts as the likeliest.
fn judge(sums: &[f64], gold: usize) -> (f64, bool) {
    let top = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = sums.iter().map(|sum| (sum - top).exp()).sum();
    let said = sums.get(gold).copied().unwrap_or(f64::NEG_INFINITY);
    let first = sums.iter().position(|&sum| sum == top);
    (total.ln() + top - said, first == Some(gold))
}

/// The weight of each label's loss: 1 for the gold label, less the label's probability.
fn pulls(sums: &[f64], gold: usize) -> Vec<f64> {
    let top = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = sums.iter().map(|sum| (sum - top).exp()).sum();
    let pull = |(label, sum): (usize, &f64)| f64::from(u8::from(label == gold)) - (sum - top).exp() / total;
    sums.iter().enumerate().map(pull).collect()
}

impl Choices {
    /// No rows yet, of these labels.
    ///
    /// # Errors
    /// [`DataError::Labels`] when two labels cannot be told apart.
    pub fn new(template: Arc<Template>, fit: usize, labels: &[String]) -> Result<Self, DataError> {
        let refuse = |fact: String| DataError::Labels { fact };
        if labels.len() < 2 || !labels.is_sorted_by(|before, after| before < after) {
            return Err(refuse(format!("{} labels; declare 2 or more, sorted, each once", labels.len())));
        }
        let mut tokens = Vec::new();
        for label in labels {
            let mut ids =
                template.tokens(label).map_err(|fault| refuse(format!("label {label:?} {fault}")))?;
            if ids.is_empty() || label.trim().is_empty() {
                return Err(refuse(format!("label {label:?} has no tokens; name it otherwise")));
            }
            ids.push(template.end());
            if tokens.contains(&ids) {
                return Err(refuse(format!(
                    "label {label:?} has the tokens of another label; name it otherwise"
                )));
            }
            tokens.push(ids);
        }
        let labels = Arc::new(Labels { names: labels.to_vec(), tokens });
        Ok(Self { template, fit, labels, rows: Vec::new() })
    }

    /// The sequences of a row, one a label, each target of the same weight.
    fn sequences(&self, row: &Choice) -> Vec<loss::Row> {
        let join = |label: &Vec<u32>| {
            let ids = [row.text.as_slice(), label].concat();
            loss::Row::completion(ids, row.text.len(), 1.0)
        };
        self.labels.tokens.iter().map(join).collect()
    }

    fn length(&self, row: &Choice) -> usize {
        self.labels.tokens.iter().map(|label| row.text.len() + label.len()).sum()
    }

    /// Targets of each label.
    fn targets(&self) -> Vec<usize> {
        self.labels.tokens.iter().map(Vec::len).collect()
    }
}

/// The summed log-probability of each label out of the losses of a row's targets.
fn sums(counts: &[usize], losses: &mut dyn Iterator<Item = f64>) -> Vec<f64> {
    counts.iter().map(|&count| -losses.take(count).sum::<f64>()).collect()
}

impl Rows for Choices {
    fn add(&mut self, line: &[u8]) -> Result<Seen, RowFault> {
        let row = object(line)?;
        let (text, label) = (text(&row, "text")?, text(&row, "label")?);
        let Some(gold) = self.labels.names.iter().position(|name| name == label) else {
            let declared = self.labels.names.join(", ").chars().take(200).collect();
            return Err(RowFault::Label { found: label.chars().take(64).collect(), declared });
        };
        let tokens = self.template.tokens(&format!("{text}\n"))?;
        let longest = self.labels.tokens.iter().map(Vec::len).max().unwrap_or(0);
        if tokens.len() + longest > self.fit {
            return Err(RowFault::TooLong { tokens: tokens.len() + longest, fit: self.fit });
        }
        self.rows.push(Choice { text: tokens, gold });
        let (said, answer) = (label.to_owned(), label.to_owned());
        Ok(Seen { asked: Some(text.to_owned()), said, answer })
    }

    fn count(&self) -> usize {
        self.rows.len()
    }

    fn pick(&self, rows: &[usize]) -> Box<dyn Rows> {
        let rows = rows.iter().filter_map(|&row| self.rows.get(row).cloned()).collect();
        let (template, labels) = (self.template.clone(), self.labels.clone());
        Box::new(Self { template, fit: self.fit, labels, rows })
    }

    fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(|row| self.length(row)).collect()
    }

    fn work(&self) -> Vec<Work> {
        let work = |row: &Choice| {
            let text = row.text.len();
            let label = move |label: &Vec<u32>| Work {
                tokens: (text + label.len()) as u64,
                targets: label.len() as u64,
            };
            self.labels.tokens.iter().map(label).collect::<Vec<_>>()
        };
        self.rows.iter().flat_map(work).collect()
    }

    fn objective<'a>(
        &'a self,
        _base: &'a Model,
        _settings: &Settings,
        _workers: usize,
    ) -> Result<Box<dyn Objective + 'a>, RunError> {
        Ok(Box::new(Among(self)))
    }

    fn score(&self, _base: &Model, model: &Model, workers: usize) -> Result<Scored, ModelError> {
        let sequences: Vec<loss::Row> = self.rows.iter().flat_map(|row| self.sequences(row)).collect();
        let found = log_probs(model, &sequences, workers)?;
        let labels = self.labels.tokens.len();
        let mut scored = Scored { scores: Vec::new(), right: None };
        let mut right = 0;
        for (row, found) in self.rows.iter().zip(found.chunks(labels)) {
            let sums: Vec<f64> = found.iter().map(|tokens| tokens.iter().sum()).collect();
            let (loss, hit) = judge(&sums, row.gold);
            scored.scores.push(loss);
            right += usize::from(hit);
        }
        scored.right = Some(right);
        Ok(scored)
    }
}

/// What a run descends: the score itself, every row alike.
#[derive(Debug)]
struct Among<'a>(&'a Choices);

impl Objective for Among<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.0.lengths()
    }

    fn shards(&self, step: &Step<'_>, rows: &[usize]) -> Result<Vec<Batch>, RunError> {
        let rows: Vec<&Choice> = rows.iter().filter_map(|&row| self.0.rows.get(row)).collect();
        let groups: Vec<Vec<loss::Row>> = rows.iter().map(|row| self.0.sequences(row)).collect();
        let share = 1.0 / rows.len().max(1) as f64;
        let weigh = |range: std::ops::Range<usize>| {
            let golds: Vec<usize> = rows[range].iter().map(|row| row.gold).collect();
            let counts = self.0.targets();
            Weigh::new(move |losses| {
                let mut losses = losses.iter().copied();
                let mut weights = Vec::new();
                for &gold in &golds {
                    let pulls = pulls(&sums(&counts, &mut losses), gold);
                    for (pull, &count) in pulls.into_iter().zip(&counts) {
                        weights.extend(std::iter::repeat_n((pull * share) as f32, count));
                    }
                }
                weights
            })
        };
        Ok(loss::grouped_shards(&groups, step.shard_tokens, weigh))
    }

    fn shown(&self, rows: &[usize], targets: &mut dyn Iterator<Item = (f64, f64)>) -> Shown {
        let counts = self.0.targets();
        let mut losses = targets.map(|(_, loss)| loss);
        let rows = rows.iter().filter_map(|&row| self.0.rows.get(row));
        Shown::mean(rows.map(|row| judge(&sums(&counts, &mut losses), row.gold)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_labels_weight_is_the_derivative_of_the_score() {
        let at = [-3.0, -1.0, -7.5];
        for gold in 0..3 {
            let pulls = pulls(&at, gold);
            for label in 0..3 {
                let moved = |by: f64| {
                    let mut sums = at;
                    sums[label] += by;
                    judge(&sums, gold).0
                };
                // A weight multiplies the negative log-probability: the slope with its sign turned.
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((pulls[label] + slope).abs() < 1e-6, "{gold} {label}");
            }
        }
    }

    #[test]
    fn labels_are_normalized_and_the_first_of_equals_is_said() {
        assert!((judge(&[-700.0, -700.0], 0).0 - 2f64.ln()).abs() < 1e-12);
        assert_eq!((judge(&[-2.0, -2.0], 0).1, judge(&[-2.0, -2.0], 1).1), (true, false));
        let [a, b] = [0, 1].map(|gold| judge(&[-1_000.0, -1_003.0], gold).0);
        assert!(((-a).exp() + (-b).exp() - 1.0).abs() < 1e-12);
    }
}
