//! Pruning: what is dropped, when, and that nothing else changes.

use std::fs;
use std::path::Path;

use tiltyard_ledger::{StateRead, tree};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::state::StateKey;
use tiltyard_proto::units::{Blocks, Height};
use tiltyard_store::{ChainRead, ChainStore, StateOptions, Store, StoreOptions};

use crate::chain::Maker;

const KEEP: u64 = 20;

fn options(keep: Option<u64>) -> StoreOptions {
    StoreOptions {
        segment_bytes: 4 * 1024,
        keep_blocks: keep.map(Blocks::new),
        snapshot_every: Blocks::new(0),
        state: StateOptions { prune_after: Blocks::new(8), ..StateOptions::default() },
        ..StoreOptions::default()
    }
}

/// Grows a chain to 160 blocks, with snapshots at 40, 80 and 120.
fn grown(folder: &Path, maker: &Maker, keep: Option<u64>) -> DecidedBlock {
    let (mut store, _) = Store::open(folder, &maker.genesis, options(keep)).unwrap();
    let mut tip = None;
    for _ in 0..4 {
        tip = maker.grow(&mut store, tip, 40).unwrap();
        if store.reader().tip() < Height::new(160) {
            assert!(store.make_snapshot().unwrap());
            store.wait_for_snapshot();
        }
    }
    tip.unwrap()
}

fn first(folder: &Path, maker: &Maker, keep: Option<u64>) -> u64 {
    let (store, _) = Store::open(folder, &maker.genesis, options(keep)).unwrap();
    store.reader().first().unwrap().get()
}

#[test]
fn a_pruned_node_answers_within_its_horizon_as_one_that_keeps_everything() {
    let (whole, pruned) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let maker = Maker::new(1);
    let tip = grown(whole.path(), &maker, None);
    assert_eq!(grown(pruned.path(), &maker, Some(KEEP)), tip);
    let (all, _) = Store::open(whole.path(), &maker.genesis, options(None)).unwrap();
    let (few, _) = Store::open(pruned.path(), &maker.genesis, options(Some(KEEP))).unwrap();
    let (all, few) = (all.reader(), few.reader());
    assert_eq!(all.first(), Some(Height::new(1)));
    let first = few.first().unwrap();
    assert!(first > Height::new(20) && first <= Height::new(81), "kept from {first} on");
    assert_eq!(tree::root(&all).unwrap(), tree::root(&few).unwrap());
    for key in [StateKey::Totals, StateKey::Params] {
        assert_eq!(all.value(&key.to_bytes()).unwrap(), few.value(&key.to_bytes()).unwrap());
    }
    for height in 1..=160 {
        let height = Height::new(height);
        let block = all.block(height).unwrap().unwrap();
        let kept = few.block(height).unwrap();
        assert_eq!(kept.is_some(), height >= first, "block {height}");
        assert!(kept.is_none_or(|kept| kept == block));
        for signed in &block.block.body.transactions {
            let id = signed.transaction.id();
            let place = few.transaction(&id).unwrap();
            assert_eq!(place, all.transaction(&id).unwrap().filter(|_| place.is_some()), "{height}");
            assert!(place.is_some() || height < Height::new(80), "{height}: within the horizon");
        }
    }
}

#[test]
fn nothing_is_dropped_that_no_durable_snapshot_covers() {
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(1);
    let (mut store, _) = Store::open(folder.path(), &maker.genesis, options(Some(KEEP))).unwrap();
    let tip = maker.grow(&mut store, None, 120).unwrap();
    assert_eq!(store.reader().first(), Some(Height::new(1)), "no snapshot, no pruning");
    assert!(store.make_snapshot().unwrap());
    store.wait_for_snapshot();
    maker.grow(&mut store, tip, 40).unwrap();
    assert_eq!(store.reader().first(), Some(Height::new(1)), "one snapshot alone may turn out damaged");
}

#[test]
fn a_pruned_node_makes_its_state_again_from_the_snapshot_and_the_log_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(1);
    let tip = grown(folder.path(), &maker, Some(KEEP));
    assert!(first(folder.path(), &maker, Some(KEEP)) > 20);
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    let (mut store, recovered) = Store::open(folder.path(), &maker.genesis, options(Some(KEEP))).unwrap();
    let report = recovered.rebuilt.unwrap();
    assert_eq!((report.blocks, report.height.get()), (40, 160), "from the newest snapshot on");
    assert_eq!(tree::root(&store.reader()).unwrap(), tip.block.header.state_root);
    maker.grow(&mut store, recovered.tip, 5).unwrap();
}
