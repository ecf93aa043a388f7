//! Serves blobs to peers that may have them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::{PeerId, Stream};
use libp2p_stream::IncomingStreams;
use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::manifest::Manifest;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::access::BlobAccess;
use super::lane::{Floor, LaneError, Pace};
use super::outboards::Outboards;
use super::tree::{PIECE_BYTES, encode, encoded_bytes, piece_bytes};
use super::wire::{
    BATCH_PIECES_MAX, BlobReply, BlobRequest, PieceId, REQUEST_BYTES_MAX, invalid, receive, send,
};
use crate::peers::to_peer;
use crate::task::Local;

const STREAMS_PER_PEER_MAX: usize = 4;
const STREAMS_MAX: usize = 64;
const ENCODERS_MAX: usize = 12;
const ENCODER_WAIT: Duration = Duration::from_secs(2);
const IDLE_MAX: Duration = Duration::from_secs(60);

/// What serving needs.
#[derive(Clone)]
pub(crate) struct Server {
    access: Arc<dyn BlobAccess>,
    outboards: Arc<Outboards>,
    encoders: Arc<Semaphore>,
    floor: Floor,
    local: mpsc::Sender<Local>,
}

impl Server {
    pub(crate) fn new(access: Arc<dyn BlobAccess>, floor: Floor, local: mpsc::Sender<Local>) -> Self {
        Self {
            access,
            outboards: Arc::new(Outboards::default()),
            encoders: Arc::new(Semaphore::new(ENCODERS_MAX)),
            floor,
            local,
        }
    }

    /// Accepts streams until stopped. Streams beyond the caps are closed at once.
    pub(crate) async fn run(self, mut incoming: IncomingStreams, stop: CancellationToken) {
        let mut streams: JoinSet<PeerId> = JoinSet::new();
        let mut per_peer: HashMap<PeerId, usize> = HashMap::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = streams.join_next(), if !streams.is_empty() => match ended {
                    Ok(peer) => release(&mut per_peer, &peer),
                    Err(error) => error!(%error, "a blob stream ended abnormally"),
                },
                next = incoming.next() => {
                    let Some((peer, stream)) = next else { break };
                    let count = per_peer.entry(peer).or_insert(0);
                    if *count >= STREAMS_PER_PEER_MAX || streams.len() >= STREAMS_MAX {
                        debug!(%peer, streams = *count, "blob stream beyond the cap closed");
                        continue;
                    }
                    *count = count.saturating_add(1);
                    let server = self.clone();
                    streams.spawn(async move {
                        server.serve(peer, stream).await;
                        peer
                    });
                }
            }
        }
        streams.shutdown().await;
    }

    async fn serve(&self, peer: PeerId, mut stream: Stream) {
        match self.answer_all(peer, &mut stream).await {
            Ok(()) => {}
            Err(LaneError::Slow) => self.strike(peer, 1, "took a blob more slowly than the floor").await,
            Err(LaneError::Stream(error)) if error.kind() == io::ErrorKind::InvalidData => {
                debug!(%peer, %error, "malformed blob request");
                self.strike(peer, 2, "malformed blob request").await;
            }
            Err(error) => debug!(%peer, %error, "blob stream ended"),
        }
    }

    async fn strike(&self, peer: PeerId, points: u32, fact: &'static str) {
        // A full or closed queue means the network task is stopping or flooded; the strike is then not worth waiting for.
        let _ = self.local.try_send(Local::Strike { peer, points, fact: fact.to_owned() });
    }

    async fn answer_all(&self, peer: PeerId, stream: &mut Stream) -> Result<(), LaneError> {
        loop {
            let Ok(request) = timeout(IDLE_MAX, receive(stream, "blob request", REQUEST_BYTES_MAX)).await
            else {
                return Ok(());
            };
            match request? {
                None => return Ok(()),
                Some(BlobRequest::Manifest { root }) => {
                    let reply = match self.look_up(root, peer).await? {
                        Ok(manifest) => BlobReply::Manifest(manifest.encode()),
                        Err(refusal) => refusal,
                    };
                    self.reply(stream, &reply).await?;
                }
                Some(BlobRequest::Pieces { root, pieces }) => {
                    self.answer_pieces(peer, stream, root, pieces).await?
                }
            }
        }
    }

    async fn reply(&self, stream: &mut Stream, reply: &BlobReply) -> Result<(), LaneError> {
        match timeout(self.floor.window, send(stream, reply)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(LaneError::Slow),
        }
    }

    async fn look_up(&self, root: BlobRoot, peer: PeerId) -> Result<Result<Manifest, BlobReply>, LaneError> {
        let access = Arc::clone(&self.access);
        let work = move || match access.manifest(&root) {
            Ok(None) => Err(BlobReply::Absent),
            Ok(Some(_)) if !access.may_fetch(&root, &to_peer(&peer)) => Err(BlobReply::Refused),
            Ok(Some(manifest)) => Ok(manifest),
            Err(error) => {
                error!(%root, %error, "a blob cannot be served");
                Err(BlobReply::Absent)
            }
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| io::Error::other(error.to_string()).into())
    }

    async fn answer_pieces(
        &self,
        peer: PeerId,
        stream: &mut Stream,
        root: BlobRoot,
        pieces: Vec<PieceId>,
    ) -> Result<(), LaneError> {
        let manifest = match self.look_up(root, peer).await? {
            Ok(manifest) => manifest,
            Err(refusal) => return self.reply(stream, &refusal).await,
        };
        check_batch(&manifest, &pieces)?;
        let Ok(Ok(permit)) = timeout(ENCODER_WAIT, self.encoders.acquire()).await else {
            return self.reply(stream, &BlobReply::Busy).await;
        };
        let (access, outboards) = (Arc::clone(&self.access), Arc::clone(&self.outboards));
        let work = move || encode_batch(access.as_ref(), &outboards, root, &manifest, &pieces);
        let encoded =
            tokio::task::spawn_blocking(work).await.map_err(|error| io::Error::other(error.to_string()))?;
        match encoded {
            Ok(bytes) => {
                self.reply(stream, &BlobReply::Pieces).await?;
                Pace::new(self.floor).write(stream, &bytes).await?;
            }
            Err(error) => {
                error!(%root, %error, "a blob cannot be served");
                self.reply(stream, &BlobReply::Absent).await?;
            }
        }
        drop(permit);
        Ok(())
    }
}

