//! Catching up: who has what, what was asked of whom, and what becomes of the answers.
//!
//! - `blocks`: decided blocks from several peers at once, verified one by one, applied in order.
//! - `join`: a state snapshot instead of a long chain of blocks.
//! - `pending`: transactions that wait at peers; answers to peers' questions.
//!
//! A peer's word about its tip only decides whom to ask; a peer that does not deliver what it claims is believed less.

mod blocks;
mod join;
mod pending;

use std::collections::BTreeMap;

use tiltyard_ledger::StateRead;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Blocks, Height};
use tiltyard_proto::wire::{Peer, SyncRequest, SyncResponse};

pub(crate) use join::Join;
pub use join::JoinStatus;

use crate::config::MachineError;
use crate::event::Event;
use crate::io::{Effect, RequestToken};
use crate::machine::Machine;
use crate::timers::Timer;

/// How often progress is looked at, in milliseconds.
pub(crate) const SYNC_MS: u64 = 1_000;
/// How soon tips are asked for again after nobody could deliver, in milliseconds.
const RETRY_MS: u64 = 100;
/// A request that is not answered within this time is given up.
const ANSWER_MS: u64 = 10_000;
/// After so long without any progress peers that failed are given another chance.
const FORGIVE_MS: u64 = 15_000;
/// Peers asked for their tip when nothing moves.
const STATUS_PEERS: usize = 3;
/// Failures after which a peer's word about its tip counts no more.
const STRIKES_MAX: u32 = 3;
/// Requests on their way.
const REQUESTS_MAX: usize = 256;

/// What was asked of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Status,
    /// So many decided blocks from a height on.
    Blocks(Height, u32),
    Body(BlockHash),
    PendingIds,
    Pending,
    /// Blocks that the disk lost.
    Repair,
    LightBlock(Height),
    Snapshots,
    /// Cut of the snapshot at a height.
    Cut(Height),
    /// The decided block of a snapshot.
    Base(Height),
    /// A chunk of the snapshot that is fetched.
    Chunk(u32),
}

impl Asked {
    /// Returns first height and number of the blocks asked for, if it is about blocks.
    fn range(&self) -> Option<(Height, u32)> {
        match self {
            Self::Blocks(first, count) => Some((*first, *count)),
            Self::Status
            | Self::Body(_)
            | Self::PendingIds
            | Self::Pending
            | Self::Repair
            | Self::LightBlock(_)
            | Self::Snapshots
            | Self::Cut(_)
            | Self::Base(_)
            | Self::Chunk(_) => None,
        }
    }
}

/// A request on its way.
#[derive(Debug)]
struct Request {
    peer: Peer,
    asked: Asked,
    since_ms: u64,
}

#[derive(Debug, Default)]
struct PeerState {
    /// Last block that it may have: claimed by itself, or proven in a frame that it forwarded.
    tip: Height,
    /// What it claimed last; may not go back.
    claimed: Height,
    /// First block that it keeps, by its own word.
    first: Height,
    strikes: u32,
}

/// Peers, requests on their way, and decided blocks that wait to be applied.
#[derive(Debug, Default)]
pub(crate) struct Sync {
    peers: BTreeMap<Peer, PeerState>,
    requests: BTreeMap<RequestToken, Request>,
    next_token: u64,
    turn: usize,
    /// Blocks that were fetched and wait for the ones before them, with who gave them.
    ready: BTreeMap<Height, (Peer, DecidedBlock)>,
    progress_ms: u64,
    /// Somebody failed and nobody else could be asked: tips are asked for again.
    asks_around: bool,
    announced: bool,
    /// Some peer has said where it is.
    heard: bool,
}

