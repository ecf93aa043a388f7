//! Ends phases: at the end of the block of the deadline, in the order of the queue, so many a block.
//!
//! What does not fit into one block is carried over in order, and the task's later deadlines move by the delay: nobody
//! loses time of a window to a full block.

pub(crate) mod finish;
pub(crate) mod narrow;

use tiltyard_proto::ids::TaskId;
use tiltyard_proto::state::{
    JudgeRecord, KeyDefault, Phase, RefundCause, StateKey, TaskRecord, ValidatorRecord,
};
use tiltyard_proto::units::{Blocks, Height, Stake};
use tiltyard_proto::validators::{Validator, more_than_two_thirds};

use crate::book::Book;
use crate::error::Stop;
use crate::event::LedgerEvent;
use crate::settle;

/// Ends the phases that are due.
pub(crate) fn end_of_block(book: &mut Book<'_>) -> Result<(), Stop> {
    let now = book.height;
    let mut due: Vec<(Height, TaskId)> = book.get(StateKey::PhaseCarry)?.unwrap_or_default();
    let carried = !due.is_empty();
    let queued: Vec<TaskId> = book.get(StateKey::PhaseQueue(now))?.unwrap_or_default();
    if due.is_empty() && queued.is_empty() {
        return Ok(());
    }
    if !queued.is_empty() {
        book.remove::<Vec<TaskId>>(StateKey::PhaseQueue(now))?;
        due.extend(queued.into_iter().map(|task| (now, task)));
    }
    let mut budget = book.params.phase_ends_per_block_max;
    let mut rest = Vec::new();
    for (at, task) in due {
        if budget == 0 {
            rest.push((at, task));
        } else if end(book, task, at)? {
            budget = budget.saturating_sub(1);
        }
    }
    if !rest.is_empty() {
        book.put(StateKey::PhaseCarry, rest)?;
    } else if carried {
        book.remove::<Vec<(Height, TaskId)>>(StateKey::PhaseCarry)?;
    }
    Ok(())
}

/// Ends the running phase of a task that was queued for `at`; says whether there was anything to do.
fn end(book: &mut Book<'_>, task: TaskId, at: Height) -> Result<bool, Stop> {
    let mut record = book.task(task).map_err(|stop| match stop {
        Stop::Market(_) => Stop::Broken("a queued task has no record"),
        Stop::Read(_) | Stop::Broken(_) => stop,
    })?;
    if record.phase.is_over() {
        return Ok(false);
    }
    if record.key_default == Some(KeyDefault::Early) {
        finish::key_default(book, task, record, KeyDefault::Early)?;
        return Ok(true);
    }
    if closes(&record).is_none_or(|closes| closes > at) {
        return Ok(false);
    }
    let delay = Blocks::new(book.height.get().saturating_sub(at.get()));
    postpone(&mut record, delay);
    match record.phase {
        Phase::Accepting => end_accepting(book, task, record)?,
        Phase::Committing => {
            if narrow::has_racer(book, task, &record)? {
                advance(book, task, record, Phase::Revealing)?;
            } else {
                finish::refund(book, task, record, RefundCause::NoCommits)?;
            }
        }
        Phase::Revealing => {
            narrow::drop_unrevealed(book, task, &mut record)?;
            race_on(book, task, record, Phase::Holding)?;
        }
        Phase::Holding => {
            narrow::drop_unheld(book, task, &mut record)?;
            race_on(book, task, record, Phase::KeyOpening)?;
        }
        Phase::KeyOpening => {
            if record.key.is_some() {
                advance(book, task, record, Phase::ScoreCommitting)?;
            } else {
                let default = record.key_default.unwrap_or(KeyDefault::Absent);
                finish::key_default(book, task, record, default)?;
            }
        }
        Phase::ScoreCommitting => end_score_commit(book, task, record)?,
        Phase::ScoreOpening => settle::settle(book, task, record)?,
        Phase::Settled | Phase::Refunded(_) => {}
    }
    Ok(true)
}

