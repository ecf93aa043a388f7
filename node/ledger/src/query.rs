//! Typed readers of the state. What is absent reads as `None`, as empty, or as the type's zero.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tiltyard_keys::PublicKey;
use tiltyard_proto::codec;
use tiltyard_proto::genesis::Params;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::limits::STATE_VALUE_BYTES_MAX;
use tiltyard_proto::state::{
    Account, Attendance, EntrantRecord, EntrantVerdict, JudgeRecord, StateKey, TaskRecord, Totals,
    ValidatorRecord, Verdict,
};
use tiltyard_proto::state_proof::StateProof;
use tiltyard_proto::units::Height;
use tiltyard_proto::validators::{Validator, ValidatorSet};

use crate::read::{ReadError, StateRead};
use crate::tree;

/// Reads the entry under `key`.
///
/// # Errors
/// [`ReadError`] when the store cannot tell or holds other bytes than the type's.
pub(crate) fn entry<T: Serialize + DeserializeOwned>(
    state: &dyn StateRead,
    key: StateKey,
) -> Result<Option<T>, ReadError> {
    match state.value(&key.to_bytes())? {
        Some(bytes) => decode(&bytes).map(Some),
        None => Ok(None),
    }
}

pub(crate) fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, ReadError> {
    codec::decode("state value", bytes, STATE_VALUE_BYTES_MAX)
        .map_err(|error| ReadError::new(error.to_string()))
}

fn missing(what: &str) -> ReadError {
    ReadError::new(format!("{what} is missing; genesis was never written"))
}

/// Returns an account; the zero account for a key never seen.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn account(state: &dyn StateRead, key: &PublicKey) -> Result<Account, ReadError> {
    Ok(entry(state, StateKey::Account(*key))?.unwrap_or_default())
}

/// Returns a validator's record.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn validator(state: &dyn StateRead, key: &PublicKey) -> Result<Option<ValidatorRecord>, ReadError> {
    entry(state, StateKey::Validator(*key))
}

/// Returns the keys of all validator records, sorted.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn validators(state: &dyn StateRead) -> Result<Vec<PublicKey>, ReadError> {
    Ok(entry(state, StateKey::ValidatorIndex)?.unwrap_or_default())
}

/// Returns a validator's absence count.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn attendance(state: &dyn StateRead, key: &PublicKey) -> Result<Attendance, ReadError> {
    Ok(entry(state, StateKey::Attendance(*key))?.unwrap_or_default())
}

/// Returns the parameters in force.
///
/// # Errors
/// [`ReadError`] when the store cannot tell or genesis was never written.
pub fn params(state: &dyn StateRead) -> Result<Params, ReadError> {
    entry(state, StateKey::Params)?.ok_or_else(|| missing("params"))
}

/// Returns where every micro-credit is.
///
/// # Errors
/// [`ReadError`] when the store cannot tell or genesis was never written.
pub fn totals(state: &dyn StateRead) -> Result<Totals, ReadError> {
    entry(state, StateKey::Totals)?.ok_or_else(|| missing("totals"))
}

/// Returns the epoch of a height: `(height - 1) / params.epoch`; genesis counts to epoch 0.
#[must_use]
pub fn epoch_of(params: &Params, height: Height) -> u64 {
    height.get().saturating_sub(1).checked_div(params.epoch.get()).unwrap_or(0)
}

/// Returns the validator set that decides `height`: known for every height of the running and the next epoch, and
/// for past ones as far back as evidence reaches.
///
/// # Errors
/// [`ReadError`] when the store cannot tell or the set is not known (yet or any more).
pub fn set_at(state: &dyn StateRead, height: Height) -> Result<ValidatorSet, ReadError> {
    let epoch = epoch_of(&params(state)?, height);
    entry(state, StateKey::Set(epoch))?
        .ok_or_else(|| ReadError::new(format!("the validator set of epoch {epoch} is not known")))
}

/// Returns a task, live or over.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn task(state: &dyn StateRead, task: &TaskId) -> Result<Option<TaskRecord>, ReadError> {
    entry(state, StateKey::Task(*task))
}

/// Returns the tasks that are not over, sorted.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn live_tasks(state: &dyn StateRead) -> Result<Vec<TaskId>, ReadError> {
    Ok(entry(state, StateKey::LiveTasks)?.unwrap_or_default())
}

/// Returns a miner's entry of a live task.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn entrant(
    state: &dyn StateRead,
    task: &TaskId,
    miner: &PublicKey,
) -> Result<Option<EntrantRecord>, ReadError> {
    entry(state, StateKey::Entrant(*task, *miner))
}

/// Returns the frozen committee of a live task, sorted by key; empty before it opened.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn committee(state: &dyn StateRead, task: &TaskId) -> Result<Vec<Validator>, ReadError> {
    Ok(entry(state, StateKey::Committee(*task))?.unwrap_or_default())
}

/// Returns how far a committee member has judged a live task.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn judge(state: &dyn StateRead, task: &TaskId, validator: &PublicKey) -> Result<JudgeRecord, ReadError> {
    Ok(entry(state, StateKey::Judge(*task, *validator))?.unwrap_or_default())
}

/// Returns the outcome of a task that is over.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn verdict(state: &dyn StateRead, task: &TaskId) -> Result<Option<Verdict>, ReadError> {
    entry(state, StateKey::Verdict(*task))
}

/// Returns the outcome for one entrant; there as soon as it is out, at the latest when the task is over.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn entrant_verdict(
    state: &dyn StateRead,
    task: &TaskId,
    miner: &PublicKey,
) -> Result<Option<EntrantVerdict>, ReadError> {
    entry(state, StateKey::EntrantVerdict(*task, *miner))
}

/// Returns the value bytes of a key with a proof of it, or of its absence, under the current state root.
///
/// # Errors
/// [`ReadError`] when the store cannot tell.
pub fn prove(state: &dyn StateRead, key: &StateKey) -> Result<(Option<Vec<u8>>, StateProof), ReadError> {
    tree::prove(state, &key.to_bytes())
}