impl Sync {
    pub(crate) fn peer_count(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn best(&self) -> Height {
        let believed = self.peers.values().filter(|peer| peer.strikes < STRIKES_MAX);
        believed.map(|peer| peer.tip).max().unwrap_or(Height::ZERO)
    }

    pub(crate) fn progressed(&mut self, now_ms: u64) {
        self.progress_ms = now_ms;
    }

    /// When the last block came, by the monotonic clock.
    pub(crate) const fn progressed_ms(&self) -> u64 {
        self.progress_ms
    }

    /// Returns the furthest tip of those that do not keep this node waiting for what they claim to have: a false tip
    /// must not hold a validator back for long.
    fn credible(&self, now_ms: u64) -> Height {
        let waits = |name: &Peer| {
            self.requests.values().any(|request| {
                request.peer == *name
                    && matches!(request.asked, Asked::Blocks(..))
                    && now_ms.saturating_sub(request.since_ms) > blocks::LATE_MS
            })
        };
        let believed = self.peers.iter().filter(|(name, peer)| peer.strikes < STRIKES_MAX && !waits(name));
        believed.map(|(_, peer)| peer.tip).max().unwrap_or(Height::ZERO)
    }

    /// Says whether some peer has said where it is.
    pub(crate) fn has_heard(&self) -> bool {
        self.heard
    }

    fn is_asking_blocks(&self) -> bool {
        self.requests.values().any(|request| matches!(request.asked, Asked::Blocks(..)))
    }

    fn is_asking(&self, asked: &Asked) -> bool {
        self.requests.values().any(|request| request.asked == *asked)
    }

    pub(crate) fn is_asking_repair(&self) -> bool {
        self.is_asking(&Asked::Repair)
    }

    /// Returns the next peer in turn that is said to have the block after `height`.
    pub(crate) fn peer_beyond(&mut self, height: Height) -> Option<Peer> {
        let beyond: Vec<&Peer> =
            self.peers.iter().filter(|(_, peer)| peer.tip > height).map(|(name, _)| name).collect();
        self.turn = self.turn.wrapping_add(1);
        let at = self.turn.checked_rem(beyond.len())?;
        beyond.get(at).map(|peer| (*peer).clone())
    }

    /// Returns the next peer in turn.
    fn rotate(&mut self) -> Option<Peer> {
        self.turn = self.turn.wrapping_add(1);
        let at = self.turn.checked_rem(self.peers.len())?;
        self.peers.keys().nth(at).cloned()
    }

    /// Gives every peer that is not believed one more chance: perhaps nobody is left who is.
    fn forgive(&mut self) {
        for peer in self.peers.values_mut() {
            peer.strikes = peer.strikes.min(STRIKES_MAX.saturating_sub(1));
        }
    }

    /// Believes a peer less that did not deliver `wanted`. One that only forwarded its header may not have it yet.
    fn strike(&mut self, peer: &Peer, wanted: Height, ours: Height) {
        if let Some(state) = self.peers.get_mut(peer) {
            if state.claimed >= wanted {
                state.strikes = state.strikes.saturating_add(1);
            }
            state.tip = ours;
            if state.strikes >= STRIKES_MAX {
                self.ready.retain(|_, (giver, _)| giver != peer);
            }
        }
    }
}

impl<S: StateRead> Machine<S> {
    /// Says whether decided blocks are known to be missing here.
    pub(crate) fn is_syncing(&self) -> bool {
        let next = self.chain.next_height();
        self.join.is_active()
            || self.sync.ready.contains_key(&next)
            || self.sync.credible(self.now.mono_ms) > next
    }

    pub(crate) fn on_peer_up(&mut self, peer: Peer) {
        self.sync.peers.entry(peer.clone()).or_default();
        self.ask_status(peer.clone());
        self.ask(peer.clone(), SyncRequest::PendingIds, Asked::PendingIds);
        self.join_with(peer);
    }

    pub(crate) fn on_peer_down(&mut self, peer: &Peer) {
        self.sync.peers.remove(peer);
        self.sync.requests.retain(|_, request| request.peer != *peer);
        self.join.forget(peer);
        self.fetch_blocks();
        self.drive_join();
    }

    pub(crate) fn ask(&mut self, to: Peer, request: SyncRequest, asked: Asked) {
        if self.sync.requests.len() >= REQUESTS_MAX {
            return;
        }
        let token = RequestToken(self.sync.next_token);
        self.sync.next_token = self.sync.next_token.wrapping_add(1);
        let noted = Request { peer: to.clone(), asked, since_ms: self.now.mono_ms };
        self.sync.requests.insert(token, noted);
        self.out.push(Effect::Ask { token, to, request });
    }

    /// Asks a peer where it is, one question at a time: answers may overtake each other, and an old one would look like
    /// a tip that went back.
    fn ask_status(&mut self, peer: Peer) {
        let asks = |request: &Request| request.peer == peer && request.asked == Asked::Status;
        let asking = self.sync.requests.values().any(asks);
        if !asking {
            self.ask(peer, SyncRequest::Status, Asked::Status);
        }
    }

    /// Notes that a peer speaks of `height`, unproven: its tip is asked for.
    pub(crate) fn hint(&mut self, from: &Peer, height: Height) {
        let known = self.sync.peers.get(from).is_some_and(|peer| peer.tip.next() >= height);
        if !known && self.sync.peers.contains_key(from) {
            self.ask_status(from.clone());
        }
    }

    /// Notes that a peer has a block that was proven to be decided.
    pub(crate) fn saw_tip(&mut self, from: &Peer, height: Height) {
        if let Some(peer) = self.sync.peers.get_mut(from) {
            peer.tip = peer.tip.max(height);
            peer.strikes = 0;
        }
    }

