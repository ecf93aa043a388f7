//! The training job.

use std::path::Path;

use candle_core::Device;
use tiltyard_proto::manifest::BlobKind;
use tiltyard_proto::recipe::{Method, Recipe, training_seed};

use super::files;
use super::result::{CHECKPOINT_DIR, JobResult, TrainResult};
use super::spec::{Activations, DeviceSpec, StrategySpec, TrainSpec};
use super::{JobError, eval, external};
use crate::fit::settings::SHARD_TOKENS;
use crate::kind::{self, Rows};
use crate::model::Model;
use crate::model::estimate::{Trained, training_bytes};
use crate::rng::{Rng, mix};
use crate::safe::{read_bytes, read_small};
use crate::strategy::form::Form;
use crate::strategy::learned::{self, Prior};
use crate::strategy::session::{FINISH_FILE, Session, Setup};
use crate::strategy::{fixed, search};

/// Largest recipe file read, in bytes.
const FORM_BYTES_MAX: u64 = 64 << 10;
/// Largest file of past recipes read, in bytes.
const PAST_BYTES_MAX: u64 = 256 << 20;
/// Fewest and most rows held out to choose by, and their share.
const HELD_OUT: (usize, usize, usize) = (1, 64, 10);

pub(super) fn run(folder: &Path, spec: &TrainSpec) -> Result<JobResult, JobError> {
    match &spec.strategy {
        StrategySpec::External(command) => external::run(folder, spec, command),
        StrategySpec::Preset(name) => {
            run_here(folder, spec, &Plan::Fixed(name.clone(), Box::new(Form::preset(name)?)))
        }
        StrategySpec::File(path) => {
            let form = Form::parse(&read_bytes(path, FORM_BYTES_MAX)?)?;
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("file");
            run_here(folder, spec, &Plan::Fixed(name.to_owned(), Box::new(form)))
        }
        StrategySpec::Search => run_here(folder, spec, &Plan::Search(None)),
        StrategySpec::Learned(path) => {
            let past = learned::parse(&read_bytes(path, PAST_BYTES_MAX)?)?;
            run_here(folder, spec, &Plan::Search(Some(Prior::fit(&past))))
        }
    }
}

fn run_here(folder: &Path, spec: &TrainSpec, plan: &Plan) -> Result<JobResult, JobError> {
    let mut base = eval::load_base(&spec.base)?;
    if let Some(device) = device(spec.device)? {
        base.train_on(&device).map_err(JobError::Base)?;
    }
    let mut rows = kind::open(&spec.kind, &spec.base, base.config(), base.context())?;
    kind::read(rows.as_mut(), &read_small(&spec.training.join("train.jsonl"))?)?;
    let seed = training_seed(&spec.task, &spec.miner);
    let (train, held_out) = match plan {
        Plan::Fixed(_, form) if form.evaluate_every.is_none() => {
            let none = rows.pick(&[]);
            (rows, none)
        }
        Plan::Fixed(..) | Plan::Search(_) => hold_out(rows.as_ref(), seed),
    };
    let recompute = recompute(spec, &base, plan, &train.lengths());
    let mut session = Session::open(Setup {
        base: &base,
        train: train.as_ref(),
        held_out: held_out.as_ref(),
        folder,
        seed,
        budget_tokens: spec.budget_tokens,
        checkpoint_bytes_max: spec.checkpoint_bytes_max,
        workers: spec.workers.clamp(1, 64),
        recompute,
        save_every_steps: spec.save_every_steps,
    })?;
    match plan {
        Plan::Fixed(name, form) => fixed::train(&mut session, name, form)?,
        Plan::Search(prior) => search::train_from(&mut session, prior.as_ref())?,
    }
    finish(folder, &session)
}

fn device(spec: DeviceSpec) -> Result<Option<Device>, JobError> {
    match spec {
        DeviceSpec::Cpu => Ok(None),
        DeviceSpec::Cuda(number) => {
            let device = Device::new_cuda(number);
            device.map(Some).map_err(|source| JobError::Device { number, source: Box::new(source) })
        }
    }
}

/// A strategy with its form read.
#[derive(Debug)]
enum Plan {
    Fixed(String, Box<Form>),
    Search(Option<Prior>),
}

/// Whether activations are computed again: as the job says, else when keeping them is
/// estimated not to fit the memory it is allowed. The result is the same to the last bit.
fn recompute(spec: &TrainSpec, base: &Model, plan: &Plan, lengths: &[usize]) -> bool {
    let (rank, shard_tokens) = match plan {
        Plan::Fixed(_, form) => (form.lora.as_ref().map(|lora| lora.rank), form.shard_tokens),
        // The search tries all weights where they fit the checkpoint; the larger need counts.
        Plan::Search(_) => (None, None),
    };
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let tokens = shard_tokens.map_or(SHARD_TOKENS, |tokens| tokens as usize).max(longest);
    let workers = spec.workers.clamp(1, 64);
    let trained = Trained::from_rank(rank);
    match spec.activations {
        Activations::Keep => false,
        Activations::Recompute => true,
        Activations::Auto => spec
            .limits
            .memory_bytes_max
            .is_some_and(|limit| training_bytes(base.config(), trained, tokens, workers, false) > limit),
    }
}

/// Sets rows aside, drawn by the seed.
fn hold_out(rows: &dyn Rows, seed: u64) -> (Box<dyn Rows>, Box<dyn Rows>) {
    let mut order: Vec<usize> = (0..rows.count()).collect();
    Rng::new(mix(seed ^ 0x4E1D)).shuffle(&mut order);
    let (least, most, share) = HELD_OUT;
    let count = (rows.count() / share).clamp(least, most);
    let apart: std::collections::BTreeSet<usize> = order.into_iter().take(count).collect();
    let (held_out, train): (Vec<usize>, Vec<usize>) = (0..rows.count()).partition(|row| apart.contains(row));
    let train = if train.is_empty() { &held_out } else { &train };
    (rows.pick(train), rows.pick(&held_out))
}

/// Moves the best checkpoint to its place and describes it.
fn finish(folder: &Path, session: &Session<'_>) -> Result<JobResult, JobError> {
    let best = folder.join("best");
    let broken = |fact: String| JobError::Checkpoint { fact };
    let bytes = read_bytes(&best.join("recipe.cbor"), 1 << 20)?;
    let mut recipe = Recipe::decode(&bytes).map_err(|error| broken(error.to_string()))?;
    recipe.tokens_trained = session.tokens();
    let checkpoint = folder.join(CHECKPOINT_DIR);
    let fresh = files::fresh_dir(&checkpoint)?;
    let entries = std::fs::read_dir(best.join("files")).map_err(|error| broken(error.to_string()))?;
    for entry in entries {
        let path = entry.map_err(|error| broken(error.to_string()))?.path();
        let name = path.file_name().ok_or_else(|| broken("a file has no name".into()))?;
        files::write(&fresh.join(name), &read_bytes(&path, session.setup().checkpoint_bytes_max)?)?;
    }
    files::swap_dir(&checkpoint)?;
    let kind = match recipe.method {
        Method::Lora { .. } => BlobKind::Adapter,
        Method::Full => BlobKind::Model,
    };
    let measured = session.setup().held_out.count() > 0;
    Ok(JobResult::Trained(Box::new(TrainResult {
        kind,
        recipe,
        resumed_from_step: u32::try_from(session.resumed_from_step()).unwrap_or(u32::MAX),
        validation_micro: session.best().filter(|_| measured),
        finished_early: folder.join(FINISH_FILE).exists(),
        validation_accuracy_ppm: session.best_accuracy_ppm().filter(|_| measured),
    })))
}
