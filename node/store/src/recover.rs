//! Brings the state index to the end of the log, whatever state it is found in: from genesis, or from the newest
//! snapshot when the log does not reach back so far.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tiltyard_keys::GenesisHash;
use tiltyard_ledger::tree;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::StateRoot;
use tiltyard_proto::state::StateKey;
use tiltyard_proto::units::Height;

use crate::disk;
use crate::error::StoreError;
use crate::log::{BlockLog, LogReader, LogReport};
use crate::snapshot::SnapshotReader;
use crate::snapshot::restore::restore;
use crate::state::replay::{replay, write_genesis};
use crate::state::{Marker, StateIndex, StateOptions};
use crate::store::StoreOptions;

/// Name of the index's folder.
pub(crate) const STATE: &str = "state";
/// Where an index is made anew before it takes the old one's place.
const FRESH: &str = "state.fresh";
/// Where the old one is kept for people; one at a time.
pub(crate) const OLD: &str = "state.old";

/// Says how the index was brought to the end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildReport {
    /// Why the old index was given up; `None` when it was only behind.
    pub reason: Option<String>,
    /// Blocks executed again.
    pub blocks: u64,
    /// Height reached.
    pub height: Height,
}

/// Log and index, in agreement.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) log: BlockLog,
    pub(crate) state: Arc<StateIndex>,
    pub(crate) tip: Option<DecidedBlock>,
    pub(crate) rebuilt: Option<RebuildReport>,
    pub(crate) report: LogReport,
}

/// How often a start may shorten the log before it gives up.
const CUTS_MAX: u32 = 16;

/// Opens log and index in `folder` and makes them agree.
///
/// Where the index cannot be brought forward because a block of the log is damaged, the log is cut before that block:
/// what stood behind it is set aside, and peers have it.
pub(crate) fn open_chain(
    folder: &Path,
    genesis: &Genesis,
    options: &StoreOptions,
    snapshots: &SnapshotReader,
) -> Result<Opened, StoreError> {
    let network = genesis.hash();
    let at = folder.join("log");
    let mut log = open_log(folder, &network, options, snapshots)?;
    let mut report = log.report().clone();
    for _ in 0..CUTS_MAX {
        let outcome = open_state(folder, genesis, &log.reader(), snapshots, options.state).and_then(
            |(state, rebuilt)| {
                let height = state.marker().map_or(Height::ZERO, |marker| marker.height);
                Ok((state, rebuilt, log.reader().block(height)?))
            },
        );
        let height = match outcome {
            Ok((state, rebuilt, tip)) => return Ok(Opened { log, state, tip, rebuilt, report }),
            Err(StoreError::DamagedBlock { height, .. } | StoreError::Hole { height }) => height,
            Err(error) => return Err(error),
        };
        tracing::warn!(%height, "the state cannot be made beyond a damaged block: the log is cut before it");
        let reached = log.tip();
        let kept = log.cut_from(height)?;
        log = BlockLog::open(&at, &network, options.segment_bytes, options.scan)?;
        report.aside.extend(kept);
        let lost = report.lost.map(|(_, to)| to).max(reached);
        report.lost = lost.map(|to| (height, to));
    }
    Err(StoreError::Index { fact: format!("it could not be made within {CUTS_MAX} tries") })
}

