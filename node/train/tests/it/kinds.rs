//! Every kind of task on real data: training improves the held-out score, spoiled rows do
//! not, and scores are the same bits in any company.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::score::{Fault, Row};
use tiltyard_proto::task::TaskKind;
use tiltyard_train::job::result::{EvalResult, JobResult};
use tiltyard_train::job::spec::{
    Activations, CheckSpec, DeviceSpec, EvalSpec, EvaluationSource, JobSpec, Limits, StrategySpec, Subject,
    TrainSpec,
};
use tiltyard_train::job::{JobError, run_check, run_eval, run_train};

/// Rows scored: enough for the gaps asserted, few enough for a debug build.
const EVAL_ROWS: usize = 100;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testnet/assets")
}

/// A kind with its set, its base and a place to work.
struct Trial {
    root: TempDir,
    kind: TaskKind,
    base: PathBuf,
    train: Vec<Value>,
    eval: Vec<Value>,
}

fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

impl Trial {
    fn new(set: &str, kind: TaskKind) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = assets().join("data").join(set);
        let read = |name: &str| parse(&std::fs::read_to_string(folder.join(name)).unwrap());
        let base = match kind {
            TaskKind::Chat => with_template(root.path(), &folder.join("template.jinja")),
            _ => assets().join("base"),
        };
        let mut eval = read("eval.jsonl");
        eval.truncate(EVAL_ROWS);
        Self { kind, base, train: read("train.jsonl"), eval, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Trains on rows by a fixed recipe and returns the checkpoint's score, and the base's.
    fn learn(&self, name: &str, rows: &[Value], recipe: &str) -> EvalResult {
        let training = self.path(&format!("{name}-training"));
        std::fs::create_dir(&training).unwrap();
        std::fs::write(training.join("train.jsonl"), lines(rows)).unwrap();
        let file = self.path(&format!("{name}.toml"));
        std::fs::write(&file, recipe).unwrap();
        let spec = TrainSpec {
            task: TaskId::from_bytes([3; 32]),
            miner: tiltyard_keys::SecretKey::from_seed(&[1; 32]).public(),
            kind: self.kind.clone(),
            base: self.base.clone(),
            training,
            strategy: StrategySpec::File(file),
            budget_tokens: u64::MAX,
            checkpoint_bytes_max: 16 << 20,
            save_every_steps: 1_000,
            workers: 1,
            activations: Activations::Auto,
            device: DeviceSpec::Cpu,
            limits: Limits::default(),
        };
        let job = self.path(name);
        std::fs::create_dir(&job).unwrap();
        JobSpec::Train(spec).write(&job).unwrap();
        run_train(&job).unwrap();
        let checkpoint = job.join("checkpoint");
        let subject = match checkpoint.join("adapter_config.json").exists() {
            true => Subject::Adapter(checkpoint),
            false => Subject::Model(checkpoint),
        };
        self.score(&format!("{name}-score"), subject, &self.eval, 1)
    }

    fn score(&self, name: &str, subject: Subject, rows: &[Value], workers: usize) -> EvalResult {
        let file = self.path(&format!("{name}.jsonl"));
        std::fs::write(&file, lines(rows)).unwrap();
        let spec = EvalSpec {
            kind: self.kind.clone(),
            base: self.base.clone(),
            plaintext_bytes: std::fs::metadata(&file).unwrap().len(),
            evaluation: EvaluationSource::Plain(file),
            examples: rows.len() as u32,
            subject,
            checkpoint_bytes_max: 16 << 20,
            workers,
            limits: Limits::default(),
        };
        let job = self.path(name);
        std::fs::create_dir(&job).unwrap();
        JobSpec::Eval(spec).write(&job).unwrap();
        match run_eval(&job).unwrap() {
            JobResult::Evaluated(result) => result,
            other => panic!("an evaluation job gave {other:?}"),
        }
    }

    /// Trains on the rows and on spoiled ones: the first must gain `gain` millionths on the
    /// base, the second stay `gap` millionths behind the first.
    fn improves(&self, recipe: &str, spoil: impl Fn(&[Value]) -> Vec<Value>, gain: u64, gap: u64) {
        let before = self.score("base", Subject::Base, &self.eval, 1);
        let after = self.learn("real", &self.train, recipe);
        let spoiled = self.learn("spoiled", &spoil(&self.train), recipe);
        let name = self.kind.name();
        let say = |what: &str, result: &EvalResult| {
            println!("{name}: {what} {} accuracy {:?}", result.mean_micro, result.accuracy_ppm);
        };
        say("base", &before);
        say("trained", &after);
        say("spoiled", &spoiled);
        assert!(after.mean_micro + gain < before.mean_micro, "{name}: {before:?} {after:?}");
        assert!(after.mean_micro + gap < spoiled.mean_micro, "{name}: {after:?} {spoiled:?}");
        if let (Some(before), Some(after)) = (before.accuracy_ppm, after.accuracy_ppm) {
            assert!(after > before, "{before} {after}");
        }
        self.same_bits(before);
    }

    /// The base's row again: on several threads, in reverse order, and each row alone.
    fn same_bits(&self, whole: EvalResult) {
        assert_eq!(self.score("threads", Subject::Base, &self.eval, 3), whole);
        let Row::Scores(scores) = whole.row else { panic!("a fault: {:?}", whole.fact) };
        let mut turned = self.eval.clone();
        turned.reverse();
        let Row::Scores(mut found) = self.score("turned", Subject::Base, &turned, 2).row else { panic!() };
        found.reverse();
        assert_eq!(found, scores);
        for at in [0, 7, EVAL_ROWS - 1] {
            let alone = self.score(&format!("alone-{at}"), Subject::Base, &self.eval[at..=at], 1);
            assert_eq!(alone.row, Row::Scores(vec![scores[at]]));
        }
    }

    fn fault(&self, name: &str, row: Value) -> String {
        let result = self.score(name, Subject::Base, &[self.eval[0].clone(), row], 1);
        assert_eq!(result.row, Row::Fault(Fault::EvaluationUnusable));
        let fact = result.fact.unwrap();
        assert!(fact.starts_with("line 2 "), "{fact}");
        fact
    }

    fn checked(&self) -> Result<JobResult, JobError> {
        let training = self.path("check-training");
        std::fs::create_dir(&training).unwrap();
        std::fs::write(training.join("train.jsonl"), lines(&self.train)).unwrap();
        std::fs::write(self.path("check.jsonl"), lines(&self.eval)).unwrap();
        let spec = CheckSpec {
            kind: self.kind.clone(),
            base: self.base.clone(),
            training,
            evaluation: Some(self.path("check.jsonl")),
            examples: 0,
            plaintext_bytes: 0,
            limits: Limits::default(),
        };
        let job = self.path("check");
        std::fs::create_dir(&job).unwrap();
        JobSpec::Check(spec).write(&job).unwrap();
        run_check(&job)
    }
}

/// A copy of the shipped base with a chat template.
fn with_template(root: &Path, template: &Path) -> PathBuf {
    let base = root.join("base-with-template");
    std::fs::create_dir(&base).unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(assets().join("base").join(name), base.join(name)).unwrap();
    }
    std::fs::copy(template, base.join("chat_template.jinja")).unwrap();
    base
}