    pub(crate) fn on_response(
        &mut self,
        token: RequestToken,
        from: Peer,
        response: Option<SyncResponse>,
    ) -> Result<(), MachineError> {
        let Some(Request { asked, .. }) = self.sync.requests.remove(&token).filter(|r| r.peer == from) else {
            return Ok(());
        };
        match (asked, response) {
            (Asked::Status, Some(SyncResponse::Status { tip, first })) => self.on_status(&from, tip, first),
            (Asked::Blocks(first, max), Some(SyncResponse::Blocks(blocks))) => {
                self.on_blocks(&from, first, max, blocks);
            }
            (Asked::Blocks(..), None) => self.failed(&from),
            (Asked::LightBlock(height), Some(SyncResponse::LightBlock(block))) => {
                self.on_light_block(&from, height, block.map(|block| *block));
            }
            (Asked::Snapshots, Some(SyncResponse::Snapshots(heights))) => {
                self.on_snapshots(from, &heights);
            }
            (Asked::Cut(height), Some(SyncResponse::SnapshotCut(cut))) => self.on_cut(&from, height, cut),
            (Asked::Base(height), Some(SyncResponse::Blocks(blocks))) => {
                self.on_base(&from, height, blocks);
            }
            (Asked::Chunk(index), Some(SyncResponse::SnapshotChunk(chunk))) => {
                self.on_chunk(&from, index, chunk);
            }
            (
                Asked::LightBlock(_) | Asked::Snapshots | Asked::Cut(_) | Asked::Base(_) | Asked::Chunk(_),
                None,
            ) => self.join_failed(&from),
            (Asked::Body(block), Some(SyncResponse::Body(bytes))) => {
                self.on_body_answer(&from, block, bytes.as_ref().map(|bytes| bytes.as_slice()))?;
            }
            (Asked::PendingIds, Some(SyncResponse::PendingIds(ids))) => self.on_ids(&from, ids),
            (Asked::Pending, Some(SyncResponse::Pending(list))) => {
                let list: Vec<Vec<u8>> = list.into_iter().map(|bytes| bytes.into_vec()).collect();
                self.on_pending(&from, &list)?;
            }
            (Asked::Repair, Some(SyncResponse::Blocks(blocks))) => self.on_missing_blocks(&from, blocks),
            (Asked::Status | Asked::Body(_) | Asked::PendingIds | Asked::Pending | Asked::Repair, None) => {}
            (_, Some(_)) => {
                let fact = "answered something else than was asked";
                self.out.push(Effect::Penalize { peer: from.clone(), fact });
                self.failed(&from);
                self.join_failed(&from);
            }
        }
        Ok(())
    }

    fn on_status(&mut self, from: &Peer, tip: Height, first: Height) {
        let ours = self.chain.tip.height;
        self.sync.heard = true;
        if let Some(peer) = self.sync.peers.get_mut(from) {
            if tip < peer.claimed {
                let fact = "its tip went back";
                self.out.push(Effect::Penalize { peer: from.clone(), fact });
                peer.strikes = peer.strikes.saturating_add(1);
            }
            peer.claimed = tip;
            peer.first = first;
            peer.tip = peer.tip.max(tip);
        }
        if tip <= ours.next() {
            self.ready = true;
        }
        self.fetch_blocks();
    }

    /// Looks whether anything moves; asks around when it does not.
    pub(crate) fn on_sync_timer(&mut self) {
        let now_ms = self.now.mono_ms;
        self.set_timer(Timer::Sync, SYNC_MS);
        let late: Vec<RequestToken> = self
            .sync
            .requests
            .iter()
            .filter(|(_, request)| now_ms.saturating_sub(request.since_ms) > ANSWER_MS)
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            match self.sync.requests.remove(&token) {
                Some(Request { peer, asked: Asked::Blocks(..), .. }) => self.failed(&peer),
                Some(Request {
                    peer,
                    asked:
                        Asked::LightBlock(_) | Asked::Snapshots | Asked::Cut(_) | Asked::Base(_) | Asked::Chunk(_),
                    ..
                }) => self.join_failed(&peer),
                Some(Request {
                    asked: Asked::Status | Asked::Body(_) | Asked::PendingIds | Asked::Pending | Asked::Repair,
                    ..
                })
                | None => {}
            }
        }
        let interval = u64::from(self.chain.tip.params.block_interval_ms);
        let patience = interval.saturating_mul(3).max(SYNC_MS);
        let asks_around = core::mem::take(&mut self.sync.asks_around);
        if asks_around || now_ms.saturating_sub(self.sync.progress_ms) > patience {
            for _ in 0..STATUS_PEERS.min(self.sync.peers.len()) {
                if let Some(peer) = self.sync.rotate() {
                    self.ask_status(peer);
                }
            }
        }
        if now_ms.saturating_sub(self.sync.progress_ms) > patience.max(FORGIVE_MS) {
            self.sync.forgive();
        }
        self.fetch_blocks();
        self.ask_missing();
        self.drive_join();
        self.tell_sync();
        self.watch_for_silence();
        self.tell_undecided();
    }

    /// Tells people when the node falls behind and when it has caught up.
    pub(crate) fn tell_sync(&mut self) {
        let (height, target) = (self.chain.tip.height, self.sync.best());
        let behind = target > height.plus(Blocks::new(2));
        if behind && !self.sync.announced {
            self.sync.announced = true;
            self.notify(Event::Syncing { height, target });
        } else if self.sync.announced && !self.is_syncing() {
            self.sync.announced = false;
            self.notify(Event::Synced { height });
        }
    }
}
