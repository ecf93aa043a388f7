//! `OpenKey`: anyone opens the evaluation key.
//!
//! The right key before the bytes are held is the requester's fault, whoever sends it: only the requester could have
//! let it out. A wrong key is the requester's fault only when the requester itself sends it, so that nobody can frame
//! a requester; the right key in time makes it good. Another's wrong key is a failed transaction.

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::{SealKey, TaskId};
use tiltyard_proto::state::{KeyDefault, Phase, TaskRecord};
use tiltyard_proto::task::seal_key_hash;

use crate::book::Book;
use crate::error::{MarketError, Stop};
use crate::event::LedgerEvent;

pub(super) fn apply(book: &mut Book<'_>, sender: PublicKey, task: TaskId, key: &SealKey) -> Result<(), Stop> {
    let mut record = book.task(task)?;
    if record.key.is_some() {
        return Err(MarketError::KeyAlreadyOpen.into());
    }
    let right = seal_key_hash(key) == record.spec.evaluation.key_hash;
    match record.phase {
        Phase::Accepting | Phase::Committing | Phase::Revealing | Phase::Holding => {
            if !right {
                return Err(MarketError::WrongKey.into());
            }
            if record.phase == Phase::Holding && book.height > record.deadlines.held {
                // The phase end was carried over to a later block: not early, only not yet.
                let (phase, needed) = (record.phase, Phase::KeyOpening);
                return Err(MarketError::TooEarly { task, phase, needed }.into());
            }
            record.key_default = Some(KeyDefault::Early);
            // There is nothing left to race for: the task ends with this block.
            let now = book.height;
            book.enqueue(now, task)?;
            open(book, task, record, key)
        }
        Phase::KeyOpening if book.height <= record.deadlines.key => {
            if right {
                record.key_default = None;
                return open(book, task, record, key);
            }
            if sender != record.requester || record.key_default.is_some() {
                return Err(MarketError::WrongKey.into());
            }
            record.key_default = Some(KeyDefault::Wrong);
            Ok(book.set_task(task, record)?)
        }
        Phase::KeyOpening
        | Phase::ScoreCommitting
        | Phase::ScoreOpening
        | Phase::Settled
        | Phase::Refunded(_) => {
            Err(MarketError::Late { task, at: book.height, closed: record.deadlines.key }.into())
        }
    }
}

fn open(book: &mut Book<'_>, task: TaskId, mut record: TaskRecord, key: &SealKey) -> Result<(), Stop> {
    record.key = Some(*key);
    book.set_task(task, record)?;
    book.event(LedgerEvent::KeyOpened { task });
    Ok(())
}
