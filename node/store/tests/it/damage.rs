//! The state index is made again, equal, whatever happens to it.

use std::fs;
use std::path::Path;

use tiltyard_ledger::tree;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::ids::StateRoot;
use tiltyard_proto::units::{Blocks, Height};
use tiltyard_store::{
    ChainRead, ChainStore, RebuildReport, ScanDepth, StateOptions, Store, StoreError, StoreOptions,
};

use crate::chain::Maker;

const BLOCKS: u64 = 12;

fn options() -> StoreOptions {
    let state = StateOptions { prune_after: Blocks::new(4), scrub_on_open: true, ..StateOptions::default() };
    StoreOptions {
        segment_bytes: 16 * 1024,
        reserve_bytes: 0,
        scan: ScanDepth::Full,
        state,
        ..StoreOptions::default()
    }
}

fn grown(folder: &Path, count: u64) -> (Maker, DecidedBlock) {
    let maker = Maker::new(1);
    let (mut store, recovered) = Store::open(folder, &maker.genesis, options()).unwrap();
    assert_eq!(recovered.rebuilt, None);
    let tip = maker.grow(&mut store, recovered.tip, count).unwrap().unwrap();
    (maker, tip)
}

fn reopen(folder: &Path, maker: &Maker) -> Result<(StateRoot, Height, Option<RebuildReport>), StoreError> {
    let (store, recovered) = Store::open(folder, &maker.genesis, options())?;
    let reader = store.reader();
    Ok((tree::root(&reader).unwrap(), reader.tip(), recovered.rebuilt))
}

#[test]
fn a_clean_store_opens_without_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let (maker, tip) = grown(folder.path(), BLOCKS);
    let found = reopen(folder.path(), &maker).unwrap();
    assert_eq!(found, (tip.block.header.state_root, tip.block.header.height, None));
}

#[test]
fn a_lost_index_is_made_again_with_the_same_root() {
    let folder = tempfile::tempdir().unwrap();
    let (maker, tip) = grown(folder.path(), BLOCKS);
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    let (root, height, report) = reopen(folder.path(), &maker).unwrap();
    assert_eq!((root, height), (tip.block.header.state_root, tip.block.header.height));
    let report = report.unwrap();
    assert_eq!((report.blocks, report.height.get()), (BLOCKS, BLOCKS));
    assert!(report.reason.is_some());
}

#[test]
fn an_index_that_is_behind_is_replayed_forward() {
    let folder = tempfile::tempdir().unwrap();
    let (maker, early) = grown(folder.path(), 5);
    let copy = tempfile::tempdir().unwrap();
    let old = copy.path().join("state");
    copy_folder(&folder.path().join("state"), &old);
    let (mut store, recovered) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    assert_eq!(recovered.tip.as_ref(), Some(&early));
    let tip = maker.grow(&mut store, recovered.tip, 7).unwrap().unwrap();
    drop(store);
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    copy_folder(&old, &folder.path().join("state"));
    let (root, height, report) = reopen(folder.path(), &maker).unwrap();
    assert_eq!((root, height), (tip.block.header.state_root, tip.block.header.height));
    assert_eq!(report, Some(RebuildReport { reason: None, blocks: 7, height: tip.block.header.height }));
}

#[test]
fn an_index_ahead_of_a_log_that_lost_its_end_is_made_anew_from_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (maker, tip) = grown(folder.path(), 5);
    let path = folder.path().join("log/00000000000000000001.log");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (mut store, recovered) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    let found = recovered.tip.unwrap();
    assert_eq!(found.block.header.height, Height::new(4));
    assert_eq!(found.block.hash(), tip.block.header.parent);
    assert_eq!(recovered.damage.log.lost, Some((Height::new(5), Height::new(5))));
    assert_eq!(recovered.damage.log.damage[0].height, Height::new(5));
    let kept = fs::read(&recovered.damage.log.aside[0]).unwrap();
    assert!(bytes.ends_with(&kept) && !kept.is_empty(), "the damaged record is kept aside");
    assert!(recovered.rebuilt.unwrap().reason.is_some());
    assert_eq!(tree::root(&store.reader()).unwrap(), found.block.header.state_root);
    // The lost block comes from a peer and the chain goes on.
    maker.grow(&mut store, Some(found), 3).unwrap();
}

