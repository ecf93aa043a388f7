//! The state index: what the blocks of the log lead to, in one sled tree. Always rebuildable, never the truth.
//!
//! | key | value |
//! |---|---|
//! | `s` ‖ hash of a state key | key length (2) ‖ state key ‖ state value, newest |
//! | `u` ‖ hash of a state key | while a snapshot is made: 1 ‖ what stood there when it began, or 0 for nothing |
//! | `n` ‖ node key | tree node |
//! | `z` ‖ height ‖ node key | nothing: the node went stale at that height and is pruned later, where a horizon is set |
//! | `t` ‖ transaction id | height ‖ place in the block ‖ 1 if it took effect |
//! | `m` | the marker: up to which block all of this is true |
//!
//! Values lie in the order of the state tree, so that snapshots and roots are made in one pass. Heights are 8 bytes,
//! places 4, big-endian. Blocks write into a layer in memory; a layer of many blocks is written behind their back, whole
//! or not at all, and a start executes again what it lacks (`flush`, `redo`). sled's own flush does not reach the disk on
//! Linux (it calls `sync_file_range`): this module syncs the file itself. sled panics on some damaged files: every call
//! is caught and becomes an error.

mod cache;
mod flush;
mod layer;
mod marker;
mod open;
mod redo;
pub(crate) mod replay;
mod scrub;
mod undo;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use tiltyard_ledger::{ChangeSet, ReadError, StateRead};
use tiltyard_proto::hash::plain;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::units::{Blocks, Height};

use crate::error::StoreError;
use cache::NodeCache;
use flush::Flusher;
use layer::Pending;
pub(crate) use marker::Marker;

pub(crate) const VALUE: u8 = b's';
/// Values from before a snapshot began.
pub(crate) const UNDO: u8 = b'u';
const NODE: u8 = b'n';
const STALE: u8 = b'z';
const TRANSACTION: u8 = b't';
const MARKER: &[u8] = b"m";
/// Left behind when the index failed in use: the next start rebuilds it.
const REBUILD_FLAG: &str = "rebuild";

/// How the index uses memory and disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateOptions {
    /// Bytes of pages that sled keeps in memory (its own estimate, not a hard bound).
    pub page_cache_bytes: u64,
    /// Bytes of tree nodes kept in memory in front of sled.
    pub node_cache_bytes: usize,
    /// Stale tree nodes are kept for so many blocks. Nothing in this program reads them: with 0 they go at once, and one
    /// that came and went between two writes is never written.
    pub prune_after: Blocks,
    /// Whether opening reads every entry and compares the root of all values with the header's. Without it a few are
    /// compared, and damage elsewhere is found when it is met: the database checks what it reads, and a wrong value
    /// leads to another root than the network's. A doubtful index is always read whole.
    pub scrub_on_open: bool,
}

impl Default for StateOptions {
    /// 32 MiB of pages, 16 MiB of nodes, no stale nodes, no scrub.
    fn default() -> Self {
        Self {
            page_cache_bytes: 32 << 20,
            node_cache_bytes: 16 << 20,
            prune_after: Blocks::ZERO,
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
    /// What the database does not hold yet.
    pending: RwLock<Pending>,
    flusher: Mutex<Option<Flusher>>,
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
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = pending.get(key) {
            return Ok(said.map(<[u8]>::to_vec));
        }
        drop(pending);
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

    /// Lays one block's changes over the database. In it, and durable, only after [`Self::settle`].
    pub(crate) fn write(&self, marker: Marker, changes: &ChangeSet, outcomes: &[(TransactionId, bool)]) {
        let mut held = self.marker.write().unwrap_or_else(PoisonError::into_inner);
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        let layer = &mut pending.active;
        for (key, value) in &changes.values {
            layer.set(value_key(key), value.as_ref().map(|value| pack(key, value)));
        }
        for (key, node) in &changes.nodes {
            layer.set(keyed(NODE, key), Some(node.clone()));
        }
        for key in &changes.stale {
            if self.options.prune_after > Blocks::ZERO {
                layer.set(stale_key(marker.height, key), Some(Vec::new()));
            } else {
                let node = keyed(NODE, key);
                if !layer.unset(&node) {
                    layer.set(node, None);
                }
            }
        }
        for (place, (id, took_effect)) in (0u32..).zip(outcomes) {
            let mut value = vec![0u8; 13];
            value[..8].copy_from_slice(&marker.height.get().to_be_bytes());
            value[8..12].copy_from_slice(&place.to_be_bytes());
            value[12] = u8::from(*took_effect);
            layer.set(keyed(TRANSACTION, id.as_bytes()), Some(value));
        }
        layer.marker = Some(marker);
        *held = Some(marker);
    }

    /// Brings the index to a block that is durable in the log. What the database lacks is executed again at the next
    /// start, and the same is found.
    pub(crate) fn commit(
        self: &Arc<Self>,
        marker: Marker,
        changes: &ChangeSet,
        outcomes: &[(TransactionId, bool)],
    ) -> Result<(), StoreError> {
        self.write(marker, changes, outcomes);
        self.flush_behind()
    }

    /// Forgets where transactions are. Durable only after [`Self::settle`].
    pub(crate) fn forget_transactions(&self, ids: &[TransactionId]) {
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            pending.active.set(keyed(TRANSACTION, id.as_bytes()), None);
        }
    }

    /// Whether opening had to help itself, so that the whole should be looked at.
    pub(crate) const fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Makes everything that the database holds durable.
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
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        let name = keyed(NODE, key);
        if let Some(said) = pending.get(&name) {
            return Ok(said.map(<[u8]>::to_vec));
        }
        drop(pending);
        // A node never changes under its key, so the cache can be asked without holding the index still.
        if let Some(node) = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Ok(Some(node));
        }
        let found = self.get(&name).map_err(|error| unreadable(&error))?;
        if let Some(node) = &found {
            self.nodes.lock().unwrap_or_else(PoisonError::into_inner).put(key, node);
        }
        Ok(found)
    }

    fn tree_version(&self) -> Result<Option<u64>, ReadError> {
        // Asked of the entry itself, not of the held marker: a reader that holds the index must not wait for it.
        let laid_over = self.pending.read().unwrap_or_else(PoisonError::into_inner).marker();
        if let Some(marker) = laid_over {
            return Ok(Some(marker.tree_version));
        }
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
