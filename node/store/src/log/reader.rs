//! Reads blocks, and says which are missing.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::units::Height;

use super::index::{Home, Place};
use super::{DECIDED_BYTES_MAX, LogDamage, MissingRun, Shared, patches, record_max};
use crate::disk;
use crate::error::StoreError;
use crate::frame::{self, Found};

/// Reads the log from any thread.
#[derive(Debug, Clone)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

impl LogReader {
    /// Returns the last durable height; `None` while the log is empty.
    #[must_use]
    pub fn tip(&self) -> Option<Height> {
        self.shared.index().tip()
    }

    /// Returns the first height that is kept; `None` while the log is empty.
    #[must_use]
    pub fn first(&self) -> Option<Height> {
        self.shared.index().first()
    }

    /// Returns a block's canonical bytes as they were appended, checked against their hash; `None` when the height is
    /// not kept, or missing.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] when they are no longer what they were; from then on the height is missing.
    pub fn bytes(&self, height: Height) -> Result<Option<Vec<u8>>, StoreError> {
        let found = {
            let index = self.shared.index();
            index.place(height).and_then(|place| Some((place, index.home(place)?)))
        };
        let Some((place, home)) = found else { return Ok(None) };
        let path = match home {
            Home::Segment(first) => self.shared.path_of(first),
            Home::Patches => patches::path_of(&self.shared.folder),
        };
        let file = match disk::private().read(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return self.met(height, place, path, "its file is gone".to_owned());
            }
            Err(error) => return Err(StoreError::io("open segment", &path, error)),
        };
        let length = file.metadata().map_err(|e| StoreError::io("inspect", &path, e))?.len();
        let found = frame::read(&file, place.offset(), place.end().min(length), None, record_max())
            .map_err(|e| StoreError::io("read", &path, e))?;
        let fact = match found {
            Found::Frame(frame) if frame.head.tag == height.get() => return Ok(Some(frame.payload)),
            Found::Frame(_) => "another block stands there".to_owned(),
            Found::Damage(fact) => fact,
            Found::End | Found::Torn => "its record is cut short".to_owned(),
        };
        self.met(height, place, path, fact)
    }

    /// Notes damage met while reading; the height is missing from now on.
    fn met<T>(
        &self,
        height: Height,
        place: Place,
        path: PathBuf,
        fact: String,
    ) -> Result<Option<T>, StoreError> {
        tracing::warn!(%height, path = %path.display(), offset = place.offset(), fact, "damaged block found");
        self.shared.index_mut().set(height, Place::MISSING);
        let damage = LogDamage {
            height,
            path: path.clone(),
            offset: place.offset(),
            end: place.end(),
            fact: fact.clone(),
        };
        self.shared.met.lock().unwrap_or_else(PoisonError::into_inner).push(damage);
        Err(StoreError::DamagedBlock { height, path, offset: place.offset(), fact })
    }

    /// Returns the damage met while reading since the last call.
    #[must_use]
    pub fn take_met(&self) -> Vec<LogDamage> {
        core::mem::take(&mut *self.shared.met.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Number of blocks that are missing.
    #[must_use]
    pub fn missing_count(&self) -> u64 {
        self.shared.index().missing_count()
    }

    /// Returns at most `max` missing heights, lowest first.
    #[must_use]
    pub fn missing(&self, max: usize) -> Vec<Height> {
        self.shared.index().missing().take(max).collect()
    }

    /// Returns the highest run of missing blocks with what proves its last one; `None` when nothing is missing, or
    /// only the tip, which its successor will prove.
    ///
    /// # Errors
    /// [`StoreError`] when the disk cannot be read.
    pub fn missing_run(&self) -> Result<Option<MissingRun>, StoreError> {
        loop {
            let Some((from, to)) = self.shared.index().highest_run() else { return Ok(None) };
            match self.block(to.next()) {
                Ok(Some(child)) => {
                    let (hash, certificate) =
                        (child.block.header.parent, child.block.body.parent_certificate);
                    return Ok(Some(MissingRun { from, to, hash, certificate }));
                }
                // The successor was damaged too and is missing now: the run is longer.
                Ok(None) | Err(StoreError::DamagedBlock { .. }) => {}
                Err(error) => return Err(error),
            }
            if self.shared.index().highest_run() == Some((from, to)) {
                return Ok(None);
            }
        }
    }

    /// Returns a decided block; `None` when the height is not kept.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] when its bytes are no longer what they were.
    pub fn block(&self, height: Height) -> Result<Option<DecidedBlock>, StoreError> {
        let Some(bytes) = self.bytes(height)? else { return Ok(None) };
        codec::decode("decided block", &bytes, DECIDED_BYTES_MAX).map(Some).map_err(|error| {
            let path = self.shared.folder.clone();
            StoreError::DamagedBlock { height, path, offset: 0, fact: error.to_string() }
        })
    }
}
