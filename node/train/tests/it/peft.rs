//! Agreement with `transformers` and `peft` on golden fixtures.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tiltyard_train::Target;
use tiltyard_train::data::{Row, Template};
use tiltyard_train::eval::losses;
use tiltyard_train::model::{Batch, Model};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft")
}

/// The mean loss of one golden row's completion, in nats.
fn score(model: &Model, row: &Value) -> f64 {
    let ids: Vec<u32> = row["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let prompt = row["prompt_tokens"].as_u64().unwrap() as usize;
    let targets = (prompt..ids.len()).map(|at| Target { row: at - 1, token: ids[at], weight: 1.0 }).collect();
    let losses = model.losses(&Batch::new(&[&ids], targets, 0)).unwrap();
    losses.iter().sum::<f64>() / losses.len() as f64
}

fn compare(name: &str) {
    let folder = fixtures().join(name);
    let golden: Value = serde_json::from_slice(&std::fs::read(folder.join("scores.json")).unwrap()).unwrap();
    let rows = golden["rows"].as_array().unwrap();
    assert!(rows.len() >= 3, "{name} has only {} golden rows", rows.len());
    let base = Model::load(&folder, 1 << 30).unwrap();
    let mut adapted = base.clone();
    adapted.load_adapter(&folder.join("adapter"), 1 << 30).unwrap();
    for (at, row) in rows.iter().enumerate() {
        for (model, key) in [(&base, "base_nats"), (&adapted, "adapter_nats")] {
            let (got, want) = (score(model, row), row[key].as_f64().unwrap());
            assert!((got - want).abs() < 5e-5, "{name} row {at} {key}: ours {got}, theirs {want}");
        }
    }
}

#[test]
fn a_tied_model_and_its_adapter_score_as_in_peft() {
    compare("tied");
}

#[test]
fn an_untied_model_and_its_adapter_score_as_in_peft() {
    compare("untied");
}

#[test]
fn the_shipped_base_scores_real_rows_as_in_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testnet/assets/base");
    let model = Model::load(&folder, 1 << 30).unwrap();
    let template = Template::load(&folder, model.config().eos).unwrap();
    let golden: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("base.json")).unwrap()).unwrap();
    let rows = golden["rows"].as_array().unwrap();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let example = |row: &Value| {
        let row = Row { prompt: text(row, "prompt"), completion: text(row, "completion") };
        template.example(&row, model.context()).unwrap()
    };
    let examples: Vec<_> = rows.iter().map(example).collect();
    assert!(examples.len() >= 20);
    let ours = losses(&model, &examples, 1).unwrap();
    for (at, (ours, row)) in ours.iter().zip(rows).enumerate() {
        let theirs = row["nats"].as_f64().unwrap();
        assert!((ours - theirs).abs() < 5e-5, "row {at}: ours {ours}, theirs {theirs}");
    }
}

#[test]
fn a_saved_adapter_scores_the_same_when_loaded_again() {
    let folder = fixtures().join("tied");
    let mut model = Model::load(&folder, 1 << 30).unwrap();
    let spec = model.load_adapter(&folder.join("adapter"), 1 << 30).unwrap();
    let saved = tempfile::tempdir().unwrap();
    let weights = model.adapter_to_safetensors(tiltyard_train::model::FileType::F32).unwrap().unwrap();
    std::fs::write(saved.path().join("adapter_model.safetensors"), weights).unwrap();
    std::fs::write(saved.path().join("adapter_config.json"), spec.to_json().unwrap()).unwrap();
    let mut again = Model::load(&folder, 1 << 30).unwrap();
    assert_eq!(again.load_adapter(saved.path(), 1 << 30).unwrap(), spec);
    let golden: Value = serde_json::from_slice(&std::fs::read(folder.join("scores.json")).unwrap()).unwrap();
    for row in golden["rows"].as_array().unwrap() {
        assert_eq!(score(&model, row).to_bits(), score(&again, row).to_bits());
    }
}
