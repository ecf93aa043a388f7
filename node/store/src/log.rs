//! The block log: the truth of the chain on this disk. Append-only, hash-chained, synced before anyone is told.
//!
//! A folder of segments, each named by its first height. A segment is a frame that names the network, then one frame a
//! block, each linked to the one before it across segments. Every byte is checked whenever it is read.
//!
//! Opening reads the newest segment whole; where the blocks of older ones stand is written beside them when they are
//! closed. `tip` says up to where blocks were acknowledged; it is written after each sync and only ever a lower bound,
//! so that the loss of an acknowledged block is told from a torn append.
//!
//! Damage never stops a node. What is good stays in use; damaged blocks are *missing* until peers give them again, and
//! the hash that their successor names proves them ([`BlockLog::patch`]). Damage at the very end shortens the log; what
//! stood there is set aside, never dropped.

mod admin;
mod index;
mod patches;
mod places;
mod reader;
mod repair;
mod scan;
mod segment;
mod tip;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use tiltyard_keys::GenesisHash;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::codec;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::limits::{BLOCK_BYTES_HARD_MAX, CERTIFICATE_BYTES_MAX};
use tiltyard_proto::units::Height;

use crate::disk;
use crate::error::StoreError;
use crate::frame::{self, Link};
use index::{Index, Place};
use patches::Patches;
use places::Places;

pub use admin::LogStats;
pub(crate) use admin::{folder_bytes, stats, verify};
pub use reader::LogReader;

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
    patches: Patches,
    report: LogReport,
    segment_bytes: u32,
    poisoned: bool,
}

/// How much is read when a log is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanDepth {
    /// The newest segment; for older ones the places beside them.
    Quick,
    /// Every byte.
    Full,
}

/// Bytes of the log that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDamage {
    /// First height whose record should stand there.
    pub height: Height,
    /// The segment.
    pub path: PathBuf,
    /// First damaged byte.
    pub offset: u64,
    /// First byte after the damage.
    pub end: u64,
    /// What does not fit.
    pub fact: String,
}

/// What opening a log met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Damage, in the order of the file.
    pub damage: Vec<LogDamage>,
    /// Acknowledged heights at the end that are gone: they must be had from peers.
    pub lost: Option<(Height, Height)>,
    /// Where damaged bytes were set aside.
    pub aside: Vec<PathBuf>,
    /// Length of an append that was cut short, in bytes; it was cut off.
    pub torn_bytes: u64,
}

/// Blocks in a row that are missing, and what proves the last of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRun {
    /// First missing height.
    pub from: Height,
    /// Last missing height.
    pub to: Height,
    /// Hash of the last one, as its successor names it.
    pub hash: BlockHash,
    /// The certificate of the last one, as its successor carries it.
    pub certificate: Option<Certificate>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    network: GenesisHash,
    index: RwLock<Index>,
    /// Damage met while reading, for whoever repairs.
    met: Mutex<Vec<LogDamage>>,
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
    /// Opens or makes the log in `folder`; what was damaged is in [`Self::report`].
    ///
    /// # Errors
    /// [`StoreError::Foreign`] for another network's log, [`StoreError::DamagedBlock`] and [`StoreError::Damaged`] for
    /// files that contradict each other, or what the system says.
    pub fn open(
        folder: &Path,
        network: &GenesisHash,
        segment_bytes: u32,
        depth: ScanDepth,
    ) -> Result<Self, StoreError> {
        disk::create_folder(folder).map_err(|e| StoreError::io("create folder", folder, e))?;
        let (tip_file, acknowledged) = tip::TipFile::open(folder)?;
        let mut scanned = scan::scan(folder, network, acknowledged, depth)?;
        let patches = Patches::open(folder, network, &mut scanned.index)?;
        let (index, met) = (RwLock::new(scanned.index), Mutex::default());
        let shared = Shared { folder: folder.to_path_buf(), network: *network, index, met };
        let mut this = Self {
            shared: Arc::new(shared),
            head: scanned.head,
            link: scanned.link,
            patches,
            report: scanned.report,
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

    /// Says what opening met.
    #[must_use]
    pub const fn report(&self) -> &LogReport {
        &self.report
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
        let place = Place::new(head.segment, head.end, bytes.len() as u64);
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
        if let Some(full) = &self.head {
            self.close(full);
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

impl BlockLog {
    /// Notes where a full segment's blocks stand. Without that file the next start reads the segment, so a failure is
    /// no error.
    fn close(&self, full: &Head) {
        let index = self.shared.index();
        let Some(first) = index.first_of(full.segment) else { return };
        let records = Places::records_of(&index.of_segment(first));
        let (network, length, link) = (self.shared.network, full.end, Some(full.link));
        let written = Places { network, first, length, link, records }.write(&full.path);
        if let Err(error) = written {
            tracing::warn!(%error, "places of a full segment not noted");
        }
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
