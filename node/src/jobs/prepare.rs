//! Lays out a job's folder: inputs verified, `job.json` written.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tiltyard_machine::io::{Job, JobOutcome};
use tiltyard_proto::ids::{BlobRoot, SealKey};
use tiltyard_proto::manifest::{BlobKind, BlobRef};
use tiltyard_proto::score::{Fault, Row};
use tiltyard_proto::seal;
use tiltyard_proto::task::TaskSpec;
use tiltyard_store::blob::BlobStore;
use tiltyard_train::job::spec::{
    Activations, CheckSpec, DeviceSpec, EvalSpec, EvaluationSource, External, JobSpec, Limits, StrategySpec,
    Subject, TrainSpec,
};

use super::child::Work;
use super::{JobSettings, RunnerError};
use crate::home;

/// Files that a child may write beyond the checkpoint it makes.
const FILE_BYTES_EXTRA: u64 = 64 << 20;
/// Training keeps optimizer state of up to three times the weights in one file.
const FILE_BYTES_FACTOR: u64 = 4;

/// What preparing a job came to.
#[derive(Debug)]
pub(super) enum Prepared {
    /// The folder is ready for a process.
    Ready(Work),
    /// The outcome is clear without one.
    Settled(Box<JobOutcome>),
}

/// Prepares jobs; remembers which blobs it has verified.
#[derive(Debug)]
pub(super) struct Preparer {
    blobs: BlobStore,
    settings: JobSettings,
    verified: Mutex<BTreeSet<BlobRoot>>,
}

impl Preparer {
    pub(super) fn new(blobs: BlobStore, settings: JobSettings) -> Self {
        Self { blobs, settings, verified: Mutex::default() }
    }

