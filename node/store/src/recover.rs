//! Brings the state index to the end of the log, whatever state it is found in.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::units::Height;

use crate::disk;
use crate::error::StoreError;
use crate::log::LogReader;
use crate::state::replay::{replay, write_genesis};
use crate::state::{StateIndex, StateOptions};

/// Name of the index's folder.
const STATE: &str = "state";
/// Where an index is made anew before it takes the old one's place.
const FRESH: &str = "state.fresh";
/// Where the old one is kept for people; one at a time.
const OLD: &str = "state.old";

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

/// Opens the index in `folder` and makes it agree with the log.
///
/// Behind the log: replayed forward. Damaged, of another past, or not to be opened: made anew beside the old one from
/// the log, compared by root at every block, then renamed into place. Ahead of the log: an error, for the log is
/// written first.
pub(crate) fn open_state(
    folder: &Path,
    genesis: &Genesis,
    log: &LogReader,
    options: StateOptions,
) -> Result<(Arc<StateIndex>, Option<RebuildReport>), StoreError> {
    let tip = log.tip().unwrap_or(Height::ZERO);
    let reason = match try_open(folder, genesis, log, options) {
        Ok((index, 0)) => return Ok((Arc::new(index), None)),
        Ok((index, blocks)) => {
            let report = RebuildReport { reason: None, blocks, height: tip };
            return Ok((Arc::new(index), Some(report)));
        }
        Err(error @ (StoreError::Index { .. } | StoreError::Diverged { .. } | StoreError::Replay { .. })) => {
            error.to_string()
        }
        Err(error) => return Err(error),
    };
    tracing::warn!(%reason, %tip, "state index is made anew from the log");
    let (index, blocks) = rebuild(folder, genesis, log, options)?;
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
        if tip > Height::ZERO {
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
    if let Some(decided) = log.block(marker.height)?
        && (decided.block.hash() != marker.block || decided.block.header.state_root != marker.root)
    {
        return Err(StoreError::Index { fact: "it is of another past than the log".to_owned() });
    }
    if options.scrub_on_open && index.root_of_values()? != marker.root {
        return Err(StoreError::Index { fact: "its values do not lead to their root".to_owned() });
    }
    let stored =
        tiltyard_ledger::tree::root(&index).map_err(|error| StoreError::Index { fact: error.to_string() })?;
    if stored != marker.root {
        return Err(StoreError::Index { fact: "its tree does not lead to its root".to_owned() });
    }
    let blocks = replay(&index, log)?;
    Ok((index, blocks))
}

/// Makes the index anew beside the old one; only when it has reached the log's end does it take the old one's place.
fn rebuild(
    folder: &Path,
    genesis: &Genesis,
    log: &LogReader,
    options: StateOptions,
) -> Result<(StateIndex, u64), StoreError> {
    let (current, fresh, old) = (folder.join(STATE), folder.join(FRESH), folder.join(OLD));
    remove_folder(&fresh)?;
    let blocks = {
        let index = StateIndex::open(&fresh, options)?;
        write_genesis(&index, genesis)?;
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
    remove_folder(&old)?;
    if current.exists() {
        fs::rename(&current, &old).map_err(|e| StoreError::io("move", &current, e))?;
    }
    fs::rename(&fresh, &current).map_err(|e| StoreError::io("move", &fresh, e))?;
    disk::sync_folder(folder).map_err(|e| StoreError::io("sync folder", folder, e))?;
    Ok((StateIndex::open(&current, options)?, blocks))
}

fn remove_folder(path: &Path) -> Result<(), StoreError> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(|e| StoreError::io("remove", path, e))?;
    }
    Ok(())
}
