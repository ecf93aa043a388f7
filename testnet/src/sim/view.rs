//! The state as one machine reads it: what its disk holds, seen through a planted bug if there is one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tiltyard_ledger::{ReadError, StateRead};
use tiltyard_proto::codec;
use tiltyard_proto::limits::STATE_VALUE_BYTES_MAX;
use tiltyard_proto::state::{Punished, StateKey, TaskRecord};
use tiltyard_proto::units::{Height, MicroCredits, Stake};
use tiltyard_proto::validators::{Validator, ValidatorSet};

use super::disk::Content;
use super::planted::Bug;

/// The node that a bug of one node sits in.
pub(crate) const BUGGY: usize = 1;

/// The state of a live disk.
#[derive(Debug)]
pub(crate) struct StateView {
    content: Rc<RefCell<Content>>,
    bug: Option<Bug>,
    node: usize,
    cache: RefCell<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
}

impl StateView {
    pub(crate) fn new(content: Rc<RefCell<Content>>, node: usize, bug: Option<Bug>) -> Self {
        Self { content, bug, node, cache: RefCell::default() }
    }

    fn stale(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache
            .borrow_mut()
            .entry(key.to_vec())
            .or_insert_with(|| self.content.borrow().state.value(key).unwrap_or(None))
            .clone()
    }
}

fn is_kind(key: &[u8], kind: &StateKey) -> bool {
    key.first() == kind.to_bytes().first()
}

fn changed<T: Serialize + DeserializeOwned>(
    value: Option<Vec<u8>>,
    change: impl FnOnce(T) -> T,
) -> Option<Vec<u8>> {
    value.map(|bytes| match codec::decode::<T>("state value", &bytes, STATE_VALUE_BYTES_MAX) {
        Ok(decoded) => codec::encode(&change(decoded)),
        Err(_) => bytes,
    })
}

/// Reads the first member's stake as four times what it is.
fn weaken(set: ValidatorSet) -> ValidatorSet {
    let mut members: Vec<Validator> = set.members().to_vec();
    if let Some(first) = members.first_mut() {
        first.stake = Stake::new(first.stake.get().saturating_mul(4));
    }
    ValidatorSet::try_from(members).unwrap_or(set)
}

impl StateRead for StateView {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let value = self.content.borrow().state.value(key)?;
        let zero = tiltyard_keys::PublicKey::from_bytes([0; 32]);
        let task = tiltyard_proto::ids::TaskId::from_bytes([0; 32]);
        Ok(match self.bug {
            Some(Bug::UnsortedEntrants) if self.node == BUGGY && is_kind(key, &StateKey::Task(task)) => {
                changed(value, |mut record: TaskRecord| {
                    record.entrants.reverse();
                    record
                })
            }
            Some(Bug::ForgivenOffence) if is_kind(key, &StateKey::Punished(zero, Height::ZERO)) => {
                Some(codec::encode(&Punished { burned: MicroCredits::ZERO }))
            }
            Some(Bug::WeakQuorum) if is_kind(key, &StateKey::Set(0)) => changed(value, weaken),
            Some(Bug::StaleCache) if self.node == BUGGY && is_kind(key, &StateKey::Account(zero)) => {
                self.stale(key)
            }
            Some(_) | None => value,
        })
    }

    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.content.borrow().state.node(key)
    }

    fn tree_version(&self) -> Result<Option<u64>, ReadError> {
        self.content.borrow().state.tree_version()
    }
}
