//! Which columns of a file are which of a task's: the conventions, and what was told.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::Value;
use tiltyard_proto::task::TaskKind;

use super::read::type_name;
use super::{ImportError, Record, RecordFault, turns};
use crate::data::chat::{Message, Role};

/// Columns as told: the task's name of each, and the file's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns(BTreeMap<String, String>);

impl FromStr for Columns {
    type Err = ImportError;

    fn from_str(text: &str) -> Result<Self, ImportError> {
        let refuse = |fact: &str| ImportError::Columns { text: text.to_owned(), fact: fact.to_owned() };
        let mut columns = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (ours, theirs) = pair.split_once('=').ok_or_else(|| refuse("a part has no `=`"))?;
            let (ours, theirs) = (ours.trim(), theirs.trim());
            if !KNOWN.contains(&ours) {
                return Err(refuse(&format!(
                    "{ours:?} is no column of any task; known are {}",
                    KNOWN.join(", ")
                )));
            }
            if theirs.is_empty() || columns.insert(ours.to_owned(), theirs.to_owned()).is_some() {
                return Err(refuse(&format!("{ours:?} is named twice or not at all")));
            }
        }
        Ok(Self(columns))
    }
}

/// The columns that can be told.
const KNOWN: [&str; 13] = [
    "prompt",
    "input",
    "completion",
    "messages",
    "context",
    "question",
    "answer",
    "text",
    "label",
    "chosen",
    "rejected",
    "instruction",
    "output",
];

impl Columns {
    /// The file's name for one of the task's columns.
    fn of<'a>(&'a self, ours: &'a str) -> &'a str {
        self.0.get(ours).map_or(ours, String::as_str)
    }

    fn told(&self, ours: &str) -> bool {
        self.0.contains_key(ours)
    }
}

/// A way to make a row of the task: which columns it reads and what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// Columns it needs, by the names of the convention; each may have several.
    needs: &'static [&'static [&'static str]],
    make: Make,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    /// The columns as they are: this is the task's own form.
    Own,
    /// The same columns under the task's names, in order.
    Rename(&'static [&'static str]),
    /// An instruction with perhaps an input, and an output.
    Alpaca,
    /// One question and answer out of turns.
    Single,
    /// Turns, cleaned to roles and contents.
    Turns,
    /// Turns out of a prompt and a completion.
    Pair,
    /// A context, a question and the first of several answers.
    Squad,
    /// Text and a label by name or by number.
    Label,
    /// A prompt and two answers, in texts or turns.
    Preference,
}

const PROMPTS: &[&str] = &["prompt", "question", "query", "instruction", "input"];
const ANSWERS: &[&str] = &["completion", "answer", "response", "output"];
const TURNS: &[&str] = &["messages", "conversations", "conversation"];
const TEXTS: &[&str] = &["text", "content", "sentence"];
const LABELS: &[&str] = &["label", "labels", "category"];

const fn form(needs: &'static [&'static [&'static str]], make: Make) -> Form {
    Form { needs, make }
}

/// The forms of a kind, the task's own first.
fn known(kind: &TaskKind) -> &'static [Form] {
    const INSTRUCTION: &[Form] = &[
        form(&[&["prompt"], &["completion"]], Make::Own),
        form(&[&["instruction"], &["output", "response", "completion"]], Make::Alpaca),
        form(&[PROMPTS, ANSWERS], Make::Rename(&["prompt", "completion"])),
        form(&[TURNS], Make::Single),
    ];
    const CHAT: &[Form] = &[
        form(&[&["messages"]], Make::Own),
        form(&[TURNS], Make::Turns),
        form(&[PROMPTS, ANSWERS], Make::Pair),
    ];
    const CONTEXT: &[Form] = &[
        form(&[&["context"], &["question"], &["answer"]], Make::Own),
        form(&[&["context"], &["question"], &["answers"]], Make::Squad),
        form(
            &[&["context", "passage", "document"], &["question", "query"], &["answer", "response"]],
            Make::Rename(&["context", "question", "answer"]),
        ),
    ];
    const PLAIN: &[Form] = &[form(&[&["text"]], Make::Own), form(&[TEXTS], Make::Rename(&["text"]))];
    const LABELLED: &[Form] =
        &[form(&[&["text"], &["label"]], Make::Own), form(&[TEXTS, LABELS], Make::Label)];
    const PREFERENCE: &[Form] = &[
        form(&[&["prompt"], &["chosen"], &["rejected"]], Make::Own),
        form(&[PROMPTS, &["chosen"], &["rejected"]], Make::Preference),
        form(&[&["chosen"], &["rejected"]], Make::Preference),
    ];
    const OWN: &[Form] = &[form(&[], Make::Own)];
    match kind {
        TaskKind::Instruction => INSTRUCTION,
        TaskKind::Chat => CHAT,
        TaskKind::ContextQuestion => CONTEXT,
        TaskKind::PlainText { .. } => PLAIN,
        TaskKind::Classification { .. } => LABELLED,
        TaskKind::Dpo { .. } => PREFERENCE,
        TaskKind::Grpo { .. } | TaskKind::Diffusion { .. } => OWN,
    }
}

