//! Tree nodes and their keys: the byte forms that the tree library reads, and the hash of a node (SPEC.md §6).
//!
//! A node spans four levels of the binary tree: up to 16 children, each a leaf or a node further down.

use tiltyard_proto::hash::plain;
use tiltyard_proto::state_proof::EMPTY_SUBTREE;

use crate::read::ReadError;

/// A hash of a key, of a value or of a subtree.
pub(super) type Digest = [u8; 32];

/// Nibbles in the hash of a key: the tree is never deeper.
pub(super) const DEPTH_MAX: usize = 64;

const NULL: u8 = 0;
const INTERNAL: u8 = 1;
const LEAF: u8 = 2;

/// Returns the nibble of a key hash that chooses the child of a node at `depth`, high half of a byte first.
pub(super) fn nibble(key_hash: &Digest, depth: usize) -> usize {
    let byte = key_hash.get(depth / 2).copied().unwrap_or_default();
    usize::from(if depth.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f })
}

/// Returns the bytes of the key of the node at `depth` above `key_hash`, written by tree version `version`.
pub(super) fn node_key(version: u64, key_hash: &Digest, depth: usize) -> Vec<u8> {
    let whole = depth / 2;
    let length = depth.div_ceil(2);
    let mut out = Vec::with_capacity(length.saturating_add(20));
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&(depth as u64).to_le_bytes());
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(key_hash.iter().take(whole));
    if length > whole {
        out.extend(key_hash.get(whole).map(|byte| byte & 0xf0));
    }
    out
}

/// An entry of the state: hash of its key, hash of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) key_hash: Digest,
    pub(super) value_hash: Digest,
}

impl Leaf {
    pub(super) fn hash(&self) -> Digest {
        let mut bytes = [0; 77];
        bytes[..13].copy_from_slice(b"JMT::LeafNode");
        bytes[13..45].copy_from_slice(&self.key_hash);
        bytes[45..].copy_from_slice(&self.value_hash);
        plain(&bytes)
    }
}

/// What a node knows of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) hash: Digest,
    /// Tree version that wrote the child's node.
    pub(super) version: u64,
    /// Leaves below an inner child; `None` for a leaf.
    pub(super) leaves: Option<u64>,
}

/// A node with children, in the order of their nibbles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Inner {
    pub(super) children: [Option<Child>; 16],
}

/// A subtree within a node: a lone leaf stands for every subtree that holds nothing else.
#[derive(Clone, Copy)]
enum Part {
    Empty,
    Leaf(Digest),
    Inner(Digest),
}

impl Part {
    fn digest(self) -> Digest {
        match self {
            Self::Empty => EMPTY_SUBTREE,
            Self::Leaf(hash) | Self::Inner(hash) => hash,
        }
    }

    fn join(left: Self, right: Self) -> Self {
        match (left, right) {
            (Self::Empty, Self::Empty) => Self::Empty,
            (Self::Leaf(hash), Self::Empty) | (Self::Empty, Self::Leaf(hash)) => Self::Leaf(hash),
            (left, right) => {
                let mut bytes = [0; 80];
                bytes[..16].copy_from_slice(b"JMT::IntrnalNode");
                bytes[16..48].copy_from_slice(&left.digest());
                bytes[48..].copy_from_slice(&right.digest());
                Self::Inner(plain(&bytes))
            }
        }
    }

    /// Joins a power of two of neighbours.
    fn fold(parts: &[Self]) -> Self {
        match parts {
            [] => Self::Empty,
            [one] => *one,
            many => {
                let (left, right) = many.split_at(many.len() / 2);
                Self::join(Self::fold(left), Self::fold(right))
            }
        }
    }
}

impl Inner {
    pub(super) fn hash(&self) -> Digest {
        let parts = self.children.map(|child| match child {
            None => Part::Empty,
            Some(Child { hash, leaves: None, .. }) => Part::Leaf(hash),
            Some(Child { hash, leaves: Some(_), .. }) => Part::Inner(hash),
        });
        Part::fold(&parts).digest()
    }

    pub(super) fn leaves(&self) -> u64 {
        let each = self.children.iter().flatten().map(|child| child.leaves.unwrap_or(1));
        each.fold(0, u64::saturating_add)
    }
}

/// A stored node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// The root of a tree that has lost all its leaves.
    Null,
    Inner(Box<Inner>),
    Leaf(Leaf),
}

impl Node {
    pub(super) fn hash(&self) -> Digest {
        match self {
            Self::Null => EMPTY_SUBTREE,
            Self::Inner(inner) => inner.hash(),
            Self::Leaf(leaf) => leaf.hash(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Null => vec![NULL],
            Self::Leaf(leaf) => [&[LEAF][..], &leaf.key_hash, &leaf.value_hash].concat(),
            Self::Inner(inner) => {
                let mut out = Vec::with_capacity(16 * 50);
                out.push(INTERNAL);
                let mut count = 0u64;
                for child in &inner.children {
                    out.push(u8::from(child.is_some()));
                    let Some(child) = child else { continue };
                    count = count.saturating_add(1);
                    out.extend_from_slice(&child.hash);
                    out.extend_from_slice(&child.version.to_le_bytes());
                    out.push(u8::from(child.leaves.is_some()));
                    out.extend(child.leaves.map(u64::to_le_bytes).into_iter().flatten());
                }
                out.extend_from_slice(&count.to_le_bytes());
                out.extend_from_slice(&inner.leaves().to_le_bytes());
                out
            }
        }
    }

    /// Reads a stored node.
    ///
    /// # Errors
    /// [`ReadError`] when the bytes are no node.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        Self::take(bytes).ok_or_else(|| ReadError::new("a tree node is not in its form"))
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let node = match take(&mut rest)? {
            [NULL] => Self::Null,
            [LEAF] => Self::Leaf(Leaf { key_hash: take(&mut rest)?, value_hash: take(&mut rest)? }),
            [INTERNAL] => {
                let mut inner = Box::<Inner>::default();
                let mut count = 0u64;
                for slot in &mut inner.children {
                    *slot = match take(&mut rest)? {
                        [0] => None,
                        [1] => Some(child(&mut rest)?),
                        [_] => return None,
                    };
                    count = count.saturating_add(u64::from(slot.is_some()));
                }
                let counts = (u64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
                if counts != (count, inner.leaves()) {
                    return None;
                }
                Self::Inner(inner)
            }
            [_] => return None,
        };
        rest.is_empty().then_some(node)
    }
}

fn child(rest: &mut &[u8]) -> Option<Child> {
    let (hash, version) = (take(rest)?, u64::from_le_bytes(take(rest)?));
    let leaves = match take(rest)? {
        [0] => None,
        [1] => Some(u64::from_le_bytes(take(rest)?)),
        [_] => return None,
    };
    Some(Child { hash, version, leaves })
}

/// Takes the next `N` bytes.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
