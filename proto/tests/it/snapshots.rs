//! Cuts and chunks of a state: the rule, the fold, and every way to lie about them.

use std::collections::BTreeMap;

use tiltyard_proto::hash::plain;
use tiltyard_proto::ids::MerkleRoot;
use tiltyard_proto::limits::{SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOT_CHUNK_WEIGHT_MAX};
use tiltyard_proto::snapshot::{
    ChunkError, ChunkRoot, CutError, SnapshotChunk, SnapshotCut, SnapshotEntry, Span, cut,
};

use crate::sample::Numbers;
use crate::state_proofs::Tree;

type State = Vec<(Vec<u8>, Vec<u8>)>;

fn state(count: usize, value_bytes: usize) -> State {
    let mut numbers = Numbers(count as u64);
    (0..count)
        .map(|at| {
            (format!("key {at}").into_bytes(), vec![numbers.next() as u8; 1 + numbers.below(value_bytes)])
        })
        .collect()
}

fn cut_up(state: &State) -> (SnapshotCut, Vec<SnapshotChunk>) {
    let by_hash: BTreeMap<[u8; 32], &(Vec<u8>, Vec<u8>)> =
        state.iter().map(|entry| (plain(&entry.0), entry)).collect();
    let entries = by_hash.into_values().map(|(key, value)| {
        Ok::<_, ()>(SnapshotEntry { key: key.clone().into(), value: value.clone().into() })
    });
    let mut chunks = Vec::new();
    let cut = cut(entries, &mut |index, chunk| {
        assert_eq!(index as usize, chunks.len());
        chunks.push(chunk);
        Ok(())
    });
    (cut.expect("nothing here fails"), chunks)
}

fn check(cut: &SnapshotCut, chunks: &[SnapshotChunk], index: usize) -> Result<(), ChunkError> {
    chunks[index].verify(index as u32, &cut.spans()[index], &cut.chunks[index].root)
}

#[test]
fn a_cut_folds_to_the_root_and_every_chunk_holds_under_it() {
    for (count, value_bytes) in [(0, 1), (1, 1), (2, 1), (3, 70_000), (40, 60_000), (3_000, 1_500)] {
        let state = state(count, value_bytes);
        let (cut, chunks) = cut_up(&state);
        cut.verify(&Tree::new(&state).root()).unwrap();
        assert_eq!(chunks.iter().map(|chunk| chunk.entries.len()).sum::<usize>(), count);
        for (index, chunk) in chunks.iter().enumerate() {
            check(&cut, &chunks, index).unwrap();
            let weight: usize = chunk.entries.iter().map(SnapshotEntry::weight).sum();
            assert!(weight <= SNAPSHOT_CHUNK_WEIGHT_MAX);
            assert!(tiltyard_proto::codec::encode(chunk).len() <= SNAPSHOT_CHUNK_BYTES_MAX);
        }
    }
}

#[test]
fn a_subtree_is_cut_only_when_it_is_too_heavy_for_one_chunk() {
    let (cut, chunks) = cut_up(&state(3_000, 1_500));
    assert!(chunks.len() > 4, "{} chunks", chunks.len());
    let weight = |at: usize| chunks[at].entries.iter().map(SnapshotEntry::weight).sum::<usize>();
    for at in 1..chunks.len() {
        if cut.chunks[at - 1].depth == cut.chunks[at].depth {
            let (left, right) = (cut.spans()[at - 1], cut.spans()[at]);
            let parent = Span { depth: left.depth - 1, ..left };
            if parent.holds(&right.prefix) {
                assert!(weight(at - 1) + weight(at) > SNAPSHOT_CHUNK_WEIGHT_MAX);
            }
        }
    }
}

#[test]
fn every_change_of_an_entry_and_every_one_left_out_or_added_is_found() {
    let state = state(60, 30_000);
    let (cut, chunks) = cut_up(&state);
    assert!(chunks.len() > 1);
    for index in 0..chunks.len() {
        for at in 0..chunks[index].entries.len() {
            let mut wrong = chunks.clone();
            wrong[index].entries[at].value[0] ^= 1;
            assert_eq!(check(&cut, &wrong, index), Err(ChunkError::WrongRoot { index: index as u32 }));
            let mut wrong = chunks.clone();
            wrong[index].entries.remove(at);
            assert_eq!(check(&cut, &wrong, index), Err(ChunkError::WrongRoot { index: index as u32 }));
            let mut wrong = chunks.clone();
            let twice = wrong[index].entries[at].clone();
            wrong[index].entries.insert(at, twice);
            assert_eq!(check(&cut, &wrong, index), Err(ChunkError::Order { index: index as u32 }));
        }
        let other = (index + 1) % chunks.len();
        let mut wrong = chunks.clone();
        wrong[index] = chunks[other].clone();
        assert!(check(&cut, &wrong, index).is_err());
    }
    let empty = SnapshotEntry { key: vec![].into(), value: vec![1].into() };
    let chunk = SnapshotChunk { entries: vec![empty] };
    let error = chunk.verify(0, &Span::ALL, &cut.chunks[0].root);
    assert_eq!(error, Err(ChunkError::Entry { index: 0, key: 0, value: 1 }));
}

#[test]
fn a_cut_that_leaves_out_doubles_or_moves_a_part_is_refused() {
    let state = state(200, 30_000);
    let (cut, _) = cut_up(&state);
    let root = Tree::new(&state).root();
    assert!(cut.chunks.len() > 4);
    for at in 0..cut.chunks.len() {
        let mut wrong = cut.clone();
        wrong.chunks.remove(at);
        assert!(wrong.verify(&root).is_err());
        let mut wrong = cut.clone();
        wrong.chunks.insert(at, cut.chunks[at]);
        assert!(wrong.verify(&root).is_err());
        let mut wrong = cut.clone();
        wrong.chunks[at].root = MerkleRoot::from_bytes([9; 32]);
        assert!(matches!(wrong.verify(&root), Err(CutError::WrongRoot { .. })));
        for depth in (0..=255).filter(|depth| *depth != cut.chunks[at].depth) {
            let mut wrong = cut.clone();
            wrong.chunks[at].depth = depth;
            assert_eq!(wrong.verify(&root), Err(CutError::Shape), "chunk {at} at depth {depth}");
        }
    }
    assert_eq!(SnapshotCut { chunks: vec![] }.root(), Err(CutError::Count { count: 0 }));
    let part = ChunkRoot { depth: 16, root: MerkleRoot::from_bytes([1; 32]) };
    assert!(SnapshotCut { chunks: vec![part; 65_536] }.root().is_ok());
    assert_eq!(SnapshotCut { chunks: vec![part; 65_537] }.root(), Err(CutError::Count { count: 65_537 }));
}

#[test]
fn spans_of_a_cut_tile_the_space_of_key_hashes() {
    let (cut, _) = cut_up(&state(200, 30_000));
    let spans = cut.spans();
    assert_eq!(spans.len(), cut.chunks.len());
    let mut numbers = Numbers(3);
    for _ in 0..1_000 {
        let hash = plain(&numbers.next().to_be_bytes());
        assert_eq!(spans.iter().filter(|span| span.holds(&hash)).count(), 1);
    }
    // A shape that no tree has ends early instead of panicking.
    let part = |depth| ChunkRoot { depth, root: MerkleRoot::from_bytes([1; 32]) };
    for depths in [[255, 0, 255], [0, 0, 0], [1, 3, 2]] {
        assert!(SnapshotCut { chunks: depths.map(part).to_vec() }.spans().len() <= 3);
    }
}
