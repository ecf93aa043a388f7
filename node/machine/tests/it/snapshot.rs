//! Snapshots of a disk in memory: made, served (or lied about), adopted.

use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{query, tree};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::hash::plain;
use tiltyard_proto::light::LightBlock;
use tiltyard_proto::limits::SNAPSHOT_CHUNK_BYTES_MAX;
use tiltyard_proto::snapshot::{SnapshotChunk, SnapshotCut, SnapshotEntry, cut_finer};
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::{SyncRequest, SyncResponse};

use crate::world::Disk;

/// Small, so that a small state has many chunks.
const WEIGHT: usize = 200;

/// A snapshot in memory.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    cut: SnapshotCut,
    chunks: Vec<SnapshotChunk>,
}

/// Makes a snapshot of the disk's tip.
pub(crate) fn make(disk: &mut Disk) {
    let mut entries: Vec<SnapshotEntry> = disk
        .state
        .entries()
        .map(|(key, value)| SnapshotEntry { key: key.to_vec().into(), value: value.to_vec().into() })
        .collect();
    entries.sort_by_key(|entry| plain(&entry.key));
    let mut chunks = Vec::new();
    let cut = cut_finer(WEIGHT, entries.into_iter().map(Ok::<_, ()>), &mut |_, chunk| {
        chunks.push(chunk);
        Ok(())
    });
    let cut = cut.unwrap();
    cut.verify(&disk.blocks.last().unwrap().block.header.state_root).unwrap();
    assert!(cut.chunks.len() > 4);
    disk.snapshots.insert(disk.height(), Snapshot { cut, chunks });
    while disk.snapshots.len() > 2 {
        disk.snapshots.pop_first();
    }
}

/// Answers as the shell of a node does, or as a liar.
pub(crate) fn answer(disk: &Disk, request: &SyncRequest, lies: bool) -> SyncResponse {
    let snapshot = |height: &Height| disk.snapshots.get(&height.get());
    match request {
        SyncRequest::LightBlock { height } => {
            let decided = height.get().checked_sub(disk.base + 1).and_then(|at| disk.blocks.get(at as usize));
            let block = decided.and_then(|decided| {
                Some(Box::new(LightBlock {
                    header: decided.block.header.clone(),
                    certificate: decided.certificate.clone(),
                    set: query::set_at(&disk.state, *height).ok()?,
                    next_set: query::set_at(&disk.state, height.next()).ok()?,
                }))
            });
            SyncResponse::LightBlock(block)
        }
        SyncRequest::Snapshots => {
            SyncResponse::Snapshots(disk.snapshots.keys().map(|height| Height::new(*height)).collect())
        }
        SyncRequest::SnapshotCut { height } => {
            let mut cut = snapshot(height).map(|snapshot| snapshot.cut.clone());
            if let (true, Some(cut)) = (lies, &mut cut) {
                cut.chunks.swap(0, 1);
            }
            SyncResponse::SnapshotCut(cut)
        }
        SyncRequest::SnapshotChunk { height, index } => {
            let mut chunk =
                snapshot(height).and_then(|snapshot| snapshot.chunks.get(*index as usize).cloned());
            if let (true, Some(chunk)) = (lies, &mut chunk) {
                match chunk.entries.first_mut() {
                    Some(entry) => entry.value.push(0),
                    None => chunk.entries.push(SnapshotEntry { key: vec![1].into(), value: vec![1].into() }),
                }
            }
            SyncResponse::SnapshotChunk(chunk)
        }
        other => panic!("{other:?} is not about snapshots"),
    }
}

/// Does what the shell does with a whole snapshot.
pub(crate) fn adopt(disk: &mut Disk) {
    let joining = disk.joining.take().unwrap();
    let decided: DecidedBlock = joining.decided;
    let mut state = MemoryState::new();
    assert_eq!(disk.chunks.len(), joining.cut.chunks.len());
    for bytes in disk.chunks.values() {
        let chunk: SnapshotChunk = codec::decode("chunk", bytes, SNAPSHOT_CHUNK_BYTES_MAX).unwrap();
        if chunk.entries.is_empty() {
            continue;
        }
        let values = chunk
            .entries
            .into_iter()
            .map(|entry| (entry.key.into_vec(), Some(entry.value.into_vec())))
            .collect();
        let changes = tree::update(&state, values).unwrap();
        state.apply(&changes);
    }
    assert_eq!(tree::root(&state).unwrap(), decided.block.header.state_root);
    disk.base = decided.block.header.height.get() - 1;
    disk.state = state;
    disk.blocks = vec![decided];
    disk.chunks.clear();
    disk.bodies.clear();
    disk.begun_by_snapshot = true;
}
