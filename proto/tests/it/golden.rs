//! Golden bytes: every wire type keeps the bytes that `proto/golden` holds.
//!
//! A changed byte is a change of SPEC.md. To write the files again: `TILTYARD_GOLDEN=write cargo test -p tiltyard-proto
//! golden`, then read the difference before committing it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use tiltyard_proto::codec;
use tiltyard_proto::hash;
use tiltyard_proto::merkle;
use tiltyard_proto::recipe::training_seed;
use tiltyard_proto::score::{Fault, MicroNats, Row, score_commitment};
use tiltyard_proto::seal;
use tiltyard_proto::task::{commitment, priority, seal_key_hash};
use tiltyard_proto::units::{Height, Round};
use tiltyard_proto::vote::VoteKind;
use tiltyard_proto::wire::{BodyFrame, Topic};

use crate::sample::{self, Case};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn writing() -> bool {
    std::env::var("TILTYARD_GOLDEN").is_ok_and(|value| value == "write")
}

/// Compares with the file, or writes it when asked to.
fn hold(name: &str, content: &str, wrong: &mut Vec<String>) {
    let path = folder().join(name);
    if writing() {
        std::fs::write(&path, content).expect("the golden folder is writable");
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (ours, theirs)) in content.lines().zip(held.lines()).enumerate() {
        if ours != theirs {
            wrong.push(format!("{name}:{}\n  now    {ours}\n  golden {theirs}", line + 1));
            return;
        }
    }
    if content != held {
        wrong.push(format!("{name}: {} lines now, {} golden", content.lines().count(), held.lines().count()));
    }
}

fn by_kind() -> BTreeMap<&'static str, Vec<&'static Case>> {
    let mut kinds: BTreeMap<&'static str, Vec<&'static Case>> = BTreeMap::new();
    for case in sample::all() {
        kinds.entry(case.kind).or_default().push(case);
    }
    kinds
}

/// Compares every file once, after writing it when asked to; returns what differs.
fn differences() -> &'static [String] {
    static WRONG: OnceLock<Vec<String>> = OnceLock::new();
    WRONG.get_or_init(compare)
}

fn compare() -> Vec<String> {
    let mut wrong = Vec::new();
    for (kind, cases) in by_kind() {
        let mut hex_text = String::new();
        let mut json = serde_json::Map::new();
        for case in &cases {
            writeln!(hex_text, "{} {}", case.name, hex::encode(&case.bytes)).expect("memory");
            assert!(json.insert(case.name.to_owned(), case.json.clone()).is_none(), "{kind} {}", case.name);
        }
        let json_text = serde_json::to_string_pretty(&json).expect("JSON");
        hold(&format!("{kind}.hex"), &hex_text, &mut wrong);
        hold(&format!("{kind}.json"), &(json_text + "\n"), &mut wrong);
    }
    hold("state-key-bytes.hex", &state_key_bytes(), &mut wrong);
    hold("derived.hex", &derived(), &mut wrong);
    wrong
}

#[test]
fn golden_every_wire_type_keeps_its_bytes() {
    let wrong = differences();
    assert!(wrong.is_empty(), "changed bytes are a change of SPEC.md:\n{}", wrong.join("\n"));
}

