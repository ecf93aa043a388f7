//! The kind of a task as it is typed: a word and the parameters that belong to it.

use clap::{Args, ValueEnum};
use tiltyard_proto::task::TaskKind;

use super::CliError;
use crate::amount;

/// Kinds of tasks that can be posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindWord {
    /// Prompt and completion.
    Instruction,
    /// Turns, written down by the base's own chat template; the last answer is scored.
    Chat,
    /// A context, a question about it, an answer.
    ContextQuestion,
    /// Text in windows; needs --window-tokens.
    PlainText,
    /// A text and one of the declared labels; needs --labels.
    Classification,
    /// A prompt, a chosen and a rejected answer; needs --beta.
    Dpo,
    /// A prompt and a declared reward of its answer; needs --answer-tokens.
    Grpo,
    /// Pictures, for an image model; needs --levels.
    Diffusion,
}

/// Scores of so many rows: a picture has one per noise level, any other row one.
pub(super) fn scores(kind: &TaskKind, rows: u64) -> u64 {
    match kind {
        TaskKind::Diffusion { levels } => rows.saturating_mul(u64::from(*levels)),
        TaskKind::Instruction
        | TaskKind::Chat
        | TaskKind::ContextQuestion
        | TaskKind::PlainText { .. }
        | TaskKind::Classification { .. }
        | TaskKind::Dpo { .. }
        | TaskKind::Grpo { .. } => rows,
    }
}

/// What is learned.
#[derive(Debug, Clone, Args)]
pub(crate) struct KindArgs {
    /// What is learned.
    #[arg(long, default_value = "instruction")]
    kind: KindWord,
    /// Tokens of a window of plain text.
    #[arg(long, value_name = "N")]
    window_tokens: Option<u32>,
    /// Labels of a classification, as in noun,verb.
    #[arg(long, value_name = "LABEL,…", value_delimiter = ',')]
    labels: Vec<String>,
    /// How strongly DPO holds on to the base, from 0.001 to 10; papers use 0.1.
    #[arg(long, value_name = "BETA")]
    beta: Option<String>,
    /// Most tokens of an answer that is graded by its reward.
    #[arg(long, value_name = "N")]
    answer_tokens: Option<u32>,
    /// Noise levels at which every picture is scored, such as 4.
    #[arg(long, value_name = "N")]
    levels: Option<u32>,
}

impl KindArgs {
    /// The kind of a task.
    ///
    /// # Errors
    /// A parameter that is missing, or belongs to another kind.
    pub(super) fn kind(&self) -> Result<TaskKind, CliError> {
        let kind = match self.kind {
            KindWord::Instruction => TaskKind::Instruction,
            KindWord::Chat => TaskKind::Chat,
            KindWord::ContextQuestion => TaskKind::ContextQuestion,
            KindWord::PlainText => TaskKind::PlainText {
                window_tokens: self
                    .window_tokens
                    .ok_or_else(|| CliError::usage("plain-text needs --window-tokens, such as 128"))?,
            },
            KindWord::Classification => TaskKind::Classification { labels: self.labels()? },
            KindWord::Dpo => TaskKind::Dpo { beta_milli: self.beta_milli()? },
            KindWord::Grpo => TaskKind::Grpo {
                tokens_max: self
                    .answer_tokens
                    .ok_or_else(|| CliError::usage("grpo needs --answer-tokens, such as 8"))?,
            },
            KindWord::Diffusion => TaskKind::Diffusion {
                levels: self.levels.ok_or_else(|| CliError::usage("diffusion needs --levels, such as 4"))?,
            },
        };
        let foreign = [
            ("--window-tokens", self.window_tokens.is_some(), KindWord::PlainText),
            ("--labels", !self.labels.is_empty(), KindWord::Classification),
            ("--beta", self.beta.is_some(), KindWord::Dpo),
            ("--answer-tokens", self.answer_tokens.is_some(), KindWord::Grpo),
            ("--levels", self.levels.is_some(), KindWord::Diffusion),
        ];
        match foreign.into_iter().find(|(_, given, of)| *given && *of != self.kind) {
            None => Ok(kind),
            Some((option, _, _)) => {
                Err(CliError::usage(format!("{option} says nothing about a task of kind {}", kind.name())))
            }
        }
    }

    fn labels(&self) -> Result<Vec<String>, CliError> {
        let mut labels = self.labels.clone();
        labels.sort();
        labels.dedup();
        match labels.len() == self.labels.len() && labels.len() >= 2 {
            true => Ok(labels),
            false => Err(CliError::usage("classification needs --labels with 2 or more, each once")),
        }
    }

    fn beta_milli(&self) -> Result<u32, CliError> {
        let text = self.beta.as_deref().ok_or_else(|| CliError::usage("dpo needs --beta, such as 0.1"))?;
        let refuse = || CliError::usage(format!("--beta {text:?} is not a number from 0.001 to 10"));
        // Credits are millionths, too: the same reader, without a float.
        let millionths = amount::credits(text).map_err(|_| refuse())?.get();
        match (millionths % 1_000, u32::try_from(millionths / 1_000)) {
            (0, Ok(milli)) if (1..=10_000).contains(&milli) => Ok(milli),
            _ => Err(refuse()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        kind: KindArgs,
    }

    fn typed(words: &str) -> Result<TaskKind, String> {
        let words = Words::try_parse_from(std::iter::once("x").chain(words.split(' '))).expect("words");
        words.kind.kind().map_err(|error| error.to_string())
    }

    #[test]
    fn kinds_take_their_parameters_and_no_others() {
        let labels = vec!["no".to_owned(), "yes".to_owned()];
        let found = typed("--kind classification --labels yes,no");
        assert_eq!(found, Ok(TaskKind::Classification { labels }));
        assert_eq!(typed("--kind dpo --beta 0.1"), Ok(TaskKind::Dpo { beta_milli: 100 }));
        let windows = TaskKind::PlainText { window_tokens: 64 };
        assert_eq!(typed("--kind plain-text --window-tokens 64"), Ok(windows));
        assert_eq!(typed("--kind grpo --answer-tokens 8"), Ok(TaskKind::Grpo { tokens_max: 8 }));
        assert_eq!(typed("--kind diffusion --levels 4"), Ok(TaskKind::Diffusion { levels: 4 }));
        let wrong = [
            ("--kind grpo", "--answer-tokens"),
            ("--kind diffusion --answer-tokens 4", "--levels"),
            ("--kind chat --levels 4", "--levels says nothing"),
            ("--kind dpo", "--beta"),
            ("--kind dpo --beta 0", "0.001"),
            ("--kind dpo --beta 0.0001", "0.001"),
            ("--kind dpo --beta 11", "0.001"),
            ("--kind plain-text", "--window-tokens"),
            ("--kind classification --labels yes", "--labels"),
            ("--kind classification --labels yes,yes,no", "--labels"),
            ("--kind chat --beta 0.1", "--beta says nothing about a task of kind chat"),
        ];
        for (words, told) in wrong {
            let error = typed(words).expect_err(words);
            assert!(error.contains(told), "{words}: {error}");
        }
    }
}
