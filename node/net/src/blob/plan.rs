//! Which pieces of a blob are still wanted, in batches of about one piece's bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use tiltyard_proto::manifest::Manifest;

use super::access::PartialBlob;
use super::tree::{PIECE_BYTES, piece_bytes, piece_count};
use super::wire::{BATCH_PIECES_MAX, PieceId};

/// Pieces asked for in one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// At least one, at most [`BATCH_PIECES_MAX`].
    pub(crate) pieces: Vec<PieceId>,
}

/// Walks over the pieces that are not kept yet. Holds a cursor, not a list: memory does not grow with the blob.
pub(crate) struct Plan {
    manifest: Arc<Manifest>,
    partial: Arc<dyn PartialBlob>,
    next: PieceId,
    again: VecDeque<Batch>,
}

impl Plan {
    pub(crate) fn new(manifest: Arc<Manifest>, partial: Arc<dyn PartialBlob>) -> Self {
        Self { manifest, partial, next: PieceId { file: 0, piece: 0 }, again: VecDeque::new() }
    }

    /// Returns the bytes already kept. Walks over all pieces.
    pub(crate) fn bytes_kept(&self) -> u64 {
        let mut sum = 0u64;
        for (file, entry) in (0u32..).zip(&self.manifest.files) {
            for piece in 0..u32::try_from(piece_count(entry.bytes)).unwrap_or(u32::MAX) {
                if self.partial.holds(file, piece) {
                    sum = sum.saturating_add(piece_bytes(entry.bytes, piece));
                }
            }
        }
        sum
    }

    /// Returns the next batch that is not kept and not handed out.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        while let Some(batch) = self.again.pop_front() {
            let pieces: Vec<PieceId> =
                batch.pieces.into_iter().filter(|id| !self.partial.holds(id.file, id.piece)).collect();
            if !pieces.is_empty() {
                return Some(Batch { pieces });
            }
        }
        let mut pieces = Vec::new();
        let mut room = PIECE_BYTES;
        while pieces.len() < BATCH_PIECES_MAX {
            let Some(bytes) = self.skip_to_wanted() else { break };
            if bytes > room {
                break;
            }
            room = room.saturating_sub(bytes);
            pieces.push(self.next);
            self.next.piece = self.next.piece.saturating_add(1);
        }
        (!pieces.is_empty()).then_some(Batch { pieces })
    }

    /// Takes back a batch that could not be had.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        self.again.push_back(batch);
    }

    /// Moves the cursor to the next piece that is not kept and returns its length.
    fn skip_to_wanted(&mut self) -> Option<u64> {
        loop {
            let entry = self.manifest.files.get(usize::try_from(self.next.file).ok()?)?;
            if u64::from(self.next.piece) >= piece_count(entry.bytes) {
                self.next = PieceId { file: self.next.file.saturating_add(1), piece: 0 };
            } else if self.partial.holds(self.next.file, self.next.piece) {
                self.next.piece = self.next.piece.saturating_add(1);
            } else {
                return Some(piece_bytes(entry.bytes, self.next.piece));
            }
        }
    }
}