/// The forms of a kind, for people.
pub(super) fn forms(kind: &TaskKind) -> String {
    let names = |need: &&[&str]| need.join("|");
    let form = |form: &Form| form.needs.iter().map(names).collect::<Vec<_>>().join(" + ");
    known(kind).iter().map(form).collect::<Vec<_>>().join(", or ")
}

/// What could be told for a kind.
pub(super) fn example(kind: &TaskKind) -> String {
    let own = known(kind).first().map_or(&[] as &[&[&str]], |form| form.needs);
    own.iter()
        .map(|names| format!("{0}=your_{0}", names.first().unwrap_or(&"")))
        .collect::<Vec<_>>()
        .join(",")
}

/// Finds the form whose columns a record has.
///
/// What was told wins: the first form all of whose columns are told or there.
pub(super) fn find(kind: &TaskKind, record: &Record, told: &Columns) -> Option<Form> {
    let forms = known(kind);
    // Whoever names columns means them: another form that happens to fit is not taken instead.
    if told.0.values().any(|theirs| !record.contains_key(theirs)) {
        return None;
    }
    let there = |need: &&[&'static str]| column(record, told, need).is_some();
    let fits = |form: &&Form| form.takes(told) && form.needs.iter().all(&there);
    let plain = |value: &Value| matches!(value, Value::String(_));
    let found = forms.iter().find(|form| {
        // Own columns that hold turns instead of text are another convention.
        let own = form.make == Make::Own
            && !matches!(kind, TaskKind::Chat | TaskKind::Grpo { .. } | TaskKind::Diffusion { .. });
        let texts = |form: &Form| {
            form.needs.iter().all(|need| column(record, told, need).is_some_and(|(_, value)| plain(value)))
        };
        fits(form) && (!own || texts(form))
    })?;
    if found.make == Make::Own {
        let renamed = found.needs.iter().any(|need| need.first().is_some_and(|name| told.told(name)));
        let foreign = matches!(kind, TaskKind::Chat) && !has_roles(record, told);
        if renamed || foreign {
            return Some(Form { make: renamed_make(kind), ..*found });
        }
    }
    Some(*found)
}

fn has_roles(record: &Record, told: &Columns) -> bool {
    let turns = record.get(told.of("messages")).and_then(Value::as_array);
    turns.is_some_and(|turns| turns.iter().all(|turn| turn.get("role").is_some()))
}

/// What becomes of the task's own columns under other names.
fn renamed_make(kind: &TaskKind) -> Make {
    match kind {
        TaskKind::Instruction => Make::Rename(&["prompt", "completion"]),
        TaskKind::Chat => Make::Turns,
        TaskKind::ContextQuestion => Make::Rename(&["context", "question", "answer"]),
        TaskKind::PlainText { .. } => Make::Rename(&["text"]),
        TaskKind::Classification { .. } => Make::Label,
        TaskKind::Dpo { .. } => Make::Preference,
        TaskKind::Grpo { .. } | TaskKind::Diffusion { .. } => Make::Own,
    }
}

/// The column that fills a need: the one told, else the first that is there.
fn column<'r>(record: &'r Record, told: &Columns, names: &[&'static str]) -> Option<(String, &'r Value)> {
    let told_first =
        names.iter().filter(|name| told.told(name)).chain(names.iter().filter(|name| !told.told(name)));
    let filled = |name: &&'static str| {
        let theirs = told.of(name);
        record.get(theirs).filter(|value| !value.is_null()).map(|value| (theirs.to_owned(), value))
    };
    told_first.into_iter().find_map(filled)
}

fn text(column: &str, value: &Value) -> Result<String, RecordFault> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => {
            Err(RecordFault::Type { column: column.to_owned(), found: type_name(other), wanted: "text" })
        }
    }
}

impl Form {
    /// Whether rows are kept as they are.
    pub(super) fn is_own(&self) -> bool {
        self.make == Make::Own
    }

    /// Whether it has a use for every column that was told.
    fn takes(&self, told: &Columns) -> bool {
        let used = |ours: &String| {
            let alpaca = self.make == Make::Alpaca && ours == "input";
            alpaca || self.needs.iter().any(|need| need.contains(&ours.as_str()))
        };
        told.0.keys().all(used)
    }

