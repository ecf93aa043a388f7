//! Catching up: decided blocks from any peers, verified one by one, applied in order.
//!
//! A peer's word about its tip only decides whom to ask; a peer that does not deliver what it claims is believed less.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tiltyard_ledger::StateRead;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::ids::{BlockHash, TransactionId};
use tiltyard_proto::transaction::SignedTransaction;
use tiltyard_proto::units::{Blocks, Height};
use tiltyard_proto::wire::{Peer, SyncRequest, SyncResponse};

use crate::chain::Unfit;
use crate::config::MachineError;
use crate::event::Event;
use crate::io::{Effect, RequestToken};
use crate::machine::Machine;
use crate::timers::Timer;

/// How often progress is looked at, in milliseconds.
pub(crate) const SYNC_MS: u64 = 1_000;
/// How soon tips are asked for again after nobody could deliver, in milliseconds.
const RETRY_MS: u64 = 100;
/// A request for blocks that is not answered within this time is asked of another peer.
const ANSWER_MS: u64 = 10_000;
/// Blocks asked for at a time.
const BATCH_MAX: u32 = 64;
/// Pending transactions asked for at a time.
const PENDING_MAX: usize = 256;
/// Ids answered at a time.
const IDS_MAX: usize = 4_096;
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
    Blocks(Height),
    Body(BlockHash),
    PendingIds,
    Pending,
    /// Blocks that the disk lost.
    Repair,
}

#[derive(Debug, Default)]
struct PeerState {
    /// Last block that it may have: claimed by itself, or proven in a frame that it forwarded.
    tip: Height,
    /// What it claimed last; may not go back.
    claimed: Height,
    strikes: u32,
}

/// Peers, requests on their way, and decided blocks that wait to be applied.
#[derive(Debug, Default)]
pub(crate) struct Sync {
    peers: BTreeMap<Peer, PeerState>,
    requests: BTreeMap<RequestToken, (Peer, Asked, u64)>,
    next_token: u64,
    turn: usize,
    queue: VecDeque<(Peer, DecidedBlock)>,
    progress_ms: u64,
    announced: bool,
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

    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    fn is_asking_blocks(&self) -> bool {
        self.requests.values().any(|(_, asked, _)| matches!(asked, Asked::Blocks(_)))
    }

    pub(crate) fn is_asking_repair(&self) -> bool {
        self.requests.values().any(|(_, asked, _)| *asked == Asked::Repair)
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

    /// Believes a peer less that did not deliver `wanted`. One that only forwarded its header may not have it yet.
    fn strike(&mut self, peer: &Peer, wanted: Height, ours: Height) {
        if let Some(state) = self.peers.get_mut(peer) {
            if state.claimed >= wanted {
                state.strikes = state.strikes.saturating_add(1);
            }
            state.tip = ours;
        }
    }
}

impl<S: StateRead> Machine<S> {
    /// Says whether decided blocks are known to be missing here.
    pub(crate) fn is_syncing(&self) -> bool {
        self.sync.has_queued() || self.sync.best() > self.chain.next_height()
    }

    pub(crate) fn on_peer_up(&mut self, peer: Peer) {
        self.sync.peers.entry(peer.clone()).or_default();
        self.ask_status(peer.clone());
        self.ask(peer, SyncRequest::PendingIds, Asked::PendingIds);
    }

    pub(crate) fn on_peer_down(&mut self, peer: &Peer) {
        self.sync.peers.remove(peer);
        self.sync.requests.retain(|_, (asked, _, _)| asked != peer);
        self.fetch_blocks();
    }

    pub(crate) fn ask(&mut self, to: Peer, request: SyncRequest, asked: Asked) {
        if self.sync.requests.len() >= REQUESTS_MAX {
            return;
        }
        let token = RequestToken(self.sync.next_token);
        self.sync.next_token = self.sync.next_token.wrapping_add(1);
        self.sync.requests.insert(token, (to.clone(), asked, self.now.mono_ms));
        self.out.push(Effect::Ask { token, to, request });
    }

