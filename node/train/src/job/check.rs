//! The check job: can this task be trained and judged here, and what does it cost?

use super::JobError;
use super::eval::load_base;
use super::result::JobResult;
use super::spec::{CheckSpec, check_kind};
use crate::data::Template;
use crate::data::check::{EvaluationSide, report};
use crate::safe::read_small;

pub(super) fn run(spec: &CheckSpec) -> Result<JobResult, JobError> {
    check_kind(&spec.kind)?;
    let base = load_base(&spec.base)?;
    let template = Template::of(&spec.base, base.config())?;
    let training = read_small(&spec.training.join("train.jsonl"))?;
    let rows = spec.evaluation.as_ref().map(|path| read_small(path)).transpose()?;
    let evaluation = match &rows {
        Some(rows) => EvaluationSide::Rows(rows),
        None => EvaluationSide::Promised { examples: spec.examples, bytes: spec.plaintext_bytes },
    };
    let report = report(&base, &template, &training, evaluation)?;
    Ok(JobResult::Checked(Box::new(report)))
}
