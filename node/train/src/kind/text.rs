//! Kinds that are scored by the mean loss over text: instruction, context-question, chat, plain text.
//!
//! A row becomes one sequence, or several for plain text; each says which of its tokens
//! are learned and which are scored. The score of a row is the natural-log negative
//! log-likelihood averaged over its scored tokens, added up in token order.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::column::{object, text};
use super::{Rows, Scored, Seen, Work};
use crate::data::chat::{ChatTemplate, Message, Role};
use crate::data::{self, DataError, Row, RowFault, Template};
use crate::fit::objective::{Objective, Part, Parts};
use crate::fit::run::RunError;
use crate::fit::settings::Settings;
use crate::loss::{self, Gold, log_probs};
use crate::model::{Model, ModelError};

/// Most turns of a chat.
pub const TURNS_MAX: usize = 256;

/// How a line becomes sequences.
#[derive(Debug, Clone)]
enum Form {
    Instruction,
    ContextQuestion,
    Chat(Arc<ChatTemplate>),
    Plain { window: usize },
}

/// A sequence of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sequence {
    part: Part,
    /// The tokens scored, among those learned.
    scored: Range<usize>,
}

impl Sequence {
    /// A sequence of which everything from index `from` on is learned and scored.
    fn single(ids: Vec<u32>, from: usize) -> Self {
        let said = from..ids.len();
        Self { part: Part { ids, learned: vec![said.clone()] }, scored: said }
    }
}

/// Rows of text.
#[derive(Debug, Clone)]
pub struct Texts {
    form: Form,
    template: Arc<Template>,
    fit: usize,
    rows: Vec<Vec<Sequence>>,
}

impl Texts {
    fn new(form: Form, template: Arc<Template>, fit: usize) -> Self {
        Self { form, template, fit, rows: Vec::new() }
    }

    /// Rows of `prompt` and `completion`.
    pub fn instruction(template: Arc<Template>, fit: usize) -> Self {
        Self::new(Form::Instruction, template, fit)
    }

    /// Rows of `context`, `question` and `answer`.
    pub fn context_question(template: Arc<Template>, fit: usize) -> Self {
        Self::new(Form::ContextQuestion, template, fit)
    }

    /// Rows of `messages`, written down by the chat template of the base in `folder`.
    ///
    /// # Errors
    /// [`DataError::Chat`] when the base has no template that runs here.
    pub fn chat(template: Arc<Template>, fit: usize, folder: &Path) -> Result<Self, DataError> {
        let chat = ChatTemplate::load(folder).map_err(|error| DataError::Chat(Box::new(error)))?;
        Ok(Self::new(Form::Chat(Arc::new(chat)), template, fit))
    }

    /// Rows of `text`, cut into windows of `window` tokens.
    ///
    /// # Errors
    /// [`DataError::Window`] when a window does not fit the model.
    pub fn plain(template: Arc<Template>, fit: usize, window: usize) -> Result<Self, DataError> {
        match (2..=fit).contains(&window) {
            true => Ok(Self::new(Form::Plain { window }, template, fit)),
            false => Err(DataError::Window { window, fit }),
        }
    }

    fn completion(&self, row: &Row) -> Result<Vec<Sequence>, RowFault> {
        let example = self.template.example(row, self.fit)?;
        Ok(vec![Sequence::single(example.ids, example.prompt)])
    }

    fn context(&self, line: &[u8]) -> Result<(Vec<Sequence>, Seen), RowFault> {
        let row = object(line)?;
        let prompt = format!("{}\n\n{}", text(&row, "context")?, text(&row, "question")?);
        let row = Row { prompt, completion: text(&row, "answer")?.to_owned() };
        let sequences = self.completion(&row).map_err(|fault| match fault {
            RowFault::Empty { column: "prompt" } => RowFault::Empty { column: "context" },
            RowFault::Empty { .. } => RowFault::Empty { column: "answer" },
            other => other,
        })?;
        Ok((sequences, seen(row)))
    }

