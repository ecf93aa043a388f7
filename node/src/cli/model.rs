//! `tiltyard model`: folders of models and checkpoints, without a node.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tiltyard_train::model::FileType;
use tiltyard_train::model::folder::{self, FolderError};

use super::{Answer, CliError};

/// Largest weights file read, in bytes.
const WEIGHTS_BYTES_MAX: u64 = 64 << 30;

/// How weights are written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum NumberWord {
    /// 4 bytes a number, exact.
    F32,
    /// 2 bytes a number, rounded.
    Bf16,
}

/// What can be done with model folders.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reads a model's folder whole and says what it holds. Exits 1 when the engine cannot run it.
    Show {
        /// Folder with config.json, tokenizer.json and weights in one file or several.
        dir: PathBuf,
    },
    /// Writes a base with a checkpoint in it as one Hugging Face folder.
    Merge {
        /// The base model's folder.
        base: PathBuf,
        /// Folder of a PEFT adapter, or of the model.safetensors of a full fine-tuning.
        checkpoint: PathBuf,
        /// New folder to write.
        out: PathBuf,
        /// How weights are written; by default bf16 when the base's are, else f32.
        #[arg(long)]
        dtype: Option<NumberWord>,
    },
}

pub(crate) fn answer(command: &Command) -> Result<Answer, CliError> {
    match command {
        Command::Show { dir } => show(dir),
        Command::Merge { base, checkpoint, out, dtype } => merge(base, checkpoint, out, *dtype),
    }
}

fn refused(error: FolderError) -> CliError {
    CliError::refused(error.to_string())
}

fn show(dir: &Path) -> Result<Answer, CliError> {
    let found = folder::show(dir, WEIGHTS_BYTES_MAX).map_err(refused)?;
    let (query, key, width) = found.heads;
    let text = format!(
        "{} with {} parameters{}\n  layers     {} of width {}, {query} query and {key} key heads of {width}\n  context    {} tokens\n  vocabulary {} tokens, the tokenizer knows {}; a text ends with {:?}{}",
        found.family,
        found.parameters,
        if found.sharded { ", in several files" } else { "" },
        found.layers,
        found.hidden,
        found.context,
        found.vocab,
        found.tokenizer,
        found.end,
        if found.tied { "\n  the output matrix is the embedding" } else { "" },
    );
    Ok(Answer::done(json!(found), text))
}

fn merge(base: &Path, checkpoint: &Path, out: &Path, dtype: Option<NumberWord>) -> Result<Answer, CliError> {
    let file_type = dtype.map(|dtype| match dtype {
        NumberWord::F32 => FileType::F32,
        NumberWord::Bf16 => FileType::Bf16,
    });
    let file_type = folder::merge(base, checkpoint, out, WEIGHTS_BYTES_MAX, file_type).map_err(refused)?;
    let dtype = match file_type {
        FileType::F32 => "f32",
        FileType::Bf16 => "bf16",
    };
    Ok(Answer::done(
        json!({ "out": out, "dtype": dtype }),
        format!("{} holds the merged model in {dtype}", out.display()),
    ))
}
