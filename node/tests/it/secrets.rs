//! A thief who reads what a node leaves lying about — logs, arguments, environment, answers, its folder — finds no secret.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::world::{Member, json, tiltyard, until, world};

/// Every text and byte form in which the folder's secrets could turn up.
fn secrets(member: &Member) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for name in ["node.key", "validator.key", "account.key"] {
        let text = std::fs::read_to_string(member.dir.join("keys").join(name)).expect("an open key");
        let seed = text.lines().last().expect("a payload").to_owned();
        forms.push(hex::decode(&seed).expect("hex"));
        forms.push(seed.to_uppercase().into_bytes());
        forms.push(seed.into_bytes());
    }
    let token = std::fs::read_to_string(member.dir.join("api.token")).expect("a token");
    forms.push(token.trim().as_bytes().to_vec());
    forms
}

fn holds(bytes: &[u8], secrets: &[Vec<u8>]) -> bool {
    secrets.iter().any(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_slice()))
}

/// Lists the files below `dir` whose bytes hold a secret.
fn leaks(dir: &Path, secrets: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(leaks(&path, secrets));
        } else if holds(&std::fs::read(&path).unwrap_or_default(), secrets) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn no_secret_is_in_logs_arguments_environment_answers_or_the_chain() {
    let mut world = world(1, 1);
    world.members[0].start_with(&["--log", "trace"]);
    world.members[1].start();
    until(&world, "a few blocks", |world| world.members.iter().all(|member| member.height() >= 3));
    let to = world.members[1].public["account"].as_str().expect("an account").to_owned();
    json(&["wallet", "transfer", &to, "1", "--dir", world.members[1].dir()]);
    let member = &world.members[0];
    let secrets = secrets(member);
    assert_eq!(secrets.len(), 10);

    let pid = member.pid().expect("it runs");
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).expect("our own process");
        assert!(!bytes.is_empty() && !holds(&bytes, &secrets), "{file}");
    }
    for path in ["/v1/status", "/v1/peers", "/v1/validators", "/v1/params", "/v1/genesis", "/v1/jobs"] {
        let answer = member.get(path).expect("an answer").to_string();
        assert!(!holds(answer.as_bytes(), &secrets), "{path}");
    }
    let log = member.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log says all it can");
    // The whole folder: log, chain, index, journal, public record. Only the key files and the token hold their secrets.
    let found = leaks(&member.dir, &secrets);
    let allowed: Vec<PathBuf> = ["api.token", "keys/account.key", "keys/node.key", "keys/validator.key"]
        .map(|p| member.dir.join(p))
        .into();
    assert_eq!(found, allowed);
    for path in &found {
        let mode = std::fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn a_node_whose_key_file_others_can_read_does_not_start() {
    let world = world(1, 0);
    let key = world.members[0].dir.join("keys/validator.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let output = tiltyard(&["run", "--dir", world.members[0].dir()]);
    assert_ne!(output.status.code(), Some(0));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("chmod 600") && words.contains("validator.key"), "{words}");
}
