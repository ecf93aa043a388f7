//! A disk that is full, at each place where the store writes.

use std::fs;
use std::path::Path;

use tiltyard_proto::units::Height;
use tiltyard_store::journal::Journal;
use tiltyard_store::{ChainStore, Store, StoreError, StoreOptions};

use crate::chain::Maker;
use crate::child::{FACT, start};

fn report(place: &str, error: &StoreError, done: u64) {
    println!("{FACT}{place} {} {done}", error.is_full());
}

/// Writes at each place until the limit on file size stops it, and tells how the store took it.
pub(crate) fn fill_disk(folder: &Path) {
    let maker = Maker::new(1);
    let network = maker.genesis.hash();
    let (mut journal, _) = Journal::open(&folder.join("j"), &network).unwrap();
    let mut done = 0;
    let error = loop {
        match journal.append(&[7; 10_000]) {
            Ok(()) => done += 1,
            Err(error) => break error,
        }
    };
    report("journal", &error, done);
    let (mut store, recovered) =
        Store::open(&folder.join("s"), &maker.genesis, StoreOptions::default()).unwrap();
    let mut done = 0;
    let error = loop {
        let name = tiltyard_proto::ids::BlockHash::from_bytes([u8::try_from(done % 256).unwrap(); 32]);
        match store.save_body(name, Height::new(1_000 + done), &[1; 50_000]) {
            Ok(()) => done += 1,
            Err(error) => break error,
        }
    };
    report("body", &error, done);
    let mut done = 0;
    let error = loop {
        match store.save_role(format!("key {done}").as_bytes(), &[2; 50_000]) {
            Ok(()) => done += 1,
            Err(error) => break error,
        }
    };
    report("role", &error, done);
    let mut tip = recovered.tip;
    let mut done = 0;
    let error = loop {
        let made = maker.next(&store.reader(), tip.as_ref(), 60);
        match store.commit(made.commit()) {
            Ok(()) => done += 1,
            Err(error) => break error,
        }
        tip = Some(made.decided);
    };
    report("block", &error, done);
}

#[test]
fn a_full_disk_is_an_error_and_keeps_all_that_was_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("j")).unwrap();
    let (mut child, facts) = start("full", folder.path(), Some(1 << 20));
    let facts: Vec<String> = facts.collect();
    assert!(child.wait().unwrap().success(), "the child must not die of it: {facts:?}");
    let told = |place: &str| -> u64 {
        let line =
            facts.iter().find(|fact| fact.starts_with(place)).unwrap_or_else(|| panic!("{place}: {facts:?}"));
        let (_, rest) = line.split_once(' ').unwrap();
        let (is_full, done) = rest.split_once(' ').unwrap();
        assert_eq!(is_full, "true", "{line}");
        done.parse().unwrap()
    };
    let maker = Maker::new(1);
    let (mut journal, entries) = Journal::open(&folder.path().join("j"), &maker.genesis.hash()).unwrap();
    assert_eq!(entries.len() as u64, told("journal"));
    journal.append(b"with room again").unwrap();
    let (mut store, recovered) =
        Store::open(&folder.path().join("s"), &maker.genesis, StoreOptions::default()).unwrap();
    assert_eq!(recovered.bodies.len() as u64, told("body"));
    assert_eq!(recovered.roles.len() as u64, told("role"));
    let tip = recovered.tip.as_ref().map_or(0, |tip| tip.block.header.height.get());
    // The block that met the full disk may be in the log already: then it counts, whole.
    assert!((told("block")..=told("block") + 1).contains(&tip), "{tip}: {facts:?}");
    maker.grow(&mut store, recovered.tip, 3).unwrap();
}

#[test]
fn near_the_end_of_the_disk_nothing_new_is_signed_but_decisions_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(1);
    let options = StoreOptions { reserve_bytes: u64::MAX, ..StoreOptions::default() };
    let (mut store, _) = Store::open(folder.path(), &maker.genesis, options).unwrap();
    let name = tiltyard_proto::ids::BlockHash::from_bytes([1; 32]);
    let error = store.save_body(name, Height::new(1), b"body").unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }) && error.is_full(), "{error}");
    maker.grow(&mut store, None, 2).unwrap();
}
