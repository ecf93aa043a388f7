//! GRPO (arXiv:2402.03300): answers graded by the reward that their row declares.

use std::sync::Arc;

use super::{Rows, Scored, Seen, Work};
use crate::data::graded::Question;
use crate::data::{RowFault, Template};
use crate::eval::answers::{AnswerError, greedy, score};
use crate::fit::group::Groups;
use crate::fit::objective::Objective;
use crate::fit::run::RunError;
use crate::fit::settings::Settings;
use crate::model::{Model, ModelError};

/// Rows of `prompt`, `reward` and perhaps `completion`, a reference answer to warm up on.
#[derive(Debug, Clone)]
pub struct Questions {
    template: Arc<Template>,
    fit: usize,
    tokens_max: usize,
    rows: Vec<Question>,
}

impl Questions {
    /// No rows yet, with answers of at most `tokens_max` tokens.
    pub fn new(template: Arc<Template>, fit: usize, tokens_max: u32) -> Self {
        Self { template, fit, tokens_max: tokens_max as usize, rows: Vec::new() }
    }
}

impl Rows for Questions {
    fn add(&mut self, line: &[u8]) -> Result<Seen, RowFault> {
        let (question, seen) = self.template.question(line, self.fit, self.tokens_max)?;
        self.rows.push(question);
        Ok(seen)
    }

    fn count(&self) -> usize {
        self.rows.len()
    }

    fn pick(&self, rows: &[usize]) -> Box<dyn Rows> {
        let rows = rows.iter().filter_map(|&row| self.rows.get(row).cloned()).collect();
        Box::new(Self { template: self.template.clone(), rows, ..*self })
    }

    fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.tokens(self.tokens_max)).collect()
    }

    fn work(&self) -> Vec<Work> {
        let targets = self.tokens_max as u64;
        self.rows.iter().map(|row| Work { tokens: row.prompt.len() as u64 + targets, targets }).collect()
    }

    fn objective<'a>(
        &'a self,
        _base: &'a Model,
        settings: &Settings,
        _workers: usize,
    ) -> Result<Box<dyn Objective + 'a>, RunError> {
        Ok(Box::new(Groups::new(&self.template, &self.rows, self.tokens_max, settings.group)?))
    }

    fn score(&self, _base: &Model, model: &Model, workers: usize) -> Result<Scored, ModelError> {
        let graded = greedy(model, &self.template, &self.rows, self.tokens_max, workers);
        let graded = graded.map_err(|error| match error {
            AnswerError::Model(error) => error,
            AnswerError::Text(fault) => ModelError::Batch { fact: format!("an answer {fault}") },
        })?;
        Ok(Scored {
            scores: graded.iter().map(|answer| f64::from(score(answer.reward)) / 1e6).collect(),
            right: Some(graded.iter().filter(|answer| answer.reward >= 1.0).count()),
        })
    }
}
