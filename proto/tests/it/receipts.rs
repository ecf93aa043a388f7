//! Receipts verify from the genesis alone, and no changed byte passes.

use tiltyard_proto::codec;
use tiltyard_proto::genesis::GenesisError;
use tiltyard_proto::keys::GenesisHash;
use tiltyard_proto::light::LightError;
use tiltyard_proto::merkle;
use tiltyard_proto::receipt::{Checked, Entry, Fact, Receipt, ReceiptError, SetChange};
use tiltyard_proto::state::StateKey;
use tiltyard_proto::state_proof::StateProofError;
use tiltyard_proto::units::{Height, MicroCredits, Stake};

use crate::chain::Chain;
use crate::sample::ledger::entrant_verdict;
use crate::sample::{genesis, genesis_hash, key, secret, signed, task, transfer};
use crate::state_proofs::Tree;

const LATER: &[u8] = &[2, 3, 4, 5];

fn verdict_key() -> StateKey {
    StateKey::EntrantVerdict(task(), key(12))
}

fn tree() -> Tree {
    let entry = |key: StateKey, value: Vec<u8>| (key.to_bytes(), value);
    Tree::new(&[
        entry(verdict_key(), codec::encode(&entrant_verdict())),
        entry(StateKey::Params, codec::encode(&genesis().params)),
        entry(StateKey::LiveTasks, vec![0x80]),
    ])
}

/// Five blocks whose set changes at height 2; the receipt's block is the last.
fn chain() -> Chain {
    let transactions = [signed(transfer()).encode(), vec![1, 2, 3]];
    let mut chain = Chain::new();
    for height in 1..=5 {
        chain.grow((height == 2).then_some(LATER), |header| {
            header.state_root = tree().root();
            header.tx_root = merkle::root(&transactions);
        });
    }
    chain
}

fn receipt(entry: Entry) -> Receipt {
    let chain = chain();
    let (change, last) = (chain.light(2), chain.light(5));
    Receipt {
        version: 1,
        genesis: genesis_hash(),
        genesis_bytes: Some(genesis().encode().into()),
        changes: vec![SetChange {
            header: change.header,
            certificate: change.certificate,
            next_set: change.next_set,
        }],
        header: last.header,
        certificate: last.certificate,
        entry,
    }
}

fn state_entry(key: StateKey, value: Option<Vec<u8>>) -> Entry {
    let proof = tree().prove(&key.to_bytes());
    Entry::State { key, value: value.map(Into::into), proof }
}

fn verdict_receipt() -> Receipt {
    receipt(state_entry(verdict_key(), Some(codec::encode(&entrant_verdict()))))
}

fn transaction_receipt() -> Receipt {
    let transactions = [signed(transfer()).encode(), vec![1, 2, 3]];
    let path = merkle::path(&transactions, 0).expect("two leaves");
    receipt(Entry::Transaction { bytes: transactions[0].clone().into(), path })
}

fn check(bytes: &[u8]) -> Result<Checked, ReceiptError> {
    Receipt::decode(bytes)?.verify_from_hash(&genesis_hash())
}

#[test]
fn a_winner_proves_its_pay_from_the_genesis_hash_alone() {
    let checked = check(&verdict_receipt().encode()).expect("a sound receipt");
    assert_eq!(
        (checked.height, checked.signed, checked.total),
        (Height::new(5), Stake::new(4_000), Stake::new(4_000))
    );
    let Fact::EntrantVerdict { task: of, verdict } = checked.fact else { panic!("an entrant's verdict") };
    assert_eq!((of, verdict.miner, verdict.reward), (task(), key(12), MicroCredits::new(611_510)));
}

#[test]
fn a_receipt_without_the_document_verifies_with_it() {
    let mut bare = verdict_receipt();
    bare.genesis_bytes = None;
    assert_eq!(bare.verify_from_hash(&genesis_hash()), Err(ReceiptError::NoGenesis));
    assert!(bare.verify(&genesis()).is_ok());
}

#[test]
fn absence_and_transactions_are_proven_too() {
    let absent = StateKey::Verdict(task());
    let checked = check(&receipt(state_entry(absent, None)).encode()).expect("a sound receipt");
    assert_eq!(checked.fact, Fact::Absent { key: absent });
    let checked = check(&transaction_receipt().encode()).expect("a sound receipt");
    let id = signed(transfer()).transaction.id();
    assert!(matches!(checked.fact, Fact::Transaction { id: found, .. } if found == id));
}

#[test]
fn one_changed_byte_anywhere_is_refused() {
    for (name, receipt) in [("verdict", verdict_receipt()), ("transaction", transaction_receipt())] {
        let bytes = receipt.encode();
        assert!(check(&bytes).is_ok(), "{name}");
        for at in 0..bytes.len() {
            for flip in [1 << (at % 8), 0xff] {
                let mut altered = bytes.clone();
                altered[at] ^= flip;
                let passed = check(&altered);
                assert!(passed.is_err(), "{name}: byte {at} ^ {flip:#x} of {} passed", bytes.len());
            }
        }
    }
}

