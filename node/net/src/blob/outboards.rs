//! Trees of the files that are served, kept within a byte budget; rebuilt at about a gigabyte a second when missing.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tiltyard_proto::ids::FileHash;

use super::tree::{Outboard, outboard};

const BUDGET_BYTES: usize = 32 << 20;
const ENTRY_BYTES: usize = 128;

/// The newest trees, by the hash of the file.
#[derive(Default)]
pub(crate) struct Outboards {
    kept: Mutex<VecDeque<(FileHash, Arc<Outboard>)>>,
}

impl Outboards {
    /// Returns the tree of a file, building it if needed. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read or does not have this hash any more.
    pub(crate) fn get(&self, hash: &FileHash, file: &File, bytes: u64) -> io::Result<Arc<Outboard>> {
        if let Some(found) = self.find(hash) {
            return Ok(found);
        }
        let built = Arc::new(outboard(file, bytes)?);
        if built.root.as_bytes() != hash.as_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file on disk does not have its hash any more; verify the blob store",
            ));
        }
        self.insert(*hash, &built);
        Ok(built)
    }

    fn find(&self, hash: &FileHash) -> Option<Arc<Outboard>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(held, _)| held == hash)?;
        let entry = kept.remove(place)?;
        let found = Arc::clone(&entry.1);
        kept.push_back(entry);
        Some(found)
    }

    fn insert(&self, hash: FileHash, built: &Arc<Outboard>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((hash, Arc::clone(built)));
        let mut sum: usize = kept.iter().map(|(_, tree)| tree.data.len().saturating_add(ENTRY_BYTES)).sum();
        while sum > BUDGET_BYTES && kept.len() > 1 {
            if let Some((_, tree)) = kept.pop_front() {
                sum = sum.saturating_sub(tree.data.len().saturating_add(ENTRY_BYTES));
            }
        }
    }
}
