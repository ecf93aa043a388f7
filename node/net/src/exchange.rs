//! The request protocol of block sync: one request, one answer, both canonical CBOR under a length cap.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tiltyard_proto::codec;
use tiltyard_proto::wire::{SyncRequest, SyncResponse};

/// Largest request, in bytes (256 transaction ids and their frame).
pub(crate) const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Largest answer, in bytes.
pub(crate) const RESPONSE_BYTES_MAX: usize = 6 << 20;

/// Reads and writes sync requests and answers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SyncCodec;

impl Codec for SyncCodec {
    type Protocol = StreamProtocol;
    type Request = SyncRequest;
    type Response = SyncResponse;

    async fn read_request<T>(&mut self, _protocol: &StreamProtocol, io: &mut T) -> io::Result<SyncRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        read("sync request", io, REQUEST_BYTES_MAX).await
    }

    async fn read_response<T>(&mut self, _protocol: &StreamProtocol, io: &mut T) -> io::Result<SyncResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        read("sync response", io, RESPONSE_BYTES_MAX).await
    }

    async fn write_request<T>(
        &mut self,
        _protocol: &StreamProtocol,
        io: &mut T,
        request: SyncRequest,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &request, REQUEST_BYTES_MAX).await
    }

    async fn write_response<T>(
        &mut self,
        _protocol: &StreamProtocol,
        io: &mut T,
        response: SyncResponse,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &response, RESPONSE_BYTES_MAX).await
    }
}

/// Reads to the end of the stream or one byte past `max`: memory grows with what was sent, not with what was claimed.
async fn read<T, M>(what: &'static str, io: &mut T, max: usize) -> io::Result<M>
where
    T: AsyncRead + Unpin + Send,
    M: Serialize + DeserializeOwned,
{
    let mut bytes = Vec::new();
    io.take((max as u64).saturating_add(1)).read_to_end(&mut bytes).await?;
    codec::decode(what, &bytes, max).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

async fn write<T, M>(io: &mut T, message: &M, max: usize) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
    M: Serialize,
{
    let bytes = codec::encode(message);
    if bytes.len() > max {
        return Err(io::Error::other(format!("a message of {} bytes, at most {max} are sent", bytes.len())));
    }
    io.write_all(&bytes).await?;
    io.close().await
}