#[test]
fn every_changed_bit_of_a_small_receipt_is_refused() {
    // Without genesis document and set change, so that all bits are tried in reasonable time.
    let chain = crate::chain::four(1);
    let mut plain = verdict_receipt();
    plain.genesis_bytes = None;
    plain.changes.clear();
    let mut single = Chain::new();
    single.grow(None, |header| header.state_root = tree().root());
    assert_eq!(chain.genesis, single.genesis);
    let only = single.light(1);
    plain.header = only.header;
    plain.certificate = only.certificate;
    let bytes = plain.encode();
    let genesis = genesis();
    let check = |bytes: &[u8]| Receipt::decode(bytes).map_err(ReceiptError::from)?.verify(&genesis);
    assert!(check(&bytes).is_ok());
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&altered).is_err(), "bit {bit} of {}", bytes.len() * 8);
    }
}

#[test]
fn another_network_is_named() {
    let ours = GenesisHash::from_bytes([1; 32]);
    let refusal = verdict_receipt().verify_from_hash(&ours).expect_err("foreign");
    assert_eq!(refusal, GenesisError::Foreign { found: genesis_hash(), trusted: ours }.into());
    let mut other = genesis();
    other.name = "other".to_owned();
    let refusal = verdict_receipt().verify(&other).expect_err("foreign");
    assert_eq!(refusal, ReceiptError::ForeignNetwork { theirs: genesis_hash(), ours: other.hash() });
}

#[test]
fn a_set_that_nobody_announced_cannot_sign() {
    let mut skipped = verdict_receipt();
    skipped.changes.clear();
    assert!(matches!(skipped.verify(&genesis()), Err(ReceiptError::Set { .. })));
    let mut swapped = verdict_receipt();
    swapped.changes[0].next_set = crate::sample::set();
    assert!(matches!(swapped.verify(&genesis()), Err(ReceiptError::Set { .. })));
}

#[test]
fn changes_out_of_order_or_without_change_are_refused() {
    let mut twice = verdict_receipt();
    twice.changes.push(twice.changes[0].clone());
    assert!(matches!(twice.verify(&genesis()), Err(ReceiptError::ChangeOrder { .. })));
    let mut idle = verdict_receipt();
    let first = chain().light(1);
    let change = SetChange { header: first.header, certificate: first.certificate, next_set: first.next_set };
    idle.changes.insert(0, change);
    assert!(matches!(idle.verify(&genesis()), Err(ReceiptError::ChangeOrder { .. })));
    let mut early = verdict_receipt();
    let before = chain().light(1);
    early.header = before.header;
    early.certificate = before.certificate;
    assert!(matches!(early.verify(&genesis()), Err(ReceiptError::ChangeOrder { .. })));
}

#[test]
fn a_certificate_of_another_block_is_refused() {
    let mut other = verdict_receipt();
    other.certificate = chain().light(4).certificate;
    assert!(matches!(other.verify(&genesis()), Err(ReceiptError::Header(LightError::OtherBlock { .. }))));
}

#[test]
fn a_better_reward_than_the_ledger_gave_is_refused() {
    let mut verdict = entrant_verdict();
    verdict.reward = MicroCredits::new(999_999_999);
    let richer = receipt(state_entry(verdict_key(), Some(codec::encode(&verdict))));
    assert_eq!(richer.verify(&genesis()), Err(ReceiptError::State(StateProofError::WrongLeaf)));
}

#[test]
fn a_light_client_checks_the_entry_against_its_own_header() {
    let receipt = verdict_receipt();
    let own = chain().light(5).header;
    assert!(matches!(receipt.verify_entry(&own), Ok(Fact::EntrantVerdict { .. })));
    let other = chain().light(4).header;
    assert!(matches!(receipt.verify_entry(&other), Err(ReceiptError::OtherHeader { .. })));
}

#[test]
fn a_transaction_without_right_signature_is_no_fact() {
    let mut forged = signed(transfer());
    forged.signature = secret(10).signer(genesis_hash()).sign_vote(b"other");
    let transactions = [forged.encode()];
    let mut chain = Chain::new();
    chain.grow(None, |header| header.tx_root = merkle::root(&transactions));
    let only = chain.light(1);
    let path = merkle::path(&transactions, 0).expect("one leaf");
    let receipt = Receipt {
        changes: Vec::new(),
        header: only.header,
        certificate: only.certificate,
        entry: Entry::Transaction { bytes: transactions[0].clone().into(), path },
        ..verdict_receipt()
    };
    assert!(matches!(receipt.verify(&genesis()), Err(ReceiptError::Transaction(_))));
}
