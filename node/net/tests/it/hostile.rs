//! Peers that break the rules: the node stays alive, they do not stay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::request_response::{Event as Exchange, Message};
use libp2p::swarm::SwarmEvent;
use tiltyard_net::{NetEvent, peer_of_seed};
use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::wire::{GossipMessage, SyncRequest, Topic};
use tokio::sync::Notify;

use crate::blobs::{done, noise};
use crate::frames::{transfer, transfers};
use crate::harness::{Node, config};
use crate::raw::{
    BLOBS, BehaviourEvent, BlobReply, BlobRequest, FOREIGN, OURS, PieceId, Raw, read_frame, write_frame,
};
use crate::store::Files;

/// Shows that the node still takes part: an honest peer's message arrives, and nothing came before it.
async fn still_serves(node: &mut Node) {
    let mut honest = Node::start(config(200, &[&node.address])).await;
    honest.subscribed(&node.peer, Topic::Transactions).await;
    honest.handle.publish(Topic::Transactions, transfers(&[777])).unwrap();
    let (_, from, message) = node.message().await;
    assert_eq!(from, honest.peer);
    let GossipMessage::Transactions(_, signed) = message else { panic!("not transactions") };
    assert_eq!(signed[0].transaction.nonce.get(), 777);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_another_network_is_disconnected_and_stays_out() {
    let mut node = Node::start(config(1, &[])).await;
    let mut raw = Raw::new(60, FOREIGN);
    raw.dial(&node.address);
    raw.connected().await;
    raw.closed().await;
    raw.dial(&node.address);
    raw.until("a refusal", |event| {
        matches!(event, SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. })
            .then_some(())
    })
    .await;
    assert!(node.handle.peers().is_empty());
    still_serves(&mut node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_gossip_never_reaches_the_node_and_gets_its_sender_banned() {
    let mut node = Node::start(config(1, &[])).await;
    let mut raw = Raw::new(61, OURS);
    raw.dial(&node.address);
    raw.heard_on(Topic::Transactions).await;
    let mut trailing = transfers(&[1]);
    trailing.push(0);
    let mut deep = vec![0x81; 60_000];
    deep.push(0);
    let huge_claim = vec![0x81, 0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let junk = [b"junk".to_vec(), Vec::new(), trailing, deep, huge_claim, transfer(1)];
    for (number, bytes) in junk.into_iter().enumerate() {
        raw.publish(Topic::Transactions, [bytes, vec![u8::try_from(number).unwrap()]].concat());
    }
    for number in 0..12u8 {
        raw.publish(Topic::Tasks, vec![0xff, number]);
    }
    raw.closed().await;
    still_serves(&mut node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversize_frames_lower_the_score_until_the_sender_is_banned() {
    let mut node = Node::start(config(1, &[])).await;
    let mut raw = Raw::new(62, OURS);
    raw.dial(&node.address);
    raw.heard_on(Topic::Transactions).await;
    // Fits the protocol's frame, not the topic's.
    for number in 0..20u8 {
        raw.publish(Topic::Transactions, vec![number; 80 * 1024]);
    }
    raw.closed().await;
    still_serves(&mut node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_beyond_every_size_does_not_harm_the_node() {
    let mut node = Node::start(config(1, &[])).await;
    let mut raw = Raw::new(63, OURS);
    raw.dial(&node.address);
    raw.heard_on(Topic::Bodies).await;
    raw.publish(Topic::Bodies, vec![1; 3 << 20]);
    let drive = async {
        loop {
            raw.swarm.select_next_some().await;
        }
    };
    tokio::select! {
        () = drive => {}
        () = still_serves(&mut node) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbled_requests_get_their_sender_banned() {
    let mut node = Node::start(config(1, &[])).await;
    let mut raw = Raw::new(64, OURS);
    raw.dial(&node.address);
    raw.connected().await;
    let to = node.address.rsplit('/').next().unwrap().parse().unwrap();
    let junk = [vec![0xff; 10], vec![0; 4], vec![0, 0, 0, 3, 0x82, 0x00, 0x00], vec![0, 0, 0x50, 0, 1]];
    for bytes in junk {
        raw.swarm.behaviour_mut().exchange.send_request(&to, bytes);
    }
    raw.closed().await;
    still_serves(&mut node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_garbled_answer_is_no_answer() {
    let mut node = Node::start(config(1, &[])).await;
    let mut raw = Raw::new(65, OURS);
    raw.dial(&node.address);
    let liar = peer_of_seed(&[65; 32]).unwrap();
    let drive = async {
        loop {
            if let SwarmEvent::Behaviour(BehaviourEvent::Exchange(Exchange::Message {
                message: Message::Request { channel, .. },
                ..
            })) = raw.swarm.select_next_some().await
            {
                // The connection may be gone when the ban comes first.
                let _ = raw.swarm.behaviour_mut().exchange.send_response(channel, vec![0xff; 100]);
            }
        }
    };
    let judge = async {
        node.up(&liar).await;
        node.handle.ask(3, liar.clone(), SyncRequest::Status).unwrap();
        node.wait("no answer", |event| {
            matches!(event, NetEvent::Response { token: 3, response: None, .. }).then_some(())
        })
        .await;
        for token in 4..7 {
            node.handle.ask(token, liar.clone(), SyncRequest::Status).unwrap();
        }
        node.down(&liar).await;
    };
    tokio::select! {
        () = drive => {}
        () = judge => {}
    }
}

/// What a false provider does after its honest-looking manifest.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// Zeros instead of the pieces.
    Zeros,
    /// Nothing instead of the pieces.
    Silence,
    /// Another manifest.
    Manifest,
    /// A reply that claims four gigabytes.
    Claim,
}

/// Runs a false provider for `manifest` until dropped.
async fn lie(mut raw: Raw, manifest: Vec<u8>, lie: Lie, asked: Arc<Notify>) {
    let mut incoming = raw.swarm.behaviour().blobs.new_control().accept(BLOBS).unwrap();
    let serve = async {
        let mut open = Vec::new();
        while let Some((_, mut stream)) = incoming.next().await {
            let (manifest, asked) = (manifest.clone(), Arc::clone(&asked));
            open.push(tokio::spawn(async move {
                while let Ok(request) = read_frame::<BlobRequest>(&mut stream).await {
                    if matches!(request, BlobRequest::Pieces { .. }) {
                        asked.notify_one();
                    }
                    let sent = match (request, lie) {
                        (BlobRequest::Manifest { .. }, Lie::Manifest) => {
                            write_frame(&mut stream, &BlobReply::Manifest(vec![1, 2, 3])).await
                        }
                        (BlobRequest::Manifest { .. }, Lie::Claim) => {
                            let _ = stream.write_all(&u32::MAX.to_be_bytes()).await;
                            stream.flush().await
                        }
                        (BlobRequest::Manifest { .. }, Lie::Zeros | Lie::Silence) => {
                            write_frame(&mut stream, &BlobReply::Manifest(manifest.clone())).await
                        }
                        (BlobRequest::Pieces { .. }, Lie::Zeros) => {
                            let _ = write_frame(&mut stream, &BlobReply::Pieces).await;
                            let _ = stream.write_all(&vec![0; 8 << 20]).await;
                            stream.flush().await
                        }
                        (BlobRequest::Pieces { .. }, Lie::Silence | Lie::Manifest | Lie::Claim) => {
                            write_frame(&mut stream, &BlobReply::Pieces).await
                        }
                    };
                    if sent.is_err() {
                        return;
                    }
                }
            }));
        }
    };
    let drive = async {
        loop {
            raw.swarm.select_next_some().await;
        }
    };
    tokio::select! {
        () = serve => {}
        () = drive => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_providers_are_dropped_and_the_blob_comes_from_an_honest_one() {
    for (number, kind) in (0u8..).zip([Lie::Zeros, Lie::Silence, Lie::Manifest, Lie::Claim]) {
        let (theirs, ours) = (Files::new(), Files::new());
        let bytes = noise(9_000_000, 4);
        let (manifest, blob) = theirs.add(&[("model.safetensors", bytes.clone())]);
        let mut settings = config(1, &[]);
        settings.limits.stall_window = Duration::from_millis(1_500);
        settings.limits.stall_bytes_min = 1;
        let mut client = Node::with_blobs(settings, Arc::new(ours.clone())).await;
        let seed = 70 + number;
        let liar = peer_of_seed(&[seed; 32]).unwrap();
        let mut raw = Raw::new(seed, OURS);
        raw.dial(&client.address);
        let lying = tokio::spawn(lie(raw, manifest.encode(), kind, Arc::default()));
        client.up(&liar).await;
        client.handle.fetch(blob, None).unwrap();

        // Caught: struck while connected, or banned already.
        let caught = async {
            while client.handle.peers().iter().any(|peer| peer.peer == liar && peer.strikes == 0) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(crate::harness::PATIENCE, caught).await.unwrap_or_else(|_| panic!("{kind:?}"));
        assert_eq!(ours.writes(), 0, "{kind:?}: nothing of it may be kept");
        let _honest = Node::with_blobs(config(3, &[&client.address]), Arc::new(theirs)).await;
        done(&mut client, blob.root).await;
        assert!(ours.read(&blob.root, "model.safetensors") == bytes, "{kind:?}");
        lying.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_blob_requests_get_their_sender_banned_and_a_refusal_says_so() {
    let files = Files::new();
    let (_, blob) = files.add(&[("a", noise(5_000_000, 1))]);
    let mut node = Node::with_blobs(config(1, &[]), Arc::new(files.clone())).await;
    let mut raw = Raw::new(80, OURS);
    files.refuse(&peer_of_seed(&[80; 32]).unwrap());
    raw.dial(&node.address);
    raw.connected().await;
    let to = node.address.rsplit('/').next().unwrap().parse().unwrap();
    let mut control = raw.swarm.behaviour().blobs.new_control();
    let root = blob.root;
    let attack = async {
        let mut stream = control.open_stream(to, BLOBS).await.unwrap();
        for (root, expected) in
            [(root, BlobReply::Refused), (BlobRoot::from_bytes([9; 32]), BlobReply::Absent)]
        {
            write_frame(&mut stream, &BlobRequest::Manifest { root }).await.unwrap();
            assert_eq!(read_frame::<BlobReply>(&mut stream).await.unwrap(), expected);
            let pieces = vec![PieceId { file: 0, piece: 0 }];
            write_frame(&mut stream, &BlobRequest::Pieces { root, pieces }).await.unwrap();
            assert_eq!(read_frame::<BlobReply>(&mut stream).await.unwrap(), expected);
        }
        files.allow(&peer_of_seed(&[80; 32]).unwrap());
        let none = BlobRequest::Pieces { root, pieces: Vec::new() };
        let beyond = BlobRequest::Pieces { root, pieces: vec![PieceId { file: 0, piece: 2 }] };
        let no_file = BlobRequest::Pieces { root, pieces: vec![PieceId { file: 1, piece: 0 }] };
        let greedy = BlobRequest::Pieces {
            root,
            pieces: vec![PieceId { file: 0, piece: 0 }, PieceId { file: 0, piece: 1 }],
        };
        for request in [none, beyond, no_file, greedy] {
            let mut stream = control.open_stream(to, BLOBS).await.unwrap();
            write_frame(&mut stream, &request).await.unwrap();
            assert!(read_frame::<BlobReply>(&mut stream).await.is_err(), "{request:?}");
        }
        for _ in 0..8 {
            let Ok(mut stream) = control.open_stream(to, BLOBS).await else { break };
            if stream.write_all(&u32::MAX.to_be_bytes()).await.is_err() || stream.flush().await.is_err() {
                break;
            }
            // Closed by the other side: end of stream or an error.
            let _ = stream.read(&mut [0; 1]).await;
        }
        futures::future::pending::<()>().await;
    };
    tokio::select! {
        () = raw.closed() => {}
        () = attack => {}
    }
    still_serves(&mut node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_provider_does_not_hold_up_what_another_one_has() {
    let (theirs, ours) = (Files::new(), Files::new());
    let bytes = noise(13_000_000, 9);
    let (manifest, blob) = theirs.add(&[("model.safetensors", bytes.clone())]);
    // The speed floor alone would let silence last for thirty seconds.
    let mut client = Node::with_blobs(config(1, &[]), Arc::new(ours.clone())).await;
    let mut raw = Raw::new(90, OURS);
    raw.dial(&client.address);
    let asked = Arc::new(Notify::new());
    let lying = tokio::spawn(lie(raw, manifest.encode(), Lie::Silence, Arc::clone(&asked)));
    client.up(&peer_of_seed(&[90; 32]).unwrap()).await;
    client.handle.fetch(blob, None).unwrap();
    asked.notified().await;
    let begun = Instant::now();
    let _honest = Node::with_blobs(config(3, &[&client.address]), Arc::new(theirs)).await;
    done(&mut client, blob.root).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(ours.read(&blob.root, "model.safetensors") == bytes);
    assert_eq!(ours.writes(), 4, "no piece may be written twice");
    lying.abort();
}
