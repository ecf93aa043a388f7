//! Reads the entries of the state in the order of their key hashes, a window at a time.

use std::collections::BTreeMap;

use tiltyard_proto::snapshot::SnapshotEntry;

use crate::error::StoreError;
use crate::state::{StateIndex, UNDO, VALUE, guarded, unpack};

/// A window ends after so many bytes or entries.
const WINDOW_BYTES: usize = 1 << 20;
const WINDOW_ENTRIES: usize = 4_096;

/// The entries of a state, by ascending key hash.
pub(crate) struct Entries<'a> {
    index: &'a StateIndex,
    /// What is read next: prefix and a lower bound; `None` at the end.
    from: Option<Vec<u8>>,
    held: std::vec::IntoIter<SnapshotEntry>,
    undone: bool,
}

impl<'a> Entries<'a> {
    /// Reads the state as it is: nothing may be written meanwhile.
    pub(crate) fn newest(index: &'a StateIndex) -> Self {
        Self { index, from: Some(vec![VALUE]), held: Vec::new().into_iter(), undone: false }
    }

    /// Reads the state as it was when old values began to be kept, while blocks go on.
    pub(crate) fn undone(index: &'a StateIndex) -> Self {
        Self { undone: true, ..Self::newest(index) }
    }

    /// Reads the next window. Values are read before old ones: whatever is changed in between left its old value first.
    fn load(&mut self) -> Result<bool, StoreError> {
        let Some(from) = self.from.take() else { return Ok(false) };
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut last = None;
        guarded(|| {
            let mut bytes = 0usize;
            for entry in self.index.db().range(from.clone()..vec![VALUE.saturating_add(1)]) {
                let (key, value) = entry?;
                bytes = bytes.saturating_add(value.len());
                found.insert(key.get(1..).unwrap_or_default().to_vec(), value.to_vec());
                if bytes >= WINDOW_BYTES || found.len() >= WINDOW_ENTRIES {
                    last = Some(key.to_vec());
                    break;
                }
            }
            Ok(())
        })?;
        if self.undone {
            let low = [&[UNDO], from.get(1..).unwrap_or_default()].concat();
            let high = match &last {
                Some(key) => [&[UNDO], key.get(1..).unwrap_or_default(), &[0]].concat(),
                None => vec![UNDO.saturating_add(1)],
            };
            guarded(|| {
                for entry in self.index.db().range(low..high) {
                    let (key, old) = entry?;
                    let hash = key.get(1..).unwrap_or_default().to_vec();
                    match old.split_first() {
                        Some((1, old)) => drop(found.insert(hash, old.to_vec())),
                        Some(_) | None => drop(found.remove(&hash)),
                    }
                }
                Ok(())
            })?;
        }
        self.from = last.map(|key| [key.as_slice(), &[0]].concat());
        let entries: Option<Vec<SnapshotEntry>> = found
            .values()
            .map(|packed| {
                let (key, value) = unpack(packed)?;
                Some(SnapshotEntry { key: key.to_vec().into(), value: value.to_vec().into() })
            })
            .collect();
        let entries = entries.ok_or_else(|| StoreError::Index { fact: "a value is cut short".to_owned() })?;
        self.held = entries.into_iter();
        Ok(true)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<SnapshotEntry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.held.next() {
                return Some(Ok(entry));
            }
            match self.load() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.from = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "entries_tests.rs"]
mod tests;
