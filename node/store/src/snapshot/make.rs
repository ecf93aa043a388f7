//! Makes a snapshot in a thread of its own while blocks go on: the writer keeps the first old value of every entry that
//! it changes meanwhile, so that the state of one block is read to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::snapshot::cut;

use super::entries::Entries;
use super::{MAKING, Snapshot, SnapshotReader};
use crate::disk;
use crate::error::StoreError;
use crate::state::StateIndex;

/// Runs at most one making at a time.
#[derive(Debug, Default)]
pub(crate) struct Maker {
    running: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

enum Ended {
    Stopped,
    Failed(StoreError),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Maker {
    /// Begins a snapshot of the state as it is now, which is the one after `decided`. Called by the writer's thread,
    /// between two writes. Returns false while one is still being made.
    pub(crate) fn start(
        &mut self,
        index: &Arc<StateIndex>,
        snapshots: &SnapshotReader,
        decided: &DecidedBlock,
    ) -> Result<bool, StoreError> {
        if self.running.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(false);
        }
        self.finish();
        index.keep_old(true)?;
        let held = Arc::clone(index);
        let (snapshots, decided) = (snapshots.clone(), decided.clone());
        let stop = Arc::clone(&self.stop);
        let thread = thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            let height = decided.block.header.height;
            let outcome = make(&held, &snapshots, &decided, &stop);
            let cleared = held.keep_old(false);
            match outcome {
                Ok(chunks) => tracing::info!(%height, chunks, "snapshot made"),
                Err(Ended::Stopped) => tracing::debug!(%height, "snapshot given up: the node stops"),
                Err(Ended::Failed(error)) => tracing::warn!(%height, %error, "snapshot not made"),
            }
            if let Err(error) = cleared {
                tracing::warn!(%height, %error, "old values not removed; the next start removes them");
            }
        });
        match thread {
            Ok(thread) => self.running = Some(thread),
            Err(error) => {
                tracing::warn!(%error, "snapshot not begun");
                index.keep_old(false)?;
            }
        }
        Ok(true)
    }

    /// Waits for the snapshot that is being made.
    pub(crate) fn finish(&mut self) {
        if let Some(thread) = self.running.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that made a snapshot broke");
        }
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.finish();
    }
}

fn make(
    index: &StateIndex,
    snapshots: &SnapshotReader,
    decided: &DecidedBlock,
    stop: &AtomicBool,
) -> Result<usize, Ended> {
    let path = snapshots.path(MAKING);
    let outcome = (|| -> Result<usize, Ended> {
        let mut file = Snapshot::create(&path, &snapshots.shared.network, decided)?;
        let entries = Entries::undone(index).map(|entry| entry.map_err(Ended::from));
        let cut = cut(entries, &mut |at, chunk| {
            if stop.load(Ordering::Relaxed) {
                return Err(Ended::Stopped);
            }
            file.write_chunk(at, &codec::encode(&chunk)).map_err(Ended::from)
        })?;
        cut.verify(&file.root()).map_err(|error| StoreError::Index { fact: error.to_string() })?;
        file.write_cut(&cut)?;
        file.sync()?;
        drop(file);
        // Read back, frame by frame, before it counts.
        snapshots.adopt(&path)?;
        Ok(cut.chunks.len())
    })();
    if outcome.is_err() {
        // What is left of it is removed at the next start if not now.
        drop(disk::remove_if_there(&path));
    }
    outcome
}
