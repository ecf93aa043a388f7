//! Puts missing blocks back, and takes the end of a log away.

use std::path::PathBuf;

use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::units::Height;

use super::index::Home;
use super::{BlockLog, places, scan};
use crate::aside;
use crate::disk;
use crate::error::StoreError;

impl BlockLog {
    /// Takes the blocks from `height` on out of the log and sets them aside; returns where they are. The log must be
    /// opened again.
    ///
    /// # Errors
    /// [`StoreError`]
    pub(crate) fn cut_from(self, height: Height) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.shared.folder.clone();
        let last = height.previous().and_then(|last| {
            let index = self.shared.index();
            let place = index.place(last)?;
            Some((index.home(place)?, place.end()))
        });
        let kept_segment = match last {
            Some((Home::Segment(first), end)) => Some((first, end)),
            Some((Home::Patches, _)) | None => None,
        };
        let mut kept = Vec::new();
        for (first, path) in scan::segments(&folder)?.into_iter().rev() {
            let next_is_cut = self.shared.index().segments().iter().find(|next| **next > first).copied();
            let ends_before = next_is_cut.is_some_and(|next| next <= height) && first < height;
            if let Some((_, end)) = kept_segment.filter(|(segment, _)| *segment == first) {
                let file = disk::private()
                    .read(true)
                    .write(true)
                    .open(&path)
                    .map_err(|e| StoreError::io("open segment", &path, e))?;
                let length = file.metadata().map_err(|e| StoreError::io("inspect", &path, e))?.len();
                if end < length {
                    kept.push(aside::copy_bytes(&path, &file, end, length)?);
                    scan::cut(&file, &path, end)?;
                }
            } else if !ends_before {
                kept.push(aside::move_file(&path)?);
                disk::remove_if_there(&places::path_of(&path))
                    .map_err(|e| StoreError::io("remove", &path, e))?;
            }
        }
        Ok(kept)
    }

    /// Says whether [`Self::prune`] would remove anything.
    pub(crate) fn would_prune(&self, horizon: Height) -> bool {
        self.shared.index().segments().get(1).is_some_and(|next| *next <= horizon)
    }

    /// Removes the oldest segments whose blocks are all below `horizon`; returns the first height that is left. A
    /// caller keeps the state at or above `horizon` durable first: without the blocks it cannot be made again.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed stays removed.
    pub fn prune(&mut self, horizon: Height) -> Result<Option<Height>, StoreError> {
        let mut removed = false;
        loop {
            let oldest = self.shared.index_mut().drop_oldest(horizon);
            let Some(oldest) = oldest else { break };
            let path = self.shared.path_of(oldest);
            // The segment goes before what tells of it, so that a crash leaves nothing that speaks for it.
            for path in [path.clone(), places::path_of(&path)] {
                disk::remove_if_there(&path).map_err(|e| StoreError::io("remove", &path, e))?;
            }
            removed = true;
        }
        if removed {
            let folder = &self.shared.folder;
            disk::sync_folder(folder).map_err(|e| StoreError::io("sync folder", folder, e))?;
        }
        Ok(self.shared.index().first())
    }

    /// Puts a missing block in its place; it is durable when this returns. False when that height is not missing.
    ///
    /// # Errors
    /// [`StoreError::NotNext`] when the block that follows it does not name this one, or what the disk says.
    pub fn patch(&mut self, decided: &DecidedBlock) -> Result<bool, StoreError> {
        let height = decided.block.header.height;
        if !self.shared.index().is_missing(height) {
            return Ok(false);
        }
        let (hash, tip) = (decided.block.hash(), self.tip().unwrap_or(Height::ZERO));
        let refuse = |fact| StoreError::NotNext { height, hash, tip, fact };
        let child = self.reader().block(height.next())?;
        let child = child.ok_or_else(|| refuse("the block after it is not there to prove it"))?;
        let (header, body) = (&decided.block.header, &decided.block.body);
        if child.block.header.parent != hash {
            return Err(refuse("the block after it names another parent"));
        }
        if header.tx_root != body.tx_root() || header.parent_certificate != body.parent_certificate_hash() {
            return Err(refuse("its body is another block's"));
        }
        // The certificate that the chain itself carries is proven by it; the one that came along would have to be
        // verified against a set that may be forgotten.
        let certificate = child.block.body.parent_certificate.unwrap_or_else(|| decided.certificate.clone());
        let proven = DecidedBlock { block: decided.block.clone(), certificate };
        let place = self.patches.append(height, &codec::encode(&proven))?;
        self.shared.index_mut().set(height, place);
        Ok(true)
    }
}
