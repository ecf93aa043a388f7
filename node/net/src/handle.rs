//! How the node talks to the network task.

use std::sync::Arc;

use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::manifest::{BlobRef, Manifest};
use tiltyard_proto::wire::{Acceptance, Peer, SyncRequest, SyncResponse, Topic};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Target;
use crate::error::CommandError;
use crate::event::PeerInfo;

#[derive(Debug)]
pub(crate) enum Command {
    Publish { topic: Topic, bytes: Vec<u8> },
    Report { token: u64, acceptance: Acceptance },
    Ask { token: u64, to: Peer, request: SyncRequest },
    Respond { token: u64, response: Box<SyncResponse> },
    Penalize { peer: Peer, fact: String },
    Fetch { blob: BlobRef, manifest: Option<Box<Manifest>> },
    Cancel { root: BlobRoot },
    Dial { target: Target },
    Keep { targets: Vec<Target> },
}

/// Commands to the network task. Cheap to clone; every method returns at once and works on any thread.
#[derive(Debug, Clone)]
pub struct NetHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) peers: watch::Receiver<Arc<Vec<PeerInfo>>>,
    pub(crate) stop: CancellationToken,
    pub(crate) local: Peer,
}

impl NetHandle {
    /// Publishes a frame's canonical bytes. A frame that no peer listens for is lost: senders send again.
    ///
    /// # Errors
    /// [`CommandError`] when the command was not queued.
    pub fn publish(&self, topic: Topic, bytes: Vec<u8>) -> Result<(), CommandError> {
        self.send(Command::Publish { topic, bytes })
    }

    /// Judges a gossip message; `from` is known from the token and given for symmetry with the event.
    ///
    /// # Errors
    /// [`CommandError`] when the command was not queued; the message is then never forwarded.
    pub fn report(&self, token: u64, from: &Peer, acceptance: Acceptance) -> Result<(), CommandError> {
        let _ = from;
        self.send(Command::Report { token, acceptance })
    }

    /// Asks a peer; answered by one [`NetEvent::Response`](crate::NetEvent::Response) with the same token.
    ///
    /// # Errors
    /// [`CommandError`] when the command was not queued; no event follows then.
    pub fn ask(&self, token: u64, to: Peer, request: SyncRequest) -> Result<(), CommandError> {
        self.send(Command::Ask { token, to, request })
    }

    /// Answers a request. A request that is answered too late is forgotten.
    ///
    /// # Errors
    /// [`CommandError`] when the command was not queued; the asker then runs into its timeout.
    pub fn respond(&self, token: u64, response: SyncResponse) -> Result<(), CommandError> {
        self.send(Command::Respond { token, response: Box::new(response) })
    }

    /// Gives a peer four strikes for what it should not have sent.
    ///
    /// # Errors
    /// [`CommandError`] when the command was not queued.
    pub fn penalize(&self, peer: Peer, fact: impl Into<String>) -> Result<(), CommandError> {
        self.send(Command::Penalize { peer, fact: fact.into() })
    }

    /// Fetches a blob from whoever has it, until done, failed or cancelled. Fetching a blob twice is one fetch.
    ///
    /// # Errors
    /// [`CommandError`] when the command was not queued.
    pub fn fetch(&self, blob: BlobRef, manifest: Option<Manifest>) -> Result<(), CommandError> {
        self.send(Command::Fetch { blob, manifest: manifest.map(Box::new) })
    }

    /// Ends a fetch; pieces that are kept stay kept. No event follows.
    ///
    /// # Errors
    /// [`CommandError`] when the command was not queued.
    pub fn cancel(&self, root: BlobRoot) -> Result<(), CommandError> {
        self.send(Command::Cancel { root })
    }

    /// Dials an address once.
    ///
    /// # Errors
    /// [`CommandError`] when the command was not queued.
    pub fn dial(&self, target: Target) -> Result<(), CommandError> {
        self.send(Command::Dial { target })
    }

    /// Replaces the peers to stay connected to besides the bootstrap peers; at most 64 are kept.
    ///
    /// # Errors
    /// [`CommandError`] when the command was not queued.
    pub fn keep(&self, targets: Vec<Target>) -> Result<(), CommandError> {
        self.send(Command::Keep { targets })
    }

    /// Returns the peers that are up, as of at most a second ago.
    #[must_use]
    pub fn peers(&self) -> Arc<Vec<PeerInfo>> {
        self.peers.borrow().clone()
    }

    /// Returns this node's own name.
    #[must_use]
    pub fn local_peer(&self) -> &Peer {
        &self.local
    }

    /// Ends the network task; the event channel closes when everything has stopped.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    fn send(&self, command: Command) -> Result<(), CommandError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CommandError::Busy,
            mpsc::error::TrySendError::Closed(_) => CommandError::Stopped,
        })
    }
}
