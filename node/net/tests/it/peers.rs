//! Connections: kept, restored, refused.

use std::sync::Arc;

use tiltyard_net::{CommandError, Net, NetError, NoBlobs, Target, peer_from_text, peer_of_seed, peer_text};
use tiltyard_proto::wire::Topic;

use crate::harness::{Node, config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_is_found_again() {
    let mut server = Node::start(config(1, &[])).await;
    let (address, peer) = (server.address.clone(), server.peer.clone());
    let mut client = Node::start(config(2, &[&address])).await;
    client.up(&peer).await;
    server.up(&client.peer).await;
    assert_eq!(client.handle.peers().len(), 1);

    server.stop().await;
    client.down(&peer).await;
    assert!(client.handle.peers().is_empty());

    let (bare, _) = address.split_once("/p2p/").unwrap();
    let mut again = config(1, &[]);
    again.listen = vec![bare.to_owned()];
    let mut server = Node::start(again).await;
    client.up(&peer).await;
    server.up(&client.peer).await;
    client.subscribed(&peer, Topic::Consensus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_without_peer_id_is_reached() {
    let server = Node::start(config(1, &[])).await;
    let (bare, _) = server.address.split_once("/p2p/").unwrap();
    let mut client = Node::start(config(2, &[bare])).await;
    client.up(&server.peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_peer_at_the_address_of_a_named_one_is_not_accepted() {
    let server = Node::start(config(1, &[])).await;
    let (bare, _) = server.address.split_once("/p2p/").unwrap();
    let wrong = format!("{bare}/p2p/{}", peer_text(&peer_of_seed(&[50; 32]).unwrap()));
    let mut right = Node::start(config(3, &[&wrong])).await;
    // Only the second, correct address leads to a peer.
    right.handle.keep(vec![Target::parse(&server.address).unwrap()]).unwrap();
    right.up(&server.peer).await;
    assert_eq!(right.handle.peers().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_dial_each_other_are_up_once() {
    let mut one = Node::start(config(1, &[])).await;
    let mut two = Node::start(config(2, &[&one.address])).await;
    one.handle.keep(vec![Target::parse(&two.address).unwrap()]).unwrap();
    one.up(&two.peer).await;
    two.up(&one.peer).await;
    assert_eq!(one.handle.peers().len(), 1);
    two.stop().await;
    one.down(&tiltyard_net::peer_of_seed(&[2; 32]).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_penalized_peer_is_banned_and_comes_back_when_the_ban_ends() {
    let mut settings = config(1, &[]);
    settings.limits.ban = std::time::Duration::from_millis(600);
    let mut judge = Node::start(settings).await;
    let mut peer = Node::start(config(2, &[&judge.address])).await;
    judge.up(&peer.peer).await;
    peer.up(&judge.peer).await;
    for _ in 0..4 {
        judge.handle.penalize(peer.peer.clone(), "gave a false block").unwrap();
    }
    judge.down(&peer.peer).await;
    peer.down(&judge.peer).await;
    judge.up(&peer.peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_and_a_bad_address_are_typed_errors() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut taken = config(1, &[]);
    taken.listen = vec![format!("/ip4/127.0.0.1/tcp/{}", holder.local_addr().unwrap().port())];
    assert!(matches!(Net::spawn(taken, Arc::new(NoBlobs)), Err(NetError::Listen { .. })));
    for text in ["", "localhost:1", "/ip4/127.0.0.1/udp/1", "/dns/example.org/tcp/1", "/ip4/1.2.3.4/tcp/1/ws"]
    {
        assert!(matches!(Target::parse(text), Err(NetError::Address { .. })), "{text}");
        let mut bad = config(1, &[]);
        bad.listen = vec![text.to_owned()];
        assert!(matches!(Net::spawn(bad, Arc::new(NoBlobs)), Err(NetError::Address { .. })), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_network_says_so() {
    let node = Node::start(config(1, &[])).await;
    let handle = node.handle.clone();
    node.stop().await;
    assert_eq!(handle.publish(Topic::Tasks, vec![1]), Err(CommandError::Stopped));
}

#[test]
fn peer_texts_are_read_back() {
    let peer = peer_of_seed(&[3; 32]).unwrap();
    let text = peer_text(&peer);
    assert!(text.starts_with("12D3Koo"), "{text}");
    assert_eq!(peer_from_text(&text), Ok(peer));
    assert!(peer_from_text("12D3Kooo").is_err());
}
