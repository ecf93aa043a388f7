//! Messages of the blob protocol: `u32` big-endian length, then canonical CBOR; pieces follow their reply raw.

use std::io;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{Stream, StreamProtocol};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tiltyard_proto::codec;
use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::keys::GenesisHash;
use tiltyard_proto::limits::MANIFEST_BYTES_MAX;

/// Most pieces in one request.
pub(crate) const BATCH_PIECES_MAX: usize = 64;
/// Largest request, in bytes.
pub(crate) const REQUEST_BYTES_MAX: usize = 2 * 1024;
/// Largest reply without the pieces that follow it, in bytes.
pub(crate) const REPLY_BYTES_MAX: usize = MANIFEST_BYTES_MAX + 64;

/// One piece of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct PieceId {
    /// Place of the file in the manifest.
    pub(crate) file: u32,
    /// Number of the piece in the file.
    pub(crate) piece: u32,
}

/// What is asked on a blob stream; several requests may follow each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BlobRequest {
    /// Do you have it, and what is in it?
    Manifest {
        /// The blob.
        root: BlobRoot,
    },
    /// Send these pieces: together at most one piece's bytes.
    Pieces {
        /// The blob.
        root: BlobRoot,
        /// Which, in the order wanted.
        pieces: Vec<PieceId>,
    },
}

/// Answers a [`BlobRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BlobReply {
    /// The manifest's canonical bytes.
    Manifest(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The pieces follow, each with its proof, in the order asked.
    Pieces,
    /// Not here.
    Absent,
    /// Not for you, or not yet.
    Refused,
    /// Too much to do; ask again later.
    Busy,
}

/// Returns the protocol's name on the network of `genesis`.
pub(crate) fn protocol(genesis: &GenesisHash) -> String {
    crate::behaviour::protocol_name(genesis, "blob")
}

/// The name as libp2p wants it.
pub(crate) fn stream_protocol(genesis: &GenesisHash) -> StreamProtocol {
    StreamProtocol::try_from_owned(protocol(genesis)).expect("the name starts with a slash")
}

/// Writes one message.
pub(crate) async fn send<T: Serialize>(stream: &mut Stream, message: &T) -> io::Result<()> {
    let bytes = codec::encode(message);
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&bytes);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Reads one message of at most `max` bytes; `None` when the other side closed the stream between messages.
pub(crate) async fn receive<T: Serialize + DeserializeOwned>(
    stream: &mut Stream,
    what: &'static str,
    max: usize,
) -> io::Result<Option<T>> {
    let mut head = [0u8; 4];
    let first = stream.read(&mut head[..1]).await?;
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    let length = u32::from_be_bytes(head) as usize;
    if length > max {
        return Err(invalid(format!("{what} of {length} bytes, at most {max} are allowed")));
    }
    let mut bytes = vec![0u8; length];
    stream.read_exact(&mut bytes).await?;
    codec::decode(what, &bytes, max).map(Some).map_err(|error| invalid(error.to_string()))
}

pub(crate) fn invalid(fact: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fact)
}