/// Rows whose columns are taken from a row a few places on.
fn moved(rows: &[Value], columns: &[&str]) -> Vec<Value> {
    let spoil = |(at, row): (usize, &Value)| {
        let (mut row, other) = (row.clone(), &rows[(at + 101) % rows.len()]);
        for column in columns {
            row[*column] = other[*column].clone();
        }
        row
    };
    rows.iter().enumerate().map(spoil).collect()
}

fn recipe(steps: u32, rate: f64) -> String {
    format!(
        "learning_rate = {rate}\nschedule = \"cosine\"\nwarmup = 0.05\nbatch_rows = 8\nsteps = {steps}\n\
         loss_average = \"example\"\n[lora]\nrank = 8\nalpha = 16\n"
    )
}

fn labels() -> TaskKind {
    let labels = ["adjective", "adverb", "noun", "verb"].map(str::to_owned);
    TaskKind::Classification { labels: labels.to_vec() }
}

#[test]
fn context_and_question_is_learned_from_right_answers_only() {
    let trial = Trial::new("facts", TaskKind::ContextQuestion);
    trial.improves(&recipe(70, 5e-3), |rows| moved(rows, &["answer"]), 4_000_000, 150_000);
}

#[test]
fn chat_is_learned_from_right_answers_only() {
    let trial = Trial::new("dialogue", TaskKind::Chat);
    let spoil = |rows: &[Value]| {
        let turn = |(at, row): (usize, &Value)| {
            let mut row = row.clone();
            let other = rows[(at + 101) % rows.len()]["messages"][3]["content"].clone();
            row["messages"][3]["content"] = other;
            row
        };
        rows.iter().enumerate().map(turn).collect()
    };
    trial.improves(&recipe(70, 5e-3), spoil, 3_000_000, 10_000);
}

#[test]
fn plain_text_is_learned_from_text_in_its_order_only() {
    let trial = Trial::new("prose", TaskKind::PlainText { window_tokens: 48 });
    let spoil = |rows: &[Value]| {
        let turned = |row: &Value| {
            let words: Vec<&str> = row["text"].as_str().unwrap().split(' ').rev().collect();
            json!({ "text": words.join(" ") })
        };
        rows.iter().map(turned).collect()
    };
    trial.improves(&recipe(50, 5e-3), spoil, 600_000, 400_000);
}

