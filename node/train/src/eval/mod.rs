//! Scoring: one integer per example, as the ledger takes it (SPEC.md, "Scoring v1").
//!
//! Every example is computed on its own, in `f32` with `f64` sums in token order, so
//! its score depends on nothing but the example and the weights: the same bits at any
//! number of threads, in any company, on any run on one processor type.

use tiltyard_proto::score::{Fault, MicroNats, Row};

use crate::data::{Average, Example, micro_batches};
use crate::kernel::head::Target;
use crate::model::{Batch, Model, ModelError};

/// Computes the mean natural-log loss of each example's completion, in nats.
///
/// Examples are spread over `workers` threads; the result does not depend on how many.
///
/// # Errors
/// [`ModelError::Batch`] when an example does not fit the model.
///
/// # Panics
/// When a worker panicked: a bug, passed on.
pub fn losses(model: &Model, examples: &[Example], workers: usize) -> Result<Vec<f64>, ModelError> {
    let score = |example: &Example| -> Result<f64, ModelError> {
        let golds = example.ids.iter().enumerate().skip(example.prompt);
        let targets = golds.map(|(at, &token)| Target { row: at - 1, token, weight: 1.0 }).collect();
        let losses = model.losses(&Batch::new(&[&example.ids], targets, 0))?;
        Ok(losses.iter().sum::<f64>() / losses.len().max(1) as f64)
    };
    if workers <= 1 {
        return examples.iter().map(score).collect();
    }
    let share = examples.len().div_ceil(workers).max(1);
    std::thread::scope(|scope| {
        let run = |part: &'_ [Example]| part.iter().map(score).collect::<Result<Vec<_>, _>>();
        let handles: Vec<_> = examples.chunks(share).map(|part| scope.spawn(move || run(part))).collect();
        let mut all = Vec::with_capacity(examples.len());
        for handle in handles {
            match handle.join() {
                Ok(part) => all.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// Turns losses in nats into a row of the ledger; a loss that is no number is a fault.
pub fn row(losses: &[f64]) -> Row {
    if losses.iter().any(|loss| !loss.is_finite()) {
        return Row::Fault(Fault::NotFinite);
    }
    Row::Scores(losses.iter().map(|loss| micro_nats(*loss)).collect())
}

/// Rounds a loss in nats to micro-nats, half up, clamped to the ledger's range.
pub fn micro_nats(loss: f64) -> MicroNats {
    let micro = (loss * 1e6 + 0.5).floor().clamp(0.0, f64::from(MicroNats::MAX.get()));
    MicroNats::clamped(micro as u64)
}

/// Computes the mean over examples of each example's mean loss, in nats, several rows at a time.
///
/// For choosing between runs while training; scores for the ledger come from [`losses`].
///
/// # Errors
/// [`ModelError::Batch`] when an example does not fit the model.
pub fn mean_loss(model: &Model, examples: &[Example]) -> Result<f64, ModelError> {
    let rows: Vec<&Example> = examples.iter().collect();
    let mut total = 0f64;
    for batch in micro_batches(&rows, Average::Example) {
        let losses = model.losses(&batch)?;
        let weighted = losses.iter().zip(batch.targets());
        total += weighted.map(|(loss, target)| loss * f64::from(target.weight)).sum::<f64>();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_become_integers_by_rounding_and_clamping() {
        assert_eq!(micro_nats(0.000_000_4).get(), 0);
        assert_eq!(micro_nats(0.000_000_6).get(), 1);
        assert_eq!(micro_nats(6.302_766_5).get(), 6_302_767);
        assert_eq!(micro_nats(1e9), MicroNats::MAX);
        assert_eq!(micro_nats(-1e-9).get(), 0);
    }

    #[test]
    fn one_loss_that_is_no_number_faults_the_row() {
        assert_eq!(row(&[1.0, f64::NAN]), Row::Fault(Fault::NotFinite));
        assert_eq!(row(&[f64::INFINITY]), Row::Fault(Fault::NotFinite));
    }
}
