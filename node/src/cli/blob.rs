//! `tiltyard blob`: file sets of a running node.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::node_api::NodeApi;
use super::{Answer, CliError, Target};
use crate::api::model::{AddBlobRequest, Blob, Blobs};

/// What a file set is for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// A base model's folder: config.json, tokenizer.json, model.safetensors.
    Base,
    /// A training set: one JSONL file.
    Dataset,
    /// A sealed evaluation set: one file.
    Evaluation,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Dataset => "dataset",
            Self::Evaluation => "evaluation",
        }
    }
}

/// What can be done with file sets.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copies a file set into the node's store and prints its root.
    Add {
        /// The folder or file.
        path: PathBuf,
        /// What it is for.
        #[arg(long)]
        kind: Kind,
        #[command(flatten)]
        target: Target,
    },
    /// Lists the node's file sets.
    List {
        #[command(flatten)]
        target: Target,
    },
}

pub(crate) fn answer(command: &Command) -> Result<Answer, CliError> {
    match command {
        Command::Add { path, kind, target } => {
            let blob = add(&NodeApi::find(target)?, *kind, path)?;
            let text = format!("{} ({} bytes)", blob.root, blob.bytes);
            Ok(Answer::done(json!(blob), text))
        }
        Command::List { target } => {
            let found: Blobs = NodeApi::find(target)?.get("/v1/blobs")?;
            let mut text = String::new();
            for blob in &found.blobs {
                let kind = blob.kind.as_deref().unwrap_or("-");
                text += &format!("{}  {kind:<10} {:>12} bytes\n", blob.root, blob.bytes);
            }
            text += &format!("{} file sets, {} bytes", found.blobs.len(), found.used_bytes);
            Ok(Answer::done(json!(found), text))
        }
    }
}

/// Adds a local folder or file to the node's store.
pub(crate) fn add(api: &NodeApi, kind: Kind, path: &std::path::Path) -> Result<Blob, CliError> {
    let path = std::fs::canonicalize(path).map_err(CliError::file("find", path))?;
    let text =
        path.to_str().ok_or_else(|| CliError::content(&path, "the path is not valid text; rename it"))?;
    api.post("/v1/blobs", &AddBlobRequest { kind: kind.word().to_owned(), path: text.to_owned() })
}
