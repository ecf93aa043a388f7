//! What is kept and what is promised: the account behind the size caps.

use std::collections::{BTreeMap, BTreeSet};

use tiltyard_proto::ids::BlobRoot;

use super::BlobInfo;

#[derive(Debug, Default)]
pub(super) struct Room {
    complete: BTreeMap<BlobRoot, BlobInfo>,
    partial: BTreeMap<BlobRoot, u64>,
    open: BTreeSet<BlobRoot>,
    inserting: u64,
    names: u64,
}

impl Room {
    /// Bytes kept and promised.
    pub(super) fn used(&self) -> u64 {
        let complete = self.complete.values().fold(0u64, |sum, info| sum.saturating_add(info.bytes));
        let partial = self.partial.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
        complete.saturating_add(partial).saturating_add(self.inserting)
    }

    pub(super) fn has(&self, root: &BlobRoot) -> bool {
        self.complete.contains_key(root)
    }

    pub(super) fn list(&self) -> Vec<BlobInfo> {
        self.complete.values().copied().collect()
    }

    /// Counts a complete blob, whose download, if any, thereby ends.
    pub(super) fn keep(&mut self, info: BlobInfo) {
        self.partial.remove(&info.root);
        self.complete.insert(info.root, info);
    }

    /// Counts a download in progress at its full size.
    pub(super) fn promise(&mut self, root: BlobRoot, bytes: u64) {
        self.partial.insert(root, bytes);
    }

    pub(super) fn is_promised(&self, root: &BlobRoot) -> bool {
        self.partial.contains_key(root)
    }

    /// Forgets a blob, complete or in part; says whether there was one.
    pub(super) fn forget(&mut self, root: &BlobRoot) -> bool {
        let complete = self.complete.remove(root).is_some();
        self.partial.remove(root).is_some() || complete
    }

    /// Marks a download as being written; `false` when it already is.
    pub(super) fn open(&mut self, root: BlobRoot) -> bool {
        self.open.insert(root)
    }

    pub(super) fn close(&mut self, root: &BlobRoot) {
        self.open.remove(root);
    }

    pub(super) fn is_open(&self, root: &BlobRoot) -> bool {
        self.open.contains(root)
    }

    /// Counts bytes that are being copied in.
    pub(super) fn insert_begins(&mut self, bytes: u64) {
        self.inserting = self.inserting.saturating_add(bytes);
    }

    pub(super) fn insert_ends(&mut self, bytes: u64) {
        self.inserting = self.inserting.saturating_sub(bytes);
    }

    /// Returns a name that this run has not used before.
    pub(super) fn fresh_name(&mut self) -> String {
        self.names = self.names.saturating_add(1);
        format!("{}", self.names)
    }
}
