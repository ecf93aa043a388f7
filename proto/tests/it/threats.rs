//! Attacks on what is signed and proven, one test each: replay across networks, long-range forks, hidden leaves.

use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::codec;
use tiltyard_proto::evidence::Evidence;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{MerkleRoot, StateRoot};
use tiltyard_proto::keys::{GenesisHash, Verifier};
use tiltyard_proto::light::{LightError, verify_adjacent, verify_skipping};
use tiltyard_proto::receipt::Receipt;
use tiltyard_proto::state_proof::StateProof;
use tiltyard_proto::transaction::SignedTransaction;
use tiltyard_proto::units::UnixMillis;
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_proto::vote::{SignedProposal, SignedVote};
use tiltyard_proto::wire::{
    BlockFrame, BodyFrame, ConsensusFrame, ConsensusMessage, SyncResponse, TransactionFrame,
};

use crate::chain::{Chain, OPTIONS, PACE_MS, resign};
use crate::sample::{self, genesis, genesis_hash};
use crate::state_proofs::Tree;

const MAX: usize = 1 << 20;

/// Where a signed thing is offered: the network's name, its verifier and its validator set.
struct Network {
    genesis: Genesis,
    hash: GenesisHash,
    verifier: Verifier,
    set: ValidatorSet,
}

impl Network {
    fn of(genesis: Genesis) -> Self {
        let hash = genesis.hash();
        let set = genesis.validator_set().expect("a sound genesis");
        Self { genesis, hash, verifier: Verifier::new(hash), set }
    }

    fn takes_certificate(&self, certificate: &Certificate) -> bool {
        certificate.verify(&self.verifier, &self.set).is_ok()
    }

    fn takes_transactions(&self, list: impl IntoIterator<Item = Vec<u8>>) -> bool {
        list.into_iter().all(|bytes| {
            let signed = SignedTransaction::decode(&bytes).expect("golden");
            signed.verify(&self.verifier).is_ok()
        })
    }

    fn takes_message(&self, message: &ConsensusMessage) -> bool {
        match message {
            ConsensusMessage::Vote(vote) => vote.verify(&self.verifier).is_ok(),
            ConsensusMessage::Proposal(proposal) => proposal.verify(&self.verifier).is_ok(),
            ConsensusMessage::Polka { proof, .. } | ConsensusMessage::RoundChange { proof, .. } => {
                proof.votes.iter().all(|vote| vote.verify(&self.verifier).is_ok())
            }
        }
    }

    /// Says whether the golden bytes of a kind are taken here; none for kinds that carry no signature.
    fn takes(&self, kind: &str, name: &str, bytes: &[u8]) -> Option<bool> {
        fn door<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> T {
            codec::decode("golden", bytes, MAX).expect("golden bytes decode")
        }
        Some(match (kind, name) {
            ("signed-transaction", _) => self.takes_transactions([bytes.to_vec()]),
            ("transaction-frame", _) => {
                let frame: TransactionFrame = door(bytes);
                self.takes_transactions(frame.transactions.into_iter().map(serde_bytes::ByteBuf::into_vec))
            }
            ("sync-response", "pending") => match door(bytes) {
                SyncResponse::Pending(list) => {
                    self.takes_transactions(list.into_iter().map(serde_bytes::ByteBuf::into_vec))
                }
                other => panic!("{other:?} is another answer"),
            },
            ("signed-vote", _) => door::<SignedVote>(bytes).verify(&self.verifier).is_ok(),
            ("signed-proposal", _) => door::<SignedProposal>(bytes).verify(&self.verifier).is_ok(),
            ("consensus-frame", _) => self.takes_message(&door::<ConsensusFrame>(bytes).message),
            ("evidence", _) => door::<Evidence>(bytes).verify(&self.verifier).is_ok(),
            ("certificate", _) => self.takes_certificate(&door(bytes)),
            ("decided-block", _) => self.takes_certificate(&door::<DecidedBlock>(bytes).certificate),
            ("block-frame", _) => self.takes_certificate(&door::<BlockFrame>(bytes).certificate),
            ("body-frame", _) => {
                let frame: BodyFrame = door(bytes);
                let block = tiltyard_proto::block::Block::decode(&frame.block, MAX).expect("golden");
                let payload = BodyFrame::payload(block.header.height, frame.round, &block.hash());
                self.verifier.verify_body(&frame.sender, &payload, &frame.signature).is_ok()
            }
            ("receipt", _) => Receipt::decode(bytes).expect("golden").verify(&self.genesis).is_ok(),
            _ => return None,
        })
    }
}

