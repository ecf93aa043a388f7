//! A small append-only file of frames: one `fdatasync` per entry, rewritten whole when it must shrink.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::aside;
use crate::disk;
use crate::error::StoreError;
use crate::frame::{self, Found, Link};

/// One entry: tag and payload.
pub(crate) type Entry = (u64, Vec<u8>);

/// Where the first frame links to, one per kind of file, so that one kind is never read as another.
fn seed(kind: &str, network: &[u8; 32]) -> Link {
    let mut hasher = blake3::Hasher::new_derive_key("tiltyard/store/seed/v1");
    hasher.update(network);
    hasher.update(kind.as_bytes());
    *hasher.finalize().as_bytes()
}

/// A file that was damaged and made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvage {
    /// The file.
    pub path: PathBuf,
    /// Where the damage begins.
    pub offset: u64,
    /// What does not fit.
    pub fact: String,
    /// Where the damaged file is kept.
    pub kept: PathBuf,
}

/// Reads the entries of a damaged file that are whole.
pub(crate) fn whole_entries(path: &Path, payload_max: u32) -> Result<Vec<Entry>, StoreError> {
    let read = |e| StoreError::io("read", path, e);
    let file = disk::private().read(true).open(path).map_err(read)?;
    let end = file.metadata().map_err(read)?.len();
    let mut entries = Vec::new();
    let mut at = 0;
    while at < end {
        let next = match frame::read(&file, at, end, None, payload_max).map_err(read)? {
            Found::Frame(frame) => {
                let next = at.saturating_add(frame.total_bytes());
                entries.push((frame.head.tag, frame.payload));
                Some(next)
            }
            Found::End | Found::Torn => None,
            Found::Damage(_) => match frame::head_at(&file, at, end, payload_max).map_err(read)? {
                Some(next) => Some(next),
                None => frame::seek(&file, at.saturating_add(1), end).map_err(read)?,
            },
        };
        let Some(next) = next else { break };
        at = next;
    }
    Ok(entries)
}

/// An open file of frames.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    file: File,
    seed: Link,
    last: Link,
    end: u64,
    payload_max: u32,
    poisoned: bool,
}

