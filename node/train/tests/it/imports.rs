//! Rows in the ecosystem's forms become rows of a task.

use std::path::PathBuf;

use tempfile::TempDir;
use tiltyard_proto::task::TaskKind;
use tiltyard_train::data::import::{Columns, ImportError, Imported, import};

fn write(name: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn told(name: &str, text: &str, kind: &TaskKind, columns: &str) -> Result<Imported, ImportError> {
    let (_folder, path) = write(name, text);
    import(&path, kind, &columns.parse().unwrap())
}

fn rows(text: &str, kind: &TaskKind) -> String {
    String::from_utf8(told("x.jsonl", text, kind, "").unwrap().jsonl).unwrap()
}

#[test]
fn conventions_are_recognised_by_their_columns() {
    use TaskKind::{Chat, Classification, ContextQuestion, Dpo, Instruction, PlainText};
    let plain = PlainText { window_tokens: 64 };
    let labels = Classification { labels: Vec::new() };
    let dpo = Dpo { beta_milli: 100 };
    let cases: Vec<(&TaskKind, &str, &str)> = vec![
        (
            &Instruction,
            r#"{"instruction":"Add","input":"1 2","output":"3"}"#,
            r#"{"completion":"3","prompt":"Add\n\n1 2"}"#,
        ),
        (
            &Instruction,
            r#"{"instruction":"Hi","input":"","output":"Ho"}"#,
            r#"{"completion":"Ho","prompt":"Hi"}"#,
        ),
        (&Instruction, r#"{"question":"q","answer":"a","source":7}"#, r#"{"completion":"a","prompt":"q"}"#),
        (
            &Instruction,
            r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}"#,
            r#"{"completion":"a","prompt":"q"}"#,
        ),
        (
            &Instruction,
            r#"{"conversations":[{"from":"system","value":"s"},{"from":"human","value":"q"},{"from":"gpt","value":"a"}]}"#,
            r#"{"completion":"a","prompt":"s\n\nq"}"#,
        ),
        (
            &Chat,
            r#"{"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]}"#,
            r#"{"messages":[{"content":"q","role":"user"},{"content":"a","role":"assistant"}]}"#,
        ),
        (
            &Chat,
            r#"{"prompt":"q","completion":"a"}"#,
            r#"{"messages":[{"content":"q","role":"user"},{"content":"a","role":"assistant"}]}"#,
        ),
        (
            &ContextQuestion,
            r#"{"id":"1","context":"c","question":"q","answers":{"text":["a","b"],"answer_start":[0,1]}}"#,
            r#"{"answer":"a","context":"c","question":"q"}"#,
        ),
        (&plain, r#"{"content":"words"}"#, r#"{"text":"words"}"#),
        (&labels, r#"{"sentence":"good","label":1}"#, r#"{"label":"1","text":"good"}"#),
        (
            &dpo,
            r#"{"question":"q","chosen":"a","rejected":"b"}"#,
            r#"{"chosen":"a","prompt":"q","rejected":"b"}"#,
        ),
        (
            &dpo,
            r#"{"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]}"#,
            r#"{"chosen":"a","prompt":"q","rejected":"b"}"#,
        ),
    ];
    for (kind, row, want) in cases {
        assert_eq!(rows(&format!("{row}\n\n"), kind), format!("{want}\n"), "{row}");
    }
}

#[test]
fn rows_of_the_tasks_own_form_keep_their_bytes() {
    let text = "{ \"prompt\": \"q\",  \"completion\": \"a\" }\n\n{\"completion\":\"\"}\n";
    let imported = told("x.jsonl", text, &TaskKind::Instruction, "").unwrap();
    assert_eq!((imported.jsonl.as_slice(), imported.mapping), (text.as_bytes(), None));
}

#[test]
fn columns_can_be_told() {
    let text = r#"{"prompt":"not this","q":"1+1","a":"2"}"#;
    let columns = "prompt=q,completion=a";
    let imported = told("x.jsonl", text, &TaskKind::Instruction, columns).unwrap();
    assert_eq!(imported.jsonl, b"{\"completion\":\"2\",\"prompt\":\"1+1\"}\n");
    assert!(imported.mapping.unwrap().contains("q, a"));
    let words = told("x.jsonl", r#"{"question":"q","answer":"a"}"#, &TaskKind::Instruction, "prompt=title");
    assert!(
        matches!(words, Err(ImportError::UnknownColumns { .. })),
        "another column is taken for the one named"
    );
    for bad in ["prompt", "prompt=", "soup=a", "prompt=a,prompt=b"] {
        assert!(matches!(bad.parse::<Columns>(), Err(ImportError::Columns { .. })), "{bad}");
    }
}

#[test]
fn an_array_of_rows_is_read_as_such() {
    let text = "[{\"question\":\"q\",\"answer\":\"a\"},\n {\"question\":\"r\",\"answer\":\"b\"}]";
    let imported = told("x.json", text, &TaskKind::Instruction, "").unwrap();
    assert_eq!(imported.rows, 2);
    let words = told("x.json", "[{]", &TaskKind::Instruction, "").unwrap_err().to_string();
    assert!(words.contains("JSON array"), "{words}");
}

#[test]
fn what_cannot_be_used_is_told_with_line_and_column() {
    let kind = TaskKind::Instruction;
    let words = |text: &str| told("x.jsonl", text, &kind, "").unwrap_err().to_string();
    let found = words("{\"title\":\"t\",\"body\":\"b\"}\n");
    assert!(
        found.contains("line 1") && found.contains("body, title") && found.contains("as in prompt="),
        "{found}"
    );
    let good = r#"{"question":"q","answer":"a"}"#;
    let found = words(&format!(
        "{good}\n\n{{\"question\":\"q\"}}\n{{\"question\":\"q\",\"answer\":[1]}}\nnonsense\n"
    ));
    assert!(found.contains("3 rows cannot be used"), "{found}");
    assert!(
        found.contains("line 3: has no column \"completion\"")
            || found.contains("line 3: has no column \"answer\""),
        "{found}"
    );
    assert!(found.contains("line 4: column \"answer\" is a list, wanted text"), "{found}");
    assert!(found.contains("line 5: is not a JSON object"), "{found}");
    let long = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"user","content":"r"},{"role":"assistant","content":"b"}]}"#;
    let found = words(long);
    assert!(found.contains("chat task"), "{found}");
    let open = r#"{"messages":[{"role":"user","content":"q"}]}"#;
    assert!(words(open).contains("not the assistant's"));
    assert!(words("\n").contains("has no rows"));
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_rows_are_read_like_lines() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rows");
    let read = |name: &str, kind: &TaskKind| import(&fixtures.join(name), kind, &Columns::default());
    let imported = read("alpaca.parquet", &TaskKind::Instruction).unwrap();
    let text = String::from_utf8(imported.jsonl).unwrap();
    assert_eq!(imported.rows, 3);
    assert!(text.starts_with("{\"completion\":\"3\",\"prompt\":\"Add.\\n\\n1, 2\"}\n"), "{text}");
    let chat = read("chat.parquet", &TaskKind::Chat).unwrap();
    assert!(String::from_utf8(chat.jsonl).unwrap().contains("{\"content\":\"naïve?\",\"role\":\"user\"}"));
    let (_folder, path) = write("x.parquet", "PAR1 and nothing else");
    let words = import(&path, &TaskKind::Instruction, &Columns::default()).unwrap_err().to_string();
    assert!(words.contains("cannot be read as Parquet"), "{words}");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_without_the_feature_is_refused_with_the_remedy() {
    let (_folder, path) = write("x.parquet", "PAR1");
    let words = import(&path, &TaskKind::Instruction, &Columns::default()).unwrap_err().to_string();
    assert!(words.contains("feature `parquet`"), "{words}");
}