#[test]
fn golden_folder_holds_nothing_else() {
    differences();
    let mut expected: Vec<String> =
        by_kind().keys().flat_map(|kind| [format!("{kind}.hex"), format!("{kind}.json")]).collect();
    expected.extend(["derived.hex", "state-key-bytes.hex"].map(str::to_owned));
    expected.sort();
    let mut found: Vec<String> = std::fs::read_dir(folder())
        .expect("the golden folder is there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn golden_bytes_decode_to_what_the_json_beside_them_says() {
    differences();
    for (kind, cases) in by_kind() {
        let read = |ending: &str| {
            std::fs::read_to_string(folder().join(format!("{kind}.{ending}"))).expect("golden file")
        };
        let json: serde_json::Value = serde_json::from_str(&read("json")).expect("golden JSON");
        for (line, case) in read("hex").lines().zip(&cases) {
            let (name, digits) = line.split_once(' ').expect("a name and hex");
            let bytes = hex::decode(digits).expect("golden hex");
            assert_eq!((case.redecode)(&bytes), Ok(bytes.clone()), "{kind} {name}");
            assert_eq!((case.from_json)(json[name].clone()), bytes, "{kind} {name}");
        }
    }
}

fn state_key_bytes() -> String {
    sample::ledger::state_keys()
        .into_iter()
        .map(|(name, key)| format!("{name} {}\n", hex::encode(key.to_bytes())))
        .collect()
}

/// Hashes, preimages, signatures and other bytes that are no encoding of one type.
fn derived() -> String {
    let (genesis, task, miner) = (sample::genesis_hash(), sample::task(), sample::key(12));
    let signer = sample::secret(1).signer(genesis);
    let transaction = sample::transaction(sample::transfer());
    let leaves: Vec<Vec<u8>> = (0u8..5).map(|n| vec![n]).collect();
    let commit = commitment(&genesis, &task, &miner, &sample::manifest().root(), 70_512, &sample::salt());
    let root = |count: usize| merkle::root(leaves.iter().take(count));
    let rows = [Row::Scores(vec![MicroNats::clamped(1), MicroNats::MAX]), Row::Fault(Fault::NotFinite)];
    let vote = |kind, block| sample::vote(kind, block).payload();
    let block = sample::block().hash();
    let mut lines: Vec<(String, Vec<u8>)> = vec![
        ("hash/plain-empty".into(), hash::plain(b"").to_vec()),
        ("id/genesis".into(), genesis.as_bytes().to_vec()),
        ("id/transaction".into(), transaction.id().as_bytes().to_vec()),
        ("id/block".into(), block.as_bytes().to_vec()),
        ("id/certificate".into(), sample::certificate().hash().as_bytes().to_vec()),
        ("id/validators".into(), sample::set().hash().as_bytes().to_vec()),
        ("id/params".into(), sample::genesis().params.hash().as_bytes().to_vec()),
        ("id/recipe".into(), sample::recipe().hash().as_bytes().to_vec()),
        ("id/manifest".into(), sample::manifest().root().as_bytes().to_vec()),
        ("commitment".into(), commit.as_bytes().to_vec()),
        (
            "score-commitment".into(),
            score_commitment(&genesis, &task, &sample::key(1), &root(3), &sample::salt()).as_bytes().to_vec(),
        ),
        ("seal-key-hash".into(), seal_key_hash(&sample::seal_key()).as_bytes().to_vec()),
        ("priority".into(), priority(&sample::seal_key(), &commit).to_vec()),
        ("training-seed".into(), training_seed(&task, &miner).to_be_bytes().to_vec()),
        ("payload/prevote-nil".into(), vote(VoteKind::Prevote, None)),
        ("payload/precommit-block".into(), vote(VoteKind::Precommit, Some(block))),
        ("payload/body".into(), BodyFrame::payload(Height::new(1), Round::new(2), &block)),
        ("payload/transaction".into(), codec::encode(&transaction)),
        ("signature/transaction".into(), signer.sign_transaction(b"payload").as_bytes().to_vec()),
        ("signature/vote".into(), signer.sign_vote(b"payload").as_bytes().to_vec()),
        ("signature/proposal".into(), signer.sign_proposal(b"payload").as_bytes().to_vec()),
        ("signature/body".into(), signer.sign_body(b"payload").as_bytes().to_vec()),
        ("signature/peer".into(), signer.sign_peer(b"payload").as_bytes().to_vec()),
        ("sealed/empty".into(), seal::seal(&sample::seal_key(), b"")),
        ("sealed/short".into(), seal::seal(&sample::seal_key(), b"{\"prompt\":\"a\"}\n")),
    ];
    for count in 0..=5 {
        lines.push((format!("merkle-root/{count}"), root(count).as_bytes().to_vec()));
    }
    for row in rows {
        let name = if matches!(row, Row::Fault(_)) { "fault" } else { "scores" };
        lines.push((format!("row/{name}"), row.to_bytes()));
    }
    for topic in Topic::ALL {
        lines.push((format!("topic/{topic:?}"), topic.full_name(&genesis).into_bytes()));
    }
    for round in 0..4 {
        let proposer = sample::set().proposer(&genesis, 3, Height::new(301), Round::new(round)).key;
        lines.push((format!("proposer/epoch-3-height-301-round-{round}"), proposer.as_bytes().to_vec()));
    }
    lines.into_iter().map(|(name, bytes)| format!("{name} {}\n", hex::encode(bytes))).collect()
}
