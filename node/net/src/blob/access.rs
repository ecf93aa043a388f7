//! The door to wherever blobs are kept. Every call may block and is made on a blocking thread.

use std::fs::File;
use std::sync::Arc;

use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::manifest::Manifest;
use tiltyard_proto::wire::Peer;

use crate::error::BlobError;

/// What the network needs of a blob store.
pub trait BlobAccess: Send + Sync + 'static {
    /// Returns the manifest of a blob that is complete here.
    ///
    /// # Errors
    /// [`BlobError`] when storage fails.
    fn manifest(&self, root: &BlobRoot) -> Result<Option<Manifest>, BlobError>;

    /// Opens a file of a complete blob for reading.
    ///
    /// # Errors
    /// [`BlobError`] when storage fails.
    fn open(&self, root: &BlobRoot, name: &str) -> Result<Option<File>, BlobError>;

    /// Says whether `peer` may fetch the blob from here now. Asked before every piece.
    fn may_fetch(&self, root: &BlobRoot, peer: &Peer) -> bool;

    /// Begins a download or continues one that was interrupted.
    ///
    /// # Errors
    /// [`BlobError`] when storage fails or refuses (too large, disk full).
    fn begin(&self, manifest: &Manifest) -> Result<Arc<dyn PartialBlob>, BlobError>;
}

/// A download in progress. Files are named by their place in the manifest, pieces by number;
/// a piece is [`PIECE_BYTES`](crate::PIECE_BYTES) long but for the last of a file.
pub trait PartialBlob: Send + Sync + 'static {
    /// Says whether a piece is already kept.
    fn holds(&self, file: u32, piece: u32) -> bool;

    /// Keeps a verified piece: bytes durable first, then journaled. `offset` is in bytes from the file's start.
    ///
    /// # Errors
    /// [`BlobError`] when storage fails.
    fn write(&self, file: u32, piece: u32, offset: u64, bytes: &[u8]) -> Result<(), BlobError>;

    /// Completes the blob after its last piece: verifies every file again and makes it available.
    ///
    /// # Errors
    /// [`BlobError`] when storage fails or a file does not match; kept pieces may then be dropped.
    fn finish(&self) -> Result<(), BlobError>;
}

/// Access for a node without blobs: serves nothing and refuses to fetch.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBlobs;

impl BlobAccess for NoBlobs {
    fn manifest(&self, _root: &BlobRoot) -> Result<Option<Manifest>, BlobError> {
        Ok(None)
    }

    fn open(&self, _root: &BlobRoot, _name: &str) -> Result<Option<File>, BlobError> {
        Ok(None)
    }

    fn may_fetch(&self, _root: &BlobRoot, _peer: &Peer) -> bool {
        false
    }

    fn begin(&self, manifest: &Manifest) -> Result<Arc<dyn PartialBlob>, BlobError> {
        Err(BlobError::Storage {
            root: manifest.root(),
            fact: "this node keeps no blobs; give it a blob store".to_owned(),
        })
    }
}
