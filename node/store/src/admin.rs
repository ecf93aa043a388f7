//! Looks at, repairs and compacts the chain folder of a node that does not run. A running node's folder is refused.

use std::path::{Path, PathBuf};

use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{BlobRoot, StateRoot};
use tiltyard_proto::units::Height;

use crate::append::AppendFile;
use crate::blob::{BlobError, BlobLimits, BlobStore};
use crate::bodies::{self, Bodies};
use crate::chain::{ChainRead as _, ChainStore as _, Recovered};
use crate::error::StoreError;
use crate::journal::{JOURNAL_ENTRY_BYTES_MAX, Journal};
use crate::lock::FolderLock;
use crate::log::{self, BlockLog, LogDamage, LogStats, ScanDepth};
use crate::recover::{self, rebuild};
use crate::roles::{self, Roles};
use crate::snapshot::SnapshotReader;
use crate::state::{StateIndex, StateOptions};
use crate::store::{Store, StoreOptions};

/// Sizes and counts of a chain folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainStats {
    /// First height whose block is kept.
    pub first: Option<Height>,
    /// Last height whose block is kept.
    pub tip: Option<Height>,
    /// Blocks kept.
    pub blocks: u64,
    /// Blocks that are known to be missing between first and last.
    pub missing_blocks: u64,
    /// The block log.
    pub log: LogStats,
    /// Bytes of the state index.
    pub state_bytes: u64,
    /// Bytes of indexes that were given up and are kept for people.
    pub state_old_bytes: u64,
    /// Bytes of state snapshots.
    pub snapshot_bytes: u64,
    /// Bytes of the vote journal.
    pub journal_bytes: u64,
    /// Bytes of proposed bodies.
    pub bodies_bytes: u64,
    /// Bytes of the roles' memory.
    pub roles_bytes: u64,
    /// Bytes of other files that were set aside.
    pub aside_bytes: u64,
}

impl ChainStats {
    /// Returns the bytes of log and index per block kept, rounded down; 0 without blocks.
    #[must_use]
    pub fn bytes_per_block(&self) -> u64 {
        self.log.segment_bytes.saturating_add(self.state_bytes).checked_div(self.blocks).unwrap_or(0)
    }
}

/// Something in a chain folder that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file or folder.
    pub path: PathBuf,
    /// First damaged byte, where that can be told.
    pub offset: Option<u64>,
    /// First height that it concerns, where that can be told.
    pub height: Option<Height>,
    /// What does not fit.
    pub fact: String,
}

impl From<LogDamage> for Finding {
    fn from(damage: LogDamage) -> Self {
        let (offset, height) = (Some(damage.offset), Some(damage.height));
        Self { path: damage.path, offset, height, fact: damage.fact }
    }
}

/// What reading a whole chain folder found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Bytes of the log that were read.
    pub log_bytes: u64,
    /// Good blocks.
    pub blocks: u64,
    /// First and last height.
    pub heights: Option<(Height, Height)>,
    /// Heights between them whose block is damaged and not had again: peers have them.
    pub missing: Vec<Height>,
    /// Length of an append that was cut short, in bytes: the next start cuts it off, nobody was told of it.
    pub torn_bytes: u64,
    /// Height of the state index, and whether all its values lead to the root of that block.
    pub state: Option<(Height, bool)>,
    /// Everything that is damaged.
    pub findings: Vec<Finding>,
}

impl Verified {
    /// Says whether all is as it was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.missing.is_empty()
    }
}

/// What compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the index before.
    pub before_bytes: u64,
    /// Bytes of the index after.
    pub after_bytes: u64,
    /// Height of the state.
    pub height: Height,
    /// Its root, the same before and after.
    pub root: StateRoot,
    /// Entries copied.
    pub entries: u64,
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

/// Measures the chain folder of a stopped node.
///
/// # Errors
/// [`StoreError::Locked`] while a node runs on it, or what the disk says.
pub fn stats(folder: &Path, genesis: &Genesis) -> Result<ChainStats, StoreError> {
    let _lock = FolderLock::take(folder)?;
    let at = folder.join("log");
    let measured = log::stats(&at)?;
    let open = BlockLog::open(&at, &genesis.hash(), StoreOptions::default().segment_bytes, ScanDepth::Quick)?;
    let reader = open.reader();
    let (first, tip) = (reader.first(), reader.tip());
    let covered = first.zip(tip).map_or(0, |(first, tip)| tip.get().saturating_sub(first.get()) + 1);
    let missing_blocks = reader.missing_count();
    Ok(ChainStats {
        first,
        tip,
        blocks: covered.saturating_sub(missing_blocks),
        missing_blocks,
        log: measured,
        state_bytes: log::folder_bytes(&folder.join(recover::STATE)),
        state_old_bytes: log::folder_bytes(&folder.join(recover::OLD)),
        snapshot_bytes: log::folder_bytes(&folder.join("snapshots")),
        journal_bytes: length(&folder.join(Journal::NAME)),
        bodies_bytes: length(&folder.join(Bodies::NAME)),
        roles_bytes: length(&folder.join(Roles::NAME)),
        aside_bytes: log::folder_bytes(&folder.join("aside")),
    })
}

