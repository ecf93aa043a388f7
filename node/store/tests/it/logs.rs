//! The block log: torn tails, truncations, flipped bits.

use std::fs;
use std::path::{Path, PathBuf};

use tiltyard_keys::GenesisHash;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::units::Height;
use tiltyard_store::StoreError;
use tiltyard_store::log::{BlockLog, ScanDepth};

use crate::chain::{Maker, plain};

const SMALL_SEGMENT: u32 = 4 * 1024;

fn open(folder: &Path, network: &GenesisHash) -> Result<BlockLog, StoreError> {
    BlockLog::open(folder, network, SMALL_SEGMENT, ScanDepth::Quick)
}

fn open_full(folder: &Path, network: &GenesisHash) -> Result<BlockLog, StoreError> {
    BlockLog::open(folder, network, SMALL_SEGMENT, ScanDepth::Full)
}

fn fill(folder: &Path, count: u64) -> (GenesisHash, Vec<DecidedBlock>) {
    let genesis = Maker::new(1).genesis;
    let mut log = open(folder, &genesis.hash()).unwrap();
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

/// Opens and reads everything back.
fn read_all(folder: &Path, network: &GenesisHash) -> Result<Vec<DecidedBlock>, StoreError> {
    let reader = open(folder, network)?.reader();
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
    let mut log = open(folder.path(), &network).unwrap();
    assert!(matches!(log.append(&blocks[2]), Err(StoreError::NotNext { .. })));
    assert!(matches!(log.append(&blocks[0]), Err(StoreError::NotNext { .. })));
}

#[test]
fn another_networks_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 3);
    let other = Maker::new(2).genesis.hash();
    let error = open(folder.path(), &other).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
}

#[test]
fn every_truncation_of_acknowledged_blocks_is_told_and_what_is_left_stays_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 14);
    let last = segments(folder.path()).pop().unwrap();
    let (whole, tip) = (fs::read(&last).unwrap(), fs::read(folder.path().join("tip")).unwrap());
    let first_there: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    for length in (0..whole.len()).step_by(3) {
        fs::write(&last, &whole[..length]).unwrap();
        fs::write(folder.path().join("tip"), &tip).unwrap();
        let mut log = open(folder.path(), &network).unwrap();
        let left = log.tip().unwrap().get();
        assert!((first_there - 1..14).contains(&left), "cut to {length}: {left} blocks are left");
        assert_eq!(log.report().lost, Some((Height::new(left + 1), Height::new(14))), "cut to {length}");
        let reader = log.reader();
        for (at, block) in blocks.iter().enumerate().take(usize::try_from(left).unwrap()) {
            assert_eq!(reader.block(Height::new(at as u64 + 1)).unwrap().as_ref(), Some(block));
        }
        if length % 64 == 0 {
            for block in &blocks[usize::try_from(left).unwrap()..] {
                log.append(block).unwrap();
            }
            assert_eq!(read_all(folder.path(), &network).unwrap(), blocks, "cut to {length}");
        }
        fs::remove_dir_all(folder.path().join("aside")).ok();
        for path in segments(folder.path()).into_iter().filter(|path| *path > last) {
            fs::remove_file(path).unwrap();
        }
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
    open(folder.path(), &network).unwrap().append(&next).unwrap();
    let after = fs::read(&last).unwrap();
    for length in before.len()..after.len() {
        // What a kill in the middle of the append leaves: a part of the record, the tip not yet noted.
        fs::write(&last, &after[..length]).unwrap();
        fs::write(folder.path().join("tip"), &tip).unwrap();
        assert_eq!(read_all(folder.path(), &network).unwrap(), blocks, "cut to {length}");
        let mut log = open(folder.path(), &network).unwrap();
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

/// Puts the missing blocks back, the highest run first, as peers would give them.
fn refetch(log: &mut BlockLog, blocks: &[DecidedBlock]) {
    while let Some(run) = log.reader().missing_run().unwrap() {
        let decided = &blocks[usize::try_from(run.to.get() - 1).unwrap()];
        assert_eq!(decided.block.hash(), run.hash);
        assert!(log.patch(decided).unwrap());
    }
}

#[test]
fn every_damaged_byte_is_found_and_the_log_is_whole_again_with_what_peers_have() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 10);
    assert_eq!(segments(folder.path()).len(), 2, "the test wants a closed and an open segment");
    let tip = fs::read(folder.path().join("tip")).unwrap();
    for path in segments(folder.path()) {
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(13) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            fs::write(folder.path().join("tip"), &tip).unwrap();
            let mut log = open_full(folder.path(), &network).unwrap();
            let report = log.report().clone();
            assert!(!report.damage.is_empty(), "byte {at} of {}", path.display());
            let left = usize::try_from(log.tip().unwrap().get()).unwrap();
            assert_eq!(report.lost.is_some(), left < blocks.len());
            for block in &blocks[left..] {
                log.append(block).unwrap();
            }
            refetch(&mut log, &blocks);
            drop(log);
            assert_eq!(read_all(folder.path(), &network).unwrap(), blocks, "byte {at} of {}", path.display());
            fs::remove_file(folder.path().join("patches")).unwrap();
            fs::remove_dir_all(folder.path().join("aside")).ok();
        }
        fs::write(&path, &whole).unwrap();
    }
    // The places beside the segment still tell of the damage: a full reading makes them anew.
    drop(open_full(folder.path(), &network).unwrap());
    assert_eq!(read_all(folder.path(), &network).unwrap(), blocks);
}

