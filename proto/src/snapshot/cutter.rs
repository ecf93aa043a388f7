//! Cuts a state into chunks in one pass over its entries, holding about one chunk at a time.

use std::collections::VecDeque;

use super::{ChunkRoot, SnapshotChunk, SnapshotCut, SnapshotEntry, Span, subtree_root};
use crate::hash::plain;
use crate::ids::MerkleRoot;
use crate::limits::SNAPSHOT_CHUNK_WEIGHT_MAX;

struct Cutter<'a, I, E> {
    source: I,
    held: VecDeque<([u8; 32], SnapshotEntry)>,
    weight: usize,
    weight_max: usize,
    exhausted: bool,
    chunks: Vec<ChunkRoot>,
    emit: &'a mut dyn FnMut(u32, SnapshotChunk) -> Result<(), E>,
}

/// Cuts a state by the one rule that every node follows: a subtree is a chunk iff its entries weigh no more than
/// [`SNAPSHOT_CHUNK_WEIGHT_MAX`], and else both its halves are cut. `entries` come by ascending key hash, each once;
/// `emit` gets each chunk with its place.
///
/// # Errors
/// The first one of `entries` or `emit`.
pub fn cut<E>(
    entries: impl Iterator<Item = Result<SnapshotEntry, E>>,
    emit: &mut dyn FnMut(u32, SnapshotChunk) -> Result<(), E>,
) -> Result<SnapshotCut, E> {
    cut_finer(SNAPSHOT_CHUNK_WEIGHT_MAX, entries, emit)
}

/// Cuts like [`cut`], with another largest weight: small states in many chunks, to try joins with. The cut holds, but
/// it is not the one that the network serves.
///
/// # Errors
/// The first one of `entries` or `emit`.
pub fn cut_finer<E>(
    weight_max: usize,
    entries: impl Iterator<Item = Result<SnapshotEntry, E>>,
    emit: &mut dyn FnMut(u32, SnapshotChunk) -> Result<(), E>,
) -> Result<SnapshotCut, E> {
    let mut cutter = Cutter {
        source: entries,
        held: VecDeque::new(),
        weight: 0,
        weight_max,
        exhausted: false,
        chunks: Vec::new(),
        emit,
    };
    cutter.take(Span::ALL)?;
    Ok(SnapshotCut { chunks: cutter.chunks })
}

impl<E, I: Iterator<Item = Result<SnapshotEntry, E>>> Cutter<'_, I, E> {
    /// Cuts one subtree; everything left of it is done.
    fn take(&mut self, span: Span) -> Result<(), E> {
        self.fill(&span)?;
        let inside = self.held.partition_point(|(hash, _)| span.holds(hash));
        let whole = self.exhausted || inside < self.held.len();
        let weight: usize = self.held.iter().take(inside).map(|(_, entry)| entry.weight()).sum();
        match span.split() {
            Some((left, right)) if inside > 1 && (!whole || weight > self.weight_max) => {
                self.take(left)?;
                self.take(right)
            }
            Some(_) | None => self.finish(span, inside, weight),
        }
    }

    /// Reads on until the subtree is known to be whole, or too heavy for one chunk.
    fn fill(&mut self, span: &Span) -> Result<(), E> {
        while !self.exhausted
            && (self.weight <= self.weight_max || self.held.len() < 2)
            && self.held.back().is_none_or(|(hash, _)| span.holds(hash))
        {
            match self.source.next() {
                Some(entry) => {
                    let entry = entry?;
                    self.weight = self.weight.saturating_add(entry.weight());
                    self.held.push_back((plain(&entry.key), entry));
                }
                None => self.exhausted = true,
            }
        }
        Ok(())
    }

    fn finish(&mut self, span: Span, inside: usize, weight: usize) -> Result<(), E> {
        let entries: Vec<SnapshotEntry> = self.held.drain(..inside).map(|(_, entry)| entry).collect();
        self.weight = self.weight.saturating_sub(weight);
        let chunk = SnapshotChunk { entries };
        let root = MerkleRoot::from_bytes(subtree_root(&chunk.leaves(), usize::from(span.depth)));
        let index = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
        self.chunks.push(ChunkRoot { depth: span.depth, root });
        (self.emit)(index, chunk)
    }
}
