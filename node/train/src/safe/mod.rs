//! Reads safetensors files from strangers under our own limits.
//!
//! The header is bounded, counted and checked here before the `safetensors` crate
//! sees it; other formats are recognised by their bytes and refused; every value is
//! proved finite. One tensor is in memory at a time, and never more than the bytes on disk.

mod census;
mod shards;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::de::Deserializer;
use tiltyard_proto::score::Fault;

use census::Census;
pub use shards::{INDEX_FILE, SINGLE_FILE, TensorSet};

/// Largest header accepted, in bytes.
pub const HEADER_BYTES_MAX: u64 = 1_000_000;
/// Most tensors accepted in one file.
pub const TENSORS_MAX: usize = 4_096;
/// Most dimensions accepted in one tensor.
const DIMENSIONS_MAX: usize = 4;
/// Longest small text file (JSON) accepted, in bytes.
const TEXT_BYTES_MAX: u64 = 32 << 20;

/// Says why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be opened or read.
    #[error("{path} cannot be read: {source}; check that the folder is complete")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not a regular file.
    #[error("{path} is not a regular file; links and devices are refused")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Larger than allowed.
    #[error("{path} has {bytes} bytes, allowed are {limit}")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit in force.
        limit: u64,
    },
    /// A known other format.
    #[error("{path} is {format}, which is never loaded; convert it to safetensors")]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The format recognised.
        format: &'static str,
    },
    /// A header longer than [`HEADER_BYTES_MAX`].
    #[error("{path} claims a header of {bytes} bytes, allowed are {HEADER_BYTES_MAX}")]
    HeaderTooLarge {
        /// The file.
        path: PathBuf,
        /// The claim.
        bytes: u64,
    },
    /// More tensors than [`TENSORS_MAX`].
    #[error("{path} lists more than {TENSORS_MAX} tensors")]
    TooManyTensors {
        /// The file.
        path: PathBuf,
    },
    /// Bytes that are not a safetensors file, or contradict themselves.
    #[error("{path} is not a valid safetensors file: {fact}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fact: String,
    },
    /// A tensor of an element type other than f32, bf16 and f16.
    #[error("{path}: tensor {name} has type {dtype}; f32, bf16 and f16 are accepted")]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// A tensor the schema asks for is absent.
    #[error("{path}: tensor {name} is missing; the file does not belong to this base model")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor the schema does not know.
    #[error("{path}: tensor {name} is not part of this base model's schema")]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor of another shape than the schema asks for.
    #[error("{path}: tensor {name} has shape {found:?}, this base model needs {wanted:?}")]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape found.
        found: Vec<usize>,
        /// The shape needed.
        wanted: Vec<usize>,
    },
    /// A value that is not a finite number.
    #[error("{path}: tensor {name} holds a value that is not finite at element {at}")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The element's position.
        at: usize,
    },
}

impl LoadError {
    /// The fault that a judge reports for an entrant with this file.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } => Fault::Unavailable,
            Self::NotAFile { .. } | Self::OtherFormat { .. } | Self::Malformed { .. } => Fault::Malformed,
            Self::WrongType { .. } => Fault::Malformed,
            Self::FileTooLarge { .. } | Self::HeaderTooLarge { .. } | Self::TooManyTensors { .. } => {
                Fault::OverLimits
            }
            Self::Missing { .. } | Self::Unexpected { .. } | Self::WrongShape { .. } => Fault::WrongBase,
            Self::NotFinite { .. } => Fault::NotFinite,
        }
    }
}

fn open(path: &Path, limit: u64) -> Result<(File, u64), LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let meta = std::fs::symlink_metadata(path).map_err(read)?;
    if !meta.is_file() {
        return Err(LoadError::NotAFile { path: path.to_owned() });
    }
    if meta.len() > limit {
        return Err(LoadError::FileTooLarge { path: path.to_owned(), bytes: meta.len(), limit });
    }
    Ok((File::open(path).map_err(read)?, meta.len()))
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// [`LoadError`] when it is not a regular file, too large or unreadable.
pub fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    let (file, _) = open(path, limit)?;
    let mut bytes = Vec::new();
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    file.take(limit).read_to_end(&mut bytes).map_err(read)?;
    Ok(bytes)
}

