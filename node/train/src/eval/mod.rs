//! Scoring: one integer per example, as the ledger takes it (SPEC.md, "Scoring v1").
//!
//! Examples are computed several at a time, in `f32` with `f64` sums in token order. The
//! kernels round an example alike in any company, so its score depends on nothing but the
//! example and the weights: the same bits at any number of threads, in any batch, on any
//! run on one processor type.

pub mod answers;
pub mod pictures;

use tiltyard_proto::score::{Fault, MicroNats, Row as ScoreRow};

use crate::data::Example;
use crate::loss::{Row, log_probs};
use crate::model::{Model, ModelError};

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
    let rows = examples.iter().map(|example| Row::completion(example.ids.clone(), example.prompt, 1.0));
    let mean = |tokens: Vec<f64>| -tokens.iter().sum::<f64>() / tokens.len().max(1) as f64;
    let rows: Vec<Row> = rows.collect();
    Ok(log_probs(model, &rows, workers)?.into_iter().map(mean).collect())
}

/// Turns losses in nats into a row of the ledger; a loss that is no number is a fault.
pub fn row(losses: &[f64]) -> ScoreRow {
    if losses.iter().any(|loss| !loss.is_finite()) {
        return ScoreRow::Fault(Fault::NotFinite);
    }
    ScoreRow::Scores(losses.iter().map(|loss| micro_nats(*loss)).collect())
}

/// Rounds a loss in nats to micro-nats, half up, clamped to the ledger's range.
pub fn micro_nats(loss: f64) -> MicroNats {
    let micro = (loss * 1e6 + 0.5).floor().clamp(0.0, f64::from(MicroNats::MAX.get()));
    MicroNats::clamped(micro as u64)
}

/// Computes the mean over examples of each example's mean loss, in nats.
///
/// # Errors
/// [`ModelError::Batch`] when an example does not fit the model.
pub fn mean_loss(model: &Model, examples: &[Example], workers: usize) -> Result<f64, ModelError> {
    let losses = losses(model, examples, workers)?;
    Ok(losses.iter().sum::<f64>() / losses.len().max(1) as f64)
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
        assert_eq!(row(&[1.0, f64::NAN]), ScoreRow::Fault(Fault::NotFinite));
        assert_eq!(row(&[f64::INFINITY]), ScoreRow::Fault(Fault::NotFinite));
    }
}
