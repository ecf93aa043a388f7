//! Wrong usage and broken surroundings: a fact, a remedy, the right exit code, nothing lost.

use std::fs;
use std::path::Path;

use crate::world::{json, tiltyard, until, world};

fn fails(arguments: &[&str], code: i32, words: &str) {
    let output = tiltyard(arguments);
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "tiltyard {arguments:?}: {said}");
    assert!(said.contains(words), "tiltyard {arguments:?} says {said:?}, not {words:?}");
}

fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("node").display().to_string();
    json(&["init", "--dir", &dir, "--unencrypted"]);
    (folder, dir)
}

#[test]
fn a_node_without_its_surroundings_says_what_is_missing() {
    let (_held, dir) = folder();
    fails(&["init", "--dir", &dir, "--unencrypted"], 3, "is there already");
    fails(&["run", "--dir", &dir], 3, "genesis.cbor");
    fails(&["status", "--dir", &dir], 3, "start one with `tiltyard run`");
    fs::write(Path::new(&dir).join("genesis.cbor"), b"not a genesis").expect("written");
    fails(&["run", "--dir", &dir], 3, "genesis");
    let config = Path::new(&dir).join("config.toml");
    let text = fs::read_to_string(&config).expect("a configuration");
    fs::write(&config, text.replace("train_max", "trian_max")).expect("written");
    fails(&["run", "--dir", &dir], 3, "trian_max");
    fails(&["run", "--dir", "/nonexistent/tiltyard"], 3, "tiltyard init");
}

#[test]
fn usage_errors_are_told_apart_from_refusals() {
    let (held, dir) = folder();
    fails(&["no-such-command"], 2, "unrecognized");
    fails(&["wallet", "transfer", "12", "5", "--dir", &dir], 2, "hex digits");
    let file = held.path().join("garbage");
    fs::write(&file, [0xff; 300]).expect("written");
    let file = file.display().to_string();
    fails(&["genesis", "show", &file], 1, "genesis");
    let zeros = "00".repeat(32);
    fails(&["receipt", "verify", &file, "--genesis-hash", &zeros, "--json"], 1, "\"valid\":false");
    fails(&["receipt", "verify", &file], 2, "--genesis");
}

#[test]
fn one_folder_and_one_port_serve_one_node() {
    let mut world = world(1, 1);
    world.members[0].start();
    until(&world, "a block", |world| world.members[0].height() >= 1);
    fails(&["run", "--dir", world.members[0].dir()], 3, "used by another running node");
    let config = world.members[1].dir.join("config.toml");
    let text = fs::read_to_string(&config).expect("a configuration");
    let (own, taken) = (&world.members[1].url[7..], &world.members[0].url[7..]);
    fs::write(&config, text.replace(own, taken)).expect("written");
    fails(&["run", "--dir", world.members[1].dir()], 3, "choose another api.listen");
}

#[test]
fn unusable_rows_are_named_by_their_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../testnet/assets/base");
    fs::write(path("train"), "{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"a\"}\n")
        .expect("written");
    fs::write(path("eval"), "{\"prompt\":\"c\",\"completion\":\"\"}\n").expect("written");
    let arguments =
        ["task", "check", "--base", base, "--train", &path("train"), "--eval", &path("eval"), "--json"];
    let output = tiltyard(&arguments);
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["clean"], false);
    assert_eq!(found["report"]["training"]["faults"][0]["line"], 2);
    assert_eq!(found["report"]["evaluation"]["faults"][0]["line"], 1);
    fs::remove_file(path("eval")).expect("removed");
    let missing = tiltyard(&arguments);
    assert_eq!(missing.status.code(), Some(3), "a file that is not there is not a bad row");
}
