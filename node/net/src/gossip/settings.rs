//! Settings of gossipsub: anonymous content-addressed messages, validated before they are forwarded.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::gossipsub::{
    Config, ConfigBuilder, IdentTopic, Message, MessageId, TopicHash, ValidationMode,
    WhitelistSubscriptionFilter,
};
use tiltyard_proto::hash::{context, derive};
use tiltyard_proto::keys::GenesisHash;
use tiltyard_proto::wire::Topic;

use super::decode::{block, frame_bytes_max};
use crate::error::NetError;

/// What the envelope of a message adds to its data at most, in bytes.
const ENVELOPE_BYTES: usize = 256;
/// What a message frame of the protocol may hold beyond the largest message, in bytes.
const RPC_EXTRA_BYTES: usize = 64 * 1024;
const MESH_N: usize = 4;

/// The topics of one network, both ways.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    genesis: GenesisHash,
    by_hash: BTreeMap<TopicHash, Topic>,
}

impl Topics {
    pub(crate) fn new(genesis: GenesisHash) -> Self {
        let by_hash = Topic::ALL.into_iter().map(|topic| (ident(topic, &genesis).hash(), topic)).collect();
        Self { genesis, by_hash }
    }

    /// Returns the topic as gossipsub names it.
    pub(crate) fn ident(&self, topic: Topic) -> IdentTopic {
        ident(topic, &self.genesis)
    }

    /// Returns which of our topics a name is.
    pub(crate) fn find(&self, hash: &TopicHash) -> Option<Topic> {
        self.by_hash.get(hash).copied()
    }

    /// Lets peers subscribe to our topics only.
    pub(crate) fn filter(&self) -> WhitelistSubscriptionFilter {
        WhitelistSubscriptionFilter(self.by_hash.keys().cloned().collect())
    }

    /// Names a message: network, topic and data; on `blocks` network, topic and height, so that the many valid
    /// certificates of one block are one message.
    pub(crate) fn message_id(&self, message: &Message) -> MessageId {
        let name = message.topic.as_str().as_bytes();
        let height = match self.find(&message.topic) {
            Some(Topic::Blocks) => {
                block(&message.data).ok().map(|frame| frame.header.height.get().to_be_bytes())
            }
            Some(
                Topic::Tasks | Topic::Checkpoints | Topic::Transactions | Topic::Consensus | Topic::Bodies,
            )
            | None => None,
        };
        let last = height.as_ref().map_or(message.data.as_slice(), |height| height.as_slice());
        MessageId::new(&derive(context::GOSSIP, &[self.genesis.as_bytes(), name, last]))
    }
}

/// Returns gossipsub's settings.
///
/// # Errors
/// [`NetError::Settings`] when gossipsub refuses them.
pub(crate) fn config(topics: &Topics, block_bytes_max: usize) -> Result<Config, NetError> {
    let ids = topics.clone();
    let largest = frame_bytes_max(Topic::Bodies, block_bytes_max);
    let mut builder = ConfigBuilder::default();
    builder
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(move |message| ids.message_id(message))
        .max_transmit_size(largest.saturating_add(RPC_EXTRA_BYTES))
        .flood_publish(false)
        .idontwant_on_publish(true)
        .mesh_n(MESH_N)
        .mesh_n_low(3)
        .mesh_n_high(8)
        .mesh_outbound_min(2)
        .gossip_lazy(4)
        .heartbeat_interval(Duration::from_millis(700))
        .history_length(12)
        .history_gossip(4)
        .duplicate_cache_time(Duration::from_secs(90))
        .max_publish_messages(64)
        .max_control_messages_sent(512)
        .connection_handler_queue_len(512)
        .publish_queue_duration(Duration::from_secs(5))
        .forward_queue_duration(Duration::from_secs(2));
    for topic in Topic::ALL {
        let bytes = frame_bytes_max(topic, block_bytes_max).saturating_add(ENVELOPE_BYTES);
        builder.max_transmit_size_for_topic(bytes, topics.ident(topic).hash());
    }
    builder.build().map_err(|error| NetError::Settings { fact: error.to_string() })
}

fn ident(topic: Topic, genesis: &GenesisHash) -> IdentTopic {
    IdentTopic::new(topic.full_name(genesis))
}
