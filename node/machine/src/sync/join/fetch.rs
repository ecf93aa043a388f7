//! Fetches the chunks of a snapshot: from every peer that has it, a few at a time, lowest first.

use std::collections::BTreeSet;

use tiltyard_ledger::StateRead;
use tiltyard_proto::codec;
use tiltyard_proto::snapshot::{SnapshotChunk, SnapshotCut, Span};
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::{Peer, SyncRequest};

use super::{JoinStatus, Stage};
use crate::config::JoinState;
use crate::io::Effect;
use crate::machine::Machine;
use crate::sync::Asked;

/// Chunks on their way that are not late, and those with the late ones: silence must not use up all turns.
const ASKED_MAX: usize = 16;
const ASKED_HARD_MAX: usize = 48;
/// Chunks on their way from one peer.
const ASKED_PER_PEER_MAX: usize = 4;
/// A chunk that does not come within this time is asked of another peer too, in milliseconds.
const LATE_MS: u64 = 3_000;
/// Without a new chunk for so long, offers are asked for again, in milliseconds.
const ASK_AGAIN_MS: u64 = 3_000;
/// Without a new chunk for so long, the snapshot is given up for a newer one, in milliseconds.
const GIVE_UP_MS: u64 = 30_000;

/// The snapshot that is fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    height: Height,
    cut: SnapshotCut,
    spans: Vec<Span>,
    have: BTreeSet<u32>,
    /// Chunks that were here when this run began, and when it did.
    began: (usize, Option<u64>),
    progress_ms: Option<u64>,
    asked_again_ms: u64,
}

impl Fetch {
    pub(super) fn begin(height: Height, cut: SnapshotCut, now_ms: u64) -> Self {
        let spans = cut.spans();
        let (began, progress_ms) = ((0, Some(now_ms)), Some(now_ms));
        Self { height, cut, spans, have: BTreeSet::new(), began, progress_ms, asked_again_ms: now_ms }
    }

    pub(super) fn resume(state: JoinState) -> Self {
        let height = state.decided.block.header.height;
        let count = state.cut.chunks.len();
        let have: BTreeSet<u32> = state
            .have
            .into_iter()
            .filter(|index| usize::try_from(*index).is_ok_and(|at| at < count))
            .collect();
        let spans = state.cut.spans();
        let began = (have.len(), None);
        Self { height, cut: state.cut, spans, have, began, progress_ms: None, asked_again_ms: 0 }
    }

    pub(super) fn status(&self, now_ms: u64) -> JoinStatus {
        let (done, chunks) = (self.have.len(), self.cut.chunks.len());
        let fresh = u64::try_from(done.saturating_sub(self.began.0)).unwrap_or(0);
        let left = u64::try_from(chunks.saturating_sub(done)).unwrap_or(0);
        let took_ms = self.began.1.map(|began| now_ms.saturating_sub(began));
        let left_ms = took_ms.and_then(|took| took.saturating_mul(left).checked_div(fresh));
        JoinStatus { height: self.height, chunks_done: done, chunks, left_ms }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.cut.chunks.len()).unwrap_or(u32::MAX)
    }
}

impl<S: StateRead> Machine<S> {
    pub(super) fn drive_fetching(&mut self) {
        let now_ms = self.now.mono_ms;
        let Stage::Fetching(fetch) = &mut self.join.stage else { return };
        let since = *fetch.progress_ms.get_or_insert(now_ms);
        fetch.began.1.get_or_insert(now_ms);
        let height = fetch.height;
        if fetch.have.len() == fetch.cut.chunks.len() {
            let chunks = fetch.cut.chunks.len();
            self.join.stage = Stage::Done { height, chunks };
            return self.out.push(Effect::FinishSnapshot { height });
        }
        let stalled_ms = now_ms.saturating_sub(since);
        let is_newer = self.join.best(height).is_some();
        if stalled_ms > GIVE_UP_MS && is_newer && self.join.trusted_or_named() {
            self.out.push(Effect::DropSnapshot);
            return self.choose();
        }
        let Stage::Fetching(fetch) = &mut self.join.stage else { return };
        if stalled_ms > ASK_AGAIN_MS && now_ms.saturating_sub(fetch.asked_again_ms) > ASK_AGAIN_MS {
            fetch.asked_again_ms = now_ms;
            if stalled_ms > GIVE_UP_MS {
                self.join.faults.clear();
            }
            let peers: Vec<Peer> = self.sync.peers.keys().cloned().collect();
            for peer in peers {
                self.ask(peer, SyncRequest::Snapshots, Asked::Snapshots);
            }
        }
        while let Some((peer, index)) = self.next_chunk(height, now_ms) {
            let before = self.sync.requests.len();
            self.ask(peer, SyncRequest::SnapshotChunk { height, index }, Asked::Chunk(index));
            if self.sync.requests.len() == before {
                return;
            }
        }
    }

    /// Returns the lowest chunk that is neither here nor on its way in time, and the least busy peer for it.
    fn next_chunk(&self, height: Height, now_ms: u64) -> Option<(Peer, u32)> {
        let Stage::Fetching(fetch) = &self.join.stage else { return None };
        let (mut asked, mut all) = (0usize, 0usize);
        let mut busy = std::collections::BTreeMap::<&Peer, BTreeSet<u32>>::new();
        let mut coming = BTreeSet::new();
        for request in self.sync.requests.values() {
            if let Asked::Chunk(index) = request.asked {
                all = all.saturating_add(1);
                busy.entry(&request.peer).or_default().insert(index);
                if now_ms.saturating_sub(request.since_ms) <= LATE_MS {
                    asked = asked.saturating_add(1);
                    coming.insert(index);
                }
            }
        }
        if asked >= ASKED_MAX || all >= ASKED_HARD_MAX {
            return None;
        }
        let offering = self.join.offering(height);
        let count = |peer: &Peer| busy.get(peer).map_or(0, BTreeSet::len);
        let missing = (0..fetch.count()).filter(|at| !fetch.have.contains(at) && !coming.contains(at));
        for index in missing.take(ASKED_MAX) {
            let peer = offering
                .iter()
                .filter(|peer| count(peer) < ASKED_PER_PEER_MAX)
                .filter(|peer| busy.get(peer).is_none_or(|list| !list.contains(&index)))
                .min_by_key(|peer| count(peer));
            if let Some(peer) = peer {
                return Some((peer.clone(), index));
            }
        }
        None
    }

    pub(in crate::sync) fn on_chunk(&mut self, from: &Peer, index: u32, chunk: Option<SnapshotChunk>) {
        let now_ms = self.now.mono_ms;
        let Stage::Fetching(fetch) = &mut self.join.stage else { return };
        let Some(chunk) = chunk else { return self.join_failed(from) };
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let (Some(span), Some(part)) = (fetch.spans.get(at), fetch.cut.chunks.get(at)) else { return };
        if !fetch.have.contains(&index) {
            if chunk.verify(index, span, &part.root).is_err() {
                return self.join_lied(from, "gave a chunk that is not the certified state's");
            }
            fetch.have.insert(index);
            fetch.progress_ms = Some(now_ms);
            self.out.push(Effect::SaveChunk { index, bytes: codec::encode(&chunk) });
        }
        self.drive_join();
    }
}
