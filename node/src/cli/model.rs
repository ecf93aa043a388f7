//! `tiltyard model`: folders of models and checkpoints, without a node.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tiltyard_train::model::FileType;
use tiltyard_train::model::folder::{self, FolderError};
use tiltyard_train::picture::png;
use tiltyard_train::picture::sample::pictures;

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
    /// Lets an image model draw, and writes what it drew as one PNG.
    Sample {
        /// The image model's folder.
        base: PathBuf,
        /// Folder of a checkpoint to draw with: an adapter, or all weights.
        #[arg(long, value_name = "DIR")]
        checkpoint: Option<PathBuf>,
        /// PNG to write.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Pictures to draw.
        #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
        count: u32,
        /// Number that the first noise follows from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

pub(crate) fn answer(command: &Command) -> Result<Answer, CliError> {
    match command {
        Command::Show { dir } => show(dir),
        Command::Merge { base, checkpoint, out, dtype } => merge(base, checkpoint, out, *dtype),
        Command::Sample { base, checkpoint, out, count, seed } => {
            sample(base, checkpoint.as_deref(), out, *count, *seed)
        }
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

/// Pictures in a row of a sheet, and how much each pixel is enlarged.
const SHEET: (usize, usize) = (8, 4);

fn sample(
    base: &Path,
    checkpoint: Option<&Path>,
    out: &Path,
    count: u32,
    seed: u64,
) -> Result<Answer, CliError> {
    let model = folder::with_checkpoint(base, checkpoint, WEIGHTS_BYTES_MAX).map_err(refused)?;
    let drawn =
        pictures(&model, count as usize, seed).map_err(|error| CliError::refused(error.to_string()))?;
    let side = model.config().image().map_or(0, |shape| shape.side);
    let (across, zoom) = SHEET;
    std::fs::write(out, png::sheet(&drawn, side, across, zoom)).map_err(CliError::file("write", out))?;
    Ok(Answer::done(
        json!({ "out": out, "count": count, "seed": seed }),
        format!("{} shows {count} pictures", out.display()),
    ))
}