    /// What becomes of the columns, for people.
    pub(super) fn describe(&self, told: &Columns) -> String {
        let needs = self.needs.iter().map(|need| {
            let name = need.iter().find(|name| told.told(name)).or(need.first()).copied().unwrap_or_default();
            told.of(name).to_owned()
        });
        let how = match self.make {
            Make::Own => "as they are",
            Make::Rename(_) => "renamed",
            Make::Alpaca => "instruction, blank line, input",
            Make::Single => "one question and one answer out of turns",
            Make::Turns => "turns with roles",
            Make::Pair => "two turns",
            Make::Squad => "the first answer",
            Make::Label => "text and label",
            Make::Preference => "question and two answers",
        };
        format!("{} ({how})", needs.collect::<Vec<_>>().join(", "))
    }

    fn get<'r>(
        &self,
        at: usize,
        record: &'r Record,
        told: &Columns,
    ) -> Result<(String, &'r Value), RecordFault> {
        let names = self.needs.get(at).copied().unwrap_or_default();
        column(record, told, names).ok_or_else(|| RecordFault::Missing {
            column: told.of(names.first().copied().unwrap_or_default()).to_owned(),
        })
    }

    fn get_text(&self, at: usize, record: &Record, told: &Columns) -> Result<String, RecordFault> {
        let (name, value) = self.get(at, record, told)?;
        text(&name, value)
    }

    /// Makes the task's row of a record.
    pub(super) fn row(&self, record: &Record, told: &Columns) -> Result<Record, RecordFault> {
        let get_text = |at| self.get_text(at, record, told);
        let put = |pairs: Vec<(&str, Value)>| -> Record {
            pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
        };
        Ok(match self.make {
            Make::Own => record.clone(),
            Make::Rename(names) => {
                let mut row = Record::new();
                for (at, name) in names.iter().enumerate() {
                    row.insert((*name).to_owned(), get_text(at)?.into());
                }
                row
            }
            Make::Alpaca => {
                let mut prompt = get_text(0)?;
                let more =
                    record.get(told.of("input")).and_then(Value::as_str).filter(|more| !more.is_empty());
                if let Some(more) = more {
                    prompt = format!("{prompt}\n\n{more}");
                }
                put(vec![("prompt", prompt.into()), ("completion", get_text(1)?.into())])
            }
            Make::Single => {
                let (name, value) = self.get(0, record, told)?;
                let (prompt, completion) = turns::single(&name, value)?;
                put(vec![("prompt", prompt.into()), ("completion", completion.into())])
            }
            Make::Turns => {
                let (name, value) = self.get(0, record, told)?;
                put(vec![("messages", list(&turns::messages(&name, value)?))])
            }
            Make::Pair => {
                let turn = |role, content| Message { role, content };
                let (ask, answer) = (turn(Role::User, get_text(0)?), turn(Role::Assistant, get_text(1)?));
                put(vec![("messages", list(&[ask, answer]))])
            }
            Make::Squad => {
                let (name, value) = self.get(2, record, told)?;
                let first = value.get("text").unwrap_or(value);
                let first = first.as_array().and_then(|list| list.first()).unwrap_or(first);
                let answer = text(&name, first)?;
                let (context, question) = (get_text(0)?, get_text(1)?);
                put(vec![
                    ("context", context.into()),
                    ("question", question.into()),
                    ("answer", answer.into()),
                ])
            }
            Make::Label => put(vec![("text", get_text(0)?.into()), ("label", get_text(1)?.into())]),
            Make::Preference => self.preference(record, told)?,
        })
    }

    fn preference(&self, record: &Record, told: &Columns) -> Result<Record, RecordFault> {
        let last = self.needs.len();
        let (chosen_name, chosen) = self.get(last - 2, record, told)?;
        let (rejected_name, rejected) = self.get(last - 1, record, told)?;
        let (question, chosen) = turns::answer(&chosen_name, chosen)?;
        let (_, rejected) = turns::answer(&rejected_name, rejected)?;
        let prompt = match last {
            3 => self.get_text(0, record, told)?,
            _ => question.ok_or(RecordFault::Missing { column: told.of("prompt").to_owned() })?,
        };
        let pairs = [("prompt", prompt), ("chosen", chosen), ("rejected", rejected)];
        Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
    }
}

fn list(messages: &[Message]) -> Value {
    let turn = |turn: &Message| serde_json::json!({ "role": turn.role.name(), "content": turn.content });
    messages.iter().map(turn).collect()
}
