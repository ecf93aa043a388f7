//! Strict decoding of gossip frames: what does not pass here is provably bad and never leaves this crate.

use tiltyard_proto::codec::{self, CodecError};
use tiltyard_proto::limits::{
    BLOCK_BYTES_HARD_MAX, BODY_FRAME_EXTRA_BYTES, CERTIFICATE_BYTES_MAX, FRAME_BYTES_MAX, HEADER_BYTES_MAX,
};
use tiltyard_proto::transaction::SignedTransaction;
use tiltyard_proto::wire::{BlockFrame, BodyFrame, ConsensusFrame, GossipMessage, Topic, TransactionFrame};

/// Says why a frame is provably bad.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not the canonical bytes of the topic's frame.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A transaction frame without transactions.
    #[error("the frame carries no transaction; the sender must not send empty frames")]
    Empty,
    /// A transaction on a topic that is not its own.
    #[error("a transaction of topic {own:?} came on {given:?}; the sender must publish it on its own topic")]
    WrongTopic {
        /// Where it belongs.
        own: Topic,
        /// Where it came.
        given: Topic,
    },
}

/// Returns the largest frame of a topic, in bytes.
pub(crate) fn frame_bytes_max(topic: Topic, block_bytes_max: usize) -> usize {
    match topic {
        Topic::Tasks | Topic::Checkpoints | Topic::Transactions | Topic::Consensus => FRAME_BYTES_MAX,
        Topic::Bodies => block_bytes_max.min(BLOCK_BYTES_HARD_MAX).saturating_add(BODY_FRAME_EXTRA_BYTES),
        Topic::Blocks => HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + 64,
    }
}

/// Decodes a frame of `topic`.
///
/// # Errors
/// [`FrameError`] when the frame is provably bad whatever the state of the chain.
pub fn decode_frame(topic: Topic, bytes: &[u8], block_bytes_max: usize) -> Result<GossipMessage, FrameError> {
    let max = frame_bytes_max(topic, block_bytes_max);
    match topic {
        Topic::Tasks | Topic::Checkpoints | Topic::Transactions => {
            transactions(topic, codec::decode("transaction frame", bytes, max)?)
        }
        Topic::Consensus => {
            let frame: ConsensusFrame = codec::decode("consensus frame", bytes, max)?;
            Ok(GossipMessage::Consensus(frame))
        }
        Topic::Bodies => {
            let frame: BodyFrame = codec::decode("body frame", bytes, max)?;
            Ok(GossipMessage::Body(frame))
        }
        Topic::Blocks => block(bytes).map(|frame| GossipMessage::Block(Box::new(frame))),
    }
}

/// Decodes a frame of the blocks topic.
pub(crate) fn block(bytes: &[u8]) -> Result<BlockFrame, FrameError> {
    Ok(codec::decode("block frame", bytes, frame_bytes_max(Topic::Blocks, 0))?)
}

fn transactions(given: Topic, frame: TransactionFrame) -> Result<GossipMessage, FrameError> {
    if frame.transactions.is_empty() {
        return Err(FrameError::Empty);
    }
    let mut decoded = Vec::with_capacity(frame.transactions.len());
    for bytes in &frame.transactions {
        let signed = SignedTransaction::decode(bytes)?;
        let own = signed.transaction.action.topic();
        if own != given {
            return Err(FrameError::WrongTopic { own, given });
        }
        decoded.push(signed);
    }
    Ok(GossipMessage::Transactions(given, decoded))
}
