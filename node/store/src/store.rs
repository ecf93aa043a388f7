//! The chain store on disk: one writer, any number of readers.

mod join;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLockReadGuard};

use tiltyard_ledger::{ReadError, StateRead, query};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{BlockHash, TransactionId};
use tiltyard_proto::receipt::SetChange;
use tiltyard_proto::units::{Blocks, Height};

use crate::bodies::Bodies;
use crate::chain::{ChainRead, ChainStore, CommitRef, Damage, Recovered, check_next};
use crate::changes::{Changes, Known, change_of};
use crate::disk;
use crate::error::StoreError;
use crate::journal::Journal;
use crate::lock::FolderLock;
use crate::log::{BlockLog, LogDamage, LogReader, MissingRun, SEGMENT_BYTES, ScanDepth};
use crate::prune::Pruner;
use crate::recover::{Opened, open_chain};
use crate::roles::Roles;
use crate::snapshot::{Joining, Maker, SnapshotReader};
use crate::state::{Marker, StateIndex, StateOptions, TransactionPlace};

/// How the store uses disk and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// A segment of the log is closed beyond this many bytes (4 KiB to 1 GiB).
    pub segment_bytes: u32,
    /// With fewer free bytes than this no body is kept, so that a node stops before it signs what it may not be able
    /// to write; decided blocks are still written.
    pub reserve_bytes: u64,
    /// How much of the log is read at the start.
    pub scan: ScanDepth,
    /// A snapshot is made after every block whose height this divides; 0 for never.
    pub snapshot_every: Blocks,
    /// Blocks older than so many are dropped once two snapshots of the state cover them; `None` keeps every block.
    pub keep_blocks: Option<Blocks>,
    /// The state index.
    pub state: StateOptions,
}

impl Default for StoreOptions {
    /// 64 MiB segments, 64 MiB reserve, a quick start, a snapshot every 1,000 blocks, every block kept.
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            reserve_bytes: 64 << 20,
            scan: ScanDepth::Quick,
            snapshot_every: Blocks::new(1_000),
            keep_blocks: None,
            state: StateOptions::default(),
        }
    }
}

/// The writer. Holds its folder for itself until it is dropped.
#[derive(Debug)]
pub struct Store {
    log: BlockLog,
    journal: Journal,
    bodies: Bodies,
    roles: Roles,
    changes: Changes,
    reader: StoreReader,
    marker: Marker,
    joining: Option<Joining>,
    maker: Maker,
    snapshot_every: Blocks,
    pruner: Pruner,
    folder: PathBuf,
    reserve_bytes: u64,
    _lock: FolderLock,
}

impl Store {
    /// Opens or makes the store in `folder` for the network of `genesis`, and tells what it knows. Damage is worked
    /// around and told in [`Recovered::damage`].
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it, [`StoreError::Foreign`] for another network's folder, or
    /// what the disk says.
    pub fn open(
        folder: &Path,
        genesis: &Genesis,
        options: StoreOptions,
    ) -> Result<(Self, Recovered), StoreError> {
        let lock = FolderLock::take(folder)?;
        let network = genesis.hash();
        let snapshots = SnapshotReader::open(&folder.join("snapshots"), &network)?;
        let Opened { log, state, tip, rebuilt, report } = open_chain(folder, genesis, &options, &snapshots)?;
        let Some(marker) = state.marker() else {
            return Err(StoreError::Index { fact: "it holds no state".to_owned() });
        };
        let (bodies, kept, bodies_damage) = Bodies::open(folder, &network, marker.height)?;
        if bodies_damage.is_some() {
            // A body that this node voted for may be gone: its journal alone must not make it go on.
            Journal::set_aside(folder)?;
        }
        let (journal, entries, journal_damage) = Journal::open_or_set_aside(folder, &network)?;
        let (roles, roles_damage) = Roles::open(folder, &network)?;
        let saved = roles.entries().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let damage = Damage {
            log: report,
            missing_blocks: log.reader().missing_count(),
            journal: journal_damage,
            bodies: bodies_damage,
            roles: roles_damage,
        };
        let mut changes = Changes::open(folder, &network)?;
        let (joining, progress) = Joining::open(&snapshots)?.unzip();
        let begun_by_snapshot = log.reader().first().is_some_and(|first| first > Height::new(1));
        let reader = StoreReader { log: log.reader(), state, snapshots, changes: changes.known() };
        catch_up(&mut changes, &reader)?;
        let recovered = Recovered {
            tip,
            journal: entries,
            bodies: kept,
            roles: saved,
            rebuilt,
            joining: progress,
            begun_by_snapshot,
            damage,
        };
        let pruner = Pruner::new(options.keep_blocks, &log);
        let this = Self {
            log,
            journal,
            bodies,
            roles,
            changes,
            reader,
            marker,
            joining,
            maker: Maker::default(),
            snapshot_every: options.snapshot_every,
            pruner,
            folder: folder.to_path_buf(),
            reserve_bytes: options.reserve_bytes,
            _lock: lock,
        };
        Ok((this, recovered))
    }

