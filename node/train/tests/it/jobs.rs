//! Jobs end to end: folders in, results out, restarts, faults.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::{SealKey, TaskId};
use tiltyard_proto::manifest::BlobKind;
use tiltyard_proto::score::{Fault, Row};
use tiltyard_proto::seal;
use tiltyard_proto::task::TaskKind;
use tiltyard_train::job::result::{EvalResult, JobResult, TrainResult};
use tiltyard_train::job::spec::{
    Activations, CheckSpec, DeviceSpec, EvalSpec, EvaluationSource, JobSpec, Limits, StrategySpec, Subject,
    TrainSpec,
};
use tiltyard_train::job::{JobError, run_check, run_eval, run_train};

/// Tells the test binary, started again as a child, which job folder to train.
const CHILD_FOLDER: &str = "TILTYARD_TEST_JOB_FOLDER";

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft/tied")
}

/// Rows a small model can learn: the completion repeats the prompt's letter.
fn rows(from: usize, count: usize) -> String {
    let row = |at: usize| {
        let letter = char::from(b'a' + (at * 7 % 26) as u8);
        let word: String = std::iter::repeat_n(letter, 2 + at % 5).collect();
        format!("{{\"prompt\":\"say {letter} {at}\",\"completion\":\" {word}\"}}\n")
    };
    (from..from + count).map(row).collect()
}

pub(crate) struct Yard {
    root: TempDir,
}

impl Yard {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("training")).unwrap();
        std::fs::write(root.path().join("training/train.jsonl"), rows(0, 120)).unwrap();
        std::fs::write(root.path().join("eval.jsonl"), rows(1_000, 40)).unwrap();
        Self { root }
    }

    pub(crate) fn job(&self, name: &str, spec: &JobSpec) -> PathBuf {
        let folder = self.root.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        spec.write(&folder).unwrap();
        folder
    }

    pub(crate) fn train(&self, strategy: StrategySpec, budget_tokens: u64) -> TrainSpec {
        TrainSpec {
            task: TaskId::from_bytes([3; 32]),
            miner: miner(1),
            kind: TaskKind::Instruction,
            base: base(),
            training: self.root.path().join("training"),
            strategy,
            budget_tokens,
            checkpoint_bytes_max: 1 << 20,
            save_every_steps: 5,
            workers: 1,
            activations: Activations::Auto,
            device: DeviceSpec::Cpu,
            limits: Limits::default(),
        }
    }

    pub(crate) fn trained(&self, name: &str, spec: TrainSpec) -> (PathBuf, TrainResult) {
        let folder = self.job(name, &JobSpec::Train(spec));
        match run_train(&folder).unwrap() {
            JobResult::Trained(result) => (folder.join("checkpoint"), *result),
            other => panic!("a training job gave {other:?}"),
        }
    }

    pub(crate) fn eval(&self, subject: Subject) -> EvalSpec {
        let path = self.root.path().join("eval.jsonl");
        EvalSpec {
            kind: TaskKind::Instruction,
            base: base(),
            plaintext_bytes: std::fs::metadata(&path).unwrap().len(),
            evaluation: EvaluationSource::Plain(path),
            examples: 40,
            subject,
            checkpoint_bytes_max: 1 << 20,
            workers: 1,
            limits: Limits::default(),
        }
    }

    pub(crate) fn evaluated(&self, name: &str, spec: EvalSpec) -> EvalResult {
        let folder = self.job(name, &JobSpec::Eval(spec));
        match run_eval(&folder).unwrap() {
            JobResult::Evaluated(result) => result,
            other => panic!("an evaluation job gave {other:?}"),
        }
    }
}

