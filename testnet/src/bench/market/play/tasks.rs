//! Tasks of the benchmark: folders of rows, drawn into what is trained on, what judges see, and what is reported.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tiltyard_proto::task::TaskKind;
use tiltyard_train::rng::{Rng, mix};

/// Most rows that the judges' set, and the reported set, have.
const JUDGED_ROWS: usize = 160;
/// Most rows trained on.
const TRAIN_ROWS: usize = 2_000;
/// Fewest rows of a task.
const ROWS_MIN: usize = 60;
/// Files of a task's folder whose rows are pooled, as far as they are there.
const FILES: [&str; 3] = ["rows.jsonl", "train.jsonl", "eval.jsonl"];

/// What `task.json` in a task's folder says; a folder without one holds instructions and is a family of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    /// Kind by name.
    kind: Option<String>,
    /// Tasks of one family teach much the same.
    family: Option<String>,
    /// Whether rivals may be tuned on it; such a task is left out of the benchmark.
    #[serde(default)]
    tuning: bool,
}

/// A task before its rows are drawn.
#[derive(Debug, Clone)]
pub(in super::super) struct Task {
    pub(in super::super) name: String,
    pub(in super::super) kind: TaskKind,
    pub(in super::super) family: String,
    pub(in super::super) tuning: bool,
    lines: Vec<String>,
}

/// The rows of a task for one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Split {
    /// What everyone may train on and choose by.
    pub(in super::super) train: String,
    /// What only judges see, then what nobody chooses by.
    pub(in super::super) judged: String,
    /// Rows of the judges' part.
    pub(in super::super) sealed: usize,
    /// Rows of the reported part.
    pub(in super::super) reported: usize,
}

/// Finds the tasks in some folders, or those of them that are named, in the order of their names.
pub(in super::super) fn find(folders: &[PathBuf], wanted: &[String]) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(folder).with_context(|| {
            format!("cannot read tasks in {}; make them with scripts/fetch-tasks.sh", folder.display())
        })?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() && (wanted.is_empty() || wanted.contains(&name)) {
                tasks.extend(read(&path, name)?);
            }
        }
    }
    tasks.sort_by(|a, b| a.name.cmp(&b.name));
    for name in wanted {
        ensure!(
            tasks.iter().any(|task| task.name == *name),
            "there is no task {name:?} in {folders:?}; scripts/fetch-tasks.sh makes those that do not ship"
        );
    }
    for pair in tasks.windows(2) {
        ensure!(pair[0].name != pair[1].name, "two folders are called {:?}; rename one", pair[0].name);
    }
    ensure!(!tasks.is_empty(), "no tasks in {folders:?}");
    Ok(tasks)
}

/// Reads one folder; none when it holds no rows.
fn read(path: &Path, name: String) -> Result<Option<Task>> {
    let mut lines = Vec::new();
    for file in FILES {
        if let Ok(text) = fs::read_to_string(path.join(file)) {
            lines.extend(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    ensure!(lines.len() >= ROWS_MIN, "task {name:?} has {} rows, {ROWS_MIN} are needed", lines.len());
    let about = match fs::read(path.join("task.json")) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("task.json of {name:?}"))?,
        Err(_) => About::default(),
    };
    let kind = match about.kind.as_deref() {
        None | Some("instruction") => TaskKind::Instruction,
        Some(other) => bail!("task {name:?} is of kind {other:?}, which this benchmark does not play yet"),
    };
    let family = about.family.unwrap_or_else(|| name.clone());
    Ok(Some(Task { name, kind, family, tuning: about.tuning, lines }))
}

impl Task {
    /// Draws the rows: a fifth for the judges, a fifth to report on, the rest to train on, each up to its bound.
    pub(in super::super) fn split(&self, seed: u64) -> Split {
        let mut lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        Rng::new(mix(seed ^ 0x5EED_7A5C)).shuffle(&mut lines);
        let count = (lines.len() / 5).min(JUDGED_ROWS);
        let (judged, train) = lines.split_at(2 * count);
        let text = |lines: &[&str]| lines.iter().flat_map(|line| [line, "\n"]).collect::<String>();
        let train = train.get(..TRAIN_ROWS).unwrap_or(train);
        Split { train: text(train), judged: text(judged), sealed: count, reported: count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_in_two_parts_and_the_seed_decides() {
        let lines = (0..100).map(|at| format!("{{\"row\":{at}}}")).collect();
        let task =
            Task { name: "t".into(), kind: TaskKind::Instruction, family: "t".into(), tuning: false, lines };
        let split = task.split(1);
        assert_eq!((split.sealed, split.reported, split.train.lines().count()), (20, 20, 60));
        let judged: Vec<&str> = split.judged.lines().collect();
        assert!(split.train.lines().all(|line| !judged.contains(&line)));
        assert_eq!(split, task.split(1));
        assert_ne!(split, task.split(2));
    }

    #[test]
    fn a_task_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = find(&[folder.path().to_owned()], &["nobody".into()]).expect_err("none");
        assert!(error.to_string().contains("nobody"), "{error}");
        let few = folder.path().join("few");
        fs::create_dir(&few).expect("made");
        fs::write(few.join("rows.jsonl"), "{}\n").expect("written");
        let error = find(&[folder.path().to_owned()], &[]).expect_err("too few rows");
        assert!(error.to_string().contains("has 1 rows"), "{error}");
    }
}
