//! Makes the state index from a snapshot, a chunk at a time; its root is computed anew on the way.

use tiltyard_keys::GenesisHash;
use tiltyard_ledger::tree;
use tiltyard_proto::snapshot::SnapshotChunk;

use super::Snapshot;
use crate::error::StoreError;
use crate::state::{Marker, StateIndex};

/// How often progress is told, in chunks.
const TOLD_CHUNKS: usize = 64;

/// Writes the snapshot's state into an empty index. Holds one chunk at a time.
pub(crate) fn restore(
    index: &StateIndex,
    network: GenesisHash,
    snapshot: &Snapshot,
) -> Result<(), StoreError> {
    let header = &snapshot.decided().block.header;
    let height = header.height;
    let fail = |fact: String| StoreError::Replay { height, fact };
    let cut = snapshot.cut().ok_or_else(|| fail("the snapshot has no cut".to_owned()))?;
    let mut found = None;
    let parts = cut.spans().into_iter().zip(&cut.chunks);
    for (at, (span, part)) in (0u32..).zip(parts) {
        let chunk = snapshot.chunk(at)?.ok_or_else(|| fail(format!("chunk {at} is missing")))?;
        chunk.verify(at, &span, &part.root).map_err(|error| fail(error.to_string()))?;
        if let Some(root) = write(index, network, snapshot, chunk)? {
            found = Some(root);
        }
        // The database keeps everything in memory that was not flushed.
        index.sync()?;
        if (at as usize).is_multiple_of(TOLD_CHUNKS) {
            tracing::info!(chunk = at, of = cut.chunks.len(), %height, "state is made from the snapshot");
        }
    }
    let (found, expected) = (found.unwrap_or(header.state_root), header.state_root);
    if index.marker().map(|marker| marker.root) != Some(expected) {
        return Err(StoreError::Diverged { height, found, expected });
    }
    index.sync()
}

fn write(
    index: &StateIndex,
    network: GenesisHash,
    snapshot: &Snapshot,
    chunk: SnapshotChunk,
) -> Result<Option<tiltyard_proto::ids::StateRoot>, StoreError> {
    if chunk.entries.is_empty() {
        return Ok(None);
    }
    let values =
        chunk.entries.into_iter().map(|entry| (entry.key.into_vec(), Some(entry.value.into_vec()))).collect();
    let changes =
        tree::update(index, values).map_err(|error| StoreError::Index { fact: error.to_string() })?;
    let marker = Marker {
        genesis: network,
        height: snapshot.height(),
        block: snapshot.decided().block.hash(),
        root: changes.state_root,
        tree_version: changes.tree_version.unwrap_or(0),
    };
    index.fill(marker, &changes)?;
    Ok(Some(changes.state_root))
}
