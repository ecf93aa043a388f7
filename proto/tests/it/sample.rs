//! One value of every wire type and variant, the same on every run.

pub(crate) mod ledger;
pub(crate) mod messages;
mod parts;

use std::sync::OnceLock;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tiltyard_proto::codec::{self, CodecError};

pub(crate) use parts::*;

/// Decodes bytes as the case's type and encodes them again.
pub(crate) type Redecode = fn(&[u8]) -> Result<Vec<u8>, CodecError>;

/// A named value in its canonical bytes, and what they say.
pub(crate) struct Case {
    /// The type, which names the golden file.
    pub(crate) kind: &'static str,
    /// Which value of the type.
    pub(crate) name: &'static str,
    /// Canonical bytes.
    pub(crate) bytes: Vec<u8>,
    /// The value as JSON.
    pub(crate) json: serde_json::Value,
    /// The strict door.
    pub(crate) redecode: Redecode,
    /// A decoder without the door's last check.
    pub(crate) lax: fn(&[u8]) -> Option<Vec<u8>>,
    /// Canonical bytes of the value read from JSON.
    pub(crate) from_json: fn(serde_json::Value) -> Vec<u8>,
}

fn case<T: Serialize + DeserializeOwned>(kind: &'static str, name: &'static str, value: &T) -> Case {
    Case {
        kind,
        name,
        bytes: codec::encode(value),
        json: serde_json::to_value(value).expect("wire types have a JSON form"),
        redecode: |bytes| codec::decode::<T>("sample", bytes, 1 << 20).map(|value| codec::encode(&value)),
        lax: |bytes| serde_cbor::from_slice::<T>(bytes).ok().map(|value| codec::encode(&value)),
        from_json: |json| codec::encode(&serde_json::from_value::<T>(json).expect("golden JSON reads back")),
    }
}

/// Every case, made once.
pub(crate) fn all() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let mut cases = messages::cases();
        cases.extend(ledger::cases());
        cases
    })
}