/// Reads everything in the chain folder of a stopped node and says what is damaged. Changes nothing but the database's
/// own files, which opening may tidy.
///
/// # Errors
/// [`StoreError::Locked`] while a node runs on it, [`StoreError::Foreign`] for another network's folder, or what the
/// disk says.
pub fn verify(folder: &Path, genesis: &Genesis) -> Result<Verified, StoreError> {
    let _lock = FolderLock::take(folder)?;
    let network = genesis.hash();
    let log = log::verify(&folder.join("log"), &network)?;
    let mut found = Verified {
        log_bytes: log.bytes,
        blocks: log.blocks,
        heights: log.first.zip(log.tip),
        missing: log.missing.into_iter().collect(),
        torn_bytes: log.torn_bytes,
        state: None,
        findings: log.damage.into_iter().map(Finding::from).collect(),
    };
    for (name, kind, payload_max) in [
        (Journal::NAME, "journal", JOURNAL_ENTRY_BYTES_MAX),
        (Bodies::NAME, "bodies", bodies::payload_max()),
        (Roles::NAME, "roles", roles::payload_max()),
    ] {
        match AppendFile::verify(&folder.join(name), kind, network.as_bytes(), payload_max) {
            Ok(()) => {}
            Err(StoreError::Damaged { path, offset, fact }) => {
                found.findings.push(Finding { path, offset: Some(offset), height: None, fact });
            }
            Err(error) => return Err(error),
        }
    }
    verify_state(folder, &mut found)?;
    Ok(found)
}

fn verify_state(folder: &Path, found: &mut Verified) -> Result<(), StoreError> {
    let path = folder.join(recover::STATE);
    if !path.exists() {
        return Ok(());
    }
    let outcome = StateIndex::open(&path, StateOptions::default()).and_then(|index| {
        let root = index.root_of_values()?;
        Ok(index.marker().map(|marker| (marker.height, root == marker.root)))
    });
    let fact = match outcome {
        Ok(state) => {
            found.state = state;
            match state {
                Some((_, false)) => "its values do not lead to the root of its block".to_owned(),
                Some((_, true)) | None => return Ok(()),
            }
        }
        Err(StoreError::Index { fact }) => fact,
        Err(error) => return Err(error),
    };
    found.findings.push(Finding { path, offset: None, height: None, fact });
    Ok(())
}

/// Brings the chain folder of a stopped node in order: every byte is read, a torn tail is cut off, damage is set aside,
/// damaged blocks are marked to be had again from peers, the index is compared whole and made anew where it is wrong.
///
/// # Errors
/// [`StoreError::Locked`] while a node runs on it, or what the disk says.
pub fn repair(folder: &Path, genesis: &Genesis) -> Result<Recovered, StoreError> {
    let state = StateOptions { scrub_on_open: true, ..StateOptions::default() };
    let options = StoreOptions { scan: ScanDepth::Full, state, ..StoreOptions::default() };
    let (store, mut recovered) = Store::open(folder, genesis, options)?;
    recovered.damage.missing_blocks = store.reader().missing_blocks();
    Ok(recovered)
}

/// Gives back the room that the database of a stopped node does not use: the index is copied into a fresh folder,
/// compared by root and digest, and renamed into place.
///
/// # Errors
/// [`StoreError::Locked`] while a node runs on it, [`StoreError::Index`] when the copy differs, or what the disk says.
pub fn compact(folder: &Path, genesis: &Genesis) -> Result<Compacted, StoreError> {
    // Opening the whole store first brings the index to the log's end, and makes a damaged one anew.
    let (store, _) = Store::open(folder, genesis, StoreOptions::default())?;
    let height = store.reader().tip();
    drop(store);
    let _lock = FolderLock::take(folder)?;
    let before_bytes = log::folder_bytes(&folder.join(recover::STATE));
    let (root, entries) = recover::copy_afresh(folder, StateOptions::default())?;
    let after_bytes = log::folder_bytes(&folder.join(recover::STATE));
    Ok(Compacted { before_bytes, after_bytes, height, root, entries })
}

/// Adds up the files of a folder and those below it; 0 when there is none.
#[must_use]
pub fn folder_bytes(folder: &Path) -> u64 {
    log::folder_bytes(folder)
}

/// Checks every blob in a blob folder against its hashes; returns the roots of those that are damaged. They are not
/// listed again, so that they are fetched anew when they are needed.
///
/// # Errors
/// [`BlobError`] when the folder cannot be read.
pub fn damaged_blobs(folder: &Path) -> Result<Vec<BlobRoot>, BlobError> {
    let store = BlobStore::open(folder, BlobLimits::default())?;
    let roots = store.list().into_iter().map(|info| info.root);
    Ok(roots.filter(|root| store.verify(root).is_err()).collect())
}

/// Makes the index of a stopped node anew from the log, whatever it holds.
///
/// # Errors
/// [`StoreError::Locked`] while a node runs on it, or what the disk says.
pub fn rebuild_state(folder: &Path, genesis: &Genesis) -> Result<u64, StoreError> {
    let _lock = FolderLock::take(folder)?;
    let options = StoreOptions::default();
    let log = BlockLog::open(&folder.join("log"), &genesis.hash(), options.segment_bytes, options.scan)?;
    let snapshots = SnapshotReader::open(&folder.join("snapshots"), &genesis.hash())?;
    rebuild(folder, genesis, &log.reader(), &snapshots, options.state).map(|(_, blocks)| blocks)
}
