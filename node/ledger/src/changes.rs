//! What one block changes, and a state seen through changes that are not stored yet.

use std::collections::BTreeMap;

use tiltyard_proto::ids::StateRoot;

use crate::read::{ReadError, StateRead};

/// New value bytes by state key bytes; `None` removes the entry.
pub type Values = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What one block changes in the state; empty when it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeSet {
    /// New value bytes by state key bytes; `None` removes the entry. Entries that stay as they were are not listed.
    pub values: Values,
    /// New tree nodes, by node key bytes, sorted.
    pub nodes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys of tree nodes that no newer version needs, sorted.
    pub stale: Vec<Vec<u8>>,
    /// The tree version written; `None` when nothing changed.
    pub tree_version: Option<u64>,
    /// Root of the state after the block.
    pub state_root: StateRoot,
}

/// A state with a change set laid over it; overlays stack.
#[derive(Clone)]
pub struct Overlay<'a> {
    base: &'a dyn StateRead,
    changes: &'a ChangeSet,
}

impl<'a> Overlay<'a> {
    /// Lays `changes` over `base`.
    #[must_use]
    pub fn new(base: &'a dyn StateRead, changes: &'a ChangeSet) -> Self {
        Self { base, changes }
    }
}

impl core::fmt::Debug for Overlay<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Overlay").field("state_root", &self.changes.state_root).finish_non_exhaustive()
    }
}

impl StateRead for Overlay<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        match self.changes.values.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.value(key),
        }
    }

    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let found = self.changes.nodes.binary_search_by(|(at, _)| at.as_slice().cmp(key));
        match found.ok().and_then(|at| self.changes.nodes.get(at)) {
            Some((_, node)) => Ok(Some(node.clone())),
            None => self.base.node(key),
        }
    }

    fn tree_version(&self) -> Result<Option<u64>, ReadError> {
        match self.changes.tree_version {
            Some(version) => Ok(Some(version)),
            None => self.base.tree_version(),
        }
    }
}
