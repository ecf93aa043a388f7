//! Training and evaluation rows: JSON lines of `{"prompt": …, "completion": …}`, and what
//! rows of every kind share ([`crate::kind`] knows the others).
//!
//! The written template is `tokens(prompt) ++ tokens(completion) ++ end`, each part
//! tokenized on its own without added special tokens. The loss is on the completion
//! and the end token. Nothing is ever truncated: a row that does not fit is an error.

pub mod chat;
pub mod check;
pub mod graded;
pub mod import;
pub mod stream;

use std::path::Path;

use serde::Deserialize;
use tokenizers::Tokenizer;

use crate::model::config::Config;
use crate::safe::{LoadError, read_small};

/// Most rows accepted in one file.
pub const ROWS_MAX: usize = 1_000_000;
/// Longest row accepted, in bytes.
pub const ROW_BYTES_MAX: usize = 1 << 20;

/// A row as written in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What is given.
    pub prompt: String,
    /// What is to be said.
    pub completion: String,
}

/// What is wrong with one row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    /// Not a JSON object with text columns.
    #[error("is not a JSON object with text columns: {fact}")]
    NotJson {
        /// The parser's words.
        fact: String,
    },
    /// A column is absent.
    #[error("has no column {column:?}")]
    MissingColumn {
        /// The column.
        column: &'static str,
    },
    /// A column holds only white space.
    #[error("has nothing in column {column:?}")]
    Empty {
        /// The column.
        column: &'static str,
    },
    /// More tokens than fit.
    #[error("has {tokens} tokens, {fit} fit; rows are never truncated: shorten or drop it")]
    TooLong {
        /// Tokens with the end token.
        tokens: usize,
        /// Tokens that fit.
        fit: usize,
    },
    /// More bytes than a row may have.
    #[error("has {bytes} bytes, {ROW_BYTES_MAX} are allowed")]
    TooLarge {
        /// Bytes found.
        bytes: usize,
    },
    /// A label that the task does not declare.
    #[error("has label {found:?}, which the task does not declare; declared are {declared}")]
    Label {
        /// The label, cut to 64 characters.
        found: String,
        /// The labels, cut to 200 characters.
        declared: String,
    },
    /// A pair that prefers nothing.
    #[error("has the same tokens in \"chosen\" and \"rejected\": it prefers nothing; change or drop it")]
    SameSides,
    /// A chat that cannot be written down.
    #[error("has a chat that cannot be used: {fact}; change or drop it")]
    Chat {
        /// What is wrong.
        fact: String,
    },
    /// Not a picture of the model's size.
    #[error(
        "has no picture of {side} x {side} grey pixels: {wanted} lower-case hexadecimal digits are needed, {found} characters are there"
    )]
    Picture {
        /// Characters found.
        found: usize,
        /// Digits needed.
        wanted: usize,
        /// Pixels along a side.
        side: usize,
    },
    /// The reward is not one that can be given.
    #[error("has a reward that {fault}")]
    Reward {
        /// What is wrong with it.
        fault: crate::reward::RewardError,
    },
    /// The tokenizer failed.
    #[error("cannot be tokenized: {fact}")]
    Tokenize {
        /// The tokenizer's words.
        fact: String,
    },
}