/// Reads a text or JSON file of at most 32 MiB.
///
/// # Errors
/// As [`read_bytes`].
pub fn read_small(path: &Path) -> Result<Vec<u8>, LoadError> {
    read_bytes(path, TEXT_BYTES_MAX)
}

/// A safetensors file whose header is proved well-formed; tensors are read one by one.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where its bytes lie in the file.
    range: std::ops::Range<u64>,
}

impl fmt::Debug for TensorFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorFile")
            .field("path", &self.path)
            .field("tensors", &self.entries.len())
            .finish_non_exhaustive()
    }
}

fn sniff(start: &[u8]) -> Option<&'static str> {
    match start {
        [b'G', b'G', b'U', b'F', ..] => Some("a GGUF file"),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Some("a zip archive (PyTorch or NumPy)"),
        [0x80, 1..=5, ..] => Some("a Python pickle"),
        [0x89, b'H', b'D', b'F', ..] => Some("an HDF5 file"),
        [0x93, b'N', b'U', b'M', ..] => Some("a NumPy array"),
        _ => None,
    }
}

impl TensorFile {
    /// Reads a safetensors file of at most `limit` bytes.
    ///
    /// # Errors
    /// [`LoadError`] naming the first limit or rule broken; the header is judged
    /// before anything else is read.
    pub fn read(path: &Path, limit: u64) -> Result<Self, LoadError> {
        let (mut file, size) = open(path, limit)?;
        let read = |source| LoadError::Read { path: path.to_owned(), source };
        let mut start = Vec::with_capacity(9);
        file.by_ref().take(9).read_to_end(&mut start).map_err(read)?;
        let header = Self::check_start(path, &start, size)?;
        let mut text = start.split_off(8);
        let rest = header.saturating_sub(text.len() as u64);
        file.by_ref().take(rest).read_to_end(&mut text).map_err(read)?;
        Self::check_header(path, &text)?;
        let entries = Self::index(path, &text, header + 8, size)?;
        Ok(Self { path: path.to_owned(), file, entries })
    }

    fn check_start(path: &Path, start: &[u8], size: u64) -> Result<u64, LoadError> {
        let malformed = |fact: &str| match sniff(start) {
            Some(format) => LoadError::OtherFormat { path: path.to_owned(), format },
            None => LoadError::Malformed { path: path.to_owned(), fact: fact.to_owned() },
        };
        let Some((length, after)) = start.split_first_chunk::<8>() else {
            return Err(malformed("shorter than its own header length"));
        };
        let header = u64::from_le_bytes(*length);
        if header > HEADER_BYTES_MAX {
            return Err(match sniff(start) {
                Some(format) => LoadError::OtherFormat { path: path.to_owned(), format },
                None => LoadError::HeaderTooLarge { path: path.to_owned(), bytes: header },
            });
        }
        if after != b"{" {
            return Err(malformed("its header does not start with an object"));
        }
        if header + 8 > size {
            return Err(malformed("truncated inside its header"));
        }
        Ok(header)
    }

    fn check_header(path: &Path, header: &[u8]) -> Result<(), LoadError> {
        let malformed = |fact: String| LoadError::Malformed { path: path.to_owned(), fact };
        let mut json = serde_json::Deserializer::from_slice(header);
        match json.deserialize_map(Census).map_err(|error| malformed(error.to_string()))? {
            Ok(()) => Ok(()),
            Err(name) if name.is_empty() => Err(LoadError::TooManyTensors { path: path.to_owned() }),
            Err(name) => Err(malformed(format!("tensor {name} is listed twice"))),
        }
    }

