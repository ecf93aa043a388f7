//! Floods of gossipsub's own messages, written byte by byte: subscriptions, grafts, prunes, announcements, wishes.
//!
//! Each is one that once brought a node down (GHSA-gc42-3jg7-rxr2, GHSA-xqmp-fxgv-xvq5, GHSA-g3g5-x568-qvqx,
//! GHSA-vrx6-jcp8-vm7m), or asks for work or memory in proportion to what it claims.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use tiltyard_proto::wire::{GossipMessage, Topic};

use crate::frames::transfers;
use crate::harness::{Node, config, genesis};
use crate::raw::{OURS, Raw};

const MESHSUB: StreamProtocol = StreamProtocol::new("/meshsub/1.1.0");
/// Three of the node's heartbeats: an attack on its books shows at the next one.
const HEARTBEATS: Duration = Duration::from_millis(2_500);

/// Writes a protobuf field: its number and length, then its bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn number(number: u8, value: u64) -> Vec<u8> {
    let mut out = vec![number << 3];
    varint(value, &mut out);
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn control(number: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let inner: Vec<u8> = parts.iter().flat_map(|part| field(number, part)).collect();
    field(3, &inner)
}

fn subscribe(topic: &str) -> Vec<u8> {
    field(1, &[self::number(1, 1), field(2, topic.as_bytes())].concat())
}

fn graft(topic: &str) -> Vec<u8> {
    field(1, topic.as_bytes())
}

fn prune(topic: &str, backoff: u64) -> Vec<u8> {
    [field(1, topic.as_bytes()), number(3, backoff)].concat()
}

/// Ids that nobody has: a hash each, as the ids of messages are.
fn ids(field_number: u8, from: u32, count: u32) -> Vec<u8> {
    (from..from + count)
        .flat_map(|n| field(field_number, blake3::hash(&n.to_be_bytes()).as_bytes()))
        .collect()
}

/// Sends one message of the protocol; says whether the other side still takes bytes.
async fn send(stream: &mut Stream, message: &[u8]) -> bool {
    let mut frame = Vec::new();
    varint(message.len() as u64, &mut frame);
    frame.extend_from_slice(message);
    stream.write_all(&frame).await.is_ok() && stream.flush().await.is_ok()
}

/// Messages of one flood, each within the size that the protocol allows.
fn flood(kind: &str) -> Vec<Vec<u8>> {
    let ours: Vec<String> = Topic::ALL.iter().map(|topic| topic.full_name(&genesis())).collect();
    let foreign = |n: u32| format!("/tiltyard/ffffffffffffffff/nothing-{n}/1");
    match kind {
        "subscriptions to topics that nobody has" => {
            (0..40).map(|k| (0..400).flat_map(|n| subscribe(&foreign(k * 400 + n))).collect()).collect()
        }
        "grafts, to our topics and to others" => {
            let list = |k: u32| (0..400).map(|n| graft(&foreign(k * 400 + n))).collect::<Vec<_>>();
            let own: Vec<Vec<u8>> = ours.iter().map(|topic| graft(topic)).collect();
            let own = (0..200).map(|_| control(3, &own));
            (0..20).map(|k| control(3, &list(k))).chain(own).collect()
        }
        "prunes for all eternity" => {
            let prunes = |backoff: u64| -> Vec<Vec<u8>> {
                let foreign = (0..50).map(|n| prune(&foreign(n), backoff));
                ours.iter().map(|topic| prune(topic, backoff)).chain(foreign).collect()
            };
            [u64::MAX, u64::MAX - 1, i64::MAX as u64, u64::from(u32::MAX), 0]
                .iter()
                .map(|backoff| control(4, &prunes(*backoff)))
                .collect()
        }
        "announcements of messages that do not exist" => (0..60)
            .map(|k| {
                let topic = &ours[k as usize % ours.len()];
                control(1, &[[field(1, topic.as_bytes()), ids(2, k * 1_500, 1_500)].concat()])
            })
            .collect(),
        "wishes for messages that do not exist" => {
            (0..60).map(|k| control(2, &[ids(1, k * 1_500, 1_500)])).collect()
        }
        "refusals of messages that do not exist" => {
            (0..60).map(|k| control(5, &[ids(1, k * 1_500, 1_500)])).collect()
        }
        "bytes that are no message" => (0..40u8).map(|n| vec![0xff ^ n; 2_000]).collect(),
        other => panic!("{other} is no flood"),
    }
}

const KINDS: [&str; 7] = [
    "subscriptions to topics that nobody has",
    "grafts, to our topics and to others",
    "prunes for all eternity",
    "announcements of messages that do not exist",
    "wishes for messages that do not exist",
    "refusals of messages that do not exist",
    "bytes that are no message",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_every_control_message_do_not_stop_a_node() {
    let mut node = Node::start(config(1, &[])).await;
    let mut honest = Node::start(config(201, &[&node.address])).await;
    honest.subscribed(&node.peer, Topic::Transactions).await;
    for (seed, kind) in (100u8..).zip(KINDS) {
        let mut raw = Raw::new(seed, OURS);
        raw.dial(&node.address);
        raw.heard_on(Topic::Transactions).await;
        let to: PeerId = node.address.rsplit('/').next().unwrap().parse().unwrap();
        let mut streams = raw.swarm.behaviour().blobs.new_control();
        let attack = async {
            let mut stream = streams.open_stream(to, MESHSUB).await.expect("the node speaks gossipsub");
            for message in flood(kind) {
                if !send(&mut stream, &message).await {
                    // Closed on us: the node had enough.
                    return;
                }
            }
            // A message whose length is a lie, at the end.
            let _ = stream.write_all(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x0a]).await;
            let _ = stream.flush().await;
            let _ = stream.read(&mut [0; 1]).await;
        };
        let drive = async {
            loop {
                raw.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(HEARTBEATS, async {
            tokio::select! {
                () = drive => {}
                () = async { attack.await; futures::future::pending::<()>().await } => {}
            }
        })
        .await;
        // The node still hears what honest peers say, in the mesh that the flood was to break.
        let nonce = 1_000 + u64::from(seed);
        honest.handle.publish(Topic::Transactions, transfers(&[nonce])).unwrap();
        let (_, from, message) = node.message().await;
        assert_eq!(from, honest.peer, "{kind}");
        let GossipMessage::Transactions(_, signed) = message else { panic!("{kind}: not transactions") };
        assert_eq!(signed[0].transaction.nonce.get(), nonce, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_fill_every_inbound_place_do_not_keep_a_node_from_its_own_peers() {
    let mut settings = config(1, &[]);
    settings.limits.inbound_max = 4;
    let mut node = Node::start(settings).await;
    let mut crowd = Vec::new();
    for seed in 120..130u8 {
        let mut raw = Raw::new(seed, OURS);
        raw.dial(&node.address);
        crowd.push(tokio::spawn(async move {
            loop {
                raw.swarm.select_next_some().await;
            }
        }));
    }
    let full = async {
        while node.handle.peers().len() < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, full).await.expect("every inbound place is taken");
    // What the node dials itself has places of its own: bootstrap peers, and the validators that the ledger names.
    let honest = Node::start(config(202, &[])).await;
    node.handle.keep(vec![tiltyard_net::Target::parse(&honest.address).unwrap()]).unwrap();
    node.up(&honest.peer).await;
    crowd.into_iter().for_each(|task| task.abort());
}
