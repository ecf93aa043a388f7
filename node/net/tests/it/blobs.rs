//! Blob transfer: every size, several providers, resume, refusal, damage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tiltyard_net::{NetEvent, PIECE_BYTES, piece_count};
use tiltyard_proto::ids::{BlobRoot, FileHash};
use tiltyard_proto::manifest::BlobRef;

use crate::harness::{Node, config};
use crate::store::Files;

/// Bytes that compress badly and differ by `seed`.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

pub(crate) async fn done(node: &mut Node, root: BlobRoot) {
    let result = node
        .wait("the end of a fetch", |event| match event {
            NetEvent::BlobDone { root: done } if *done == root => Some(Ok(())),
            NetEvent::BlobFailed { root: failed, fact } if *failed == root => Some(Err(fact.clone())),
            _ => None,
        })
        .await;
    assert_eq!(result, Ok(()));
}

async fn failed(node: &mut Node, root: BlobRoot) -> String {
    node.wait("a failed fetch", |event| match event {
        NetEvent::BlobFailed { root: failed, fact } if *failed == root => Some(fact.clone()),
        NetEvent::BlobDone { root: done } if *done == root => panic!("the fetch must not succeed"),
        _ => None,
    })
    .await
}

async fn pair() -> (Node, Files, Node, Files) {
    let (theirs, ours) = (Files::new(), Files::new());
    let provider = Node::with_blobs(config(1, &[]), Arc::new(theirs.clone())).await;
    let mut client = Node::with_blobs(config(2, &[&provider.address]), Arc::new(ours.clone())).await;
    client.up(&provider.peer).await;
    (provider, theirs, client, ours)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_arrives_unchanged() {
    let (_provider, theirs, mut client, ours) = pair().await;
    let piece = usize::try_from(PIECE_BYTES).unwrap();
    for size in
        [0, 1, 1023, 1024, 1025, 16_384, 16_385, 100_000, piece - 1, piece, piece + 1, 2 * piece + 12_345]
    {
        let bytes = noise(size, size as u64);
        let (manifest, blob) = theirs.add(&[("weights.safetensors", bytes.clone())]);
        let given = (size % 2 == 0).then_some(manifest);
        client.handle.fetch(blob, given).unwrap();
        done(&mut client, blob.root).await;
        assert!(ours.read(&blob.root, "weights.safetensors") == bytes, "{size} bytes arrived changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_adapter_is_quick() {
    let (_provider, theirs, mut client, ours) = pair().await;
    let (_, blob) = theirs.add(&[
        ("adapter_config.json", noise(700, 1)),
        ("adapter_model.safetensors", noise(100_000, 2)),
        ("empty", Vec::new()),
    ]);
    let begun = Instant::now();
    client.handle.fetch(blob, None).unwrap();
    done(&mut client, blob.root).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(ours.writes(), 2, "an empty file has no piece");
    assert_eq!(ours.read(&blob.root, "empty"), Vec::<u8>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_megabytes_come_from_two_providers_and_survive_an_abort() {
    let files: Vec<(&str, Vec<u8>)> =
        vec![("config.json", noise(900, 5)), ("model.safetensors", noise(20_000_000, 6))];
    let (one, two, ours) = (Files::new(), Files::new(), Files::new());
    let (_, blob) = one.add(&files);
    two.add(&files);
    let first = Node::with_blobs(config(1, &[]), Arc::new(one)).await;
    let second = Node::with_blobs(config(2, &[]), Arc::new(two)).await;
    let addresses = [first.address.as_str(), second.address.as_str()];
    let mut client = Node::with_blobs(config(3, &addresses), Arc::new(ours.clone())).await;
    client.handle.fetch(blob, None).unwrap();
    client
        .wait("the first bytes", |event| matches!(event, NetEvent::BlobProgress { .. }).then_some(()))
        .await;
    client.stop().await;

    // The same store under a new node: only what is missing is fetched.
    let kept = ours.writes();
    let mut client = Node::with_blobs(config(3, &addresses), Arc::new(ours.clone())).await;
    client.handle.fetch(blob, None).unwrap();
    done(&mut client, blob.root).await;
    for (name, bytes) in &files {
        assert!(ours.read(&blob.root, name) == *bytes, "{name} arrived changed");
    }
    let pieces = usize::try_from(piece_count(20_000_000) + 1).unwrap();
    assert!(kept >= 1);
    assert!(
        ours.writes() <= pieces + 1,
        "{} pieces written for {pieces}, {kept} before the abort",
        ours.writes()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_is_held_already_is_done_at_once() {
    let files = Files::new();
    let (_, blob) = files.add(&[("train.jsonl", noise(10, 1))]);
    let mut node = Node::with_blobs(config(1, &[]), Arc::new(files)).await;
    node.handle.fetch(blob, None).unwrap();
    done(&mut node, blob.root).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusing_provider_is_passed_over_and_asked_again() {
    let (mut provider, theirs, mut client, ours) = pair().await;
    provider.up(&client.peer).await;
    theirs.refuse(&client.peer);
    let bytes = noise(50_000, 1);
    let (_, blob) = theirs.add(&[("a", bytes.clone())]);
    client.handle.fetch(blob, None).unwrap();

    // A second holder comes up later and gives it.
    let second = Files::new();
    second.add(&[("a", bytes.clone())]);
    let helper = Node::with_blobs(config(4, &[&client.address]), Arc::new(second)).await;
    done(&mut client, blob.root).await;
    assert_eq!(ours.read(&blob.root, "a"), bytes);
    drop(helper);

    // The refusing one gives the next blob once it may.
    let (_, other) = theirs.add(&[("b", noise(70_000, 2))]);
    client.handle.fetch(other, None).unwrap();
    theirs.allow(&client.peer);
    done(&mut client, other.root).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_appears_later_is_found_by_asking_again() {
    let (_provider, theirs, mut client, ours) = pair().await;
    let scratch = Files::new();
    let bytes = noise(30_000, 3);
    let (manifest, blob) = scratch.add(&[("a", bytes.clone())]);
    client.handle.fetch(blob, Some(manifest)).unwrap();
    theirs.add(&[("a", bytes.clone())]);
    done(&mut client, blob.root).await;
    assert_eq!(ours.read(&blob.root, "a"), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_that_allows_too_little_or_too_much_fails_for_good() {
    let (_provider, theirs, mut client, ours) = pair().await;
    let (manifest, blob) = theirs.add(&[("a", noise(5_000, 1))]);
    for (bytes, given) in [(4_999, None), (4_999, Some(manifest.clone())), (u64::MAX, None)] {
        client.handle.fetch(BlobRef { root: blob.root, bytes }, given).unwrap();
        let fact = failed(&mut client, blob.root).await;
        assert!(fact.contains("5000 bytes") || fact.contains("at most"), "{fact}");
    }
    let mut other = manifest;
    other.files[0].hash = FileHash::from_bytes([1; 32]);
    client.handle.fetch(blob, Some(other)).unwrap();
    assert!(failed(&mut client, blob.root).await.contains("root"), "a manifest of another blob is refused");
    assert_eq!(ours.writes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reference_that_allows_more_than_there_is_brings_what_there_is() {
    let (_provider, theirs, mut client, ours) = pair().await;
    let bytes = noise(5_000, 1);
    let (_, blob) = theirs.add(&[("a", bytes.clone())]);
    client.handle.fetch(BlobRef { root: blob.root, bytes: 4 << 20 }, None).unwrap();
    done(&mut client, blob.root).await;
    assert_eq!(ours.read(&blob.root, "a"), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_with_a_damaged_disk_serves_nothing_and_is_not_blamed() {
    let (_provider, theirs, mut client, ours) = pair().await;
    let bytes = noise(100_000, 8);
    let (_, blob) = theirs.add(&[("a", bytes.clone())]);
    theirs.damage(&blob.root, "a", 60_000);
    client.handle.fetch(blob, None).unwrap();
    let healthy = Files::new();
    healthy.add(&[("a", bytes.clone())]);
    let _helper = Node::with_blobs(config(4, &[&client.address]), Arc::new(healthy)).await;
    done(&mut client, blob.root).await;
    assert_eq!(ours.read(&blob.root, "a"), bytes);
    assert!(client.handle.peers().iter().all(|peer| peer.strikes == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_fetch_is_silent_and_can_be_started_again() {
    let (_provider, theirs, mut client, _ours) = pair().await;
    let scratch = Files::new();
    let (_, blob) = scratch.add(&[("a", noise(9_000, 1))]);
    client.handle.fetch(blob, None).unwrap();
    client.handle.cancel(blob.root).unwrap();
    theirs.add(&[("a", noise(9_000, 1))]);
    client.handle.fetch(blob, None).unwrap();
    done(&mut client, blob.root).await;
}
