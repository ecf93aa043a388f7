//! Records out of files: JSON lines, a JSON array, Parquet.

use std::path::Path;

use serde_json::Value;

use super::{ImportError, Record, RecordFault};
use crate::data::{ROW_BYTES_MAX, ROWS_MAX};

/// Where a record is, from 1, and its columns or what is wrong with it.
pub(super) type ReadRecord = (usize, Result<Record, RecordFault>);

/// How a file of rows is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// An object a line.
    JsonLines,
    /// One array of objects.
    JsonArray,
    /// Columns of Apache Parquet.
    Parquet,
}

impl Format {
    /// Tells the format by the file's first bytes.
    pub(super) fn of(path: &Path, bytes: &[u8]) -> Self {
        let named = |extension: &str| path.extension().is_some_and(|found| found == extension);
        if bytes.starts_with(b"PAR1") || named("parquet") {
            return Self::Parquet;
        }
        match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'[') if !named("jsonl") => Self::JsonArray,
            Some(_) | None => Self::JsonLines,
        }
    }
}

fn object(value: Value) -> Result<Record, RecordFault> {
    match value {
        Value::Object(record) => Ok(record),
        other => Err(RecordFault::NotObject { fact: format!("it is {}", type_name(&other)) }),
    }
}

/// What a value is, in JSON's words.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Reads every record of a file, good or bad.
pub(super) fn records(path: &Path, format: Format, bytes: &[u8]) -> Result<Vec<ReadRecord>, ImportError> {
    let records = match format {
        Format::JsonLines => lines(bytes),
        Format::JsonArray => array(path, bytes)?,
        Format::Parquet => parquet(path, bytes)?,
    };
    match records.len() > ROWS_MAX {
        true => Err(ImportError::TooManyRows { path: path.to_owned() }),
        false => Ok(records),
    }
}

fn lines(bytes: &[u8]) -> Vec<ReadRecord> {
    let all = bytes.split(|&byte| byte == b'\n').enumerate();
    let filled = all.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
    let read = |(at, line): (usize, &[u8])| {
        let record = match line.len() > ROW_BYTES_MAX {
            true => Err(RecordFault::TooLarge { bytes: line.len() }),
            false => match serde_json::from_slice(line) {
                Ok(value) => object(value),
                Err(error) => Err(RecordFault::NotObject { fact: error.to_string() }),
            },
        };
        (at + 1, record)
    };
    filled.take(ROWS_MAX + 1).map(read).collect()
}

fn array(path: &Path, bytes: &[u8]) -> Result<Vec<ReadRecord>, ImportError> {
    let values: Vec<Value> = serde_json::from_slice(bytes).map_err(|error| ImportError::Format {
        path: path.to_owned(),
        format: "a JSON array",
        fact: error.to_string(),
    })?;
    Ok(values.into_iter().enumerate().map(|(at, value)| (at + 1, object(value))).collect())
}

#[cfg(not(feature = "parquet"))]
fn parquet(path: &Path, _bytes: &[u8]) -> Result<Vec<ReadRecord>, ImportError> {
    Err(ImportError::NoParquet { path: path.to_owned() })
}

#[cfg(feature = "parquet")]
fn parquet(path: &Path, _bytes: &[u8]) -> Result<Vec<ReadRecord>, ImportError> {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    let failed = |fact: String| ImportError::Format { path: path.to_owned(), format: "Parquet", fact };
    let words = |error: parquet::errors::ParquetError| {
        let text = error.to_string();
        match text.contains("Disabled feature") {
            true => format!("{text}; save it with Snappy compression or none"),
            false => text,
        }
    };
    let file = std::fs::File::open(path)
        .map_err(|source| crate::safe::LoadError::Read { path: path.to_owned(), source })?;
    let reader = SerializedFileReader::new(file).map_err(|error| failed(words(error)))?;
    let rows = reader.get_row_iter(None).map_err(|error| failed(words(error)))?;
    let mut records = Vec::new();
    for (at, row) in rows.take(ROWS_MAX + 1).enumerate() {
        let row = row.map_err(|error| failed(words(error)))?;
        records.push((at + 1, object(row.to_json_value())));
    }
    Ok(records)
}
