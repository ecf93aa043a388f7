//! Search under a token budget: a learning-rate test, then one halving bracket, then the final run.
//!
//! About 8 % of the budget finds the largest learning rates that still learn (Smith 2015,
//! arXiv:1506.01186), for adapters and for all weights; about 24 % goes to six candidates of
//! which half survive each round (Jamieson and Talwalkar 2015, arXiv:1502.07943). A candidate's
//! rounds are the first steps of its full-length run, so the winner is continued, not restarted,
//! with all that is left: 60 % or more. Should its loss on held-out rows turn before the end, the
//! rest pays for shorter runs of the same recipe. Choices are made on held-out rows; the best
//! checkpoint is kept from the first round on.

use tiltyard_proto::recipe::{Recipe, Strategy};

use super::StrategyError;
use super::form::ScheduleName;
use super::learned::Prior;
use super::session::{DIVERGED, Session};
use super::space::{AVERAGES, DROPOUTS, Point, RANKS, ROWS};
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
/// Measurements during a full-length run, fewest and most.
const MEASUREMENTS: (u64, u64) = (2, 12);
/// Learning rates tried, as multiples of the tested one.
const WINDOW: (f64, f64) = (0.3, 4.0);
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
}

/// The recipe of a point for so many tokens.
fn recipe(session: &Session<'_>, strategy: Strategy, point: &Point, tokens: u64) -> Recipe {
    let setup = session.setup();
    let longest = setup.train.lengths().into_iter().max().unwrap_or(1);
    let steps = tokens / (row_tokens(session) * u64::from(point.batch_rows)).max(1);
    let steps = u32::try_from(steps).unwrap_or(u32::MAX).max(1);
    point.recipe(strategy, setup.seed, longest as u32, steps)
}

/// The mean tokens of a row, rounded up.
fn row_tokens(session: &Session<'_>) -> u64 {
    let lengths = session.setup().train.lengths();
    let tokens: u64 = lengths.iter().map(|&length| length as u64).sum();
    tokens.div_ceil(lengths.len().max(1) as u64).max(1)
}

/// Searches, trains the winner with what is left, and keeps the best checkpoint.
///
/// # Errors
/// [`StrategyError`] when the budget does not pay for the first round, or everything diverges.
pub fn train(session: &mut Session<'_>) -> Result<(), StrategyError> {
    train_from(session, None)
}