/// Says why a set of rows cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file is refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The tokenizer file is not one.
    #[error("tokenizer.json cannot be read: {fact}; use the base model's own file")]
    Tokenizer {
        /// The parser's words.
        fact: String,
    },
    /// The tokenizer is not the model's.
    #[error(
        "tokenizer.json names tokens up to {found}, the model has {vocab}; use the base model's own file"
    )]
    ForeignTokenizer {
        /// The largest token of the tokenizer.
        found: u32,
        /// Tokens of the model.
        vocab: usize,
    },
    /// The tokenizer does not know the end token.
    #[error(
        "tokenizer.json has no token {eos}, which config.json ends a text with; use the base model's own file"
    )]
    NoEndToken {
        /// The end token.
        eos: u32,
    },
    /// A row cannot be used.
    #[error("line {line} {fault}")]
    Row {
        /// Line in the file, from 1.
        line: usize,
        /// What is wrong.
        fault: RowFault,
    },
    /// No rows at all.
    #[error("the file has no rows")]
    NoRows,
    /// Not one row that can be used.
    #[error("no row can be used; the first, line {line}, {fault}")]
    AllFaulty {
        /// Line of the first row, from 1.
        line: u64,
        /// What is wrong with it.
        fault: String,
    },
    /// The model failed on a row.
    #[error(transparent)]
    Model(Box<crate::model::ModelError>),
    /// The base model has no chat template that can be used.
    #[error(transparent)]
    Chat(Box<chat::ChatError>),
    /// A window of plain text that does not fit.
    #[error("windows of {window} tokens do not fit the model; post 2 to {fit}")]
    Window {
        /// Tokens of a window.
        window: usize,
        /// Tokens that fit.
        fit: usize,
    },
    /// Labels that cannot be used with this tokenizer.
    #[error("the task's labels cannot be used: {fact}")]
    Labels {
        /// What is wrong.
        fact: String,
    },
    /// Pictures for a language model.
    #[error(
        "a diffusion task needs an image model (model_type {:?}); name one's folder as base",
        crate::model::image::MODEL_TYPE
    )]
    NotAnImageModel,
    /// Text for an image model.
    #[error(
        "the base is an image model, which learns no task of kind {kind}; post diffusion, or name a language model"
    )]
    ImageModel {
        /// The kind.
        kind: &'static str,
    },
    /// Noise levels out of range.
    #[error("a diffusion task has {found} noise levels; post 1 to {}", crate::kind::LEVELS_MAX)]
    Levels {
        /// Levels found.
        found: u32,
    },
    /// A token limit that leaves no room for a prompt.
    #[error("answers of {found} tokens do not fit the model; post 1 to fewer than {fit}")]
    AnswerTokens {
        /// The limit found.
        found: u32,
        /// Tokens that fit.
        fit: usize,
    },
    /// More rows than [`ROWS_MAX`].
    #[error("the file has more than {ROWS_MAX} rows")]
    TooManyRows,
}

#[derive(Debug, Deserialize)]
struct RawRow {
    prompt: Option<String>,
    completion: Option<String>,
}

/// A line's number, from 1, and its row or what is wrong with it.
pub type ParsedLine = (usize, Result<Row, RowFault>);

pub(crate) fn parse_row(line: &[u8]) -> Result<Row, RowFault> {
    if line.len() > ROW_BYTES_MAX {
        return Err(RowFault::TooLarge { bytes: line.len() });
    }
    let raw: RawRow =
        serde_json::from_slice(line).map_err(|error| RowFault::NotJson { fact: error.to_string() })?;
    let column = |value: Option<String>, column: &'static str| match value {
        None => Err(RowFault::MissingColumn { column }),
        Some(text) if text.trim().is_empty() => Err(RowFault::Empty { column }),
        Some(text) => Ok(text),
    };
    Ok(Row { prompt: column(raw.prompt, "prompt")?, completion: column(raw.completion, "completion")? })
}

/// Cuts a file into its lines with their numbers, from 1; blank lines are skipped.
///
/// # Errors
/// [`DataError::TooManyRows`] when there are more than [`ROWS_MAX`].
pub fn lines(bytes: &[u8]) -> Result<Vec<(usize, &[u8])>, DataError> {
    let mut rows = Vec::new();
    for (at, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if rows.len() == ROWS_MAX {
            return Err(DataError::TooManyRows);
        }
        rows.push((at + 1, line));
    }
    Ok(rows)
}

/// Reads every row of prompt and completion with its line number (from 1), good or bad.
///
/// # Errors
/// [`DataError::TooManyRows`] when there are more than [`ROWS_MAX`].
pub fn parse(bytes: &[u8]) -> Result<Vec<ParsedLine>, DataError> {
    Ok(lines(bytes)?.into_iter().map(|(at, line)| (at, parse_row(line))).collect())
}

/// A row as tokens, ending with the end token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// All tokens.
    pub ids: Vec<u32>,
    /// How many of them are the prompt's; at least 1 and fewer than all.
    pub prompt: usize,
}

impl Example {
    /// The number of tokens that carry loss.
    pub fn targets(&self) -> usize {
        self.ids.len() - self.prompt
    }
}

/// A tokenizer with the template's end token.
#[derive(Debug)]
pub struct Template {
    tokenizer: Tokenizer,
    eos: u32,
}

