//! What a proof says, typed by the entry it came from.

use serde::Serialize;
use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;

use crate::codec::{self, CodecError};
use crate::genesis::Params;
use crate::ids::{TaskId, TransactionId};
use crate::limits::STATE_VALUE_BYTES_MAX;
use crate::state::{Account, EntrantVerdict, StateKey, TaskRecord, ValidatorRecord, Verdict};
use crate::transaction::Transaction;

/// A proven fact, typed by the entry it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Fact {
    /// Balance and nonce of a key.
    Account {
        /// The key.
        key: PublicKey,
        /// The account.
        account: Account,
    },
    /// A validator's record.
    Validator {
        /// The key.
        key: PublicKey,
        /// The record.
        record: Box<ValidatorRecord>,
    },
    /// Parameters in force.
    Params(Box<Params>),
    /// A task as posted and how far it is.
    Task {
        /// The task.
        task: TaskId,
        /// Its record.
        record: Box<TaskRecord>,
    },
    /// Outcome of a task.
    Verdict {
        /// The task.
        task: TaskId,
        /// The outcome.
        verdict: Box<Verdict>,
    },
    /// Outcome for one entrant.
    EntrantVerdict {
        /// The task.
        task: TaskId,
        /// The outcome.
        verdict: Box<EntrantVerdict>,
    },
    /// Another state entry, by its bytes.
    Other {
        /// Its key.
        key: StateKey,
        /// Canonical bytes of its value.
        value: ByteBuf,
    },
    /// The state has no such entry.
    Absent {
        /// The key.
        key: StateKey,
    },
    /// A transaction in the block; says nothing of whether its action took effect.
    Transaction {
        /// Its id.
        id: TransactionId,
        /// What was signed.
        transaction: Box<Transaction>,
    },
}

impl Fact {
    /// Reads a proven state value by the type that its key names.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are not the canonical bytes of that type.
    pub fn of_state(key: StateKey, value: &[u8]) -> Result<Self, CodecError> {
        let max = STATE_VALUE_BYTES_MAX;
        Ok(match key {
            StateKey::Account(key) => Self::Account { key, account: codec::decode("account", value, max)? },
            StateKey::Validator(key) => {
                Self::Validator { key, record: codec::decode("validator record", value, max)? }
            }
            StateKey::Params => Self::Params(codec::decode("parameters", value, max)?),
            StateKey::Task(task) => Self::Task { task, record: codec::decode("task record", value, max)? },
            StateKey::Verdict(task) => Self::Verdict { task, verdict: codec::decode("verdict", value, max)? },
            StateKey::EntrantVerdict(task, _) => {
                Self::EntrantVerdict { task, verdict: codec::decode("entrant verdict", value, max)? }
            }
            StateKey::ValidatorIndex
            | StateKey::Totals
            | StateKey::Set(_)
            | StateKey::LiveTasks
            | StateKey::PhaseQueue(_)
            | StateKey::PhaseCarry
            | StateKey::Entrant(..)
            | StateKey::Committee(_)
            | StateKey::Judge(..)
            | StateKey::OpenedRow(..)
            | StateKey::Punished(..)
            | StateKey::Attendance(_) => Self::Other { key, value: ByteBuf::from(value.to_vec()) },
        })
    }
}
