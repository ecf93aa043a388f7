//! One recipe, fixed beforehand, trained once.

use tiltyard_proto::recipe::{Recipe, Strategy};

use super::StrategyError;
use super::form::Form;
use super::session::Session;
use crate::eval;
use crate::fit::run::Run;
use crate::job::progress::Phase;

const RUN: &str = "fixed";

/// Trains one recipe to its end, or to the end of the budget.
///
/// Keeps the last checkpoint, as the trainers whose presets these are do. A recipe that
/// says `evaluate_every` measures on the rows held out instead and keeps the best; with
/// `patience` it ends early.
///
/// # Errors
/// [`StrategyError`] when the budget does not pay for a step or the run fails.
pub fn train(session: &mut Session<'_>, name: &str, form: &Form) -> Result<(), StrategyError> {
    let setup = *session.setup();
    let strategy = Strategy::Fixed(name.chars().take(32).collect());
    let recipe = form.recipe(strategy, setup.seed, &setup.train.lengths(), setup.budget_tokens)?;
    if recipe.steps == 0 {
        let longest = u64::from(recipe.sequence_tokens);
        let needed = longest * u64::from(recipe.batch_rows) * u64::from(recipe.accumulation);
        return Err(StrategyError::Budget { budget: setup.budget_tokens, needed });
    }
    let mut run = session.run(RUN, &recipe)?;
    if let Some(every) = run.settings().evaluate_every_steps.filter(|_| setup.held_out.count() > 0) {
        return measured(session, &mut run, &recipe, every);
    }
    let steps = u64::from(recipe.steps);
    session.advance(RUN, &mut run, steps, Phase::Train, false)?;
    if run.step() == 0 {
        session.advance(RUN, &mut run, 1, Phase::Train, true)?;
    }
    let loss = match setup.held_out.count() == 0 {
        true => eval::micro_nats(0.0).get().into(),
        false => session.measure(&run, Phase::Train)?,
    };
    session.keep_if_better(&run, loss)?;
    Ok(())
}

/// Trains with a measurement every so many steps; the best checkpoint stays in `best/`.
///
/// Every measurement is in the journal, so a restarted job goes the same way.
fn measured(
    session: &mut Session<'_>,
    run: &mut Run<'_>,
    recipe: &Recipe,
    every: u64,
) -> Result<(), StrategyError> {
    let steps = u64::from(recipe.steps);
    let patience = run.settings().patience.unwrap_or(u32::MAX);
    let (mut lowest, mut since_best) = (u64::MAX, 0u32);
    let marks = (1..=steps.div_ceil(every)).map(|at| (at * every).min(steps));
    for until in marks {
        let part = format!("{RUN}-step-{until}");
        let loss = match session.result(&part) {
            Some(loss) => loss,
            None => {
                let patient = session.best().is_none() && run.step() == 0;
                match session.advance(RUN, run, until, Phase::Train, patient) {
                    Ok(()) => {}
                    // What diverged, or earns nothing, is lost; the best checkpoint before it is not.
                    Err(StrategyError::Run(error)) if error.ends_training() && session.best().is_some() => {
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
                let loss = session.measure(run, Phase::Train)?;
                session.keep_if_better(run, loss)?;
                if session.finishing() {
                    return Ok(());
                }
                session.record(&part, loss, 0)?;
                loss
            }
        };
        if loss < lowest {
            (lowest, since_best) = (loss, 0);
        } else {
            since_best += 1;
        }
        if since_best >= patience {
            break;
        }
    }
    match session.best() {
        Some(_) => Ok(()),
        None => Err(StrategyError::AllDiverged),
    }
}
