//! The block log: the truth of the chain on this disk. Append-only, hash-chained, synced before anyone is told.
//!
//! A folder of segments, each named by its first height. A segment is a frame that names the network, then one frame a
//! block, each linked to the one before it across segments. Opening reads and checks every byte. `tip` says up to where
//! blocks were acknowledged; it is written after each sync and only ever a lower bound, so that the loss of an
//! acknowledged block is told from a torn append.

mod index;
mod scan;
mod tip;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use tiltyard_keys::GenesisHash;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::limits::{BLOCK_BYTES_HARD_MAX, CERTIFICATE_BYTES_MAX};
use tiltyard_proto::units::Height;

use crate::disk;
use crate::error::StoreError;
use crate::frame::{self, Found, Link};
use index::{Index, Place};

/// Largest decided block, in bytes: a block with the certificate that decided it.
pub const DECIDED_BYTES_MAX: usize = BLOCK_BYTES_HARD_MAX + CERTIFICATE_BYTES_MAX + 64;
/// A segment is closed beyond this many bytes, unless options say otherwise.
pub const SEGMENT_BYTES: u32 = 64 * 1024 * 1024;
/// Segments are closed within these bounds, whatever options say: the index counts their bytes in 32 bits.
const SEGMENT_BYTES_BOUNDS: (u32, u32) = (4 * 1024, 1024 * 1024 * 1024);

fn record_max() -> u32 {
    u32::try_from(DECIDED_BYTES_MAX).unwrap_or(u32::MAX)
}

fn segment_name(first: Height) -> String {
    format!("{:020}.log", first.get())
}

fn segment_title(network: &GenesisHash) -> Vec<u8> {
    [&b"tiltyard block log 1 "[..], network.as_bytes()].concat()
}

/// The segment that is appended to.
#[derive(Debug)]
struct Head {
    file: Arc<File>,
    path: PathBuf,
    segment: u32,
    end: u64,
    link: Link,
}

/// Writes the log. There is one writer; readers are made by [`BlockLog::reader`].
#[derive(Debug)]
pub struct BlockLog {
    shared: Arc<Shared>,
    head: Option<Head>,
    link: Link,
    tip_file: tip::TipFile,
    segment_bytes: u32,
    poisoned: bool,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    network: GenesisHash,
    index: RwLock<Index>,
}

impl Shared {
    fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn index_mut(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn path_of(&self, first: Height) -> PathBuf {
        self.folder.join(segment_name(first))
    }
}

impl BlockLog {
    /// Opens or makes the log in `folder`, reading and checking all of it.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] and [`StoreError::Damaged`] when acknowledged bytes changed or are gone,
    /// [`StoreError::Foreign`] for another network's log, or what the system says.
    pub fn open(folder: &Path, network: &GenesisHash, segment_bytes: u32) -> Result<Self, StoreError> {
        disk::create_folder(folder).map_err(|e| StoreError::io("create folder", folder, e))?;
        let (tip_file, acknowledged) = tip::TipFile::open(folder)?;
        let scanned = scan::scan(folder, network, acknowledged)?;
        let shared =
            Shared { folder: folder.to_path_buf(), network: *network, index: RwLock::new(scanned.index) };
        let mut this = Self {
            shared: Arc::new(shared),
            head: scanned.head,
            link: scanned.link,
            tip_file,
            segment_bytes: segment_bytes.clamp(SEGMENT_BYTES_BOUNDS.0, SEGMENT_BYTES_BOUNDS.1),
            poisoned: false,
        };
        if let (Some(tip), true) = (this.tip(), acknowledged != this.tip()) {
            this.tip_file.write(tip);
        }
        Ok(this)
    }

    /// Returns the last block's height; `None` while the log is empty.
    #[must_use]
    pub fn tip(&self) -> Option<Height> {
        self.shared.index().tip()
    }

