//! kill -9 at any moment: nothing acknowledged is lost, nothing half-done is kept.

use std::io::Write;
use std::path::Path;

use tiltyard_ledger::{StateRead, query, tree};
use tiltyard_proto::units::Height;
use tiltyard_store::{ChainRead, ChainStore, Recovered, Store, StoreOptions};

use crate::chain::{Made, Maker};
use crate::child::{FACT, start};

const ROUNDS: u64 = 20;

fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{FACT}{words}").and_then(|()| out.flush()).unwrap();
}

fn entry(height: Height) -> Vec<u8> {
    format!("vote {height}").into_bytes()
}

fn body(made: &Made) -> Vec<u8> {
    made.decided.block.encode()
}

/// Does what a validator does at each height, and tells after each durable step. With `lie` it tells before.
pub(crate) fn commit_forever(folder: &Path, lie: bool) {
    let maker = Maker::new(1);
    let (mut store, recovered) = Store::open(folder, &maker.genesis, StoreOptions::default()).unwrap();
    let mut tip = recovered.tip;
    loop {
        let at = tip.as_ref().map_or(0, |tip| tip.block.header.height.get());
        let made = maker.next(&store.reader(), tip.as_ref(), at % 4);
        let height = made.decided.block.header.height;
        store.save_body(made.decided.block.hash(), height, &body(&made)).unwrap();
        say(&format!("body {height}"));
        store.reset_journal(&entry(height)).unwrap();
        store.journal(b"second").unwrap();
        say(&format!("vote {height}"));
        store.save_role(b"at", &height.get().to_be_bytes()).unwrap();
        say(&format!("role {height}"));
        if lie {
            // Told long enough before it is true that a kill can fall in between.
            say(&format!("block {}", height.get() + 40));
        }
        store.commit(made.commit()).unwrap();
        if !lie {
            say(&format!("block {height}"));
        }
        tip = Some(made.decided);
    }
}

/// The last heights that a child told of, by kind.
#[derive(Default, Debug)]
struct Told {
    body: u64,
    vote: u64,
    role: u64,
    block: u64,
}

impl Told {
    fn hear(&mut self, fact: &str) {
        let (kind, height) = fact.split_once(' ').unwrap();
        let height = height.parse().unwrap();
        match kind {
            "body" => self.body = height,
            "vote" => self.vote = height,
            "role" => self.role = height,
            "block" => self.block = height,
            other => panic!("unknown fact {other}"),
        }
    }
}

/// Runs a child until it has told `count` facts, kills it, hears out what was on its way.
fn run_and_kill(mode: &str, folder: &Path, count: u64) -> Told {
    let (mut child, mut facts) = start(mode, folder, None);
    let mut told = Told::default();
    for _ in 0..count {
        told.hear(&facts.next().expect("the child tells until it is killed"));
    }
    child.kill().unwrap();
    facts.for_each(|fact| told.hear(&fact));
    child.wait().unwrap();
    told
}

/// Compares what a start finds with what was told; returns what was lost.
fn losses(told: &Told, recovered: &Recovered) -> Vec<String> {
    let tip = recovered.tip.as_ref().map_or(0, |tip| tip.block.header.height.get());
    let mut lost = Vec::new();
    if tip < told.block {
        lost.push(format!("block {} told, tip is {tip}", told.block));
    }
    if told.body > tip && !recovered.bodies.iter().any(|(_, height, _)| height.get() == told.body) {
        lost.push(format!("body {} told and gone", told.body));
    }
    let first = recovered.journal.first().and_then(|entry| String::from_utf8(entry.clone()).ok());
    let voted: u64 = first.and_then(|words| words.strip_prefix("vote ")?.parse().ok()).unwrap_or(0);
    if voted < told.vote || (voted == told.vote && told.vote > 0 && recovered.journal.len() < 2) {
        lost.push(format!("vote {} told, the journal is at {voted}", told.vote));
    }
    let role = recovered
        .roles
        .iter()
        .find(|(key, _)| key == b"at")
        .map_or(0, |(_, value)| u64::from_be_bytes(value.as_slice().try_into().unwrap()));
    if role < told.role {
        lost.push(format!("role {} told, found {role}", told.role));
    }
    lost
}

/// The state must be the one of the tip, whole.
fn check_state(maker: &Maker, store: &Store, recovered: &Recovered) {
    let reader = store.reader();
    let Some(tip) = &recovered.tip else { return };
    assert_eq!(reader.tip(), tip.block.header.height);
    assert_eq!(tree::root(&reader).unwrap(), tip.block.header.state_root);
    let (value, proof) = tree::prove(&reader, &tiltyard_proto::state::StateKey::Params.to_bytes()).unwrap();
    proof
        .verify(
            &tip.block.header.state_root,
            &tiltyard_proto::state::StateKey::Params.to_bytes(),
            value.as_deref(),
        )
        .unwrap();
    for signed in &tip.block.body.transactions {
        let place =
            reader.transaction(&signed.transaction.id()).unwrap().expect("the tip's transactions are found");
        assert_eq!(place.height, tip.block.header.height);
    }
    assert!(reader.tree_version().unwrap().is_some());
    assert!(query::totals(&reader).unwrap().is_conserved());
    // The next block can be made and lands.
    let made = maker.next(&reader, Some(tip), 1);
    assert_eq!(made.outcomes.len(), 1);
}

#[test]
fn kill_9_loses_nothing_that_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(1);
    let mut reached = 0;
    for round in 0..ROUNDS {
        // A fixed, uneven sequence of moments, from the very first fact on.
        let told = run_and_kill("commit", folder.path(), 1 + (round * round * 7 + round * 3) % 41);
        let (store, recovered) = Store::open(folder.path(), &maker.genesis, StoreOptions::default()).unwrap();
        assert_eq!(losses(&told, &recovered), Vec::<String>::new(), "round {round}: {told:?}");
        check_state(&maker, &store, &recovered);
        reached = store.reader().tip().get();
    }
    assert!(reached > ROUNDS, "the children hardly got anywhere: {reached}");
}

#[test]
fn the_kill_test_catches_a_store_that_tells_too_early() {
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(1);
    let told = run_and_kill("lie", folder.path(), 12);
    let (_, recovered) = Store::open(folder.path(), &maker.genesis, StoreOptions::default()).unwrap();
    assert!(!losses(&told, &recovered).is_empty(), "{told:?}");
}
