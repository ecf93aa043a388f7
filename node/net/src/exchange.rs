//! The request protocol of block sync: one request, one answer, each a `u32` big-endian length and canonical CBOR.

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

/// A request that could not be decoded. The library tells nobody about a failed read, so garbage is a value here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Garbled(pub(crate) String);

/// What a peer asked.
pub(crate) type Question = Result<SyncRequest, Garbled>;

/// Reads and writes sync requests and answers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SyncCodec;

impl Codec for SyncCodec {
    type Protocol = StreamProtocol;
    type Request = Question;
    type Response = SyncResponse;

    async fn read_request<T>(&mut self, _protocol: &StreamProtocol, io: &mut T) -> io::Result<Question>
    where
        T: AsyncRead + Unpin + Send,
    {
        match read("sync request", io, REQUEST_BYTES_MAX).await {
            Ok(request) => Ok(Ok(request)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Err(Garbled(error.to_string()))),
            Err(error) => Err(error),
        }
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
        question: Question,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let request = question.map_err(|Garbled(fact)| io::Error::other(fact))?;
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

/// Reads a length and that many bytes: memory grows with what was sent, not with what was claimed. A stream that ends
/// early is an I/O error of kind `UnexpectedEof`, not garbage: its sender may have died.
async fn read<T, M>(what: &'static str, io: &mut T, max: usize) -> io::Result<M>
where
    T: AsyncRead + Unpin + Send,
    M: Serialize + DeserializeOwned,
{
    let mut head = [0u8; 4];
    io.read_exact(&mut head).await?;
    let length = u32::from_be_bytes(head) as usize;
    if length > max {
        let fact = format!("{what} of {length} bytes, at most {max} are read");
        return Err(io::Error::new(io::ErrorKind::InvalidData, fact));
    }
    let mut bytes = Vec::new();
    io.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
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
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    io.write_all(&length.to_be_bytes()).await?;
    io.write_all(&bytes).await?;
    io.close().await
}
