//! Settles a task: from opened score rows to medians, ranks, reasons and money.
//!
//! Runs in the end step of the block of the opening deadline. Reads no clock and looks up nobody but the task's own.

mod compare;
mod judges;
pub(crate) mod money;
pub(crate) mod rank;
mod rows;

use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::merkle;
use tiltyard_proto::score::{Fault, Row};
use tiltyard_proto::state::{EntrantVerdict, JudgeRecord, Phase, Reason, RefundCause, StateKey, TaskRecord};
use tiltyard_proto::task::priority;
use tiltyard_proto::units::{MicroCredits, Ppm, Stake};
use tiltyard_proto::validators::{Validator, more_than_half, more_than_two_thirds};

use self::compare::{gain_ppm, total};
use self::judges::Judge;
use self::rank::{Scored, Terms};
use self::rows::{Judged, Voice, judge_row, weigh};
use crate::book::Book;
use crate::error::Stop;
use crate::phase::finish::{self, Ending};
use crate::phase::narrow::{entrant, reveal_of, unscored};

/// Settles a task whose score openings have closed.
pub(crate) fn settle(book: &mut Book<'_>, task: TaskId, record: TaskRecord) -> Result<(), Stop> {
    let judges = read_judges(book, task, &record)?;
    let opened = judges.iter().fold(Stake::ZERO, |sum, judge| sum.saturating_add(judge.member.stake));
    if !more_than_two_thirds(opened, record.committee_stake) {
        return finish::refund(book, task, record, RefundCause::NotJudged);
    }
    let examples = usize::try_from(record.spec.evaluation.examples).unwrap_or(usize::MAX);
    let rows = record.entrants.len().saturating_add(1);
    let mut verdicts = Vec::with_capacity(rows);
    for row in 0..rows {
        verdicts.push(judge_row(&voices(&judges, row), examples));
    }
    let unusable = weigh(&voices(&judges, 0), |row| *row == Row::Fault(Fault::EvaluationUnusable));
    if more_than_half(unusable, opened) {
        return without_ranks(book, task, record, &judges, &verdicts, RefundCause::EvaluationUnusable);
    }
    match verdicts.first() {
        Some(Judged::Fault(fault)) => finish::refund(book, task, record, RefundCause::BaseFaulty(*fault)),
        Some(Judged::Scores(base)) if total(base) == 0 => {
            without_ranks(book, task, record, &judges, &verdicts, RefundCause::BaseLossZero)
        }
        Some(Judged::Scores(base)) => {
            let base = base.clone();
            with_ranks(book, task, record, &judges, &verdicts, &base)
        }
        None => Err(Stop::Broken("a task has no rows")),
    }
}

/// Reads the members of the committee that opened every row.
fn read_judges(book: &mut Book<'_>, task: TaskId, record: &TaskRecord) -> Result<Vec<Judge>, Stop> {
    let committee: Vec<Validator> = book.get(StateKey::Committee(task))?.unwrap_or_default();
    let count = record.entrants.len().saturating_add(1);
    let examples = usize::try_from(record.spec.evaluation.examples).unwrap_or(usize::MAX);
    let mut judges = Vec::new();
    for member in committee {
        let judge: JudgeRecord = book.get(StateKey::Judge(task, member.key))?.unwrap_or_default();
        if judge.opened.len() != count {
            continue;
        }
        let mut rows = Vec::with_capacity(count);
        for row in judge.opened {
            let bytes: ByteBuf = book
                .get(StateKey::OpenedRow(task, member.key, row))?
                .ok_or(Stop::Broken("an opened row is missing"))?;
            let row = Row::from_bytes(&bytes, examples)
                .map_err(|_| Stop::Broken("an opened row was accepted and cannot be read"))?;
            rows.push(row);
        }
        judges.push(Judge { member, rows });
    }
    Ok(judges)
}

fn voices(judges: &[Judge], row: usize) -> Vec<Voice<'_>> {
    judges.iter().filter_map(|judge| judge.rows.get(row).map(|found| (judge.member.stake, found))).collect()
}

fn rows_root(judges: &[Judge]) -> tiltyard_proto::ids::MerkleRoot {
    merkle::root(judges.iter().flat_map(|judge| judge.rows.iter().map(Row::to_bytes)))
}