    fn windows(&self, line: &[u8], window: usize) -> Result<(Vec<Sequence>, Seen), RowFault> {
        let row = object(line)?;
        let said = text(&row, "text")?;
        let mut ids = self.template.tokens(said)?;
        if ids.is_empty() {
            return Err(RowFault::Empty { column: "text" });
        }
        ids.push(self.template.end());
        // The first token of a window has nothing before it; one alone predicts nothing.
        let windows = ids.chunks(window).filter(|window| window.len() > 1);
        let cut = |ids: &[u32]| Sequence::single(ids.to_vec(), 1);
        let sequences = windows.map(cut).collect();
        Ok((sequences, Seen { asked: None, said: said.to_owned(), answer: said.to_owned() }))
    }

    fn turns(&self, line: &[u8], chat: &ChatTemplate) -> Result<(Vec<Sequence>, Seen), RowFault> {
        let mut row = object(line)?;
        let list = row.remove("messages").filter(|list| *list != Value::Null);
        let list = list.ok_or(RowFault::MissingColumn { column: "messages" })?;
        let messages: Vec<Message> =
            serde_json::from_value(list).map_err(|error| RowFault::NotJson { fact: error.to_string() })?;
        let Some((last, before)) = messages.split_last() else {
            return Err(RowFault::Empty { column: "messages" });
        };
        let answers = messages.iter().filter(|message| message.role == Role::Assistant);
        if answers.into_iter().any(|answer| answer.content.trim().is_empty()) {
            return Err(RowFault::Empty { column: "messages" });
        }
        let (mut text, answers) = written(chat, &messages)?;
        // What the template writes after the end of the last answer is nobody's to predict.
        let end = self.template.end_text();
        if let Some(cut) = text.trim_end().strip_suffix(&end).filter(|_| !end.is_empty()) {
            text.truncate(cut.len());
        }
        let sequence = self.sequence(&text, &answers)?;
        let asked: Vec<&str> = before.iter().map(|message| message.content.as_str()).collect();
        let said = last.content.clone();
        Ok((vec![sequence], Seen { asked: Some(asked.join("\n")), answer: said.clone(), said }))
    }

    /// Tokenizes a written chat piece by piece: what is given and what is answered by turns.
    fn sequence(&self, text: &str, answers: &[Range<usize>]) -> Result<Sequence, RowFault> {
        let (mut ids, mut learned, mut at) = (Vec::new(), Vec::<Range<usize>>::new(), 0);
        for answer in answers {
            let (from, to) = (answer.start, answer.end.min(text.len()));
            let pieces = text.get(at..from).zip(text.get(from..to));
            let (given, said) = pieces.ok_or(RowFault::Empty { column: "messages" })?;
            ids.extend(self.template.tokens(given)?);
            let start = ids.len();
            ids.extend(self.template.tokens(said)?);
            learned.push(start.max(1)..ids.len());
            at = to;
        }
        let scored = learned.last_mut().filter(|said| said.start < said.end);
        let scored = scored.ok_or(RowFault::Empty { column: "messages" })?;
        ids.push(self.template.end());
        scored.end = ids.len();
        let scored = scored.clone();
        if ids.len() > self.fit {
            return Err(RowFault::TooLong { tokens: ids.len(), fit: self.fit });
        }
        Ok(Sequence { part: Part { ids, learned }, scored })
    }

    fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.rows.iter().flatten()
    }
}

fn seen(row: Row) -> Seen {
    Seen { asked: Some(row.prompt), answer: row.completion.clone(), said: row.completion }
}

