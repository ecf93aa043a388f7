//! What can go wrong with file sets.

use std::io;
use std::path::{Path, PathBuf};

use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::manifest::ManifestError;

use crate::error::{StoreError, is_full};

/// Says why a blob cannot be kept, read or continued.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}; check the path, its owner and the disk", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No room: disk, quota or file size limit. Pieces that were acknowledged stay.
    #[error("cannot {action} {}: {source}; free some space, a download then continues where it was", path.display())]
    Full {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// One blob larger than allowed.
    #[error(
        "blob has {bytes} bytes, at most {max} are kept; raise the limit in config.toml or refuse the task"
    )]
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// Most allowed, in bytes.
        max: u64,
    },
    /// The cap on all blobs together is reached.
    #[error(
        "blob of {bytes} bytes does not fit: {used} of {max} are in use; remove blobs or raise the cap in config.toml"
    )]
    CapReached {
        /// Its size in bytes.
        bytes: u64,
        /// Bytes in use or promised.
        used: u64,
        /// Most allowed, in bytes.
        max: u64,
    },
    /// The disk would be filled beyond the reserve.
    #[error(
        "blob of {bytes} bytes does not fit: {free} are free and {reserve} of them stay reserved; free some space"
    )]
    NoSpace {
        /// Its size in bytes.
        bytes: u64,
        /// Free bytes.
        free: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
    /// The same blob is being fetched already.
    #[error("blob {root} is being fetched already; wait for it")]
    Busy {
        /// Its root.
        root: BlobRoot,
    },
    /// Complete already: there is nothing to fetch.
    #[error("blob {root} is here already; use it")]
    Present {
        /// Its root.
        root: BlobRoot,
    },
    /// Not kept here.
    #[error("blob {root} is not here; fetch it first")]
    Unknown {
        /// Its root.
        root: BlobRoot,
    },
    /// A kept file is no longer what its manifest says; the blob was set aside.
    #[error("blob {root}: {name}: {fact}; it was set aside, fetch it again")]
    Damaged {
        /// Its root.
        root: BlobRoot,
        /// The file.
        name: String,
        /// What does not fit.
        fact: String,
    },
    /// Pieces are missing.
    #[error("blob {root} lacks {missing} pieces; fetch them before finishing")]
    Incomplete {
        /// Its root.
        root: BlobRoot,
        /// How many.
        missing: u64,
    },
    /// A piece that the manifest does not have, or of another length.
    #[error(
        "blob {root} has no piece {piece} of {bytes} bytes at {offset} in file {file}; this is a fault of the caller"
    )]
    NoSuchPiece {
        /// Its root.
        root: BlobRoot,
        /// Place of the file in the manifest.
        file: u32,
        /// Number of the piece.
        piece: u32,
        /// Offset given, in bytes.
        offset: u64,
        /// Bytes given.
        bytes: usize,
    },
    /// A local file that cannot be taken in.
    #[error("{} is {fact}; give the path of a regular file", path.display())]
    Source {
        /// The path.
        path: PathBuf,
        /// What it is.
        fact: &'static str,
    },
    /// A manifest that breaks a rule.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BlobError {
    /// Wraps a failed system call, telling a full disk from the rest.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if is_full(&source) { Self::Full { action, path, source } } else { Self::Io { action, path, source } }
    }
}
