//! Writes all changes of a block into the tree at once: a node on the way of many of them is read, hashed and written
//! once. (The tree library would walk from the root for
//! each; ADR 010.)

use crate::read::{ReadError, StateRead};

use super::node::{Child, DEPTH_MAX, Digest, Inner, Leaf, Node, nibble, node_key};

/// One change: hash of the key; hash of the new value, or `None` when the entry goes.
pub(super) type Write = (Digest, Option<Digest>);

/// What a batch leads to.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// New nodes by node key.
    pub(super) nodes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys of nodes that the new version does not use.
    pub(super) stale: Vec<Vec<u8>>,
}

/// A subtree after the batch. A leaf has no place yet: whether it stays at this depth is for the node above to say.
enum Subtree {
    Empty,
    Leaf(Leaf),
    Inner(Child),
}

pub(super) struct Batch<'a> {
    state: &'a dyn StateRead,
    /// Tree version being written.
    version: u64,
    written: Written,
}

impl<'a> Batch<'a> {
    pub(super) fn new(state: &'a dyn StateRead, version: u64) -> Self {
        Self { state, version, written: Written::default() }
    }

    /// Applies `writes`, sorted by key hash and each key once, to the tree of version `last`.
    pub(super) fn apply(
        mut self,
        last: Option<u64>,
        writes: &[Write],
    ) -> Result<(Digest, Written), ReadError> {
        // At depth 0 the node key holds nothing of the key hash.
        let root = [0; 32];
        let subtree = match last {
            Some(version) => self.change(version, &root, 0, writes)?,
            None => self.build(&present(writes), 0)?,
        };
        let hash = match subtree {
            Subtree::Empty => self.put(&root, 0, &Node::Null),
            Subtree::Leaf(leaf) => self.put(&root, 0, &Node::Leaf(leaf)),
            Subtree::Inner(child) => child.hash,
        };
        self.written.nodes.sort_unstable();
        self.written.stale.sort_unstable();
        Ok((hash, self.written))
    }

    /// Applies `writes` to the stored node at `depth` above `path`; all of them lie below it.
    fn change(
        &mut self,
        version: u64,
        path: &Digest,
        depth: usize,
        writes: &[Write],
    ) -> Result<Subtree, ReadError> {
        match self.take_old(version, path, depth)? {
            Node::Null => self.build(&present(writes), depth),
            Node::Leaf(old) => {
                let mut leaves = present(writes);
                if let Err(at) = writes.binary_search_by(|(key_hash, _)| key_hash.cmp(&old.key_hash)) {
                    let before = writes.iter().take(at).filter(|(_, value)| value.is_some()).count();
                    leaves.insert(before, old);
                }
                self.build(&leaves, depth)
            }
            Node::Inner(mut inner) => {
                let below = depth.saturating_add(1);
                for group in writes.chunk_by(|(a, _), (b, _)| nibble(a, depth) == nibble(b, depth)) {
                    let Some((path, _)) = group.first() else { continue };
                    let Some(slot) = inner.children.get_mut(nibble(path, depth)) else { continue };
                    let subtree = match *slot {
                        Some(child) => self.change(child.version, path, below, group)?,
                        None => self.build(&present(group), below)?,
                    };
                    *slot = match subtree {
                        Subtree::Empty => None,
                        Subtree::Inner(child) => Some(child),
                        Subtree::Leaf(leaf) => Some(self.place(leaf, below)),
                    };
                }
                self.close(*inner, path, depth)
            }
        }
    }

    /// Builds the subtree of `leaves`, sorted, where there was none.
    fn build(&mut self, leaves: &[Leaf], depth: usize) -> Result<Subtree, ReadError> {
        let path = match leaves {
            [] => return Ok(Subtree::Empty),
            [leaf] => return Ok(Subtree::Leaf(*leaf)),
            [first, ..] if depth < DEPTH_MAX => first.key_hash,
            [..] => return Err(ReadError::new("two state keys have one hash")),
        };
        let below = depth.saturating_add(1);
        let mut inner = Inner::default();
        for group in leaves.chunk_by(|a, b| nibble(&a.key_hash, depth) == nibble(&b.key_hash, depth)) {
            let Some(first) = group.first() else { continue };
            let child = match self.build(group, below)? {
                Subtree::Empty => continue,
                Subtree::Inner(child) => child,
                Subtree::Leaf(leaf) => self.place(leaf, below),
            };
            if let Some(slot) = inner.children.get_mut(nibble(&first.key_hash, depth)) {
                *slot = Some(child);
            }
        }
        self.close(inner, &path, depth)
    }

    /// Ends a node: one without children is nothing, one with a lone leaf is that leaf.
    fn close(&mut self, inner: Inner, path: &Digest, depth: usize) -> Result<Subtree, ReadError> {
        let mut children = (0u8..16).zip(inner.children).filter_map(|(at, child)| Some((at, child?)));
        let Some((at, only)) = children.next() else {
            return Ok(Subtree::Empty);
        };
        if only.leaves.is_none() && children.next().is_none() {
            return self.lift(only.version, path, depth, at).map(Subtree::Leaf);
        }
        let (version, leaves) = (self.version, Some(inner.leaves()));
        let hash = self.put(path, depth, &Node::Inner(Box::new(inner)));
        Ok(Subtree::Inner(Child { hash, version, leaves }))
    }

    /// Takes the lone leaf under a node that is no more, written before or by this batch.
    fn lift(&mut self, version: u64, path: &Digest, depth: usize, at: u8) -> Result<Leaf, ReadError> {
        let mut path = *path;
        if let Some(byte) = path.get_mut(depth / 2) {
            *byte = if depth.is_multiple_of(2) { at << 4 } else { (*byte & 0xf0) | at };
        }
        let below = depth.saturating_add(1);
        let node = if version == self.version {
            // Children are written after what lies below them: the leaf is the newest node of this batch, or close.
            let key = node_key(version, &path, below);
            let found = self.written.nodes.iter().rposition(|(of, _)| *of == key);
            let (_, bytes) = found
                .map(|at| self.written.nodes.swap_remove(at))
                .ok_or_else(|| ReadError::new("a tree node that was just written is lost"))?;
            Node::decode(&bytes)?
        } else {
            self.take_old(version, &path, below)?
        };
        match node {
            Node::Leaf(leaf) => Ok(leaf),
            Node::Null | Node::Inner(_) => Err(ReadError::new("a tree node is another than its parent says")),
        }
    }

    /// Writes a leaf at its place.
    fn place(&mut self, leaf: Leaf, depth: usize) -> Child {
        let hash = self.put(&leaf.key_hash, depth, &Node::Leaf(leaf));
        Child { hash, version: self.version, leaves: None }
    }

    fn put(&mut self, path: &Digest, depth: usize, node: &Node) -> Digest {
        self.written.nodes.push((node_key(self.version, path, depth), node.encode()));
        node.hash()
    }

    /// Reads a node of an earlier version; the new one does without it.
    fn take_old(&mut self, version: u64, path: &Digest, depth: usize) -> Result<Node, ReadError> {
        let key = node_key(version, path, depth);
        let Some(bytes) = self.state.node(&key)? else {
            return Err(ReadError::new(format!("tree node of version {version} at depth {depth} is lost")));
        };
        self.written.stale.push(key);
        Node::decode(&bytes)
    }
}

/// Lists the entries that are there after `writes`.
fn present(writes: &[Write]) -> Vec<Leaf> {
    writes
        .iter()
        .filter_map(|(key_hash, value)| Some(Leaf { key_hash: *key_hash, value_hash: (*value)? }))
        .collect()
}