/// Returns the last height of the running phase.
const fn closes(record: &TaskRecord) -> Option<Height> {
    let deadlines = &record.deadlines;
    match record.phase {
        Phase::Accepting => Some(deadlines.open),
        Phase::Committing => Some(deadlines.commit),
        Phase::Revealing => Some(deadlines.reveal),
        Phase::Holding => Some(deadlines.held),
        Phase::KeyOpening => Some(deadlines.key),
        Phase::ScoreCommitting => Some(deadlines.score_commit),
        Phase::ScoreOpening => Some(deadlines.score_open),
        Phase::Settled | Phase::Refunded(_) => None,
    }
}

/// Moves the deadlines after the running phase's.
fn postpone(record: &mut TaskRecord, delay: Blocks) {
    let deadlines = &mut record.deadlines;
    let later = [
        (Phase::Committing, &mut deadlines.commit),
        (Phase::Revealing, &mut deadlines.reveal),
        (Phase::Holding, &mut deadlines.held),
        (Phase::KeyOpening, &mut deadlines.key),
        (Phase::ScoreCommitting, &mut deadlines.score_commit),
        (Phase::ScoreOpening, &mut deadlines.score_open),
    ];
    for (phase, deadline) in later {
        if phase > record.phase {
            *deadline = deadline.plus(delay);
        }
    }
}

/// Enters the next phase and queues its end.
fn advance(book: &mut Book<'_>, task: TaskId, mut record: TaskRecord, phase: Phase) -> Result<(), Stop> {
    record.phase = phase;
    let closes = closes(&record).ok_or(Stop::Broken("a task advances into its end"))?;
    book.set_task(task, record)?;
    book.enqueue(closes, task)?;
    book.event(LedgerEvent::TaskPhase { task, phase });
    Ok(())
}

/// Goes on while anybody is left to be paid.
fn race_on(book: &mut Book<'_>, task: TaskId, record: TaskRecord, phase: Phase) -> Result<(), Stop> {
    if narrow::has_racer(book, task, &record)? {
        advance(book, task, record, phase)
    } else {
        finish::refund(book, task, record, RefundCause::NoEntrants)
    }
}

/// Opens the task and freezes the whole running set as its committee, or gives the pot back.
fn end_accepting(book: &mut Book<'_>, task: TaskId, mut record: TaskRecord) -> Result<(), Stop> {
    let set = book.set()?;
    let accepted = record
        .accepted
        .iter()
        .filter_map(|key| set.find(key))
        .fold(Stake::ZERO, |sum, (_, member)| sum.saturating_add(member.stake));
    if !set.is_quorum(accepted) {
        return finish::refund(book, task, record, RefundCause::NotAccepted);
    }
    for member in set.members() {
        if let Some(mut validator) = book.get::<ValidatorRecord>(StateKey::Validator(member.key))? {
            validator.duties = validator.duties.saturating_add(1);
            book.put(StateKey::Validator(member.key), validator)?;
        }
    }
    record.committee_stake = set.total();
    book.put(StateKey::Committee(task), set.members().to_vec())?;
    advance(book, task, record, Phase::Committing)
}

/// Goes on to the openings if they can still reach more than 2/3.
fn end_score_commit(book: &mut Book<'_>, task: TaskId, record: TaskRecord) -> Result<(), Stop> {
    let committee: Vec<Validator> = book.get(StateKey::Committee(task))?.unwrap_or_default();
    let mut sealed = Stake::ZERO;
    for member in &committee {
        let judge: Option<JudgeRecord> = book.get(StateKey::Judge(task, member.key))?;
        if judge.is_some_and(|judge| judge.committed.is_some()) {
            sealed = sealed.saturating_add(member.stake);
        }
    }
    if more_than_two_thirds(sealed, record.committee_stake) {
        advance(book, task, record, Phase::ScoreOpening)
    } else {
        finish::refund(book, task, record, RefundCause::NotJudged)
    }
}
