//! Keys and values of the authenticated state.
//!
//! A key is one prefix byte and fixed-length parts, so that no key is a prefix of another kind's. A value is the
//! canonical bytes of its type. The order of fields and variants is the encoding: new ones go to the end.

mod account;
mod key;
mod task;
mod verdict;

pub use account::{
    Account, Attendance, PayoutChange, Punished, Standing, Totals, Unbonding, ValidatorRecord,
};
pub use key::StateKey;
pub use task::{
    EntrantRecord, EntrantStage, JudgeRecord, KeyDefault, Phase, RefundCause, Reveal, TaskRecord, TaskRules,
};
pub use verdict::{BondFate, EntrantVerdict, Reason, Verdict};
