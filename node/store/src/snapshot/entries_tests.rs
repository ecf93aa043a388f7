#![allow(clippy::unwrap_used, reason = "a test that cannot get its ground ready has failed")]

use tiltyard_keys::GenesisHash;
use tiltyard_ledger::tree;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::Height;

use super::*;
use crate::state::{Marker, StateOptions};

fn write(index: &StateIndex, height: u64, changes: &[(u32, Option<u8>)]) {
    let values = changes
        .iter()
        .map(|(key, value)| (format!("key {key}").into_bytes(), value.map(|byte| vec![byte; 700])))
        .collect();
    let changes = tree::update(index, values).unwrap();
    let marker = Marker {
        genesis: GenesisHash::from_bytes([0; 32]),
        height: Height::new(height),
        block: BlockHash::from_bytes([0; 32]),
        root: changes.state_root,
        tree_version: changes.tree_version.unwrap(),
    };
    index.write(marker, &changes, &[]);
    index.settle().unwrap();
}

#[test]
fn the_state_of_one_moment_is_read_to_its_end_while_entries_change_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let index = StateIndex::open(folder.path(), StateOptions::default()).unwrap();
    // Several windows of entries.
    let first: Vec<(u32, Option<u8>)> = (0..6_000).map(|key| (key, Some(1))).collect();
    write(&index, 1, &first);
    let before: Vec<SnapshotEntry> = Entries::newest(&index).map(Result::unwrap).collect();
    assert_eq!(before.len(), 6_000);
    index.keep_old(true).unwrap();
    let mut seen = Vec::new();
    for (at, entry) in Entries::undone(&index).enumerate() {
        seen.push(entry.unwrap());
        if at % 500 == 0 {
            let at = u32::try_from(at).unwrap();
            // Each round deletes entries of its own: what is gone is not deleted again.
            let gone = (0..50).map(|n| (at / 500 * 400 + n, None));
            let changes: std::collections::BTreeMap<u32, Option<u8>> = (0..200)
                .map(|n| (at / 2 + n * 7, Some(2)))
                .chain((0..50).map(|n| (10_000 + at + n, Some(3))))
                .chain(gone)
                .collect();
            let changes: Vec<(u32, Option<u8>)> = changes.into_iter().collect();
            write(&index, 2 + u64::from(at), &changes);
        }
    }
    assert_eq!(seen, before);
    assert_ne!(Entries::newest(&index).map(Result::unwrap).collect::<Vec<_>>(), before);
    index.keep_old(false).unwrap();
    assert_eq!(index.db().scan_prefix([UNDO]).count(), 0);
}
