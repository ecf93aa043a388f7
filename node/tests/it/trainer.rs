//! Models, rows and training without a network, through the binary.

use std::fs;
use std::path::{Path, PathBuf};

use crate::world::{json, tiltyard};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> String {
    root().join("train/tests/fixtures/peft").join(name).display().to_string()
}

fn said(arguments: &[&str], code: i32) -> String {
    let output = tiltyard(arguments);
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "tiltyard {arguments:?}: {said}");
    said.into_owned()
}

/// Rows a small model can learn, in Alpaca's columns.
fn rows(folder: &Path, name: &str, from: usize, count: usize) -> String {
    let row = |at: usize| {
        let letter = char::from(b'a' + (at * 7 % 26) as u8);
        let word: String = std::iter::repeat_n(letter, 2 + at % 5).collect();
        format!("{{\"instruction\":\"say {letter} {at}\",\"input\":\"\",\"output\":\" {word}\"}}\n")
    };
    let path: PathBuf = folder.join(name);
    fs::write(&path, (from..from + count).map(row).collect::<String>()).expect("written");
    path.display().to_string()
}

#[test]
fn a_person_trains_looks_merges_and_shows() {
    let held = tempfile::tempdir().expect("a folder");
    let (train, eval) = (rows(held.path(), "t.jsonl", 0, 60), rows(held.path(), "e.jsonl", 900, 20));
    let path = |name: &str| held.path().join(name).display().to_string();
    let (out, plot, csv) = (path("adapter"), path("curves.svg"), path("steps.csv"));
    let recipe = path("mine.toml");
    let text = "learning_rate = 5e-3\nschedule = \"cosine\"\nbatch_rows = 8\nepochs = 3\n[lora]\nrank = 4\nalpha = 8\n";
    fs::write(&recipe, text).expect("written");
    let strategy = format!("fixed:{recipe}");
    let base = fixture("tied");
    let answer = json(&[
        "train",
        "--base",
        &base,
        "--train",
        &train,
        "--eval",
        &eval,
        "--out",
        &out,
        "--strategy",
        &strategy,
        "--plot",
        &plot,
        "--csv",
        &csv,
    ]);
    let score = |key: &str| answer[key].as_u64().expect("a score");
    assert!(score("checkpoint_micro") < score("base_micro") * 9 / 10, "{answer}");
    assert!(fs::read_to_string(&plot).expect("a picture").contains("<polyline"));
    let table = fs::read_to_string(&csv).expect("a table");
    assert_eq!(table.lines().filter(|line| line.starts_with("train,")).count(), 24, "{table}");
    let merged = path("merged");
    json(&["model", "merge", &base, &out, &merged]);
    let shown = json(&["model", "show", &merged]);
    assert_eq!((shown["family"].as_str(), shown["tied"].as_bool()), (Some("llama"), Some(true)));
    let words = said(&["model", "merge", &base, &out, &merged], 1);
    assert!(words.contains("is not empty"), "{words}");
    let words = said(&["model", "merge", &fixture("qwen2"), &out, &path("m2")], 1);
    assert!(words.contains("adapter: "), "{words}");
    let words = said(&["model", "show", &path("nothing")], 1);
    assert!(words.contains("config.json cannot be read"), "{words}");
}

#[test]
fn a_check_shows_what_is_there_and_what_it_costs() {
    let held = tempfile::tempdir().expect("a folder");
    let (train, eval) = (rows(held.path(), "t.jsonl", 0, 40), rows(held.path(), "e.jsonl", 900, 20));
    let base = fixture("llama3");
    let check = ["task", "check", "--base", &base, "--train", &train, "--eval", &eval];
    let checked = json(&[&check[..], &["--pot", "100"]].concat());
    assert_eq!(checked["clean"], true, "{checked}");
    assert_eq!(checked["report"]["training"]["rows"], 40);
    assert_eq!(checked["money"]["miners"], 85_000_000);
    assert_eq!(checked["windows"].as_str().expect("windows").split(',').count(), 7);
    let text = said(&check, 0);
    for words in ["training columns: instruction", "tokens", "▪", "--windows", "clean: it can be posted"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let one =
        "{\"prompt\":\"say a\",\"completion\":\" yes\"}\n{\"prompt\":\"say b\",\"completion\":\" yes\"}\n";
    fs::write(held.path().join("one.jsonl"), one).expect("written");
    let one = held.path().join("one.jsonl").display().to_string();
    let text = said(&["task", "check", "--base", &base, "--train", &one, "--eval", &one], 1);
    for words in
        ["every training row has the same answer", "always saying it wins", "repeat training rows: 1, 2"]
    {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let text = said(&[&check[..], &["--columns", "prompt=title,completion=body"]].concat(), 1);
    assert!(text.contains("fit no form of instruction tasks"), "{text}");
}

#[test]
fn an_external_trainer_is_run_as_a_job() {
    let held = tempfile::tempdir().expect("a folder");
    let train = rows(held.path(), "t.jsonl", 0, 40);
    let script = held.path().join("trainer.sh");
    let adapter = fixture("tied/adapter");
    let text = format!("mkdir -p \"$TILTYARD_OUT\"\ncp {adapter}/* \"$TILTYARD_OUT\"\n");
    fs::write(&script, text).expect("written");
    let out = held.path().join("out").display().to_string();
    let strategy = format!("external:/bin/sh {}", script.display());
    let base = fixture("tied");
    let arguments = ["train", "--base", &base, "--train", &train, "--out", &out, "--strategy", &strategy];
    let answer = json(&arguments);
    assert_eq!(answer["recipe"]["strategy"]["External"], "sh trainer.sh", "{answer}");
    assert!(held.path().join("out/adapter_model.safetensors").exists());
    fs::write(&script, "echo no card in this machine >&2\nexit 1\n").expect("written");
    let again = held.path().join("again").display().to_string();
    let arguments = ["train", "--base", &base, "--train", &train, "--out", &again, "--strategy", &strategy];
    let words = said(&arguments, 1);
    assert!(words.contains("no card in this machine"), "{words}");
}
