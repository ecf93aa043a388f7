//! Joining by a state snapshot: a header is proven by certificates, then the state after it is fetched in chunks, each
//! verified alone, from all peers that have it (SPEC.md §20).
//!
//! Nothing is believed: headers are light-verified from the genesis document or a block that the user named, the cut
//! folds to the header's state root, every chunk has its subtree's root. A lie costs its teller strikes, and the node
//! one answer. Deliberately absent: files; the shell keeps chunks and builds the state.

mod fetch;
mod opening;

use std::collections::{BTreeMap, BTreeSet};

use tiltyard_ledger::StateRead;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::light::{LightBlock, LightError, LightOptions, Trusted, halfway, verify_skipping};
use tiltyard_proto::limits::SNAPSHOTS_OFFERED_MAX;
use tiltyard_proto::snapshot::SnapshotCut;
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::{Peer, SyncRequest};

use super::Asked;
use crate::config::{JoinConfig, JoinState};
use crate::event::Event;
use crate::io::Effect;
use crate::machine::Machine;
use fetch::Fetch;

/// How long peers are waited for before the best offer is taken, in milliseconds.
const LOOK_MS: u64 = 2_000;
/// Failures after which a peer is not asked for this join any more.
const FAULTS_MAX: u32 = 3;
/// How far ahead of this node's clock a header may be, in milliseconds.
const DRIFT_MS: u64 = 10_000;

/// Where a join stands.
#[derive(Debug)]
enum Stage {
    /// Blocks only.
    Off,
    /// Peers are asked which snapshots they have.
    Looking {
        /// When the best offer is taken; from the first peer on.
        until_ms: Option<u64>,
    },
    /// The header at `target` is proven; `want` is asked for now.
    Proving { target: Height, want: Height },
    /// Cut and block of a proven header are asked for.
    Opening { proven: Box<Trusted>, cut: Option<SnapshotCut>, base: Option<Box<DecidedBlock>> },
    /// Chunks are fetched.
    Fetching(Box<Fetch>),
    /// All chunks are kept: the shell opens the store anew.
    Done { height: Height, chunks: usize },
}

/// A join by snapshot.
#[derive(Debug)]
pub(crate) struct Join {
    config: Option<JoinConfig>,
    /// What proofs of headers start from; none until the checkpoint's block is here.
    origin: Option<Trusted>,
    /// The newest header proven on the way to the target.
    trusted: Option<Trusted>,
    options: LightOptions,
    stage: Stage,
    offers: BTreeMap<Peer, BTreeSet<Height>>,
    answered: BTreeSet<Peer>,
    faults: BTreeMap<Peer, u32>,
    turn: usize,
    /// No peer keeps the next block; looked into once.
    is_stranded: bool,
}

/// How a join goes, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinStatus {
    /// Height of the snapshot.
    pub height: Height,
    /// Chunks that are verified and kept.
    pub chunks_done: usize,
    /// Chunks in all.
    pub chunks: usize,
    /// Milliseconds left at the pace of this run; none while it is not known.
    pub left_ms: Option<u64>,
}

impl Join {
    /// A node without any block looks for a snapshot first, unless it is to fetch blocks only; an unfinished join goes on.
    pub(crate) fn new(
        config: Option<JoinConfig>,
        genesis: &Genesis,
        is_fresh: bool,
        unfinished: Option<JoinState>,
    ) -> Self {
        let from_genesis = config.as_ref().is_some_and(|config| config.checkpoint.is_none());
        let origin = from_genesis.then(|| Trusted::from_genesis(genesis, &genesis.hash()).ok()).flatten();
        let stage = match (&config, unfinished) {
            (Some(_), Some(state)) => Stage::Fetching(Box::new(Fetch::resume(state))),
            (Some(_), None) if is_fresh => Stage::Looking { until_ms: None },
            (Some(_) | None, _) => Stage::Off,
        };
        let blocks = genesis.params.unbonding.get();
        let pace_ms = u64::from(genesis.params.block_interval_ms);
        // Two thirds of the time that stake stays at risk.
        let trust_period_ms = blocks.saturating_mul(pace_ms).saturating_mul(2).checked_div(3).unwrap_or(0);
        let options = LightOptions { trust_period_ms, clock_drift_ms: DRIFT_MS, stale_after_ms: u64::MAX };
        let (offers, answered, faults) = Default::default();
        Self {
            config,
            origin,
            trusted: None,
            options,
            stage,
            offers,
            answered,
            faults,
            turn: 0,
            is_stranded: false,
        }
    }

    /// Says whether blocks wait for a snapshot.
    pub(crate) fn is_active(&self) -> bool {
        !matches!(self.stage, Stage::Off)
    }

