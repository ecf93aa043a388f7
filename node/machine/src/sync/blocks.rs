//! Decided blocks from several peers at once: ranges within a window, verified one by one, applied in order.
//!
//! The window bounds memory; a range that the tip waits for is asked of a second peer when the first is slow, so that
//! silence costs little; what a liar gave is thrown away with it.

use tiltyard_ledger::StateRead;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::units::{Blocks, Height};
use tiltyard_proto::wire::{Peer, SyncRequest};

use super::{Asked, RETRY_MS, STRIKES_MAX, Sync};
use crate::chain::Unfit;
use crate::config::MachineError;
use crate::io::Effect;
use crate::machine::Machine;
use crate::timers::Timer;

/// Blocks asked for at a time.
const BATCH_MAX: u32 = 64;
/// Blocks after the tip that are asked for or kept.
const WINDOW: u64 = 4 * BATCH_MAX as u64;
/// Ranges on their way that are not late, and those with the late ones: silence must not use up all turns.
const RANGES_MAX: usize = 6;
const RANGES_HARD_MAX: usize = 18;
/// Ranges on their way to one peer.
const RANGES_PER_PEER_MAX: usize = 2;
/// After this time the range that the tip waits for is asked of another peer too, in milliseconds.
pub(super) const LATE_MS: u64 = 1_500;

impl Sync {
    /// Returns the ranges on their way that count: not the late one that the tip waits for.
    fn ranges(&self, next: Height, now_ms: u64) -> Vec<(Height, Height)> {
        self.requests
            .values()
            .filter_map(|request| {
                let (from, count) = request.asked.range()?;
                let late = from <= next && now_ms.saturating_sub(request.since_ms) > LATE_MS;
                (!late).then(|| (from, from.plus(Blocks::new(u64::from(count)))))
            })
            .collect()
    }

    /// Returns the first stretch of the window that is neither here nor on its way.
    fn gap(&self, next: Height, now_ms: u64) -> Option<(Height, u32)> {
        let end = next.plus(Blocks::new(WINDOW));
        let ranges = self.ranges(next, now_ms);
        let mut from = next;
        loop {
            if from >= end {
                return None;
            }
            if self.ready.contains_key(&from) {
                from = from.next();
            } else if let Some((_, to)) = ranges.iter().find(|(low, to)| *low <= from && from < *to) {
                from = *to;
            } else {
                break;
            }
        }
        let here = self.ready.range(from..).next().map(|(height, _)| *height);
        let coming = ranges.iter().map(|(low, _)| *low).filter(|low| *low > from).min();
        let to = [here, coming, Some(end)].into_iter().flatten().min()?;
        let count = to.get().saturating_sub(from.get()).min(u64::from(BATCH_MAX));
        Some((from, u32::try_from(count).unwrap_or(BATCH_MAX)))
    }

    /// Returns who is asked for blocks from `from`: the least busy of those that may have them.
    fn who_has(&self, from: Height) -> Option<Peer> {
        let count = self.peers.len();
        self.peers
            .iter()
            .enumerate()
            .filter(|(_, (_, peer))| peer.tip >= from && peer.first <= from && peer.strikes < STRIKES_MAX)
            .filter_map(|(at, (name, _))| {
                let asked: Vec<Height> = self.asked_of(name).collect();
                let turn = at.saturating_add(count).saturating_sub(self.turn.checked_rem(count)?);
                let fits = asked.len() < RANGES_PER_PEER_MAX && !asked.contains(&from);
                fits.then_some((asked.len(), turn.checked_rem(count)?, name))
            })
            .min()
            .map(|(_, _, name)| name.clone())
    }

    /// Returns where the ranges begin that were asked of a peer.
    fn asked_of<'a>(&'a self, name: &'a Peer) -> impl Iterator<Item = Height> + 'a {
        let of_peer = self.requests.values().filter(move |request| request.peer == *name);
        of_peer.filter_map(|request| request.asked.range().map(|(from, _)| from))
    }

    fn may_ask_range(&self, now_ms: u64) -> bool {
        let ranges = || self.requests.values().filter(|request| request.asked.range().is_some());
        let in_time = ranges().filter(|request| now_ms.saturating_sub(request.since_ms) <= LATE_MS).count();
        in_time < RANGES_MAX && ranges().count() < RANGES_HARD_MAX
    }
}

impl<S: StateRead> Machine<S> {
    /// Asks for what is missing after the tip, of several peers at once.
    pub(crate) fn fetch_blocks(&mut self) {
        if self.join.is_active() {
            return;
        }
        let next = self.chain.next_height();
        let next = if self.committing.is_some() { next.next() } else { next };
        while self.sync.may_ask_range(self.now.mono_ms) {
            let Some((from, max)) = self.sync.gap(next, self.now.mono_ms) else { return };
            let Some(peer) = self.sync.who_has(from) else { return };
            let before = self.sync.requests.len();
            self.ask(peer, SyncRequest::Blocks { from, max }, Asked::Blocks(from, max));
            if self.sync.requests.len() == before {
                return;
            }
        }
    }

    pub(super) fn on_blocks(&mut self, from: &Peer, first: Height, max: u32, blocks: Vec<DecidedBlock>) {
        let mut expected = first;
        let in_order = blocks.len() <= usize::try_from(max).unwrap_or(usize::MAX)
            && blocks.iter().all(|decided| {
                let fits = decided.block.header.height == expected;
                expected = expected.next();
                fits
            });
        if blocks.is_empty() || !in_order {
            return self.failed(from);
        }
        let next = self.chain.next_height();
        let end = next.plus(Blocks::new(WINDOW.saturating_add(1)));
        for decided in blocks {
            let height = decided.block.header.height;
            if height >= next && height < end {
                self.sync.ready.entry(height).or_insert_with(|| (from.clone(), decided));
            }
        }
        self.fetch_blocks();
    }

    /// A peer did not deliver: it is believed less and another one is asked.
    pub(super) fn failed(&mut self, from: &Peer) {
        let ours = self.chain.tip.height;
        self.sync.strike(from, ours.next(), ours);
        self.sync.turn = self.sync.turn.wrapping_add(1);
        self.fetch_blocks();
        // Nobody else to ask at once: where everyone is, is asked again soon.
        if !self.sync.is_asking_blocks() {
            self.set_timer(Timer::Sync, RETRY_MS);
            self.sync.asks_around = true;
        }
    }

    /// Applies the next block that was fetched. Returns false when none waits.
    pub(crate) fn apply_fetched(&mut self) -> Result<bool, MachineError> {
        let next = self.chain.next_height();
        self.sync.ready = self.sync.ready.split_off(&next);
        let Some((from, decided)) = self.sync.ready.remove(&next) else {
            return Ok(false);
        };
        let hash = decided.block.hash();
        let certificate = &decided.certificate;
        let named = certificate.height == next && certificate.block == hash;
        let set = &self.chain.tip.next_set;
        if !named || certificate.verify(&self.chain.verifier, set).is_err() {
            self.lied(&from, "gave a block without a valid certificate");
            return Ok(true);
        }
        let is_behind = self.is_syncing();
        if let Some(agreement) = &mut self.agreement {
            agreement.guard.fetched(next, is_behind);
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

    /// Throws away everything that a liar gave.
    fn lied(&mut self, from: &Peer, fact: &'static str) {
        self.out.push(Effect::Penalize { peer: from.clone(), fact });
        self.sync.ready.retain(|_, (giver, _)| giver != from);
        self.failed(from);
    }
}
