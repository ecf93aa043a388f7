//! Old values, kept while a snapshot is made: the first one of every entry that changes meanwhile, written before the
//! change. Also fills an index from a snapshot.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use tiltyard_ledger::ChangeSet;

use super::{MARKER, Marker, NODE, StateIndex, UNDO, guarded, keyed, pack, value_key};
use crate::error::StoreError;

/// Old values removed at a time.
const CLEARED_PER_BATCH: usize = 16 * 1024;

impl StateIndex {
    pub(crate) fn db(&self) -> &sled::Db {
        &self.db
    }

    /// Begins or ends the keeping of old values; ending it forgets them. Beginning it writes everything first: what the
    /// database holds then is the state that is kept.
    pub(crate) fn keep_old(&self, keep: bool) -> Result<(), StoreError> {
        if keep {
            self.settle()?;
        }
        // Waits for a write that is under way: none leaves an old value after they are forgotten.
        *self.keeps_old.write().unwrap_or_else(PoisonError::into_inner) = keep;
        if keep { Ok(()) } else { self.forget_old() }
    }

    pub(super) fn forget_old(&self) -> Result<(), StoreError> {
        loop {
            let mut batch = sled::Batch::default();
            let mut count = 0usize;
            guarded(|| {
                for key in self.db.scan_prefix([UNDO]).keys().take(CLEARED_PER_BATCH) {
                    batch.remove(key?);
                    count = count.saturating_add(1);
                }
                Ok(())
            })?;
            if count == 0 {
                return Ok(());
            }
            guarded(|| self.db.apply_batch(batch))?;
        }
    }

    /// Writes a part of a state that is being made; nodes that went stale are gone at once. Durable only after
    /// [`Self::sync`], and true only when all parts are there.
    ///
    /// Entry by entry, not as a batch: as batches, 150,000 entries took a gigabyte that was never given back.
    pub(crate) fn fill(&self, marker: Marker, changes: &ChangeSet) -> Result<(), StoreError> {
        guarded(|| {
            for (key, value) in &changes.values {
                if let Some(value) = value {
                    self.db.insert(value_key(key), pack(key, value))?;
                }
            }
            for (key, node) in &changes.nodes {
                self.db.insert(keyed(NODE, key), node.as_slice())?;
            }
            for key in &changes.stale {
                self.db.remove(keyed(NODE, key))?;
            }
            self.db.insert(MARKER, marker.encode()).map(|_| ())
        })?;
        self.noted_height.store(marker.height.get(), Ordering::Relaxed);
        *self.marker.write().unwrap_or_else(PoisonError::into_inner) = Some(marker);
        Ok(())
    }
}
