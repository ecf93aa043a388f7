//! Reads the whole index and compares the root of its values with the one that the block's header vouches for.
//!
//! The root is computed from the values alone, by the definition of the tree (SPEC.md §6), not from the stored nodes:
//! an independent witness. Values lie in the order of the tree, so that one pass is enough and memory stays flat.

use tiltyard_proto::ids::StateRoot;
use tiltyard_proto::snapshot::cut;

use super::{StateIndex, guarded};
use crate::error::StoreError;
use crate::snapshot::Entries;

impl StateIndex {
    /// Reads every entry; returns the root of all values. [`StoreError::Index`] when an entry cannot be read.
    pub(crate) fn root_of_values(&self) -> Result<StateRoot, StoreError> {
        let cut = cut(Entries::newest(self), &mut |_, _| Ok(()))?;
        cut.root().map_err(|error| StoreError::Index { fact: error.to_string() })
    }
}

/// Entries copied between two syncs.
const ENTRIES_PER_SYNC: u64 = 100_000;

impl StateIndex {
    /// Copies every entry into an empty index; returns how many.
    pub(crate) fn copy_to(&self, to: &Self) -> Result<u64, StoreError> {
        let mut count = 0u64;
        for entry in self.db.iter() {
            let (key, value) = guarded(|| entry)?;
            guarded(|| to.db.insert(key, value).map(|_| ()))?;
            count = count.saturating_add(1);
            if count.is_multiple_of(ENTRIES_PER_SYNC) {
                to.sync()?;
            }
        }
        to.sync()?;
        Ok(count)
    }

    /// Returns a hash over every entry, keys and values, in order.
    pub(crate) fn digest(&self) -> Result<[u8; 32], StoreError> {
        guarded(|| {
            let mut hasher = blake3::Hasher::new_derive_key("tiltyard/store/index/v1");
            for entry in self.db.iter() {
                let (key, value) = entry?;
                for part in [key, value] {
                    hasher.update(&(part.len() as u64).to_be_bytes());
                    hasher.update(&part);
                }
            }
            Ok(*hasher.finalize().as_bytes())
        })
    }
}
