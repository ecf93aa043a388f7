//! Decided blocks that this node's disk lost are had again from peers.
//!
//! The shell names the highest run of missing blocks and the hash of its last one, as the block after it names it. That
//! hash proves the last block, whose header proves the one before it, and so on: no signature and no validator set of
//! long ago is needed. What this node signs does not depend on any of it.

use tiltyard_ledger::StateRead;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::{Peer, SyncRequest};

use crate::io::{Effect, Missing};
use crate::machine::Machine;
use crate::sync::Asked;

/// Blocks asked for at a time.
const WINDOW_MAX: u64 = 64;

/// What is missing, and how much of it is asked for at a time.
#[derive(Debug)]
pub(crate) struct Repair {
    wanted: Option<Missing>,
    /// Peers answer from the first height up to a limit on bytes: a window that is too wide never brings the last.
    window: u64,
}

impl Default for Repair {
    fn default() -> Self {
        Self { wanted: None, window: WINDOW_MAX }
    }
}

impl<S: StateRead> Machine<S> {
    /// Learns what is missing now.
    pub(crate) fn on_missing(&mut self, missing: Option<Missing>) {
        let known = self.repair.wanted == missing;
        self.repair.wanted = missing;
        if !known {
            self.ask_missing();
        }
    }

    /// Asks a peer for missing blocks, unless they are on their way.
    pub(crate) fn ask_missing(&mut self) {
        let Some(missing) = self.repair.wanted else { return };
        if self.sync.is_asking_repair() {
            return;
        }
        let Some(peer) = self.sync.peer_beyond(missing.to) else { return };
        let back = self.repair.window.saturating_sub(1);
        let from = Height::new(missing.to.get().saturating_sub(back)).max(missing.from);
        let max = missing.to.get().saturating_sub(from.get()).saturating_add(1);
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        self.ask(peer, SyncRequest::Blocks { from, max }, Asked::Repair);
    }

    /// Takes a peer's answer: the blocks that the chain proves, from the last one down.
    pub(crate) fn on_missing_blocks(&mut self, from: &Peer, blocks: Vec<DecidedBlock>) {
        let Some(missing) = self.repair.wanted else { return };
        let reached = blocks.last().map(|last| last.block.header.height);
        if reached.is_none_or(|reached| reached < missing.to) {
            // Too much for one answer, or a peer that has lost it too: another one is asked for less.
            self.repair.window = self.repair.window.div_ceil(4).max(1);
            return;
        }
        self.repair.window = WINDOW_MAX;
        let (mut hash, mut height) = (missing.hash, Some(missing.to));
        let mut proven = Vec::new();
        for decided in blocks.into_iter().rev() {
            let (header, body) = (&decided.block.header, &decided.block.body);
            let is_it = decided.block.hash() == hash && Some(header.height) == height;
            let whole = header.tx_root == body.tx_root()
                && header.parent_certificate == body.parent_certificate_hash();
            if !is_it || !whole {
                let fact = "gave a block that the chain does not name";
                self.out.push(Effect::Penalize { peer: from.clone(), fact });
                break;
            }
            (hash, height) = (header.parent, header.height.previous());
            proven.push(decided);
        }
        if !proven.is_empty() {
            self.repair.wanted = None;
            self.out.push(Effect::Repair(proven));
        }
    }
}