/// Ends a task that was judged but cannot be ranked: the judges are paid; an unusable evaluation set burns the rest,
/// a base without loss returns what burn and judges leave.
fn without_ranks(
    book: &mut Book<'_>,
    task: TaskId,
    record: TaskRecord,
    judges: &[Judge],
    verdicts: &[Judged],
    cause: RefundCause,
) -> Result<(), Stop> {
    let mut ending = Ending::without_verdict(book, task, &record, cause)?;
    let pot = record.spec.pot;
    let shares = money::cut(pot, &record.rules, record.spec.payout);
    ending.judges = judges::pay(judges, verdicts, record.committee_stake, shares.judges, &record.rules);
    ending.rows_root = rows_root(judges);
    if cause == RefundCause::BaseLossZero {
        ending.base_mean = Some(0);
        ending.returned = finish::sum(shares.places);
    }
    let paid = finish::sum(ending.judges.iter().map(|(_, pay)| *pay));
    ending.burned = pot.saturating_sub(paid).saturating_sub(ending.returned);
    finish::close(book, task, record, ending)
}

fn with_ranks(
    book: &mut Book<'_>,
    task: TaskId,
    record: TaskRecord,
    judges: &[Judge],
    verdicts: &[Judged],
    base: &[u32],
) -> Result<(), Stop> {
    let (field, mut entrants) = read_field(book, task, &record, verdicts)?;
    let terms = Terms {
        base,
        min_gain: record.spec.min_gain,
        continuous: record.spec.kind.is_continuous(),
        rules: &record.rules,
    };
    let pot = record.spec.pot;
    let shares = money::cut(pot, &record.rules, record.spec.payout);
    let reference = field.iter().find(|scored| scored.reference);
    let mut returned = finish::sum(shares.places);
    for (scored, stand) in field.iter().zip(rank::rank(&field, &terms)) {
        let place = stand.rank.map(|rank| usize::from(rank).saturating_sub(1));
        let reward = place.and_then(|place| shares.places.get(place)).copied().unwrap_or(MicroCredits::ZERO);
        returned = returned.saturating_sub(reward);
        let Some(verdict) = entrants.iter_mut().find(|verdict| verdict.miner == scored.miner) else {
            continue;
        };
        verdict.rank = stand.rank;
        verdict.reason = stand.reason;
        verdict.reward = reward;
        verdict.mean = mean(&scored.scores);
        verdict.gain = gain_ppm(total(base), total(&scored.scores)).map(Ppm::new);
        verdict.reference_gain = reference
            .filter(|_| !scored.reference)
            .and_then(|reference| gain_ppm(total(&reference.scores), total(&scored.scores)))
            .map(Ppm::new);
    }
    let reference_mean = reference.and_then(|scored| mean(&scored.scores));
    entrants.sort_by_key(|verdict| (verdict.rank.is_none(), verdict.rank, verdict.miner));
    let judges_paid = judges::pay(judges, verdicts, record.committee_stake, shares.judges, &record.rules);
    let out = finish::sum(judges_paid.iter().map(|(_, pay)| *pay))
        .saturating_add(finish::sum(entrants.iter().map(|verdict| verdict.reward)))
        .saturating_add(returned);
    let ending = Ending {
        phase: Phase::Settled,
        base_mean: mean(base),
        reference_mean,
        entrants,
        judges: judges_paid,
        returned,
        burned: pot.saturating_sub(out),
        rows_root: rows_root(judges),
    };
    finish::close(book, task, record, ending)
}

fn mean(scores: &[u32]) -> Option<u64> {
    total(scores).checked_div(u64::try_from(scores.len()).ok()?)
}

/// Splits the standing entrants into those with scores and, for all, a verdict to be filled in.
fn read_field(
    book: &mut Book<'_>,
    task: TaskId,
    record: &TaskRecord,
    verdicts: &[Judged],
) -> Result<(Vec<Scored>, Vec<EntrantVerdict>), Stop> {
    let key = record.key.ok_or(Stop::Broken("a task is settled without its key"))?;
    let (mut field, mut entrants) = (Vec::new(), Vec::new());
    let miners: &[PublicKey] = &record.entrants;
    for (miner, judged) in miners.iter().zip(verdicts.iter().skip(1)) {
        let entry = entrant(book, task, *miner)?;
        let reveal = reveal_of(&entry).ok_or(Stop::Broken("an entrant stands without reveal"))?;
        match judged {
            Judged::Fault(fault) => {
                entrants.push(unscored(*miner, &entry, Reason::Faulty { fault: *fault }));
            }
            Judged::Scores(scores) => {
                field.push(Scored {
                    miner: *miner,
                    scores: scores.clone(),
                    priority: (entry.committed_at, priority(&key, &entry.commitment)),
                    weights: reveal.weights,
                    reference: entry.reference,
                });
                entrants.push(unscored(*miner, &entry, Reason::Reference));
            }
        }
    }
    Ok((field, entrants))
}
