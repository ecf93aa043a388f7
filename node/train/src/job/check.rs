//! The check job: can this task be trained and judged here, and what does it cost?

use super::JobError;
use super::eval::load_base;
use super::result::JobResult;
use super::spec::{CheckSpec, Limits};
use crate::data::check::{EvaluationSide, report};
use crate::kind;
use crate::safe::read_small;

pub(super) fn run(spec: &CheckSpec) -> Result<JobResult, JobError> {
    let base = load_base(&spec.base)?;
    let empty = kind::open(&spec.kind, &spec.base, base.config(), base.context())?;
    let training = read_small(&spec.training.join("train.jsonl"))?;
    let rows = spec.evaluation.as_ref().map(|path| read_small(path)).transpose()?;
    let evaluation = match &rows {
        Some(rows) => EvaluationSide::Rows(rows),
        None => EvaluationSide::Promised { examples: spec.examples, bytes: spec.plaintext_bytes },
    };
    let report = report(&base, empty.as_ref(), &training, evaluation)?;
    affordable(report.evaluation_memory_bytes, report.evaluation_cpu_ms, &spec.limits)?;
    Ok(JobResult::Checked(Box::new(report)))
}

/// Refuses a task whose evaluation is estimated to need more than a job may use here: a
/// judge that accepts it could not score it.
fn affordable(memory_bytes: u64, cpu_ms: u64, limits: &Limits) -> Result<(), JobError> {
    let over = |what, needed: u64, allowed: u64| match needed > allowed {
        true => Err(JobError::Unaffordable { what, needed, allowed }),
        false => Ok(()),
    };
    if let Some(allowed) = limits.memory_bytes_max {
        over("bytes of memory", memory_bytes, allowed)?;
    }
    match limits.cpu_seconds_max {
        None => Ok(()),
        Some(allowed) => over("milliseconds of processor time", cpu_ms, allowed.saturating_mul(1_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_beyond_the_limits_of_a_job_is_refused_with_both_numbers() {
        let limits =
            Limits { memory_bytes_max: Some(1 << 30), cpu_seconds_max: Some(60), ..Limits::default() };
        assert!(affordable(1 << 30, 60_000, &limits).is_ok());
        assert!(affordable(u64::MAX, u64::MAX, &Limits::default()).is_ok());
        for (memory, time, words) in
            [((1 << 30) + 1, 0, "1073741825 bytes"), (0, 60_001, "60001 milliseconds")]
        {
            let error = affordable(memory, time, &limits).unwrap_err();
            assert!(error.to_string().contains(words) && error.exit_code() == 2, "{error}");
        }
    }
}
