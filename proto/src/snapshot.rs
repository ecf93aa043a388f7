//! State snapshots: every entry of the state after one block, in chunks that are verified one by one (SPEC.md §20).
//!
//! A *cut* lists the subtrees of the state tree that the chunks are, from left to right, each with its depth and root.
//! The roots fold to the header's state root, so that a cut proves itself; a chunk is right iff its entries are the
//! leaves of its subtree: nothing is missing, added or changed. Chunks of one snapshot may come from different peers.
//!
//! Deliberately absent: files, peers, and how a node chooses a snapshot.

mod cutter;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

pub use cutter::{cut, cut_finer};

use crate::hash::plain;
use crate::ids::{MerkleRoot, StateRoot};
use crate::limits::{SNAPSHOT_CHUNKS_MAX, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use crate::state_proof::{EMPTY_SUBTREE, ProofLeaf, bit, leaf_hash, node_hash};

/// What an entry counts in a chunk's weight beside its own bytes.
const ENTRY_WEIGHT: usize = 16;

/// An entry of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEntry {
    /// State key bytes.
    pub key: ByteBuf,
    /// State value bytes.
    pub value: ByteBuf,
}

impl SnapshotEntry {
    /// Returns what the entry counts against [`crate::limits::SNAPSHOT_CHUNK_WEIGHT_MAX`]: its bytes and 16.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.key.len().saturating_add(self.value.len()).saturating_add(ENTRY_WEIGHT)
    }
}

/// The entries of one subtree, by ascending key hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// The entries.
    pub entries: Vec<SnapshotEntry>,
}

/// One subtree of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRoot {
    /// Number of key hash bits that all its entries share.
    pub depth: u8,
    /// Root of the subtree.
    pub root: MerkleRoot,
}

/// The subtrees that a snapshot's chunks are, from left to right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotCut {
    /// The subtrees.
    pub chunks: Vec<ChunkRoot>,
}

/// Says why a cut is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// None or too many.
    #[error("snapshot has {count} chunks; 1 to 65,536 are allowed; ask another node")]
    Count {
        /// Chunks given.
        count: usize,
    },
    /// The depths leave out a part of the tree or cover one twice.
    #[error("snapshot chunks do not cover the state tree exactly once; ask another node")]
    Shape,
    /// The roots lead elsewhere.
    #[error("snapshot chunks lead to state {found}, the header says {expected}; ask another node")]
    WrongRoot {
        /// Root that they fold to.
        found: StateRoot,
        /// Root in the certified header.
        expected: StateRoot,
    },
}

/// Says why a chunk is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The snapshot has no such chunk.
    #[error("snapshot has no chunk {index}; ask for one of its {count}")]
    NoSuch {
        /// Chunk asked for.
        index: u32,
        /// Chunks of the snapshot.
        count: usize,
    },
    /// A key or value outside the limits.
    #[error("chunk {index} has an entry with a key of {key} and a value of {value} bytes; ask another node")]
    Entry {
        /// The chunk.
        index: u32,
        /// Bytes of the key.
        key: usize,
        /// Bytes of the value.
        value: usize,
    },
    /// Entries out of order, doubled, or of another subtree.
    #[error("chunk {index} has entries out of order or of another part of the tree; ask another node")]
    Order {
        /// The chunk.
        index: u32,
    },
    /// Entries missing, added or changed.
    #[error("entries of chunk {index} are not those of the certified state; ask another node")]
    WrongRoot {
        /// The chunk.
        index: u32,
    },
}

/// Where a chunk lies in the space of key hashes: all that begin with the first `depth` bits of `prefix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Smallest key hash inside.
    pub prefix: [u8; 32],
    /// Bits that count.
    pub depth: u8,
}

impl Span {
    /// The whole tree.
    pub const ALL: Self = Self { prefix: [0; 32], depth: 0 };

    /// Says whether a key hash lies inside.
    #[must_use]
    pub fn holds(&self, key_hash: &[u8; 32]) -> bool {
        (0..usize::from(self.depth)).all(|depth| bit(&self.prefix, depth) == bit(key_hash, depth))
    }

    /// Returns the two halves; `None` at the deepest level.
    #[must_use]
    pub fn split(&self) -> Option<(Self, Self)> {
        let depth = self.depth.checked_add(1)?;
        let left = Self { prefix: self.prefix, depth };
        let mut right = left;
        let at = usize::from(self.depth);
        if let Some(byte) = right.prefix.get_mut(at / 8) {
            *byte |= 0x80 >> (at % 8);
        }
        Some((left, right))
    }
}

