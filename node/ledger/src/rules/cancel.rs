//! `Cancel`: the requester withdraws a task before it opened, before anyone could commit.

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::state::{Phase, RefundCause};

use crate::book::Book;
use crate::error::{MarketError, Stop};
use crate::phase;

pub(super) fn apply(book: &mut Book<'_>, sender: PublicKey, task: TaskId) -> Result<(), Stop> {
    let record = book.task_in(task, Phase::Accepting, |record| record.deadlines.open)?;
    if record.requester != sender {
        return Err(MarketError::NotRequester { requester: record.requester }.into());
    }
    phase::finish::refund(book, task, record, RefundCause::Cancelled)
}
