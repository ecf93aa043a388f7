//! The entries that one block has read and written: each is decoded once, encoded once, and can be rolled back.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;
use tiltyard_proto::codec;
use tiltyard_proto::genesis::Params;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::state::{
    Account, Attendance, EntrantRecord, EntrantVerdict, JudgeRecord, Punished, StateKey, TaskRecord, Totals,
    ValidatorRecord, Verdict,
};
use tiltyard_proto::units::Height;
use tiltyard_proto::validators::{Validator, ValidatorSet};

use crate::changes::Values;
use crate::query::decode;
use crate::read::{ReadError, StateRead};

/// A type that the state holds.
pub(crate) trait Stored: Clone + Serialize + DeserializeOwned {
    fn wrap(self) -> Value;
    fn view(value: &Value) -> Option<&Self>;
}

macro_rules! stored {
    ($($variant:ident($type:ty)),+ $(,)?) => {
        /// A decoded entry of any kind.
        #[derive(Debug, Clone)]
        pub(crate) enum Value {
            $($variant(Box<$type>),)+
        }

        impl Value {
            fn encode(&self) -> Vec<u8> {
                match self {
                    $(Self::$variant(value) => codec::encode(value.as_ref()),)+
                }
            }
        }

        $(impl Stored for $type {
            fn wrap(self) -> Value {
                Value::$variant(Box::new(self))
            }

            fn view(value: &Value) -> Option<&Self> {
                if let Value::$variant(inner) = value { Some(inner.as_ref()) } else { None }
            }
        })+
    };
}

stored!(
    Account(Account),
    Validator(ValidatorRecord),
    Keys(Vec<PublicKey>),
    Params(Params),
    Totals(Totals),
    Set(ValidatorSet),
    Task(TaskRecord),
    Tasks(Vec<TaskId>),
    Carry(Vec<(Height, TaskId)>),
    Entrant(EntrantRecord),
    Committee(Vec<Validator>),
    Judge(JudgeRecord),
    Row(ByteBuf),
    Verdict(Verdict),
    EntrantVerdict(EntrantVerdict),
    Punished(Punished),
    Attendance(Attendance),
);

struct Slot {
    stored: Option<Vec<u8>>,
    value: Option<Value>,
    written: bool,
}

/// The entries that a block has touched, over the state before it.
pub(crate) struct Table<'a> {
    state: &'a dyn StateRead,
    slots: BTreeMap<StateKey, Slot>,
    undo: Vec<(StateKey, Option<Value>, bool)>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(state: &'a dyn StateRead) -> Self {
        Self { state, slots: BTreeMap::new(), undo: Vec::new() }
    }

    fn slot<T: Stored>(&mut self, key: StateKey) -> Result<&mut Slot, ReadError> {
        use std::collections::btree_map::Entry;
        match self.slots.entry(key) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(free) => {
                let stored = self.state.value(&key.to_bytes())?;
                let value = match &stored {
                    Some(bytes) => Some(decode::<T>(bytes)?.wrap()),
                    None => None,
                };
                Ok(free.insert(Slot { stored, value, written: false }))
            }
        }
    }

    /// Returns the entry as it stands.
    pub(crate) fn get<T: Stored>(&mut self, key: StateKey) -> Result<Option<T>, ReadError> {
        match &self.slot::<T>(key)?.value {
            None => Ok(None),
            Some(value) => T::view(value)
                .cloned()
                .map(Some)
                .ok_or_else(|| ReadError::new(format!("state entry {key:?} was used as two types"))),
        }
    }

    /// Writes or, with `None`, removes the entry.
    pub(crate) fn put<T: Stored>(&mut self, key: StateKey, value: Option<T>) -> Result<(), ReadError> {
        let slot = self.slot::<T>(key)?;
        let before = core::mem::replace(&mut slot.value, value.map(Stored::wrap));
        let written = core::mem::replace(&mut slot.written, true);
        self.undo.push((key, before, written));
        Ok(())
    }

    /// Makes everything so far final: a later [`Self::roll_back`] stops here.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
    }

    /// Takes back every write since the last [`Self::keep`].
    pub(crate) fn roll_back(&mut self) {
        while let Some((key, value, written)) = self.undo.pop() {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.value = value;
                slot.written = written;
            }
        }
    }

    /// Returns what differs from the state before, as bytes.
    pub(crate) fn into_changes(self) -> Values {
        let mut changes = Values::new();
        for (key, slot) in self.slots {
            if !slot.written {
                continue;
            }
            let bytes = slot.value.as_ref().map(Value::encode);
            if bytes != slot.stored {
                changes.insert(key.to_bytes(), bytes);
            }
        }
        changes
    }
}