impl Template {
    /// Loads `tokenizer.json` of a base model's folder.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] when it cannot be parsed.
    pub fn load(folder: &Path, eos: u32) -> Result<Self, DataError> {
        let bytes = read_small(&folder.join("tokenizer.json"))?;
        let mut tokenizer =
            Tokenizer::from_bytes(bytes).map_err(|error| DataError::Tokenizer { fact: error.to_string() })?;
        // The file may ask for padding or truncation; the template has neither.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| DataError::Tokenizer { fact: error.to_string() })?;
        Ok(Self { tokenizer, eos })
    }

    /// Loads the tokenizer of a base model's folder and checks that it belongs to the model.
    ///
    /// # Errors
    /// As [`Self::load`]; [`DataError::ForeignTokenizer`] and [`DataError::NoEndToken`].
    pub fn of(folder: &Path, config: &Config) -> Result<Self, DataError> {
        let template = Self::load(folder, config.eos)?;
        let found = template.tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if found as usize >= config.vocab {
            return Err(DataError::ForeignTokenizer { found, vocab: config.vocab });
        }
        match template.tokenizer.id_to_token(config.eos) {
            Some(_) => Ok(template),
            None => Err(DataError::NoEndToken { eos: config.eos }),
        }
    }

    /// Tokens that the tokenizer knows.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The text of the end token.
    pub fn end_text(&self) -> String {
        self.tokenizer.id_to_token(self.eos).unwrap_or_default()
    }

    /// The end token.
    pub fn end(&self) -> u32 {
        self.eos
    }

    /// The tokens of a text on its own, without added special tokens.
    pub(crate) fn tokens(&self, text: &str) -> Result<Vec<u32>, RowFault> {
        let encoding = self.tokenizer.encode_fast(text, false);
        let encoding = encoding.map_err(|error| RowFault::Tokenize { fact: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Turns a row into tokens; `fit` is the most tokens an example may have.
    ///
    /// # Errors
    /// [`RowFault`] when it does not fit or has no tokens in a column.
    pub fn example(&self, row: &Row, fit: usize) -> Result<Example, RowFault> {
        let mut ids = self.tokens(&row.prompt)?;
        let prompt = ids.len();
        if prompt == 0 {
            return Err(RowFault::Empty { column: "prompt" });
        }
        ids.extend(self.tokens(&row.completion)?);
        if ids.len() == prompt {
            return Err(RowFault::Empty { column: "completion" });
        }
        ids.push(self.eos);
        if ids.len() > fit {
            return Err(RowFault::TooLong { tokens: ids.len(), fit });
        }
        Ok(Example { ids, prompt })
    }

    /// Turns a whole file into examples.
    ///
    /// # Errors
    /// [`DataError`] about the first row that cannot be used, with its line.
    pub fn examples(&self, bytes: &[u8], fit: usize) -> Result<Vec<Example>, DataError> {
        let mut examples = Vec::new();
        for (line, row) in parse(bytes)? {
            let example = row.and_then(|row| self.example(&row, fit));
            examples.push(example.map_err(|fault| DataError::Row { line, fault })?);
        }
        if examples.is_empty() {
            return Err(DataError::NoRows);
        }
        Ok(examples)
    }
}

/// How the losses of a step's tokens are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// Every token counts alike, as most trainers do.
    Token,
    /// Every row counts alike, as the score does.
    Example,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(usize, RowFault)> {
        let rows = parse(text.as_bytes()).expect("few rows");
        rows.into_iter().filter_map(|(line, row)| row.err().map(|fault| (line, fault))).collect()
    }

    #[test]
    fn faults_name_their_line_and_column() {
        let text = "{\"prompt\":\"a\",\"completion\":\"b\"}\n\n{\"prompt\":\"a\"}\n{\"prompt\":\" \",\"completion\":\"b\"}\n[1]\n";
        let found = faults(text);
        assert_eq!(found[0], (3, RowFault::MissingColumn { column: "completion" }));
        assert_eq!(found[1], (4, RowFault::Empty { column: "prompt" }));
        assert_eq!(found[2].0, 5);
        assert!(matches!(found[2].1, RowFault::NotJson { .. }));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_row_beyond_its_byte_limit_is_not_parsed() {
        let text = format!("{{\"prompt\":\"{}\"", "x".repeat(ROW_BYTES_MAX));
        assert!(matches!(faults(&text)[0].1, RowFault::TooLarge { .. }));
    }
}