fn miner(seed: u8) -> PublicKey {
    tiltyard_keys::SecretKey::from_seed(&[seed; 32]).public()
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// A recipe file of so many times through the 120 rows, 15 steps each.
fn epochs(yard: &Yard, epochs: u32) -> StrategySpec {
    let path = yard.root.path().join("steady.toml");
    let text = "learning_rate = 5e-3\nschedule = \"cosine\"\nwarmup = 0.05\nbatch_rows = 8\n\
                loss_average = \"example\"\n";
    let lora = "[lora]\nrank = 4\nalpha = 8\ndropout = 0.1\n";
    std::fs::write(&path, format!("{text}epochs = {epochs}\n{lora}")).unwrap();
    StrategySpec::File(path)
}

/// A recipe with every setting that leaves a trace in the state, over 12 rows of 4 shards a step.
fn everything(yard: &Yard, steps: u32) -> StrategySpec {
    let path = yard.root.path().join("everything.toml");
    let text = "learning_rate = 5e-3\nschedule = \"constant\"\nwarmup = 0.2\nbatch_rows = 12\n\
                shard_tokens = 48\nema = 0.9\nbucket_steps = 3\nevaluate_every = 3\npatience = 3\nclip = 0.5\n";
    let lora = "[lora]\nrank = 4\nalpha = 8\ndropout = 0.1\n";
    std::fs::write(&path, format!("{text}steps = {steps}\n{lora}")).unwrap();
    StrategySpec::File(path)
}

#[test]
fn computing_activations_again_changes_no_byte_of_the_checkpoint() {
    let yard = Yard::new();
    let spec = |activations| TrainSpec { activations, ..yard.train(everything(&yard, 8), u64::MAX) };
    let kept = yard.trained("kept", spec(Activations::Keep)).0;
    let again = yard.trained("again", spec(Activations::Recompute)).0;
    assert_eq!(files(&kept), files(&again));
}

#[test]
fn a_run_that_stops_learning_ends_early_and_returns_to_its_best() {
    let yard = Yard::new();
    let path = yard.root.path().join("wild.toml");
    let text = "learning_rate = 0.3\nschedule = \"constant\"\nbatch_rows = 8\nsteps = 60\n\
                evaluate_every = 2\npatience = 2\n[lora]\nrank = 4\nalpha = 8\n";
    std::fs::write(&path, text).unwrap();
    let (checkpoint, result) = yard.trained("wild", yard.train(StrategySpec::File(path), u64::MAX));
    let lines = std::fs::read_to_string(checkpoint.with_file_name("progress.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let measured: Vec<(u64, u64)> = lines
        .iter()
        .filter_map(|line| Some((line["validation_micro"].as_u64()?, line["step"].as_u64()?)))
        .collect();
    let (best, step) = *measured.iter().min().unwrap();
    assert_eq!(result.validation_micro, Some(best));
    assert_eq!(measured.last().unwrap().1, step + 4, "two measurements later it ends: {measured:?}");
    let stopped = result.recipe.extra.iter().find(|(key, _)| key == "stopped-at-step");
    assert_eq!(stopped.map(|(_, value)| value.clone()), Some(step.to_string()));
}

#[test]
fn a_fixed_recipe_improves_the_score_of_the_base() {
    let yard = Yard::new();
    let (checkpoint, result) = yard.trained("train", yard.train(epochs(&yard, 4), u64::MAX));
    assert_eq!(result.kind, BlobKind::Adapter);
    assert_eq!((result.recipe.steps, result.resumed_from_step), (60, 0));
    result.recipe.check().unwrap();
    let names: Vec<String> = files(&checkpoint).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors"]);
    let before = yard.evaluated("before", yard.eval(Subject::Base));
    let after = yard.evaluated("after", yard.eval(Subject::Adapter(checkpoint)));
    assert!(after.mean_micro < before.mean_micro * 9 / 10, "{before:?} {after:?}");
}

#[test]
fn training_repeats_bit_for_bit_at_any_number_of_workers_but_not_for_another_miner() {
    let yard = Yard::new();
    let alone = yard.trained("a", yard.train(epochs(&yard, 4), u64::MAX)).0;
    for workers in [2, 3, 4] {
        let spec = TrainSpec { workers, ..yard.train(everything(&yard, 20), u64::MAX) };
        let one = TrainSpec { workers: 1, ..spec.clone() };
        let (alone, together) = (yard.trained("one", one).0, yard.trained(&format!("at-{workers}"), spec).0);
        assert_eq!(files(&alone), files(&together), "{workers} workers");
        let state = |checkpoint: &Path| files(&checkpoint.with_file_name("state"));
        assert_eq!(state(&alone), state(&together), "{workers} workers");
    }
    let other = yard.trained("c", TrainSpec { miner: miner(2), ..yard.train(epochs(&yard, 4), u64::MAX) }).0;
    assert_ne!(files(&alone), files(&other));
}

#[test]
fn search_beats_the_autotrain_preset_and_stays_in_its_budget() {
    let yard = Yard::new();
    let preset = StrategySpec::Preset("autotrain".into());
    let (fixed, _) = yard.trained("fixed", yard.train(preset, 40_000));
    let (found, result) = yard.trained("search", yard.train(StrategySpec::Search, 40_000));
    assert!(result.recipe.tokens_trained <= 42_000, "{}", result.recipe.tokens_trained);
    assert!(result.validation_micro.is_some());
    let subject = match result.kind {
        BlobKind::Model => Subject::Model(found),
        _ => Subject::Adapter(found),
    };
    let fixed = yard.evaluated("score-fixed", yard.eval(Subject::Adapter(fixed)));
    let found = yard.evaluated("score-search", yard.eval(subject));
    assert!(found.mean_micro < fixed.mean_micro * 9 / 10, "{found:?} {fixed:?}");
}

/// Not a test of its own: the child of the kill test. Without the variable it does nothing.
#[test]
fn child_trains_the_folder_it_is_given() {
    if let Some(folder) = std::env::var_os(CHILD_FOLDER) {
        run_train(Path::new(&folder)).unwrap();
    }
}

/// Starts a child process that trains a folder.
fn child(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "jobs::child_trains_the_folder_it_is_given"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Trains in a child process and kills it once it has written `lines` lines of progress.
fn train_and_kill(folder: &Path, lines: usize) {
    let mut child = child(folder);
    let seen = || std::fs::read(folder.join("progress.jsonl")).unwrap_or_default();
    while seen().iter().filter(|&&byte| byte == b'\n').count() < lines {
        assert!(child.try_wait().unwrap().is_none(), "the child ended before it was killed");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!folder.join("result.cbor").exists(), "the child finished before it was killed");
}

#[test]
fn a_job_beyond_its_processor_time_is_ended_by_the_system_without_a_result() {
    let yard = Yard::new();
    let limits = Limits { cpu_seconds_max: Some(1), ..Limits::default() };
    let spec = TrainSpec { limits, ..yard.train(StrategySpec::Search, 100_000_000) };
    let folder = yard.job("endless", &JobSpec::Train(spec));
    let status = child(&folder).wait().unwrap();
    assert_eq!(status.code(), None, "ended by a signal");
    assert!(!folder.join("result.cbor").exists() && !folder.join("error.json").exists());
}

#[test]
fn a_job_killed_twice_ends_with_the_bytes_of_one_never_killed() {
    let yard = Yard::new();
    for (name, strategy, kills) in
        [("fixed", epochs(&yard, 40), [50, 250]), ("search", StrategySpec::Search, [90, 200])]
    {
        let spec = || yard.train(strategy.clone(), 150_000);
        let (whole, expected) = yard.trained(&format!("{name}-whole"), spec());
        let folder = yard.job(&format!("{name}-killed"), &JobSpec::Train(spec()));
        for lines in kills {
            train_and_kill(&folder, lines);
        }
        let JobResult::Trained(result) = run_train(&folder).unwrap() else { panic!("not a training job") };
        assert!(result.resumed_from_step > 0, "{name} did not continue");
        assert_eq!(result.recipe, expected.recipe, "{name}");
        assert_eq!(files(&whole), files(&folder.join("checkpoint")), "{name}");
    }
}

#[test]
fn a_job_killed_after_every_step_ends_with_the_bytes_of_one_never_killed() {
    let yard = Yard::new();
    let spec = || TrainSpec { save_every_steps: 1, workers: 2, ..yard.train(everything(&yard, 9), u64::MAX) };
    let (whole, expected) = yard.trained("whole", spec());
    let mut kills = 0;
    let killed = yard.job("killed", &JobSpec::Train(spec()));
    while train_and_maybe_kill(&killed, kills + 1) {
        kills += 1;
    }
    assert!(kills >= 3, "only {kills} kills landed");
    let JobResult::Trained(result) = run_train(&killed).unwrap() else { panic!("not a training job") };
    assert_eq!(result.recipe, expected.recipe);
    assert_eq!(result.validation_micro, expected.validation_micro);
    assert_eq!(files(&whole), files(&killed.join("checkpoint")));
    assert_eq!(files(&whole.with_file_name("state")), files(&killed.join("state")));
}

/// As [`train_and_kill`]; `false` when the child had finished before.
fn train_and_maybe_kill(folder: &Path, lines: usize) -> bool {
    let mut child = child(folder);
    let seen = || std::fs::read(folder.join("progress.jsonl")).unwrap_or_default();
    let before = seen().len();
    let fresh = |lines: usize| {
        let seen = seen();
        let total = seen.iter().filter(|&&byte| byte == b'\n').count();
        total >= lines && seen.len() > before
    };
    while !fresh(lines) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::yield_now();
    }
    let _ = child.kill();
    child.wait().unwrap();
    !folder.join("result.cbor").exists()
}

#[test]
fn a_job_asked_to_stop_goes_on_later_and_one_asked_to_finish_has_a_checkpoint() {
    let yard = Yard::new();
    let folder = yard.job("stop", &JobSpec::Train(yard.train(epochs(&yard, 4), u64::MAX)));
    std::fs::write(folder.join("stop"), "").unwrap();
    let error = run_train(&folder).unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    std::fs::remove_file(folder.join("stop")).unwrap();
    std::fs::write(folder.join("finish"), "").unwrap();
    for (name, strategy) in [("stop", epochs(&yard, 4)), ("search", StrategySpec::Search)] {
        let folder = yard.job(name, &JobSpec::Train(yard.train(strategy, 40_000)));
        std::fs::write(folder.join("finish"), "").unwrap();
        let JobResult::Trained(result) = run_train(&folder).unwrap() else { panic!("not a training job") };
        assert!(result.finished_early && result.recipe.tokens_trained < 10_000, "{result:?}");
        assert!(!files(&folder.join("checkpoint")).is_empty());
    }
}

#[test]
fn scores_are_the_same_bits_for_any_threads_and_company_and_through_the_seal() {
    let yard = Yard::new();
    let subject = || Subject::Adapter(base().join("adapter"));
    let one = yard.evaluated("one", yard.eval(subject()));
    let three = yard.evaluated("three", EvalSpec { workers: 3, ..yard.eval(subject()) });
    assert_eq!(one, three);
    let plain = std::fs::read(yard.root.path().join("eval.jsonl")).unwrap();
    let key = SealKey::from_bytes([9; 32]);
    let path = yard.root.path().join("evaluation.sealed");
    std::fs::write(&path, seal::seal(&key, &plain)).unwrap();
    let evaluation = EvaluationSource::Sealed { path, key };
    let sealed = yard.evaluated("sealed", EvalSpec { evaluation, ..yard.eval(subject()) });
    assert_eq!(one, sealed);
    let lines: Vec<&[u8]> = plain.split_inclusive(|&byte| byte == b'\n').collect();
    let path = yard.root.path().join("half.jsonl");
    std::fs::write(&path, lines[20..].concat()).unwrap();
    let plaintext_bytes = std::fs::metadata(&path).unwrap().len();
    let half = EvalSpec {
        evaluation: EvaluationSource::Plain(path),
        examples: 20,
        plaintext_bytes,
        ..yard.eval(subject())
    };
    let (Row::Scores(all), Row::Scores(half)) = (one.row, yard.evaluated("half", half).row) else {
        panic!("a row is a fault")
    };
    assert_eq!(all[20..], half);
}

#[test]
fn every_kind_of_bad_checkpoint_is_a_typed_fault() {
    let yard = Yard::new();
    let check = |name: &str, wanted: Fault, spoil: &dyn Fn(&Path)| {
        let folder = yard.root.path().join(format!("entrant-{name}"));
        std::fs::create_dir(&folder).unwrap();
        for (file, bytes) in files(&base().join("adapter")) {
            std::fs::write(folder.join(file), bytes).unwrap();
        }
        spoil(&folder);
        let result = yard.evaluated(name, yard.eval(Subject::Adapter(folder)));
        assert_eq!(result.row, Row::Fault(wanted), "{name}: {:?}", result.fact);
    };
    let weights = |folder: &Path| folder.join("adapter_model.safetensors");
    let config = |folder: &Path| folder.join("adapter_config.json");
    let edit = |path: PathBuf, from: &str, to: &str| {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        std::fs::write(path, text.replace(from, to)).unwrap();
    };
    check("absent", Fault::Unavailable, &|f| std::fs::remove_file(weights(f)).unwrap());
    check("other-base", Fault::WrongBase, &|f| {
        let other = base().with_file_name("untied").join("adapter/adapter_model.safetensors");
        std::fs::copy(other, weights(f)).unwrap();
    });
    check("nan", Fault::NotFinite, &|f| {
        let mut bytes = std::fs::read(weights(f)).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(weights(f), bytes).unwrap();
    });
    check("header", Fault::OverLimits, &|f| {
        std::fs::write(weights(f), [&99_000_000u64.to_le_bytes()[..], b"{"].concat()).unwrap();
    });
    check("large", Fault::OverLimits, &|f| std::fs::write(weights(f), vec![0u8; 2 << 20]).unwrap());
    check("pickle", Fault::Malformed, &|f| std::fs::write(weights(f), b"\x80\x04\x95junkjunkjunk").unwrap());
    check("gguf", Fault::Malformed, &|f| std::fs::write(weights(f), b"GGUF\x03\0\0\0junkjunk").unwrap());
    check("dora", Fault::Malformed, &|f| {
        edit(config(f), "\"use_dora\": false", "\"use_dora\": true");
    });
    check("rank", Fault::WrongBase, &|f| edit(config(f), "\"r\": 4", "\"r\": 5"));
    check("huge-rank", Fault::OverLimits, &|f| edit(config(f), "\"r\": 4", "\"r\": 4000000000"));
    check("link", Fault::Malformed, &|f| {
        std::fs::remove_file(weights(f)).unwrap();
        std::os::unix::fs::symlink("/dev/zero", weights(f)).unwrap();
    });
}

#[test]
fn an_unusable_evaluation_set_is_the_requesters_fault() {
    let yard = Yard::new();
    let bad = |name: &str, change: &dyn Fn(&mut EvalSpec)| {
        let mut spec = yard.eval(Subject::Base);
        change(&mut spec);
        assert_eq!(yard.evaluated(name, spec).row, Row::Fault(Fault::EvaluationUnusable), "{name}");
    };
    bad("count", &|spec| spec.examples = 41);
    bad("bytes", &|spec| spec.plaintext_bytes += 1);
    bad("rows", &|spec| {
        let path = yard.root.path().join("broken.jsonl");
        std::fs::write(&path, "{\"prompt\":\"x\"}\n").unwrap();
        (spec.plaintext_bytes, spec.examples) = (15, 1);
        spec.evaluation = EvaluationSource::Plain(path);
    });
    bad("key", &|spec| {
        let path = yard.root.path().join("evaluation.sealed");
        std::fs::write(&path, seal::seal(&SealKey::from_bytes([1; 32]), b"text")).unwrap();
        let key = SealKey::from_bytes([2; 32]);
        spec.evaluation = EvaluationSource::Sealed { path, key };
    });
}

#[test]
fn a_check_names_faulty_lines_repeats_and_leaks() {
    let yard = Yard::new();
    let mut text = rows(0, 10);
    text.push_str("{\"prompt\":\"only\"}\n");
    text.push_str(&rows(3, 1));
    std::fs::write(yard.root.path().join("training/train.jsonl"), text).unwrap();
    std::fs::write(yard.root.path().join("eval.jsonl"), rows(8, 4)).unwrap();
    let spec = CheckSpec {
        kind: TaskKind::Instruction,
        base: base(),
        training: yard.root.path().join("training"),
        evaluation: Some(yard.root.path().join("eval.jsonl")),
        examples: 4,
        plaintext_bytes: 0,
        limits: Limits::default(),
    };
    let folder = yard.job("check", &JobSpec::Check(spec));
    let JobResult::Checked(report) = run_check(&folder).unwrap() else { panic!("not a check") };
    assert_eq!((report.training.rows, report.training.faulty), (12, 1));
    assert_eq!(report.training.faults[0].line, 11);
    assert_eq!(report.training.duplicates, [12]);
    assert_eq!(report.overlap, [1, 2]);
    assert!(report.warnings.is_empty() && report.base_loss_micro > 1_000_000, "{:?}", report.warnings);
    assert!(!report.is_clean() && report.training.tokens > 100);
}

#[test]
fn jobs_that_cannot_be_done_say_why_in_a_file() {
    let yard = Yard::new();
    let refused = |name: &str, spec: TrainSpec, words: &str| {
        let folder = yard.job(name, &JobSpec::Train(spec));
        let error = run_train(&folder).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
        let report = std::fs::read_to_string(folder.join("error.json")).unwrap();
        assert!(report.contains(words), "{report}");
    };
    let preset = || StrategySpec::Preset("autotrain".into());
    refused("preset", yard.train(StrategySpec::Preset("magic".into()), 1_000), "llama-factory");
    refused("budget", yard.train(preset(), 3), "3 tokens does not pay");
    refused("kind", TrainSpec { kind: TaskKind::Chat, ..yard.train(preset(), 9_000) }, "chat");
    let card = TrainSpec { device: DeviceSpec::Cuda(0), ..yard.train(preset(), 9_000) };
    refused("card", card, "--features cuda");
    let small = TrainSpec { checkpoint_bytes_max: 1_000, ..yard.train(preset(), 9_000) };
    refused("small", small, "the task allows 1000");
    let folder = yard.job("wrong", &JobSpec::Eval(yard.eval(Subject::Base)));
    assert!(matches!(run_train(&folder).unwrap_err(), JobError::WrongCommand { .. }));
    std::fs::write(folder.join("job.json"), "{\"train\":{\"tusk\":1}}").unwrap();
    assert!(run_train(&folder).unwrap_err().to_string().contains("tusk"));
    std::fs::write(yard.root.path().join("training/train.jsonl"), rows(0, 2) + "{\"prompt\":\"\"}\n")
        .unwrap();
    refused("rows", yard.train(preset(), 9_000), "line 3 has nothing in column");
}
