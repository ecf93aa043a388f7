//! Rows as the ecosystem writes them, turned into a task's own rows (SPEC.md, "Scoring v1").
//!
//! Reads JSON lines, a JSON array, or Parquet (feature `parquet`); finds the columns by
//! the conventions of Hugging Face data sets, or takes them as told. A file that is
//! already in the task's form keeps its bytes.

mod columns;
mod read;
mod turns;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tiltyard_proto::task::TaskKind;

use super::{ROW_BYTES_MAX, ROWS_MAX};
use crate::safe::LoadError;

pub use columns::Columns;

/// Largest file of rows read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Most faulty rows told one by one.
const FAULTS_SHOWN_MAX: usize = 20;

/// One row of a file: its columns.
pub(crate) type Record = Map<String, Value>;

/// What is wrong with one row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Not a JSON object.
    #[error("is not a JSON object: {fact}")]
    NotObject {
        /// The parser's words.
        fact: String,
    },
    /// A column is absent.
    #[error("has no column {column:?}")]
    Missing {
        /// The column.
        column: String,
    },
    /// A column holds something else than wanted.
    #[error("column {column:?} is {found}, wanted {wanted}")]
    Type {
        /// The column.
        column: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A chat in another order than can be learned.
    #[error("column {column:?}: {fact}")]
    Turns {
        /// The column.
        column: String,
        /// What is wrong.
        fact: &'static str,
    },
    /// More bytes than a row may have.
    #[error("has {bytes} bytes, {ROW_BYTES_MAX} are allowed")]
    TooLarge {
        /// Bytes found.
        bytes: usize,
    },
}

/// A row that cannot be used, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultyRecord {
    /// Line of a JSON lines file, else number of the row; from 1.
    pub line: usize,
    /// What is wrong.
    pub fault: RecordFault,
}

/// Says why a file of rows cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Not readable in its format.
    #[error("{path} cannot be read as {format}: {fact}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The format its name promises.
        format: &'static str,
        /// The reader's words.
        fact: String,
    },
    /// Parquet, in a build without it.
    #[error(
        "{path} is Parquet, which this build does not read; build with the feature `parquet`, or convert it to JSON lines"
    )]
    NoParquet {
        /// The file.
        path: PathBuf,
    },
    /// No rows at all.
    #[error("{path} has no rows")]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// More rows than allowed.
    #[error("{path} has more than {ROWS_MAX} rows")]
    TooManyRows {
        /// The file.
        path: PathBuf,
    },
    /// The columns of the first row fit no convention known for the task's kind.
    #[error(
        "{path}, line {line}: columns {found} fit no form of {kind} tasks, which are {wanted}; name them with --columns, as in {example}"
    )]
    UnknownColumns {
        /// The file.
        path: PathBuf,
        /// Where the row is.
        line: usize,
        /// Its columns.
        found: String,
        /// The task's kind.
        kind: &'static str,
        /// The forms known.
        wanted: String,
        /// What could be written.
        example: String,
    },
    /// A mapping that cannot be read.
    #[error("--columns {text:?}: {fact}; write as in prompt=question,completion=answer")]
    Columns {
        /// The mapping.
        text: String,
        /// What is wrong.
        fact: String,
    },
    /// Rows that cannot be used.
    #[error("{path}: {}", faults(.total, .shown))]
    Rows {
        /// The file.
        path: PathBuf,
        /// How many.
        total: usize,
        /// The first of them.
        shown: Vec<FaultyRecord>,
    },
    /// A kind whose rows have one form only.
    #[error("{path}: rows of {kind} tasks are taken as they are; write them as JSON lines")]
    OwnForm {
        /// The file.
        path: PathBuf,
        /// The kind.
        kind: &'static str,
    },
}

fn faults(total: &usize, shown: &[FaultyRecord]) -> String {
    let mut text = format!("{total} rows cannot be used");
    for row in shown {
        text += &format!("\n  line {}: {}", row.line, row.fault);
    }
    text
}

/// Rows in the task's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// JSON lines.
    pub jsonl: Vec<u8>,
    /// Rows read.
    pub rows: usize,
    /// What was made of the columns, for people; `None` when nothing was changed.
    pub mapping: Option<String>,
}

/// Reads a file of rows and turns it into the rows of a task's kind.
///
/// # Errors
/// [`ImportError`] naming file, line and column.
pub fn import(path: &Path, kind: &TaskKind, told: &Columns) -> Result<Imported, ImportError> {
    let bytes = crate::safe::read_bytes(path, FILE_BYTES_MAX)?;
    let format = read::Format::of(path, &bytes);
    let records = read::records(path, format, &bytes)?;
    let first = records.iter().find_map(|(line, record)| Some((*line, record.as_ref().ok()?)));
    let Some((line, first)) = first else {
        return match records.is_empty() {
            true => Err(ImportError::NoRows { path: path.to_owned() }),
            false => {
                Err(refuse(path, records.into_iter().filter_map(|(line, row)| Some((line, row.err()?)))))
            }
        };
    };
    let form = columns::find(kind, first, told).ok_or_else(|| unknown(path, line, first, kind))?;
    if form.is_own() {
        return match format {
            // Faulty rows are told by whoever reads the task's own form.
            read::Format::JsonLines => Ok(Imported { rows: records.len(), jsonl: bytes, mapping: None }),
            read::Format::JsonArray | read::Format::Parquet => as_lines(path, records),
        };
    }
    let (mut jsonl, mut faulty, rows) = (Vec::new(), Vec::new(), records.len());
    for (line, record) in records {
        match record.and_then(|record| form.row(&record, told)) {
            Ok(row) => push_line(&mut jsonl, &Value::Object(row)),
            Err(fault) => faulty.push((line, fault)),
        }
    }
    if !faulty.is_empty() {
        return Err(refuse(path, faulty.into_iter()));
    }
    Ok(Imported { jsonl, rows, mapping: Some(form.describe(told)) })
}

/// Writes records of another file format as they are.
fn as_lines(path: &Path, records: Vec<read::ReadRecord>) -> Result<Imported, ImportError> {
    let (mut jsonl, mut faulty, rows) = (Vec::new(), Vec::new(), records.len());
    for (line, record) in records {
        match record {
            Ok(record) => push_line(&mut jsonl, &Value::Object(record)),
            Err(fault) => faulty.push((line, fault)),
        }
    }
    match faulty.is_empty() {
        true => Ok(Imported { jsonl, rows, mapping: Some("columns as they are".to_owned()) }),
        false => Err(refuse(path, faulty.into_iter())),
    }
}

fn push_line(out: &mut Vec<u8>, row: &Value) {
    out.extend_from_slice(row.to_string().as_bytes());
    out.push(b'\n');
}

fn refuse(path: &Path, faulty: impl Iterator<Item = (usize, RecordFault)>) -> ImportError {
    let all: Vec<FaultyRecord> = faulty.map(|(line, fault)| FaultyRecord { line, fault }).collect();
    let shown = all.iter().take(FAULTS_SHOWN_MAX).cloned().collect();
    ImportError::Rows { path: path.to_owned(), total: all.len(), shown }
}

fn unknown(path: &Path, line: usize, first: &Record, kind: &TaskKind) -> ImportError {
    let found: Vec<&str> = first.keys().map(String::as_str).take(FAULTS_SHOWN_MAX).collect();
    ImportError::UnknownColumns {
        path: path.to_owned(),
        line,
        found: found.join(", "),
        kind: kind.name(),
        wanted: columns::forms(kind),
        example: columns::example(kind),
    }
}
