#![allow(clippy::unwrap_used, reason = "a test that cannot get its ground ready has failed")]

use std::path::Path;

use tiltyard_keys::GenesisHash;
use tiltyard_ledger::{ChangeSet, tree};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Blocks, Height};

use super::*;
use crate::state::StateOptions;

const KEYS: u8 = 6;

fn open(folder: &Path) -> StateIndex {
    StateIndex::open(folder, StateOptions::default()).unwrap()
}

/// Changes that write some keys and remove others, different at every height.
fn next(index: &StateIndex, height: u64) -> (Marker, ChangeSet) {
    let turn = u8::try_from(height % 251).unwrap();
    let value = |key: u8| (key % 3 != turn % 3).then(|| vec![turn; 40]);
    let values = (0..KEYS).map(|key| (vec![key; 8], value(key))).collect();
    let changes = tree::update(index, values).unwrap();
    let marker = Marker {
        genesis: GenesisHash::from_bytes([0; 32]),
        height: Height::new(height),
        block: BlockHash::from_bytes([0; 32]),
        root: changes.state_root,
        tree_version: changes.tree_version.unwrap(),
    };
    (marker, changes)
}

fn grow(index: &StateIndex, heights: std::ops::RangeInclusive<u64>) {
    for height in heights {
        let (marker, changes) = next(index, height);
        index.write(marker, &changes, &[]);
    }
}

#[test]
fn a_write_that_was_cut_short_at_any_entry_is_done_again() {
    for cut in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let index = open(folder.path());
        grow(&index, 1..=3);
        index.settle().unwrap();
        grow(&index, 4..=9);
        let layer = index.next_layer().unwrap();
        let (marker, entries) = (layer.marker.unwrap(), layer.sorted());
        redo::write(folder.path(), &marker, &entries).unwrap();
        // As far as the entry, without the marker: then the process is gone.
        for (key, value) in entries.iter().take(cut) {
            match value {
                Some(value) => index.db.insert(key, *value).unwrap(),
                None => index.db.remove(key).unwrap(),
            };
        }
        index.sync().unwrap();
        let done = cut >= entries.len();
        drop(entries);
        drop(index);
        let index = open(folder.path());
        assert_eq!(index.marker(), Some(marker), "cut at {cut}");
        assert_eq!(index.root_of_values().unwrap(), marker.root, "cut at {cut}");
        assert_eq!(tree::root(&index).unwrap(), marker.root, "cut at {cut}");
        assert!(!index.is_doubtful());
        if done {
            assert!(cut > 10, "{cut} entries are hardly a layer");
            return;
        }
    }
}

#[test]
fn a_redo_file_that_is_not_whole_leaves_the_state_and_makes_it_doubtful() {
    let folder = tempfile::tempdir().unwrap();
    let index = open(folder.path());
    grow(&index, 1..=3);
    index.settle().unwrap();
    let before = index.marker();
    grow(&index, 4..=5);
    let layer = index.next_layer().unwrap();
    redo::write(folder.path(), &layer.marker.unwrap(), &layer.sorted()).unwrap();
    drop(index);
    let path = folder.path().join(redo::REDO);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let index = open(folder.path());
    assert_eq!(index.marker(), before);
    assert!(index.is_doubtful(), "only its content can tell whether the database was touched");
    assert_eq!(index.root_of_values().unwrap(), before.unwrap().root);
}

#[test]
fn readers_see_the_newest_block_whatever_is_written_already() {
    let folder = tempfile::tempdir().unwrap();
    let index = Arc::new(open(folder.path()));
    let twin_folder = tempfile::tempdir().unwrap();
    let twin = open(twin_folder.path());
    for height in 1..=2 * LAYER_BLOCKS + 5 {
        let (marker, changes) = next(&index, height);
        index.commit(marker, &changes, &[]).unwrap();
        twin.write(marker, &changes, &[]);
        twin.settle().unwrap();
        assert_eq!(tree::root(index.as_ref()).unwrap(), marker.root, "height {height}");
    }
    assert!(index.noted_height.load(Ordering::Relaxed) > 0, "a layer was written behind the blocks");
    index.settle().unwrap();
    assert_eq!(
        index.digest().unwrap(),
        twin.digest().unwrap(),
        "one write for many blocks leaves the same behind"
    );
}

#[test]
fn a_node_that_came_and_went_between_two_writes_is_never_written() {
    let counts = [Blocks::ZERO, Blocks::new(1_000)].map(|prune_after| {
        let folder = tempfile::tempdir().unwrap();
        let index =
            StateIndex::open(folder.path(), StateOptions { prune_after, ..StateOptions::default() }).unwrap();
        grow(&index, 1..=40);
        index.settle().unwrap();
        index.db.scan_prefix([NODE]).count()
    });
    assert!(counts[0] < 12 && counts[1] > 100, "{counts:?} nodes");
}
