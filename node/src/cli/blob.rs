//! `tiltyard blob`: file sets of a running node.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tiltyard_train::model::folder;
use tiltyard_train::safe::{INDEX_FILE, SINGLE_FILE};

use super::node_api::NodeApi;
use super::{Answer, CliError, Target};
use crate::api::model::{AddBlobRequest, Blob, Blobs};
use crate::home;

/// Largest weights file read, in bytes.
const WEIGHTS_BYTES_MAX: u64 = 64 << 30;

/// What a file set is for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// A base model's folder: config.json, tokenizer.json, weights in one file or several.
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

/// Adds a local folder or file to the node's store; weights in several files are joined on the way.
pub(crate) fn add(api: &NodeApi, kind: Kind, path: &Path) -> Result<Blob, CliError> {
    let path = std::fs::canonicalize(path).map_err(CliError::file("find", path))?;
    let sharded = path.join(INDEX_FILE).exists() && !path.join(SINGLE_FILE).exists();
    match kind {
        Kind::Base if sharded => {
            let staging = api.home.staging();
            home::make_dir(&staging)?;
            let staging = std::fs::canonicalize(&staging).map_err(CliError::file("find", &staging))?;
            let joined = staging.join(hex::encode(home::random::<16>()));
            home::make_dir(&joined)?;
            let added = folder::join(&path, &joined, WEIGHTS_BYTES_MAX)
                .map_err(|error| CliError::refused(error.to_string()))
                .and_then(|()| add_whole(api, kind, &joined));
            std::fs::remove_dir_all(&joined).map_err(CliError::file("remove", &joined))?;
            added
        }
        Kind::Base | Kind::Dataset | Kind::Evaluation => add_whole(api, kind, &path),
    }
}

fn add_whole(api: &NodeApi, kind: Kind, path: &Path) -> Result<Blob, CliError> {
    let text =
        path.to_str().ok_or_else(|| CliError::content(path, "the path is not valid text; rename it"))?;
    api.post("/v1/blobs", &AddBlobRequest { kind: kind.word().to_owned(), path: text.to_owned() })
}