#[test]
fn classification_is_learned_from_right_labels_only() {
    let trial = Trial::new("classes", labels());
    trial.improves(&recipe(50, 3e-3), |rows| moved(rows, &["label"]), 3_000_000, 400_000);
}

#[test]
fn preferences_are_learned_from_right_pairs_only() {
    let trial = Trial::new("prefer", TaskKind::Dpo { beta_milli: 100 });
    // Half of the pairs are turned round: what is preferred is a coin.
    let spoil = |rows: &[Value]| {
        let turn = |(at, row): (usize, &Value)| match at % 2 {
            0 => row.clone(),
            _ => json!({ "prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"] }),
        };
        rows.iter().enumerate().map(turn).collect()
    };
    trial.improves(&recipe(60, 3e-3), spoil, 100_000, 50_000);
}

#[test]
fn faulty_rows_name_their_line_and_what_to_do() {
    let trial = Trial::new("classes", labels());
    let says = |name: &str, trial: &Trial, row: Value, words: &str| {
        let fact = trial.fault(name, row);
        assert!(fact.contains(words), "{name}: {fact}");
    };
    let long = "word ".repeat(1_100);
    says(
        "label",
        &trial,
        json!({"text": "t", "label": "pronoun"}),
        "does not declare; declared are adjective",
    );
    says("column", &trial, json!({"text": "t"}), "no column \"label\"");
    says("long", &trial, json!({"text": long, "label": "noun"}), "shorten or drop");
    let trial = Trial::new("prefer", TaskKind::Dpo { beta_milli: 100 });
    says("same", &trial, json!({"prompt": "p", "chosen": " a", "rejected": " a"}), "prefers nothing");
    says("empty", &trial, json!({"prompt": "p", "chosen": " ", "rejected": " a"}), "column \"chosen\"");
    says("long", &trial, json!({"prompt": "p", "chosen": " a", "rejected": long}), "1024 fit");
    let trial = Trial::new("facts", TaskKind::ContextQuestion);
    let empty = json!({"context": "c", "question": "q", "answer": "\n"});
    says("empty", &trial, empty, "column \"answer\"");
    says("number", &trial, json!({"context": "c", "question": 3, "answer": "a"}), "\"question\" is not text");
    let trial = Trial::new("dialogue", TaskKind::Chat);
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let open = json!({ "messages": [turn("user", "q")] });
    says("open", &trial, open, "last turn is not the assistant's");
    let empty = json!({ "messages": [turn("user", "q"), turn("assistant", "")] });
    says("empty", &trial, empty, "nothing in column \"messages\"");
    let long = json!({ "messages": [turn("user", &long), turn("assistant", "a")] });
    says("long", &trial, long, "shorten or drop");
    says("role", &trial, json!({ "messages": [turn("pirate", "q")] }), "pirate");
}

#[test]
fn kinds_that_the_base_cannot_have_are_refused_with_the_remedy() {
    let refused = |kind: TaskKind, set: &str, words: &str| {
        let trial = Trial { base: assets().join("base"), ..Trial::new(set, kind) };
        let error = trial.checked().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(TaskKind::Chat, "dialogue", "no chat template");
    refused(TaskKind::PlainText { window_tokens: 2_000 }, "prose", "post 2 to 1024");
    let labels = vec!["noun".to_owned(), " ".to_owned()];
    refused(TaskKind::Classification { labels }, "classes", "sorted");
}

#[test]
fn a_check_reads_the_rows_of_every_kind() {
    let kinds = [
        ("facts", TaskKind::ContextQuestion),
        ("dialogue", TaskKind::Chat),
        ("prose", TaskKind::PlainText { window_tokens: 48 }),
        ("classes", labels()),
        ("prefer", TaskKind::Dpo { beta_milli: 100 }),
    ];
    for (set, kind) in kinds {
        let trial = Trial::new(set, kind);
        let JobResult::Checked(report) = trial.checked().unwrap() else { panic!("not a check") };
        assert!(report.is_clean(), "{set}: {report:?}");
        assert_eq!(report.training.rows, trial.train.len() as u64);
        assert!(report.training.target_tokens < report.training.tokens && report.evaluation_cpu_ms > 0);
        let scored = trial.score("first", Subject::Base, &trial.train[..8], 1);
        assert!(report.base_loss_micro.abs_diff(scored.mean_micro) <= 1, "{set}");
        assert_eq!(report.training.answers == 4, ["classes", "prefer", "dialogue"].contains(&set), "{set}");
    }
}