/// As [`train`], starting from what past tasks teach: half of the candidates are recipes of
/// past tasks, the others come from where the tested range of learning rates and the believed
/// one overlap.
///
/// # Errors
/// As [`train`].
pub fn train_from(session: &mut Session<'_>, prior: Option<&Prior>) -> Result<(), StrategyError> {
    let budget = session.setup().budget_tokens;
    let needed = 2 * CANDIDATES as u64 * u64::from(TEST_ROWS) * row_tokens(session);
    if budget < needed {
        return Err(StrategyError::Budget { budget, needed });
    }
    let families = families(session)?;
    let mut windows = Vec::new();
    for &family in &families {
        windows.push((family, window(session, family, prior)?));
    }
    let mut field = candidates(session, &windows, prior);
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

/// The learning rates to search: around the tested one, narrowed by what is believed where the
/// two overlap. A belief that the test contradicts is a lie or about another kind of task.
fn window(
    session: &mut Session<'_>,
    family: Family,
    prior: Option<&Prior>,
) -> Result<(f64, f64), StrategyError> {
    let rate = test_rate(session, family)?;
    let (low, high) = (rate * WINDOW.0, rate * WINDOW.1);
    let believed = prior.map(|prior| prior.belief(family == Family::Full).window());
    Ok(match believed.map(|(from, to)| (low.max(from), high.min(to))) {
        Some((from, to)) if from < to => (from, to),
        Some(_) | None => (low, high),
    })
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
    let point =
        Point { full: family == Family::Full, learning_rate: low, batch_rows: TEST_ROWS, ..Point::PLAIN };
    let recipe = recipe(session, Strategy::Search, &point, budget);
    let mut run = session.fresh(&recipe)?;
    let (mut smooth, mut best, mut rate) = (None::<f64>, (f64::INFINITY, low), low);
    let factor = (high / low).powf(1.0 / steps.max(2) as f64);
    for _ in 0..steps {
        session.poll_stop()?;
        let report = match run.advance_at(rate) {
            Ok(report) => report,
            Err(error) if error.ends_training() => break,
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

/// The tokens of a whole run: what is left when the other candidates have played, the learning
/// rates are tested and everything is measured.
fn final_tokens(session: &Session<'_>, tests: usize) -> u64 {
    let budget = session.setup().budget_tokens;
    let others: u64 = ROUNDS[0] * (CANDIDATES as u64 - 1) + (ROUNDS[1] - ROUNDS[0]) * 2;
    let spent = others + TEST_SHARE * tests as u64;
    let looks = CANDIDATES as u64 + CANDIDATES.div_ceil(2) as u64 + measurements(session);
    (budget * (1_000 - spent) / 1_000).saturating_sub(looks * session.measurement_tokens())
}

/// Measurements during a full-length run: as many as cost a twentieth of the budget.
fn measurements(session: &Session<'_>) -> u64 {
    let (least, most) = MEASUREMENTS;
    let affordable = session.setup().budget_tokens / 20 / session.measurement_tokens().max(1);
    affordable.clamp(least, most)
}

/// Draws the candidates: the miner's stratum of the plane of method and learning rate, spread
/// with low discrepancy, and the other settings at random.
///
/// Where the sequence begins follows from the seed, which is a hash of task and miner: two
/// miners try different points without talking, and the points of one miner cover the plane.
fn candidates(
    session: &Session<'_>,
    windows: &[(Family, (f64, f64))],
    prior: Option<&Prior>,
) -> Vec<Candidate> {
    let setup = session.setup();
    let mut rng = Rng::new(mix(setup.seed) ^ 0x05EA_2C04);
    let stratum = [f64::from(rng.unit()), f64::from(rng.unit())];
    let tokens = final_tokens(session, windows.len());
    let strategy = prior.map_or(Strategy::Search, |_| Strategy::Learned);
    let full_allowed = windows.iter().any(|(family, _)| *family == Family::Full);
    let known = prior.map(|prior| prior.recipes(full_allowed, CANDIDATES / 2)).unwrap_or_default();
    let past = known.iter().enumerate().map(|(at, point)| Candidate {
        name: format!("past-{at}"),
        recipe: recipe(session, strategy.clone(), point, tokens),
    });
    let mut all: Vec<Candidate> = past.collect();
    for at in 0..CANDIDATES - known.len() {
        let [method, place] = plane(stratum, at);
        let (family, (low, high)) =
            windows[((method * windows.len() as f64) as usize).min(windows.len() - 1)];
        let point = Point {
            full: family == Family::Full,
            learning_rate: low * (high / low).powf(place),
            rank: RANKS[rng.below(RANKS.len())],
            attention_only: false,
            batch_rows: ROWS[rng.below(ROWS.len() - 1)],
            schedule: [ScheduleName::Linear, ScheduleName::Cosine][rng.below(2)],
            dropout: DROPOUTS[rng.below(DROPOUTS.len())],
            ema: AVERAGES[rng.below(AVERAGES.len())],
        };
        let recipe = recipe(session, strategy.clone(), &point, tokens);
        all.push(Candidate { name: format!("{}-{at}", family.name()), recipe });
    }
    all
}

/// The place of the numbered point on the unit square: a sequence of low discrepancy (Roberts
/// 2018, the plastic number's R2) that begins where the miner's stratum is.
fn plane(stratum: [f64; 2], number: usize) -> [f64; 2] {
    const PLASTIC: f64 = 1.324_717_957_244_746;
    let steps = [1.0 / PLASTIC, 1.0 / (PLASTIC * PLASTIC)];
    std::array::from_fn(|axis| (stratum[axis] + steps[axis] * number as f64).fract())
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
        Err(StrategyError::Run(error)) if error.ends_training() => return Ok(DIVERGED),
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
        let looks = measurements(session) * session.measurement_tokens();
        let left =
            session.setup().budget_tokens.saturating_sub(spent(session, attempt) + looks) / step_tokens;
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
    let looks = measurements(session);
    let stride = steps.div_ceil(looks).max(1);
    let (mut lowest, mut rises) = ((DIVERGED, 0u64), 0u32);
    for until in (1..=looks).map(|at| (at * stride).min(steps)) {
        let part = format!("{}-step-{until}", candidate.name);
        let loss = match session.result(&part) {
            Some(loss) => loss,
            None => {
                match session.advance(&candidate.name, &mut run, until, Phase::Final, false) {
                    Ok(()) => {}
                    Err(StrategyError::Run(error)) if error.ends_training() && session.best().is_some() => {
                        break;
                    }
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
