//! One stream to one provider, with a floor under its speed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::manifest::Manifest;
use tokio::time::{Instant, timeout, timeout_at};

use super::access::PartialBlob;
use super::plan::{Batch, Claims};
use super::tree::{PIECE_BYTES, decode, encoded_bytes};
use super::wire::{BlobReply, BlobRequest, PieceId, REPLY_BYTES_MAX, invalid, receive, send};
use crate::error::BlobError;

/// How long opening a stream or a small answer may take.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Says why a provider gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneError {
    /// The stream could not be opened, broke, or spoke nonsense.
    #[error("stream failed: {0}")]
    Stream(#[from] io::Error),
    /// Below the speed floor.
    #[error("too slow")]
    Slow,
    /// It sent bytes that are not the blob's.
    #[error("sent bytes that do not belong to the blob")]
    Corrupt,
    /// It does not have the blob.
    #[error("does not have the blob")]
    Absent,
    /// It does not give the blob to us.
    #[error("refuses to give the blob")]
    Refused,
    /// It has too much to do.
    #[error("is busy")]
    Busy,
    /// Our own storage failed.
    #[error(transparent)]
    Local(#[from] BlobError),
}

/// A floor under a stream's speed: so many bytes in every window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    pub(crate) window: Duration,
    pub(crate) bytes_min: u64,
}

/// Measures one transfer against its floor.
pub(crate) struct Pace {
    floor: Floor,
    ends: Instant,
    moved: u64,
}

impl Pace {
    pub(crate) fn new(floor: Floor) -> Self {
        Self { floor, ends: Instant::now() + floor.window, moved: 0 }
    }

    /// Starts a new window, as after work of our own that the other side did not cause.
    fn restart(&mut self) {
        self.ends = Instant::now() + self.floor.window;
        self.moved = 0;
    }

    fn count(&mut self, bytes: usize) -> Result<(), LaneError> {
        self.moved = self.moved.saturating_add(bytes as u64);
        if Instant::now() < self.ends {
            return Ok(());
        }
        if self.moved < self.floor.bytes_min {
            return Err(LaneError::Slow);
        }
        self.restart();
        Ok(())
    }

    async fn read(&mut self, stream: &mut Stream, mut rest: &mut [u8]) -> Result<(), LaneError> {
        while !rest.is_empty() {
            let read = match timeout_at(self.ends, stream.read(rest)).await {
                Ok(read) => read?,
                Err(_) => {
                    self.count(0)?;
                    continue;
                }
            };
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            rest = &mut rest[read..];
            self.count(read)?;
        }
        Ok(())
    }

    /// Writes all bytes at no less than the floor.
    pub(crate) async fn write(&mut self, stream: &mut Stream, mut rest: &[u8]) -> Result<(), LaneError> {
        while !rest.is_empty() {
            let part = &rest[..rest.len().min(1 << 16)];
            let written = match timeout_at(self.ends, stream.write(part)).await {
                Ok(written) => written?,
                Err(_) => {
                    self.count(0)?;
                    continue;
                }
            };
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            rest = &rest[written..];
            self.count(written)?;
        }
        match timeout(self.floor.window, stream.flush()).await {
            Ok(flushed) => Ok(flushed?),
            Err(_) => Err(LaneError::Slow),
        }
    }
}

/// Opens a stream to a connected peer.
pub(crate) async fn open(
    mut control: Control,
    peer: PeerId,
    protocol: StreamProtocol,
) -> Result<Stream, LaneError> {
    match timeout(ANSWER_TIMEOUT, control.open_stream(peer, protocol)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(io::Error::other(error.to_string()).into()),
        Err(_) => Err(LaneError::Slow),
    }
}

/// Asks whether the other side has the blob and what is in it.
pub(crate) async fn ask_manifest(stream: &mut Stream, root: BlobRoot) -> Result<Vec<u8>, LaneError> {
    let answer = async {
        send(stream, &BlobRequest::Manifest { root }).await?;
        reply(stream).await
    };
    match timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| LaneError::Slow)?? {
        BlobReply::Manifest(bytes) => Ok(bytes),
        other => Err(unwelcome(&other)),
    }
}

/// What a batch is checked against and where it goes.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) root: BlobRoot,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) partial: Arc<dyn PartialBlob>,
    pub(crate) claims: Arc<Claims>,
}

/// Fetches a batch, verifies it and keeps it piece by piece; tells `kept` the bytes of each.
pub(crate) async fn fetch_batch(
    stream: &mut Stream,
    job: &Job,
    batch: &Batch,
    floor: Floor,
    mut kept: impl FnMut(u64),
) -> Result<(), LaneError> {
    send(stream, &BlobRequest::Pieces { root: job.root, pieces: batch.pieces.clone() }).await?;
    match timeout(floor.window, reply(stream)).await.map_err(|_| LaneError::Slow)?? {
        BlobReply::Pieces => {}
        other => return Err(unwelcome(&other)),
    }
    let mut pace = Pace::new(floor);
    for id in &batch.pieces {
        let entry = usize::try_from(id.file)
            .ok()
            .and_then(|place| job.manifest.files.get(place))
            .expect("batches are made from this manifest");
        let mut encoded = vec![0u8; encoded_bytes(entry.bytes, id.piece)];
        pace.read(stream, &mut encoded).await?;
        kept(keep(job.clone(), *id, encoded).await?);
        pace.restart();
    }
    Ok(())
}

/// Verifies one piece and keeps it, on a blocking thread; returns the bytes kept, 0 when another lane was first.
async fn keep(job: Job, id: PieceId, encoded: Vec<u8>) -> Result<u64, LaneError> {
    let work = move || {
        let entry = &job.manifest.files[id.file as usize];
        let bytes = decode(&entry.hash, entry.bytes, id.piece, &encoded).map_err(|_| LaneError::Corrupt)?;
        drop(encoded);
        if !job.claims.claim(id) {
            return Ok(0);
        }
        let offset = u64::from(id.piece).saturating_mul(PIECE_BYTES);
        job.partial.write(id.file, id.piece, offset, &bytes)?;
        Ok(bytes.len() as u64)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(kept) => kept,
        Err(error) => Err(io::Error::other(error.to_string()).into()),
    }
}

async fn reply(stream: &mut Stream) -> io::Result<BlobReply> {
    receive(stream, "blob reply", REPLY_BYTES_MAX)
        .await?
        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
}

fn unwelcome(reply: &BlobReply) -> LaneError {
    match reply {
        BlobReply::Absent => LaneError::Absent,
        BlobReply::Refused => LaneError::Refused,
        BlobReply::Busy => LaneError::Busy,
        BlobReply::Manifest(_) | BlobReply::Pieces => {
            LaneError::Stream(invalid("the reply does not fit the request".to_owned()))
        }
    }
}
