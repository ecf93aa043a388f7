//! Rows whose answers are graded: `{"prompt", "reward", "completion"?}`.
//!
//! The reward is declared in the row ([`crate::reward`]); a completion, where there is one, is
//! a reference answer for a supervised warm-up and is never looked at when answers are graded.

use serde::Deserialize;

use super::{ROW_BYTES_MAX, RowFault, Template};
use crate::kind::Seen;
use crate::reward::Reward;

/// A prompt whose answers can be graded.
#[derive(Debug, Clone)]
pub struct Question {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The tokens of a reference answer with the end token, where the row has one.
    pub reference: Option<Vec<u32>>,
    /// What an answer is worth.
    pub reward: Reward,
}

impl Question {
    /// Tokens of the prompt with its reference answer, or with the longest answer allowed.
    pub fn tokens(&self, tokens_max: usize) -> usize {
        self.prompt.len() + self.reference.as_ref().map_or(tokens_max, Vec::len)
    }
}

#[derive(Debug, Deserialize)]
struct RawRow {
    prompt: Option<String>,
    completion: Option<String>,
    reward: Option<serde_json::Value>,
}

fn text(text: Option<String>, column: &'static str) -> Result<String, RowFault> {
    match text {
        None => Err(RowFault::MissingColumn { column }),
        Some(text) if text.trim().is_empty() => Err(RowFault::Empty { column }),
        Some(text) => Ok(text),
    }
}

impl Template {
    /// Turns one line into a question; prompt and `tokens_max` tokens of an answer must fit.
    ///
    /// # Errors
    /// [`RowFault`] naming the column and what is wrong with it.
    pub fn question(&self, line: &[u8], fit: usize, tokens_max: usize) -> Result<(Question, Seen), RowFault> {
        if line.len() > ROW_BYTES_MAX {
            return Err(RowFault::TooLarge { bytes: line.len() });
        }
        let raw: RawRow =
            serde_json::from_slice(line).map_err(|error| RowFault::NotJson { fact: error.to_string() })?;
        let asked = text(raw.prompt, "prompt")?;
        let prompt = self.tokens(&asked)?;
        if prompt.is_empty() {
            return Err(RowFault::Empty { column: "prompt" });
        }
        let declared = raw.reward.ok_or(RowFault::MissingColumn { column: "reward" })?;
        let reward = Reward::parse(&declared).map_err(|fault| RowFault::Reward { fault })?;
        let mut tokens = prompt.len() + tokens_max;
        let reference = match raw.completion {
            None => None,
            completion => {
                let mut ids = self.tokens(&text(completion, "completion")?)?;
                ids.push(self.eos);
                tokens = tokens.max(prompt.len() + ids.len());
                Some(ids)
            }
        };
        match tokens > fit {
            true => Err(RowFault::TooLong { tokens, fit }),
            false => {
                let said = declared.to_string();
                let seen = Seen { asked: Some(asked), said: said.clone(), answer: said };
                Ok((Question { prompt, reference, reward }, seen))
            }
        }
    }

    /// The text of generated tokens, the end token left out.
    ///
    /// # Errors
    /// [`RowFault::Tokenize`] when the tokenizer cannot turn them into text.
    pub fn answer_text(&self, tokens: &[u32]) -> Result<String, RowFault> {
        let tokens: Vec<u32> = tokens.iter().copied().filter(|&token| token != self.eos).collect();
        let text = self.tokenizer.decode(&tokens, false);
        text.map_err(|error| RowFault::Tokenize { fact: error.to_string() })
    }
}
