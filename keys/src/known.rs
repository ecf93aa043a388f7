//! Keys that have verified a signature in this process, as points: making the point of a key's bytes is a third of the
//! work of verifying. Bounded: two generations, the older dropped whole when the younger is full.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ed25519_dalek::VerifyingKey;

use crate::{KeyError, PublicKey};

/// Keys in a generation; one takes about 250 bytes.
const GENERATION_MAX: usize = 8_192;

#[derive(Debug, Default)]
struct Known {
    young: BTreeMap<PublicKey, VerifyingKey>,
    old: BTreeMap<PublicKey, VerifyingKey>,
}

impl Known {
    fn get(&mut self, key: &PublicKey) -> Option<VerifyingKey> {
        if let Some(found) = self.young.get(key) {
            return Some(*found);
        }
        let found = self.old.remove(key)?;
        self.put(*key, found);
        Some(found)
    }

    fn put(&mut self, key: PublicKey, point: VerifyingKey) {
        if self.young.len() >= GENERATION_MAX {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, point);
    }
}

fn known() -> MutexGuard<'static, Known> {
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a key as a point, and whether it was known.
pub(crate) fn point_of(key: &PublicKey) -> Result<(VerifyingKey, bool), KeyError> {
    if let Some(point) = known().get(key) {
        return Ok((point, true));
    }
    Ok((key.to_verifying()?, false))
}

/// Keeps a key that has verified a signature: bytes that anyone can make up push nothing out.
pub(crate) fn keep(key: &PublicKey, point: VerifyingKey) {
    known().put(*key, point);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretKey;

    fn key(at: u32) -> (PublicKey, VerifyingKey) {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&at.to_be_bytes());
        let key = SecretKey::from_seed(&seed).public();
        let point = key.to_verifying();
        (key, point.expect("a made key is a point"))
    }

    #[test]
    fn memory_stays_bounded_and_used_keys_stay() {
        let mut known = Known::default();
        let hot = key(u32::MAX);
        known.put(hot.0, hot.1);
        let (_, point) = key(0);
        for at in 0u32..40_000 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&at.to_be_bytes());
            known.put(PublicKey::from_bytes(bytes), point);
            assert_eq!(known.get(&hot.0), Some(hot.1), "after {at} others");
            assert!(known.young.len() <= GENERATION_MAX && known.old.len() <= GENERATION_MAX);
        }
        assert_eq!(known.get(&PublicKey::from_bytes([0; 32])), None, "the oldest is gone");
    }
}
