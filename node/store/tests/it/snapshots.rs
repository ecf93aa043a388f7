//! Snapshots: made beside the running store, fetched in pieces, and the truth that a log continues.

use std::fs;
use std::path::Path;

use tiltyard_ledger::tree;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::units::{Blocks, Height};
use tiltyard_store::{ChainRead, ChainStore, Recovered, Store, StoreError, StoreOptions, StoreReader};

use crate::chain::Maker;

fn options() -> StoreOptions {
    StoreOptions { reserve_bytes: 0, snapshot_every: Blocks::new(10), ..StoreOptions::default() }
}

fn open(folder: &Path, maker: &Maker) -> (Store, Recovered) {
    Store::open(folder, &maker.genesis, options()).unwrap()
}

/// A store with a snapshot of height 20 and a log to 24.
fn source(folder: &Path, maker: &Maker) -> (Store, DecidedBlock) {
    let (mut store, recovered) = open(folder, maker);
    let tip = maker.grow(&mut store, recovered.tip, 10).unwrap();
    store.wait_for_snapshot();
    let tip = maker.grow(&mut store, tip, 10).unwrap();
    store.wait_for_snapshot();
    let tip = maker.grow(&mut store, tip, 4).unwrap().unwrap();
    assert_eq!(store.reader().snapshots().heights(), [Height::new(10), Height::new(20)]);
    (store, tip)
}

const AT: Height = Height::new(20);

fn begin(to: &mut Store, from: &StoreReader) -> u32 {
    let cut = from.snapshots().cut(AT).unwrap();
    to.begin_join(&from.block(AT).unwrap().unwrap(), &cut).unwrap();
    u32::try_from(cut.chunks.len()).unwrap()
}

fn give(to: &mut Store, from: &StoreReader, index: u32) {
    let chunk = from.snapshots().chunk(AT, index).unwrap().unwrap();
    to.keep_chunk(index, &codec::encode(&chunk)).unwrap();
}

#[test]
fn a_snapshot_is_every_entry_of_the_state_after_its_block_however_far_the_chain_went_on() {
    let (folder, maker) = (tempfile::tempdir().unwrap(), Maker::new(1));
    let (mut store, recovered) = open(folder.path(), &maker);
    let mut tip = recovered.tip;
    for _ in 0..6 {
        // Blocks go on while the snapshot of each tenth is made.
        tip = maker.grow(&mut store, tip, 10).unwrap();
        tip = maker.grow(&mut store, tip, 5).unwrap();
        store.wait_for_snapshot();
        let reader = store.reader();
        let made = *reader.snapshots().heights().last().unwrap();
        // One that was due while another was being made is left out.
        assert!(made.get().is_multiple_of(10) && made.get() + 20 > reader.tip().get());
        let cut = reader.snapshots().cut(made).unwrap();
        cut.verify(&reader.block(made).unwrap().unwrap().block.header.state_root).unwrap();
        for ((index, part), span) in (0u32..).zip(&cut.chunks).zip(cut.spans()) {
            let chunk = reader.snapshots().chunk(made, index).unwrap().unwrap();
            chunk.verify(index, &span, &part.root).unwrap();
        }
        assert_eq!(reader.snapshots().chunk(made, cut.chunks.len() as u32).unwrap(), None);
    }
    assert!(store.reader().snapshots().heights().len() <= 2);
}