    pub(crate) fn forget(&mut self, peer: &Peer) {
        self.offers.remove(peer);
        self.answered.remove(peer);
    }

    pub(crate) fn status(&self, now_ms: u64) -> Option<JoinStatus> {
        match &self.stage {
            Stage::Off | Stage::Looking { .. } | Stage::Proving { .. } | Stage::Opening { .. } => None,
            Stage::Fetching(fetch) => Some(fetch.status(now_ms)),
            Stage::Done { height, chunks } => {
                Some(JoinStatus { height: *height, chunks_done: *chunks, chunks: *chunks, left_ms: None })
            }
        }
    }

    /// Says whether there is anything to prove a header from.
    fn trusted_or_named(&self) -> bool {
        self.origin.is_some() || self.config.as_ref().is_some_and(|config| config.checkpoint.is_some())
    }

    fn is_trusted(&self, peer: &Peer) -> bool {
        self.faults.get(peer).is_none_or(|faults| *faults < FAULTS_MAX)
    }

    /// Returns the peers that offer a height and did not fail too often.
    fn offering(&self, height: Height) -> Vec<Peer> {
        let offers =
            self.offers.iter().filter(|(peer, list)| list.contains(&height) && self.is_trusted(peer));
        offers.map(|(peer, _)| peer.clone()).collect()
    }

    fn next_offering(&mut self, height: Height) -> Option<Peer> {
        let peers = self.offering(height);
        self.turn = self.turn.wrapping_add(1);
        peers.get(self.turn.checked_rem(peers.len())?).cloned()
    }

    /// Returns the newest height on offer that is of use.
    fn best(&self, tip: Height) -> Option<Height> {
        let least = self.config.as_ref().and_then(|config| config.checkpoint).map(|(height, _)| height);
        let offers = self.offers.iter().filter(|(peer, _)| self.is_trusted(peer));
        offers
            .flat_map(|(_, list)| list.iter().copied())
            .filter(|height| *height > tip && least.is_none_or(|least| *height >= least))
            .max()
    }

    fn fault(&mut self, peer: &Peer) {
        let faults = self.faults.entry(peer.clone()).or_default();
        *faults = faults.saturating_add(1);
    }
}

impl<S: StateRead> Machine<S> {
    /// A peer is there: it is asked what it offers while that matters.
    pub(super) fn join_with(&mut self, peer: Peer) {
        let is_fresh = self.chain.tip.height == Height::ZERO && self.committing.is_none();
        if self.join.config.is_some() && is_fresh && matches!(self.join.stage, Stage::Off) {
            self.join.stage = Stage::Looking { until_ms: None };
        }
        if let Stage::Looking { until_ms } = &mut self.join.stage {
            let now_ms = self.now.mono_ms;
            if until_ms.is_none() {
                *until_ms = Some(now_ms.saturating_add(LOOK_MS));
            }
        }
        if self.join.is_active() {
            self.ask(peer, SyncRequest::Snapshots, Asked::Snapshots);
        }
    }

    /// Nobody came while this node listened: the network may begin with it.
    pub(crate) fn stop_looking_alone(&mut self) {
        if matches!(self.join.stage, Stage::Looking { until_ms: None }) {
            self.join.stage = Stage::Off;
        }
    }

    pub(super) fn on_snapshots(&mut self, from: Peer, heights: &[Height]) {
        let list = heights.iter().copied().take(SNAPSHOTS_OFFERED_MAX).collect();
        self.join.answered.insert(from.clone());
        self.join.offers.insert(from, list);
        self.drive_join();
    }

    /// A peer did not answer, or not with what it offered.
    pub(super) fn join_failed(&mut self, from: &Peer) {
        self.join.answered.insert(from.clone());
        self.join.fault(from);
        self.drive_join();
    }

    fn join_lied(&mut self, from: &Peer, fact: &'static str) {
        self.out.push(Effect::Penalize { peer: from.clone(), fact });
        self.join_failed(from);
    }

    /// Does what is due next.
    pub(crate) fn drive_join(&mut self) {
        match &self.join.stage {
            Stage::Off => self.look_if_stranded(),
            Stage::Done { .. } => {}
            Stage::Looking { until_ms } => {
                let late = until_ms.is_some_and(|until| self.now.mono_ms >= until);
                let all = self.sync.peers.keys().all(|peer| self.join.answered.contains(peer));
                if until_ms.is_some() && (late || all) {
                    self.choose();
                }
            }
            Stage::Proving { target, want } => {
                let (target, want) = (*target, *want);
                if !self.sync.is_asking(&Asked::LightBlock(want)) {
                    match self.join.next_offering(target) {
                        Some(peer) => {
                            self.ask(peer, SyncRequest::LightBlock { height: want }, Asked::LightBlock(want));
                        }
                        None => self.choose(),
                    }
                }
            }
            Stage::Opening { proven, cut, base } => {
                let (height, has_cut, has_base) = (proven.height(), cut.is_some(), base.is_some());
                self.drive_opening(height, has_cut, has_base);
            }
            Stage::Fetching(_) => self.drive_fetching(),
        }
    }

