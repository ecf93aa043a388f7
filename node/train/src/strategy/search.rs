//! Search under a token budget: a learning-rate test, then one halving bracket, then the final run.
//!
//! About 8 % of the budget finds the largest learning rates that still learn (Smith 2015,
//! arXiv:1506.01186), for adapters and for all weights; about 24 % goes to six candidates of
//! which half survive each round (Jamieson and Talwalkar 2015, arXiv:1502.07943). A candidate's
//! rounds are the first steps of its full-length run, so the winner is continued, not restarted,
//! with all that is left: 60 % or more. Should its loss on held-out rows turn before the end, the
//! rest pays for shorter runs of the same recipe. Choices are made on held-out rows; the best
//! checkpoint is kept from the first round on.

use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy};

use super::StrategyError;
use super::form::TRAINER;
use super::session::{DIVERGED, Session};
use crate::fit::run::{Run, RunError};
use crate::fit::settings::AVERAGE_KEY;
use crate::job::progress::Phase;
use crate::rng::{Rng, mix};

/// Rows in a step of the learning-rate test.
const TEST_ROWS: u32 = 8;
/// Steps of one learning-rate test, at most and at least; below, the test is skipped.
const TEST_STEPS: (u64, u64) = (40, 12);
/// Share of the budget of each learning-rate test, in thousandths.
const TEST_SHARE: u64 = 40;
/// Share of the budget of one candidate after each round, in thousandths.
const ROUNDS: [u64; 2] = [25, 50];
/// Candidates in the first round.
const CANDIDATES: usize = 6;
/// Measurements during a full-length run.
const MEASUREMENTS: u64 = 12;
/// Rises of the held-out loss in a row that end a run.
const RISES_MAX: u32 = 2;
/// Lengths of the runs that follow one whose loss turned, in percent of where it turned.
const REFINEMENTS: [u64; 4] = [120, 160, 90, 120];

/// One point of the search space.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    name: String,
    recipe: Recipe,
}

/// A kind of training whose learning rate is tested on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Adapter,
    Full,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Full => "full",
        }
    }

    /// The range of the test and the learning rate used without one.
    fn rates(self) -> (f64, f64, f64) {
        match self {
            Self::Adapter => (1e-4, 1e-1, 4e-3),
            Self::Full => (1e-5, 3e-2, 1e-3),
        }
    }

    fn method(self, rank: u32) -> Method {
        match self {
            Self::Full => Method::Full,
            Self::Adapter => {
                Method::Lora { rank, alpha_milli: 2_000 * rank, dropout_ppm: 0, targets: Method::ALL_LINEAR }
            }
        }
    }
}

fn recipe(session: &Session<'_>, family: Family, rank: u32, rate: f64, rows: u32, tokens: u64) -> Recipe {
    let setup = session.setup();
    let longest = setup.train.iter().map(|example| example.ids.len()).max().unwrap_or(1);
    let steps = tokens / (row_tokens(session) * u64::from(rows)).max(1);
    Recipe {
        version: Recipe::VERSION,
        trainer: TRAINER.to_owned(),
        strategy: Strategy::Search,
        method: family.method(rank),
        learning_rate_nano: (rate * 1e9).round() as u64,
        schedule: Schedule::Linear,
        warmup_ppm: 20_000,
        batch_rows: rows,
        accumulation: 1,
        steps: u32::try_from(steps).unwrap_or(u32::MAX).max(1),
        sequence_tokens: longest as u32,
        packing: false,
        weight_decay_ppm: 0,
        clip_milli: 1_000,
        seed: setup.seed,
        tokens_trained: 0,
        extra: vec![(AVERAGE_KEY.to_owned(), "example".to_owned())],
    }
}

/// The mean tokens of a row, rounded up.
fn row_tokens(session: &Session<'_>) -> u64 {
    let train = session.setup().train;
    let tokens: u64 = train.iter().map(|example| example.ids.len() as u64).sum();
    tokens.div_ceil(train.len().max(1) as u64).max(1)
}

/// Searches, trains the winner with what is left, and keeps the best checkpoint.
///
/// # Errors
/// [`StrategyError`] when the budget does not pay for the first round, or everything diverges.
pub fn train(session: &mut Session<'_>) -> Result<(), StrategyError> {
    let budget = session.setup().budget_tokens;
    let needed = 2 * CANDIDATES as u64 * u64::from(TEST_ROWS) * row_tokens(session);
    if budget < needed {
        return Err(StrategyError::Budget { budget, needed });
    }
    let families = families(session)?;
    let mut rates = Vec::new();
    for &family in &families {
        rates.push((family, test_rate(session, family)?));
    }
    let mut field = candidates(session, &rates);
    for (round, share) in ROUNDS.into_iter().enumerate() {
        let tokens = budget * share / 1_000;
        field = play_round(session, field, round, tokens)?;
        if session.finishing() && session.best().is_some() {
            return Ok(());
        }
    }
    match field.into_iter().next() {
        None => Err(StrategyError::AllDiverged),
        Some(winner) => run_final(session, &winner),
    }
}

