//! Opens a snapshot whose header is proven: its cut and its decided block.

use tiltyard_ledger::StateRead;
use tiltyard_proto::block::{DecidedBlock, Header};
use tiltyard_proto::snapshot::SnapshotCut;
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::{Peer, SyncRequest};

use super::Stage;
use super::fetch::Fetch;
use crate::event::Event;
use crate::io::Effect;
use crate::machine::Machine;
use crate::sync::Asked;

impl<S: StateRead> Machine<S> {
    pub(super) fn drive_opening(&mut self, height: Height, has_cut: bool, has_base: bool) {
        if !has_cut && !self.sync.is_asking(&Asked::Cut(height)) {
            match self.join.next_offering(height) {
                Some(peer) => self.ask(peer, SyncRequest::SnapshotCut { height }, Asked::Cut(height)),
                None => return self.choose(),
            }
        }
        if !has_base && !self.sync.is_asking(&Asked::Base(height)) {
            match self.join.next_offering(height) {
                Some(peer) => {
                    self.ask(peer, SyncRequest::Blocks { from: height, max: 1 }, Asked::Base(height));
                }
                None => self.choose(),
            }
        }
    }

    pub(in crate::sync) fn on_cut(&mut self, from: &Peer, height: Height, given: Option<SnapshotCut>) {
        let Stage::Opening { proven, cut, .. } = &mut self.join.stage else { return };
        if proven.height() != height {
            return;
        }
        let root = proven.state_root();
        match given {
            None => self.join_failed(from),
            Some(given) if root.is_some_and(|root| given.verify(&root).is_ok()) => {
                *cut = Some(given);
                self.open_join();
            }
            Some(_) => self.join_lied(from, "gave a cut that does not lead to the state root"),
        }
    }

    pub(in crate::sync) fn on_base(&mut self, from: &Peer, height: Height, blocks: Vec<DecidedBlock>) {
        let Stage::Opening { proven, base, .. } = &mut self.join.stage else { return };
        if proven.height() != height {
            return;
        }
        let Some(given) = blocks.into_iter().next() else { return self.join_failed(from) };
        let fits = proven.header.as_ref().is_some_and(|header| is_block_of(header, &given))
            && given.certificate.height == height
            && given.certificate.block == proven.block_hash()
            && given.certificate.verify(&self.chain.verifier, &proven.set).is_ok();
        if !fits {
            return self.join_lied(from, "gave another block than the proven one");
        }
        *base = Some(Box::new(given));
        self.open_join();
    }

    fn open_join(&mut self) {
        if let Stage::Opening { cut: Some(cut), base: Some(base), .. } = &self.join.stage {
            let (cut, decided) = (cut.clone(), base.clone());
            let height = decided.block.header.height;
            self.notify(Event::Joining { height, chunks: cut.chunks.len() });
            let fetch = Fetch::begin(height, cut.clone(), self.now.mono_ms);
            self.join.stage = Stage::Fetching(Box::new(fetch));
            self.out.push(Effect::BeginSnapshot { decided, cut });
        }
        self.drive_join();
    }
}

/// Says whether a block is the one that a proven header names, body included.
fn is_block_of(header: &Header, given: &DecidedBlock) -> bool {
    given.block.header == *header
        && header.tx_root == given.block.body.tx_root()
        && header.parent_certificate == given.block.body.parent_certificate_hash()
}
