//! A state in memory: for tests, the simulator and tools. Holds the newest version only.

use std::collections::BTreeMap;

use crate::changes::ChangeSet;
use crate::read::{ReadError, StateRead};

/// A state in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryState {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    nodes: BTreeMap<Vec<u8>, Vec<u8>>,
    tree_version: Option<u64>,
}

impl MemoryState {
    /// Makes a state without entries, from before genesis.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a change set and forgets the tree nodes that it made stale.
    pub fn apply(&mut self, changes: &ChangeSet) {
        for (key, value) in &changes.values {
            match value {
                Some(value) => self.values.insert(key.clone(), value.clone()),
                None => self.values.remove(key),
            };
        }
        for key in &changes.stale {
            self.nodes.remove(key);
        }
        self.nodes.extend(changes.nodes.iter().cloned());
        if changes.tree_version.is_some() {
            self.tree_version = changes.tree_version;
        }
    }

    /// Returns every entry, sorted by key bytes.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// Returns the number of tree nodes held.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }
}

impl StateRead for MemoryState {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.values.get(key).cloned())
    }

    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.nodes.get(key).cloned())
    }

    fn tree_version(&self) -> Result<Option<u64>, ReadError> {
        Ok(self.tree_version)
    }
}
