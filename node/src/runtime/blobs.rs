//! The blob store as the network sees it.

use std::fs::File;
use std::sync::Arc;

use tiltyard_net::{BlobAccess, PartialBlob};
use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::manifest::Manifest;
use tiltyard_proto::wire::Peer;
use tiltyard_store::blob::{BlobStore, Partial};

use super::Audiences;

/// Serves by audience, keeps what is fetched.
#[derive(Debug)]
pub(super) struct Access {
    store: BlobStore,
    audiences: Audiences,
}

impl Access {
    pub(super) fn new(store: BlobStore, audiences: Audiences) -> Self {
        Self { store, audiences }
    }
}

fn storage(root: &BlobRoot) -> impl FnOnce(tiltyard_store::blob::BlobError) -> tiltyard_net::BlobError {
    let root = *root;
    move |error| tiltyard_net::BlobError::Storage { root, fact: error.to_string() }
}

impl BlobAccess for Access {
    fn manifest(&self, root: &BlobRoot) -> Result<Option<Manifest>, tiltyard_net::BlobError> {
        self.store.manifest(root).map_err(storage(root))
    }

    fn open(&self, root: &BlobRoot, name: &str) -> Result<Option<File>, tiltyard_net::BlobError> {
        self.store.open_file(root, name).map_err(storage(root))
    }

    fn may_fetch(&self, root: &BlobRoot, peer: &Peer) -> bool {
        self.audiences.may_fetch(root, peer)
    }

    fn begin(&self, manifest: &Manifest) -> Result<Arc<dyn PartialBlob>, tiltyard_net::BlobError> {
        let root = manifest.root();
        let partial = self.store.begin(manifest).map_err(storage(&root))?;
        Ok(Arc::new(Download { root, partial }))
    }
}

#[derive(Debug)]
struct Download {
    root: BlobRoot,
    partial: Partial,
}

impl PartialBlob for Download {
    fn holds(&self, file: u32, piece: u32) -> bool {
        self.partial.holds(file, piece)
    }

    fn write(&self, file: u32, piece: u32, offset: u64, bytes: &[u8]) -> Result<(), tiltyard_net::BlobError> {
        self.partial.write(file, piece, offset, bytes).map_err(storage(&self.root))
    }

    fn finish(&self) -> Result<(), tiltyard_net::BlobError> {
        self.partial.finish().map_err(storage(&self.root))
    }
}
