//! Transactions: verified for one network, one purpose, one size.

use tiltyard_proto::keys::{GenesisHash, KeyError, PublicKey, SignatureError, Verifier};
use tiltyard_proto::limits::TRANSACTION_BYTES_MAX;
use tiltyard_proto::transaction::{Action, SignedTransaction, TransactionError};
use tiltyard_proto::units::MicroCredits;

use crate::sample::messages::actions;
use crate::sample::{genesis_hash, key, salt, secret, signed, task, transaction, transfer};

fn verifier() -> Verifier {
    Verifier::new(genesis_hash())
}

#[test]
fn every_action_survives_wire_and_verification() {
    for action in actions() {
        let sent = signed(action);
        let bytes = sent.encode();
        assert_eq!(sent.encoded_len(), bytes.len());
        let read = SignedTransaction::decode(&bytes).expect("canonical");
        let verified = read.verify(&verifier()).expect("well signed");
        assert_eq!(verified.signed(), &sent);
        assert_eq!(verified.id(), sent.transaction.id());
    }
}

#[test]
fn a_transaction_of_another_network_names_both() {
    let ours = GenesisHash::from_bytes([9; 32]);
    let refusal = signed(transfer()).verify(&Verifier::new(ours)).expect_err("foreign");
    assert_eq!(refusal, TransactionError::ForeignNetwork { theirs: genesis_hash(), ours });
}

#[test]
fn a_changed_field_breaks_the_signature() {
    let mut sent = signed(transfer());
    sent.transaction.fee = MicroCredits::new(999);
    let refusal = sent.verify(&verifier()).expect_err("altered");
    assert!(matches!(refusal, TransactionError::Signature(SignatureError::Mismatch { .. })));
}

#[test]
fn a_signature_for_another_purpose_is_no_transaction_signature() {
    let mut sent = signed(transfer());
    let payload = tiltyard_proto::codec::encode(&sent.transaction);
    let signer = secret(10).signer(genesis_hash());
    for signature in [
        signer.sign_vote(&payload),
        signer.sign_proposal(&payload),
        signer.sign_body(&payload),
        signer.sign_peer(&payload),
    ] {
        sent.signature = signature;
        let refusal = sent.clone().verify(&verifier()).expect_err("another purpose");
        assert!(matches!(refusal, TransactionError::Signature(SignatureError::Mismatch { .. })));
    }
}

#[test]
fn credits_are_never_sent_to_a_key_that_anyone_can_sign_for() {
    let weak = PublicKey::from_bytes([0; 32]);
    let refused = [
        Action::Transfer { to: weak, amount: MicroCredits::new(1) },
        Action::Faucet { to: weak },
        Action::SetValidator { peer: vec![].into(), addresses: vec![], payout: weak },
    ];
    for action in refused {
        let refusal = signed(action).verify(&verifier()).expect_err("weak");
        assert_eq!(refusal, TransactionError::Key(KeyError::Weak { key: weak }));
    }
}

#[test]
fn an_unknown_version_is_refused() {
    let mut later = transaction(transfer());
    later.version = 2;
    let sent = later.sign(&secret(10).signer(genesis_hash())).into_signed();
    assert_eq!(sent.verify(&verifier()), Err(TransactionError::Version { version: 2 }));
}

#[test]
fn the_size_limit_is_the_same_on_the_wire_and_in_a_block() {
    let reveal = |bytes: usize| {
        signed(Action::Reveal {
            task: task(),
            manifest: vec![1; bytes].into(),
            salt: salt(),
            recipe: vec![].into(),
        })
    };
    let spare = TRANSACTION_BYTES_MAX - reveal(12_000).encode().len();
    let largest = reveal(12_000 + spare);
    assert_eq!(largest.encode().len(), TRANSACTION_BYTES_MAX);
    assert!(SignedTransaction::decode(&largest.encode()).is_ok());
    assert!(largest.verify(&verifier()).is_ok());
    let larger = reveal(12_001 + spare);
    assert!(SignedTransaction::decode(&larger.encode()).is_err());
    let refusal = larger.verify(&verifier()).expect_err("too long");
    assert_eq!(refusal, TransactionError::TooLong { bytes: TRANSACTION_BYTES_MAX + 1 });
}

#[test]
fn the_sender_is_part_of_what_is_signed() {
    let mut sent = signed(transfer());
    sent.transaction.sender = key(11);
    assert!(sent.verify(&verifier()).is_err());
}