    /// Asks a peer where it is, one question at a time: answers may overtake each other, and an old one would look like
    /// a tip that went back.
    fn ask_status(&mut self, peer: Peer) {
        let asking =
            self.sync.requests.values().any(|(asked, what, _)| *asked == peer && *what == Asked::Status);
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

    /// Asks the best peer for the blocks after the tip, unless they are on their way.
    pub(crate) fn fetch_blocks(&mut self) {
        let tip = self.chain.tip.height;
        if self.sync.is_asking_blocks() || self.sync.has_queued() {
            return;
        }
        let ahead: Vec<&Peer> = self
            .sync
            .peers
            .iter()
            .filter(|(_, peer)| peer.tip > tip && peer.strikes < STRIKES_MAX)
            .map(|(name, _)| name)
            .collect();
        let at = self.sync.turn.checked_rem(ahead.len()).unwrap_or(0);
        let Some(peer) = ahead.get(at).map(|peer| (*peer).clone()) else {
            return;
        };
        let from = if self.committing.is_some() { tip.next().next() } else { tip.next() };
        self.ask(peer, SyncRequest::Blocks { from, max: BATCH_MAX }, Asked::Blocks(from));
    }

    pub(crate) fn on_response(
        &mut self,
        token: RequestToken,
        from: Peer,
        response: Option<SyncResponse>,
    ) -> Result<(), MachineError> {
        let Some((peer, asked, _)) = self.sync.requests.remove(&token) else {
            return Ok(());
        };
        if peer != from {
            return Ok(());
        }
        match (asked, response) {
            (Asked::Status, Some(SyncResponse::Status { tip, .. })) => self.on_status(&from, tip),
            (Asked::Blocks(first), Some(SyncResponse::Blocks(blocks))) => {
                self.on_blocks(&from, first, blocks);
            }
            (Asked::Blocks(_), None) => self.failed(&from),
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
            }
        }
        Ok(())
    }

    fn on_status(&mut self, from: &Peer, tip: Height) {
        let ours = self.chain.tip.height;
        if let Some(peer) = self.sync.peers.get_mut(from) {
            if tip < peer.claimed {
                let fact = "its tip went back";
                self.out.push(Effect::Penalize { peer: from.clone(), fact });
                peer.strikes = peer.strikes.saturating_add(1);
            }
            peer.claimed = tip;
            peer.tip = peer.tip.max(tip);
        }
        if tip <= ours.next() {
            self.ready = true;
        }
        self.fetch_blocks();
    }

    fn on_blocks(&mut self, from: &Peer, first: Height, blocks: Vec<DecidedBlock>) {
        let mut expected = first;
        let in_order = blocks.len() <= usize::try_from(BATCH_MAX).unwrap_or(usize::MAX)
            && blocks.iter().all(|decided| {
                let fits = decided.block.header.height == expected;
                expected = expected.next();
                fits
            });
        if blocks.is_empty() || !in_order {
            return self.failed(from);
        }
        let queue = blocks.into_iter().map(|decided| (from.clone(), decided));
        self.sync.queue.extend(queue);
    }

    /// A peer did not deliver: it is believed less and another one is asked.
    fn failed(&mut self, from: &Peer) {
        let ours = self.chain.tip.height;
        self.sync.strike(from, ours.next(), ours);
        self.sync.turn = self.sync.turn.wrapping_add(1);
        self.fetch_blocks();
        // Nobody else to ask at once: where everyone is, is asked again soon.
        if !self.sync.is_asking_blocks() {
            self.set_timer(Timer::Sync, RETRY_MS);
            self.sync.progress_ms = 0;
        }
    }

    /// Applies the next block that was fetched. Returns false when none waits.
    pub(crate) fn apply_fetched(&mut self) -> Result<bool, MachineError> {
        let Some((from, decided)) = self.sync.queue.pop_front() else {
            return Ok(false);
        };
        let next = self.chain.next_height();
        if decided.block.header.height < next {
            return Ok(true);
        }
        let hash = decided.block.hash();
        let certificate = &decided.certificate;
        let named = certificate.height == next && certificate.block == hash;
        let set = &self.chain.tip.next_set;
        let proven = decided.block.header.height == next
            && named
            && certificate.verify(&self.chain.verifier, set).is_ok();
        if !proven {
            self.lied(&from, "gave a block without a valid certificate");
            return Ok(true);
        }
        if let Some(candidate) = self.chain.take(&hash) {
            self.commit_candidate(candidate, decided.certificate)?;
            return Ok(true);
        }
        let length = codec::encode(&decided.block).len();
        match self.chain.judge(&self.state, &self.mempool, &decided.block, length)? {
            Ok(executed) => self.commit(decided, executed, None),
            // The header is proven; a body that does not belong to it is the peer's doing.
            Err(Unfit::Header { field: "tx_root" | "parent_certificate" }) => {
                self.lied(&from, "gave a body that does not belong to its header");
            }
            Err(unfit) => {
                let (height, fact) = (next, unfit.to_string());
                return Err(MachineError::DecidedInvalid { height, block: hash, fact });
            }
        }
        Ok(true)
    }

