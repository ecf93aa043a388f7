//! The table of threats does not rot: every test that it names is there, and so is the gate that it speaks of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// The folder of a crate, by the name that the table uses.
fn folder(name: &str) -> PathBuf {
    let root = root();
    match name {
        "keys" | "proto" | "testnet" => root.join(name),
        "node" => root.join("node"),
        other => root.join("node").join(other),
    }
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            out.push(path);
        }
    }
}

/// Everything between backticks that looks like `crate::test`, with its line.
fn named(text: &str) -> Vec<(usize, String, String)> {
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| line.starts_with('|')) {
        for word in line.split('`').skip(1).step_by(2) {
            if let Some((name, test)) = word.split_once("::") {
                let test = test.rsplit("::").next().unwrap_or(test);
                out.push((number + 1, name.to_owned(), test.to_owned()));
            }
        }
    }
    out
}

/// Names of the test functions of a crate: those whose attribute says so.
fn tests_of(name: &str) -> Vec<String> {
    let mut files = Vec::new();
    for part in ["src", "tests"] {
        let path = folder(name).join(part);
        if path.is_dir() {
            sources(&path, &mut files);
        }
    }
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(rest) = line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn ")) {
                if is_test {
                    found.push(rest.split('(').next().unwrap_or(rest).to_owned());
                }
                is_test = false;
            }
        }
    }
    found
}

#[test]
fn every_test_that_the_table_of_threats_names_exists() {
    let text = fs::read_to_string(root().join("node/docs/threats.md")).expect("the table is there");
    let named = named(&text);
    assert!(named.len() >= 40, "the table names only {} tests", named.len());
    let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let missing: Vec<String> = named
        .iter()
        .filter(|(_, name, test)| !known.entry(name.clone()).or_insert_with(|| tests_of(name)).contains(test))
        .map(|(line, name, test)| format!("line {line}: {name}::{test}"))
        .collect();
    assert!(missing.is_empty(), "the table names tests that are not there:\n{}", missing.join("\n"));
}

#[test]
fn every_row_that_was_promised_is_in_the_table() {
    let text = fs::read_to_string(root().join("node/docs/threats.md")).expect("the table is there");
    let promised = [6].into_iter().chain(16..=19).chain(24..=38).chain(49..=51);
    for row in promised {
        assert!(text.lines().any(|line| line.starts_with(&format!("| {row} |"))), "row {row} is missing");
    }
}

#[test]
fn code_that_reads_what_strangers_send_cannot_index_out_of_bounds() {
    for name in ["keys", "proto", "ledger", "consensus", "machine"] {
        let path = folder(name).join("src/lib.rs");
        let text = fs::read_to_string(&path).expect("readable");
        let head: String = text.lines().take_while(|line| !line.starts_with("mod ")).collect();
        assert!(head.contains("deny("), "{name} denies nothing");
        assert!(head.contains("clippy::indexing_slicing"), "{name} may index without a bound");
        let mut files = Vec::new();
        sources(&folder(name).join("src"), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).expect("readable");
            let lifted = text.lines().any(|line| {
                line.contains("indexing_slicing") && (line.contains("allow(") || line.contains("expect("))
            });
            assert!(!lifted, "{} lifts the bound", file.display());
        }
    }
}
