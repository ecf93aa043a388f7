//! `ScoreCommit`: a committee member seals its score rows. Once.

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::{ScoreCommitment, TaskId};
use tiltyard_proto::state::{JudgeRecord, Phase, StateKey};

use crate::book::Book;
use crate::error::{MarketError, Stop};

pub(super) fn apply(
    book: &mut Book<'_>,
    sender: PublicKey,
    task: TaskId,
    sealed: ScoreCommitment,
) -> Result<(), Stop> {
    book.task_in(task, Phase::ScoreCommitting, |record| record.deadlines.score_commit)?;
    super::seat(book, task, sender)?;
    let key = StateKey::Judge(task, sender);
    let mut judge: JudgeRecord = book.get(key)?.unwrap_or_default();
    if judge.committed.is_some() {
        return Err(MarketError::AlreadyScored.into());
    }
    judge.committed = Some(sealed);
    Ok(book.put(key, judge)?)
}
