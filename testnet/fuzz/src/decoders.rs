//! Every type that crosses a wire or lies on a disk in canonical form, with the checks that follow its decoding.

use std::sync::OnceLock;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tiltyard_keys::{Keystore, Verifier};
use tiltyard_proto::block::{Block, DecidedBlock, Header};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::codec;
use tiltyard_proto::evidence::Evidence;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{SealKey, StateRoot};
use tiltyard_proto::light::LightBlock;
use tiltyard_proto::limits::*;
use tiltyard_proto::manifest::Manifest;
use tiltyard_proto::receipt::Receipt;
use tiltyard_proto::recipe::Recipe;
use tiltyard_proto::score::Row;
use tiltyard_proto::seal;
use tiltyard_proto::state::StateKey;
use tiltyard_proto::state_proof::StateProof;
use tiltyard_proto::task::TaskSpec;
use tiltyard_proto::transaction::SignedTransaction;
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_proto::wire::{SyncRequest, SyncResponse, Topic};

use crate::{Target, seeds};

/// Strict decoding of gossip frames, as the network does it.
#[path = "../../../node/net/src/gossip/decode.rs"]
#[allow(dead_code, reason = "the network uses what is not fuzzed")]
mod frames;

const SYNC_RESPONSE_BYTES_MAX: usize = 8 << 20;

pub(crate) fn targets() -> Vec<Target> {
    vec![
        ("transaction", &["signed-transaction"], transaction),
        ("transaction-frame", &["transaction-frame"], transaction_frame),
        ("consensus-frame", &["consensus-frame"], consensus_frame),
        ("body-frame", &["body-frame"], body_frame),
        ("block-frame", &["block-frame"], block_frame),
        ("block", &["block"], block),
        ("decided-block", &["decided-block"], decided_block),
        ("sync-request", &["sync-request"], sync_request),
        ("sync-response", &["sync-response"], sync_response),
        ("manifest", &["manifest"], manifest),
        ("recipe", &["recipe"], recipe),
        ("task-spec", &["task-spec"], task_spec),
        ("evidence", &["evidence"], evidence),
        ("certificate", &["certificate"], certificate),
        ("header", &["header"], header),
        ("light-block", &["light-block"], light_block),
        ("receipt", &["receipt"], receipt),
        ("genesis", &["genesis"], genesis),
        ("validator-set", &["validator-set"], validator_set),
        ("state-proof", &["state-proof"], state_proof),
        ("state-key", &["state-key"], state_key),
        ("score-row", &[], score_row),
        ("sealed", &[], sealed),
        ("keystore", &[], keystore),
    ]
}

/// Decodes as the network does, and holds what was accepted against what came in.
fn door<T: Serialize + DeserializeOwned>(max: usize, data: &[u8]) -> Option<T> {
    let value: T = codec::decode("input", data, max).ok()?;
    assert!(codec::encode(&value) == data, "accepted bytes are not what their value encodes to");
    Some(value)
}

fn network() -> &'static (Genesis, ValidatorSet, Verifier) {
    static NETWORK: OnceLock<(Genesis, ValidatorSet, Verifier)> = OnceLock::new();
    NETWORK.get_or_init(|| {
        let (_, bytes) = seeds::of_kind("genesis").into_iter().next().expect("a golden genesis");
        let genesis = Genesis::decode(&bytes).expect("the golden genesis holds");
        let set = genesis.validator_set().expect("it has a set");
        let verifier = Verifier::new(genesis.hash());
        (genesis, set, verifier)
    })
}

// What the checks say does not matter here: they answer, and do not panic.

fn transaction(data: &[u8]) {
    if let Ok(signed) = SignedTransaction::decode(data) {
        assert!(signed.encode() == data);
        if let Ok(verified) = signed.verify(&network().2) {
            assert!(verified.signed().encode() == data);
        }
    }
}

fn frame(topic: Topic, data: &[u8]) {
    let _ = frames::decode_frame(topic, data, BLOCK_BYTES_HARD_MAX);
}

fn transaction_frame(data: &[u8]) {
    for topic in [Topic::Tasks, Topic::Checkpoints, Topic::Transactions] {
        frame(topic, data);
    }
}

fn consensus_frame(data: &[u8]) {
    frame(Topic::Consensus, data);
}

fn body_frame(data: &[u8]) {
    frame(Topic::Bodies, data);
}

fn block_frame(data: &[u8]) {
    frame(Topic::Blocks, data);
}

fn block(data: &[u8]) {
    if let Ok(block) = Block::decode(data, BLOCK_BYTES_HARD_MAX) {
        assert!(block.encode() == data);
        let _ = (block.hash(), block.body.tx_root(), block.body.parent_certificate_hash());
    }
}

