//! What roles remember across restarts: a small map, durable entry by entry, apart from the rebuildable state index.

use std::collections::BTreeMap;
use std::path::Path;

use tiltyard_keys::GenesisHash;

use crate::append::{AppendFile, Salvage};
use crate::error::StoreError;

/// Largest key, in bytes.
pub const ROLE_KEY_BYTES_MAX: usize = 512;
/// Largest value, in bytes.
pub const ROLE_VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of keys and values together.
pub const ROLE_TOTAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The file may hold this many bytes more than twice its live entries before it is rewritten.
const SLACK_BYTES: u64 = 256 * 1024;

/// The map and its file.
#[derive(Debug)]
pub struct Roles {
    file: AppendFile,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    live_bytes: u64,
}

/// Largest frame payload, in bytes.
pub(crate) fn payload_max() -> u32 {
    u32::try_from(4 + ROLE_KEY_BYTES_MAX + ROLE_VALUE_BYTES_MAX).unwrap_or(u32::MAX)
}

fn join(key: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], key, value].concat()
}

fn split(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = payload.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn weight(key: &[u8], value: &[u8]) -> u64 {
    (key.len() as u64).saturating_add(value.len() as u64)
}

fn fits(what: &'static str, length: usize, max: usize) -> Result<(), StoreError> {
    if length > max {
        return Err(StoreError::TooLarge { what, length: length as u64, max: max as u64 });
    }
    Ok(())
}

impl Roles {
    /// Name of the file.
    pub const NAME: &'static str = "roles";

    /// Opens or makes the file in `folder`; returns what was damaged: the entries that are whole are kept.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn open(folder: &Path, network: &GenesisHash) -> Result<(Self, Option<Salvage>), StoreError> {
        let path = folder.join(Self::NAME);
        let (file, all, salvage) =
            AppendFile::open_salvaging(&path, "roles", network.as_bytes(), payload_max())?;
        let mut this = Self { file, entries: BTreeMap::new(), live_bytes: 0 };
        for (_, payload) in all {
            let (key, value) = split(&payload).ok_or_else(|| StoreError::Damaged {
                path: path.clone(),
                offset: 0,
                fact: "an entry holds no key".to_owned(),
            })?;
            this.apply(key, value);
        }
        Ok((this, salvage))
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) {
        if let Some(old) = self.entries.remove(key) {
            self.live_bytes = self.live_bytes.saturating_sub(weight(key, &old));
        }
        if !value.is_empty() {
            self.live_bytes = self.live_bytes.saturating_add(weight(key, value));
            self.entries.insert(key.to_vec(), value.to_vec());
        }
    }

    /// Keeps an entry; an empty value removes the key. Durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; the old value then still counts.
    pub fn save(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        fits("role key", key.len(), ROLE_KEY_BYTES_MAX)?;
        fits("role value", value.len(), ROLE_VALUE_BYTES_MAX)?;
        if self.entries.get(key).map_or(value.is_empty(), |old| old == value) {
            return Ok(());
        }
        let grown = self.live_bytes.saturating_add(weight(key, value));
        if !value.is_empty() && grown > ROLE_TOTAL_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: "role memory",
                length: grown,
                max: ROLE_TOTAL_BYTES_MAX,
            });
        }
        self.file.append(0, &join(key, value))?;
        self.apply(key, value);
        let bound = self.live_bytes.saturating_mul(2).saturating_add(SLACK_BYTES);
        if self.file.bytes() > bound {
            let live: Vec<Vec<u8>> = self.entries.iter().map(|(key, value)| join(key, value)).collect();
            self.file.rewrite(live.iter().map(|entry| (0, entry.as_slice())))?;
        }
        Ok(())
    }

    /// Returns the entries, sorted by key.
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.entries
    }
}
