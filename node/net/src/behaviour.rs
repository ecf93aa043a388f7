//! The libp2p swarm: which protocols it speaks and within which limits.

use std::time::Duration;

use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{self, IdentityTransform, MessageAuthenticity, WhitelistSubscriptionFilter};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder, identify, memory_connection_limits, noise, ping, tcp, yamux,
};
use tiltyard_proto::keys::GenesisHash;

use crate::config::{Limits, NetConfig};
use crate::error::NetError;
use crate::exchange::SyncCodec;
use crate::gossip::score;
use crate::gossip::settings::{self, Topics};
use crate::peers::keypair;

const CONNECTIONS_PER_PEER_MAX: u32 = 2;
const PENDING_MAX: u32 = 32;
const STREAMS_PER_CONNECTION_MAX: usize = 128;
const REQUESTS_PER_CONNECTION_MAX: usize = 32;
const IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);

pub(crate) type Gossip = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// Everything the swarm speaks.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    // Gatekeepers first: they refuse a connection before the others hear of it.
    pub(crate) blocked: allow_block_list::Behaviour<BlockedPeers>,
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) memory: Toggle<memory_connection_limits::Behaviour>,
    pub(crate) gossip: Gossip,
    pub(crate) exchange: request_response::Behaviour<SyncCodec>,
    pub(crate) blobs: libp2p_stream::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
}

/// Returns `/tiltyard/<first 16 hex digits of the genesis hash>/<name>/1`.
pub(crate) fn protocol_name(genesis: &GenesisHash, name: &str) -> String {
    let prefix: String = genesis.to_string().chars().take(16).collect();
    format!("/tiltyard/{prefix}/{name}/1")
}

/// Returns what peers of this network say in their identify message.
pub(crate) fn identify_name(genesis: &GenesisHash) -> String {
    protocol_name(genesis, "node")
}

/// Builds the swarm; nothing listens or dials yet.
///
/// # Errors
/// [`NetError::Identity`] or [`NetError::Settings`].
pub(crate) fn swarm(config: &NetConfig, topics: &Topics) -> Result<Swarm<Behaviour>, NetError> {
    let key = keypair(&config.seed)?;
    let behaviour = behaviour(config, topics, &key)?;
    let yamux = || {
        let mut settings = yamux::Config::default();
        settings.set_max_num_streams(STREAMS_PER_CONNECTION_MAX);
        settings
    };
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux)
        .map_err(refused)?
        .with_behaviour(|_| behaviour)
        .map_err(refused)?
        .with_swarm_config(|settings| settings.with_idle_connection_timeout(IDLE_TIMEOUT))
        .build())
}

fn behaviour(config: &NetConfig, topics: &Topics, key: &Keypair) -> Result<Behaviour, NetError> {
    let mut gossip = Gossip::new_with_subscription_filter(
        MessageAuthenticity::Anonymous,
        settings::config(topics, config.block_bytes_max)?,
        topics.filter(),
    )
    .map_err(refused)?;
    gossip.with_peer_score(score::params(topics), score::thresholds()).map_err(refused)?;
    for topic in &config.topics {
        gossip.subscribe(&topics.ident(*topic)).map_err(refused)?;
    }
    let sync = StreamProtocol::try_from_owned(protocol_name(&config.genesis, "sync")).map_err(refused)?;
    let exchange = request_response::Behaviour::with_codec(
        SyncCodec,
        [(sync, ProtocolSupport::Full)],
        request_response::Config::default()
            .with_request_timeout(config.limits.request_timeout)
            .with_max_concurrent_streams(REQUESTS_PER_CONNECTION_MAX),
    );
    let agent = concat!("tiltyard/", env!("CARGO_PKG_VERSION")).to_owned();
    let identify =
        identify::Config::new(identify_name(&config.genesis), key.public()).with_agent_version(agent);
    Ok(Behaviour {
        blocked: allow_block_list::Behaviour::default(),
        limits: connection_limits::Behaviour::new(connection_limits(&config.limits)),
        memory: config
            .limits
            .memory_bytes_max
            .map(memory_connection_limits::Behaviour::with_max_bytes)
            .into(),
        gossip,
        exchange,
        blobs: libp2p_stream::Behaviour::new(),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
    })
}

fn connection_limits(limits: &Limits) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX))
        .with_max_established_incoming(Some(limits.inbound_max))
        .with_max_established_outgoing(Some(limits.outbound_max))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
}

fn refused(error: impl ToString) -> NetError {
    NetError::Settings { fact: error.to_string() }
}