/// All weights take part only when such a checkpoint fits the task's limit, even as bf16.
fn families(session: &Session<'_>) -> Result<Vec<Family>, StrategyError> {
    let setup = session.setup();
    let full_bytes = setup.base.parameters() as u64 * 2 + (64 << 10);
    match full_bytes <= setup.checkpoint_bytes_max {
        true => Ok(vec![Family::Adapter, Family::Full]),
        false => Ok(vec![Family::Adapter]),
    }
}

/// Raises the learning rate step by step and returns a quarter of where the loss was lowest.
fn test_rate(session: &mut Session<'_>, family: Family) -> Result<f64, StrategyError> {
    let part = format!("rate-{}", family.name());
    let (low, high, default) = family.rates();
    if let Some(found) = session.result(&part) {
        return Ok(found as f64 / 1e9);
    }
    let budget = session.setup().budget_tokens;
    let steps = budget * TEST_SHARE / 1_000 / (row_tokens(session) * u64::from(TEST_ROWS));
    if steps < TEST_STEPS.1 || session.finishing() {
        return Ok(default);
    }
    let steps = steps.min(TEST_STEPS.0);
    let recipe = recipe(session, family, 16, low, TEST_ROWS, budget);
    let setup = *session.setup();
    let mut run = Run::new(setup.base, recipe, setup.train, setup.workers)?;
    run.recompute(setup.recompute);
    let (mut smooth, mut best, mut rate) = (None::<f64>, (f64::INFINITY, low), low);
    let factor = (high / low).powf(1.0 / steps.max(2) as f64);
    for _ in 0..steps {
        session.poll_stop()?;
        let report = match run.advance_at(rate) {
            Ok(report) => report,
            Err(RunError::Diverged { .. }) => break,
            Err(error) => return Err(error.into()),
        };
        session.show(Phase::RateTest, &report, steps);
        let mean = smooth.map_or(report.loss, |mean| 0.7 * mean + 0.3 * report.loss);
        smooth = Some(mean);
        if mean < best.0 {
            best = (mean, rate);
        }
        if mean > best.0 * 1.5 + 0.5 || session.finishing() {
            break;
        }
        rate *= factor;
    }
    let found = (best.1 / 4.0).max(low);
    session.record(&part, (found * 1e9).round() as u64, run.tokens())?;
    Ok((found * 1e9).round() / 1e9)
}

/// Draws the candidates: learning rates around the tested ones, ranks and batches, spread by the seed.
fn candidates(session: &Session<'_>, rates: &[(Family, f64)]) -> Vec<Candidate> {
    let setup = session.setup();
    let mut rng = Rng::new(mix(setup.seed) ^ 0x05EA_2C04);
    let mut ranks = [8u32, 16, 32];
    rng.shuffle(&mut ranks);
    // What is left when the other candidates have played: the length of a whole run.
    let others: u64 = ROUNDS[0] * (CANDIDATES as u64 - 1) + (ROUNDS[1] - ROUNDS[0]) * 2;
    let spent = others + TEST_SHARE * rates.len() as u64;
    let tokens = setup.budget_tokens * (1_000 - spent) / 1_000;
    let mut all = Vec::new();
    for at in 0..CANDIDATES {
        let (family, rate) = rates[at % rates.len()];
        let place = at / rates.len();
        let places = CANDIDATES.div_ceil(rates.len());
        let offset = place as f64 - (places as f64 - 1.0) / 2.0;
        let jitter = f64::from(rng.unit()) - 0.5;
        let rate = rate * 2.5f64.powf(offset + 0.5 * jitter);
        let rows = if rng.unit() < 0.5 { 8 } else { 16 };
        let recipe = recipe(session, family, ranks[place % ranks.len()], rate, rows, tokens);
        all.push(Candidate { name: format!("{}-{place}", family.name()), recipe });
    }
    all
}

