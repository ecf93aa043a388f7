//! A node's data on disk: damaged, repaired from peers; measured, verified, compacted by the tool.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::world::{Member, json, tiltyard, until, world};

fn segment(node: &Member) -> PathBuf {
    node.dir.join("chain/log/00000000000000000001.log")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).expect("written");
}

fn db(command: &str, node: &Member) -> (Option<i32>, Value) {
    let output = tiltyard(&["db", command, "--dir", node.dir(), "--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("it prints JSON"))
}

#[test]
fn a_flipped_bit_in_the_log_is_found_by_the_tool_and_had_again_from_peers() {
    let mut world = world(4, 0);
    for member in &mut world.members {
        member.start();
    }
    until(&world, "everyone at height 12", |world| world.members.iter().all(|member| member.height() >= 12));
    let (code, refused) = db("stats", &world.members[3]);
    assert_eq!(code, Some(3), "a running node's folder is refused: {refused}");
    assert!(refused["error"].as_str().is_some_and(|text| text.contains("stop it first")), "{refused}");
    assert_eq!(world.members[3].stop(), Some(0));

    let stats = json(&["db", "stats", "--dir", world.members[3].dir()]);
    assert!(stats["blocks"].as_u64().is_some_and(|blocks| blocks >= 12), "{stats}");
    assert_eq!((stats["first"].as_u64(), stats["missing_blocks"].as_u64()), (Some(1), Some(0)));
    let (code, sound) = db("verify", &world.members[3]);
    assert_eq!((code, &sound["sound"]), (Some(0), &Value::Bool(true)), "{sound}");

    // A block in the middle of the log, and one in the vote journal.
    let path = segment(&world.members[3]);
    let middle = std::fs::metadata(&path).expect("a segment").len() / 2;
    flip(&path, usize::try_from(middle).expect("small"));
    let (code, found) = db("verify", &world.members[3]);
    assert_eq!((code, &found["sound"]), (Some(1), &Value::Bool(false)));
    let damaged = &found["damaged"][0];
    let at = damaged["offset"].as_u64().expect("an offset");
    assert!(at <= middle && damaged["height"].as_u64().is_some_and(|height| height > 1), "{found}");
    assert_eq!(found["missing"].as_array().map(Vec::len), Some(1), "{found}");
    let height = found["missing"][0].as_u64().expect("a height");
    let before = std::fs::read(&path).expect("a segment");
    assert_eq!(db("verify", &world.members[3]).1, found, "verifying changes nothing");
    assert_eq!(std::fs::read(&path).expect("a segment"), before);

    world.members[3].start();
    until(&world, "the damaged block is had again", |world| {
        world.members[3].get(&format!("/v1/blocks/{height}")).is_some()
    });
    let (ours, theirs) = (
        world.members[3].get(&format!("/v1/blocks/{height}")).expect("a block"),
        world.members[0].get(&format!("/v1/blocks/{height}")).expect("a block"),
    );
    assert_eq!(ours["hash"], theirs["hash"]);
    let level = world.members[0].height();
    until(&world, "the node goes on", |world| world.members[3].height() >= level);
    assert_eq!(world.members[3].stop(), Some(0));

    let (code, repaired) = db("repair", &world.members[3]);
    assert_eq!((code, repaired["missing_blocks"].as_u64()), (Some(0), Some(0)), "{repaired}");
    let compacted = json(&["db", "compact", "--dir", world.members[3].dir()]);
    assert!(compacted["entries"].as_u64().is_some_and(|entries| entries > 10), "{compacted}");
    world.members[3].start();
    let level = world.members[0].height();
    until(&world, "the compacted node goes on", |world| world.members[3].height() > level);
}

#[test]
fn a_folder_without_chain_is_told_what_is_missing() {
    let world = world(1, 0);
    let (code, answer) = db("verify", &world.members[0]);
    assert_eq!(code, Some(1), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("run it once")), "{answer}");
    let nowhere = tiltyard(&["db", "stats", "--dir", "/nonexistent/tiltyard"]);
    assert_eq!(nowhere.status.code(), Some(1));
    for command in ["stats", "verify", "repair", "compact"] {
        let help = tiltyard(&["db", command, "--help"]);
        assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"), "{command}");
    }
}