fn decided_block(data: &[u8]) {
    if let Some(decided) = door::<DecidedBlock>(BLOCK_BYTES_HARD_MAX + CERTIFICATE_BYTES_MAX + 64, data) {
        let _ = decided.certificate.verify(&network().2, &network().1);
    }
}

fn sync_request(data: &[u8]) {
    door::<SyncRequest>(FRAME_BYTES_MAX, data);
}

fn sync_response(data: &[u8]) {
    door::<SyncResponse>(SYNC_RESPONSE_BYTES_MAX, data);
}

fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::decode(data) {
        assert!(manifest.encode() == data);
        let _ = (manifest.check(), manifest.total_bytes(), manifest.root());
    }
}

fn recipe(data: &[u8]) {
    if let Ok(recipe) = Recipe::decode(data) {
        assert!(recipe.encode() == data);
        let _ = recipe.hash();
    }
}

fn task_spec(data: &[u8]) {
    door::<TaskSpec>(TRANSACTION_BYTES_MAX, data);
}

fn evidence(data: &[u8]) {
    door::<Evidence>(TRANSACTION_BYTES_MAX, data);
}

fn certificate(data: &[u8]) {
    if let Some(certificate) = door::<Certificate>(CERTIFICATE_BYTES_MAX, data) {
        let (_, set, verifier) = network();
        let _ = (certificate.hash(), certificate.verify(verifier, set));
        for members in [0, 1, 8, 9, VALIDATORS_MAX] {
            let pairs = certificate.signed_by(members).unwrap_or_default();
            assert!(pairs.iter().all(|(at, _)| *at < members), "a signer outside the set");
        }
    }
}

fn header(data: &[u8]) {
    if let Some(header) = door::<Header>(HEADER_BYTES_MAX, data) {
        let _ = header.hash();
    }
}

fn light_block(data: &[u8]) {
    if let Some(block) = door::<LightBlock>(RECEIPT_BYTES_MAX, data) {
        let _ = block.certificate.verify(&network().2, &block.set);
    }
}

fn receipt(data: &[u8]) {
    if let Ok(receipt) = Receipt::decode(data) {
        assert!(receipt.encode() == data);
        let (genesis, ..) = network();
        let _ = (receipt.verify(genesis), receipt.verify_from_hash(&genesis.hash()));
    }
}

fn genesis(data: &[u8]) {
    if let Ok(genesis) = Genesis::decode(data) {
        assert!(genesis.encode() == data);
        if genesis.check().is_ok() {
            let state = tiltyard_ledger::genesis(&genesis);
            assert!(state.is_ok(), "a genesis that holds has no state: {:?}", state.err());
        }
    }
}

fn validator_set(data: &[u8]) {
    door::<ValidatorSet>(FRAME_BYTES_MAX, data);
}

fn state_proof(data: &[u8]) {
    if let Some(proof) = door::<StateProof>(RECEIPT_BYTES_MAX, data) {
        let root = StateRoot::from_bytes([7; 32]);
        for value in [None, Some(&b"value"[..])] {
            assert!(proof.verify(&root, b"key", value).is_err(), "a proof against a made-up root holds");
        }
    }
}

fn state_key(data: &[u8]) {
    if let Some(key) = door::<StateKey>(256, data) {
        let _ = key.to_bytes();
    }
}

/// The first two bytes say how many examples the row is for.
fn score_row(data: &[u8]) {
    if let Some((count, bytes)) = data.split_first_chunk::<2>()
        && let Ok(row) = Row::from_bytes(bytes, usize::from(u16::from_be_bytes(*count)))
    {
        assert!(row.to_bytes() == bytes);
    }
}

/// The first byte chooses: seal and open again, or open what is no sealed text.
fn sealed(data: &[u8]) {
    let key = SealKey::from_bytes([3; 32]);
    let Some((choice, bytes)) = data.split_first() else { return };
    if choice % 2 == 0 {
        let sealed = seal::seal(&key, bytes);
        let opened = seal::open(&key, &sealed, bytes.len() as u64);
        assert!(opened.is_ok_and(|opened| opened == bytes), "sealed bytes do not open");
    } else {
        let _ = seal::open(&key, bytes, 1 << 20);
    }
}

fn keystore(data: &[u8]) {
    if let Ok(store) = Keystore::parse(data) {
        let _ = (store.public(), store.is_encrypted());
        let again = Keystore::parse(store.as_text().as_bytes());
        assert!(again.is_ok(), "a keystore that was read is not read again");
        // Opening one that is encrypted costs what its own settings say; those are bounded when it is parsed.
        if !store.is_encrypted() {
            let _ = store.open(None);
        }
    }
}
