//! Chats inside columns: `role`/`content` as Hugging Face writes them, `from`/`value` as ShareGPT does.

use serde_json::Value;

use super::RecordFault;
use super::read::type_name;
use crate::data::chat::{Message, Role};

fn role(text: &str) -> Option<Role> {
    match text {
        "system" => Some(Role::System),
        "user" | "human" => Some(Role::User),
        "assistant" | "gpt" | "model" | "bot" => Some(Role::Assistant),
        _ => None,
    }
}

/// Reads a column of turns.
pub(super) fn messages(column: &str, value: &Value) -> Result<Vec<Message>, RecordFault> {
    let turns = |fact| RecordFault::Turns { column: column.to_owned(), fact };
    let Value::Array(list) = value else {
        let (column, found) = (column.to_owned(), type_name(value));
        return Err(RecordFault::Type { column, found, wanted: "a list of turns" });
    };
    let read = |turn: &Value| {
        let text = |keys: [&str; 2]| keys.iter().find_map(|key| turn.get(key)).and_then(Value::as_str);
        let name = text(["role", "from"]).ok_or(turns("a turn has no role"))?;
        let role = role(name).ok_or(turns("a turn has a role other than system, user and assistant"))?;
        let content = text(["content", "value"]).ok_or(turns("a turn has no text"))?;
        Ok(Message { role, content: content.to_owned() })
    };
    let messages: Vec<Message> = list.iter().map(read).collect::<Result<_, RecordFault>>()?;
    match messages.last().map(|last| last.role) {
        None => Err(turns("there are no turns")),
        Some(Role::Assistant) => Ok(messages),
        Some(Role::System | Role::User) => Err(turns("the last turn is not the assistant's")),
    }
}

/// Reads a chat of one question and one answer, perhaps after a system turn, as a prompt and its completion.
pub(super) fn single(column: &str, value: &Value) -> Result<(String, String), RecordFault> {
    let messages = messages(column, value)?;
    let texts: Vec<(Role, &str)> = messages.iter().map(|turn| (turn.role, turn.content.as_str())).collect();
    match texts.as_slice() {
        [(Role::User, question), (Role::Assistant, answer)] => {
            Ok(((*question).to_owned(), (*answer).to_owned()))
        }
        [(Role::System, scene), (Role::User, question), (Role::Assistant, answer)] => {
            Ok((format!("{scene}\n\n{question}"), (*answer).to_owned()))
        }
        _ => Err(RecordFault::Turns {
            column: column.to_owned(),
            fact: "more than one question and one answer; post it as a chat task",
        }),
    }
}

/// Reads the answer of a preference: text, or turns whose last is the answer; and the question before it, if any.
pub(super) fn answer(column: &str, value: &Value) -> Result<(Option<String>, String), RecordFault> {
    if let Value::String(text) = value {
        return Ok((None, text.clone()));
    }
    let messages = messages(column, value)?;
    let question =
        messages.iter().rev().find(|turn| turn.role == Role::User).map(|turn| turn.content.clone());
    let answer = messages.last().map(|turn| turn.content.clone()).unwrap_or_default();
    Ok((question, answer))
}
