//! The state index: what the blocks of the log lead to, in one sled tree. Always rebuildable, never the truth.
//!
//! | key | value |
//! |---|---|
//! | `s` ‖ hash of a state key | key length (2) ‖ state key ‖ state value, newest |
//! | `u` ‖ hash of a state key | while a snapshot is made: 1 ‖ what stood there when it began, or 0 for nothing |
//! | `n` ‖ node key | tree node |
//! | `z` ‖ height ‖ node key | nothing: the node went stale at that height and is pruned later |
//! | `t` ‖ transaction id | height ‖ place in the block ‖ 1 if it took effect |
//! | `m` | the marker: up to which block all of this is true |
//!
//! Values lie in the order of the state tree, so that snapshots and roots are made in one pass. Heights are 8 bytes,
//! places 4, big-endian. A block is one batch, so that the marker moves with what it marks. sled's
//! own flush does not reach the disk on Linux (it calls `sync_file_range`): this module syncs the file itself. sled
//! panics on some damaged files: every call is caught and becomes an error.

mod cache;
mod marker;
mod open;
pub(crate) mod replay;
mod scrub;
mod undo;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use tiltyard_ledger::{ChangeSet, ReadError, StateRead};
use tiltyard_proto::hash::plain;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::units::{Blocks, Height};

use crate::error::StoreError;
use cache::NodeCache;
pub(crate) use marker::Marker;

pub(crate) const VALUE: u8 = b's';
/// Values from before a snapshot began.
pub(crate) const UNDO: u8 = b'u';
const NODE: u8 = b'n';
const STALE: u8 = b'z';
const TRANSACTION: u8 = b't';
const MARKER: &[u8] = b"m";
/// Most stale nodes removed with one block; the rest waits for the next.
const PRUNED_NODES_PER_BLOCK_MAX: usize = 16 * 1024;
/// Blocks that change nothing are not written to the index; so many of them at most are executed again at a start.
const UNNOTED_BLOCKS_MAX: u64 = 256;
/// Left behind when the index failed in use: the next start rebuilds it.
const REBUILD_FLAG: &str = "rebuild";

/// How the index uses memory and disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateOptions {
    /// Bytes of pages that sled keeps in memory (its own estimate, not a hard bound).
    pub page_cache_bytes: u64,
    /// Bytes of tree nodes kept in memory in front of sled.
    pub node_cache_bytes: usize,
    /// Stale tree nodes are kept for so many blocks.
    pub prune_after: Blocks,
    /// Whether opening reads every entry and compares the root of all values with the header's. Without it a few are
    /// compared, and damage elsewhere is found when it is met: the database checks what it reads, and a wrong value
    /// leads to another root than the network's. A doubtful index is always read whole.
    pub scrub_on_open: bool,
}

impl Default for StateOptions {
    /// 32 MiB of pages, 16 MiB of nodes, 1,000 blocks, no scrub.
    fn default() -> Self {
        Self {
            page_cache_bytes: 32 << 20,
            node_cache_bytes: 16 << 20,
            prune_after: Blocks::new(1_000),
            scrub_on_open: false,
        }
    }
}

/// Where a transaction is, and whether it took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionPlace {
    /// Height of its block.
    pub height: Height,
    /// Its place in the block, from 0.
    pub index: u32,
    /// Whether its action took effect; `false` when it broke a market rule.
    pub took_effect: bool,
}

/// The open index.
#[derive(Debug)]
pub(crate) struct StateIndex {
    db: sled::Db,
    file: File,
    folder: PathBuf,
    options: StateOptions,
    marker: RwLock<Option<Marker>>,
    /// Height of the marker as the database holds it.
    noted_height: AtomicU64,
    doubtful: bool,
    nodes: Mutex<NodeCache>,
    /// Whether old values are kept for a snapshot that is being made.
    keeps_old: RwLock<bool>,
}

/// Runs one call into sled; a panic inside it becomes an error.
pub(crate) fn guarded<T>(call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) if crate::error::is_full(&source) => {
            Err(StoreError::Full { action: "write", path: PathBuf::from("state index"), source })
        }
        Ok(Err(error)) => Err(StoreError::Index { fact: error.to_string() }),
        Err(panic) => {
            let words = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no words");
            Err(StoreError::Index { fact: format!("the database panicked: {words}") })
        }
    }
}

