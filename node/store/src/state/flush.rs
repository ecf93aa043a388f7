//! Writes layers into the database, behind the blocks' back.
//!
//! Entry by entry, not as a batch: the database frees what a write replaced while it begins others, and a batch is a
//! single one; a batch of a large block held a hundred megabytes. The redo file makes the whole of it atomic.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::thread;

use super::layer::Layer;
use super::redo::{self, Redo};
use super::{MARKER, Marker, NODE, STALE, StateIndex, UNDO, VALUE, guarded, keyed, stale_key};
use crate::error::StoreError;

/// A layer that has grown to so many bytes is written.
const LAYER_BYTES: usize = 8 << 20;
/// While the layer before it is still being written, it may grow to so many; then blocks wait.
const LAYER_BYTES_MAX: usize = 16 << 20;
/// A layer is written after so many blocks at the latest: so many at most are executed again after a crash.
const LAYER_BLOCKS: u64 = 256;
/// The same while the layer before it is still being written.
const LAYER_BLOCKS_MAX: u64 = 1_024;
/// How far the thread that writes steps back (on Linux the value is a thread's own).
const NICE: i32 = 10;
/// Stale nodes that are listed at a time.
const PRUNED_AT_A_TIME: usize = 4 * 1024;

/// Entries written between two flushes of the database, which keeps in memory what was not flushed.
const ENTRIES_PER_FLUSH: usize = 1_000;

/// The thread that writes layers; one for as long as the index is open, for each new one would bring a heap of its own.
#[derive(Debug)]
pub(super) struct Flusher {
    wake: Sender<()>,
    done: Receiver<Result<(), StoreError>>,
    is_busy: bool,
}

impl Flusher {
    fn start(index: &Arc<StateIndex>) -> Result<Self, StoreError> {
        let (wake, woken) = mpsc::channel::<()>();
        let (tell, done) = mpsc::channel();
        let weak = Arc::downgrade(index);
        let work = move || {
            // Behind the blocks' back means behind: all validators' layers fill at the same height. Where the system
            // does not let it, the write is only less polite.
            let _ = rustix::process::nice(NICE);
            while woken.recv().is_ok() {
                let Some(index) = weak.upgrade() else { return };
                let outcome = index.next_layer().map_or(Ok(()), |layer| index.write_layer(&layer));
                // Let go of before it is told: whoever hears it may close the index.
                drop(index);
                if tell.send(outcome).is_err() {
                    return;
                }
            }
        };
        let spawned = thread::Builder::new().name("state-index".to_owned()).spawn(work);
        spawned.map_err(|e| StoreError::io("start a thread for", &index.folder, e))?;
        Ok(Self { wake, done, is_busy: false })
    }

    /// Waits for the layer that is being written; returns what went wrong with it.
    fn wait(&mut self) -> Result<(), StoreError> {
        if !self.is_busy {
            return Ok(());
        }
        let outcome = self.done.recv();
        self.is_busy = false;
        outcome.unwrap_or_else(|_| Err(broken()))
    }

    /// Asks without waiting.
    fn look(&mut self) -> Result<(), StoreError> {
        match self.done.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => Err(broken()),
            Ok(outcome) => {
                self.is_busy = false;
                outcome
            }
        }
    }
}

fn broken() -> StoreError {
    StoreError::Index { fact: "the thread that writes it broke".to_owned() }
}

impl StateIndex {
    /// Bytes of the growing layer, and how far the database lags behind.
    fn lag(&self) -> (usize, u64) {
        let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
        let height = pending.active.marker.map_or(0, |marker| marker.height.get());
        let noted = self.noted_height.load(Ordering::Relaxed);
        let leaving = pending.leaving.as_ref().and_then(|layer| layer.marker).map_or(0, |m| m.height.get());
        (pending.active.bytes(), height.saturating_sub(noted.max(leaving)))
    }

    fn is_full(&self) -> bool {
        let (bytes, blocks) = self.lag();
        bytes >= LAYER_BYTES || blocks >= LAYER_BLOCKS
    }

    /// Begins to write the layer in a thread of its own when it is full. Waits for the one before it only when both
    /// have grown large; returns what went wrong with that one.
    pub(super) fn flush_behind(self: &Arc<Self>) -> Result<(), StoreError> {
        if !self.is_full() {
            return Ok(());
        }
        let mut held = self.flusher.lock().unwrap_or_else(PoisonError::into_inner);
        let flusher = match &mut *held {
            Some(flusher) => flusher,
            None => held.insert(Flusher::start(self)?),
        };
        flusher.look()?;
        if flusher.is_busy {
            let (bytes, blocks) = self.lag();
            if bytes < LAYER_BYTES_MAX && blocks < LAYER_BLOCKS_MAX {
                return Ok(());
            }
            flusher.wait()?;
        }
        flusher.wake.send(()).map_err(|_| broken())?;
        flusher.is_busy = true;
        Ok(())
    }

    /// Writes the layer here when it is full.
    pub(super) fn flush_here(&self) -> Result<(), StoreError> {
        if self.is_full() { self.settle() } else { Ok(()) }
    }

