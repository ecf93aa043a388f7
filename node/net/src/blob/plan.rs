//! Which pieces of a blob are still wanted, in batches of about one piece's bytes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p::PeerId;
use tiltyard_proto::manifest::Manifest;
use tokio::time::Instant;

use super::access::PartialBlob;
use super::tree::{PIECE_BYTES, piece_bytes, piece_count};
use super::wire::{BATCH_PIECES_MAX, PieceId};

/// A batch in flight for longer than this may be asked of a second provider when nothing else is left to ask for.
const LATE: Duration = Duration::from_secs(1);
const COPIES_MAX: usize = 2;

/// Pieces asked for in one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// At least one, at most [`BATCH_PIECES_MAX`].
    pub(crate) pieces: Vec<PieceId>,
}

/// Which pieces a fetch has begun to write: two providers may bring the same piece, one of them writes it.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<BTreeSet<PieceId>>);

impl Claims {
    /// Returns whether the caller is the first to bring this piece.
    pub(crate) fn claim(&self, id: PieceId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }
}

struct Flight {
    peer: PeerId,
    batch: Batch,
    since: Instant,
}

/// Walks over the pieces that are not kept yet. Holds a cursor and what is in flight, not a list of all pieces.
pub(crate) struct Plan {
    manifest: Arc<Manifest>,
    partial: Arc<dyn PartialBlob>,
    next: PieceId,
    again: VecDeque<Batch>,
    flying: Vec<Flight>,
}

impl Plan {
    pub(crate) fn new(manifest: Arc<Manifest>, partial: Arc<dyn PartialBlob>) -> Self {
        Self {
            manifest,
            partial,
            next: PieceId { file: 0, piece: 0 },
            again: VecDeque::new(),
            flying: Vec::new(),
        }
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

    /// Returns the next batch for `peer`; at the end one that another provider is late with.
    pub(crate) fn take(&mut self, peer: PeerId, now: Instant) -> Option<Batch> {
        let batch = self.fresh().or_else(|| self.late(peer, now))?;
        self.flying.push(Flight { peer, batch: batch.clone(), since: now });
        Some(batch)
    }

    /// Takes note that a batch has ended; one that could not be had is handed out again.
    pub(crate) fn land(&mut self, peer: PeerId, batch: Batch, kept: bool) {
        if let Some(at) = self.flying.iter().position(|flight| flight.peer == peer && flight.batch == batch) {
            self.flying.swap_remove(at);
        }
        if !kept {
            self.again.push_back(batch);
        }
    }

    /// Returns when the next batch in flight becomes late.
    pub(crate) fn next_late(&self, now: Instant) -> Option<Instant> {
        self.flying.iter().map(|flight| flight.since + LATE).filter(|late| *late > now).min()
    }

    fn late(&self, peer: PeerId, now: Instant) -> Option<Batch> {
        let slow = self.flying.iter().find(|flight| {
            flight.peer != peer
                && flight.since + LATE <= now
                && self
                    .flying
                    .iter()
                    .filter(|other| other.batch.pieces.last() == flight.batch.pieces.last())
                    .count()
                    < COPIES_MAX
        })?;
        let pieces: Vec<PieceId> =
            slow.batch.pieces.iter().filter(|id| !self.partial.holds(id.file, id.piece)).copied().collect();
        (!pieces.is_empty()).then_some(Batch { pieces })
    }

    fn fresh(&mut self) -> Option<Batch> {
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
