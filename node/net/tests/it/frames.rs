//! Frames to publish. Signatures are real where cheap; the network does not look at them.

use serde_bytes::ByteBuf;
use tiltyard_proto::block::Header;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::codec;
use tiltyard_proto::ids::{BlockHash, CertificateHash, MerkleRoot, ParamsHash, StateRoot, ValidatorsHash};
use tiltyard_proto::keys::SecretKey;
use tiltyard_proto::transaction::{Action, Transaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce, Round, UnixMillis};
use tiltyard_proto::wire::{BlockFrame, BodyFrame, TransactionFrame};

use crate::harness::genesis;

pub(crate) fn transfer(nonce: u64) -> Vec<u8> {
    let key = SecretKey::from_seed(&[9; 32]);
    let transaction = Transaction {
        version: Transaction::VERSION,
        genesis: genesis(),
        sender: key.public(),
        nonce: Nonce::new(nonce),
        fee: MicroCredits::new(1),
        valid_until: Height::new(100),
        action: Action::Transfer { to: key.public(), amount: MicroCredits::new(1) },
    };
    transaction.sign(&key.signer(genesis())).into_signed().encode()
}

/// A frame of the transactions topic.
pub(crate) fn transfers(nonces: &[u64]) -> Vec<u8> {
    let transactions = nonces.iter().map(|nonce| ByteBuf::from(transfer(*nonce))).collect();
    codec::encode(&TransactionFrame { transactions })
}

pub(crate) fn body(counter: u64, bytes: usize) -> Vec<u8> {
    let key = SecretKey::from_seed(&[9; 32]);
    let signature = key.signer(genesis()).sign_transaction(&[]);
    codec::encode(&BodyFrame {
        counter,
        block: ByteBuf::from(vec![7; bytes]),
        round: Round::ZERO,
        sender: key.public(),
        signature,
    })
}

/// A frame of the blocks topic; `signers` only makes certificates of one height differ.
pub(crate) fn block(height: u64, signers: u8) -> Vec<u8> {
    let header = Header {
        version: Header::VERSION,
        genesis: genesis(),
        height: Height::new(height),
        time: UnixMillis::new(1),
        parent: BlockHash::from_bytes([1; 32]),
        parent_certificate: CertificateHash::from_bytes([2; 32]),
        builder: SecretKey::from_seed(&[9; 32]).public(),
        tx_root: MerkleRoot::from_bytes([3; 32]),
        state_root: StateRoot::from_bytes([4; 32]),
        validators_hash: ValidatorsHash::from_bytes([5; 32]),
        next_validators_hash: ValidatorsHash::from_bytes([6; 32]),
        params_hash: ParamsHash::from_bytes([7; 32]),
    };
    let certificate = Certificate {
        height: Height::new(height),
        round: Round::ZERO,
        block: header.hash(),
        signers: ByteBuf::from(vec![signers]),
        signatures: Vec::new(),
    };
    codec::encode(&BlockFrame { header, certificate })
}
