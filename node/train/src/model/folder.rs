//! Whole Hugging Face folders: what one holds, one made of a base and what was trained on it, shards joined.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::adapter::{AdapterError, CONFIG_FILE, WEIGHTS_FILE};
use super::config::Config;
use super::weights::FileType;
use super::{Model, ModelError};
use crate::data::{DataError, Template};
use crate::safe::{INDEX_FILE, LoadError, SINGLE_FILE, TensorSet, read_small};

/// Files beside the weights that a folder keeps when its weights change.
const KEPT: [&str; 10] = [
    "LICENSE",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// Says why a folder cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file is refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The base is refused.
    #[error("base model: {0}")]
    Base(#[from] ModelError),
    /// The adapter is refused.
    #[error("adapter: {0}")]
    Adapter(#[from] AdapterError),
    /// The tokenizer is refused.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The folder to write is there and not empty.
    #[error("{path} is not empty; name a new folder")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Neither an adapter nor a model.
    #[error(
        "{path} holds neither {CONFIG_FILE} nor {SINGLE_FILE} nor {INDEX_FILE}; name a checkpoint's folder"
    )]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("{path} cannot be written: {source}; check free space and permissions")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// `config.json` is not an object.
    #[error("config.json cannot be read: {0}; use the folder's original file")]
    Config(#[from] serde_json::Error),
}

fn writing(path: &Path) -> impl FnOnce(std::io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Write { path, source }
}

/// What a model's folder holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// `llama`, `qwen2`, `qwen3` or `tiltyard-patches`.
    pub family: &'static str,
    /// Numbers in the weights; a tied output matrix counts once.
    pub parameters: u64,
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads, key heads and elements per head.
    pub heads: (usize, usize, usize),
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Longest row it takes here, in tokens.
    pub context: usize,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    /// Whether the weights lie in several files.
    pub sharded: bool,
    /// Tokens that the tokenizer knows; 0 for image models, which have none.
    pub tokenizer: usize,
    /// The text of the end token.
    pub end: String,
}

/// Loads a model's folder whole, every value, and says what it holds.
///
/// # Errors
/// [`FolderError`] naming the first file and rule broken.
pub fn show(folder: &Path, limit: u64) -> Result<Shown, FolderError> {
    let model = Model::load(folder, limit)?;
    let config = model.config();
    let (tokenizer, end) = match config.image() {
        Some(_) => (0, String::new()),
        None => {
            let template = Template::of(folder, config)?;
            (template.vocabulary(), template.end_text())
        }
    };
    Ok(Shown {
        family: config.family.model_type(),
        parameters: model.parameters() as u64,
        layers: config.layers,
        hidden: config.hidden,
        heads: (config.query_heads, config.key_heads, config.head_dim),
        vocab: config.vocab,
        context: model.context(),
        tied: config.tied,
        sharded: TensorSet::read(folder, limit)?.is_sharded(),
        tokenizer,
        end,
    })
}

/// Loads a base, and a checkpoint over it: an adapter, applied unmerged, or all weights.
///
/// # Errors
/// [`FolderError`] naming the first file and rule broken.
pub fn with_checkpoint(base: &Path, checkpoint: Option<&Path>, limit: u64) -> Result<Model, FolderError> {
    let mut model = Model::load(base, limit)?;
    let Some(checkpoint) = checkpoint else { return Ok(model) };
    if checkpoint.join(CONFIG_FILE).exists() || checkpoint.join(WEIGHTS_FILE).exists() {
        model.load_adapter(checkpoint, limit)?;
    } else if checkpoint.join(SINGLE_FILE).exists() {
        model.load_checkpoint(checkpoint, limit)?;
    } else {
        return Err(FolderError::Nothing { path: checkpoint.to_owned() });
    }
    Ok(model)
}

/// Writes the folder of a base with a checkpoint in it: an adapter merged, or all weights replaced.
///
/// Weights are written as bf16 when the base's are, else as f32, unless `file_type` says otherwise.
///
/// # Errors
/// [`FolderError`]; nothing is left at `out` then.
pub fn merge(
    base: &Path,
    checkpoint: &Path,
    out: &Path,
    limit: u64,
    file_type: Option<FileType>,
) -> Result<FileType, FolderError> {
    if out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(FolderError::NotEmpty { path: out.to_owned() });
    }
    let mut model = with_checkpoint(base, Some(checkpoint), limit)?;
    model.merge_adapter()?;
    let is_bf16 = TensorSet::read(base, limit)?.is_bf16();
    let file_type = file_type.unwrap_or(if is_bf16 { FileType::Bf16 } else { FileType::F32 });
    let fresh = beside(out);
    let written = write_folder(&model, base, &fresh, file_type)
        .and_then(|()| std::fs::rename(&fresh, out).map_err(writing(out)));
    if let Err(error) = written {
        // What is half made is of no use; the first error is the one to tell.
        let _ = std::fs::remove_dir_all(&fresh);
        return Err(error);
    }
    Ok(file_type)
}

fn beside(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    out.with_file_name(name)
}

fn write_folder(model: &Model, base: &Path, to: &Path, file_type: FileType) -> Result<(), FolderError> {
    std::fs::create_dir_all(to).map_err(writing(to))?;
    let weights = to.join(SINGLE_FILE);
    std::fs::write(&weights, model.to_safetensors(file_type)?).map_err(writing(&weights))?;
    let mut config: Value = serde_json::from_slice(&read_small(&base.join("config.json"))?)?;
    if let Some(keys) = config.as_object_mut() {
        let name = match file_type {
            FileType::F32 => "float32",
            FileType::Bf16 => "bfloat16",
        };
        // Newer files say `dtype`, older ones `torch_dtype`.
        let newer = keys.remove("dtype").is_some();
        keys.remove("torch_dtype");
        keys.insert(if newer { "dtype" } else { "torch_dtype" }.to_owned(), name.into());
    }
    let path = to.join("config.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&config)?).map_err(writing(&path))?;
    for name in KEPT {
        let from = base.join(name);
        if from.exists() {
            let path = to.join(name);
            std::fs::write(&path, read_small(&from)?).map_err(writing(&path))?;
        }
    }
    Ok(())
}

/// Copies a base's folder as a network names it: weights in one file, and what of the rest is known there.
///
/// # Errors
/// [`FolderError`] when a file is refused or cannot be written.
pub fn join(base: &Path, to: &Path, limit: u64) -> Result<(), FolderError> {
    Config::from_json(&read_small(&base.join("config.json"))?).map_err(ModelError::from)?;
    std::fs::create_dir_all(to).map_err(writing(to))?;
    TensorSet::read(base, limit)?.join(&to.join(SINGLE_FILE))?;
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        let from = base.join(name);
        if from.exists() {
            let path = to.join(name);
            std::fs::write(&path, read_small(&from)?).map_err(writing(&path))?;
        }
    }
    Ok(())
}
