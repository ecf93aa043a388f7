//! A peer that speaks the protocols by hand, so that it can break them.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Stream, StreamProtocol, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use serde::{Deserialize, Serialize};
use tiltyard_proto::codec;
use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::wire::Topic;
use tokio::time::timeout;

use crate::harness::{PATIENCE, genesis};

pub(crate) const OURS: &str = "/tiltyard/a7a7a7a7a7a7a7a7/node/1";
pub(crate) const FOREIGN: &str = "/tiltyard/0000000000000000/node/1";
pub(crate) const BLOBS: StreamProtocol = StreamProtocol::new("/tiltyard/a7a7a7a7a7a7a7a7/blob/1");

#[derive(Clone, Default)]
pub(crate) struct RawCodec;

impl request_response::Codec for RawCodec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_response<T>(&mut self, protocol: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read_request(protocol, io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await?;
        io.close().await
    }

    async fn write_response<T>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write_request(protocol, io, bytes).await
    }
}

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) exchange: request_response::Behaviour<RawCodec>,
    pub(crate) blobs: libp2p_stream::Behaviour,
}

pub(crate) struct Raw {
    pub(crate) swarm: Swarm<Behaviour>,
}

impl Raw {
    pub(crate) fn new(seed: u8, says: &str) -> Self {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let settings = gossipsub::ConfigBuilder::default()
            .validation_mode(ValidationMode::Anonymous)
            .max_transmit_size(4 << 20)
            .message_id_fn(|message| gossipsub::MessageId::new(blake3::hash(&message.data).as_bytes()))
            .build()
            .unwrap();
        let sync = StreamProtocol::new("/tiltyard/a7a7a7a7a7a7a7a7/sync/1");
        let behaviour = Behaviour {
            gossip: gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, settings).unwrap(),
            identify: identify::Behaviour::new(identify::Config::new(says.to_owned(), key.public())),
            exchange: request_response::Behaviour::with_codec(
                RawCodec,
                [(sync, ProtocolSupport::Full)],
                request_response::Config::default(),
            ),
            blobs: libp2p_stream::Behaviour::new(),
        };
        let swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .with_swarm_config(|settings| settings.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        Self { swarm }
    }

    pub(crate) fn dial(&mut self, address: &str) {
        self.swarm.dial(address.parse::<Multiaddr>().unwrap()).unwrap();
    }

    /// Drives the swarm until `pick` wants an event.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&SwarmEvent<BehaviourEvent>) -> Option<T>,
    ) -> T {
        let mut seen = Vec::new();
        let found = timeout(PATIENCE, async {
            loop {
                let event = self.swarm.select_next_some().await;
                if let Some(found) = pick(&event) {
                    return found;
                }
                seen.push(format!("{event:?}"));
            }
        });
        found.await.unwrap_or_else(|_| panic!("waited in vain for {what}; saw {seen:#?}"))
    }

    pub(crate) async fn connected(&mut self) {
        self.until("a connection", |event| {
            matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(())
        })
        .await;
    }

    pub(crate) async fn closed(&mut self) {
        self.until("the end of the connection", |event| {
            matches!(event, SwarmEvent::ConnectionClosed { num_established: 0, .. }).then_some(())
        })
        .await;
    }

    /// Waits until the other side listens to a topic, then publishes on it.
    pub(crate) async fn heard_on(&mut self, topic: Topic) {
        let name = IdentTopic::new(topic.full_name(&genesis())).hash();
        self.until("a subscription", |event| {
            let SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Subscribed { topic, .. })) =
                event
            else {
                return None;
            };
            (*topic == name).then_some(())
        })
        .await;
    }

    pub(crate) fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        let name = IdentTopic::new(topic.full_name(&genesis()));
        // After a ban nobody listens any more; that is what the tests wait for.
        let _ = self.swarm.behaviour_mut().gossip.publish(name, bytes);
    }
}

/// The blob protocol's messages, written down a second time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PieceId {
    pub(crate) file: u32,
    pub(crate) piece: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum BlobRequest {
    Manifest { root: BlobRoot },
    Pieces { root: BlobRoot, pieces: Vec<PieceId> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum BlobReply {
    Manifest(#[serde(with = "serde_bytes")] Vec<u8>),
    Pieces,
    Absent,
    Refused,
    Busy,
}

pub(crate) async fn write_frame<T: Serialize>(stream: &mut Stream, message: &T) -> io::Result<()> {
    let bytes = codec::encode(message);
    stream.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

pub(crate) async fn read_frame<T: Serialize + serde::de::DeserializeOwned>(
    stream: &mut Stream,
) -> io::Result<T> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut bytes = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut bytes).await?;
    codec::decode("frame", &bytes, 1 << 20).map_err(io::Error::other)
}
