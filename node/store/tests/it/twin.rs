//! The store in memory answers as the one on disk does.

use proptest::prelude::*;
use tiltyard_ledger::{StateRead, tree};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::state::StateKey;
use tiltyard_proto::units::Height;
use tiltyard_store::memory::{Durability, MemoryStore};
use tiltyard_store::{ChainRead, ChainStore, Recovered, Store, StoreOptions};

use crate::chain::Maker;

/// One thing that a node does with its store.
#[derive(Debug, Clone)]
enum Step {
    Commit(u64),
    Body(u8),
    Journal(u8),
    Reset(u8),
    Role(u8, u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..4).prop_map(Step::Commit),
        (0u8..3).prop_map(Step::Body),
        any::<u8>().prop_map(Step::Journal),
        any::<u8>().prop_map(Step::Reset),
        (0u8..3, 0u8..3).prop_map(|(key, value)| Step::Role(key, value)),
        Just(Step::Restart),
    ]
}

/// Applies a step; commits continue the reader's own tip.
fn apply<S: ChainStore>(maker: &Maker, store: &mut S, step: &Step) {
    let reader = store.reader();
    let tip = reader.block(reader.tip()).unwrap();
    match step {
        Step::Commit(transfers) => {
            let made = maker.next(&reader, tip.as_ref(), *transfers);
            store.commit(made.commit()).unwrap();
        }
        Step::Body(name) => {
            let height = Height::new(reader.tip().get() + 1 + u64::from(*name % 2));
            store.save_body(BlockHash::from_bytes([*name; 32]), height, &[*name; 9]).unwrap();
        }
        Step::Journal(entry) => store.journal(&[*entry]).unwrap(),
        Step::Reset(entry) => store.reset_journal(&[*entry]).unwrap(),
        Step::Role(key, value) => store.save_role(&[*key], &vec![1; usize::from(*value)]).unwrap(),
        Step::Restart => {}
    }
}

fn compare(disk: &Recovered, memory: &Recovered) {
    assert_eq!(disk.tip, memory.tip);
    assert_eq!(disk.journal, memory.journal);
    assert_eq!(disk.bodies, memory.bodies);
    assert_eq!(disk.roles, memory.roles);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

    #[test]
    fn disk_and_memory_agree_after_any_steps(steps in prop::collection::vec(step(), 1..25)) {
        let maker = Maker::new(1);
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path(), &maker.genesis, StoreOptions::default()).unwrap();
        let (mut disk, _) = open();
        let mut memory = MemoryStore::new(&maker.genesis, Durability::OnReturn).unwrap();
        for step in steps.iter().chain([&Step::Restart]) {
            apply(&maker, &mut disk, step);
            apply(&maker, &mut memory, step);
            if matches!(step, Step::Restart) {
                drop(disk);
                let (again, recovered) = open();
                disk = again;
                compare(&recovered, &memory.crash());
            }
            let (on_disk, in_memory) = (disk.reader(), memory.reader());
            prop_assert_eq!(tree::root(&on_disk).unwrap(), tree::root(&in_memory).unwrap());
            let totals = StateKey::Totals.to_bytes();
            prop_assert_eq!(on_disk.value(&totals).unwrap(), in_memory.value(&totals).unwrap());
            prop_assert_eq!(on_disk.first(), in_memory.first());
            prop_assert_eq!(on_disk.blocks(Height::new(1), 64, 10_000).unwrap(), in_memory.blocks(Height::new(1), 64, 10_000).unwrap());
        }
    }
}

#[test]
fn memory_forgets_what_was_not_synced() {
    let maker = Maker::new(1);
    let mut store = MemoryStore::new(&maker.genesis, Durability::OnSync).unwrap();
    let tip = maker.grow(&mut store, None, 3).unwrap();
    store.reset_journal(b"kept").unwrap();
    store.sync();
    maker.grow(&mut store, tip.clone(), 2).unwrap();
    store.journal(b"lost").unwrap();
    store.save_role(b"key", b"lost").unwrap();
    let recovered = store.crash();
    assert_eq!(recovered.tip, tip);
    assert_eq!(recovered.journal, vec![b"kept".to_vec()]);
    assert!(recovered.roles.is_empty());
    assert_eq!(store.reader().tip(), Height::new(3));
    assert_eq!(tree::root(&store.reader()).unwrap(), tip.unwrap().block.header.state_root);
}

#[test]
fn a_view_stands_still_while_blocks_are_waiting() {
    let maker = Maker::new(1);
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(folder.path(), &maker.genesis, StoreOptions::default()).unwrap();
    let first = maker.grow(&mut store, None, 1).unwrap().unwrap();
    let made = maker.next(&store.reader(), Some(&first), 3);
    let reader = store.reader();
    let view = reader.view();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| store.commit(made.commit()).unwrap());
        for _ in 0..200 {
            assert_eq!(view.height(), Height::new(1));
            let (value, proof) = tree::prove(&view, &StateKey::Totals.to_bytes()).unwrap();
            let root = first.block.header.state_root;
            proof.verify(&root, &StateKey::Totals.to_bytes(), value.as_deref()).unwrap();
        }
        drop(view);
        writer.join().unwrap();
    });
    assert_eq!(reader.view().height(), Height::new(2));
}
