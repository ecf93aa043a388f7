//! Remembers up to where blocks were acknowledged.
//!
//! Written after each sync of the log, and not synced itself: after a power cut it may be older than the log, which
//! makes it a lower bound. A file that does not match its own check says nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tiltyard_proto::units::Height;

use crate::disk;
use crate::error::StoreError;

const BYTES: usize = 40;

#[derive(Debug)]
pub(super) struct TipFile {
    file: File,
    path: PathBuf,
}

fn encode(height: Height) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[..8].copy_from_slice(&height.get().to_be_bytes());
    let check = blake3::derive_key("tiltyard/store/tip/v1", &out[..8]);
    out[8..].copy_from_slice(&check);
    out
}

impl TipFile {
    /// Opens or makes the file; returns what it says.
    pub(super) fn open(folder: &Path) -> Result<(Self, Option<Height>), StoreError> {
        let path = folder.join("tip");
        let file = disk::private()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| StoreError::io("open", &path, e))?;
        let mut bytes = [0; BYTES];
        let height = file.read_exact_at(&mut bytes, 0).ok().and_then(|()| {
            let height = Height::new(u64::from_be_bytes(*bytes.first_chunk::<8>()?));
            (encode(height) == bytes).then_some(height)
        });
        Ok((Self { file, path }, height))
    }

    /// Says that blocks up to `height` are acknowledged. A failure only makes the bound older, so it is no error.
    pub(super) fn write(&mut self, height: Height) {
        if let Err(error) = self.file.write_all_at(&encode(height), 0) {
            tracing::warn!(path = %self.path.display(), %error, "acknowledged height not noted");
        }
    }
}
