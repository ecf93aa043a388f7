//! The vote journal: what this node signed at the current height, durable before it leaves.
//!
//! Entries are opaque. A reset is itself an appended frame, so that it costs one `fdatasync` and is all or nothing;
//! the file is rewritten (new file, sync, rename, sync of the folder) once the entries before the last reset have
//! grown large.

use std::path::Path;

use tiltyard_keys::GenesisHash;

use crate::append::{AppendFile, Salvage};
use crate::aside;
use crate::error::StoreError;

/// Largest entry, in bytes.
pub const JOURNAL_ENTRY_BYTES_MAX: u32 = 256 * 1024;
/// A reset rewrites the file beyond this size, in bytes.
const REWRITE_BYTES: u64 = 1024 * 1024;

const ENTRY: u64 = 0;
const RESET: u64 = 1;

/// A journal, its entries, and what was damaged.
pub(crate) type Opened = (Journal, Vec<Vec<u8>>, Option<Salvage>);

/// An open vote journal.
#[derive(Debug)]
pub struct Journal {
    file: AppendFile,
}

impl Journal {
    /// Name of the file.
    pub const NAME: &'static str = "journal";

    /// Opens or makes the journal in `folder`; returns the entries since the last reset, in order.
    ///
    /// # Errors
    /// [`StoreError`]; a damaged entry is never dropped, for it may be a vote that left.
    pub fn open(folder: &Path, network: &GenesisHash) -> Result<(Self, Vec<Vec<u8>>), StoreError> {
        let path = folder.join(Self::NAME);
        let (file, all) = AppendFile::open(&path, "journal", network.as_bytes(), JOURNAL_ENTRY_BYTES_MAX)?;
        let from = all.iter().rposition(|(tag, _)| *tag == RESET).unwrap_or(0);
        let entries = all.into_iter().skip(from).map(|(_, payload)| payload).collect();
        Ok((Self { file }, entries))
    }

    /// Sets the journal in `folder` aside, if there is one.
    ///
    /// # Errors
    /// [`StoreError`]
    pub(crate) fn set_aside(folder: &Path) -> Result<(), StoreError> {
        let path = folder.join(Self::NAME);
        if path.exists() { aside::move_file(&path).map(|_| ()) } else { Ok(()) }
    }

    /// Opens the journal in `folder`; a damaged one is set aside whole and an empty one begun. With one entry gone
    /// nobody knows what this node signed: the caller must not sign until that cannot matter any more.
    ///
    /// # Errors
    /// [`StoreError`], another network's journal included.
    pub(crate) fn open_or_set_aside(folder: &Path, network: &GenesisHash) -> Result<Opened, StoreError> {
        let path = folder.join(Self::NAME);
        let (path_fact, offset, fact) = match Self::open(folder, network) {
            Ok((journal, entries)) => return Ok((journal, entries, None)),
            Err(StoreError::Damaged { path, offset, fact }) => (path, offset, fact),
            Err(error) => return Err(error),
        };
        if offset == 0 && AppendFile::begins_whole(&path, JOURNAL_ENTRY_BYTES_MAX)? {
            return Err(StoreError::Damaged { path, offset, fact });
        }
        let kept = aside::move_file(&path)?;
        tracing::warn!(path = %path.display(), offset, fact, kept = %kept.display(), "damaged vote journal set aside");
        let (journal, entries) = Self::open(folder, network)?;
        Ok((journal, entries, Some(Salvage { path: path_fact, offset, fact, kept })))
    }

    /// Appends an entry; it is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; the entry then does not count.
    pub fn append(&mut self, entry: &[u8]) -> Result<(), StoreError> {
        self.file.append(ENTRY, entry)
    }

    /// Forgets all entries and makes `first` the only one, at once and durably.
    ///
    /// # Errors
    /// [`StoreError`]; the old entries then still count.
    pub fn reset(&mut self, first: &[u8]) -> Result<(), StoreError> {
        if self.file.bytes() > REWRITE_BYTES {
            self.file.rewrite([(RESET, first)])
        } else {
            self.file.append(RESET, first)
        }
    }
}
