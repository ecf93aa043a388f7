//! Reads the whole index and compares the root of its values with the one that the block's header vouches for.
//!
//! The root is computed from the values alone, by the definition of the tree (SPEC.md §6), not from the stored nodes:
//! an independent witness.

use tiltyard_proto::hash::plain;
use tiltyard_proto::ids::StateRoot;
use tiltyard_proto::state_proof::EMPTY_SUBTREE;

use super::{StateIndex, VALUE, guarded};
use crate::error::StoreError;

/// Key hash and value hash of an entry.
type Leaf = ([u8; 32], [u8; 32]);

fn bit(hash: &[u8; 32], depth: usize) -> bool {
    hash.get(depth / 8).is_some_and(|byte| (byte >> (7 - depth % 8)) & 1 == 1)
}

/// Root of the subtree at `depth` that holds exactly `leaves`, sorted by key hash.
fn root(leaves: &[Leaf], depth: usize) -> [u8; 32] {
    match leaves {
        [] => EMPTY_SUBTREE,
        [(key, value)] => plain(&[&b"JMT::LeafNode"[..], key, value].concat()),
        more => {
            let (left, right) = more.split_at(more.partition_point(|(key, _)| !bit(key, depth)));
            let below = depth.saturating_add(1);
            plain(&[&b"JMT::IntrnalNode"[..], &root(left, below), &root(right, below)].concat())
        }
    }
}

impl StateIndex {
    /// Reads every entry; returns the root of all values. [`StoreError::Index`] when an entry cannot be read.
    pub(crate) fn root_of_values(&self) -> Result<StateRoot, StoreError> {
        let mut leaves = guarded(|| {
            let mut leaves: Vec<Leaf> = Vec::new();
            for entry in self.db.scan_prefix([VALUE]) {
                let (key, value) = entry?;
                if let Some((&VALUE, name)) = key.split_first() {
                    leaves.push((plain(name), plain(&value)));
                }
            }
            Ok(leaves)
        })?;
        leaves.sort_unstable();
        // Equal key hashes would split for ever; two keys of one hash do not exist, one key is stored once.
        leaves.dedup_by_key(|(key, _)| *key);
        Ok(StateRoot::from_bytes(root(&leaves, 0)))
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