    /// Returns the highest run of missing blocks with what proves its last one.
    ///
    /// # Errors
    /// [`StoreError`] when the disk cannot be read.
    pub fn missing_run(&self) -> Result<Option<MissingRun>, StoreError> {
        self.reader.log.missing_run()
    }

    /// Puts a missing block in its place; durable when it returns. False when that height is not missing.
    ///
    /// # Errors
    /// [`StoreError::NotNext`] for a block that its successor does not name, or what the disk says.
    pub fn patch(&mut self, decided: &DecidedBlock) -> Result<bool, StoreError> {
        self.log.patch(decided)
    }

    /// Makes the next start build the state index anew: something that it led to contradicts the network.
    pub fn distrust_state(&self) {
        self.reader.state.flag_rebuild();
    }
}

/// Takes the changes of the set that the log holds and the file does not: a crash may have come in between.
fn catch_up(changes: &mut Changes, reader: &StoreReader) -> Result<(), StoreError> {
    let unreadable = |error: ReadError| StoreError::Index { fact: error.to_string() };
    let tip = reader.tip();
    if reader.tree_version().map_err(unreadable)?.is_none() || tip == Height::ZERO {
        return Ok(());
    }
    let epoch = query::params(reader).map_err(unreadable)?.epoch.get().max(1);
    let near = Height::new(tip.get().saturating_sub(epoch.saturating_mul(2)));
    let from = if changes.is_whole { near } else { Height::new(1) };
    let first = reader.first().unwrap_or(Height::new(1)).max(changes.newest().next()).max(from);
    let mut at = first.get().div_ceil(epoch).saturating_mul(epoch);
    while at <= tip.get() {
        match reader.block(Height::new(at)) {
            Ok(Some(decided)) => match change_of(&decided, reader) {
                Ok(Some(change)) => changes.keep(change)?,
                // A set older than the evidence age is forgotten; so is the change, on a disk that never noted it.
                Ok(None) | Err(StoreError::Index { .. }) => {}
                Err(error) => return Err(error),
            },
            Ok(None) | Err(StoreError::DamagedBlock { .. }) => {}
            Err(error) => return Err(error),
        }
        at = at.saturating_add(epoch);
    }
    Ok(())
}

impl Drop for Store {
    /// Writes what the index holds in memory, so that the next start has nothing to execute again.
    fn drop(&mut self) {
        if let Err(error) = self.reader.state.settle() {
            tracing::warn!(%error, "state index not written to its end; the next start catches up");
        }
    }
}

impl ChainStore for Store {
    type Reader = StoreReader;

    fn reader(&self) -> StoreReader {
        self.reader.clone()
    }

    fn save_body(&mut self, block: BlockHash, height: Height, bytes: &[u8]) -> Result<(), StoreError> {
        let free = disk::free_bytes(&self.folder)
            .map_err(|e| StoreError::io("ask for free space in", &self.folder, e))?;
        if free < self.reserve_bytes {
            let (path, reserve) = (self.folder.clone(), self.reserve_bytes);
            return Err(StoreError::NoSpace { path, free, reserve });
        }
        self.bodies.save(block, height, bytes)
    }

