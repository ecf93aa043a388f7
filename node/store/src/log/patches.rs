//! Blocks that were damaged in their segment and were had again from peers: one more file of frames.

use std::path::{Path, PathBuf};

use tiltyard_keys::GenesisHash;
use tiltyard_proto::units::Height;

use super::index::{Index, Place};
use super::record_max;
use crate::append::AppendFile;
use crate::error::StoreError;
use crate::frame::HEAD_BYTES;

/// The open file.
#[derive(Debug)]
pub(super) struct Patches {
    file: AppendFile,
}

/// Where the file lies in the log's folder.
pub(super) fn path_of(folder: &Path) -> PathBuf {
    folder.join("patches")
}

fn frame_bytes(payload: &[u8]) -> u64 {
    (HEAD_BYTES as u64).saturating_add(payload.len() as u64)
}

impl Patches {
    /// Opens or makes the file and puts its blocks in the place of damaged ones.
    pub(super) fn open(folder: &Path, network: &GenesisHash, index: &mut Index) -> Result<Self, StoreError> {
        let path = path_of(folder);
        let (file, entries, _) =
            AppendFile::open_salvaging(&path, "patches", network.as_bytes(), record_max())?;
        let mut offset = 0u64;
        for (tag, payload) in &entries {
            let (height, bytes) = (Height::new(*tag), frame_bytes(payload));
            // Whether or not the damage is known again: what was had from peers is good.
            index.set(height, Place::patched(offset, bytes));
            offset = offset.saturating_add(bytes);
        }
        Ok(Self { file })
    }

    /// Appends a block; it is durable when this returns.
    pub(super) fn append(&mut self, height: Height, payload: &[u8]) -> Result<Place, StoreError> {
        let offset = self.file.bytes();
        self.file.append(height.get(), payload)?;
        Ok(Place::patched(offset, frame_bytes(payload)))
    }
}
