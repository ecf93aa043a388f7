//! Bodies of proposed blocks, durable before this node votes for them, kept until a block of their height or above is
//! decided and durable.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tiltyard_keys::GenesisHash;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::limits::BLOCK_BYTES_HARD_MAX;
use tiltyard_proto::units::Height;

use crate::append::{AppendFile, Salvage};
use crate::error::StoreError;

/// A kept body: block, height, canonical bytes.
pub type BodyEntry = (BlockHash, Height, Vec<u8>);

/// Dead entries are dropped by a rewrite beyond this size, in bytes.
const REWRITE_BYTES: u64 = 32 * 1024 * 1024;

/// The kept bodies. Bytes stay on disk; only names stay in memory.
#[derive(Debug)]
pub struct Bodies {
    file: AppendFile,
    live: BTreeSet<(Height, BlockHash)>,
    path: PathBuf,
    network: GenesisHash,
}

/// Largest frame payload, in bytes.
pub(crate) fn payload_max() -> u32 {
    u32::try_from(BLOCK_BYTES_HARD_MAX.saturating_add(BlockHash::LEN)).unwrap_or(u32::MAX)
}

fn split(tag: u64, payload: Vec<u8>) -> Option<BodyEntry> {
    let (name, bytes) = payload.split_at_checked(BlockHash::LEN)?;
    let name = <[u8; 32]>::try_from(name).ok()?;
    Some((BlockHash::from_bytes(name), Height::new(tag), bytes.to_vec()))
}

impl Bodies {
    /// Name of the file.
    pub const NAME: &'static str = "bodies";

    /// Opens or makes the file in `folder`; returns the bodies above `tip`, in the order they were saved, and what was
    /// damaged: the bodies that are whole are kept.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn open(
        folder: &Path,
        network: &GenesisHash,
        tip: Height,
    ) -> Result<(Self, Vec<BodyEntry>, Option<Salvage>), StoreError> {
        let path = folder.join(Self::NAME);
        let (file, all, salvage) =
            AppendFile::open_salvaging(&path, "bodies", network.as_bytes(), payload_max())?;
        let mut kept: Vec<BodyEntry> = Vec::new();
        for (tag, payload) in all {
            if tag > tip.get() {
                kept.extend(split(tag, payload));
            }
        }
        let live = kept.iter().map(|(block, height, _)| (*height, *block)).collect();
        let mut this = Self { file, live, path, network: *network };
        if kept.is_empty() && this.file.bytes() > 0 {
            this.file.clear()?;
        }
        Ok((this, kept, salvage))
    }

    /// Keeps a body; it is durable when this returns. One that is kept already costs nothing.
    ///
    /// # Errors
    /// [`StoreError`]; the body then does not count as kept.
    pub fn save(&mut self, block: BlockHash, height: Height, bytes: &[u8]) -> Result<(), StoreError> {
        if self.live.contains(&(height, block)) {
            return Ok(());
        }
        self.file.append(height.get(), &[&block.as_bytes()[..], bytes].concat())?;
        self.live.insert((height, block));
        Ok(())
    }

    /// Forgets the bodies up to `tip`, which is decided and durable. Not awaited: a body that comes back is skipped
    /// when the file is opened.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn forget_through(&mut self, tip: Height) -> Result<(), StoreError> {
        self.live.retain(|(height, _)| *height > tip);
        if self.live.is_empty() {
            return if self.file.bytes() > 0 { self.file.clear() } else { Ok(()) };
        }
        if self.file.bytes() <= REWRITE_BYTES {
            return Ok(());
        }
        let (_, all) = AppendFile::open(&self.path, "bodies", self.network.as_bytes(), payload_max())?;
        let kept: Vec<(u64, Vec<u8>)> = all.into_iter().filter(|(tag, _)| *tag > tip.get()).collect();
        self.file.rewrite(kept.iter().map(|(tag, payload)| (*tag, payload.as_slice())))
    }
}
