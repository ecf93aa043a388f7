//! File sets by content: what tasks, miners and judges exchange. A blob is named by the BLAKE3 of its manifest.
//!
//! Every method may be called from any thread. A blob appears at once, by a rename, after all its bytes were checked and
//! synced. Bytes are never trusted for having been checked once: callers [`BlobStore::verify`] before each use.
//! Deliberately absent: who may fetch what, and the outboards' content (the network's business; there is a place for
//! them).

mod error;
mod insert;
mod layout;
mod partial;
mod room;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::manifest::{BlobKind, Manifest};

use crate::disk;
pub use error::BlobError;
pub use insert::Source;
pub use partial::{PIECE_BYTES, Partial};
use room::Room;

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobLimits {
    /// Most bytes of all blobs together, downloads in progress included at their full size.
    pub total_bytes_max: u64,
    /// Most bytes of one blob.
    pub blob_bytes_max: u64,
    /// Bytes of the disk that stay free.
    pub reserve_bytes: u64,
}

impl Default for BlobLimits {
    /// 64 GiB in all, 16 GiB a blob, 256 MiB reserve.
    fn default() -> Self {
        Self { total_bytes_max: 64 << 30, blob_bytes_max: 16 << 30, reserve_bytes: 256 << 20 }
    }
}

/// A complete blob, as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub root: BlobRoot,
    /// What it is for.
    pub kind: BlobKind,
    /// Sum of its files' sizes, in bytes.
    pub bytes: u64,
}

/// The blobs of a node. Clones share one store.
#[derive(Debug, Clone)]
pub struct BlobStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    limits: BlobLimits,
    room: Mutex<Room>,
}

impl Shared {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn home(&self, root: &BlobRoot) -> PathBuf {
        self.folder.join(root.to_string())
    }

    fn partial_home(&self, root: &BlobRoot) -> PathBuf {
        self.folder.join(layout::PARTIAL).join(root.to_string())
    }

    /// Checks every limit for `bytes` more.
    fn check_room(&self, room: &Room, bytes: u64) -> Result<(), BlobError> {
        if bytes > self.limits.blob_bytes_max {
            return Err(BlobError::TooLarge { bytes, max: self.limits.blob_bytes_max });
        }
        let used = room.used();
        if used.saturating_add(bytes) > self.limits.total_bytes_max {
            return Err(BlobError::CapReached { bytes, used, max: self.limits.total_bytes_max });
        }
        let free = disk::free_bytes(&self.folder)
            .map_err(|e| BlobError::io("ask for free space in", &self.folder, e))?;
        let reserve = self.limits.reserve_bytes;
        if bytes.saturating_add(reserve) > free {
            return Err(BlobError::NoSpace { bytes, free, reserve });
        }
        Ok(())
    }
}

impl BlobStore {
    /// Opens or makes the store in `folder`. Reads manifests, not files.
    ///
    /// # Errors
    /// [`BlobError`] when the folder cannot be used; a blob whose manifest does not fit is set aside with a warning.
    pub fn open(folder: &Path, limits: BlobLimits) -> Result<Self, BlobError> {
        let trash = folder.join(layout::TRASH);
        if trash.exists() {
            fs::remove_dir_all(&trash).map_err(|e| BlobError::io("empty", &trash, e))?;
        }
        for name in ["", layout::PARTIAL, layout::DAMAGED, layout::TRASH] {
            let path = if name.is_empty() { folder.to_path_buf() } else { folder.join(name) };
            disk::create_folder(&path).map_err(|e| BlobError::io("create folder", &path, e))?;
        }
        let mut room = Room::default();
        for (root, home) in roots(folder)? {
            match layout::manifest(&home, &root) {
                Ok(manifest) => room.keep(info(root, &manifest)?),
                Err(fact) => {
                    tracing::warn!(%root, %fact, "blob set aside");
                    set_aside(folder, &root, &home)?;
                }
            }
        }
        for (root, home) in roots(&folder.join(layout::PARTIAL))? {
            if room.has(&root) {
                // The same files were taken in from elsewhere while they were being fetched.
                fs::remove_dir_all(&home).map_err(|e| BlobError::io("remove", &home, e))?;
                continue;
            }
            match layout::manifest(&home, &root) {
                Ok(manifest) => room.promise(root, manifest.total_bytes()?),
                Err(fact) => {
                    tracing::warn!(%root, %fact, "interrupted download dropped");
                    fs::remove_dir_all(&home).map_err(|e| BlobError::io("remove", &home, e))?;
                }
            }
        }
        let shared = Shared { folder: folder.to_path_buf(), limits, room: Mutex::new(room) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Says whether the blob is complete here.
    #[must_use]
    pub fn has(&self, root: &BlobRoot) -> bool {
        self.shared.room().has(root)
    }

    /// Returns a complete blob's manifest; `None` when it is not here.
    ///
    /// # Errors
    /// [`BlobError`] when it cannot be read or is no longer the one that `root` names.
    pub fn manifest(&self, root: &BlobRoot) -> Result<Option<Manifest>, BlobError> {
        if !self.has(root) {
            return Ok(None);
        }
        layout::manifest(&self.shared.home(root), root).map(Some)
    }

    /// Returns the path of a complete blob's file; `None` when blob or file is not here. Unverified: see
    /// [`Self::verify`].
    ///
    /// # Errors
    /// [`BlobError`] when the manifest cannot be read.
    pub fn path(&self, root: &BlobRoot, name: &str) -> Result<Option<PathBuf>, BlobError> {
        let manifest = self.manifest(root)?;
        let named = manifest.is_some_and(|manifest| manifest.file(name).is_some());
        Ok(named.then(|| layout::file(&self.shared.home(root), name)))
    }

    /// Opens a complete blob's file for reading; `None` when blob or file is not here.
    ///
    /// # Errors
    /// [`BlobError`] when it cannot be opened.
    pub fn open_file(&self, root: &BlobRoot, name: &str) -> Result<Option<File>, BlobError> {
        let Some(path) = self.path(root, name)? else { return Ok(None) };
        match disk::private().read(true).open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) => Err(BlobError::io("open", &path, error)),
        }
    }

