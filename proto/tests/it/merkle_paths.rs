//! Merkle trees: every path leads to the root, no altered one does.

use tiltyard_proto::ids::MerkleRoot;
use tiltyard_proto::merkle::{self, MerklePath};

fn leaves(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| vec![n as u8, 0xee]).collect()
}

#[test]
fn every_leaf_of_every_tree_up_to_33_is_proven() {
    for count in 1..=33 {
        let leaves = leaves(count);
        let root = merkle::root(&leaves);
        for (index, leaf) in leaves.iter().enumerate() {
            let path = merkle::path(&leaves, index).expect("the leaf is there");
            assert_eq!(path.root_from(leaf), Some(root), "{index} of {count}");
        }
        assert_eq!(merkle::path(&leaves, count), None, "past the end of {count}");
    }
}

#[test]
fn an_altered_path_leads_nowhere() {
    for count in 1..=17 {
        let leaves = leaves(count);
        let root = merkle::root(&leaves);
        for (index, leaf) in leaves.iter().enumerate() {
            let path = merkle::path(&leaves, index).expect("the leaf is there");
            let refused = |path: &MerklePath, what: &str| {
                assert_ne!(path.root_from(leaf), Some(root), "{what}: {index} of {count}");
            };
            for other in 0..40 {
                if other != path.index {
                    refused(&MerklePath { index: other, ..path.clone() }, "another index");
                }
                if other != path.count {
                    refused(&MerklePath { count: other, ..path.clone() }, "another count");
                }
            }
            let mut longer = path.clone();
            longer.siblings.push(MerkleRoot::from_bytes([0; 32]));
            refused(&longer, "one sibling more");
            for at in 0..path.siblings.len() {
                let mut shorter = path.clone();
                shorter.siblings.remove(at);
                refused(&shorter, "one sibling less");
            }
            assert_ne!(path.root_from(b"other"), Some(root), "another leaf");
        }
    }
}

#[test]
fn the_empty_tree_has_the_zero_root_and_no_paths() {
    let none: [Vec<u8>; 0] = [];
    assert_eq!(merkle::root(&none), MerkleRoot::from_bytes([0; 32]));
    assert_eq!(merkle::path(&none, 0), None);
}

#[test]
fn a_node_cannot_pass_for_a_leaf() {
    let leaves = leaves(4);
    let path = merkle::path(&leaves, 0).expect("the leaf is there");
    let pair = [path.siblings[0].as_bytes().as_slice(), path.siblings[1].as_bytes().as_slice()].concat();
    assert_ne!(merkle::root([pair.clone(), pair]), merkle::root(&leaves));
}

#[test]
fn a_claim_of_four_billion_leaves_is_judged_at_once() {
    let path = MerklePath { index: u32::MAX - 1, count: u32::MAX, siblings: Vec::new() };
    assert_eq!(path.root_from(b"leaf"), None);
}
