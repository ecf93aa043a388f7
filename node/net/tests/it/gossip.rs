//! Gossip: validated before it is forwarded, malformed frames never leave the network crate.

use tiltyard_net::NetEvent;
use tiltyard_proto::wire::{Acceptance, GossipMessage, SyncRequest, Topic};

use crate::frames::{block, body, transfers};
use crate::harness::{BLOCK_BYTES_MAX, Node, config};

fn nonces(message: &GossipMessage) -> Vec<u64> {
    match message {
        GossipMessage::Transactions(Topic::Transactions, signed) => {
            signed.iter().map(|signed| signed.transaction.nonce.get()).collect()
        }
        other => panic!("not a frame of transactions: {other:?}"),
    }
}

/// first — middle — last: what `last` hears came through `middle`.
async fn line(topic: Topic) -> (Node, Node, Node) {
    let mut middle = Node::start(config(2, &[])).await;
    let mut first = Node::start(config(1, &[&middle.address])).await;
    first.subscribed(&middle.peer, topic).await;
    let last = Node::start(config(3, &[&middle.address])).await;
    middle.subscribed(&last.peer, topic).await;
    (first, middle, last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_messages_are_forwarded_and_rejected_or_ignored_ones_are_not() {
    let (first, mut middle, mut last) = line(Topic::Transactions).await;
    let verdicts = [Acceptance::Reject, Acceptance::Ignore, Acceptance::Accept];
    for (nonce, verdict) in (0u64..).zip(verdicts) {
        first.handle.publish(Topic::Transactions, transfers(&[nonce])).unwrap();
        let (token, from, message) = middle.message().await;
        assert_eq!(from, first.peer);
        assert_eq!(nonces(&message), [nonce]);
        middle.handle.report(token, &from, verdict).unwrap();
    }
    let (_, from, message) = last.message().await;
    assert_eq!(from, middle.peer, "first and last are not connected");
    assert_eq!(nonces(&message), [2], "only the accepted message may arrive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_in_a_ring_all_hear_every_message_once() {
    let mut nodes = vec![Node::start(config(1, &[])).await];
    for seed in 2..=4u8 {
        let before = nodes.last().unwrap().address.clone();
        let mut node = Node::start(config(seed, &[&before])).await;
        let peer = nodes.last().unwrap().peer.clone();
        node.subscribed(&peer, Topic::Bodies).await;
        nodes.push(node);
    }
    let (first, last) = (nodes[0].peer.clone(), nodes[3].address.clone());
    nodes[0].handle.keep(vec![tiltyard_net::Target::parse(&last).unwrap()]).unwrap();
    nodes[3].subscribed(&first, Topic::Bodies).await;
    for counter in 0..5u64 {
        nodes[0].handle.publish(Topic::Bodies, body(counter, BLOCK_BYTES_MAX)).unwrap();
    }
    for node in &mut nodes[1..] {
        let mut heard = Vec::new();
        while heard.len() < 5 {
            let (token, from, message) = node.message().await;
            let GossipMessage::Body(frame) = message else { panic!("not a body") };
            assert_eq!(frame.block.len(), BLOCK_BYTES_MAX, "the largest block must pass");
            assert!(!heard.contains(&frame.counter), "a message came twice");
            heard.push(frame.counter);
            node.handle.report(token, &from, Acceptance::Accept).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_one_height_are_one_message() {
    let (first, mut middle, mut last) = line(Topic::Blocks).await;
    first.handle.publish(Topic::Blocks, block(7, 1)).unwrap();
    let (token, from, _) = middle.message().await;
    middle.handle.report(token, &from, Acceptance::Accept).unwrap();
    last.message().await;
    // The second certificate of height 7 is swallowed where it is published; height 8 passes.
    first.handle.publish(Topic::Blocks, block(7, 2)).unwrap();
    last.handle.publish(Topic::Blocks, block(7, 3)).unwrap();
    first.handle.publish(Topic::Blocks, block(8, 1)).unwrap();
    let (_, _, message) = middle.message().await;
    let GossipMessage::Block(frame) = message else { panic!("not a block") };
    assert_eq!(frame.header.height.get(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_too_large_for_its_topic_is_not_published() {
    let (first, mut middle, _last) = line(Topic::Bodies).await;
    first.handle.publish(Topic::Bodies, body(0, BLOCK_BYTES_MAX + 8 * 1024)).unwrap();
    first.handle.publish(Topic::Bodies, body(1, 10)).unwrap();
    let (_, _, message) = middle.message().await;
    let GossipMessage::Body(frame) = message else { panic!("not a body") };
    assert_eq!(frame.counter, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_nobody_reads_stop_the_reading_not_the_node() {
    let mut reader = Node::start(config(1, &[])).await;
    let writer = Node::start(config(2, &[&reader.address])).await;
    reader.subscribed(&writer.peer, Topic::Transactions).await;
    // The writer's queue is bounded too: a full one says so and nothing is lost silently.
    for nonce in 0..3_000u64 {
        while writer.handle.publish(Topic::Transactions, transfers(&[nonce])).is_err() {
            tokio::task::yield_now().await;
        }
    }
    // Commands still work while events pile up, and their answers come through.
    let stranger = tiltyard_net::peer_of_seed(&[200; 32]).unwrap();
    reader.handle.ask(77, stranger, SyncRequest::Status).unwrap();
    let mut messages = 0u32;
    reader
        .wait("the answer to a request", |event| match event {
            NetEvent::Message { .. } => {
                messages += 1;
                None
            }
            NetEvent::Response { token: 77, response: None, .. } => Some(()),
            _ => None,
        })
        .await;
    assert!(messages > 0, "what was read before the answer is still delivered, in order");
}