    /// Returns where the outboard of a complete blob's file lies or may be put; `None` when blob or file is not here.
    ///
    /// # Errors
    /// [`BlobError`] when the manifest cannot be read.
    pub fn outboard_path(&self, root: &BlobRoot, name: &str) -> Result<Option<PathBuf>, BlobError> {
        let there = self.path(root, name)?.is_some();
        let folder = self.shared.home(root).join(layout::OUTBOARDS);
        Ok(there.then(|| folder.join(format!("{name}.obao"))))
    }

    /// Returns the complete blobs, sorted by root.
    #[must_use]
    pub fn list(&self) -> Vec<BlobInfo> {
        self.shared.room().list()
    }

    /// Returns the bytes in use, downloads in progress included at their full size.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.shared.room().used()
    }

    /// Reads every byte of a complete blob and checks it against the manifest.
    ///
    /// # Errors
    /// [`BlobError::Unknown`] when it is not here, [`BlobError::Damaged`] when a file changed: the blob is then set
    /// aside and can be fetched again.
    pub fn verify(&self, root: &BlobRoot) -> Result<Manifest, BlobError> {
        let home = self.shared.home(root);
        let checked = self.manifest(root).and_then(|manifest| {
            let manifest = manifest.ok_or(BlobError::Unknown { root: *root })?;
            for entry in &manifest.files {
                if let Some(fact) = layout::misfit(&home, entry)? {
                    return Err(BlobError::Damaged { root: *root, name: entry.name.clone(), fact });
                }
            }
            Ok(manifest)
        });
        if matches!(checked, Err(BlobError::Damaged { .. } | BlobError::Manifest(_))) {
            let mut room = self.shared.room();
            if room.forget(root) {
                set_aside(&self.shared.folder, root, &home)?;
            }
        }
        checked
    }

    /// Removes a blob, complete or in part; `false` when it is not here. It is gone at once, its bytes shortly after.
    ///
    /// # Errors
    /// [`BlobError::Busy`] while it is being fetched, or what the system says.
    pub fn remove(&self, root: &BlobRoot) -> Result<bool, BlobError> {
        let mut room = self.shared.room();
        if room.is_open(root) {
            return Err(BlobError::Busy { root: *root });
        }
        let complete = room.has(root);
        let home = if complete { self.shared.home(root) } else { self.shared.partial_home(root) };
        if !complete && !room.is_promised(root) {
            return Ok(false);
        }
        let trash = self.shared.folder.join(layout::TRASH).join(room.fresh_name());
        layout::shift(&home, &trash)?;
        room.forget(root);
        drop(room);
        fs::remove_dir_all(&trash).map_err(|e| BlobError::io("remove", &trash, e))?;
        Ok(true)
    }

    /// Begins a download, or continues one that was interrupted. Its whole size counts as used from now on.
    ///
    /// # Errors
    /// [`BlobError::Present`] when it is complete, [`BlobError::Busy`] while another [`Partial`] of it lives; a limit that it breaks; what the system says.
    pub fn begin(&self, manifest: &Manifest) -> Result<Partial, BlobError> {
        Partial::begin(&self.shared, manifest)
    }

    /// Copies local files into the store and returns the blob's manifest. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`BlobError::Manifest`] for a bad name, [`BlobError::Source`] for what is no regular file, a limit that it
    /// breaks, or what the system says; nothing is then kept.
    pub fn insert(&self, source: &Source<'_>) -> Result<Manifest, BlobError> {
        insert::insert(&self.shared, source)
    }
}

fn info(root: BlobRoot, manifest: &Manifest) -> Result<BlobInfo, BlobError> {
    Ok(BlobInfo { root, kind: manifest.kind, bytes: manifest.total_bytes()? })
}

/// Lists the folders that are named by a root; other names are left alone.
fn roots(folder: &Path) -> Result<BTreeMap<BlobRoot, PathBuf>, BlobError> {
    let wrap = |e| BlobError::io("list", folder, e);
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(wrap)? {
        let entry = entry.map_err(wrap)?;
        let root = entry.file_name().to_str().and_then(|name| name.parse::<BlobRoot>().ok());
        // The type is the entry's own: a symlink to a folder is none of ours.
        if let (Some(root), true) = (root, entry.file_type().map_err(wrap)?.is_dir())
            && entry.file_name().to_str() == Some(root.to_string().as_str())
        {
            found.insert(root, entry.path());
        }
    }
    Ok(found)
}

fn set_aside(folder: &Path, root: &BlobRoot, home: &Path) -> Result<(), BlobError> {
    let aside = folder.join(layout::DAMAGED).join(root.to_string());
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(|e| BlobError::io("remove", &aside, e))?;
    }
    layout::shift(home, &aside)
}