    /// Writes everything into the database; durable when this returns.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        let mut flusher = self.flusher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flusher) = &mut *flusher {
            flusher.wait()?;
        }
        while let Some(layer) = self.next_layer() {
            self.write_layer(&layer)?;
        }
        self.sync()
    }

    /// Returns the layer to be written next: the one whose writing failed before, else the growing one as it is now;
    /// `None` when the database holds everything.
    fn next_layer(&self) -> Option<Arc<Layer>> {
        let held = self.hold();
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = &pending.leaving {
            return Some(Arc::clone(layer));
        }
        let noted = self.noted_height.load(Ordering::Relaxed);
        pending.active.marker = *held;
        let lags = held.is_some_and(|marker| marker.height.get() > noted);
        (lags || !pending.active.is_empty()).then(|| pending.turn())
    }

    /// Writes one layer, then lets go of it.
    fn write_layer(&self, layer: &Layer) -> Result<(), StoreError> {
        let Some(marker) = layer.marker else {
            return Err(StoreError::Index { fact: "a layer without a marker was to be written".to_owned() });
        };
        let entries = layer.sorted();
        if !entries.is_empty() {
            redo::write(&self.folder, &marker, &entries)?;
        }
        let outcome = self.put(&marker, &entries).and_then(|()| self.sync());
        if let Err(error) = outcome {
            if matches!(error, StoreError::Index { .. }) {
                self.flag_rebuild();
            }
            return Err(error);
        }
        if !entries.is_empty() {
            redo::clear(&self.folder)?;
        }
        self.noted_height.store(marker.height.get(), Ordering::Relaxed);
        let mut cache = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in &entries {
            if let (Some((&NODE, key)), Some(node)) = (key.split_first(), value) {
                cache.put(key, node);
            }
        }
        drop(cache);
        self.pending.write().unwrap_or_else(PoisonError::into_inner).leaving = None;
        self.prune_stale(&marker)
    }

    /// Writes entries and then the marker. A value's old one is kept before it where a snapshot is being made.
    fn put(&self, marker: &Marker, entries: &[(&[u8], Option<&[u8]>)]) -> Result<(), StoreError> {
        let keeps_old = self.keeps_old.read().unwrap_or_else(PoisonError::into_inner);
        guarded(|| {
            for (at, (key, value)) in entries.iter().enumerate() {
                if at % ENTRIES_PER_FLUSH == ENTRIES_PER_FLUSH - 1 {
                    self.db.flush()?;
                }
                if *keeps_old && key.first() == Some(&VALUE) {
                    self.keep_before(key)?;
                }
                match value {
                    Some(value) => self.db.insert(key, *value)?,
                    None => self.db.remove(key)?,
                };
            }
            self.db.insert(MARKER, marker.encode()).map(|_| ())
        })
    }

    /// Keeps what stands now under a value's key, unless it is kept already.
    fn keep_before(&self, name: &[u8]) -> Result<(), sled::Error> {
        let undo = keyed(UNDO, name.get(1..).unwrap_or_default());
        if self.db.contains_key(&undo)? {
            return Ok(());
        }
        let old = self.db.get(name)?.map_or_else(|| vec![0u8], |packed| keyed(1, &packed));
        self.db.insert(undo, old).map(|_| ())
    }

    /// Removes the stale nodes that have left the horizon, oldest first.
    fn prune_stale(&self, marker: &Marker) -> Result<(), StoreError> {
        let horizon = self.options.prune_after.get();
        let Some(last) = marker.height.get().checked_sub(horizon).filter(|_| horizon > 0) else {
            return Ok(());
        };
        let end = stale_key(tiltyard_proto::units::Height::new(last), &[]);
        loop {
            let range = vec![STALE]..end.clone();
            let keys: Vec<sled::IVec> =
                guarded(|| self.db.range(range).keys().take(PRUNED_AT_A_TIME).collect())?;
            if keys.is_empty() {
                return Ok(());
            }
            guarded(|| {
                for key in &keys {
                    self.db.remove(keyed(NODE, key.get(9..).unwrap_or_default()))?;
                    self.db.remove(key)?;
                }
                Ok(())
            })?;
        }
    }

    /// Finishes what a crash cut short. Returns whether the index must be looked at as a whole.
    pub(super) fn redo(&self) -> Result<bool, StoreError> {
        let layer = match redo::read(&self.folder)? {
            Redo::Absent => return Ok(false),
            Redo::Broken => {
                // Whether the database was touched, only its content can tell.
                redo::clear(&self.folder)?;
                return Ok(true);
            }
            Redo::Whole(layer) => layer,
        };
        let (held, found) = (self.marker(), layer.marker);
        let continues = found.is_some_and(|found| {
            held.is_none_or(|held| held.genesis == found.genesis && held.height < found.height)
        });
        if continues && let Some(marker) = found {
            tracing::info!(height = %marker.height, "state index: a write that was cut short is done again");
            self.put(&marker, &layer.sorted())?;
            self.sync()?;
            self.noted_height.store(marker.height.get(), Ordering::Relaxed);
            *self.marker.write().unwrap_or_else(PoisonError::into_inner) = Some(marker);
        }
        redo::clear(&self.folder)?;
        Ok(false)
    }
}

#[cfg(test)]
#[path = "flush_tests.rs"]
mod tests;