    /// Places every tensor: they must follow each other without gap and end with the file.
    fn index(
        path: &Path,
        header: &[u8],
        start: u64,
        size: u64,
    ) -> Result<BTreeMap<String, Entry>, LoadError> {
        let malformed = |fact: String| LoadError::Malformed { path: path.to_owned(), fact };
        let metadata: Metadata =
            serde_json::from_slice(header).map_err(|error| malformed(error.to_string()))?;
        let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
        if tensors.len() > TENSORS_MAX {
            return Err(LoadError::TooManyTensors { path: path.to_owned() });
        }
        tensors.sort_by(|(a, left), (b, right)| (left.data_offsets, a).cmp(&(right.data_offsets, b)));
        let (mut entries, mut at) = (BTreeMap::new(), 0u64);
        for (name, info) in tensors {
            if info.shape.len() > DIMENSIONS_MAX {
                return Err(malformed(format!("tensor {name} has {} dimensions", info.shape.len())));
            }
            let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            let elements = info.shape.iter().try_fold(1u64, |all, &one| all.checked_mul(one as u64));
            let bits = elements.and_then(|all| all.checked_mul(info.dtype.bitsize() as u64));
            if begin != at || end < begin || bits != (end - begin).checked_mul(8) {
                return Err(malformed(format!("tensor {name} does not lie where its shape says")));
            }
            at = end;
            let range = start.saturating_add(begin)..start.saturating_add(end);
            let (dtype, shape) = (info.dtype, info.shape.clone());
            entries.insert(name, Entry { dtype, shape, range });
        }
        if start.checked_add(at) != Some(size) {
            return Err(malformed("bytes follow the last tensor, or some are missing".into()));
        }
        Ok(entries)
    }

    /// Checks that the file holds exactly the tensors of a schema, each of its shape.
    ///
    /// # Errors
    /// [`LoadError::Missing`], [`LoadError::Unexpected`] or [`LoadError::WrongShape`],
    /// always about the first name in alphabetical order of the schema, then of the file.
    pub fn check_schema(&self, schema: &BTreeMap<String, Vec<usize>>) -> Result<(), LoadError> {
        for (name, wanted) in schema {
            self.check_shape(name, wanted)?;
        }
        match self.entries.keys().find(|name| !schema.contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err(LoadError::Unexpected { path: self.path.clone(), name: name.clone() }),
        }
    }

    fn check_shape(&self, name: &str, wanted: &[usize]) -> Result<(), LoadError> {
        let entry = self.entry(name)?;
        if entry.shape == wanted {
            return Ok(());
        }
        Err(LoadError::WrongShape {
            path: self.path.clone(),
            name: name.to_owned(),
            found: entry.shape.clone(),
            wanted: wanted.to_vec(),
        })
    }

    /// The names of its tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    fn entry(&self, name: &str) -> Result<&Entry, LoadError> {
        self.entries
            .get(name)
            .ok_or_else(|| LoadError::Missing { path: self.path.clone(), name: name.to_owned() })
    }

    /// Reads one tensor as `f32`, proving every value finite.
    ///
    /// # Errors
    /// [`LoadError`] when it is absent, of another element type, or not finite.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, LoadError> {
        let entry = self.entry(name)?;
        let dtype = match entry.dtype {
            Dtype::F32 => DType::F32,
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            other => {
                return Err(LoadError::WrongType {
                    path: self.path.clone(),
                    name: name.to_owned(),
                    dtype: format!("{other:?}"),
                });
            }
        };
        let mut bytes = vec![0u8; (entry.range.end - entry.range.start) as usize];
        self.file
            .read_exact_at(&mut bytes, entry.range.start)
            .map_err(|source| LoadError::Read { path: self.path.clone(), source })?;
        let values = Tensor::from_raw_buffer(&bytes, dtype, &entry.shape, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>())
            .map_err(|error| LoadError::Malformed {
                path: self.path.clone(),
                fact: format!("tensor {name}: {error}"),
            })?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => Err(LoadError::NotFinite { path: self.path.clone(), name: name.to_owned(), at }),
        }
    }
}

#[cfg(test)]
mod tests;
