//! State proofs against a tree built the plain way: split the sorted leaves by one bit a level.

use tiltyard_proto::hash::plain;
use tiltyard_proto::ids::{MerkleRoot, StateRoot};
use tiltyard_proto::state_proof::{EMPTY_SUBTREE, ProofLeaf, StateProof, StateProofError};

use crate::sample::Numbers;

/// Sorted leaves of a small state.
pub(crate) struct Tree {
    leaves: Vec<ProofLeaf>,
}

fn hashed(tag: &[u8], left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    plain(&[tag, left, right].concat())
}

fn bit(hash: &[u8; 32], depth: usize) -> bool {
    hash[depth / 8] >> (7 - depth % 8) & 1 == 1
}

fn subtree(leaves: &[ProofLeaf], depth: usize) -> [u8; 32] {
    match leaves {
        [] => EMPTY_SUBTREE,
        [leaf] => hashed(b"JMT::LeafNode", leaf.key_hash.as_bytes(), leaf.value_hash.as_bytes()),
        _ => {
            let split = leaves.partition_point(|leaf| !bit(leaf.key_hash.as_bytes(), depth));
            let (left, right) = leaves.split_at(split);
            hashed(b"JMT::IntrnalNode", &subtree(left, depth + 1), &subtree(right, depth + 1))
        }
    }
}

impl Tree {
    pub(crate) fn new(entries: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut leaves: Vec<ProofLeaf> = entries
            .iter()
            .map(|(key, value)| ProofLeaf {
                key_hash: MerkleRoot::from_bytes(plain(key)),
                value_hash: MerkleRoot::from_bytes(plain(value)),
            })
            .collect();
        leaves.sort_by_key(|leaf| leaf.key_hash);
        Self { leaves }
    }

    pub(crate) fn root(&self) -> StateRoot {
        StateRoot::from_bytes(subtree(&self.leaves, 0))
    }

    pub(crate) fn prove(&self, key: &[u8]) -> StateProof {
        let hash = plain(key);
        let mut siblings = Vec::new();
        let mut leaves = self.leaves.as_slice();
        while leaves.len() > 1 {
            let depth = siblings.len();
            let split = leaves.partition_point(|leaf| !bit(leaf.key_hash.as_bytes(), depth));
            let (left, right) = leaves.split_at(split);
            let (mine, other) = if bit(&hash, depth) { (right, left) } else { (left, right) };
            siblings.push(MerkleRoot::from_bytes(subtree(other, depth + 1)));
            leaves = mine;
        }
        siblings.reverse();
        StateProof { leaf: leaves.first().copied(), siblings }
    }
}

fn entries(count: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut numbers = Numbers(count as u64);
    (0..count).map(|n| (n.to_be_bytes().to_vec(), numbers.next().to_be_bytes().to_vec())).collect()
}

#[test]
fn every_entry_is_proven_and_every_missing_key_is_proven_absent() {
    for count in [0, 1, 2, 3, 5, 8, 33, 200] {
        let entries = entries(count);
        let tree = Tree::new(&entries);
        for (key, value) in &entries {
            let proof = tree.prove(key);
            assert_eq!(proof.verify(&tree.root(), key, Some(value)), Ok(()), "of {count}");
            assert!(proof.verify(&tree.root(), key, None).is_err(), "a key that is there is not absent");
            assert!(proof.verify(&tree.root(), key, Some(b"other")).is_err(), "another value");
        }
        for missing in 0..50u8 {
            let key = [0xaa, missing];
            let proof = tree.prove(&key);
            assert_eq!(proof.verify(&tree.root(), &key, None), Ok(()), "of {count}");
            assert!(proof.verify(&tree.root(), &key, Some(b"value")).is_err(), "a missing key has no value");
        }
    }
}

#[test]
fn a_proof_of_one_key_proves_nothing_of_another() {
    let entries = entries(20);
    let tree = Tree::new(&entries);
    for (key, value) in &entries {
        for (other, other_value) in entries.iter().filter(|(other, _)| other != key) {
            let proof = tree.prove(other);
            assert!(proof.verify(&tree.root(), key, Some(value)).is_err());
            assert!(proof.verify(&tree.root(), key, Some(other_value)).is_err());
            let absence = proof.verify(&tree.root(), key, None);
            assert_eq!(absence, Err(StateProofError::OffPath), "a leaf elsewhere shows no absence");
        }
    }
}

#[test]
fn every_altered_bit_of_a_proof_is_refused() {
    let entries = entries(20);
    let tree = Tree::new(&entries);
    let (key, value) = &entries[7];
    let proof = tree.prove(key);
    for at in 0..proof.siblings.len() {
        for bit in 0..256 {
            let mut altered = proof.clone();
            let mut bytes = *altered.siblings[at].as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            altered.siblings[at] = MerkleRoot::from_bytes(bytes);
            let refusal = altered.verify(&tree.root(), key, Some(value));
            assert_eq!(refusal, Err(StateProofError::WrongRoot));
        }
    }
}

#[test]
fn a_proof_deeper_than_the_tree_is_refused_unhashed() {
    let proof = StateProof { leaf: None, siblings: vec![MerkleRoot::from_bytes([0; 32]); 257] };
    let refusal = proof.verify(&StateRoot::from_bytes([0; 32]), b"key", None);
    assert_eq!(refusal, Err(StateProofError::TooDeep { levels: 257 }));
}

#[test]
fn absence_from_the_empty_state_needs_no_siblings() {
    let tree = Tree::new(&[]);
    assert_eq!(tree.root(), StateRoot::from_bytes(EMPTY_SUBTREE));
    assert_eq!(tree.prove(b"key").verify(&tree.root(), b"key", None), Ok(()));
}
