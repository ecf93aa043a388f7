//! Trials of hyperparameters, then one final run: what a person with a tuner does, on the miners' own trainer.
//!
//! Every token is counted: trials, the final run, and measurements on rows set aside at a third. What is kept is the
//! checkpoint that was best on those rows, of whichever trial or run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tiltyard_proto::recipe::{Recipe, Strategy};
use tiltyard_proto::task::TaskKind;
use tiltyard_train::fit::run::RunError;
use tiltyard_train::job::progress::Phase;
use tiltyard_train::kind;
use tiltyard_train::model::Model;
use tiltyard_train::rng::{Rng, mix};
use tiltyard_train::strategy::StrategyError;
use tiltyard_train::strategy::session::{DIVERGED, Session, Setup};
use tiltyard_train::strategy::space::{ADAPTER_RATES, DIMENSIONS, FULL_RATES, Point, Space};

use super::CHECKPOINT_BYTES_MAX;
use super::rival::Chooser;
use super::tpe::Tpe;

/// Trials that the tokens for trials are cut into, fewest and most; pruned ones leave tokens for more.
const TRIALS: (u64, u64) = (2, 8);
/// Rows that a trial has at least, where the tokens for trials allow it.
const TRIAL_ROWS: u64 = 256;
/// Most trials, however cheap.
const TRIALS_MAX: usize = 40;
/// Where a trial is measured, in quarters of its length.
const RUNGS: [u64; 3] = [1, 2, 4];
/// Measurements of the final run.
const MEASUREMENTS: u64 = 8;
/// Share and most of the rows set aside.
const HELD_OUT: (usize, usize) = (10, 64);

/// What is played.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) base: &'a Path,
    pub(super) rows: PathBuf,
    pub(super) folder: &'a Path,
    pub(super) seed: u64,
    pub(super) full: bool,
    pub(super) search_tokens: u64,
    pub(super) budget: u64,
}

/// The next recipe to try, and what is told about it.
enum Source {
    Sweep { at: u64, full: bool },
    Random { rng: Rng, space: Space },
    Tpe(Box<Tpe>),
}

impl Source {
    fn next(&mut self) -> Result<Point> {
        Ok(match self {
            Self::Sweep { at, full } => {
                // Bit-reversed, so that any first trials are spread over the whole range.
                let (round, full) = if *full { (*at / 2, *at % 2 == 1) } else { (*at, false) };
                let place = (f64::from(((round % 8) as u8).reverse_bits() >> 5) + 0.5) / 8.0;
                *at += 1;
                let (low, high) = if full { FULL_RATES } else { ADAPTER_RATES };
                let unit = [f64::from(u8::from(full)), 0.0, 0.3, 0.0, 0.3, 0.0, 0.0, 0.0];
                let learning_rate = low * (high / low).powf(place);
                Point { learning_rate, ..Space { full }.point(&unit) }
            }
            Self::Random { rng, space } => {
                let unit: [f64; DIMENSIONS] = std::array::from_fn(|_| f64::from(rng.unit()));
                space.point(&unit)
            }
            Self::Tpe(tpe) => tpe.ask()?,
        })
    }

    /// Where a trial is measured: only at its end by those who never end one early.
    fn rungs(&self) -> &'static [u64] {
        match self {
            Self::Sweep { .. } | Self::Random { .. } => &RUNGS[RUNGS.len() - 1..],
            Self::Tpe(_) => &RUNGS,
        }
    }

    /// Whether to end a trial early.
    fn prune(&mut self, rung: u64, loss: u64) -> Result<bool> {
        match self {
            Self::Sweep { .. } | Self::Random { .. } => Ok(false),
            Self::Tpe(tpe) => tpe.prune(rung, loss),
        }
    }

    fn tell(&mut self, loss: Option<u64>, pruned: bool) -> Result<()> {
        match self {
            Self::Sweep { .. } | Self::Random { .. } => Ok(()),
            Self::Tpe(tpe) => tpe.tell(loss, pruned),
        }
    }
}

/// Plays the plan; the best checkpoint is in `best/files` of its folder. Returns the tokens and the recipe.
pub(super) fn play(plan: &Plan<'_>, chooser: Chooser) -> Result<(u64, Recipe)> {
    let base = Model::load(plan.base, CHECKPOINT_BYTES_MAX)?;
    let mut rows = kind::open(&TaskKind::Instruction, plan.base, base.config(), base.context())?;
    let text = std::fs::read(&plan.rows).with_context(|| format!("cannot read {}", plan.rows.display()))?;
    kind::read(rows.as_mut(), &text)?;
    let mut order: Vec<usize> = (0..rows.count()).collect();
    Rng::new(mix(plan.seed ^ 0x4E1D)).shuffle(&mut order);
    let (share, most) = HELD_OUT;
    let apart = order.split_off(order.len() - (order.len() / share).clamp(1, most));
    let (train, held_out) = (rows.pick(&order), rows.pick(&apart));
    let mut session = Session::open(Setup {
        base: &base,
        train: train.as_ref(),
        held_out: held_out.as_ref(),
        folder: plan.folder,
        seed: plan.seed,
        budget_tokens: plan.budget,
        checkpoint_bytes_max: CHECKPOINT_BYTES_MAX,
        workers: 1,
        recompute: false,
        save_every_steps: u64::MAX,
    })?;
    let mut source = match chooser {
        Chooser::Sweep => Source::Sweep { at: 0, full: plan.full },
        Chooser::Random => Source::Random { rng: Rng::new(plan.seed), space: Space { full: plan.full } },
        Chooser::Tpe => Source::Tpe(Box::new(Tpe::start(plan.seed, plan.full)?)),
    };
    let (train, held_out) = (train.lengths(), held_out.lengths());
    let best = search(plan, &mut session, &mut source, &train, &held_out)?;
    if let Some(point) = best {
        finish(plan, &mut session, &point, &train, &held_out)?;
    }
    ensure!(session.best().is_some(), "every trial diverged, or the budget pays for none");
    let bytes = std::fs::read(plan.folder.join("best/recipe.cbor"))?;
    Ok((session.tokens(), Recipe::decode(&bytes)?))
}

