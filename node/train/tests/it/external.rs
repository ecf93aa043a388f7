//! External trainers: a few lines of shell that do well, crash, hang, do nothing or bring what is not wanted.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tiltyard_keys::SecretKey;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::manifest::BlobKind;
use tiltyard_proto::recipe::{Method, Strategy};
use tiltyard_proto::task::TaskKind;
use tiltyard_train::job::result::{JobResult, TrainResult};
use tiltyard_train::job::spec::{
    Activations, DeviceSpec, External, JobSpec, Limits, StrategySpec, TrainSpec,
};
use tiltyard_train::job::{JobError, run_train};

/// What the shell is given: the part of a trainer that is the same for all.
const START: &str =
    "#!/bin/sh\nset -eu\nwell() { mkdir -p \"$TILTYARD_OUT\" && cp \"$1\"/* \"$TILTYARD_OUT\"; }\n";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft")
}

struct Yard(TempDir);

impl Yard {
    /// A job whose trainer is this shell program.
    fn new(program: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trainer = folder.path().join("trainer.sh");
        let adapter = fixtures().join("tied/adapter");
        let other = fixtures().join("untied/adapter");
        let program =
            program.replace("GOOD", adapter.to_str().unwrap()).replace("OTHER", other.to_str().unwrap());
        std::fs::write(&trainer, format!("{START}{program}\n")).unwrap();
        std::fs::set_permissions(&trainer, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::create_dir(folder.path().join("job")).unwrap();
        Self(folder)
    }

    fn job(&self) -> PathBuf {
        self.0.path().join("job")
    }

    fn run(&self, change: impl FnOnce(&mut TrainSpec)) -> Result<TrainResult, JobError> {
        // Through `sh`: another test's child may still hold a just written script open for writing.
        let command = vec!["/bin/sh".to_owned(), self.0.path().join("trainer.sh").display().to_string()];
        let mut spec = TrainSpec {
            task: TaskId::from_bytes([3; 32]),
            miner: SecretKey::from_seed(&[1; 32]).public(),
            kind: TaskKind::Instruction,
            base: fixtures().join("tied"),
            training: self.0.path().to_owned(),
            strategy: StrategySpec::External(External { command, seconds_max: 600 }),
            budget_tokens: 1_000,
            checkpoint_bytes_max: 1 << 20,
            save_every_steps: 1,
            workers: 1,
            activations: Activations::Auto,
            device: DeviceSpec::Cpu,
            limits: Limits::default(),
        };
        change(&mut spec);
        JobSpec::Train(spec).write(&self.job()).unwrap();
        match run_train(&self.job())? {
            JobResult::Trained(result) => Ok(*result),
            other => panic!("a training job gave {other:?}"),
        }
    }

    fn refusal(&self, change: impl FnOnce(&mut TrainSpec)) -> String {
        let error = self.run(change).unwrap_err();
        assert!(!self.job().join("result.cbor").exists() && !self.job().join("checkpoint").exists());
        assert!(std::fs::read_to_string(self.job().join("error.json")).unwrap().contains("external trainer"));
        error.to_string()
    }
}

fn seconds(limit: u64) -> impl FnOnce(&mut TrainSpec) {
    move |spec| {
        let StrategySpec::External(external) = &mut spec.strategy else { panic!("not external") };
        external.seconds_max = limit;
    }
}

#[test]
fn a_good_trainer_gives_a_checkpoint_and_a_recipe() {
    let yard = Yard::new(
        "test -f \"$1/job.json\" && test \"$TILTYARD_TOKENS\" = 1000 && test -n \"$TILTYARD_SEED\"\nwell GOOD\n\
         echo '{\"trainer\":\"sh 1\",\"learning_rate\":2e-4,\"steps\":3,\"extra\":{\"optimizer\":\"lion\"}}' > \"$1/external/recipe.json\"",
    );
    let result = yard.run(|_| {}).unwrap();
    assert_eq!(result.kind, BlobKind::Adapter);
    assert_eq!((result.recipe.learning_rate_nano, result.recipe.steps), (200_000, 3));
    assert_eq!(result.recipe.strategy, Strategy::External("sh trainer.sh".to_owned()));
    assert_eq!(result.recipe.extra, [("optimizer".to_owned(), "lion".to_owned())]);
    assert!(matches!(result.recipe.method, Method::Lora { rank: 4, alpha_milli: 8_000, targets: 0x7F, .. }));
    let settings = std::fs::read_to_string(yard.job().join("checkpoint/adapter_config.json")).unwrap();
    assert!(!settings.contains("\"..\""), "a path of the miner's machine is published: {settings}");
    let names = yard.job().join("checkpoint").read_dir().unwrap().count();
    assert_eq!(names, 2);
}

#[test]
fn a_trainer_that_crashes_is_quoted() {
    let words = Yard::new("echo out of luck >&2; exit 7").refusal(|_| {});
    assert!(words.contains("exit status: 7") && words.contains("out of luck"), "{words}");
}

#[test]
fn a_trainer_that_hangs_is_killed_with_all_it_started() {
    let yard = Yard::new("sleep 1000 & echo $! > \"$1/pid\"; wait");
    let words = yard.refusal(seconds(1));
    assert!(words.contains("1 seconds"), "{words}");
    let pid = std::fs::read_to_string(yard.job().join("pid")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(status.is_empty() || status.contains(") Z "), "its child lives on: {status}");
}

#[test]
fn a_trainer_beyond_its_tokens_is_killed_and_its_checkpoint_used() {
    let line = "{\"phase\":\"train\",\"step\":1,\"steps\":9,\"tokens\":2000,\"budget_tokens\":1000,\"tokens_per_s\":1,\"eta_s\":1}";
    let yard = Yard::new(&format!("well GOOD; echo '{line}' >> \"$1/progress.jsonl\"; sleep 1000"));
    let result = yard.run(|_| {}).unwrap();
    assert!(result.finished_early);
    assert_eq!(result.recipe.tokens_trained, 2_000);
}

#[test]
fn a_trainer_that_leaves_nothing_is_told_what_to_write() {
    let words = Yard::new("exit 0").refusal(|_| {});
    assert!(words.contains("adapter_model.safetensors") && words.contains("external/checkpoint"), "{words}");
}

#[test]
fn what_a_trainer_leaves_is_checked_like_a_strangers() {
    let words = Yard::new("well OTHER").refusal(|_| {});
    assert!(words.contains("this base model"), "{words}");
    let words =
        Yard::new("well GOOD; printf GGUF > \"$TILTYARD_OUT/adapter_model.safetensors\"").refusal(|_| {});
    assert!(words.contains("refused"), "{words}");
    let words = Yard::new("well GOOD").refusal(|spec| spec.checkpoint_bytes_max = 2_000);
    assert!(words.contains("the task allows 2000"), "{words}");
    let words = Yard::new("well GOOD; echo '{\"stpes\":3}' > \"$1/external/recipe.json\"").refusal(|_| {});
    assert!(words.contains("stpes"), "{words}");
    let words = Yard::new("").refusal(|spec| {
        let command = vec!["/no/such/trainer".to_owned()];
        spec.strategy = StrategySpec::External(External { command, seconds_max: 9 });
    });
    assert!(words.contains("cannot be started"), "{words}");
}