#[test]
fn a_store_joined_by_snapshot_goes_on_from_its_block_and_outlives_the_loss_of_its_index() {
    let (a, b, maker) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Maker::new(1));
    let (source, _) = source(a.path(), &maker);
    let from = source.reader();
    {
        let (mut store, recovered) = open(b.path(), &maker);
        assert_eq!((recovered.joining, recovered.begun_by_snapshot), (None, false));
        let count = begin(&mut store, &from);
        (0..count).rev().for_each(|index| give(&mut store, &from, index));
        store.finish_join().unwrap();
    }
    let (mut store, recovered) = open(b.path(), &maker);
    assert_eq!((recovered.joining, recovered.begun_by_snapshot), (None, true));
    let base = recovered.tip.unwrap();
    assert_eq!(base, from.block(AT).unwrap().unwrap());
    let reader = store.reader();
    assert_eq!((reader.first(), reader.tip()), (Some(AT), AT));
    assert_eq!(tree::root(&reader).unwrap(), base.block.header.state_root);
    let tip = maker.grow(&mut store, Some(base), 4).unwrap().unwrap();
    assert_eq!(tip.block, from.block(Height::new(24)).unwrap().unwrap().block);
    drop((store, reader));
    fs::remove_dir_all(b.path().join("state")).unwrap();
    let (store, recovered) = open(b.path(), &maker);
    assert_eq!(recovered.tip.as_ref(), Some(&tip));
    assert_eq!(recovered.rebuilt.unwrap().blocks, 4);
    assert_eq!(tree::root(&store.reader()).unwrap(), tip.block.header.state_root);
    drop(store);
    // Without index and snapshot nothing is left to start from, and the store says so.
    fs::remove_dir_all(b.path().join("state")).unwrap();
    fs::remove_dir_all(b.path().join("snapshots")).unwrap();
    let error = Store::open(b.path(), &maker.genesis, options()).unwrap_err();
    assert!(matches!(error, StoreError::NoBase { first } if first == AT), "{error}");
}

#[test]
fn chunks_that_were_kept_are_there_after_any_cut_of_the_file() {
    let (a, b, maker) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Maker::new(1));
    let (source, _) = source(a.path(), &maker);
    let from = source.reader();
    let path = b.path().join("snapshots").join("joining.snap");
    let (begun, whole) = {
        let (mut store, _) = open(b.path(), &maker);
        begin(&mut store, &from);
        let begun = fs::metadata(&path).unwrap().len();
        give(&mut store, &from, 0);
        (begun, fs::read(&path).unwrap())
    };
    for length in (0..=whole.len()).step_by(97).chain([whole.len()]) {
        fs::write(&path, &whole[..length]).unwrap();
        let (_, recovered) = open(b.path(), &maker);
        match recovered.joining {
            Some(progress) => {
                assert!(length as u64 >= begun);
                assert_eq!(progress.decided, from.block(AT).unwrap().unwrap());
                assert_eq!(progress.have.len(), usize::from(length == whole.len()));
            }
            None => assert!((length as u64) < begun, "cut to {length}"),
        }
    }
    fs::write(&path, &whole).unwrap();
    let (mut store, _) = open(b.path(), &maker);
    store.drop_join().unwrap();
    assert!(!path.exists());
    assert!(matches!(store.keep_chunk(0, b""), Err(StoreError::NotJoining)));
}

#[test]
fn a_log_that_ends_below_a_fetched_snapshot_is_set_aside() {
    let (a, b, maker) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Maker::new(1));
    let (source, _) = source(a.path(), &maker);
    let from = source.reader();
    let (mut store, recovered) = open(b.path(), &maker);
    maker.grow(&mut store, recovered.tip, 5).unwrap();
    let count = begin(&mut store, &from);
    (0..count).for_each(|index| give(&mut store, &from, index));
    store.finish_join().unwrap();
    drop(store);
    let (store, recovered) = open(b.path(), &maker);
    assert_eq!(recovered.tip.unwrap().block.header.height, AT);
    assert_eq!(store.reader().first(), Some(AT));
    assert!(b.path().join("log.old").exists());
}

#[test]
fn a_snapshot_with_a_flipped_bit_is_set_aside_and_never_served() {
    let (a, maker) = (tempfile::tempdir().unwrap(), Maker::new(1));
    let (source, tip) = source(a.path(), &maker);
    drop(source);
    let name = format!("{:020}.snap", AT.get());
    let path = a.path().join("snapshots").join(&name);
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 24) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let (store, recovered) = open(a.path(), &maker);
        assert_eq!(recovered.tip.as_ref(), Some(&tip));
        assert_eq!(store.reader().snapshots().heights(), [Height::new(10)], "byte {at}");
    }
}

#[test]
fn an_incomplete_snapshot_is_not_adopted() {
    let (a, b, maker) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Maker::new(1));
    let (source, _) = source(a.path(), &maker);
    let (mut store, _) = open(b.path(), &maker);
    begin(&mut store, &source.reader());
    assert!(store.finish_join().is_err());
    drop(store);
    let (store, recovered) = open(b.path(), &maker);
    assert_eq!(store.reader().tip(), Height::ZERO);
    assert_eq!(recovered.joining.unwrap().have, [] as [u32; 0]);
}
