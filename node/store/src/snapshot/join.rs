//! The snapshot that a joining node fetches: chunks that were verified stay, restarts or not.

use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::snapshot::SnapshotCut;

use super::{FETCHED, JOINING, Snapshot, SnapshotReader};
use crate::disk;
use crate::error::StoreError;

/// How far a join had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinProgress {
    /// The block whose state is fetched.
    pub decided: DecidedBlock,
    /// The snapshot's cut, which leads to the block's state root.
    pub cut: SnapshotCut,
    /// Chunks that are here, ascending.
    pub have: Vec<u32>,
}

/// A snapshot that grows.
#[derive(Debug)]
pub(crate) struct Joining {
    file: Snapshot,
}

impl Joining {
    /// Opens what an earlier life fetched. A file that cannot be used is dropped: everything can be fetched again.
    pub(crate) fn open(snapshots: &SnapshotReader) -> Result<Option<(Self, JoinProgress)>, StoreError> {
        let path = snapshots.path(JOINING);
        if !path.exists() {
            return Ok(None);
        }
        match Snapshot::open(&path, &snapshots.shared.network) {
            Ok(file) => {
                if let Some(cut) = file.cut().cloned() {
                    let progress = JoinProgress { decided: file.decided().clone(), cut, have: file.have() };
                    return Ok(Some((Self { file }, progress)));
                }
            }
            Err(error @ (StoreError::Damaged { .. } | StoreError::Foreign { .. })) => {
                tracing::warn!(%error, "an unfinished snapshot is dropped and fetched anew");
            }
            Err(error) => return Err(error),
        }
        disk::remove_if_there(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        Ok(None)
    }

    /// Begins anew.
    pub(crate) fn begin(
        snapshots: &SnapshotReader,
        decided: &DecidedBlock,
        cut: &SnapshotCut,
    ) -> Result<Self, StoreError> {
        let mut file = Snapshot::create(&snapshots.path(JOINING), &snapshots.shared.network, decided)?;
        file.write_cut(cut)?;
        file.sync()?;
        let folder = &snapshots.shared.folder;
        disk::sync_folder(folder).map_err(|e| StoreError::io("sync folder", folder, e))?;
        Ok(Self { file })
    }

    /// Keeps a verified chunk.
    pub(crate) fn keep(&mut self, index: u32, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_chunk(index, bytes)
    }

    /// Makes the whole snapshot durable under its name; the next start builds the state from it.
    pub(crate) fn finish(mut self, snapshots: &SnapshotReader) -> Result<(), StoreError> {
        if !self.file.is_complete() {
            let path = snapshots.path(JOINING);
            return Err(StoreError::Damaged { path, offset: 0, fact: "chunks are missing".to_owned() });
        }
        self.file.sync()?;
        // Said before it is whole under its name: without the snapshot the word means nothing.
        let path = snapshots.path(FETCHED);
        disk::replace(&path, self.file.height().to_string().as_bytes())
            .map_err(|e| StoreError::io("write", &path, e))?;
        snapshots.adopt(&snapshots.path(JOINING))
    }

    /// Forgets what was fetched.
    pub(crate) fn drop_all(self, snapshots: &SnapshotReader) -> Result<(), StoreError> {
        let path = snapshots.path(JOINING);
        disk::remove_if_there(&path).map_err(|e| StoreError::io("remove", &path, e))
    }
}