/// Opens the log. When a snapshot was fetched that is ahead of it, it is set aside (`log.old`, one at a time), and a new
/// one begins with the snapshot's block: the join, or the crash in the middle of it, is finished here.
fn open_log(
    folder: &Path,
    network: &GenesisHash,
    options: &StoreOptions,
    snapshots: &SnapshotReader,
) -> Result<BlockLog, StoreError> {
    let path = folder.join("log");
    let log = BlockLog::open(&path, network, options.segment_bytes, options.scan)?;
    let Some(base) = snapshots.fetched()? else { return Ok(log) };
    if log.tip().is_some_and(|tip| tip >= base.height()) {
        snapshots.forget_fetched()?;
        return Ok(log);
    }
    tracing::info!(height = %base.height(), "the log begins anew with the block of a snapshot");
    drop(log);
    let old = folder.join("log.old");
    remove_folder(&old)?;
    fs::rename(&path, &old).map_err(|e| StoreError::io("move", &path, e))?;
    disk::sync_folder(folder).map_err(|e| StoreError::io("sync folder", folder, e))?;
    let mut log = BlockLog::open(&path, network, options.segment_bytes, options.scan)?;
    log.append(base.decided())?;
    snapshots.forget_fetched()?;
    Ok(log)
}

/// Opens the index in `folder` and makes it agree with the log.
///
/// Behind the log: replayed forward. Damaged, of another past, ahead of a log that lost its end, or not to be opened:
/// made anew beside the old one from the log, compared by root at every block, then renamed into place.
pub(crate) fn open_state(
    folder: &Path,
    genesis: &Genesis,
    log: &LogReader,
    snapshots: &SnapshotReader,
    options: StateOptions,
) -> Result<(Arc<StateIndex>, Option<RebuildReport>), StoreError> {
    let tip = log.tip().unwrap_or(Height::ZERO);
    let reason = match try_open(folder, genesis, log, options) {
        Ok((index, 0)) => return Ok((Arc::new(index), None)),
        Ok((index, blocks)) => {
            let report = RebuildReport { reason: None, blocks, height: tip };
            return Ok((Arc::new(index), Some(report)));
        }
        Err(
            error @ (StoreError::Index { .. }
            | StoreError::Diverged { .. }
            | StoreError::Replay { .. }
            | StoreError::Ahead { .. }),
        ) => error.to_string(),
        Err(error) => return Err(error),
    };
    tracing::warn!(%reason, %tip, "state index is made anew from the log");
    let (index, blocks) = rebuild(folder, genesis, log, snapshots, options)?;
    Ok((Arc::new(index), Some(RebuildReport { reason: Some(reason), blocks, height: tip })))
}

fn try_open(
    folder: &Path,
    genesis: &Genesis,
    log: &LogReader,
    options: StateOptions,
) -> Result<(StateIndex, u64), StoreError> {
    let path = folder.join(STATE);
    let index = StateIndex::open(&path, options)?;
    let tip = log.tip().unwrap_or(Height::ZERO);
    let Some(marker) = index.marker() else {
        if tip > Height::ZERO || log.first().is_some() {
            return Err(StoreError::Index { fact: "it is empty".to_owned() });
        }
        write_genesis(&index, genesis)?;
        return Ok((index, 0));
    };
    if marker.genesis != genesis.hash() {
        let (found, expected) = (marker.genesis, genesis.hash());
        return Err(StoreError::Foreign { path, found, expected });
    }
    if marker.height > tip {
        return Err(StoreError::Ahead { state: marker.height, log: tip });
    }
    if log.first().is_some_and(|first| first > marker.height.next()) {
        return Err(StoreError::Index { fact: "the log does not reach back to it".to_owned() });
    }
    if let Some(decided) = log.block(marker.height)?
        && (decided.block.hash() != marker.block || decided.block.header.state_root != marker.root)
    {
        return Err(StoreError::Index { fact: "it is of another past than the log".to_owned() });
    }
    check(&index, &marker, options.scrub_on_open || index.is_doubtful())?;
    let blocks = replay(&index, log)?;
    Ok((index, blocks))
}

