//! Keys of the state.

use serde::{Deserialize, Serialize};
use tiltyard_keys::PublicKey;

use crate::ids::TaskId;
use crate::units::Height;

/// Names an entry of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StateKey {
    /// [`super::Account`].
    Account(PublicKey),
    /// [`super::ValidatorRecord`].
    Validator(PublicKey),
    /// Every key that has a [`super::ValidatorRecord`], sorted: `Vec<PublicKey>`.
    ValidatorIndex,
    /// [`crate::genesis::Params`] in force.
    Params,
    /// [`super::Totals`].
    Totals,
    /// [`crate::validators::ValidatorSet`] of an epoch.
    Set(u64),
    /// [`super::TaskRecord`].
    Task(TaskId),
    /// Tasks that are not over, sorted: `Vec<TaskId>`.
    LiveTasks,
    /// Tasks whose phase ends at a height, in the order they were queued: `Vec<TaskId>`.
    PhaseQueue(Height),
    /// Phase ends carried over from earlier blocks, in order: `Vec<(Height, TaskId)>`.
    PhaseCarry,
    /// [`super::EntrantRecord`].
    Entrant(TaskId, PublicKey),
    /// Frozen committee of a task, sorted by key: `Vec<Validator>`.
    Committee(TaskId),
    /// [`super::JudgeRecord`] of a committee member.
    Judge(TaskId, PublicKey),
    /// Opened row bytes of a committee member: `ByteBuf`.
    OpenedRow(TaskId, PublicKey, u32),
    /// [`super::Verdict`].
    Verdict(TaskId),
    /// [`super::EntrantVerdict`].
    EntrantVerdict(TaskId, PublicKey),
    /// Marks that a key was punished for a height: [`super::Punished`].
    Punished(PublicKey, Height),
    /// Certificate counts for absence: [`super::Attendance`].
    Attendance(PublicKey),
}

impl StateKey {
    /// Returns the key's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        fn join(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
            let mut out = vec![prefix];
            for part in parts {
                out.extend_from_slice(part);
            }
            out
        }
        match self {
            Self::Account(key) => join(b'a', &[key.as_bytes()]),
            Self::Validator(key) => join(b'v', &[key.as_bytes()]),
            Self::ValidatorIndex => join(b'i', &[]),
            Self::Params => join(b'p', &[]),
            Self::Totals => join(b'o', &[]),
            Self::Set(epoch) => join(b's', &[&epoch.to_be_bytes()]),
            Self::Task(task) => join(b't', &[task.as_bytes()]),
            Self::LiveTasks => join(b'l', &[]),
            Self::PhaseQueue(height) => join(b'q', &[&height.get().to_be_bytes()]),
            Self::PhaseCarry => join(b'c', &[]),
            Self::Entrant(task, miner) => join(b'e', &[task.as_bytes(), miner.as_bytes()]),
            Self::Committee(task) => join(b'm', &[task.as_bytes()]),
            Self::Judge(task, validator) => join(b'j', &[task.as_bytes(), validator.as_bytes()]),
            Self::OpenedRow(task, validator, row) => {
                join(b'w', &[task.as_bytes(), validator.as_bytes(), &row.to_be_bytes()])
            }
            Self::Verdict(task) => join(b'd', &[task.as_bytes()]),
            Self::EntrantVerdict(task, miner) => join(b'r', &[task.as_bytes(), miner.as_bytes()]),
            Self::Punished(key, height) => join(b'x', &[key.as_bytes(), &height.get().to_be_bytes()]),
            Self::Attendance(key) => join(b'n', &[key.as_bytes()]),
        }
    }
}