fn keyed(prefix: u8, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len().saturating_add(1));
    out.push(prefix);
    out.extend_from_slice(key);
    out
}

fn value_key(key: &[u8]) -> Vec<u8> {
    keyed(VALUE, &plain(key))
}

/// Joins a state key and its value. The ledger's keys have fixed forms, the longest below 80 bytes.
fn pack(key: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(key.len()).expect("state keys are far below 64 KiB");
    [&length.to_be_bytes()[..], key, value].concat()
}

/// Parts what [`pack`] joined; `None` when it is cut short.
pub(crate) fn unpack(packed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = packed.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn stale_key(height: Height, node: &[u8]) -> Vec<u8> {
    [&[STALE][..], &height.get().to_be_bytes(), node].concat()
}

impl StateIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = guarded(|| Ok(self.db.get(key)?.map(|value| value.to_vec())));
        if matches!(found, Err(StoreError::Index { .. })) {
            self.flag_rebuild();
        }
        found
    }

    /// Makes the next start rebuild the index. Best effort: a start also finds damage by itself.
    pub(crate) fn flag_rebuild(&self) {
        if let Err(error) = crate::disk::replace(&self.folder.join(REBUILD_FLAG), b"") {
            tracing::warn!(%error, "rebuild of the state index could not be flagged");
        }
    }

    /// Returns up to where the index is true; `None` when it is empty.
    pub(crate) fn marker(&self) -> Option<Marker> {
        *self.hold()
    }

    /// Keeps the index from moving on while it is held.
    pub(crate) fn hold(&self) -> RwLockReadGuard<'_, Option<Marker>> {
        self.marker.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one block's changes as one batch. Durable only after [`Self::sync`].
    pub(crate) fn write(
        &self,
        marker: Marker,
        changes: &ChangeSet,
        outcomes: &[(TransactionId, bool)],
    ) -> Result<(), StoreError> {
        let keeps_old = self.keeps_old.read().unwrap_or_else(PoisonError::into_inner);
        let mut batch = self.batch(&marker, changes, outcomes)?;
        if *keeps_old {
            self.keep_before(changes, &mut batch)?;
        }
        let mut held = self.marker.write().unwrap_or_else(PoisonError::into_inner);
        guarded(|| self.db.apply_batch(batch))?;
        self.noted_height.store(marker.height.get(), Ordering::Relaxed);
        let mut cache = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, node) in &changes.nodes {
            cache.put(key, node);
        }
        *held = Some(marker);
        Ok(())
    }

    fn batch(
        &self,
        marker: &Marker,
        changes: &ChangeSet,
        outcomes: &[(TransactionId, bool)],
    ) -> Result<sled::Batch, StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in &changes.values {
            match value {
                Some(value) => batch.insert(value_key(key), pack(key, value)),
                None => batch.remove(value_key(key)),
            }
        }
        for (key, node) in &changes.nodes {
            batch.insert(keyed(NODE, key), node.as_slice());
        }
        for key in &changes.stale {
            batch.insert(stale_key(marker.height, key), &[]);
        }
        for (place, (id, took_effect)) in (0u32..).zip(outcomes) {
            let mut value = [0u8; 13];
            value[..8].copy_from_slice(&marker.height.get().to_be_bytes());
            value[8..12].copy_from_slice(&place.to_be_bytes());
            value[12] = u8::from(*took_effect);
            batch.insert(keyed(TRANSACTION, id.as_bytes()), &value[..]);
        }
        for key in self.prunable(marker.height)? {
            batch.remove(keyed(NODE, key.get(9..).unwrap_or_default()));
            batch.remove(key);
        }
        batch.insert(MARKER, marker.encode());
        Ok(batch)
    }

    /// Returns the keys of stale entries that have left the horizon, oldest first.
    fn prunable(&self, height: Height) -> Result<Vec<Vec<u8>>, StoreError> {
        let Some(last) = height.get().checked_sub(self.options.prune_after.get()) else {
            return Ok(Vec::new());
        };
        let range = vec![STALE]..stale_key(Height::new(last), &[]);
        guarded(|| {
            let keys = self.db.range(range).keys().take(PRUNED_NODES_PER_BLOCK_MAX);
            keys.map(|key| Ok(key?.to_vec())).collect()
        })
    }

    /// Brings the index to a block that is durable in the log. A block that changes nothing is not written: the next
    /// start executes it again, and finds the same. Durable when this returns, as far as it has to be.
    pub(crate) fn commit(
        &self,
        marker: Marker,
        changes: &ChangeSet,
        outcomes: &[(TransactionId, bool)],
    ) -> Result<(), StoreError> {
        let is_empty = changes.values.is_empty()
            && changes.nodes.is_empty()
            && changes.stale.is_empty()
            && outcomes.is_empty();
        let noted = self.noted_height.load(Ordering::Relaxed);
        if is_empty && marker.height.get().saturating_sub(noted) < UNNOTED_BLOCKS_MAX {
            *self.marker.write().unwrap_or_else(PoisonError::into_inner) = Some(marker);
            return Ok(());
        }
        self.write(marker, changes, outcomes)?;
        self.sync()
    }

    /// Writes the marker where it lags behind. Durable only after [`Self::sync`].
    pub(crate) fn write_marker(&self) -> Result<(), StoreError> {
        let Some(marker) = self.marker() else { return Ok(()) };
        if marker.height.get() > self.noted_height.load(Ordering::Relaxed) {
            guarded(|| self.db.insert(MARKER, marker.encode()).map(|_| ()))?;
            self.noted_height.store(marker.height.get(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Forgets where transactions are. Durable only after [`Self::sync`].
    pub(crate) fn forget_transactions(&self, ids: &[TransactionId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for id in ids {
            batch.remove(keyed(TRANSACTION, id.as_bytes()));
        }
        guarded(|| self.db.apply_batch(batch))
    }

    /// Whether opening had to help itself, so that the whole should be looked at.
    pub(crate) const fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        guarded(|| self.db.flush().map(|_| ()))?;
        self.file.sync_data().map_err(|e| StoreError::io("sync", &self.folder.join("db"), e))
    }

    /// Returns where a transaction is.
    pub(crate) fn transaction(&self, id: &TransactionId) -> Result<Option<TransactionPlace>, StoreError> {
        let Some(value) = self.get(&keyed(TRANSACTION, id.as_bytes()))? else { return Ok(None) };
        let place = value.split_first_chunk::<8>().and_then(|(height, rest)| {
            let (index, rest) = rest.split_first_chunk::<4>()?;
            Some(TransactionPlace {
                height: Height::new(u64::from_be_bytes(*height)),
                index: u32::from_be_bytes(*index),
                took_effect: rest == [1],
            })
        });
        place
            .map(Some)
            .ok_or_else(|| StoreError::Index { fact: "a transaction's place is cut short".to_owned() })
    }
}

fn unreadable(error: &StoreError) -> ReadError {
    ReadError::new(error.to_string())
}

impl StateRead for StateIndex {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(packed) = self.get(&value_key(key)).map_err(|error| unreadable(&error))? else {
            return Ok(None);
        };
        match unpack(&packed) {
            Some((found, value)) if found == key => Ok(Some(value.to_vec())),
            Some(_) | None => Err(ReadError::new("another entry stands under a key's hash")),
        }
    }

    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        // A node never changes under its key, so the cache can be asked without holding the index still.
        if let Some(node) = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Ok(Some(node));
        }
        let found = self.get(&keyed(NODE, key)).map_err(|error| unreadable(&error))?;
        if let Some(node) = &found {
            self.nodes.lock().unwrap_or_else(PoisonError::into_inner).put(key, node);
        }
        Ok(found)
    }

    fn tree_version(&self) -> Result<Option<u64>, ReadError> {
        // Asked of the entry itself, not of the held marker: a reader that holds the index must not wait for it.
        let bytes = self.get(MARKER).map_err(|error| unreadable(&error))?;
        match bytes {
            None => Ok(None),
            Some(bytes) => match Marker::decode(&bytes) {
                Some(marker) => Ok(Some(marker.tree_version)),
                None => Err(ReadError::new("the marker does not match its check")),
            },
        }
    }
}