#[test]
fn a_damaged_index_never_leads_to_another_state() {
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(1);
    let (mut store, _) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    let mut tip = maker.grow(&mut store, None, BLOCKS).unwrap().unwrap();
    // Enough for several of sled's segments: damage in a single one is only a shorter log to it.
    for _ in 0..12 {
        let made = maker.next(&store.reader(), Some(&tip), 100);
        store.commit(made.commit()).unwrap();
        tip = made.decided;
    }
    let state = folder.path().join("state");
    let kept = tempfile::tempdir().unwrap();
    // What lies there while the node runs is what a kill leaves; a clean end leaves a snapshot beside it.
    copy_folder(&state, &kept.path().join("killed"));
    drop(store);
    copy_folder(&state, &kept.path().join("closed"));
    let (mut rebuilt, mut replayed) = (0, 0);
    let mut random = 0x77_5eed_u64;
    for case in 0..24 {
        fs::remove_dir_all(&state).unwrap();
        let end = if case / 4 % 2 == 0 { "killed" } else { "closed" };
        copy_folder(&kept.path().join(end), &state);
        mutilate(&state, case, &mut random);
        let (root, height, report) = reopen(folder.path(), &maker).unwrap();
        assert_eq!((root, height), (tip.block.header.state_root, tip.block.header.height), "case {case}");
        match report {
            Some(RebuildReport { reason: Some(_), .. }) => rebuilt += 1,
            Some(RebuildReport { reason: None, .. }) => replayed += 1,
            None => {}
        }
    }
    assert!(
        rebuilt >= 2 && rebuilt + replayed >= 8,
        "the damage must have been felt: {rebuilt} and {replayed} of 24"
    );
}

/// Cuts, zeroes or flips some of what sled wrote.
fn mutilate(state: &Path, case: u32, random: &mut u64) {
    let mut draw = |below: usize| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*random >> 33).unwrap() % below.max(1)
    };
    let path = state.join("db");
    let mut bytes = fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    match case % 4 {
        0 => {
            let at = draw(used);
            bytes[at] ^= 1 << draw(8);
        }
        1 => bytes.truncate(draw(used)),
        2 => {
            let from = draw(used);
            bytes[from..].fill(0);
        }
        _ => {
            for entry in fs::read_dir(state).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().to_str().unwrap().starts_with("snap.") {
                    fs::write(&path, b"").unwrap();
                }
            }
            fs::write(state.join("snap.0000000000000000.generating"), b"").unwrap();
            let at = draw(used);
            bytes[at] ^= 1 << draw(8);
        }
    }
    fs::write(&path, &bytes).unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn a_folder_of_another_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    grown(folder.path(), 2);
    let error = reopen(folder.path(), &Maker::new(2)).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(1);
    let (store, _) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    let error = Store::open(folder.path(), &maker.genesis, options()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(store);
    Store::open(folder.path(), &maker.genesis, options()).unwrap();
}

#[test]
fn a_block_that_contradicts_itself_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(1);
    let (mut store, _) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    let good = maker.next(&store.reader(), None, 2);
    let mut bad = maker.next(&store.reader(), None, 2);
    bad.changes.state_root = StateRoot::from_bytes([1; 32]);
    assert!(matches!(store.commit(bad.commit()), Err(StoreError::NotNext { .. })));
    let mut bad = maker.next(&store.reader(), None, 2);
    bad.outcomes.pop();
    assert!(matches!(store.commit(bad.commit()), Err(StoreError::NotNext { .. })));
    store.commit(good.commit()).unwrap();
    assert!(matches!(store.commit(good.commit()), Err(StoreError::NotNext { .. })));
    assert_eq!(store.reader().tip(), Height::new(1));
}

#[test]
fn an_index_that_failed_in_use_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (maker, tip) = grown(folder.path(), 4);
    fs::write(folder.path().join("state/rebuild"), b"").unwrap();
    let (root, _, report) = reopen(folder.path(), &maker).unwrap();
    assert_eq!(root, tip.block.header.state_root);
    assert_eq!(report.unwrap().blocks, 4);
    assert_eq!(reopen(folder.path(), &maker).unwrap().2, None);
}

