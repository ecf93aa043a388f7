//! Text columns out of a line of JSON.

use serde_json::{Map, Value};

use crate::data::{ROW_BYTES_MAX, RowFault};

/// Reads a line as an object.
pub(super) fn object(line: &[u8]) -> Result<Map<String, Value>, RowFault> {
    if line.len() > ROW_BYTES_MAX {
        return Err(RowFault::TooLarge { bytes: line.len() });
    }
    serde_json::from_slice(line).map_err(|error| RowFault::NotJson { fact: error.to_string() })
}

/// A column's text; white space alone is none.
pub(super) fn text<'r>(row: &'r Map<String, Value>, column: &'static str) -> Result<&'r str, RowFault> {
    match row.get(column) {
        None | Some(Value::Null) => Err(RowFault::MissingColumn { column }),
        Some(Value::String(text)) if text.trim().is_empty() => Err(RowFault::Empty { column }),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(RowFault::NotJson { fact: format!("column {column:?} is not text") }),
    }
}