/// Compares what the index holds with the root that the block's header vouches for: a few paths, or all values.
fn check(index: &StateIndex, marker: &Marker, all: bool) -> Result<(), StoreError> {
    let wrong = |fact: &str| Err(StoreError::Index { fact: fact.to_owned() });
    if all && index.root_of_values()? != marker.root {
        return wrong("its values do not lead to their root");
    }
    let unreadable = |error: tiltyard_ledger::ReadError| StoreError::Index { fact: error.to_string() };
    if tree::root(index).map_err(unreadable)? != marker.root {
        return wrong("its tree does not lead to its root");
    }
    for key in [StateKey::Totals, StateKey::Params] {
        let key = key.to_bytes();
        let (value, proof) = tree::prove(index, &key).map_err(unreadable)?;
        if proof.verify(&marker.root, &key, value.as_deref()).is_err() {
            return wrong("a value does not lead to the root");
        }
    }
    Ok(())
}

/// Makes the index anew beside the old one; only when it has reached the log's end does it take the old one's place.
pub(crate) fn rebuild(
    folder: &Path,
    genesis: &Genesis,
    log: &LogReader,
    snapshots: &SnapshotReader,
    options: StateOptions,
) -> Result<(StateIndex, u64), StoreError> {
    let (current, fresh) = (folder.join(STATE), folder.join(FRESH));
    remove_folder(&fresh)?;
    let blocks = {
        let index = StateIndex::open(&fresh, options)?;
        write_start(&index, genesis, log, snapshots)?;
        let blocks = replay(&index, log)?;
        let marker = index.marker();
        if let Some(marker) = marker
            && index.root_of_values()? != marker.root
        {
            let (height, expected) = (marker.height, marker.root);
            return Err(StoreError::Diverged { height, found: index.root_of_values()?, expected });
        }
        blocks
    };
    put_in_place(folder)?;
    Ok((StateIndex::open(&current, options)?, blocks))
}

/// Renames the fresh index into place; the old one is kept for people.
fn put_in_place(folder: &Path) -> Result<(), StoreError> {
    let (current, fresh, old) = (folder.join(STATE), folder.join(FRESH), folder.join(OLD));
    remove_folder(&old)?;
    if current.exists() {
        fs::rename(&current, &old).map_err(|e| StoreError::io("move", &current, e))?;
    }
    fs::rename(&fresh, &current).map_err(|e| StoreError::io("move", &fresh, e))?;
    disk::sync_folder(folder).map_err(|e| StoreError::io("sync folder", folder, e))
}

/// Copies the index into a fresh folder, entry by entry, compares the two by root and digest, and puts the copy in
/// place; the old one is removed. Returns the root and the number of entries.
pub(crate) fn copy_afresh(folder: &Path, options: StateOptions) -> Result<(StateRoot, u64), StoreError> {
    let fresh = folder.join(FRESH);
    remove_folder(&fresh)?;
    let (root, entries) = {
        let from = StateIndex::open(&folder.join(STATE), options)?;
        let to = StateIndex::open(&fresh, options)?;
        let entries = from.copy_to(&to)?;
        let root = from.root_of_values()?;
        if to.root_of_values()? != root || to.digest()? != from.digest()? {
            return Err(StoreError::Index {
                fact: "its copy differs from it; nothing was changed".to_owned(),
            });
        }
        (root, entries)
    };
    put_in_place(folder)?;
    remove_folder(&folder.join(OLD))?;
    Ok((root, entries))
}

/// Writes the state that the replay starts from: genesis while the log is whole, else the newest snapshot that the log
/// continues.
fn write_start(
    index: &StateIndex,
    genesis: &Genesis,
    log: &LogReader,
    snapshots: &SnapshotReader,
) -> Result<(), StoreError> {
    let first = log.first().unwrap_or(Height::new(1));
    if first <= Height::new(1) {
        return write_genesis(index, genesis);
    }
    let base = snapshots
        .base(log.tip().unwrap_or(Height::ZERO))
        .filter(|base| base.height().next() >= first)
        .ok_or(StoreError::NoBase { first })?;
    restore(index, genesis.hash(), &base)
}

fn remove_folder(path: &Path) -> Result<(), StoreError> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(|e| StoreError::io("remove", path, e))?;
    }
    Ok(())
}
