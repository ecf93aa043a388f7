//! The chain store on disk: one writer, any number of readers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLockReadGuard};

use tiltyard_ledger::{ReadError, StateRead};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{BlockHash, TransactionId};
use tiltyard_proto::units::Height;

use crate::bodies::Bodies;
use crate::chain::{ChainRead, ChainStore, CommitRef, Recovered, check_next};
use crate::disk;
use crate::error::StoreError;
use crate::journal::Journal;
use crate::lock::FolderLock;
use crate::log::{BlockLog, LogReader, SEGMENT_BYTES};
use crate::recover::open_state;
use crate::roles::Roles;
use crate::state::{Marker, StateIndex, StateOptions, TransactionPlace};

/// How the store uses disk and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// A segment of the log is closed beyond this many bytes (4 KiB to 1 GiB).
    pub segment_bytes: u32,
    /// With fewer free bytes than this no body is kept, so that a node stops before it signs what it may not be able
    /// to write; decided blocks are still written.
    pub reserve_bytes: u64,
    /// The state index.
    pub state: StateOptions,
}

impl Default for StoreOptions {
    /// 64 MiB segments, 64 MiB reserve.
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, reserve_bytes: 64 << 20, state: StateOptions::default() }
    }
}

/// The writer. Holds its folder for itself until it is dropped.
#[derive(Debug)]
pub struct Store {
    log: BlockLog,
    journal: Journal,
    bodies: Bodies,
    roles: Roles,
    reader: StoreReader,
    marker: Marker,
    folder: PathBuf,
    reserve_bytes: u64,
    _lock: FolderLock,
}

impl Store {
    /// Opens or makes the store in `folder` for the network of `genesis`, and tells what it knows.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another process has it, [`StoreError::Foreign`] for another network's folder,
    /// [`StoreError::DamagedBlock`] and [`StoreError::Damaged`] when acknowledged bytes changed, or what the disk says.
    pub fn open(
        folder: &Path,
        genesis: &Genesis,
        options: StoreOptions,
    ) -> Result<(Self, Recovered), StoreError> {
        let lock = FolderLock::take(folder)?;
        let network = genesis.hash();
        let log = BlockLog::open(&folder.join("log"), &network, options.segment_bytes)?;
        let (state, rebuilt) = open_state(folder, genesis, &log.reader(), options.state)?;
        let Some(marker) = state.marker() else {
            return Err(StoreError::Index { fact: "it holds no state".to_owned() });
        };
        let tip = log.reader().block(marker.height)?;
        let (journal, entries) = Journal::open(folder, &network)?;
        let (bodies, kept) = Bodies::open(folder, &network, marker.height)?;
        let roles = Roles::open(folder, &network)?;
        let saved = roles.entries().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let reader = StoreReader { log: log.reader(), state };
        let recovered = Recovered { tip, journal: entries, bodies: kept, roles: saved, rebuilt };
        let (folder, reserve_bytes) = (folder.to_path_buf(), options.reserve_bytes);
        let this = Self { log, journal, bodies, roles, reader, marker, folder, reserve_bytes, _lock: lock };
        Ok((this, recovered))
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
        self.reader.state.write(marker, commit.changes, commit.outcomes)?;
        self.reader.state.sync()?;
        self.marker = marker;
        self.bodies.forget_through(marker.height)
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
}

impl StoreReader {
    /// Holds the state still. The next commit waits for all views to be dropped: keep them short.
    #[must_use]
    pub fn view(&self) -> StateView<'_> {
        StateView { held: self.state.hold(), state: &self.state }
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
