//! File sets named by content: a manifest lists files by name, size and BLAKE3, and is itself named by its BLAKE3.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::hash::plain;
use crate::ids::{BlobRoot, FileHash, RecipeHash};
use crate::limits::{FILE_NAME_BYTES_MAX, MANIFEST_BYTES_MAX, MANIFEST_FILES_MAX};

/// What a file set is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BlobKind {
    /// A base model: `config.json`, `tokenizer.json`, `model.safetensors`; perhaps
    /// `tokenizer_config.json` and `chat_template.jinja`.
    Base,
    /// A training set: `train.jsonl`.
    Dataset,
    /// A sealed evaluation set: `evaluation.sealed`.
    Evaluation,
    /// A PEFT LoRA adapter: `adapter_config.json`, `adapter_model.safetensors`.
    Adapter,
    /// A fully tuned model: `model.safetensors` with exactly the base's tensors.
    Model,
}

/// One file of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name: 1 to 64 of `[a-z0-9._-]`, not starting with a dot.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 of the bytes.
    pub hash: FileHash,
}

/// Lists the files of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form: 1.
    pub version: u16,
    /// What the set is for.
    pub kind: BlobKind,
    /// Base that an adapter or model belongs to.
    pub base: Option<BlobRoot>,
    /// Recipe that made an adapter or model.
    pub recipe: Option<RecipeHash>,
    /// Files, sorted by name, names unique.
    pub files: Vec<FileEntry>,
}

/// Names a file set and bounds its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobRef {
    /// BLAKE3 of the manifest's canonical bytes.
    pub root: BlobRoot,
    /// Sum of the file sizes, in bytes.
    pub bytes: u64,
}

/// Says why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the canonical bytes of a manifest.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A version this program does not know.
    #[error("manifest has version {version}, this program knows 1; upgrade it")]
    Version {
        /// The version given.
        version: u16,
    },
    /// No files, or too many.
    #[error("manifest lists {count} files; 1 to 32 are allowed")]
    FileCount {
        /// Files listed.
        count: usize,
    },
    /// A name outside `[a-z0-9._-]{1,64}` or starting with a dot.
    #[error("file name {name:?} is not 1 to 64 of [a-z0-9._-] without leading dot; rename it")]
    Name {
        /// The name, escaped when printed.
        name: String,
    },
    /// Names out of order or doubled.
    #[error("file {name:?} is out of order or listed twice; sort names and list each once")]
    Order {
        /// The second of the two names.
        name: String,
    },
    /// Sizes whose sum does not fit 64 bits.
    #[error("file sizes add up to more than 2^64 bytes")]
    Size,
}

impl Manifest {
    /// Version of this form.
    pub const VERSION: u16 = 1;

    /// Reads and checks manifest bytes.
    ///
    /// # Errors
    /// [`ManifestError`] naming the first rule broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = codec::decode("manifest", bytes, MANIFEST_BYTES_MAX)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks the rules that the encoding alone does not hold.
    ///
    /// # Errors
    /// [`ManifestError`] naming the first rule broken.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.version != Self::VERSION {
            return Err(ManifestError::Version { version: self.version });
        }
        if self.files.is_empty() || self.files.len() > MANIFEST_FILES_MAX {
            return Err(ManifestError::FileCount { count: self.files.len() });
        }
        let mut previous: Option<&str> = None;
        for file in &self.files {
            if !is_file_name(&file.name) {
                return Err(ManifestError::Name { name: file.name.chars().take(80).collect() });
            }
            if previous.is_some_and(|before| before >= file.name.as_str()) {
                return Err(ManifestError::Order { name: file.name.clone() });
            }
            previous = Some(&file.name);
        }
        self.total_bytes().map(|_| ())
    }

    /// Returns the sum of the file sizes, in bytes.
    ///
    /// # Errors
    /// [`ManifestError::Size`] when it does not fit.
    pub fn total_bytes(&self) -> Result<u64, ManifestError> {
        self.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.bytes)).ok_or(ManifestError::Size)
    }

    /// Returns the canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Returns the name of the set.
    #[must_use]
    pub fn root(&self) -> BlobRoot {
        BlobRoot::from_bytes(plain(&self.encode()))
    }

    /// Returns the file called `name`.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// Says whether `name` may name a file of a set.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= FILE_NAME_BYTES_MAX
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}