    fn lied(&mut self, from: &Peer, fact: &'static str) {
        self.out.push(Effect::Penalize { peer: from.clone(), fact });
        self.sync.queue.clear();
        self.failed(from);
    }

    /// Looks whether anything moves; asks around when it does not.
    pub(crate) fn on_sync_timer(&mut self) {
        let now_ms = self.now.mono_ms;
        self.set_timer(Timer::Sync, SYNC_MS);
        let late: Vec<RequestToken> = self
            .sync
            .requests
            .iter()
            .filter(|(_, (_, _, since))| now_ms.saturating_sub(*since) > ANSWER_MS)
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            if let Some((peer, Asked::Blocks(_), _)) = self.sync.requests.remove(&token) {
                self.failed(&peer);
            }
        }
        let interval = u64::from(self.chain.tip.params.block_interval_ms);
        let patience = interval.saturating_mul(3).max(SYNC_MS);
        if now_ms.saturating_sub(self.sync.progress_ms) > patience {
            for _ in 0..STATUS_PEERS.min(self.sync.peers.len()) {
                if let Some(peer) = self.sync.rotate() {
                    self.ask_status(peer);
                }
            }
        }
        self.fetch_blocks();
        self.ask_missing();
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

    /// Asks a peer in turn which transactions wait there.
    pub(crate) fn ask_pending(&mut self) {
        if let (false, Some(peer)) = (self.is_syncing(), self.sync.rotate()) {
            self.ask(peer, SyncRequest::PendingIds, Asked::PendingIds);
        }
    }

    fn on_ids(&mut self, from: &Peer, ids: Vec<TransactionId>) {
        let unknown: BTreeSet<TransactionId> =
            ids.into_iter().take(IDS_MAX).filter(|id| !self.mempool.has(id)).take(PENDING_MAX).collect();
        if !unknown.is_empty() {
            let ids = unknown.into_iter().collect();
            self.ask(from.clone(), SyncRequest::Pending { ids }, Asked::Pending);
        }
    }

    fn on_pending(&mut self, from: &Peer, list: &[Vec<u8>]) -> Result<(), MachineError> {
        for bytes in list.iter().take(PENDING_MAX) {
            let signed = SignedTransaction::decode(bytes).ok();
            let verified = signed.and_then(|signed| signed.verify(&self.chain.verifier).ok());
            let Some(transaction) = verified else {
                let fact = "gave a transaction that is not one";
                self.out.push(Effect::Penalize { peer: from.clone(), fact });
                return Ok(());
            };
            // Refused here may be early or late there; nobody is at fault.
            self.admit(transaction, false)?.ok();
        }
        Ok(())
    }

    /// Answers what only the machine knows. Old blocks are the shell's to answer.
    pub(crate) fn on_request(&mut self, token: RequestToken, request: &SyncRequest) {
        let response = match request {
            SyncRequest::Status => SyncResponse::Status { tip: self.chain.tip.height, first: Height::new(1) },
            SyncRequest::Blocks { .. } => SyncResponse::Blocks(Vec::new()),
            SyncRequest::Body { block } => SyncResponse::Body(
                self.chain
                    .candidate(block)
                    .map(|candidate| serde_bytes::ByteBuf::from(candidate.bytes.clone())),
            ),
            SyncRequest::PendingIds => SyncResponse::PendingIds(self.mempool.ids().take(IDS_MAX).collect()),
            SyncRequest::Pending { ids } => SyncResponse::Pending(
                ids.iter()
                    .take(PENDING_MAX)
                    .filter_map(|id| self.mempool.get(id))
                    .map(|known| serde_bytes::ByteBuf::from(known.signed().encode()))
                    .collect(),
            ),
        };
        self.out.push(Effect::Respond { token, response: Box::new(response) });
    }
}
