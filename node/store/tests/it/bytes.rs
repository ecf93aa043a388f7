//! What an empty block costs on disk, counted by the system for a process that does nothing else.

use std::fs;
use std::path::Path;

use tiltyard_proto::codec;
use tiltyard_store::{ChainStore, Store, StoreOptions};

use crate::chain::Maker;
use crate::child::{FACT, start};

const BLOCKS: u64 = 300;
/// What a validator of four writes into its journal at one height: the first batch with the proposal, then one before
/// each of its two votes.
const JOURNAL_BYTES: [usize; 3] = [420, 640, 640];
/// An empty block with its certificate, as it lies in the log with its frame, at 4 validators.
const LOG_BYTES_MAX: u64 = 1_536;
/// Everything that the process hands to the system for one empty block.
const WRITTEN_BYTES_MAX: u64 = 6 * 1_024;

fn written() -> u64 {
    let counters = fs::read_to_string("/proc/self/io").unwrap();
    let line = counters.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.trim().parse().unwrap()
}

/// Does what a validator does at each height, with nothing in the blocks.
pub(crate) fn commit_empty_blocks(folder: &Path) {
    let maker = Maker::with_validators(1, 4);
    let (mut store, _) = Store::open(folder, &maker.genesis, StoreOptions::default()).unwrap();
    // The first blocks make the files.
    let mut tip = maker.grow(&mut store, None, 4).unwrap().unwrap();
    let before = written();
    let mut block_bytes = 0u64;
    for _ in 0..BLOCKS {
        let made = maker.next(&store.reader(), Some(&tip), 0);
        let (block, height) = (&made.decided.block, made.decided.block.header.height);
        store.save_body(block.hash(), height, &block.encode()).unwrap();
        store.reset_journal(&[1; JOURNAL_BYTES[0]]).unwrap();
        store.journal(&[2; JOURNAL_BYTES[1]]).unwrap();
        store.journal(&[3; JOURNAL_BYTES[2]]).unwrap();
        store.commit(made.commit()).unwrap();
        block_bytes += codec::encode(&made.decided).len() as u64;
        tip = made.decided;
    }
    let bytes = written() - before;
    println!("{FACT}{} {}", bytes / BLOCKS, block_bytes / BLOCKS);
}

fn log_bytes(folder: &Path) -> u64 {
    let list = fs::read_dir(folder.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let segments = list.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    segments.map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn an_empty_block_writes_a_bounded_number_of_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, mut facts) = start("empty", folder.path(), None);
    let fact = facts.next().expect("the child tells what it wrote");
    assert!(child.wait().unwrap().success());
    let (written, block) = fact.split_once(' ').unwrap();
    let (written, block): (u64, u64) = (written.parse().unwrap(), block.parse().unwrap());
    let in_log = log_bytes(folder.path()) / (BLOCKS + 4);
    assert!(in_log < LOG_BYTES_MAX, "{in_log} bytes of log for a block of {block}");
    assert!(written < WRITTEN_BYTES_MAX, "{written} bytes for a block of {block}");
    // Each part of it counts: without the block in the log, or with one more copy of it, this would be another number.
    assert!(written > in_log + block, "{written} bytes are less than log and body together");
}
