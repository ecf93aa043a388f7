//! Nodes under test and how to wait for what they say.

use std::sync::Arc;
use std::time::Duration;

use tiltyard_net::{BlobAccess, Net, NetConfig, NetEvent, NetHandle, NoBlobs, Target};
use tiltyard_proto::keys::GenesisHash;
use tiltyard_proto::wire::{GossipMessage, Peer, Topic};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Generous: only a hang runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const BLOCK_BYTES_MAX: usize = 64 * 1024;

pub(crate) fn genesis() -> GenesisHash {
    GenesisHash::from_bytes([0xa7; 32])
}

pub(crate) fn config(seed: u8, bootstrap: &[&str]) -> NetConfig {
    let mut config = NetConfig {
        seed: [seed; 32],
        genesis: genesis(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        bootstrap: bootstrap.iter().map(|text| Target::parse(text).unwrap()).collect(),
        topics: Topic::ALL.to_vec(),
        block_bytes_max: BLOCK_BYTES_MAX,
        limits: tiltyard_net::Limits::default(),
    };
    config.limits.redial_min = Duration::from_millis(50);
    config.limits.redial_max = Duration::from_millis(500);
    config
}

pub(crate) struct Node {
    pub(crate) handle: NetHandle,
    pub(crate) events: mpsc::Receiver<NetEvent>,
    pub(crate) address: String,
    pub(crate) peer: Peer,
}

impl Node {
    pub(crate) async fn start(config: NetConfig) -> Self {
        Self::with_blobs(config, Arc::new(NoBlobs)).await
    }

    pub(crate) async fn with_blobs(config: NetConfig, blobs: Arc<dyn BlobAccess>) -> Self {
        let (handle, events) = Net::spawn(config, blobs).unwrap();
        let peer = handle.local_peer().clone();
        let mut node = Self { handle, events, address: String::new(), peer };
        node.address = node
            .wait("an address to listen on", |event| match event {
                NetEvent::Listening(address) => Some(address.clone()),
                _ => None,
            })
            .await;
        node
    }

    /// Waits for the first event that `pick` wants; the others are dropped.
    pub(crate) async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&NetEvent) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let found = timeout(PATIENCE, async {
            loop {
                let event =
                    self.events.recv().await.unwrap_or_else(|| panic!("the network ended before {what}"));
                if let Some(found) = pick(&event) {
                    return found;
                }
                seen.push(format!("{event:?}"));
            }
        });
        found.await.unwrap_or_else(|_| panic!("waited in vain for {what}; saw {seen:#?}"))
    }

    pub(crate) async fn up(&mut self, peer: &Peer) {
        self.wait("a peer to be up", |event| {
            matches!(event, NetEvent::PeerUp(up) if up == peer).then_some(())
        })
        .await;
    }

    pub(crate) async fn down(&mut self, peer: &Peer) {
        self.wait("a peer to be down", |event| {
            matches!(event, NetEvent::PeerDown(down) if down == peer).then_some(())
        })
        .await;
    }

    pub(crate) async fn subscribed(&mut self, peer: &Peer, topic: Topic) {
        self.wait("a subscription", |event| {
            matches!(event, NetEvent::Subscribed(who, what) if who == peer && *what == topic).then_some(())
        })
        .await;
    }

    pub(crate) async fn message(&mut self) -> (u64, Peer, GossipMessage) {
        self.wait("a gossip message", |event| match event {
            NetEvent::Message { token, from, message } => {
                Some((*token, from.clone(), message.as_ref().clone()))
            }
            _ => None,
        })
        .await
    }

    /// Ends the node and waits until nothing of it is left.
    pub(crate) async fn stop(mut self) {
        self.handle.shutdown();
        timeout(PATIENCE, async { while self.events.recv().await.is_some() {} })
            .await
            .expect("the network must end when told");
    }
}