/// Tokens of one measurement: a forward pass alone is a third of a step's work.
fn measurement(held_out: &[usize]) -> u64 {
    held_out.iter().map(|tokens| *tokens as u64).sum::<u64>().div_ceil(3)
}

fn recipe(plan: &Plan<'_>, point: &Point, train: &[usize], tokens: u64) -> Result<Recipe> {
    Ok(point.form().recipe(Strategy::Fixed("trial".into()), plan.seed, train, tokens)?)
}

/// Spends the tokens for trials; returns the point whose trial was best at its end.
fn search(
    plan: &Plan<'_>,
    session: &mut Session<'_>,
    source: &mut Source,
    train: &[usize],
    held_out: &[usize],
) -> Result<Option<Point>> {
    let row = train.iter().map(|tokens| *tokens as u64).sum::<u64>() / train.len().max(1) as u64;
    let looks = measurement(held_out) * source.rungs().len() as u64;
    let (fewest, most) = TRIALS;
    let each =
        plan.search_tokens / (plan.search_tokens / (TRIAL_ROWS * row + looks).max(1)).clamp(fewest, most);
    let mut best: Option<(u64, Point)> = None;
    for at in 0..TRIALS_MAX {
        if session.tokens() + each > plan.search_tokens + each / 4 {
            break;
        }
        let point = source.next()?;
        let recipe = recipe(plan, &point, train, each.saturating_sub(looks))?;
        if recipe.steps < RUNGS[RUNGS.len() - 1] as u32 {
            // Too few steps to be a trial: its row count does not go with so few tokens.
            source.tell(None, false)?;
            continue;
        }
        let end = attempt(session, source, &format!("trial-{at}"), &recipe)?;
        if let Some(loss) = end
            && best.as_ref().is_none_or(|(lowest, _)| loss < *lowest)
        {
            best = Some((loss, point));
        }
    }
    Ok(best.map(|(_, point)| point))
}

/// Plays one trial; its loss when it came to its end and did not diverge.
fn attempt(
    session: &mut Session<'_>,
    source: &mut Source,
    name: &str,
    recipe: &Recipe,
) -> Result<Option<u64>> {
    let mut run = session.run(name, recipe)?;
    for &rung in source.rungs() {
        let until = u64::from(recipe.steps) * rung / RUNGS[RUNGS.len() - 1];
        match session.advance(name, &mut run, until, Phase::Bracket, true) {
            Ok(()) => {}
            Err(StrategyError::Run(RunError::Diverged { .. })) => {
                source.tell(None, false)?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        let loss = session.measure(&run, Phase::Bracket)?;
        if loss == DIVERGED {
            source.tell(None, false)?;
            return Ok(None);
        }
        session.keep_if_better(&run, loss)?;
        session.record(&format!("{name}-{rung}"), loss, 0)?;
        if rung == RUNGS[RUNGS.len() - 1] {
            source.tell(Some(loss), false)?;
            return Ok(Some(loss));
        }
        if source.prune(rung, loss)? {
            source.tell(Some(loss), true)?;
            return Ok(None);
        }
    }
    Ok(None)
}

/// Runs the best point anew with all tokens that are left, keeping the best checkpoint on the way.
fn finish(
    plan: &Plan<'_>,
    session: &mut Session<'_>,
    point: &Point,
    train: &[usize],
    held_out: &[usize],
) -> Result<()> {
    let looks = measurement(held_out) * MEASUREMENTS;
    let left = plan.budget.saturating_sub(session.tokens()).saturating_sub(looks);
    let recipe = recipe(plan, point, train, left)?;
    if recipe.steps == 0 {
        return Ok(());
    }
    let mut run = session.run("final", &recipe)?;
    for at in 1..=MEASUREMENTS {
        let until = u64::from(recipe.steps) * at / MEASUREMENTS;
        match session.advance("final", &mut run, until, Phase::Final, true) {
            Ok(()) => {}
            Err(StrategyError::Run(RunError::Diverged { .. })) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let loss = session.measure(&run, Phase::Final)?;
        session.keep_if_better(&run, loss)?;
        session.record(&format!("final-{at}"), loss, 0)?;
    }
    Ok(())
}
