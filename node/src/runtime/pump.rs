//! Brings what the network and the jobs have to say to the machine; answers what needs no machine.

use std::sync::Arc;

use tiltyard_ledger::query;
use tiltyard_machine::Input;
use tiltyard_machine::io::{MessageToken, RequestToken};
use tiltyard_net::{NetEvent, NetHandle};
use tiltyard_proto::light::LightBlock;
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::{Acceptance, GossipMessage, SyncRequest, SyncResponse};
use tiltyard_store::{ChainRead as _, StoreReader};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, info, warn};

use super::shared::FetchState;
use super::{BrainHandle, Shared};
use crate::jobs::Ended;

/// Blocks and bytes of one answer, as the wire allows.
const BLOCKS_MAX: u32 = 64;
const BLOCKS_BYTES_MAX: usize = 4 << 20;
/// Answers that are read from disk at a time.
const READERS_MAX: usize = 4;

/// Runs until the network has stopped.
pub(super) async fn network(
    mut events: mpsc::Receiver<NetEvent>,
    brain: BrainHandle,
    net: NetHandle,
    reader: StoreReader,
    shared: Arc<Shared>,
) {
    let readers = Arc::new(Semaphore::new(READERS_MAX));
    while let Some(event) = events.recv().await {
        let input = match event {
            NetEvent::Message { token, from, message } => {
                let bulk = matches!(*message, GossipMessage::Transactions(..));
                let peer = from.clone();
                let input = Input::Gossip { token: MessageToken(token), from, message };
                if !bulk {
                    input
                } else if brain.offer(input).is_ok() {
                    continue;
                } else {
                    // More than the machine keeps up with: nobody's fault, and peers send again what is not in a block.
                    if let Err(error) = net.report(token, &peer, Acceptance::Ignore) {
                        debug!(%error, "report lost");
                    }
                    continue;
                }
            }
            NetEvent::Request { token, from, request } => match request {
                SyncRequest::Status
                | SyncRequest::Blocks { .. }
                | SyncRequest::LightBlock { .. }
                | SyncRequest::Snapshots
                | SyncRequest::SnapshotCut { .. }
                | SyncRequest::SnapshotChunk { .. } => {
                    let Ok(permit) = readers.clone().acquire_owned().await else {
                        continue;
                    };
                    let (reader, net) = (reader.clone(), net.clone());
                    tokio::task::spawn_blocking(move || {
                        answer(token, &request, &reader, &net);
                        drop(permit);
                    });
                    continue;
                }
                SyncRequest::Body { .. } | SyncRequest::PendingIds | SyncRequest::Pending { .. } => {
                    Input::Request { token: RequestToken(token), from, request }
                }
            },
            NetEvent::Response { token, from, response } => {
                Input::Response { token: RequestToken(token), from, response }
            }
            NetEvent::PeerUp(peer) => Input::PeerUp(peer),
            NetEvent::PeerDown(peer) => Input::PeerDown(peer),
            NetEvent::Subscribed(peer, topic) => Input::Subscribed(peer, topic),
            NetEvent::BlobProgress { root, bytes, total } => {
                shared.set_fetch_state(root, FetchState { bytes, total, fault: None });
                continue;
            }
            NetEvent::BlobDone { root } => {
                info!(%root, "blob fetched");
                Input::Blob { root, held: true }
            }
            NetEvent::BlobFailed { root, fact } => {
                warn!(%root, %fact, "blob cannot be fetched");
                shared.set_fetch_state(root, FetchState { fault: Some(fact), ..FetchState::default() });
                Input::Blob { root, held: false }
            }
            NetEvent::Listening(address) => {
                info!(%address, "listening");
                continue;
            }
        };
        if brain.tell(input).await.is_err() {
            debug!("the machine has stopped; network events are no longer read");
            // Read on, so that the network can end.
            while events.recv().await.is_some() {}
            return;
        }
    }
}

fn answer(token: u64, request: &SyncRequest, reader: &StoreReader, net: &NetHandle) {
    let response = match request {
        SyncRequest::Status => {
            SyncResponse::Status { tip: reader.tip(), first: reader.first().unwrap_or(Height::new(1)) }
        }
        SyncRequest::Blocks { from, max } => {
            match reader.blocks(*from, (*max).min(BLOCKS_MAX), BLOCKS_BYTES_MAX) {
                Ok(blocks) => SyncResponse::Blocks(blocks),
                Err(error) => {
                    warn!(%error, "blocks cannot be served");
                    return;
                }
            }
        }
        SyncRequest::LightBlock { height } => {
            SyncResponse::LightBlock(light_block(reader, *height).map(Box::new))
        }
        SyncRequest::Snapshots => SyncResponse::Snapshots(reader.snapshots().heights()),
        SyncRequest::SnapshotCut { height } => SyncResponse::SnapshotCut(reader.snapshots().cut(*height)),
        SyncRequest::SnapshotChunk { height, index } => match reader.snapshots().chunk(*height, *index) {
            Ok(chunk) => SyncResponse::SnapshotChunk(chunk),
            Err(error) => {
                warn!(%error, "a chunk cannot be served");
                SyncResponse::SnapshotChunk(None)
            }
        },
        SyncRequest::Body { .. } | SyncRequest::PendingIds | SyncRequest::Pending { .. } => return,
    };
    if let Err(error) = net.respond(token, response) {
        debug!(%error, "answer not sent");
    }
}

/// Returns a decided header with the sets that judge it, where both are still known.
fn light_block(reader: &StoreReader, height: Height) -> Option<LightBlock> {
    let decided = reader.block(height).ok().flatten()?;
    Some(LightBlock {
        set: query::set_at(reader, height).ok()?,
        next_set: query::set_at(reader, height.next()).ok()?,
        header: decided.block.header,
        certificate: decided.certificate,
    })
}

/// Runs until the job runner has stopped.
pub(super) async fn jobs(mut outcomes: mpsc::Receiver<Ended>, brain: BrainHandle) {
    while let Some((id, outcome)) = outcomes.recv().await {
        let input = Input::JobEnded { id, outcome: Box::new(outcome) };
        if brain.tell(input).await.is_err() {
            warn!(
                "a job's outcome came after the machine had stopped; the job is looked at again at the next start"
            );
        }
    }
}