    /// Returns a reader that sees every block once it is durable.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    /// Appends the block after the tip (any first height when empty); it is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotNext`] when the height does not follow, [`StoreError::Full`] without room (what was written in
    /// part is cut off again), [`StoreError::Poisoned`] after a failed sync.
    pub fn append(&mut self, decided: &DecidedBlock) -> Result<(), StoreError> {
        let height = decided.block.header.height;
        if let Some(tip) = self.tip()
            && tip.get().checked_add(1) != Some(height.get())
        {
            let fact = "its height is not the next one";
            return Err(StoreError::NotNext { height, hash: decided.block.hash(), tip, fact });
        }
        let payload = codec::encode(decided);
        if payload.len() > DECIDED_BYTES_MAX {
            let (length, max) = (payload.len() as u64, DECIDED_BYTES_MAX as u64);
            return Err(StoreError::TooLarge { what: "decided block", length, max });
        }
        if self.poisoned {
            return Err(StoreError::Poisoned { path: self.shared.folder.clone() });
        }
        self.roll(height)?;
        let Some(head) = self.head.as_mut() else {
            return Err(StoreError::Poisoned { path: self.shared.folder.clone() });
        };
        let (bytes, link) = frame::encode(height.get(), &head.link, &payload);
        if let Err(error) = write_at(&head.file, head.end, &bytes) {
            self.poisoned = error.1;
            return Err(StoreError::io(error.2, &head.path, error.0));
        }
        let place = Place::new(head.segment, head.end, bytes.len());
        head.end = head.end.saturating_add(bytes.len() as u64);
        head.link = link;
        self.link = link;
        self.shared.index_mut().push(height, place);
        self.tip_file.write(height);
        Ok(())
    }

    /// Makes sure that there is a segment with room.
    fn roll(&mut self, height: Height) -> Result<(), StoreError> {
        if self.head.as_ref().is_some_and(|head| head.end < u64::from(self.segment_bytes)) {
            return Ok(());
        }
        let path = self.shared.path_of(height);
        let (bytes, link) = frame::encode(height.get(), &self.link, &segment_title(&self.shared.network));
        // The name of a segment must not appear before its title is whole: rename brings both.
        disk::replace(&path, &bytes).map_err(|e| StoreError::io("make segment", &path, e))?;
        let file = disk::private()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| StoreError::io("open segment", &path, e))?;
        let segment = self.shared.index_mut().push_segment(height);
        self.link = link;
        self.head = Some(Head { file: Arc::new(file), path, segment, end: bytes.len() as u64, link });
        Ok(())
    }
}

/// Writes and syncs; on failure says whether the file's content is now uncertain, and what was tried.
fn write_at(file: &File, end: u64, bytes: &[u8]) -> Result<(), (std::io::Error, bool, &'static str)> {
    if let Err(error) = file.write_all_at(bytes, end) {
        let cut = file.set_len(end).and_then(|()| file.sync_all());
        return Err((error, cut.is_err(), "append to"));
    }
    file.sync_data().map_err(|error| (error, true, "sync"))
}

/// Reads the log from any thread.
#[derive(Debug, Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
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
    /// not kept.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] when they are no longer what they were.
    pub fn bytes(&self, height: Height) -> Result<Option<Vec<u8>>, StoreError> {
        let found = {
            let index = self.shared.index();
            index.place(height).and_then(|place| Some((place, index.segment_first(place)?)))
        };
        let Some((place, first)) = found else { return Ok(None) };
        let path = self.shared.path_of(first);
        let file =
            disk::private().read(true).open(&path).map_err(|e| StoreError::io("open segment", &path, e))?;
        let found = frame::read(&file, place.offset(), place.end(), None, record_max())
            .map_err(|e| StoreError::io("read", &path, e))?;
        let fact = match found {
            Found::Frame(frame) if frame.head.tag == height.get() => return Ok(Some(frame.payload)),
            Found::Frame(_) => "another block stands there".to_owned(),
            Found::Damage(fact) => fact,
            Found::End | Found::Torn => "its record is cut short".to_owned(),
        };
        Err(StoreError::DamagedBlock { height, path, offset: place.offset(), fact })
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
