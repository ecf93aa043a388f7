//! One recipe, fixed beforehand, trained once.

use tiltyard_proto::recipe::Strategy;

use super::StrategyError;
use super::form::Form;
use super::session::Session;
use crate::eval;
use crate::job::progress::Phase;

const RUN: &str = "fixed";

/// Trains one recipe to its end, or to the end of the budget.
///
/// Keeps the last checkpoint, as the trainers whose presets these are do.
///
/// # Errors
/// [`StrategyError`] when the budget does not pay for a step or the run fails.
pub fn train(session: &mut Session<'_>, name: &str, form: &Form) -> Result<(), StrategyError> {
    let setup = *session.setup();
    let strategy = Strategy::Fixed(name.chars().take(32).collect());
    let recipe = form.recipe(strategy, setup.seed, setup.train, setup.budget_tokens)?;
    if recipe.steps == 0 {
        let longest = u64::from(recipe.sequence_tokens);
        let needed = longest * u64::from(recipe.batch_rows) * u64::from(recipe.accumulation);
        return Err(StrategyError::Budget { budget: setup.budget_tokens, needed });
    }
    let mut run = session.run(RUN, &recipe)?;
    let steps = u64::from(recipe.steps);
    session.advance(RUN, &mut run, steps, Phase::Train, false)?;
    if run.step() == 0 {
        session.advance(RUN, &mut run, 1, Phase::Train, true)?;
    }
    let loss = match setup.held_out.is_empty() {
        true => eval::micro_nats(0.0).get().into(),
        false => session.measure(&run, Phase::Train)?,
    };
    session.keep_if_better(&run, loss)?;
    Ok(())
}