    /// Verifies the inputs and writes the folder. Blocks: reads every byte of inputs not verified before.
    pub(super) fn prepare(&self, job: &Job, folder: &Path) -> Result<Prepared, RunnerError> {
        home::make_dir(folder).map_err(|error| RunnerError::Io {
            action: "make",
            path: folder.to_owned(),
            source: std::io::Error::other(error),
        })?;
        for flag in ["stop", "finish"] {
            let path = folder.join(flag);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(RunnerError::Io { action: "remove", path, source }),
            }
        }
        match job {
            Job::Check { spec, .. } => self.check(spec, folder),
            Job::Train { task, spec, miner } => {
                let train = TrainSpec {
                    task: *task,
                    miner: *miner,
                    kind: spec.kind.clone(),
                    base: self.input(&spec.base)?,
                    training: self.input(&spec.training)?,
                    strategy: self.strategy()?,
                    budget_tokens: self.settings.tokens,
                    checkpoint_bytes_max: spec.checkpoint_bytes_max,
                    save_every_steps: u64::from(self.settings.checkpoint_steps),
                    workers: 1,
                    activations: Activations::Auto,
                    device: DeviceSpec::Cpu,
                    limits: self.train_limits(spec),
                };
                JobSpec::Train(train).write(folder)?;
                Ok(Prepared::Ready(Work::Train))
            }
            Job::Evaluate { spec, key, subject, .. } => self.evaluate(spec, key, subject.as_ref(), folder),
        }
    }

    /// The miner's strategy; an external command runs under the node's limit and dies with its job.
    fn strategy(&self) -> Result<StrategySpec, RunnerError> {
        let StrategySpec::External(external) = &self.settings.strategy else {
            return Ok(self.settings.strategy.clone());
        };
        let program = std::env::current_exe().map_err(RunnerError::io("find", Path::new("this program")))?;
        let mut command = vec![program.display().to_string(), "job".into(), "exec".into(), "--".into()];
        command.extend(external.command.iter().cloned());
        Ok(StrategySpec::External(External { command, seconds_max: self.settings.train_cpu_s_max }))
    }

    fn check(&self, spec: &TaskSpec, folder: &Path) -> Result<Prepared, RunnerError> {
        let sealed = &spec.evaluation;
        let expected = seal::sealed_bytes(sealed.plaintext_bytes);
        if sealed.ciphertext.bytes != expected {
            let fact = format!(
                "the sealed set has {} bytes, {} bytes of examples need {expected}",
                sealed.ciphertext.bytes, sealed.plaintext_bytes
            );
            return Ok(Prepared::Settled(Box::new(JobOutcome::Refused { fact })));
        }
        let evaluation = self.input(&sealed.ciphertext)?;
        if !evaluation.join(seal::FILE_NAME).is_file() {
            let fact = format!("the sealed set has no file {}", seal::FILE_NAME);
            return Ok(Prepared::Settled(Box::new(JobOutcome::Refused { fact })));
        }
        let check = CheckSpec {
            kind: spec.kind.clone(),
            base: self.input(&spec.base)?,
            training: self.input(&spec.training)?,
            evaluation: None,
            examples: sealed.examples,
            plaintext_bytes: sealed.plaintext_bytes,
            limits: self.limits(spec, self.settings.evaluate_cpu_s_max),
        };
        JobSpec::Check(check).write(folder)?;
        Ok(Prepared::Ready(Work::Check))
    }

    fn evaluate(
        &self,
        spec: &TaskSpec,
        key: &SealKey,
        subject: Option<&BlobRoot>,
        folder: &Path,
    ) -> Result<Prepared, RunnerError> {
        let subject = match subject {
            None => Subject::Base,
            Some(root) => match self.subject(spec, root)? {
                Ok(subject) => subject,
                Err(fault) => {
                    let row = Row::Fault(fault);
                    return Ok(Prepared::Settled(Box::new(JobOutcome::Evaluated { row })));
                }
            },
        };
        let evaluation = EvaluationSource::Sealed {
            path: self.fresh(&spec.evaluation.ciphertext.root)?.join(seal::FILE_NAME),
            key: *key,
        };
        let eval = EvalSpec {
            kind: spec.kind.clone(),
            base: self.fresh(&spec.base.root)?,
            evaluation,
            examples: spec.evaluation.examples,
            plaintext_bytes: spec.evaluation.plaintext_bytes,
            subject,
            checkpoint_bytes_max: spec.checkpoint_bytes_max,
            workers: 1,
            limits: self.limits(spec, self.settings.evaluate_cpu_s_max),
        };
        JobSpec::Eval(eval).write(folder)?;
        Ok(Prepared::Ready(Work::Evaluate))
    }

    /// Finds an entrant's checkpoint, or the fault that its manifest alone shows.
    fn subject(&self, spec: &TaskSpec, root: &BlobRoot) -> Result<Result<Subject, Fault>, RunnerError> {
        let manifest = self.blobs.manifest(root)?.ok_or_else(|| RunnerError::Missing { root: *root })?;
        let weights = match manifest.kind {
            BlobKind::Adapter => "adapter_model.safetensors",
            BlobKind::Model => "model.safetensors",
            BlobKind::Base | BlobKind::Dataset | BlobKind::Evaluation => return Ok(Err(Fault::Malformed)),
        };
        if manifest.base != Some(spec.base.root) {
            return Ok(Err(Fault::WrongBase));
        }
        if manifest.total_bytes().is_ok_and(|bytes| bytes > spec.checkpoint_bytes_max) {
            return Ok(Err(Fault::OverLimits));
        }
        if manifest.file(weights).is_none() {
            return Ok(Err(Fault::Malformed));
        }
        let folder = self.fresh(root)?;
        Ok(Ok(match manifest.kind {
            BlobKind::Adapter => Subject::Adapter(folder),
            BlobKind::Base | BlobKind::Dataset | BlobKind::Evaluation | BlobKind::Model => {
                Subject::Model(folder)
            }
        }))
    }

    fn input(&self, blob: &BlobRef) -> Result<PathBuf, RunnerError> {
        self.folder(&blob.root)
    }

    /// Returns the folder of a blob whose bytes are verified now: a score must not come from bytes that changed on the
    /// disk meanwhile.
    fn fresh(&self, root: &BlobRoot) -> Result<PathBuf, RunnerError> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).remove(root);
        self.folder(root)
    }

    /// Returns the folder of a blob whose bytes were verified by this process.
    fn folder(&self, root: &BlobRoot) -> Result<PathBuf, RunnerError> {
        let missing = || RunnerError::Missing { root: *root };
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).contains(root);
        let manifest = if known {
            self.blobs.manifest(root)?.ok_or_else(missing)?
        } else {
            let manifest = self.blobs.verify(root)?;
            self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(*root);
            manifest
        };
        let first = manifest.files.first().ok_or_else(missing)?;
        let path = self.blobs.path(root, &first.name)?.ok_or_else(missing)?;
        path.parent().map(Path::to_owned).ok_or_else(missing)
    }

    /// A trainer of the miner's own may map as much memory as it likes: other engines reserve far more than they use.
    fn train_limits(&self, spec: &TaskSpec) -> Limits {
        match self.settings.strategy {
            StrategySpec::External(_) => Limits::default(),
            StrategySpec::Preset(_)
            | StrategySpec::File(_)
            | StrategySpec::Search
            | StrategySpec::Learned(_) => self.limits(spec, self.settings.train_cpu_s_max),
        }
    }

    fn limits(&self, spec: &TaskSpec, cpu_s_max: u64) -> Limits {
        let largest = spec.checkpoint_bytes_max.max(spec.base.bytes);
        Limits {
            memory_bytes_max: Some(self.settings.memory_bytes_max),
            file_bytes_max: Some(largest.saturating_mul(FILE_BYTES_FACTOR).saturating_add(FILE_BYTES_EXTRA)),
            cpu_seconds_max: Some(cpu_s_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use tiltyard_store::blob::{BlobError, BlobLimits, Source};

    use super::*;

    #[test]
    fn bit_flipped_after_verification_is_found_before_the_next_evaluation() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = BlobStore::open(&folder.path().join("blobs"), BlobLimits::default()).expect("opens");
        let file = folder.path().join("adapter_model.safetensors");
        fs::write(&file, [7u8; 70_000]).expect("written");
        let files = [("adapter_model.safetensors".to_owned(), file)];
        let source = Source { kind: BlobKind::Adapter, base: None, recipe: None, files: &files };
        let root = blobs.insert(&source).expect("inserted").root();
        let settings = JobSettings {
            dir: folder.path().to_owned(),
            train_max: 1,
            evaluate_max: 1,
            memory_bytes_max: 1 << 30,
            evaluate_cpu_s_max: 1,
            train_cpu_s_max: 1,
            strategy: tiltyard_train::job::spec::StrategySpec::Search,
            tokens: 1,
            checkpoint_steps: 1,
        };
        let preparer = Preparer::new(blobs.clone(), settings);
        preparer.fresh(&root).expect("it is as it came");
        let kept = blobs.path(&root, "adapter_model.safetensors").expect("known").expect("a path");
        let mut bytes = fs::read(&kept).expect("read");
        bytes[33_333] ^= 4;
        fs::remove_file(&kept).expect("removed");
        fs::write(&kept, &bytes).expect("written");
        let error = preparer.fresh(&root).expect_err("one bit is another checkpoint");
        assert!(matches!(error, RunnerError::Blob(BlobError::Damaged { .. })), "{error}");
        assert_eq!(error.lost(), Some(root), "it is fetched again");
        assert!(!blobs.has(&root), "the damaged bytes are out of use");
        let again = preparer.fresh(&root).expect_err("until then nothing is scored");
        assert_eq!(again.lost(), Some(root));
    }
}
