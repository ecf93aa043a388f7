//! Which judges agree with the verdict, and what each is paid.

use tiltyard_keys::PublicKey;
use tiltyard_proto::score::Row;
use tiltyard_proto::state::TaskRules;
use tiltyard_proto::units::{MicroCredits, Stake};
use tiltyard_proto::validators::Validator;

use super::money::portion;
use super::rows::Judged;

/// A committee member with all its rows, each row open.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) member: Validator,
    pub(super) rows: Vec<Row>,
}

/// Pays each judge that agrees its part of the pool by stake in the whole committee; the rest is not paid to anyone.
pub(super) fn pay(
    judges: &[Judge],
    verdicts: &[Judged],
    committee: Stake,
    pool: MicroCredits,
    rules: &TaskRules,
) -> Vec<(PublicKey, MicroCredits)> {
    judges
        .iter()
        .map(|judge| {
            let pay = if agrees(judge, verdicts, rules) {
                portion(pool, judge.member.stake.get(), committee.get())
            } else {
                MicroCredits::ZERO
            };
            (judge.member.key, pay)
        })
        .collect()
}

/// Says whether enough of a judge's cells lie close enough to the verdict. A row counts with all its cells; a fault
/// agrees with that fault only.
fn agrees(judge: &Judge, verdicts: &[Judged], rules: &TaskRules) -> bool {
    let examples = verdicts.iter().map(cells).max().unwrap_or(1);
    let mut close = 0u128;
    for (row, verdict) in judge.rows.iter().zip(verdicts) {
        let found = match (row, verdict) {
            (Row::Scores(scores), Judged::Scores(medians)) => scores
                .iter()
                .zip(medians)
                .filter(|(score, median)| score.get().abs_diff(**median) <= rules.judge_micro_nats)
                .count(),
            (Row::Fault(fault), Judged::Fault(verdict)) if fault == verdict => examples,
            (Row::Fault(_), Judged::Fault(_) | Judged::Scores(_)) | (Row::Scores(_), Judged::Fault(_)) => 0,
        };
        close = close.saturating_add(wide(found));
    }
    let all = wide(examples).saturating_mul(wide(verdicts.len()));
    let needed = u128::try_from(rules.judge_cells.get()).unwrap_or(0);
    close.saturating_mul(1_000_000) >= all.saturating_mul(needed)
}

fn cells(verdict: &Judged) -> usize {
    match verdict {
        Judged::Scores(medians) => medians.len(),
        Judged::Fault(_) => 1,
    }
}

fn wide(count: usize) -> u128 {
    u128::try_from(count).unwrap_or(u128::MAX)
}
