//! Membership and absence proofs of the authenticated state.
//!
//! The tree is the Jellyfish Merkle tree in its binary form over BLAKE3 (SPEC.md §6): leaf
//! `H("JMT::LeafNode" ‖ key hash ‖ value hash)`, inner node `H("JMT::IntrnalNode" ‖ left ‖ right)`, key hash =
//! BLAKE3(key), value hash = BLAKE3(value). A proof carries one 32-byte sibling a level.

use serde::{Deserialize, Serialize};

use crate::hash::plain;
use crate::ids::{MerkleRoot, StateRoot};

/// Root of a subtree without leaves.
pub const EMPTY_SUBTREE: [u8; 32] = *b"SPARSE_MERKLE_PLACEHOLDER_HASH__";

/// Most levels of the tree.
pub const LEVELS_MAX: usize = 256;

/// A leaf as the proof carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofLeaf {
    /// BLAKE3 of the state key.
    pub key_hash: MerkleRoot,
    /// BLAKE3 of the state value.
    pub value_hash: MerkleRoot,
}

/// Proves that a key has a value, or that it has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateProof {
    /// The leaf at the end of the path: the key's own, another's (absence), or none (absence).
    pub leaf: Option<ProofLeaf>,
    /// Sibling hashes from the leaf up to the root.
    pub siblings: Vec<MerkleRoot>,
}

/// Says why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateProofError {
    /// More levels than the tree can have.
    #[error("proof has {levels} levels, the tree at most 256; ask another node")]
    TooDeep {
        /// Levels given.
        levels: usize,
    },
    /// The leaf is not the one asked for.
    #[error("proof ends at another key or value than the one asked for; ask another node")]
    WrongLeaf,
    /// The leaf offered as proof of absence lies outside the key's path.
    #[error("proof of absence ends at a leaf that is not on the key's path; ask another node")]
    OffPath,
    /// The hashes do not lead to the root.
    #[error("proof leads to another state root; ask another node or another height")]
    WrongRoot,
}

pub(crate) fn leaf_hash(leaf: &ProofLeaf) -> [u8; 32] {
    let parts: [&[u8]; 3] = [b"JMT::LeafNode", leaf.key_hash.as_bytes(), leaf.value_hash.as_bytes()];
    plain(&parts.concat())
}

pub(crate) fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let parts: [&[u8]; 3] = [b"JMT::IntrnalNode", left, right];
    plain(&parts.concat())
}

pub(crate) fn bit(hash: &[u8; 32], depth: usize) -> bool {
    let byte = hash.get(depth / 8).copied().unwrap_or(0);
    let shift = 7usize.saturating_sub(depth % 8);
    (byte >> shift) & 1 == 1
}

fn shares_prefix(a: &[u8; 32], b: &[u8; 32], bits: usize) -> bool {
    (0..bits).all(|depth| bit(a, depth) == bit(b, depth))
}

impl StateProof {
    /// Checks that `key` has `value` (or, with `None`, no value) under `root`.
    ///
    /// # Errors
    /// [`StateProofError`] naming what does not fit.
    pub fn verify(&self, root: &StateRoot, key: &[u8], value: Option<&[u8]>) -> Result<(), StateProofError> {
        let levels = self.siblings.len();
        if levels > LEVELS_MAX {
            return Err(StateProofError::TooDeep { levels });
        }
        let key_hash = plain(key);
        match (value, &self.leaf) {
            (Some(value), Some(leaf)) => {
                if leaf.key_hash.as_bytes() != &key_hash || leaf.value_hash.as_bytes() != &plain(value) {
                    return Err(StateProofError::WrongLeaf);
                }
            }
            (Some(_), None) => return Err(StateProofError::WrongLeaf),
            (None, Some(leaf)) => {
                if leaf.key_hash.as_bytes() == &key_hash {
                    return Err(StateProofError::WrongLeaf);
                }
                if !shares_prefix(leaf.key_hash.as_bytes(), &key_hash, levels) {
                    return Err(StateProofError::OffPath);
                }
            }
            (None, None) => {}
        }
        let mut hash = self.leaf.as_ref().map_or(EMPTY_SUBTREE, leaf_hash);
        for (sibling, depth) in self.siblings.iter().zip((0..levels).rev()) {
            hash = if bit(&key_hash, depth) {
                node_hash(sibling.as_bytes(), &hash)
            } else {
                node_hash(&hash, sibling.as_bytes())
            };
        }
        if root.as_bytes() == &hash { Ok(()) } else { Err(StateProofError::WrongRoot) }
    }
}
