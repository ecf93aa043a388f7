//! Opens the database, with the two cures that are known to lose nothing.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use super::cache::NodeCache;
use super::layer::Pending;
use super::marker::Marker;
use super::{MARKER, REBUILD_FLAG, StateIndex, StateOptions, guarded};
use crate::disk;
use crate::error::StoreError;

/// Names of sled's snapshots begin with this; the ones being made end in the other.
const SNAPSHOT: &str = "snap.";
const SNAPSHOT_IN_MAKING: &str = ".generating";

/// What sled says of a database that is open.
const LOCKED: &str = "could not acquire lock";
/// How often, and after which pause, a database that was open a moment ago is opened again.
const LOCK_TRIES_MAX: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Sets files aside whose names fit; sled works without any snapshot, only slower at start.
fn quarantine(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<bool, StoreError> {
    let wrap = |e| StoreError::io("list", folder, e);
    let aside = folder.join("quarantine");
    let mut moved = false;
    for entry in fs::read_dir(folder).map_err(wrap)? {
        let entry = entry.map_err(wrap)?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if !fits(&name) {
            continue;
        }
        disk::create_folder(&aside).map_err(|e| StoreError::io("create folder", &aside, e))?;
        fs::rename(entry.path(), aside.join(&name)).map_err(|e| StoreError::io("move", &entry.path(), e))?;
        tracing::warn!(%name, "snapshot of the state index set aside");
        moved = true;
    }
    Ok(moved)
}

fn open_database(folder: &Path, options: &StateOptions) -> Result<sled::Db, StoreError> {
    let config =
        sled::Config::new().path(folder).cache_capacity(options.page_cache_bytes).flush_every_ms(None);
    for _ in 0..LOCK_TRIES_MAX {
        match guarded(|| config.open()) {
            // A handle that was just dropped is let go of by sled's own threads a moment later.
            Err(StoreError::Index { fact }) if fact.contains(LOCKED) => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
    guarded(|| config.open())
}

impl StateIndex {
    /// Opens or makes the index in `folder`. [`StoreError::Index`] when it must be rebuilt.
    pub(crate) fn open(folder: &Path, options: StateOptions) -> Result<Self, StoreError> {
        disk::create_folder(folder).map_err(|e| StoreError::io("create folder", folder, e))?;
        if folder.join(REBUILD_FLAG).exists() {
            return Err(StoreError::Index { fact: "it failed in use before".to_owned() });
        }
        let mut doubtful =
            quarantine(folder, |name| name.starts_with(SNAPSHOT) && name.ends_with(SNAPSHOT_IN_MAKING))?;
        let fresh = !folder.join("db").exists();
        let db = match open_database(folder, &options) {
            Err(StoreError::Index { fact }) => {
                if !quarantine(folder, |name| name.starts_with(SNAPSHOT))? {
                    return Err(StoreError::Index { fact });
                }
                doubtful = true;
                open_database(folder, &options)?
            }
            other => other?,
        };
        let path = folder.join("db");
        let file = disk::private().read(true).open(&path).map_err(|e| StoreError::io("open", &path, e))?;
        if fresh {
            disk::sync_folder(folder).map_err(|e| StoreError::io("sync folder", folder, e))?;
        }
        let bytes = guarded(|| db.get(MARKER))?;
        let marker = match bytes {
            None => None,
            Some(bytes) => Some(Marker::decode(&bytes).ok_or_else(|| StoreError::Index {
                fact: "its marker does not match its check".to_owned(),
            })?),
        };
        let nodes = Mutex::new(NodeCache::new(options.node_cache_bytes));
        let folder = folder.to_path_buf();
        let noted_height = AtomicU64::new(marker.map_or(0, |marker| marker.height.get()));
        let (marker, keeps_old) = (RwLock::new(marker), RwLock::new(false));
        let (pending, flusher) = (RwLock::new(Pending::default()), Mutex::new(None));
        let mut this = Self {
            db,
            file,
            folder,
            options,
            marker,
            noted_height,
            doubtful,
            nodes,
            keeps_old,
            pending,
            flusher,
        };
        this.doubtful |= this.redo()?;
        // A snapshot that was being made when the node ended is not continued.
        this.forget_old()?;
        Ok(this)
    }
}
