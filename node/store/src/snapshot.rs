//! State snapshots on disk: made from the state index while blocks go on, or fetched chunk by chunk from peers.
//!
//! A folder with one file per snapshot, `<height>.snap`, beside at most one that is being made (`making.snap`) and one
//! that is being fetched (`joining.snap`). The newest snapshot and the log after it are the truth of this disk: when a
//! snapshot was fetched (`fetched` names its height), the log begins anew with the snapshot's block.
//!
//! How others use it: [`SnapshotReader`] (from [`crate::StoreReader::snapshots`]) lists, cuts and chunks;
//! [`crate::Store::make_snapshot`] makes one of the tip, in the background; `SnapshotReader::base` gives the newest one
//! at or below a height, and `restore::restore` makes an index from it. A log that was pruned may begin at the height
//! after a snapshot's: nothing below the newest snapshot is needed to start.

mod entries;
mod file;
mod join;
mod make;
pub(crate) mod restore;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tiltyard_keys::GenesisHash;
use tiltyard_proto::limits::SNAPSHOTS_OFFERED_MAX;
use tiltyard_proto::snapshot::{SnapshotChunk, SnapshotCut};
use tiltyard_proto::units::Height;

use crate::disk;
use crate::error::StoreError;
pub(crate) use entries::Entries;
pub(crate) use file::Snapshot;
pub use join::JoinProgress;
pub(crate) use join::Joining;
pub(crate) use make::Maker;

/// Complete snapshots that are kept: who fetches the older one can finish while the newer one is offered.
const KEPT: usize = 2;
const ENDING: &str = ".snap";
const JOINING: &str = "joining.snap";
const MAKING: &str = "making.snap";
/// Holds the height of a snapshot that was fetched and that the log is to begin with.
const FETCHED: &str = "fetched";

fn file_name(height: Height) -> String {
    format!("{:020}{ENDING}", height.get())
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    network: GenesisHash,
    kept: RwLock<BTreeMap<Height, Arc<Snapshot>>>,
}

/// The complete snapshots of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SnapshotReader {
    shared: Arc<Shared>,
}

impl SnapshotReader {
    /// Opens or makes the folder. A snapshot that is damaged is set aside; what was being made is dropped.
    pub(crate) fn open(folder: &Path, network: &GenesisHash) -> Result<Self, StoreError> {
        disk::create_folder(folder).map_err(|e| StoreError::io("create folder", folder, e))?;
        let making = folder.join(MAKING);
        disk::remove_if_there(&making).map_err(|e| StoreError::io("remove", &making, e))?;
        let mut kept = BTreeMap::new();
        let list = fs::read_dir(folder).map_err(|e| StoreError::io("list", folder, e))?;
        for entry in list {
            let entry = entry.map_err(|e| StoreError::io("list", folder, e))?;
            let name = entry.file_name();
            let height = name.to_str().and_then(|name| name.strip_suffix(ENDING)?.parse().ok());
            let Some(height) = height.map(Height::new) else { continue };
            match Snapshot::open(&entry.path(), network) {
                Ok(snapshot) if snapshot.is_complete() && snapshot.height() == height => {
                    kept.insert(height, Arc::new(snapshot));
                }
                Ok(_) => set_aside(&entry.path(), "it is not whole")?,
                Err(StoreError::Damaged { fact, .. }) => set_aside(&entry.path(), &fact)?,
                Err(error) => return Err(error),
            }
        }
        let shared = Shared { folder: folder.to_path_buf(), network: *network, kept: RwLock::new(kept) };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn find(&self, height: Height) -> Option<Arc<Snapshot>> {
        self.shared.kept.read().unwrap_or_else(PoisonError::into_inner).get(&height).cloned()
    }

    /// Returns the heights of the complete snapshots, ascending.
    #[must_use]
    pub fn heights(&self) -> Vec<Height> {
        let kept = self.shared.kept.read().unwrap_or_else(PoisonError::into_inner);
        let skipped = kept.len().saturating_sub(SNAPSHOTS_OFFERED_MAX);
        kept.keys().skip(skipped).copied().collect()
    }

    /// Returns the cut of a snapshot; `None` when it is not kept.
    #[must_use]
    pub fn cut(&self, height: Height) -> Option<SnapshotCut> {
        self.find(height)?.cut().cloned()
    }

    /// Returns a chunk of a snapshot; `None` when it is not kept or has no such chunk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when its bytes are no longer what they were.
    pub fn chunk(&self, height: Height, index: u32) -> Result<Option<SnapshotChunk>, StoreError> {
        self.find(height).map_or(Ok(None), |snapshot| snapshot.chunk(index))
    }

    /// Returns the height up to which blocks are needed by no rebuild: two snapshots at or above it are whole. 0 with
    /// fewer, for one alone may turn out damaged.
    pub(crate) fn covered(&self) -> Height {
        let kept = self.shared.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.keys().rev().nth(1).copied().unwrap_or(Height::ZERO)
    }

    /// Returns the newest complete snapshot at or below `highest`.
    pub(crate) fn base(&self, highest: Height) -> Option<Arc<Snapshot>> {
        let kept = self.shared.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.range(..=highest).next_back().map(|(_, snapshot)| Arc::clone(snapshot))
    }

    /// Returns the fetched snapshot that the log is to begin with.
    pub(crate) fn fetched(&self) -> Result<Option<Arc<Snapshot>>, StoreError> {
        let path = self.path(FETCHED);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.parse().ok().and_then(|height| self.find(Height::new(height)))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path, error)),
        }
    }

    /// Forgets that a snapshot is to be begun with: it was.
    pub(crate) fn forget_fetched(&self) -> Result<(), StoreError> {
        let path = self.path(FETCHED);
        disk::remove_if_there(&path).map_err(|e| StoreError::io("remove", &path, e))
    }

    /// Gives a whole file its name and keeps it; the oldest ones beyond [`KEPT`] go.
    fn adopt(&self, path: &Path) -> Result<(), StoreError> {
        let found = Snapshot::open(path, &self.shared.network)?;
        let name = self.shared.folder.join(file_name(found.height()));
        fs::rename(path, &name).map_err(|e| StoreError::io("move", path, e))?;
        let folder = &self.shared.folder;
        disk::sync_folder(folder).map_err(|e| StoreError::io("sync folder", folder, e))?;
        let mut kept = self.shared.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.insert(found.height(), Arc::new(found.at(name)));
        while kept.len() > KEPT
            && let Some((height, _)) = kept.pop_first()
        {
            let old = folder.join(file_name(height));
            disk::remove_if_there(&old).map_err(|e| StoreError::io("remove", &old, e))?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.shared.folder.join(name)
    }
}

fn set_aside(path: &Path, fact: &str) -> Result<(), StoreError> {
    tracing::warn!(path = %path.display(), fact, "snapshot set aside");
    fs::rename(path, path.with_extension("damaged")).map_err(|e| StoreError::io("move", path, e))
}
