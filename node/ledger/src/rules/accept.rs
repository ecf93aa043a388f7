//! `Accept`: a validator of the running set says that it can judge the task. Once per validator.

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::state::Phase;

use crate::book::Book;
use crate::error::{MarketError, Stop};

pub(super) fn apply(book: &mut Book<'_>, sender: PublicKey, task: TaskId) -> Result<(), Stop> {
    let mut record = book.task_in(task, Phase::Accepting, |record| record.deadlines.open)?;
    if book.set()?.find(&sender).is_none() {
        return Err(MarketError::NotValidator { key: sender }.into());
    }
    match record.accepted.binary_search(&sender) {
        Ok(_) => return Err(MarketError::AlreadyAccepted.into()),
        Err(at) => record.accepted.insert(at, sender),
    }
    Ok(book.set_task(task, record)?)
}
