//! Requests for blocks: answered by token, dropped when unanswered, bounded.

use std::time::Duration;

use tiltyard_net::{NetEvent, peer_of_seed};
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::{Peer, SyncRequest, SyncResponse};

use crate::harness::{Node, config};

async fn pair(tune: impl Fn(&mut tiltyard_net::NetConfig)) -> (Node, Node) {
    let mut settings = config(1, &[]);
    tune(&mut settings);
    let mut server = Node::start(settings).await;
    let mut settings = config(2, &[&server.address]);
    tune(&mut settings);
    let mut client = Node::start(settings).await;
    client.up(&server.peer).await;
    server.up(&client.peer).await;
    (server, client)
}

async fn request(node: &mut Node) -> (u64, Peer, SyncRequest) {
    node.wait("a request", |event| match event {
        NetEvent::Request { token, from, request } => Some((*token, from.clone(), request.clone())),
        _ => None,
    })
    .await
}

async fn response(node: &mut Node) -> (u64, Option<SyncResponse>) {
    node.wait("a response", |event| match event {
        NetEvent::Response { token, response, .. } => Some((*token, response.as_deref().cloned())),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_by_its_token() {
    let (mut server, mut client) = pair(|_| {}).await;
    client
        .handle
        .ask(41, server.peer.clone(), SyncRequest::Blocks { from: Height::new(3), max: 64 })
        .unwrap();
    client.handle.ask(42, server.peer.clone(), SyncRequest::Status).unwrap();
    for _ in 0..2 {
        let (token, from, request) = request(&mut server).await;
        assert_eq!(from, client.peer);
        let answer = match request {
            SyncRequest::Status => SyncResponse::Status { tip: Height::new(9), first: Height::new(1) },
            SyncRequest::Blocks { from, max } => {
                assert_eq!((from, max), (Height::new(3), 64));
                SyncResponse::Body(Some(serde_bytes::ByteBuf::from(vec![5; 4 << 20])))
            }
            other => panic!("not asked: {other:?}"),
        };
        server.handle.respond(token, answer).unwrap();
    }
    let mut answers = [response(&mut client).await, response(&mut client).await];
    answers.sort_by_key(|(token, _)| *token);
    assert!(matches!(&answers[0], (41, Some(SyncResponse::Body(Some(bytes)))) if bytes.len() == 4 << 20));
    assert!(matches!(&answers[1], (42, Some(SyncResponse::Status { tip, .. })) if tip.get() == 9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unanswered_request_fails_once_and_a_late_answer_is_forgotten() {
    let (mut server, mut client) =
        pair(|config| config.limits.request_timeout = Duration::from_millis(300)).await;
    client.handle.ask(1, server.peer.clone(), SyncRequest::Status).unwrap();
    let (late, _, _) = request(&mut server).await;
    assert_eq!(response(&mut client).await, (1, None));
    server.handle.respond(late, SyncResponse::PendingIds(Vec::new())).unwrap();
    // Both still work afterwards.
    client.handle.ask(2, server.peer.clone(), SyncRequest::PendingIds).unwrap();
    let (token, _, _) = request(&mut server).await;
    server.handle.respond(token, SyncResponse::PendingIds(Vec::new())).unwrap();
    assert_eq!(response(&mut client).await, (2, Some(SyncResponse::PendingIds(Vec::new()))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_beyond_the_cap_is_not_sent() {
    let (mut server, mut client) = pair(|_| {}).await;
    client.handle.ask(1, server.peer.clone(), SyncRequest::Status).unwrap();
    let (token, _, _) = request(&mut server).await;
    let huge = SyncResponse::Body(Some(serde_bytes::ByteBuf::from(vec![0; 7 << 20])));
    server.handle.respond(token, huge).unwrap();
    assert_eq!(response(&mut client).await, (1, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_cap_of_a_peer_are_dropped() {
    let (mut server, mut client) = pair(|_| {}).await;
    for token in 0..12 {
        client.handle.ask(token, server.peer.clone(), SyncRequest::Status).unwrap();
    }
    // Eight wait for an answer, four fail without the server hearing of them.
    let mut failed = 0;
    while failed < 4 {
        assert!(response(&mut client).await.1.is_none());
        failed += 1;
    }
    let mut asked = Vec::new();
    for _ in 0..8 {
        asked.push(request(&mut server).await.0);
    }
    for token in asked {
        server.handle.respond(token, SyncResponse::PendingIds(Vec::new())).unwrap();
    }
    for _ in 0..8 {
        assert!(response(&mut client).await.1.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_a_stranger_fails_at_once() {
    let mut node = Node::start(config(1, &[])).await;
    node.handle.ask(5, peer_of_seed(&[99; 32]).unwrap(), SyncRequest::Status).unwrap();
    node.handle.ask(6, Peer::new(vec![1, 2, 3]), SyncRequest::Status).unwrap();
    assert_eq!(response(&mut node).await, (5, None));
    assert_eq!(response(&mut node).await, (6, None));
}