#[test]
fn every_signed_golden_vector_of_one_network_is_refused_by_another() {
    let ours = Network::of(genesis());
    assert_eq!(ours.hash, genesis_hash());
    // The same validators with the same stakes and keys: only the network differs.
    let theirs = Network::of(Genesis { name: "another network".to_owned(), ..genesis() });
    assert_eq!(ours.set, theirs.set);
    let (mut taken, mut kinds) = (0, std::collections::BTreeSet::new());
    for case in sample::all() {
        let Some(at_home) = ours.takes(case.kind, case.name, &case.bytes) else { continue };
        let abroad = theirs.takes(case.kind, case.name, &case.bytes);
        assert_eq!(abroad, Some(false), "{} {} is taken by another network", case.kind, case.name);
        taken += usize::from(at_home);
        kinds.insert(case.kind);
    }
    // What is refused abroad must be good at home, else nothing was shown.
    assert!(taken >= 30, "only {taken} vectors are good at home");
    let expected = [
        "block-frame",
        "body-frame",
        "certificate",
        "consensus-frame",
        "decided-block",
        "evidence",
        "receipt",
        "signed-proposal",
        "signed-transaction",
        "signed-vote",
        "sync-response",
        "transaction-frame",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_transaction_that_is_relabelled_for_another_network_loses_its_signature() {
    let theirs = Network::of(Genesis { name: "another network".to_owned(), ..genesis() });
    for case in sample::all().iter().filter(|case| case.kind == "signed-transaction") {
        let mut signed = SignedTransaction::decode(&case.bytes).expect("golden");
        signed.transaction.genesis = theirs.hash;
        assert!(signed.verify(&theirs.verifier).is_err(), "{}", case.name);
    }
}

/// Validators 1–4 decide up to height 3; from height 7 on it is 5–8, and 1–4 have taken their stake away.
fn honest() -> Chain {
    let mut chain = Chain::new();
    for height in 1..=9 {
        let next: Option<&[u8]> = match height {
            3 => Some(&[3, 4, 5, 6]),
            6 => Some(&[5, 6, 7, 8]),
            _ => None,
        };
        chain.grow(next, |_| {});
    }
    chain
}

/// The same chain up to height 3; from there on validators 1–4, whose stake is gone, write another history.
fn forged() -> Chain {
    let mut chain = Chain::new();
    (1..=3).for_each(|_| chain.grow(None, |_| {}));
    (4..=12).for_each(|_| chain.grow(None, |header| header.state_root = StateRoot::from_bytes([0xbb; 32])));
    chain
}

#[test]
fn a_long_range_fork_by_unbonded_keys_is_refused_inside_the_trust_period() {
    let (honest, forged) = (honest(), forged());
    let mut trusted = honest.trusted();
    for height in 1..=9 {
        trusted =
            verify_adjacent(&trusted, honest.light(height), &OPTIONS, honest.now(height)).expect("honest");
    }
    // Whoever follows the chain trusts today's set; yesterday's signatures are worth nothing to it.
    for height in 10..=12 {
        let refusal = verify_skipping(&trusted, forged.light(height), &OPTIONS, forged.now(height));
        assert!(
            matches!(
                refusal,
                Err(LightError::Parent { .. } | LightError::Set { .. } | LightError::TooFarAhead { .. })
            ),
            "height {height}: {refusal:?}"
        );
    }
    // Not even when the fork names today's parent and today's set, signed by the old keys.
    let mut block = forged.light(10);
    block.header.parent = trusted.block_hash();
    block.header.validators_hash = trusted.next_set.hash();
    block.set = trusted.next_set.clone();
    resign(&mut block, &[1, 2, 3, 4]);
    let refusal = verify_skipping(&trusted, block, &OPTIONS, forged.now(10));
    assert!(matches!(refusal, Err(LightError::Certificate(_))), "{refusal:?}");
}

#[test]
fn a_long_range_fork_by_unbonded_keys_is_refused_outside_the_trust_period() {
    let (honest, forged) = (honest(), forged());
    let mut trusted = honest.trusted();
    for height in 1..=3 {
        trusted =
            verify_adjacent(&trusted, honest.light(height), &OPTIONS, honest.now(height)).expect("honest");
    }
    // A client that slept until the stake of 1–4 could leave must not believe them, whoever asks it to.
    let slept_ms = trusted.header.as_ref().expect("a header").time.get() + OPTIONS.trust_period_ms + PACE_MS;
    let now = UnixMillis::new(slept_ms);
    for chain in [&forged, &honest] {
        for height in 4..=9 {
            let refusal = verify_skipping(&trusted, chain.light(height), &OPTIONS, now);
            assert!(matches!(refusal, Err(LightError::TrustExpired { .. })), "{refusal:?}");
        }
    }
}

#[test]
fn a_leaf_that_is_there_cannot_be_proven_absent_by_whoever_drops_it() {
    let entries: Vec<(Vec<u8>, Vec<u8>)> =
        (0u32..33).map(|n| (n.to_be_bytes().to_vec(), vec![u8::try_from(n).expect("small"); 9])).collect();
    let tree = Tree::new(&entries);
    let root = tree.root();
    for (at, (key, value)) in entries.iter().enumerate() {
        assert_eq!(tree.prove(key).verify(&root, key, Some(value)), Ok(()));
        let mut without = entries.clone();
        without.remove(at);
        let liar = Tree::new(&without);
        assert_eq!(liar.prove(key).verify(&liar.root(), key, None), Ok(()), "true of the tree that lacks it");
        // The liar's own proof, every honest proof of another key, and each of them cut, emptied or with another leaf.
        let mut offers: Vec<StateProof> = vec![liar.prove(key)];
        offers.extend(entries.iter().map(|(other, _)| tree.prove(other)));
        let leaves: Vec<_> = offers.iter().map(|proof| proof.leaf).chain([None]).collect();
        for offer in offers {
            for keep in 0..=offer.siblings.len() {
                for leaf in &leaves {
                    let from = offer.siblings.len() - keep;
                    let siblings: Vec<MerkleRoot> = offer.siblings[from..].to_vec();
                    let proof = StateProof { leaf: *leaf, siblings };
                    assert!(proof.verify(&root, key, None).is_err(), "entry {at} passes for absent");
                }
            }
        }
    }
}
