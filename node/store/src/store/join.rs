//! Snapshots as the writer handles them: made of its own state, or fetched from peers.

use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::snapshot::SnapshotCut;

use super::Store;
use crate::error::StoreError;
use crate::snapshot::Joining;

impl Store {
    /// Begins a snapshot of the state after the tip, in a thread of its own; blocks go on meanwhile. Returns false while
    /// one is still being made, and before the first block. [`Self::wait_for_snapshot`] waits for it.
    ///
    /// # Errors
    /// [`StoreError`] when the tip cannot be read.
    pub fn make_snapshot(&mut self) -> Result<bool, StoreError> {
        match self.log.reader().block(self.marker.height)? {
            Some(decided) => self.maker.start(&self.reader.state, &self.reader.snapshots, &decided),
            None => Ok(false),
        }
    }

    /// Waits until the snapshot that is being made, if any, is durable or given up.
    pub fn wait_for_snapshot(&mut self) {
        self.maker.finish();
    }

    /// Begins to keep a snapshot that is fetched: the state after `decided`, in the chunks of `cut`. Both were verified.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is begun then.
    pub fn begin_join(&mut self, decided: &DecidedBlock, cut: &SnapshotCut) -> Result<(), StoreError> {
        self.joining = None;
        self.joining = Some(Joining::begin(&self.reader.snapshots, decided, cut)?);
        Ok(())
    }

    /// Keeps a verified chunk's canonical bytes; it outlives the process at once, and a power cut soon.
    ///
    /// # Errors
    /// [`StoreError`]; the chunk then does not count as kept.
    pub fn keep_chunk(&mut self, index: u32, bytes: &[u8]) -> Result<(), StoreError> {
        self.joining.as_mut().ok_or(StoreError::NotJoining)?.keep(index, bytes)
    }

    /// Makes the fetched snapshot durable. The next [`Store::open`] makes the state from it and begins the log with its
    /// block: open the store anew.
    ///
    /// # Errors
    /// [`StoreError`] when chunks are missing, or what the disk says.
    pub fn finish_join(&mut self) -> Result<(), StoreError> {
        self.joining.take().ok_or(StoreError::NotJoining)?.finish(&self.reader.snapshots)
    }

    /// Forgets the snapshot that was being fetched.
    ///
    /// # Errors
    /// What the disk says.
    pub fn drop_join(&mut self) -> Result<(), StoreError> {
        self.joining.take().map_or(Ok(()), |joining| joining.drop_all(&self.reader.snapshots))
    }
}
