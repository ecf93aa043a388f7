//! Tree nodes in memory, bounded in bytes: two generations, the older dropped whole when the younger is full.

use std::collections::HashMap;
use std::mem;

/// What an entry costs beyond its bytes, about.
const ENTRY_BYTES: usize = 96;

#[derive(Debug, Default)]
pub(super) struct NodeCache {
    young: HashMap<Vec<u8>, Vec<u8>>,
    old: HashMap<Vec<u8>, Vec<u8>>,
    young_bytes: usize,
    half_bytes: usize,
}

impl NodeCache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { half_bytes: bytes_max / 2, ..Self::default() }
    }

    /// Returns a node and marks it as used.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        if let Some(node) = self.young.get(key) {
            return Some(node.clone());
        }
        let node = self.old.remove(key)?;
        self.put(key, &node);
        Some(node)
    }

    pub(super) fn put(&mut self, key: &[u8], node: &[u8]) {
        let cost = key.len().saturating_add(node.len()).saturating_add(ENTRY_BYTES);
        if cost > self.half_bytes {
            return;
        }
        if self.young_bytes.saturating_add(cost) > self.half_bytes {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(key.to_vec(), node.to_vec()).is_none() {
            self.young_bytes = self.young_bytes.saturating_add(cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_bounded_and_used_nodes_stay() {
        let mut cache = NodeCache::new(20_000);
        cache.put(b"hot", b"node");
        for at in 0u32..10_000 {
            cache.put(&at.to_be_bytes(), &[7; 50]);
            assert_eq!(cache.get(b"hot").as_deref(), Some(&b"node"[..]), "after {at} others");
            assert!(cache.young.len() + cache.old.len() < 20_000 / 100);
        }
        assert_eq!(cache.get(&0u32.to_be_bytes()), None);
    }

    #[test]
    fn a_cache_without_room_keeps_nothing() {
        let mut cache = NodeCache::new(0);
        cache.put(b"key", b"node");
        assert_eq!(cache.get(b"key"), None);
    }
}