impl AppendFile {
    /// Opens or makes the file and reads its entries; a torn tail is cut off.
    pub(crate) fn open(
        path: &Path,
        kind: &str,
        network: &[u8; 32],
        payload_max: u32,
    ) -> Result<(Self, Vec<Entry>), StoreError> {
        let fresh = !path.exists();
        let file = disk::private()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| StoreError::io("open", path, e))?;
        if fresh {
            file.sync_all().map_err(|e| StoreError::io("sync", path, e))?;
            path.parent()
                .map_or(Ok(()), disk::sync_folder)
                .map_err(|e| StoreError::io("sync the folder of", path, e))?;
        }
        let seed = seed(kind, network);
        let mut this =
            Self { path: path.to_path_buf(), file, seed, last: seed, end: 0, payload_max, poisoned: false };
        let entries = this.scan()?;
        Ok((this, entries))
    }

    /// Opens or makes the file; where it is damaged it is set aside and made anew from the entries that are whole.
    /// Returns them, and what was damaged.
    pub(crate) fn open_salvaging(
        path: &Path,
        kind: &str,
        network: &[u8; 32],
        payload_max: u32,
    ) -> Result<(Self, Vec<Entry>, Option<Salvage>), StoreError> {
        let (offset, fact) = match Self::open(path, kind, network, payload_max) {
            Ok((file, entries)) => return Ok((file, entries, None)),
            Err(StoreError::Damaged { offset, fact, .. }) => (offset, fact),
            Err(error) => return Err(error),
        };
        if offset == 0 && Self::begins_whole(path, payload_max)? {
            // The first frame is whole and does not begin this kind of file on this network.
            return Err(StoreError::Damaged { path: path.to_path_buf(), offset, fact });
        }
        let entries = whole_entries(path, payload_max)?;
        let kept = aside::move_file(path)?;
        tracing::warn!(path = %path.display(), offset, fact, kept = %kept.display(), "damaged file set aside");
        let (mut file, _) = Self::open(path, kind, network, payload_max)?;
        file.rewrite(entries.iter().map(|(tag, payload)| (*tag, payload.as_slice())))?;
        Ok((file, entries, Some(Salvage { path: path.to_path_buf(), offset, fact, kept })))
    }

    /// Reads the whole file and changes nothing; a torn tail is no damage. An absent file is sound.
    pub(crate) fn verify(
        path: &Path,
        kind: &str,
        network: &[u8; 32],
        payload_max: u32,
    ) -> Result<(), StoreError> {
        if !path.exists() {
            return Ok(());
        }
        let read = |e| StoreError::io("read", path, e);
        let file = disk::private().read(true).open(path).map_err(read)?;
        let end = file.metadata().map_err(read)?.len();
        let (mut at, mut last) = (0u64, seed(kind, network));
        loop {
            match frame::read(&file, at, end, Some(&last), payload_max).map_err(read)? {
                Found::Frame(frame) => {
                    at = at.saturating_add(frame.total_bytes());
                    last = frame.head.hash;
                }
                Found::End | Found::Torn => return Ok(()),
                Found::Damage(fact) => {
                    return Err(StoreError::Damaged { path: path.to_path_buf(), offset: at, fact });
                }
            }
        }
    }

    /// Says whether the file begins with a whole frame, of whatever kind or network.
    pub(crate) fn begins_whole(path: &Path, payload_max: u32) -> Result<bool, StoreError> {
        let read = |e| StoreError::io("read", path, e);
        let file = disk::private().read(true).open(path).map_err(read)?;
        let end = file.metadata().map_err(read)?.len();
        Ok(matches!(frame::read(&file, 0, end, None, payload_max).map_err(read)?, Found::Frame(_)))
    }

    fn scan(&mut self) -> Result<Vec<Entry>, StoreError> {
        let length = self.file.metadata().map_err(|e| StoreError::io("inspect", &self.path, e))?.len();
        let mut entries = Vec::new();
        loop {
            let found = frame::read(&self.file, self.end, length, Some(&self.last), self.payload_max)
                .map_err(|e| StoreError::io("read", &self.path, e))?;
            match found {
                Found::Frame(frame) => {
                    self.end = self.end.saturating_add(frame.total_bytes());
                    self.last = frame.head.hash;
                    entries.push((frame.head.tag, frame.payload));
                }
                Found::End => return Ok(entries),
                Found::Torn => {
                    tracing::warn!(path = %self.path.display(), offset = self.end, cut_bytes = length - self.end, "torn tail cut off");
                    self.cut().map_err(|e| StoreError::io("cut the torn tail of", &self.path, e))?;
                    return Ok(entries);
                }
                Found::Damage(fact) => {
                    return Err(StoreError::Damaged { path: self.path.clone(), offset: self.end, fact });
                }
            }
        }
    }

    fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.file.sync_all()
    }

    /// Bytes in use.
    pub(crate) const fn bytes(&self) -> u64 {
        self.end
    }

    /// Appends one entry; it is durable when this returns.
    pub(crate) fn append(&mut self, tag: u64, payload: &[u8]) -> Result<(), StoreError> {
        self.check(payload)?;
        if self.poisoned {
            return Err(StoreError::Poisoned { path: self.path.clone() });
        }
        let (bytes, link) = frame::encode(tag, &self.last, payload);
        if let Err(error) = self.file.write_all_at(&bytes, self.end) {
            // What was written in part is nobody's: with it cut off, the file can be used again.
            self.poisoned = self.cut().is_err();
            return Err(StoreError::io("append to", &self.path, error));
        }
        if let Err(error) = self.file.sync_data() {
            // After a failed sync nobody knows what is on disk; only reading it anew tells.
            self.poisoned = true;
            return Err(StoreError::io("sync", &self.path, error));
        }
        self.end = self.end.saturating_add(bytes.len() as u64);
        self.last = link;
        Ok(())
    }

    fn check(&self, payload: &[u8]) -> Result<(), StoreError> {
        if payload.len() as u64 > u64::from(self.payload_max) {
            return Err(StoreError::TooLarge {
                what: "entry",
                length: payload.len() as u64,
                max: u64::from(self.payload_max),
            });
        }
        Ok(())
    }

    /// Replaces all entries at once and durably: after a crash the old ones or the new ones are there.
    pub(crate) fn rewrite<'a>(
        &mut self,
        entries: impl IntoIterator<Item = (u64, &'a [u8])>,
    ) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        let mut last = self.seed;
        for (tag, payload) in entries {
            self.check(payload)?;
            let (frame, link) = frame::encode(tag, &last, payload);
            bytes.extend_from_slice(&frame);
            last = link;
        }
        disk::replace(&self.path, &bytes).map_err(|e| StoreError::io("replace", &self.path, e))?;
        let opened = disk::private().read(true).write(true).open(&self.path);
        self.file = opened.map_err(|e| {
            self.poisoned = true;
            StoreError::io("open", &self.path, e)
        })?;
        self.end = bytes.len() as u64;
        self.last = last;
        self.poisoned = false;
        Ok(())
    }

    /// Empties the file without waiting for the disk: for entries whose return would do no harm.
    pub(crate) fn clear(&mut self) -> Result<(), StoreError> {
        self.end = 0;
        self.last = self.seed;
        self.file.set_len(0).map_err(|e| {
            self.poisoned = true;
            StoreError::io("empty", &self.path, e)
        })
    }
}
