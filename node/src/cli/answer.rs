//! What a command gives back: one JSON object, text for people, and an exit code.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tiltyard_light::{FollowError, SourceError};

use crate::amount::AmountError;
use crate::config::ConfigError;
use crate::home::HomeError;
use crate::keyfile::KeyFileError;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, or true.
    Done,
    /// Refused, or false.
    Refused,
    /// Wrong usage.
    Usage,
    /// The surroundings fail: files, network, a node that is down.
    Environment,
}

impl Exit {
    /// The process's exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Environment => 3,
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Printed with `--json`.
    pub(crate) json: Value,
    /// Printed otherwise.
    pub(crate) text: String,
    /// How the command ended.
    pub(crate) exit: Exit,
}

impl Answer {
    /// An answer to a command that did what it was asked for.
    pub(crate) fn done(json: Value, text: impl Into<String>) -> Self {
        Self { json, text: text.into(), exit: Exit::Done }
    }
}

/// Says why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Amount(#[from] AmountError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("chain data: {0}")]
    Store(#[from] tiltyard_store::StoreError),
    #[error("cannot {action} {}: {source}; check the path, its owner and the disk", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{}: {fact}", path.display())]
    Content { path: PathBuf, fact: String },
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Usage(String),
    #[error("no running node at {url}: {fact}; start one with `tiltyard run`")]
    NoNode { url: String, fact: String },
}

impl CliError {
    pub(crate) fn usage(fact: impl Into<String>) -> Self {
        Self::Usage(fact.into())
    }

    pub(crate) fn refused(fact: impl Into<String>) -> Self {
        Self::Refused(fact.into())
    }

    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn content(path: &Path, fact: impl ToString) -> Self {
        Self::Content { path: path.to_owned(), fact: fact.to_string() }
    }

    /// Which exit code stands for this failure.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Amount(_) => Exit::Usage,
            Self::Refused(_) | Self::Content { .. } => Exit::Refused,
            Self::Follow(FollowError::Source(error)) | Self::Source(error) => source_exit(error),
            Self::Follow(_) => Exit::Refused,
            Self::Home(_)
            | Self::Config(_)
            | Self::Key(_)
            | Self::Store(_)
            | Self::File { .. }
            | Self::NoNode { .. } => Exit::Environment,
        }
    }
}

fn source_exit(error: &SourceError) -> Exit {
    match error {
        SourceError::Refused { .. } | SourceError::Expired { .. } => Exit::Refused,
        SourceError::Unreachable { .. } | SourceError::Form { .. } | SourceError::Codec { .. } => {
            Exit::Environment
        }
    }
}
