//! Transactions that wait at peers, and answers to what peers ask.

use std::collections::BTreeSet;

use tiltyard_ledger::StateRead;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::transaction::SignedTransaction;
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::{Peer, SyncRequest, SyncResponse};

use super::Asked;
use crate::config::MachineError;
use crate::gossip::Considered;
use crate::io::{Effect, RequestToken};
use crate::machine::Machine;

/// Pending transactions asked for at a time.
const PENDING_MAX: usize = 256;
/// Ids answered at a time.
const IDS_MAX: usize = 4_096;

impl<S: StateRead> Machine<S> {
    /// Asks a peer in turn which transactions wait there.
    pub(crate) fn ask_pending(&mut self) {
        if let (false, Some(peer)) = (self.is_syncing(), self.sync.rotate()) {
            self.ask(peer, SyncRequest::PendingIds, Asked::PendingIds);
        }
    }

    pub(super) fn on_ids(&mut self, from: &Peer, ids: Vec<TransactionId>) {
        let unknown: BTreeSet<TransactionId> =
            ids.into_iter().take(IDS_MAX).filter(|id| !self.mempool.has(id)).take(PENDING_MAX).collect();
        if !unknown.is_empty() {
            let ids = unknown.into_iter().collect();
            self.ask(from.clone(), SyncRequest::Pending { ids }, Asked::Pending);
        }
    }

    pub(super) fn on_pending(&mut self, from: &Peer, list: &[Vec<u8>]) -> Result<(), MachineError> {
        for bytes in list.iter().take(PENDING_MAX) {
            let considered = match SignedTransaction::decode(bytes) {
                Ok(signed) => self.consider(from, signed)?,
                Err(_) => Considered::Forged,
            };
            match considered {
                // Refused here may be early or late there; nobody is at fault.
                Considered::Known | Considered::Taken(_) | Considered::Useless => {}
                Considered::Forged => {
                    let fact = "gave a transaction that is not one";
                    self.out.push(Effect::Penalize { peer: from.clone(), fact });
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Answers what only the machine knows. Old blocks and snapshots are the shell's to answer.
    pub(crate) fn on_request(&mut self, token: RequestToken, request: &SyncRequest) {
        let response = match request {
            SyncRequest::Status => SyncResponse::Status { tip: self.chain.tip.height, first: Height::new(1) },
            SyncRequest::Blocks { .. } => SyncResponse::Blocks(Vec::new()),
            SyncRequest::LightBlock { .. } => SyncResponse::LightBlock(None),
            SyncRequest::Snapshots => SyncResponse::Snapshots(Vec::new()),
            SyncRequest::SnapshotCut { .. } => SyncResponse::SnapshotCut(None),
            SyncRequest::SnapshotChunk { .. } => SyncResponse::SnapshotChunk(None),
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
