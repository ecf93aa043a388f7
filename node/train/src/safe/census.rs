//! The keys of a safetensors header, counted before the header is believed.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::TENSORS_MAX;

/// Counts the keys of a JSON object, refusing repeats and more than the limit.
pub(super) struct Census;

impl<'de> Visitor<'de> for Census {
    type Value = Result<(), String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut seen = std::collections::BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            if seen.len() > TENSORS_MAX {
                return Ok(Err(String::new()));
            }
            if !seen.insert(name.clone()) {
                return Ok(Err(name));
            }
        }
        Ok(Ok(()))
    }
}
