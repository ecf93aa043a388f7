//! Agreement with `transformers` and `peft` on golden fixtures.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tiltyard_train::Target;
use tiltyard_train::data::{Row, Template};
use tiltyard_train::eval::losses;
use tiltyard_train::model::folder::{self, FolderError};
use tiltyard_train::model::{Batch, FileType, Model};
use tiltyard_train::safe::TensorFile;

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

/// Compares the log-probability of every token at every position of the first row with golden logits.
fn compare_logits(model: &Model, folder: &Path, row: &Value, tensor: &str) {
    let ids: Vec<u32> = row["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let file = TensorFile::read(&folder.join("logits.safetensors"), 1 << 20).unwrap();
    let logits = file.values(tensor).unwrap();
    let vocab = model.config().vocab;
    assert_eq!(logits.len(), ids.len() * vocab);
    let every = (0..ids.len())
        .flat_map(|at| (0..vocab as u32).map(move |token| Target { row: at, token, weight: 1.0 }));
    let losses = model.losses(&Batch::new(&[&ids], every.collect(), 0)).unwrap();
    for (at, (ours, theirs)) in losses.chunks(vocab).zip(logits.chunks(vocab)).enumerate() {
        let sum = theirs.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
        for (token, (ours, &theirs)) in ours.iter().zip(theirs).enumerate() {
            let theirs = sum - f64::from(theirs);
            assert!((ours - theirs).abs() < 2e-4, "{tensor} at {at}, token {token}: {ours} against {theirs}");
        }
    }
}

fn compare(name: &str) {
    let folder = fixtures().join(name);
    let golden: Value = serde_json::from_slice(&std::fs::read(folder.join("scores.json")).unwrap()).unwrap();
    let rows = golden["rows"].as_array().unwrap();
    assert!(rows.len() >= 3, "{name} has only {} golden rows", rows.len());
    let base = Model::load(&folder, 1 << 30).unwrap();
    let mut adapted = base.clone();
    adapted.load_adapter(&folder.join("adapter"), 1 << 30).unwrap();
    compare_logits(&base, &folder, &rows[0], "base");
    compare_logits(&adapted, &folder, &rows[0], "adapter");
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
fn a_sharded_bf16_llama_with_stretched_angles_and_patterned_ranks_scores_as_in_peft() {
    compare("llama3");
}

#[test]
fn a_qwen2_model_with_biases_and_an_adapter_on_one_layer_scores_as_in_peft() {
    compare("qwen2");
}

#[test]
fn a_qwen3_model_of_f16_with_normalized_heads_scores_as_in_peft() {
    compare("qwen3");
}

#[test]
fn a_merged_folder_scores_as_the_adapter_and_loads_alone() {
    for name in ["tied", "llama3", "qwen2", "qwen3"] {
        let folder = fixtures().join(name);
        let out = tempfile::tempdir().unwrap();
        let merged = out.path().join("merged");
        let exact = Some(FileType::F32);
        folder::merge(&folder, &folder.join("adapter"), &merged, 1 << 30, exact).unwrap();
        let golden: Value =
            serde_json::from_slice(&std::fs::read(folder.join("scores.json")).unwrap()).unwrap();
        let alone = Model::load(&merged, 1 << 30).unwrap();
        for row in golden["rows"].as_array().unwrap() {
            let (got, want) = (score(&alone, row), row["adapter_nats"].as_f64().unwrap());
            assert!((got - want).abs() < 5e-5, "{name}: ours {got}, theirs {want}");
        }
        let again = folder::merge(&folder, &folder.join("adapter"), &merged, 1 << 30, None);
        assert!(matches!(again, Err(FolderError::NotEmpty { .. })));
        assert_eq!(folder::show(&merged, 1 << 30).unwrap().tokenizer, 320);
    }
}

#[test]
fn joined_shards_are_the_same_model() {
    let folder = fixtures().join("llama3");
    let out = tempfile::tempdir().unwrap();
    folder::join(&folder, out.path(), 1 << 30).unwrap();
    assert!(
        !folder::show(out.path(), 1 << 30).unwrap().sharded
            && folder::show(&folder, 1 << 30).unwrap().sharded
    );
    let (one, many) = (Model::load(out.path(), 1 << 30).unwrap(), Model::load(&folder, 1 << 30).unwrap());
    assert_eq!(one.to_safetensors(FileType::F32).unwrap(), many.to_safetensors(FileType::F32).unwrap());
}

/// Copies a fixture, spoils one of its files, and gives the words of the refusal.
fn spoilt(name: &str, file: &str, spoil: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> String {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = copy.path().join(file);
    match spoil(std::fs::read(&path).unwrap()) {
        Some(bytes) => std::fs::write(&path, bytes).unwrap(),
        None => std::fs::remove_file(&path).unwrap(),
    }
    folder::show(copy.path(), 1 << 30).unwrap_err().to_string()
}

fn replaced(bytes: Vec<u8>, from: &str, to: &str) -> Option<Vec<u8>> {
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(from), "{from} is not in the file");
    Some(text.replace(from, to).into_bytes())
}

#[test]
fn a_spoilt_folder_is_refused_with_its_file_and_a_remedy() {
    let config = |from: &str, to: &str| spoilt("qwen3", "config.json", |bytes| replaced(bytes, from, to));
    let words = config("\"model_type\": \"qwen3\"", "\"model_type\": \"gpt2\"");
    assert!(words.contains("gpt2") && words.contains("\"qwen3\""), "{words}");
    let words = config("\"silu\"", "\"gelu\"");
    assert!(words.contains("gelu"), "{words}");
    let words = config("\"vocab_size\": 320", "\"vocab_size\": 319");
    assert!(words.contains("shape [320, 32]"), "{words}");
    let words = spoilt("llama3", "model-00002-of-00002.safetensors", |bytes| Some(bytes[..9_000].to_vec()));
    assert!(words.contains("model-00002-of-00002.safetensors") && words.contains("missing"), "{words}");
    let words = spoilt("llama3", "model-00001-of-00002.safetensors", |_| None);
    assert!(words.contains("model-00001-of-00002.safetensors cannot be read"), "{words}");
    let words = spoilt("llama3", "model.safetensors.index.json", |bytes| {
        replaced(bytes, "model-00001-of-00002.safetensors", "../tied/model.safetensors")
    });
    assert!(words.contains("not the name of a file beside it"), "{words}");
    let words = spoilt("qwen2", "model.safetensors", |bytes| {
        let text = bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
        Some(text.replacen("\"F32\"", "\"I32\"", 1).chars().map(|c| c as u8).collect())
    });
    assert!(words.contains("has type I32"), "{words}");
    let words = spoilt("qwen2", "tokenizer.json", |_| None);
    assert!(words.contains("tokenizer.json cannot be read"), "{words}");
    let words = spoilt("qwen2", "tokenizer.json", |_| Some(b"{}".to_vec()));
    assert!(words.contains("use the base model's own file"), "{words}");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testnet/assets/base/tokenizer.json");
    let words = spoilt("qwen2", "tokenizer.json", |_| Some(std::fs::read(shipped).unwrap()));
    assert!(words.contains("up to 1023") && words.contains("320"), "{words}");
}

#[test]
fn an_adapter_of_another_base_is_refused_by_its_shape() {
    let out = tempfile::tempdir().unwrap();
    let (base, other) = (fixtures().join("qwen2"), fixtures().join("untied/adapter"));
    let words = folder::merge(&base, &other, &out.path().join("m"), 1 << 30, None).unwrap_err().to_string();
    assert!(words.contains("adapter: ") && words.contains("this base model needs"), "{words}");
    assert_eq!(out.path().read_dir().unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn adapter_settings_that_are_not_plain_lora_are_refused_by_name() {
    let folder = fixtures().join("qwen2");
    let text = std::fs::read_to_string(folder.join("adapter/adapter_config.json")).unwrap();
    let cases = [
        ("\"use_dora\": false", "\"use_dora\": true", "use_dora"),
        ("\"lora_bias\": false", "\"lora_bias\": true", "lora_bias"),
        ("\"q_proj\"", "\"lm_head\"", "target_modules"),
        ("\"rank_pattern\": {}", "\"rank_pattern\": {\"q_.*\": 2}", "rank_pattern"),
        ("\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": 2, \"self_attn.q_proj\": 3}", "two entries"),
        ("\"r\": 4", "\"r\": 0", "rank 0"),
        ("\"lora_alpha\": 8", "\"lora_alpha\": -8", "lora_alpha"),
        ("[\n  1\n ]", "[\n  2\n ]", "layers_to_transform"),
    ];
    for (from, to, word) in cases {
        assert!(text.contains(from), "{from} is not in the file");
        let copy = tempfile::tempdir().unwrap();
        std::fs::write(copy.path().join("adapter_config.json"), text.replace(from, to)).unwrap();
        let mut model = Model::load(&folder, 1 << 30).unwrap();
        let words = model.load_adapter(copy.path(), 1 << 30).unwrap_err().to_string();
        assert!(words.contains(word), "{to}: {words}");
    }
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
    let weights = model.adapter_to_safetensors(FileType::F32).unwrap().unwrap();
    std::fs::write(saved.path().join("adapter_model.safetensors"), weights).unwrap();
    std::fs::write(saved.path().join("adapter_config.json"), spec.to_json().unwrap()).unwrap();
    let mut again = Model::load(&folder, 1 << 30).unwrap();
    assert_eq!(again.load_adapter(saved.path(), 1 << 30).unwrap(), spec);
    let golden: Value = serde_json::from_slice(&std::fs::read(folder.join("scores.json")).unwrap()).unwrap();
    for row in golden["rows"].as_array().unwrap() {
        assert_eq!(score(&model, row).to_bits(), score(&again, row).to_bits());
    }
}