    /// Takes the best offer, or goes on with blocks when there is none.
    fn choose(&mut self) {
        match self.join.best(self.chain.tip.height) {
            Some(target) => {
                self.join.trusted = self.join.origin.clone();
                let checkpoint = self.join.config.as_ref().and_then(|config| config.checkpoint);
                self.join.stage = match (&self.join.trusted, checkpoint) {
                    (None, Some((height, _))) => Stage::Proving { target, want: height },
                    (Some(trusted), _) if trusted.height() == target => {
                        Stage::Opening { proven: Box::new(trusted.clone()), cut: None, base: None }
                    }
                    (Some(_), _) | (None, None) => Stage::Proving { target, want: target },
                };
                self.drive_join();
            }
            None => {
                self.join.stage = Stage::Off;
                self.fetch_blocks();
            }
        }
    }

    /// When no peer keeps the next block any more, only a snapshot helps.
    fn look_if_stranded(&mut self) {
        let next = self.chain.next_height();
        let mut ahead = self.sync.peers.values().filter(|peer| peer.tip > next).peekable();
        if ahead.peek().is_none() || !ahead.all(|peer| peer.first > next) || self.join.is_stranded {
            return;
        }
        self.join.is_stranded = true;
        if self.join.config.is_none() {
            let fact = format!(
                "no peer keeps block {next} any more; start again with sync = \"snapshot\" in config.toml or with \
                 --checkpoint"
            );
            return self.notify(Event::Trouble { fact });
        }
        self.join.stage = Stage::Looking { until_ms: Some(self.now.mono_ms.saturating_add(LOOK_MS)) };
        self.join.answered.clear();
        let peers: Vec<Peer> = self.sync.peers.keys().cloned().collect();
        for peer in peers {
            self.ask(peer, SyncRequest::Snapshots, Asked::Snapshots);
        }
    }

    pub(super) fn on_light_block(&mut self, from: &Peer, height: Height, block: Option<LightBlock>) {
        let Stage::Proving { target, want } = self.join.stage else { return };
        if want != height {
            return;
        }
        let Some(block) = block else { return self.join_failed(from) };
        if block.header.height != height {
            return self.join_lied(from, "gave a header of another height");
        }
        match self.prove(block) {
            Ok(trusted) => {
                let reached = trusted.height();
                self.join.origin.get_or_insert_with(|| trusted.clone());
                self.join.trusted = Some(trusted.clone());
                self.join.stage = if reached == target {
                    Stage::Opening { proven: Box::new(trusted), cut: None, base: None }
                } else {
                    Stage::Proving { target, want: target }
                };
                self.drive_join();
            }
            Err(LightError::TooFarAhead { .. }) => {
                let known = self.join.trusted.as_ref().map_or(Height::ZERO, Trusted::height);
                match halfway(known, want) {
                    Some(want) => {
                        self.join.stage = Stage::Proving { target, want };
                        self.drive_join();
                    }
                    None => self.join_lied(from, "gave a header that its own set did not decide"),
                }
            }
            Err(LightError::TrustExpired { .. }) => {
                let fact = "the checkpoint is older than the trust period; give a newer one".to_owned();
                self.notify(Event::Trouble { fact });
                self.join.stage = Stage::Off;
            }
            // Perhaps the peer's doing, perhaps this node's own clock: nobody is blamed for what one's clock says.
            Err(LightError::FromFuture { .. }) => self.join_failed(from),
            Err(_) => self.join_lied(from, "gave a header that does not verify"),
        }
    }

    fn prove(&self, block: LightBlock) -> Result<Trusted, LightError> {
        let checkpoint: Option<(Height, BlockHash)> =
            self.join.config.as_ref().and_then(|config| config.checkpoint);
        match (&self.join.trusted, checkpoint) {
            (Some(trusted), _) => verify_skipping(trusted, block, &self.join.options, self.now.unix),
            (None, Some((_, hash))) => Trusted::from_checkpoint(&self.chain.verifier.genesis(), &hash, block),
            (None, None) => Err(LightError::Stale {
                height: block.header.height,
                time: block.header.time,
                now: self.now.unix,
            }),
        }
    }
}
