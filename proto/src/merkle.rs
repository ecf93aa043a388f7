//! Binary Merkle trees over byte strings: transactions of a block, rows of a validator.
//!
//! Leaf and node hashes have their own domains; an odd node moves up unchanged. The root binds the number of leaves, so
//! that a path cannot claim another one; the empty tree has the all-zero root (SPEC.md §8).

use serde::{Deserialize, Serialize};

use crate::hash::{context, derive};
use crate::ids::MerkleRoot;

/// Path from one leaf to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MerklePath {
    /// Position of the leaf, from 0.
    pub index: u32,
    /// Number of leaves.
    pub count: u32,
    /// Sibling hashes, leaf level first; levels without sibling are left out.
    pub siblings: Vec<MerkleRoot>,
}

fn leaf(bytes: &[u8]) -> [u8; 32] {
    derive(context::MERKLE_LEAF, &[bytes])
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    derive(context::MERKLE_NODE, &[left, right])
}

fn seal_count(count: u64, top: &[u8; 32]) -> MerkleRoot {
    MerkleRoot::from_bytes(derive(context::MERKLE_ROOT, &[&count.to_be_bytes(), top]))
}

fn level_up(level: &[[u8; 32]]) -> Vec<[u8; 32]> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => node(left, right),
            [single] => *single,
            _ => [0; 32],
        })
        .collect()
}

/// Returns the root over `leaves`.
pub fn root<T: AsRef<[u8]>>(leaves: impl IntoIterator<Item = T>) -> MerkleRoot {
    let mut level: Vec<[u8; 32]> = leaves.into_iter().map(|bytes| leaf(bytes.as_ref())).collect();
    let count = level.len() as u64;
    while level.len() > 1 {
        level = level_up(&level);
    }
    level.first().map_or(MerkleRoot::from_bytes([0; 32]), |top| seal_count(count, top))
}

/// Returns the path of leaf `index`, or `None` past the end.
pub fn path<T: AsRef<[u8]>>(leaves: impl IntoIterator<Item = T>, index: usize) -> Option<MerklePath> {
    let mut level: Vec<[u8; 32]> = leaves.into_iter().map(|bytes| leaf(bytes.as_ref())).collect();
    let count = u32::try_from(level.len()).ok()?;
    level.get(index)?;
    let mut siblings = Vec::new();
    let mut at = index;
    while level.len() > 1 {
        if let Some(sibling) = level.get(at ^ 1) {
            siblings.push(MerkleRoot::from_bytes(*sibling));
        }
        level = level_up(&level);
        at >>= 1;
    }
    Some(MerklePath { index: u32::try_from(index).ok()?, count, siblings })
}

impl MerklePath {
    /// Returns the root that this path leads to from `bytes`, or `None` when the path has the wrong shape.
    #[must_use]
    pub fn root_from(&self, bytes: &[u8]) -> Option<MerkleRoot> {
        if self.index >= self.count {
            return None;
        }
        let (mut at, mut width) = (self.index, self.count);
        let mut hash = leaf(bytes);
        let mut siblings = self.siblings.iter();
        while width > 1 {
            if at & 1 == 1 {
                hash = node(siblings.next()?.as_bytes(), &hash);
            } else if at.saturating_add(1) < width {
                hash = node(&hash, siblings.next()?.as_bytes());
            }
            at >>= 1;
            width = width.div_ceil(2);
        }
        siblings.next().is_none().then(|| seal_count(u64::from(self.count), &hash))
    }
}
