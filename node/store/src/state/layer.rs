//! What blocks changed and the database does not hold yet: laid over it for readers, written behind their back.
//!
//! The log is the truth, so nothing here has to be durable. Changes of many blocks meet in one layer: an account that
//! a hundred blocks touched is written once, and a tree node that came and went in between never.

use std::collections::HashMap;
use std::sync::Arc;

use super::Marker;

/// What an entry costs beyond its bytes, about.
const ENTRY_BYTES: usize = 112;

/// Keys of the database with their new values; `None` removes.
#[derive(Debug, Default)]
pub(super) struct Layer {
    entries: HashMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    /// Up to where the database is true once all of this is in it.
    pub(super) marker: Option<Marker>,
}

impl Layer {
    /// Bytes of memory held, about.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.entries.get(key).map(Option::as_deref)
    }

    pub(super) fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let (name, fresh) = (key.len(), value.as_ref().map_or(0, Vec::len));
        match self.entries.insert(key, value) {
            Some(old) => self.bytes = self.bytes.saturating_sub(old.map_or(0, |old| old.len())),
            None => self.bytes = self.bytes.saturating_add(name).saturating_add(ENTRY_BYTES),
        }
        self.bytes = self.bytes.saturating_add(fresh);
    }

    /// Takes back a value that was set here and nowhere else; false when there is none.
    pub(super) fn unset(&mut self, key: &[u8]) -> bool {
        if !matches!(self.entries.get(key), Some(Some(_))) {
            return false;
        }
        let old = self.entries.remove(key).flatten().map_or(0, |old| old.len());
        let freed = old.saturating_add(key.len()).saturating_add(ENTRY_BYTES);
        self.bytes = self.bytes.saturating_sub(freed);
        true
    }

    /// Returns the entries by ascending key.
    pub(super) fn sorted(&self) -> Vec<(&[u8], Option<&[u8]>)> {
        let entries = self.entries.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
        let mut sorted: Vec<_> = entries.collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        sorted
    }
}

/// The layers over the database, newest first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Grows with every block.
    pub(super) active: Layer,
    /// Is being written into the database.
    pub(super) leaving: Option<Arc<Layer>>,
}

impl Pending {
    /// Returns what the layers say of a key: its value, that it is gone, or (`None`) nothing.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.active.get(key).or_else(|| self.leaving.as_ref().and_then(|layer| layer.get(key)))
    }

    /// Returns the newest marker of the layers.
    pub(super) fn marker(&self) -> Option<Marker> {
        self.active.marker.or_else(|| self.leaving.as_ref().and_then(|layer| layer.marker))
    }

    /// Makes the active layer the leaving one; there must be none.
    pub(super) fn turn(&mut self) -> Arc<Layer> {
        let layer = Arc::new(std::mem::take(&mut self.active));
        self.leaving = Some(Arc::clone(&layer));
        layer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_went_leaves_no_trace_and_no_bytes() {
        let mut layer = Layer::default();
        layer.set(b"node".to_vec(), Some(vec![1; 100]));
        layer.set(b"node".to_vec(), Some(vec![1; 40]));
        assert!(layer.unset(b"node"));
        assert!(!layer.unset(b"node"), "it is not here any more");
        assert_eq!((layer.bytes(), layer.is_empty()), (0, true));
        layer.set(b"gone".to_vec(), None);
        assert!(!layer.unset(b"gone"), "the database may still hold it");
    }

    #[test]
    fn the_newer_layer_hides_the_older() {
        let mut pending = Pending::default();
        pending.active.set(b"a".to_vec(), Some(b"old".to_vec()));
        pending.active.set(b"b".to_vec(), Some(b"old".to_vec()));
        pending.turn();
        pending.active.set(b"a".to_vec(), None);
        assert_eq!(pending.get(b"a"), Some(None), "gone");
        assert_eq!(pending.get(b"b"), Some(Some(&b"old"[..])));
        assert_eq!(pending.get(b"c"), None, "nothing is said of it");
    }
}