/// Trains every candidate up to `tokens` and returns the better half, best first.
fn play_round(
    session: &mut Session<'_>,
    field: Vec<Candidate>,
    round: usize,
    tokens: u64,
) -> Result<Vec<Candidate>, StrategyError> {
    let mut ranking = Vec::new();
    for (place, candidate) in field.into_iter().enumerate() {
        let part = format!("round-{round}-{}", candidate.name);
        let loss = match session.result(&part) {
            Some(loss) => loss,
            None => {
                if session.finishing() && session.best().is_some() {
                    break;
                }
                let step_tokens = row_tokens(session) * u64::from(candidate.recipe.batch_rows);
                let until = (tokens / step_tokens).clamp(2, u64::from(candidate.recipe.steps).max(2));
                let loss = play(session, &candidate, until)?;
                session.record(&part, loss, 0)?;
                loss
            }
        };
        if loss != DIVERGED {
            ranking.push((loss, place, candidate));
        }
    }
    ranking.sort_by_key(|(loss, place, _)| (*loss, *place));
    let survivors = ranking.len().div_ceil(2);
    Ok(ranking.into_iter().take(survivors).map(|(_, _, candidate)| candidate).collect())
}

fn play(session: &mut Session<'_>, candidate: &Candidate, until: u64) -> Result<u64, StrategyError> {
    let mut run = session.run(&candidate.name, &candidate.recipe)?;
    // The very first candidate plays on even when asked to finish, so that something is kept.
    let patient = session.best().is_none();
    match session.advance(&candidate.name, &mut run, until, Phase::Bracket, patient) {
        Ok(()) => {}
        Err(StrategyError::Run(RunError::Diverged { .. })) => return Ok(DIVERGED),
        Err(error) => return Err(error),
    }
    let loss = session.measure(&run, Phase::Bracket)?;
    session.keep_if_better(&run, loss)?;
    Ok(loss)
}

/// Continues the winner; when its loss on held-out rows turns, spends what is left of the
/// budget on shorter runs of the same recipe, whose learning rate falls to zero in time.
fn run_final(session: &mut Session<'_>, winner: &Candidate) -> Result<(), StrategyError> {
    let Some(mut best_step) = run_measured(session, winner)? else { return Ok(()) };
    for (attempt, percent) in REFINEMENTS.into_iter().enumerate() {
        let rows = u64::from(winner.recipe.batch_rows);
        let step_tokens = row_tokens(session) * rows;
        let left = session.setup().budget_tokens.saturating_sub(spent(session, attempt)) / step_tokens;
        let steps = (best_step * percent / 100).max(2);
        if session.finishing() || steps > left {
            return Ok(());
        }
        let mut recipe = winner.recipe.clone();
        recipe.steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let refined = Candidate { name: format!("refined-{attempt}"), recipe };
        let before = session.best();
        let turned = run_measured(session, &refined)?;
        if session.best() < before {
            best_step = turned.unwrap_or(steps);
        }
    }
    Ok(())
}

/// Tokens used before a refinement began, the same after a restart in its middle.
fn spent(session: &Session<'_>, attempt: usize) -> u64 {
    session.tokens().saturating_sub(session.run_tokens(&format!("refined-{attempt}")))
}

/// Runs a candidate to its end, measuring on the way and keeping the best checkpoint.
///
/// Ends early once the loss has risen twice in a row, and then returns the step where it was
/// lowest; `None` when it did not turn.
fn run_measured(session: &mut Session<'_>, candidate: &Candidate) -> Result<Option<u64>, StrategyError> {
    let mut run = session.run(&candidate.name, &candidate.recipe)?;
    let steps = u64::from(candidate.recipe.steps);
    let stride = steps.div_ceil(MEASUREMENTS).max(1);
    let (mut lowest, mut rises) = ((DIVERGED, 0u64), 0u32);
    for until in (1..=MEASUREMENTS).map(|at| (at * stride).min(steps)) {
        let part = format!("{}-step-{until}", candidate.name);
        let loss = match session.result(&part) {
            Some(loss) => loss,
            None => {
                match session.advance(&candidate.name, &mut run, until, Phase::Final, false) {
                    Ok(()) => {}
                    Err(StrategyError::Run(RunError::Diverged { .. })) if session.best().is_some() => break,
                    Err(error) => return Err(error),
                }
                let loss = session.measure(&run, Phase::Final)?;
                session.keep_if_better(&run, loss)?;
                if session.finishing() {
                    return Ok(None);
                }
                session.record(&part, loss, 0)?;
                loss
            }
        };
        if loss < lowest.0 {
            (lowest, rises) = ((loss, until), 0);
        } else {
            rises += 1;
        }
        if rises == RISES_MAX || until == steps {
            break;
        }
    }
    Ok((rises > 0 && lowest.1 > 0).then_some(lowest.1))
}