/// Writes a chat down and finds its answers, as ranges of bytes.
///
/// An answer before the last counts only when the template writes it the same while it is
/// the last and later; templates that rewrite earlier turns teach only the last.
fn written(chat: &ChatTemplate, messages: &[Message]) -> Result<(String, Vec<Range<usize>>), RowFault> {
    let refuse = |fact: String| RowFault::Chat { fact };
    if messages.len() > TURNS_MAX {
        return Err(refuse(format!("{} turns, {TURNS_MAX} are allowed", messages.len())));
    }
    if messages.last().is_none_or(|last| last.role != Role::Assistant) {
        return Err(refuse("the last turn is not the assistant's".to_owned()));
    }
    let render = |messages: &[Message], open: bool| chat.render(messages, open);
    let whole = render(messages, false).map_err(|error| refuse(error.to_string()))?;
    let mut answers: Vec<Range<usize>> = Vec::new();
    for (at, _) in messages.iter().enumerate().filter(|(_, turn)| turn.role == Role::Assistant) {
        let last = at + 1 == messages.len();
        let before = render(&messages[..at], true);
        let until = if last { Ok(whole.clone()) } else { render(&messages[..=at], false) };
        let range = match (before, until) {
            (Ok(before), Ok(until)) if whole.starts_with(&before) && whole.starts_with(&until) => {
                Ok(before.len()..until.len())
            }
            (Ok(_), Ok(_)) => {
                Err("the template writes the turns before the last answer otherwise".to_owned())
            }
            (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
        };
        let follows = |range: &Range<usize>| {
            range.start < range.end && answers.last().is_none_or(|before| before.end <= range.start)
        };
        match range {
            Ok(range) if follows(&range) => answers.push(range),
            Ok(_) if last => return Err(refuse("the template does not write the last answer".to_owned())),
            Err(fact) if last => return Err(refuse(fact)),
            Ok(_) | Err(_) => {}
        }
    }
    Ok((whole, answers))
}

impl Rows for Texts {
    fn add(&mut self, line: &[u8]) -> Result<Seen, RowFault> {
        let (sequences, seen) = match &self.form {
            Form::Instruction => {
                let row = data::parse_row(line)?;
                (self.completion(&row)?, seen(row))
            }
            Form::ContextQuestion => self.context(line)?,
            Form::Chat(chat) => self.turns(line, chat)?,
            Form::Plain { window } => self.windows(line, *window)?,
        };
        self.rows.push(sequences);
        Ok(seen)
    }

    fn count(&self) -> usize {
        self.rows.len()
    }

    fn pick(&self, rows: &[usize]) -> Box<dyn Rows> {
        let rows = rows.iter().filter_map(|&row| self.rows.get(row).cloned()).collect();
        let (form, template) = (self.form.clone(), self.template.clone());
        Box::new(Self { form, template, fit: self.fit, rows })
    }

    fn lengths(&self) -> Vec<usize> {
        self.sequences().map(|sequence| sequence.part.ids.len()).collect()
    }

    fn work(&self) -> Vec<Work> {
        let work = |sequence: &Sequence| Work {
            tokens: sequence.part.ids.len() as u64,
            targets: sequence.part.targets() as u64,
        };
        self.sequences().map(work).collect()
    }

    fn objective<'a>(
        &'a self,
        _base: &'a Model,
        settings: &Settings,
        _workers: usize,
    ) -> Result<Box<dyn Objective + 'a>, RunError> {
        let parts = self.sequences().map(|sequence| &sequence.part).collect();
        Ok(Box::new(Parts { parts, average: settings.average }))
    }

    fn score(&self, _base: &Model, model: &Model, workers: usize) -> Result<Scored, ModelError> {
        let row = |sequence: &Sequence| loss::Row {
            ids: sequence.part.ids.clone(),
            golds: sequence.scored.clone().map(|at| Gold { at, weight: 1.0 }).collect(),
        };
        let rows: Vec<loss::Row> = self.sequences().map(row).collect();
        let mut found = log_probs(model, &rows, workers)?.into_iter();
        let mean = |row: &Vec<Sequence>| {
            let tokens: Vec<f64> = found.by_ref().take(row.len()).flatten().collect();
            -tokens.iter().sum::<f64>() / tokens.len().max(1) as f64
        };
        Ok(Scored { scores: self.rows.iter().map(mean).collect(), right: None })
    }
}
