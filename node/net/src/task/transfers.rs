//! The tasks that move blobs: one that serves, one for each fetch.

use std::collections::HashMap;
use std::sync::Arc;

use libp2p::{PeerId, Swarm};
use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::manifest::{BlobRef, Manifest};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Local;
use crate::behaviour::Behaviour;
use crate::blob::access::BlobAccess;
use crate::blob::fetch::{Fetch, Fetcher};
use crate::blob::lane::Floor;
use crate::blob::serve::Server;
use crate::blob::wire::stream_protocol;
use crate::config::NetConfig;
use crate::error::NetError;

const FETCHES_MAX: usize = 256;
/// Batches in flight over all fetches; each holds at most about twice a piece in memory.
const TRANSFERS_MAX: usize = 8;

/// How a fetch ended.
pub(super) enum Ended {
    /// Complete.
    Done(BlobRoot),
    /// Never to be complete.
    Failed(BlobRoot, String),
    /// Cancelled, or the task of a blob stream stopped.
    Quiet,
}

/// Everything that moves blobs.
pub(super) struct Transfers {
    fetcher: Fetcher,
    connected: watch::Sender<Arc<Vec<PeerId>>>,
    active: HashMap<BlobRoot, CancellationToken>,
    tasks: JoinSet<Ended>,
    server: JoinSet<()>,
    stop: CancellationToken,
}

impl Transfers {
    pub(super) fn start(
        config: &NetConfig,
        swarm: &mut Swarm<Behaviour>,
        access: Arc<dyn BlobAccess>,
        local: mpsc::Sender<Local>,
        stop: &CancellationToken,
    ) -> Result<Self, NetError> {
        let protocol = stream_protocol(&config.genesis);
        let mut control = swarm.behaviour().blobs.new_control();
        let incoming = control
            .accept(protocol.clone())
            .map_err(|error| NetError::Settings { fact: error.to_string() })?;
        let floor = Floor { window: config.limits.stall_window, bytes_min: config.limits.stall_bytes_min };
        let mut server = JoinSet::new();
        server.spawn(Server::new(Arc::clone(&access), floor, local.clone()).run(incoming, stop.clone()));
        let (connected, connected_receiver) = watch::channel(Arc::new(Vec::new()));
        let fetcher = Fetcher {
            access,
            control,
            protocol,
            connected: connected_receiver,
            local,
            transfers: Arc::new(Semaphore::new(TRANSFERS_MAX)),
            floor,
            retry_max: config.limits.blob_retry_max,
            bytes_max: config.limits.blob_bytes_max,
        };
        Ok(Self {
            fetcher,
            connected,
            active: HashMap::new(),
            tasks: JoinSet::new(),
            server,
            stop: stop.clone(),
        })
    }

    /// Tells the fetches who is connected.
    pub(super) fn set_connected(&self, peers: Vec<PeerId>) {
        self.connected.send_replace(Arc::new(peers));
    }

    /// Starts a fetch; false when there are too many. A blob that is being fetched stays one fetch.
    pub(super) fn fetch(&mut self, blob: BlobRef, manifest: Option<Manifest>) -> bool {
        if self.active.contains_key(&blob.root) {
            return true;
        }
        if self.active.len() >= FETCHES_MAX {
            return false;
        }
        let cancel = self.stop.child_token();
        self.active.insert(blob.root, cancel.clone());
        let fetch = Fetch::new(self.fetcher.clone(), blob);
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Ended::Quiet,
                result = fetch.run(manifest) => match result {
                    Ok(()) => Ended::Done(blob.root),
                    Err(error) => Ended::Failed(blob.root, error.to_string()),
                }
            }
        });
        true
    }

    /// Ends a fetch.
    pub(super) fn cancel(&mut self, root: &BlobRoot) {
        if let Some(cancel) = self.active.remove(root) {
            cancel.cancel();
        }
    }

    /// Waits for the next fetch to end; `None` while there is none.
    pub(super) async fn ended(&mut self) -> Option<Ended> {
        match self.tasks.join_next().await? {
            Ok(ended) => Some(ended),
            Err(error) => {
                tracing::error!(%error, "a blob fetch ended abnormally");
                Some(Ended::Quiet)
            }
        }
    }

    /// Forgets a fetch that ended by itself; false when it was cancelled meanwhile.
    pub(super) fn forget(&mut self, root: &BlobRoot) -> bool {
        self.active.remove(root).is_some()
    }

    /// Ends everything and waits for it.
    pub(super) async fn finish(&mut self) {
        self.tasks.shutdown().await;
        self.server.shutdown().await;
    }
}
