//! The authenticated state: a Jellyfish Merkle tree over BLAKE3 (SPEC.md §6), behind our own types.
//!
//! A version is written only by a block that changes something, so that an idle chain writes no nodes. Nodes have the
//! byte form of the `jmt` library, which proves entries from them; changes are written by our own `batch`.

mod batch;
mod node;

use jmt::storage::{LeafNode, NodeKey, TreeReader};
use jmt::{JellyfishMerkleTree, KeyHash, OwnedValue, SimpleHasher, Version};
use tiltyard_proto::hash::plain;
use tiltyard_proto::ids::{MerkleRoot, StateRoot};
use tiltyard_proto::state_proof::{EMPTY_SUBTREE, ProofLeaf, StateProof};

use crate::changes::{ChangeSet, Values};
use crate::read::{ReadError, StateRead};
use batch::{Batch, Write, Written};
use node::{Node, node_key, take};

struct Blake3(blake3::Hasher);

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

/// Gives the tree library our store. Values are asked for only by proofs, which know the one they prove.
struct Reader<'a> {
    state: &'a dyn StateRead,
    proven: Option<&'a [u8]>,
}

impl TreeReader for Reader<'_> {
    fn get_node_option(&self, node_key: &NodeKey) -> anyhow::Result<Option<jmt::storage::Node>> {
        let key = borsh::to_vec(node_key)?;
        match self.state.node(&key)? {
            Some(bytes) => Ok(Some(borsh::from_slice(&bytes)?)),
            // The library takes a missing root for an empty tree: only before genesis may a node be missing.
            None if self.state.tree_version()?.is_none() => Ok(None),
            None => Err(ReadError::new(format!("node {node_key:?} is lost")).into()),
        }
    }

    fn get_value_option(&self, _: Version, _: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        Ok(self.proven.map(<[u8]>::to_vec))
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        Err(anyhow::Error::from(ReadError::new("the rightmost leaf is asked for by no operation in use")))
    }
}

fn unreadable(error: &anyhow::Error) -> ReadError {
    ReadError::new(format!("state tree: {error:#}"))
}

fn key_hash(key: &[u8]) -> KeyHash {
    KeyHash(plain(key))
}

/// Returns the root of the state; of the empty tree before genesis.
///
/// # Errors
/// [`ReadError`] when the store cannot tell or lost the root node.
pub fn root(state: &dyn StateRead) -> Result<StateRoot, ReadError> {
    let Some(version) = state.tree_version()? else {
        return Ok(StateRoot::from_bytes(EMPTY_SUBTREE));
    };
    match state.node(&node_key(version, &[0; 32], 0))? {
        Some(bytes) => Ok(StateRoot::from_bytes(Node::decode(&bytes)?.hash())),
        None => Err(ReadError::new(format!("root node of version {version} is lost"))),
    }
}

/// Computes the tree nodes for changed values; `values` holds no entry that stays as it was.
///
/// # Errors
/// [`ReadError`] when the store cannot tell or lost a node.
pub fn update(state: &dyn StateRead, values: Values) -> Result<ChangeSet, ReadError> {
    let last = state.tree_version()?;
    if values.is_empty() {
        let state_root = root(state)?;
        return Ok(ChangeSet {
            values,
            nodes: Vec::new(),
            stale: Vec::new(),
            tree_version: None,
            state_root,
        });
    }
    let version = match last {
        Some(last) => last.checked_add(1).ok_or_else(|| ReadError::new("tree version overflows"))?,
        None => 0,
    };
    let mut writes: Vec<Write> =
        values.iter().map(|(key, value)| (plain(key), value.as_deref().map(plain))).collect();
    writes.sort_unstable_by_key(|(key_hash, _)| *key_hash);
    let (root, Written { nodes, stale }) = Batch::new(state, version).apply(last, &writes)?;
    let state_root = StateRoot::from_bytes(root);
    Ok(ChangeSet { values, nodes, stale, tree_version: Some(version), state_root })
}

/// Returns the value of `key` with a proof of it, or of its absence, under [`root`].
///
/// # Errors
/// [`ReadError`] when the store cannot tell or lost a node.
pub fn prove(state: &dyn StateRead, key: &[u8]) -> Result<(Option<Vec<u8>>, StateProof), ReadError> {
    let value = state.value(key)?;
    let Some(version) = state.tree_version()? else {
        return Ok((value, StateProof { leaf: None, siblings: Vec::new() }));
    };
    // The library insists on a value for a leaf that it finds; an empty one stands in for a value that is missing.
    let reader = Reader { state, proven: Some(value.as_deref().unwrap_or_default()) };
    let (_, proof) = JellyfishMerkleTree::<_, Blake3>::new(&reader)
        .get_with_proof(key_hash(key), version)
        .map_err(|error| unreadable(&error))?;
    let bytes = borsh::to_vec(&proof).map_err(|error| ReadError::new(format!("state tree: {error}")))?;
    let proof = convert(&bytes).ok_or_else(|| ReadError::new("state tree: a proof of unknown form"))?;
    Ok((value, proof))
}

/// Reads the library's proof from its borsh form: an optional leaf, then siblings from the leaf up.
fn convert(bytes: &[u8]) -> Option<StateProof> {
    let mut rest = bytes;
    let leaf = match take(&mut rest)? {
        [0] => None,
        [1] => Some(ProofLeaf { key_hash: hash(&mut rest)?, value_hash: hash(&mut rest)? }),
        [_] => return None,
    };
    let count = u32::from_le_bytes(take(&mut rest)?);
    let mut siblings = Vec::new();
    for _ in 0..count {
        siblings.push(match take(&mut rest)? {
            [0] => MerkleRoot::from_bytes(EMPTY_SUBTREE),
            [1] => pair(b"JMT::IntrnalNode", &mut rest)?,
            [2] => pair(b"JMT::LeafNode", &mut rest)?,
            [_] => return None,
        });
    }
    rest.is_empty().then_some(StateProof { leaf, siblings })
}

fn hash(rest: &mut &[u8]) -> Option<MerkleRoot> {
    take::<32>(rest).map(MerkleRoot::from_bytes)
}

fn pair(domain: &[u8], rest: &mut &[u8]) -> Option<MerkleRoot> {
    let both = take::<64>(rest)?;
    Some(MerkleRoot::from_bytes(plain(&[domain, &both].concat())))
}