#[test]
fn a_block_that_its_successor_does_not_name_is_not_taken_for_a_missing_one() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 6);
    let first = segments(folder.path()).remove(0);
    let mut bytes = fs::read(&first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&first, &bytes).unwrap();
    let mut log = open_full(folder.path(), &network).unwrap();
    let run = log.reader().missing_run().unwrap().unwrap();
    let mut other = blocks[usize::try_from(run.to.get() - 1).unwrap()].clone();
    other.block.header.time = tiltyard_proto::units::UnixMillis::new(77);
    assert!(matches!(log.patch(&other), Err(StoreError::NotNext { .. })));
    assert!(
        !log.patch(&blocks[0]).unwrap() || run.to.get() == 1,
        "a block that is not missing is left alone"
    );
    refetch(&mut log, &blocks);
    assert_eq!(log.reader().missing_count(), 0);
}

#[test]
fn closed_segments_are_not_read_when_the_log_opens() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 60);
    let closed = segments(folder.path()).remove(1);
    let mut bytes = fs::read(&closed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&closed, &bytes).unwrap();
    let mut log = open(folder.path(), &network).unwrap();
    assert!(log.report().damage.is_empty(), "a quick start does not look at closed segments");
    let reader = log.reader();
    let damaged: Vec<u64> = (1..=60).filter(|height| reader.block(Height::new(*height)).is_err()).collect();
    assert_eq!(damaged.len(), 1, "the damaged block is found when it is read");
    assert_eq!(reader.take_met().len(), 1);
    assert_eq!(reader.block(Height::new(damaged[0])).unwrap(), None, "from then on it is missing");
    refetch(&mut log, &blocks);
    assert_eq!(read_all(folder.path(), &network).unwrap(), blocks);
}

#[test]
fn damage_under_a_running_reader_is_found_when_the_block_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 8);
    let reader = open(folder.path(), &network).unwrap().reader();
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
fn a_lost_segment_in_the_middle_is_had_again() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 40);
    fs::remove_file(&segments(folder.path())[1]).unwrap();
    let mut log = open(folder.path(), &network).unwrap();
    assert!(log.reader().missing_count() > 3, "{:?}", log.report());
    assert_eq!(log.tip(), Some(Height::new(40)));
    refetch(&mut log, &blocks);
    drop(log);
    assert_eq!(read_all(folder.path(), &network).unwrap(), blocks);
}

#[test]
fn pruned_segments_are_gone_and_the_rest_reads_and_opens_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let (network, blocks) = fill(folder.path(), 60);
    let mut log = open(folder.path(), &network).unwrap();
    assert_eq!(log.prune(Height::new(2)).unwrap(), Some(Height::new(1)), "no whole segment lies below");
    let before = segments(folder.path()).len();
    let first = log.prune(Height::new(30)).unwrap().unwrap();
    assert!(first > Height::new(15) && first <= Height::new(30), "{first}");
    assert!(segments(folder.path()).len() < before);
    let reader = log.reader();
    assert_eq!((reader.first(), reader.tip()), (Some(first), Some(Height::new(60))));
    assert_eq!(reader.block(Height::new(3)).unwrap(), None);
    let genesis = Maker::new(1).genesis;
    let mut more = plain(&genesis, 61, blocks[59].block.hash());
    for height in 61..90 {
        log.append(&more).unwrap();
        more = plain(&genesis, height + 1, more.block.hash());
    }
    log.prune(Height::new(1_000)).unwrap();
    assert_eq!(segments(folder.path()).len(), 1, "the newest segment is never removed");
    let kept = reader.first().unwrap();
    drop(log);
    let log = open_full(folder.path(), &network).unwrap();
    assert_eq!((log.reader().first(), log.tip()), (Some(kept), Some(Height::new(89))));
    for height in kept.get()..=89 {
        assert_eq!(
            log.reader().block(Height::new(height)).unwrap().unwrap().block.header.height.get(),
            height
        );
    }
}
