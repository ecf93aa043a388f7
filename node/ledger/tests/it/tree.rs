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

/// A tree over the library alone: what our own writer must agree with.
mod library {
    use std::collections::BTreeMap;

    use jmt::storage::{LeafNode, Node, NodeKey, TreeReader};
    use jmt::{JellyfishMerkleTree, KeyHash, OwnedValue, SimpleHasher, Version};

    pub(super) struct Blake3(blake3::Hasher);

    impl SimpleHasher for Blake3 {
        fn new() -> Self {
            Self(blake3::Hasher::new())
        }

        fn update(&mut self, data: &[u8]) {
            self.0.update(data);
        }

        fn finalize(self) -> [u8; 32] {
            *self.0.finalize().as_bytes()
        }
    }

    #[derive(Default)]
    pub(super) struct Tree {
        nodes: BTreeMap<NodeKey, Node>,
        version: Version,
    }

    impl TreeReader for Tree {
        fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
            Ok(self.nodes.get(key).cloned())
        }

        fn get_value_option(&self, _: Version, _: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
            Ok(None)
        }

        fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
            Ok(None)
        }
    }

    impl Tree {
        /// Writes one version and returns its root and the bytes of the nodes that it uses, versions left out.
        pub(super) fn write(&mut self, changes: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> [u8; 32] {
            let hashed = changes
                .iter()
                .map(|(key, value)| (KeyHash(*blake3::hash(key).as_bytes()), value.clone()))
                .collect::<Vec<_>>();
            let tree = JellyfishMerkleTree::<_, Blake3>::new(self);
            let (root, batch) = tree.put_value_set(hashed, self.version).expect("in memory");
            for stale in &batch.stale_node_index_batch {
                self.nodes.remove(&stale.node_key);
            }
            self.nodes.extend(batch.node_batch.nodes().clone());
            self.version += 1;
            root.0
        }

        pub(super) fn len(&self) -> usize {
            self.nodes.len()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Block for block the same roots and the same number of nodes as the tree library, which walks once for each entry.
    #[test]
    fn a_batch_leads_where_the_tree_library_leads(
        blocks in proptest::collection::vec(
            proptest::collection::btree_map(0u16..600, proptest::option::weighted(0.6, 0u8..4), 1..80), 1..10)
    ) {
        let mut state = MemoryState::new();
        let mut library = library::Tree::default();
        for block in blocks {
            let changes: BTreeMap<_, _> = block
                .into_iter()
                .map(|(key, value)| (key.to_be_bytes().to_vec(), value.map(|value| vec![value])))
                .filter(|(key, value)| state.value(key).expect("in memory") != *value)
                .collect();
            if changes.is_empty() {
                continue;
            }
            let root = library.write(&changes);
            let set = tree::update(&state, changes).expect("in memory");
            prop_assert_eq!(set.state_root.as_bytes(), &root);
            state.apply(&set);
            prop_assert_eq!(state.node_count(), library.len());
        }
        let entries: Vec<_> = state.entries().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        let root = tree::root(&state).expect("in memory");
        for (key, value) in entries {
            let (_, proof) = tree::prove(&state, &key).expect("in memory");
            proof.verify(&root, &key, Some(&value)).expect("the library reads what the batch wrote");
        }
    }
}

#[test]
fn a_node_on_the_way_of_many_changes_is_read_once() {
    struct Counting(MemoryState, std::cell::Cell<usize>);
    impl StateRead for Counting {
        fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, tiltyard_ledger::ReadError> {
            self.0.value(key)
        }
        fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, tiltyard_ledger::ReadError> {
            self.1.set(self.1.get() + 1);
            self.0.node(key)
        }
        fn tree_version(&self) -> Result<Option<u64>, tiltyard_ledger::ReadError> {
            self.0.tree_version()
        }
    }
    let entry = |at: u32, value: u8| (at.to_be_bytes().to_vec(), Some(vec![value]));
    let mut state = MemoryState::new();
    state.apply(&tree::update(&state, (0..4_000).map(|at| entry(at, 0)).collect()).expect("in memory"));
    let nodes = state.node_count();
    let counting = Counting(state, std::cell::Cell::new(0));
    tree::update(&counting, (0..4_000).map(|at| entry(at, 1)).collect()).expect("in memory");
    assert_eq!(counting.1.get(), nodes, "every node of the tree, each once");
}