#[test]
fn a_damaged_block_is_named_and_had_again() {
    let folder = tempfile::tempdir().unwrap();
    let (maker, tip) = grown(folder.path(), BLOCKS);
    let path = folder.path().join("log/00000000000000000001.log");
    let other = tempfile::tempdir().unwrap();
    copy_folder(folder.path(), other.path());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (mut store, recovered) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    assert_eq!(recovered.tip, Some(tip.clone()));
    let damage = &recovered.damage.log.damage[0];
    assert!(damage.height > Height::new(1) && damage.offset <= at as u64 && (at as u64) < damage.end);
    assert_eq!(recovered.damage.missing_blocks, 1);
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing is dropped");
    let (peer, _) = Store::open(other.path(), &maker.genesis, options()).unwrap();
    let run = store.missing_run().unwrap().unwrap();
    let decided = peer.reader().block(run.to).unwrap().unwrap();
    assert!(store.patch(&decided).unwrap());
    assert_eq!(store.missing_run().unwrap(), None);
    drop(store);
    let (store, recovered) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    assert_eq!(recovered.damage.missing_blocks, 0);
    let (ours, theirs) = (store.reader(), peer.reader());
    for height in 1..=BLOCKS {
        let height = Height::new(height);
        assert_eq!(ours.block(height).unwrap().unwrap().block, theirs.block(height).unwrap().unwrap().block);
    }
}

#[test]
fn with_log_and_index_damaged_the_log_is_kept_up_to_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (maker, _) = grown(folder.path(), BLOCKS);
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    let path = folder.path().join("log/00000000000000000001.log");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (mut store, recovered) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    let (from, to) = recovered.damage.log.lost.unwrap();
    assert_eq!(to, Height::new(BLOCKS));
    assert_eq!(store.reader().tip().next(), from);
    assert!(store.reader().tip() > Height::new(2), "what stood before the damage is used");
    assert!(!recovered.damage.log.aside.is_empty());
    maker.grow(&mut store, recovered.tip, 3).unwrap();
}

#[test]
fn a_damaged_journal_is_set_aside_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(1);
    let (mut store, _) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    store.reset_journal(b"vote one").unwrap();
    store.journal(b"vote two").unwrap();
    drop(store);
    let path = folder.path().join("journal");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (store, recovered) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    let salvage = recovered.damage.journal.unwrap();
    assert_eq!(fs::read(&salvage.kept).unwrap(), bytes);
    assert_eq!(recovered.journal, Vec::<Vec<u8>>::new());
    drop(store);
    assert_eq!(Store::open(folder.path(), &maker.genesis, options()).unwrap().1.damage.journal, None);
}

#[test]
fn damaged_bodies_take_the_journal_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(1);
    let (mut store, _) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    let name = tiltyard_proto::ids::BlockHash::from_bytes([7; 32]);
    store.save_body(name, Height::new(1), b"voted for").unwrap();
    store.reset_journal(b"the vote").unwrap();
    drop(store);
    let path = folder.path().join("bodies");
    let mut bytes = fs::read(&path).unwrap();
    bytes[95] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (_, recovered) = Store::open(folder.path(), &maker.genesis, options()).unwrap();
    assert!(recovered.damage.bodies.is_some());
    assert_eq!(recovered.journal, Vec::<Vec<u8>>::new(), "a journal without its bodies is not gone on with");
    assert!(folder.path().join("aside/journal.0").exists(), "and not dropped");
}

/// Counts entries of the index under a prefix.
fn count(folder: &Path, prefix: &[u8]) -> usize {
    sled::open(folder.join("state")).unwrap().scan_prefix(prefix).count()
}

#[test]
fn stale_nodes_are_pruned_behind_the_horizon() {
    let folders = [u64::MAX, 4, 0].map(|horizon| (tempfile::tempdir().unwrap(), horizon));
    let maker = Maker::new(1);
    for (folder, horizon) in &folders {
        let state = StateOptions { prune_after: Blocks::new(*horizon), ..StateOptions::default() };
        let options = StoreOptions { state, ..options() };
        let (mut store, _) = Store::open(folder.path(), &maker.genesis, options).unwrap();
        maker.grow(&mut store, None, 40).unwrap();
    }
    let [all, few, none] = folders.each_ref().map(|(folder, _)| count(folder.path(), b"n"));
    let [all_stale, few_stale, no_stale] = folders.each_ref().map(|(folder, _)| count(folder.path(), b"z"));
    assert!(few * 2 < all, "{few} of {all} nodes are left");
    assert_eq!(all - few, all_stale - few_stale);
    assert_eq!((few - none, no_stale), (few_stale, 0), "without a horizon only what is needed is there");
    let [first, second, third] = folders.each_ref().map(|(folder, _)| reopen(folder.path(), &maker).unwrap());
    assert!(first == second && second == third);
}