    fn journal(&mut self, entry: &[u8]) -> Result<(), StoreError> {
        self.journal.append(entry)
    }

    fn reset_journal(&mut self, first: &[u8]) -> Result<(), StoreError> {
        self.journal.reset(first)
    }

    fn commit(&mut self, commit: CommitRef<'_>) -> Result<(), StoreError> {
        check_next((self.marker.height, self.marker.block), &commit)?;
        self.log.append(commit.decided)?;
        let marker = self.marker.after(commit.decided, commit.changes);
        self.reader.state.commit(marker, commit.changes, commit.outcomes)?;
        self.marker = marker;
        if let Some(change) = change_of(commit.decided, &self.reader)? {
            self.changes.keep(change)?;
        }
        self.bodies.forget_through(marker.height)?;
        let due = marker.height.get().checked_rem(self.snapshot_every.get()) == Some(0);
        if due && !self.maker.start(&self.reader.state, &self.reader.snapshots, commit.decided)? {
            tracing::warn!(height = %marker.height, "no snapshot here: the one before is still being made");
        }
        let covered = self.reader.snapshots.covered();
        self.pruner.step(&mut self.log, &self.reader.state, marker.height, covered)
    }

    fn save_role(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.roles.save(key, value)
    }
}

/// Reads the store from any thread.
///
/// Used directly, each call sees the newest commit: right for the thread that commits. Other threads take a
/// [`StoreReader::view`] for answers that belong together.
#[derive(Debug, Clone)]
pub struct StoreReader {
    log: LogReader,
    state: Arc<StateIndex>,
    snapshots: SnapshotReader,
    changes: Known,
}

impl StoreReader {
    /// Returns the complete snapshots.
    #[must_use]
    pub fn snapshots(&self) -> &SnapshotReader {
        &self.snapshots
    }

    /// Holds the state still. The next commit waits for all views to be dropped: keep them short.
    #[must_use]
    pub fn view(&self) -> StateView<'_> {
        StateView { held: self.state.hold(), state: &self.state }
    }

    /// Returns the headers below `height` that named another set for the next height, oldest first, each with that set.
    /// Pruning leaves them.
    #[must_use]
    pub fn set_changes(&self, height: Height) -> Vec<SetChange> {
        let known = self.changes.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().take_while(|change| change.header.height < height).cloned().collect()
    }

    /// Returns the damage met while reading blocks since the last call.
    #[must_use]
    pub fn take_met_damage(&self) -> Vec<LogDamage> {
        self.log.take_met()
    }

    /// Number of blocks that are missing in the log.
    #[must_use]
    pub fn missing_blocks(&self) -> u64 {
        self.log.missing_count()
    }
}

impl StateRead for StoreReader {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.state.value(key)
    }

    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.state.node(key)
    }

    fn tree_version(&self) -> Result<Option<u64>, ReadError> {
        self.state.tree_version()
    }
}

impl ChainRead for StoreReader {
    fn tip(&self) -> Height {
        self.state.marker().map_or(Height::ZERO, |marker| marker.height)
    }

    fn first(&self) -> Option<Height> {
        self.log.first()
    }

    fn block(&self, height: Height) -> Result<Option<DecidedBlock>, StoreError> {
        self.log.block(height)
    }

    fn transaction(&self, id: &TransactionId) -> Result<Option<TransactionPlace>, StoreError> {
        self.state.transaction(id)
    }
}

/// The state after one block, held still.
#[derive(Debug)]
pub struct StateView<'a> {
    held: RwLockReadGuard<'a, Option<Marker>>,
    state: &'a StateIndex,
}

impl StateView<'_> {
    /// Returns the height of the block that the state is after.
    #[must_use]
    pub fn height(&self) -> Height {
        self.held.as_ref().map_or(Height::ZERO, |marker| marker.height)
    }
}

impl StateRead for StateView<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.state.value(key)
    }

    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.state.node(key)
    }

    fn tree_version(&self) -> Result<Option<u64>, ReadError> {
        Ok(self.held.as_ref().map(|marker| marker.tree_version))
    }
}
