//! The part of JSON Schema that rewards may ask for.
//!
//! `type` (one name), `properties`, `required`, `additionalProperties` (true or false),
//! `items`, `minItems`, `maxItems`, `minLength`, `maxLength`, `minimum`, `maximum`, `enum`
//! and `const`, with the meaning of the standard (draft 2020-12). No references, no
//! patterns, no combinators: any other key is refused, never ignored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Deepest schema accepted.
pub const DEPTH_MAX: usize = 8;
/// Most properties, required names or values listed in one place.
pub const LISTED_MAX: usize = 64;

/// Says why a schema is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A key or type outside the part that is understood.
    #[error("{fact}; see the list of keys in the documentation of rewards")]
    Form {
        /// The parser's words.
        fact: String,
    },
    /// Too deep.
    #[error("it is nested deeper than {DEPTH_MAX}")]
    Deep,
    /// A list that is too long.
    #[error("it lists {count} entries in one place, {LISTED_MAX} are allowed")]
    Long {
        /// Entries found.
        count: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Object,
    Array,
    String,
    Number,
    Integer,
    Boolean,
    Null,
}

/// A schema that answers are held against.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schema {
    r#type: Option<Type>,
    #[serde(default)]
    properties: BTreeMap<String, Schema>,
    #[serde(default)]
    required: Vec<String>,
    additional_properties: Option<bool>,
    items: Option<Box<Schema>>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    r#enum: Option<Vec<Value>>,
    #[serde(default, deserialize_with = "present")]
    r#const: Option<Value>,
}

/// Keeps `null` apart from an absent key.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Schema {
    /// Reads a schema from its JSON value.
    ///
    /// # Errors
    /// [`SchemaError`] naming the first key that is not understood, or the bound exceeded.
    pub fn parse(value: &Value) -> Result<Self, SchemaError> {
        let schema = Self::deserialize(value);
        let schema = schema.map_err(|error| SchemaError::Form { fact: super::cut(&error) })?;
        schema.bounded(DEPTH_MAX)?;
        Ok(schema)
    }

    fn bounded(&self, depth: usize) -> Result<(), SchemaError> {
        let depth = depth.checked_sub(1).ok_or(SchemaError::Deep)?;
        let listed = self.r#enum.as_ref().map_or(0, Vec::len);
        let count = listed.max(self.properties.len()).max(self.required.len());
        if count > LISTED_MAX {
            return Err(SchemaError::Long { count });
        }
        self.properties.values().chain(self.items.as_deref()).try_for_each(|inner| inner.bounded(depth))
    }

    /// Says whether a value fits.
    pub fn fits(&self, value: &Value) -> bool {
        self.r#type.is_none_or(|kind| kind.is_of(value))
            && self.r#enum.as_ref().is_none_or(|listed| listed.iter().any(|other| equal(other, value)))
            && self.r#const.as_ref().is_none_or(|only| equal(only, value))
            && match value {
                Value::Object(object) => self.fits_object(object),
                Value::Array(items) => {
                    between(items.len(), self.min_items, self.max_items)
                        && self.items.as_ref().is_none_or(|schema| items.iter().all(|item| schema.fits(item)))
                }
                Value::String(text) => between(text.chars().count(), self.min_length, self.max_length),
                Value::Number(number) => {
                    let number = number.as_f64().unwrap_or(f64::NAN);
                    self.minimum.is_none_or(|least| number >= least)
                        && self.maximum.is_none_or(|most| number <= most)
                }
                Value::Bool(_) | Value::Null => true,
            }
    }

    fn fits_object(&self, object: &serde_json::Map<String, Value>) -> bool {
        let known = |(name, value): (&String, &Value)| match self.properties.get(name) {
            Some(schema) => schema.fits(value),
            None => self.additional_properties != Some(false),
        };
        self.required.iter().all(|name| object.contains_key(name)) && object.iter().all(known)
    }
}

impl Type {
    fn is_of(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Integer, Value::Number(number)) => {
                number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|f| f.fract() == 0.0)
            }
            (Self::Object, Value::Object(_))
            | (Self::Array, Value::Array(_))
            | (Self::String, Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Boolean, Value::Bool(_))
            | (Self::Null, Value::Null) => true,
            _ => false,
        }
    }
}

/// Equality of the standard: numbers by value, so that 1 is 1.0.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        _ => left == right,
    }
}

fn between(count: usize, least: Option<usize>, most: Option<usize>) -> bool {
    least.is_none_or(|least| count >= least) && most.is_none_or(|most| count <= most)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fits(schema: Value, value: Value) -> bool {
        Schema::parse(&schema).expect("a schema").fits(&value)
    }

    #[test]
    fn every_key_can_be_broken() {
        for (schema, good, bad) in [
            (json!({"type": "integer"}), json!(3), json!(3.5)),
            (json!({"type": "integer"}), json!(3.0), json!("3")),
            (json!({"type": "null"}), json!(null), json!(0)),
            (json!({"required": ["a"]}), json!({"a": null}), json!({"b": 1})),
            (json!({"properties": {"a": {"type": "string"}}}), json!({"b": 1}), json!({"a": 1})),
            (
                json!({"properties": {"a": {}}, "additionalProperties": false}),
                json!({"a": 1}),
                json!({"b": 1}),
            ),
            (json!({"items": {"minimum": 0, "maximum": 2}}), json!([0, 1, 2]), json!([3])),
            (json!({"minItems": 1, "maxItems": 2}), json!([1]), json!([1, 2, 3])),
            (json!({"minLength": 2, "maxLength": 3}), json!("äöü"), json!("a")),
            (json!({"enum": [1, "b"]}), json!(1.0), json!("c")),
            (json!({"const": null}), json!(null), json!(false)),
        ] {
            assert!(fits(schema.clone(), good.clone()), "{good} fits {schema}");
            assert!(!fits(schema.clone(), bad.clone()), "{bad} does not fit {schema}");
        }
    }

    #[test]
    fn unknown_keys_and_bounds_are_refused() {
        assert!(Schema::parse(&json!({"pattern": "a"})).is_err());
        assert!(Schema::parse(&json!({"type": ["string", "null"]})).is_err());
        let mut deep = json!({});
        for _ in 0..DEPTH_MAX {
            deep = json!({"items": deep});
        }
        assert_eq!(Schema::parse(&deep), Err(SchemaError::Deep));
        let names: Vec<String> = (0..65).map(|at| at.to_string()).collect();
        assert_eq!(Schema::parse(&json!({"required": names})), Err(SchemaError::Long { count: 65 }));
    }
}