fn release(per_peer: &mut HashMap<PeerId, usize>, peer: &PeerId) {
    if let Some(count) = per_peer.get_mut(peer) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            per_peer.remove(peer);
        }
    }
}

/// Refuses batches that ask for nothing, for too much, or for pieces that do not exist.
fn check_batch(manifest: &Manifest, pieces: &[PieceId]) -> io::Result<()> {
    if pieces.is_empty() || pieces.len() > BATCH_PIECES_MAX {
        return Err(invalid(format!("a batch of {} pieces", pieces.len())));
    }
    let mut sum = 0u64;
    for id in pieces {
        let bytes = usize::try_from(id.file)
            .ok()
            .and_then(|place| manifest.files.get(place))
            .map_or(0, |entry| piece_bytes(entry.bytes, id.piece));
        if bytes == 0 {
            return Err(invalid(format!("piece {} of file {} does not exist", id.piece, id.file)));
        }
        sum = sum.saturating_add(bytes);
    }
    if sum > PIECE_BYTES {
        return Err(invalid(format!("a batch of {sum} bytes")));
    }
    Ok(())
}

/// Reads and proves the pieces. Blocks.
fn encode_batch(
    access: &dyn BlobAccess,
    outboards: &Outboards,
    root: BlobRoot,
    manifest: &Manifest,
    pieces: &[PieceId],
) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for id in pieces {
        let entry = &manifest.files[id.file as usize];
        let file = access
            .open(&root, &entry.name)
            .map_err(|error| io::Error::other(error.to_string()))?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the blob was removed"))?;
        let outboard = outboards.get(&entry.hash, &file, entry.bytes)?;
        out.reserve_exact(encoded_bytes(entry.bytes, id.piece));
        encode(&file, &outboard, id.piece, &mut out)?;
    }
    Ok(out)
}
