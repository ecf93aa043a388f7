//! Greedy answers and what they are worth.

use super::micro_nats;
use crate::data::graded::Question;
use crate::data::{RowFault, Template};
use crate::loss::in_order;
use crate::model::generate::{Choice, Generation};
use crate::model::{Model, ModelError};

/// Says why answers cannot be graded.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The model failed on a prompt.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An answer is no text.
    #[error("an answer {0}")]
    Text(#[from] RowFault),
}

/// An answer with what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Graded {
    /// The text.
    pub text: String,
    /// What it is worth, from 0 to 1.
    pub reward: f64,
    /// Tokens, the end token included when it was reached.
    pub tokens: usize,
    /// Whether the model ended it; else the token limit did.
    pub stopped: bool,
}

/// Answers every question greedily (the largest logit, the lowest token on equal ones) with at
/// most `tokens_max` tokens, and grades the answers.
///
/// The same answers at any number of workers and in any company.
///
/// # Errors
/// [`AnswerError`] when a prompt does not fit the model.
pub fn greedy(
    model: &Model,
    template: &Template,
    questions: &[Question],
    tokens_max: usize,
    workers: usize,
) -> Result<Vec<Graded>, AnswerError> {
    let prompts: Vec<&[u32]> = questions.iter().map(|question| question.prompt.as_slice()).collect();
    let what =
        Generation { new_tokens_max: tokens_max, stop: template.end(), choice: Choice::Greedy, workers };
    let made = model.generate(&prompts, &what)?;
    let pairs: Vec<_> = questions.iter().zip(&made).collect();
    in_order(&pairs, workers, |(question, made)| {
        let text = template.answer_text(&made.tokens)?;
        let reward = question.reward.of_answer(&text);
        Ok(Graded { text, reward, tokens: made.tokens.len(), stopped: made.stopped })
    })
}

/// The score of an answer worth `reward`: 10^6 − round(10^6 · reward), half up.
pub fn score(reward: f64) -> u32 {
    1_000_000 - micro_nats(reward.clamp(0.0, 1.0)).get().min(1_000_000)
}
