//! The training job.

use std::path::Path;

use tiltyard_proto::manifest::BlobKind;
use tiltyard_proto::recipe::{Method, Recipe, training_seed};

use super::files;
use super::result::{CHECKPOINT_DIR, JobResult, TrainResult};
use super::spec::{StrategySpec, TrainSpec, check_kind};
use super::{JobError, eval, external};
use crate::data::{Example, Template};
use crate::rng::{Rng, mix};
use crate::safe::{read_bytes, read_small};
use crate::strategy::form::Form;
use crate::strategy::session::{FINISH_FILE, Session, Setup};
use crate::strategy::{fixed, search};

/// Largest recipe file read, in bytes.
const FORM_BYTES_MAX: u64 = 64 << 10;
/// Fewest and most rows held out to choose by, and their share.
const HELD_OUT: (usize, usize, usize) = (1, 64, 10);

pub(super) fn run(folder: &Path, spec: &TrainSpec) -> Result<JobResult, JobError> {
    if let StrategySpec::External(command) = &spec.strategy {
        return external::run(folder, spec, command);
    }
    check_kind(&spec.kind)?;
    let base = eval::load_base(&spec.base)?;
    let template = Template::of(&spec.base, base.config())?;
    let rows = template.examples(&read_small(&spec.training.join("train.jsonl"))?, base.context())?;
    let seed = training_seed(&spec.task, &spec.miner);
    let (train, held_out) = match &spec.strategy {
        StrategySpec::Preset(_) | StrategySpec::File(_) | StrategySpec::External(_) => (rows, Vec::new()),
        StrategySpec::Search => hold_out(rows, seed),
    };
    let mut session = Session::open(Setup {
        base: &base,
        train: &train,
        held_out: &held_out,
        folder,
        seed,
        budget_tokens: spec.budget_tokens,
        checkpoint_bytes_max: spec.checkpoint_bytes_max,
        workers: spec.workers.clamp(1, 64),
        save_every_steps: spec.save_every_steps,
    })?;
    match &spec.strategy {
        StrategySpec::Preset(name) => fixed::train(&mut session, name, &Form::preset(name)?)?,
        StrategySpec::File(path) => {
            let form = Form::parse(&read_bytes(path, FORM_BYTES_MAX)?)?;
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("file");
            fixed::train(&mut session, name, &form)?;
        }
        StrategySpec::Search => search::train(&mut session)?,
        // Went its own way above.
        StrategySpec::External(_) => {}
    }
    finish(folder, &session)
}

/// Sets rows aside, drawn by the seed.
fn hold_out(rows: Vec<Example>, seed: u64) -> (Vec<Example>, Vec<Example>) {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    Rng::new(mix(seed ^ 0x4E1D)).shuffle(&mut order);
    let (least, most, share) = HELD_OUT;
    let count = (rows.len() / share).clamp(least, most);
    let apart: std::collections::BTreeSet<usize> = order.into_iter().take(count).collect();
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for (at, row) in rows.into_iter().enumerate() {
        match apart.contains(&at) {
            true => held_out.push(row),
            false => train.push(row),
        }
    }
    if train.is_empty() {
        train.clone_from(&held_out);
    }
    (train, held_out)
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
    let held_out = session.setup().held_out;
    Ok(JobResult::Trained(Box::new(TrainResult {
        kind,
        recipe,
        resumed_from_step: u32::try_from(session.resumed_from_step()).unwrap_or(u32::MAX),
        validation_micro: session.best().filter(|_| !held_out.is_empty()),
        finished_early: folder.join(FINISH_FILE).exists(),
    })))
}
