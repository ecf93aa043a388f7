//! The block log: torn tails, truncations, flipped bits.

use std::fs;
use std::path::{Path, PathBuf};

use tiltyard_keys::GenesisHash;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::units::Height;
use tiltyard_store::StoreError;
use tiltyard_store::log::BlockLog;

use crate::chain::{Maker, plain};

const SMALL_SEGMENT: u32 = 4 * 1024;

fn fill(folder: &Path, count: u64) -> (GenesisHash, Vec<DecidedBlock>) {
    let genesis = Maker::new(1).genesis;
    let mut log = BlockLog::open(folder, &genesis.hash(), SMALL_SEGMENT).unwrap();
    let mut blocks: Vec<DecidedBlock> = Vec::new();
    for height in 1..=count {
        let parent = blocks.last().map_or(genesis.block_hash(), |last| last.block.hash());
        let block = plain(&genesis, height, parent);
        log.append(&block).unwrap();
        blocks.push(block);
    }
    (genesis.hash(), blocks)
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .collect();
    found.sort();
    found
}

fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::DamagedBlock { .. } | StoreError::Damaged { .. })
}

/// Opens and reads everything back.
fn read_all(folder: &Path, network: &GenesisHash) -> Result<Vec<DecidedBlock>, StoreError> {
    let reader = BlockLog::open(folder, network, SMALL_SEGMENT)?.reader();
    let tip = reader.tip().unwrap_or(Height::ZERO);
    (1..=tip.get()).map(|height| reader.block(Height::new(height)).map(Option::unwrap)).collect()
}

#[test]
fn blocks_come_back_over_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 60);
    assert!(segments(folder.path()).len() > 3, "the test needs several segments");
    assert_eq!(read_all(folder.path(), &network).unwrap(), blocks);
}

#[test]
fn a_block_that_does_not_follow_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 3);
    let mut log = BlockLog::open(folder.path(), &network, SMALL_SEGMENT).unwrap();
    assert!(matches!(log.append(&blocks[2]), Err(StoreError::NotNext { .. })));
    assert!(matches!(log.append(&blocks[0]), Err(StoreError::NotNext { .. })));
}

#[test]
fn another_networks_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 3);
    let other = Maker::new(2).genesis.hash();
    let error = BlockLog::open(folder.path(), &other, SMALL_SEGMENT).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
}

#[test]
fn every_truncation_of_acknowledged_blocks_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (network, _) = fill(folder.path(), 14);
    let last = segments(folder.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    for length in 0..whole.len() {
        fs::write(&last, &whole[..length]).unwrap();
        let error = BlockLog::open(folder.path(), &network, SMALL_SEGMENT).unwrap_err();
        assert!(is_damage(&error), "cut to {length}: {error}");
        assert_eq!(fs::read(&last).unwrap().len(), length, "damage is reported, not repaired in silence");
    }
}

#[test]
fn a_torn_unacknowledged_tail_is_cut_off_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 3);
    let last = segments(folder.path()).pop().unwrap();
    let before = fs::read(&last).unwrap();
    let tip = fs::read(folder.path().join("tip")).unwrap();
    let genesis = Maker::new(1).genesis;
    let next = plain(&genesis, 4, blocks[2].block.hash());
    BlockLog::open(folder.path(), &network, SMALL_SEGMENT).unwrap().append(&next).unwrap();
    let after = fs::read(&last).unwrap();
    for length in before.len()..after.len() {
        // What a kill in the middle of the append leaves: a part of the record, the tip not yet noted.
        fs::write(&last, &after[..length]).unwrap();
        fs::write(folder.path().join("tip"), &tip).unwrap();
        assert_eq!(read_all(folder.path(), &network).unwrap(), blocks, "cut to {length}");
        let mut log = BlockLog::open(folder.path(), &network, SMALL_SEGMENT).unwrap();
        log.append(&next).unwrap();
        assert_eq!(log.tip(), Some(Height::new(4)));
    }
    // What a power cut may leave: the length is there, the sectors from some boundary on are not.
    let sectors = (before.len().next_multiple_of(512)..after.len()).step_by(512);
    for from in sectors.chain([before.len()]) {
        let mut zeroed = after.clone();
        zeroed[from..].fill(0);
        fs::write(&last, &zeroed).unwrap();
        fs::write(folder.path().join("tip"), &tip).unwrap();
        assert_eq!(read_all(folder.path(), &network).unwrap(), blocks, "zeros from {from}");
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 10);
    assert_eq!(segments(folder.path()).len(), 2, "the test wants a closed and an open segment");
    for path in segments(folder.path()) {
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let error = BlockLog::open(folder.path(), &network, SMALL_SEGMENT).unwrap_err();
            assert!(is_damage(&error), "byte {at} of {}: {error}", path.display());
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(read_all(folder.path(), &network).unwrap(), blocks);
}

#[test]
fn damage_under_a_running_reader_is_found_when_the_block_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 8);
    let reader = BlockLog::open(folder.path(), &network, SMALL_SEGMENT).unwrap().reader();
    let first = segments(folder.path()).remove(0);
    let mut bytes = fs::read(&first).unwrap();
    let at = bytes.len() - 10;
    bytes[at] ^= 0x40;
    fs::write(&first, &bytes).unwrap();
    let damaged = (1..=8).filter(|height| reader.block(Height::new(*height)).is_err()).count();
    assert_eq!(damaged, 1);
    assert_eq!(reader.block(Height::new(1)).unwrap().as_ref(), blocks.first());
}

#[test]
fn a_lost_segment_in_the_middle_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (network, _) = fill(folder.path(), 40);
    fs::remove_file(&segments(folder.path())[1]).unwrap();
    assert!(is_damage(&BlockLog::open(folder.path(), &network, SMALL_SEGMENT).unwrap_err()));
}
