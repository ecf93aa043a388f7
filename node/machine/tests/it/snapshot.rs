//! Snapshots of a disk in memory: made, served (or lied about), adopted.

use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{query, tree};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::codec;
use tiltyard_proto::hash::plain;
use tiltyard_proto::light::LightBlock;
use tiltyard_proto::limits::SNAPSHOT_CHUNK_BYTES_MAX;
use tiltyard_proto::snapshot::{SnapshotChunk, SnapshotCut, SnapshotEntry, cut_finer};
use tiltyard_proto::units::{Height, Stake};
use tiltyard_proto::validators::{Validator, ValidatorSet};
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

fn cut_up(entries: Vec<SnapshotEntry>) -> Snapshot {
    let mut chunks = Vec::new();
    let cut = cut_finer(WEIGHT, entries.into_iter().map(Ok::<_, ()>), &mut |_, chunk| {
        chunks.push(chunk);
        Ok(())
    });
    Snapshot { cut: cut.unwrap(), chunks }
}

/// Makes a snapshot of the disk's tip.
pub(crate) fn make(disk: &mut Disk) {
    let mut entries: Vec<SnapshotEntry> = disk
        .state
        .entries()
        .map(|(key, value)| SnapshotEntry { key: key.to_vec().into(), value: value.to_vec().into() })
        .collect();
    entries.sort_by_key(|entry| plain(&entry.key));
    let snapshot = cut_up(entries);
    snapshot.cut.verify(&disk.blocks.last().unwrap().block.header.state_root).unwrap();
    assert!(snapshot.cut.chunks.len() > 4);
    disk.snapshots.insert(disk.height(), snapshot);
    while disk.snapshots.len() > 2 {
        disk.snapshots.pop_first();
    }
}

/// How a peer lies about snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    No,
    /// It changes what it gives.
    Tampered,
    /// Everything fits together, but keys of its own decided it.
    Forged,
}

/// A block of the same height whose state, and the set that decided it, are the forger's own.
pub(crate) fn forge(disk: &Disk, honest: &DecidedBlock) -> (DecidedBlock, ValidatorSet, Snapshot) {
    let forger = crate::world::secret(0xee);
    let member = Validator { key: forger.public(), stake: Stake::new(1_000_000) };
    let set = ValidatorSet::try_from(vec![member]).unwrap();
    let mut entries: Vec<SnapshotEntry> = disk.snapshots.values().next().map_or(Vec::new(), |snapshot| {
        snapshot.chunks.iter().flat_map(|chunk| chunk.entries.clone()).collect()
    });
    for entry in &mut entries {
        entry.value.push(1);
    }
    let snapshot = cut_up(entries);
    let mut block = honest.block.clone();
    block.header.state_root = snapshot.cut.root().unwrap();
    block.header.validators_hash = set.hash();
    block.header.next_validators_hash = set.hash();
    let (height, round) = (block.header.height, honest.certificate.round);
    let blank = Certificate::build(height, round, block.hash(), &set, &[]);
    let signature = forger.signer(block.header.genesis).sign_vote(&blank.payload());
    let certificate = Certificate::build(height, round, block.hash(), &set, &[(forger.public(), signature)]);
    (DecidedBlock { block, certificate }, set, snapshot)
}

fn block_at(disk: &Disk, height: Height) -> Option<&DecidedBlock> {
    height.get().checked_sub(disk.base + 1).and_then(|at| disk.blocks.get(usize::try_from(at).ok()?))
}

/// Answers for a forger: other headers than those of snapshots are honest, so that trust is led as far as it goes.
fn answer_forged(disk: &Disk, request: &SyncRequest) -> Option<SyncResponse> {
    let (SyncRequest::LightBlock { height }
    | SyncRequest::SnapshotCut { height }
    | SyncRequest::SnapshotChunk { height, .. }) = request
    else {
        return None;
    };
    if !disk.snapshots.contains_key(&height.get()) {
        return None;
    }
    let (decided, set, snapshot) = forge(disk, block_at(disk, *height)?);
    Some(match request {
        SyncRequest::SnapshotCut { .. } => SyncResponse::SnapshotCut(Some(snapshot.cut)),
        SyncRequest::SnapshotChunk { index, .. } => {
            SyncResponse::SnapshotChunk(snapshot.chunks.get(*index as usize).cloned())
        }
        _ => SyncResponse::LightBlock(Some(Box::new(LightBlock {
            header: decided.block.header,
            certificate: decided.certificate,
            set: set.clone(),
            next_set: set,
        }))),
    })
}

/// Answers as the shell of a node does, or as a liar.
pub(crate) fn answer(disk: &Disk, request: &SyncRequest, lie: Lie) -> SyncResponse {
    let lies = lie == Lie::Tampered;
    if let (Lie::Forged, Some(forged)) = (lie, answer_forged(disk, request)) {
        return forged;
    }
    let snapshot = |height: &Height| disk.snapshots.get(&height.get());
    match request {
        SyncRequest::LightBlock { height } => {
            let decided = block_at(disk, *height);
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