/// Returns the root of the subtree at `depth` whose leaves are exactly `leaves`, sorted by key hash, each once.
#[must_use]
pub fn subtree_root(leaves: &[ProofLeaf], depth: usize) -> [u8; 32] {
    match leaves {
        [] => EMPTY_SUBTREE,
        [leaf] => leaf_hash(leaf),
        // Different hashes differ in one of 256 bits; equal ones are kept out by the caller.
        _ if depth >= 256 => EMPTY_SUBTREE,
        more => {
            let (left, right) =
                more.split_at(more.partition_point(|leaf| !bit(leaf.key_hash.as_bytes(), depth)));
            let below = depth.saturating_add(1);
            node_hash(&subtree_root(left, below), &subtree_root(right, below))
        }
    }
}

impl SnapshotCut {
    /// Returns the state root that the chunks fold to.
    ///
    /// # Errors
    /// [`CutError::Count`] or [`CutError::Shape`].
    pub fn root(&self) -> Result<StateRoot, CutError> {
        let count = self.chunks.len();
        if count == 0 || count > SNAPSHOT_CHUNKS_MAX {
            return Err(CutError::Count { count });
        }
        // A subtree waits for its right neighbour of the same depth; both together are their parent.
        let mut waiting: Vec<(u8, [u8; 32])> = Vec::new();
        for chunk in &self.chunks {
            let (mut depth, mut hash) = (chunk.depth, *chunk.root.as_bytes());
            while let Some((_, left)) = waiting.pop_if(|(left, _)| *left == depth) {
                depth = depth.checked_sub(1).ok_or(CutError::Shape)?;
                hash = node_hash(&left, &hash);
            }
            waiting.push((depth, hash));
        }
        match waiting.as_slice() {
            [(0, hash)] => Ok(StateRoot::from_bytes(*hash)),
            _ => Err(CutError::Shape),
        }
    }

    /// Checks that the chunks are a whole state of root `expected`.
    ///
    /// # Errors
    /// [`CutError`] naming what does not fit.
    pub fn verify(&self, expected: &StateRoot) -> Result<(), CutError> {
        let found = self.root()?;
        if found == *expected { Ok(()) } else { Err(CutError::WrongRoot { found, expected: *expected }) }
    }

    /// Returns where each chunk lies, for a cut whose shape was verified.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::with_capacity(self.chunks.len());
        let mut open = vec![Span::ALL];
        for chunk in &self.chunks {
            while let Some(span) = open.pop_if(|span| span.depth < chunk.depth) {
                let Some((left, right)) = span.split() else { break };
                open.push(right);
                open.push(left);
            }
            let Some(span) = open.pop() else { break };
            spans.push(span);
        }
        spans
    }
}

impl SnapshotChunk {
    /// Returns the leaves of the entries, in their order.
    #[must_use]
    pub fn leaves(&self) -> Vec<ProofLeaf> {
        self.entries
            .iter()
            .map(|entry| ProofLeaf {
                key_hash: MerkleRoot::from_bytes(plain(&entry.key)),
                value_hash: MerkleRoot::from_bytes(plain(&entry.value)),
            })
            .collect()
    }

    /// Checks that the entries are exactly those of the subtree at `span` with root `root`; `index` is for the error.
    ///
    /// # Errors
    /// [`ChunkError`] naming what does not fit: the sender lied or its disk did.
    pub fn verify(&self, index: u32, span: &Span, root: &MerkleRoot) -> Result<(), ChunkError> {
        for entry in &self.entries {
            let (key, value) = (entry.key.len(), entry.value.len());
            if key == 0 || key > STATE_KEY_BYTES_MAX || value > STATE_VALUE_BYTES_MAX {
                return Err(ChunkError::Entry { index, key, value });
            }
        }
        let leaves = self.leaves();
        let ascending = leaves.windows(2).all(|pair| matches!(pair, [a, b] if a.key_hash < b.key_hash));
        // In order, so that the outer ones speak for all.
        let inside =
            [leaves.first(), leaves.last()].iter().flatten().all(|leaf| span.holds(leaf.key_hash.as_bytes()));
        if !ascending || !inside {
            return Err(ChunkError::Order { index });
        }
        if subtree_root(&leaves, usize::from(span.depth)) == *root.as_bytes() {
            Ok(())
        } else {
            Err(ChunkError::WrongRoot { index })
        }
    }
}
