//! Proposed bodies that gossip did not bring are asked of those who speak of them.

use std::collections::{BTreeMap, VecDeque};

use tiltyard_ledger::StateRead;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::Round;
use tiltyard_proto::wire::{Peer, SyncRequest};

use crate::chain::decode;
use crate::config::MachineError;
use crate::io::Effect;
use crate::machine::Machine;
use crate::sync::Asked;
use crate::timers::Timer;

/// Gossip usually brings the body within this time, in milliseconds.
const PATIENCE_MS: u64 = 150;
/// Blocks wanted at a time.
const WANTED_MAX: usize = 16;
/// Peers remembered per block.
const PEERS_MAX: usize = 16;

/// Bodies that are missing and who may have them.
#[derive(Debug, Default)]
pub(crate) struct Pull {
    wanted: BTreeMap<BlockHash, VecDeque<Peer>>,
}

impl Pull {
    pub(crate) fn forget(&mut self, block: &BlockHash) {
        self.wanted.remove(block);
    }

    pub(crate) fn clear(&mut self) {
        self.wanted.clear();
    }
}

impl<S: StateRead> Machine<S> {
    /// Notes that a block is spoken of; it is asked for when it does not come by itself.
    pub(crate) fn want_body(&mut self, block: BlockHash, from: &Peer) {
        if self.chain.candidate(&block).is_some() {
            return;
        }
        if self.pull.wanted.len() >= WANTED_MAX && !self.pull.wanted.contains_key(&block) {
            return;
        }
        let peers = self.pull.wanted.entry(block).or_default();
        if peers.len() < PEERS_MAX && !peers.contains(from) {
            peers.push_back(from.clone());
        }
        if !self.is_timer_set(Timer::Pull) {
            self.set_timer(Timer::Pull, PATIENCE_MS);
        }
    }

    /// Asks the next peer of each missing block.
    pub(crate) fn on_pull_timer(&mut self) {
        let mut asks = Vec::new();
        for (block, peers) in &mut self.pull.wanted {
            if let Some(peer) = peers.pop_front() {
                asks.push((*block, peer.clone()));
                peers.push_back(peer);
            }
        }
        for (block, peer) in asks {
            self.ask(peer, SyncRequest::Body { block }, Asked::Body(block));
        }
        if !self.pull.wanted.is_empty() {
            self.set_timer(Timer::Pull, PATIENCE_MS.saturating_mul(2));
        }
    }

    /// Judges a body that was asked for.
    pub(crate) fn on_body_answer(
        &mut self,
        from: &Peer,
        asked: BlockHash,
        bytes: Option<&[u8]>,
    ) -> Result<(), MachineError> {
        let Some(bytes) = bytes else {
            return Ok(());
        };
        let block = match decode(&self.chain.tip, bytes) {
            Ok(block) if block.hash() == asked => block,
            Ok(_) | Err(_) => {
                let fact = "answered with another block than asked for";
                self.out.push(Effect::Penalize { peer: from.clone(), fact });
                return Ok(());
            }
        };
        if block.header.height != self.chain.next_height() || !self.pull.wanted.contains_key(&asked) {
            return Ok(());
        }
        let builder = block.header.builder;
        self.judge_body(block, bytes.len(), (Round::ZERO, builder), true)
    }
}
