use libp2p::gossipsub::Message;
use proptest::prelude::*;
use serde_bytes::ByteBuf;
use tiltyard_proto::codec;
use tiltyard_proto::keys::GenesisHash;
use tiltyard_proto::wire::{Topic, TransactionFrame};

use super::decode::{FrameError, decode_frame, frame_bytes_max};
use super::settings::{Topics, config};

const BLOCK: usize = 1 << 20;

fn message(topics: &Topics, topic: Topic, data: &[u8]) -> Message {
    Message { source: None, data: data.to_vec(), sequence_number: None, topic: topics.ident(topic).hash() }
}

#[test]
fn ids_differ_by_network_topic_and_data() {
    let here = Topics::new(GenesisHash::from_bytes([1; 32]));
    let there = Topics::new(GenesisHash::from_bytes([2; 32]));
    let id = here.message_id(&message(&here, Topic::Tasks, b"a"));
    assert_eq!(id, here.message_id(&message(&here, Topic::Tasks, b"a")));
    assert_ne!(id, here.message_id(&message(&here, Topic::Tasks, b"b")));
    assert_ne!(id, here.message_id(&message(&here, Topic::Checkpoints, b"a")));
    assert_ne!(id, there.message_id(&message(&there, Topic::Tasks, b"a")));
    // A malformed block frame is named by its bytes: it takes no height's place.
    let (one, two) = (message(&here, Topic::Blocks, b"a"), message(&here, Topic::Blocks, b"b"));
    assert_ne!(here.message_id(&one), here.message_id(&two));
}

#[test]
fn topics_are_found_by_name_on_their_own_network_only() {
    let here = Topics::new(GenesisHash::from_bytes([1; 32]));
    let there = Topics::new(GenesisHash::from_bytes([2; 32]));
    for topic in Topic::ALL {
        assert_eq!(here.find(&here.ident(topic).hash()), Some(topic));
        assert_eq!(here.find(&there.ident(topic).hash()), None);
    }
}

#[test]
fn settings_are_accepted_for_the_smallest_and_the_largest_blocks() {
    let topics = Topics::new(GenesisHash::from_bytes([1; 32]));
    for block in [16 * 1024, BLOCK] {
        let settings = config(&topics, block).unwrap();
        let room = settings.max_transmit_size_for_topic(&topics.ident(Topic::Bodies).hash());
        assert!(room > frame_bytes_max(Topic::Bodies, block));
        assert!(settings.max_transmit_size() > room, "the largest message must fit the protocol's frame");
    }
}

#[test]
fn empty_and_oversize_frames_are_refused() {
    let empty = codec::encode(&TransactionFrame { transactions: Vec::new() });
    assert_eq!(decode_frame(Topic::Tasks, &empty, BLOCK), Err(FrameError::Empty));
    let junk = codec::encode(&TransactionFrame { transactions: vec![ByteBuf::from(vec![1, 2])] });
    assert!(matches!(decode_frame(Topic::Tasks, &junk, BLOCK), Err(FrameError::Codec(_))));
    for topic in Topic::ALL {
        let long = vec![0x80; frame_bytes_max(topic, BLOCK) + 1];
        assert!(matches!(
            decode_frame(topic, &long, BLOCK),
            Err(FrameError::Codec(codec::CodecError::TooLong { .. }))
        ));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_a_typed_result(bytes in prop::collection::vec(any::<u8>(), 0..2_000), topic in 0usize..6) {
        let _ = decode_frame(Topic::ALL[topic], &bytes, BLOCK);
    }
}
