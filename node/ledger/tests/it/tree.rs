//! The authenticated state: one root however it was reached, and proofs that hold.

use proptest::prelude::*;
use std::collections::BTreeMap;
use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{Overlay, StateRead, query, tree};
use tiltyard_proto::state::StateKey;
use tiltyard_proto::state_proof::EMPTY_SUBTREE;
use tiltyard_proto::transaction::Action;

use crate::world::{World, key, micro};

fn rebuilt(state: &MemoryState) -> tiltyard_proto::ids::StateRoot {
    let all: BTreeMap<Vec<u8>, Option<Vec<u8>>> =
        state.entries().map(|(key, value)| (key.to_vec(), Some(value.to_vec()))).collect();
    tree::update(&MemoryState::new(), all).expect("in memory").state_root
}

#[test]
fn the_empty_tree_has_the_root_of_no_leaves() {
    let empty = MemoryState::new();
    assert_eq!(tree::root(&empty).expect("in memory").as_bytes(), &EMPTY_SUBTREE);
    let (value, proof) = tree::prove(&empty, b"any").expect("in memory");
    assert_eq!(value, None);
    proof.verify(&tree::root(&empty).expect("in memory"), b"any", None).expect("absent");
}

#[test]
fn an_empty_block_writes_nothing() {
    let mut world = World::new();
    let before = (world.state.clone(), world.root);
    world.advance(5);
    assert_eq!((world.state.clone(), world.root), before);
}

#[test]
fn every_entry_is_proved_and_no_other() {
    let mut world = World::new();
    for at in 0..20u64 {
        let to = key(&format!("receiver {at}"));
        world.act("a", Action::Transfer { to, amount: micro(at + 1) });
    }
    assert_eq!(rebuilt(&world.state), world.root);
    let entries: Vec<(Vec<u8>, Vec<u8>)> =
        world.state.entries().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    for (key, value) in &entries {
        let (found, proof) = tree::prove(&world.state, key).expect("in memory");
        assert_eq!(found.as_ref(), Some(value));
        proof.verify(&world.root, key, Some(value)).expect("the entry is there");
        proof.verify(&world.root, key, None).expect_err("a member is not absent");
        let mut other = value.clone();
        other[0] ^= 1;
        proof.verify(&world.root, key, Some(&other)).expect_err("another value");
    }
    for at in 0..50 {
        let stranger = StateKey::Account(key(&format!("stranger {at}")));
        let (found, proof) = query::prove(&world.state, &stranger).expect("in memory");
        assert_eq!(found, None);
        proof.verify(&world.root, &stranger.to_bytes(), None).expect("absent");
        proof.verify(&world.root, &stranger.to_bytes(), Some(b"x")).expect_err("no value");
    }
}

#[test]
fn overlays_stack_and_read_like_the_state_they_lead_to() {
    let mut world = World::new();
    let first = tiltyard_ledger::execute(
        &world.state,
        &world.context(),
        &world.sign_all(&[("a", Action::Transfer { to: key("b"), amount: micro(5) })]),
    )
    .expect("valid");
    let base = world.state.clone();
    world.state.apply(&first.changes);
    world.height = world.height.next();
    let signed = world.sign_all(&[("b", Action::Transfer { to: key("newcomer"), amount: micro(7) })]);
    let lower = Overlay::new(&base, &first.changes);
    let over = tiltyard_ledger::execute(&lower, &world.context(), &signed).expect("valid");
    let direct = tiltyard_ledger::execute(&world.state, &world.context(), &signed).expect("valid");
    assert_eq!(over.changes, direct.changes);
    let upper = Overlay::new(&lower, &over.changes);
    assert_eq!(query::account(&upper, &key("newcomer")).expect("readable").balance, micro(7));
    assert_eq!(tree::root(&upper).expect("readable"), over.changes.state_root);
    assert_eq!(upper.tree_version(), Ok(Some(2)));
}

#[test]
fn a_lost_node_is_a_read_error_and_no_panic() {
    struct Lossy(MemoryState);
    impl StateRead for Lossy {
        fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, tiltyard_ledger::ReadError> {
            self.0.value(key)
        }
        fn node(&self, _: &[u8]) -> Result<Option<Vec<u8>>, tiltyard_ledger::ReadError> {
            Ok(None)
        }
        fn tree_version(&self) -> Result<Option<u64>, tiltyard_ledger::ReadError> {
            self.0.tree_version()
        }
    }
    let world = World::new();
    let lossy = Lossy(world.state.clone());
    tree::root(&lossy).expect_err("the root node is gone");
    tree::prove(&lossy, b"x").expect_err("the root node is gone");
    let signed = world.sign_all(&[("a", Action::Transfer { to: key("b"), amount: micro(5) })]);
    let error = tiltyard_ledger::execute(&lossy, &world.context(), &signed).expect_err("unreadable");
    assert!(matches!(error, tiltyard_ledger::ExecuteError::Read(_)), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Writes and removals in any order lead to the root of what is left.
    #[test]
    fn the_incremental_root_is_the_root_of_the_sorted_leaves(
        blocks in proptest::collection::vec(
            proptest::collection::btree_map(0u8..40, proptest::option::of(0u8..4), 0..12), 1..12)
    ) {
        let mut state = MemoryState::new();
        for block in blocks {
            let changes: BTreeMap<_, _> = block
                .into_iter()
                .map(|(key, value)| (vec![key], value.map(|value| vec![value])))
                .filter(|(key, value)| state.value(key).expect("in memory") != *value)
                .collect();
            let empty = changes.is_empty();
            let set = tree::update(&state, changes).expect("in memory");
            prop_assert_eq!(set.tree_version.is_none(), empty);
            state.apply(&set);
            prop_assert_eq!(set.state_root, rebuilt(&state));
            prop_assert_eq!(tree::root(&state).expect("in memory"), set.state_root);
        }
        // Nothing stale is kept: a binary tree of n leaves in nibbles has fewer than 2n nodes, and a root.
        prop_assert!(state.node_count() <= 2 * state.entries().count() + 1);
    }
}
