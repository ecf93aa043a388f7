//! Task kinds: what the rows of each kind are, what is learned from them, how they are scored.
//!
//! One seam for all kinds: [`open`] gives an empty [`Rows`] of a kind for a base, [`read`]
//! fills it from a file, and everything else asks the rows. A job never looks at a row.
//!
//! | who | asks |
//! |---|---|
//! | a training job | [`Rows::lengths`] for steps and budget, [`Rows::pick`] to set rows aside, [`Rows::objective`] for each run |
//! | search, early stopping | [`Rows::score`] of the rows set aside: the kind's own score |
//! | a judge | [`Rows::score`], rounded by [`crate::eval::row`] (SPEC.md, "Scoring v1") |
//! | `task check` | [`Seen`] of each line, [`Rows::work`] for time and memory |
//!
//! | module | kinds |
//! |---|---|
//! | [`text`] | instruction, chat, context-question, plain-text |
//! | [`choice`] | classification |
//! | [`pair`] | DPO |
//! | [`graded`] | GRPO |
//! | [`picture`] | diffusion |

pub mod choice;
mod column;
pub mod graded;
pub mod pair;
pub mod picture;
pub mod text;

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use tiltyard_proto::task::TaskKind;

use crate::data::{DataError, RowFault, Template, lines};
use crate::fit::objective::Objective;
use crate::fit::run::RunError;
use crate::fit::settings::Settings;
use crate::model::config::Config;
use crate::model::{Model, ModelError};

/// Most noise levels of a diffusion task.
pub const LEVELS_MAX: u32 = 64;

/// What a line holds, for reports on a file of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What is given; `None` for kinds that give nothing.
    pub asked: Option<String>,
    /// What is learned.
    pub said: String,
    /// The answer by which rows are counted as alike; the same as `said` for most kinds.
    pub answer: String,
}

/// A sequence that is computed to score a row or to learn from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// All tokens.
    pub tokens: u64,
    /// Tokens that carry loss.
    pub targets: u64,
}

/// The scores of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// A score per row, in units of which the ledger takes millionths; lower is better.
    pub scores: Vec<f64>,
    /// How many rows are answered right, for kinds in which an answer is right or wrong.
    pub right: Option<usize>,
}

impl Scored {
    /// The mean score; 0 without rows.
    pub fn mean(&self) -> f64 {
        self.scores.iter().sum::<f64>() / self.scores.len().max(1) as f64
    }

    /// The share of right answers, in millionths.
    pub fn accuracy_ppm(&self) -> Option<u32> {
        let rows = self.scores.len().max(1) as u64;
        self.right.map(|right| u32::try_from(right as u64 * 1_000_000 / rows).unwrap_or(u32::MAX))
    }
}

/// The rows of one kind of task, for one base.
///
/// Everything is a function of the rows, the base and the model: the same bits at any
/// number of workers and after a restart.
pub trait Rows: Debug + Send + Sync {
    /// Reads one line of a file and adds its row.
    ///
    /// # Errors
    /// [`RowFault`] saying what is wrong; nothing is added then.
    fn add(&mut self, line: &[u8]) -> Result<Seen, RowFault>;

    /// How many rows there are.
    fn count(&self) -> usize;

    /// How many scores they get: one each, for most kinds.
    fn scores(&self) -> usize {
        self.count()
    }

    /// These rows alone, in this order.
    fn pick(&self, rows: &[usize]) -> Box<dyn Rows>;

    /// The tokens of everything that is drawn for a step, as [`Objective::lengths`] of
    /// [`Self::objective`] says them. A row may be drawn in several parts.
    fn lengths(&self) -> Vec<usize>;

    /// Every sequence computed in one pass over the rows.
    fn work(&self) -> Vec<Work>;

    /// How many models are passed through for a score: 2 for kinds with a reference.
    fn passes(&self) -> u64 {
        1
    }

    /// What a run from `base` learns from.
    ///
    /// # Errors
    /// [`RunError`] when a row does not fit the model, or the recipe not the rows.
    fn objective<'a>(
        &'a self,
        base: &'a Model,
        settings: &Settings,
        workers: usize,
    ) -> Result<Box<dyn Objective + 'a>, RunError>;

    /// Scores `model`, which was trained from `base`; always called with the same base.
    ///
    /// # Errors
    /// [`ModelError`] when a row does not fit the model.
    fn score(&self, base: &Model, model: &Model, workers: usize) -> Result<Scored, ModelError>;
}

/// An empty set of rows of a kind, for the base in `folder`; `fit` is the most tokens that a
/// sequence may have.
///
/// # Errors
/// [`DataError`] when the base has no usable tokenizer, lacks what the kind needs, or the
/// kind's parameters do not fit it.
pub fn open(kind: &TaskKind, folder: &Path, config: &Config, fit: usize) -> Result<Box<dyn Rows>, DataError> {
    if let TaskKind::Diffusion { levels } = kind {
        let shape = config.image().ok_or(DataError::NotAnImageModel)?;
        return match (1..=LEVELS_MAX).contains(levels) {
            true => Ok(Box::new(picture::Pictures::new(shape, *levels))),
            false => Err(DataError::Levels { found: *levels }),
        };
    }
    if config.image().is_some() {
        return Err(DataError::ImageModel { kind: kind.name() });
    }
    let template = Arc::new(Template::of(folder, config)?);
    Ok(match kind {
        TaskKind::Instruction => Box::new(text::Texts::instruction(template, fit)),
        TaskKind::ContextQuestion => Box::new(text::Texts::context_question(template, fit)),
        TaskKind::Chat => Box::new(text::Texts::chat(template, fit, folder)?),
        TaskKind::PlainText { window_tokens } => {
            Box::new(text::Texts::plain(template, fit, *window_tokens as usize)?)
        }
        TaskKind::Classification { labels } => Box::new(choice::Choices::new(template, fit, labels)?),
        TaskKind::Dpo { beta_milli } => Box::new(pair::Pairs::new(template, fit, *beta_milli)),
        TaskKind::Grpo { tokens_max } => match (1..fit).contains(&(*tokens_max as usize)) {
            true => Box::new(graded::Questions::new(template, fit, *tokens_max)),
            false => return Err(DataError::AnswerTokens { found: *tokens_max, fit }),
        },
        TaskKind::Diffusion { .. } => return Err(DataError::NotAnImageModel),
    })
}

/// Reads a whole file into rows; every line must be usable.
///
/// # Errors
/// [`DataError`] about the first row that cannot be used, with its line.
pub fn read(rows: &mut dyn Rows, bytes: &[u8]) -> Result<(), DataError> {
    for (line, text) in lines(bytes)? {
        rows.add(text).map_err(|fault| DataError::Row { line, fault })?;
    }
    match rows.count() {
        0 => Err(DataError::NoRows),
        _ => Ok(()),
    }
}
