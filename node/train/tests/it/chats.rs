//! Chat templates against what `transformers` makes of them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tiltyard_train::data::chat::{ChatError, ChatTemplate, Message, Role};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat")
}

fn tokens() -> [Option<String>; 4] {
    [Some("<s>".to_owned()), Some("</s>".to_owned()), None, None]
}

fn ask(text: &str) -> Result<String, ChatError> {
    let messages = [Message { role: Role::User, content: "q".to_owned() }];
    ChatTemplate::new(text, tokens())?.render(&messages, true)
}

#[test]
fn templates_write_chats_down_as_transformers_does() {
    let golden: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("golden.json")).unwrap()).unwrap();
    let golden = golden.as_object().unwrap();
    assert!(golden.len() >= 3);
    for (name, cases) in golden {
        let text = std::fs::read_to_string(fixtures().join(format!("{name}.jinja"))).unwrap();
        let template = ChatTemplate::new(&text, tokens()).unwrap();
        for case in cases.as_array().unwrap() {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let ours = template.render(&messages, case["open"].as_bool().unwrap());
            match case["text"].as_str() {
                Some(theirs) => assert_eq!(ours.unwrap(), theirs, "{name}"),
                None => assert!(matches!(ours, Err(ChatError::Refused { .. })), "{name}: {ours:?}"),
            }
        }
    }
}

#[test]
fn a_template_that_refuses_is_quoted() {
    let words = ask("{{ raise_exception('only pirates may ask') }}").unwrap_err().to_string();
    assert!(words.contains("only pirates may ask"), "{words}");
}

#[test]
fn a_template_has_no_clock_no_files_and_no_end() {
    assert_eq!(ask("{{ pad_token }}{{ 'none' if pad_token is not defined }}").unwrap(), "none");
    assert_eq!(ask("{{ 'fixed' if strftime_now is not defined }}").unwrap(), "fixed");
    assert!(matches!(ask("{{ strftime_now('%d') }}"), Err(ChatError::Refused { .. })));
    assert!(ask("{% include '/etc/passwd' %}").is_err());
    let endless =
        "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a * b %}{% endfor %}{% endfor %}";
    assert!(matches!(ask(endless), Err(ChatError::OutOfBounds)));
    let loud = format!("{{% for a in range(9999) %}}{}{{% endfor %}}", "x".repeat(4_096));
    assert!(matches!(ask(&loud), Err(ChatError::OutOfBounds)));
    let deep = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(matches!(ask(deep), Err(ChatError::Refused { .. })));
    assert!(matches!(ask("{% for %}"), Err(ChatError::Syntax { .. })));
    assert!(matches!(ask(&"x".repeat(300_000)), Err(ChatError::TooLong { .. })));
}

#[test]
fn the_template_is_found_where_folders_keep_it() {
    let folder = tempfile::tempdir().unwrap();
    let load = || ChatTemplate::load(folder.path());
    assert!(matches!(load(), Err(ChatError::NoTemplate)));
    let config = folder.path().join("tokenizer_config.json");
    let messages = [Message { role: Role::User, content: "q".to_owned() }];
    let cases = [
        (r#"{"eos_token": {"content": "</e>"}, "chat_template": "one {{ eos_token }}"}"#, "one </e>"),
        (
            r#"{"chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]}"#,
            "yes",
        ),
    ];
    for (text, want) in cases {
        std::fs::write(&config, text).unwrap();
        assert_eq!(load().unwrap().render(&messages, false).unwrap(), want);
    }
    std::fs::write(folder.path().join("chat_template.jinja"), "file {{ messages[0].content }}").unwrap();
    assert_eq!(load().unwrap().render(&messages, false).unwrap(), "file q");
    std::fs::write(&config, "[").unwrap();
    assert!(matches!(load(), Err(ChatError::Config(_))));
}
