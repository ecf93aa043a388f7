//! `tiltyard recipe`: what the market has learned, for people and for `learned` miners.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::recipe::{Method, Recipe};
use tiltyard_train::strategy::form::Form;
use tiltyard_train::strategy::learned::Past;

use super::node_api::NodeApi;
use super::{Answer, CliError, Target};
use crate::api::model::{Entrant, Task, Tasks};
use crate::words;

/// What can be done with recipes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists the recipes of settled tasks with the scores that the judges gave their checkpoints.
    List {
        /// Also writes them as JSON lines, for `strategy = "learned:FILE"`.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        target: Target,
    },
    /// Shows a recipe as a file that `--strategy fixed:FILE` reads.
    Show(Which),
    /// Writes a recipe as a file to train with.
    Apply {
        #[command(flatten)]
        which: Which,
        /// File to write; ends in .toml.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Which recipe.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The task.
    task: TaskId,
    /// The miner, or the first digits of its key; by default the winner.
    miner: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn answer(command: &Command) -> Result<Answer, CliError> {
    match command {
        Command::List { out, target } => {
            let tasks: Tasks = NodeApi::find(target)?.get("/v1/tasks")?;
            list(&tasks.tasks, out.as_deref())
        }
        Command::Show(which) => {
            let (entrant, form) = find(which)?;
            let json = json!({ "miner": entrant.miner, "recipe": entrant.recipe });
            Ok(Answer::done(json, form.to_toml()))
        }
        Command::Apply { which, out } => {
            if out.extension().is_none_or(|extension| extension != "toml") {
                return Err(CliError::usage(
                    "--out must end in .toml: strategies tell files from presets by it",
                ));
            }
            let (entrant, form) = find(which)?;
            fs::write(out, form.to_toml()).map_err(CliError::file("write", out))?;
            let text = format!(
                "{} holds the recipe of {}; train with --strategy fixed:{}, or set strategy = \"fixed:{}\" in config.toml",
                out.display(),
                entrant.miner,
                out.display(),
                out.display()
            );
            Ok(Answer::done(json!({ "file": out, "miner": entrant.miner }), text))
        }
    }
}

/// Every judged entrant of settled tasks that revealed a recipe.
fn past(tasks: &[Task]) -> Vec<(&Task, &Entrant, Past)> {
    let mut all = Vec::new();
    for task in tasks {
        for entrant in &task.entrants {
            if let (Some(base_micro), Some(mean_micro), Some(recipe)) =
                (task.base_mean_micro, entrant.mean_micro, entrant.recipe.clone())
            {
                let past = Past { task: task.id.clone(), base_micro, mean_micro, recipe };
                all.push((task, entrant, past));
            }
        }
    }
    all
}

fn list(tasks: &[Task], out: Option<&Path>) -> Result<Answer, CliError> {
    let found = past(tasks);
    let mut text = String::new();
    for (task, entrant, past) in &found {
        text += &format!(
            "{:.8}  {:.8}  rank {:<3} {:.4} of {:.4}  {:<20} {}  {}\n",
            task.id,
            entrant.miner,
            entrant.rank.map_or("-".to_owned(), |rank| rank.to_string()),
            past.mean_micro as f64 / 1e6,
            past.base_micro as f64 / 1e6,
            words::strategy(&past.recipe),
            short(&past.recipe),
            task.title
        );
    }
    text += &format!(
        "{} recipes of {} tasks; a recipe is its miner's word, the scores are the judges'",
        found.len(),
        tasks.len()
    );
    let lines: Vec<&Past> = found.iter().map(|(_, _, past)| past).collect();
    if let Some(out) = out {
        let mut file = String::new();
        for past in &lines {
            file += &serde_json::to_string(past).map_err(|error| CliError::refused(error.to_string()))?;
            file.push('\n');
        }
        fs::write(out, file).map_err(CliError::file("write", out))?;
    }
    Ok(Answer::done(json!({ "recipes": lines, "out": out }), text))
}

fn short(recipe: &Recipe) -> String {
    let method = match recipe.method {
        Method::Full => "full".to_owned(),
        Method::Lora { rank, .. } => format!("lora r{rank}"),
    };
    let rows = u64::from(recipe.batch_rows) * u64::from(recipe.accumulation);
    format!("{method} {:.1e} × {} steps of {rows} rows", recipe.learning_rate_nano as f64 / 1e9, recipe.steps)
}

fn find(which: &Which) -> Result<(Entrant, Form), CliError> {
    let task: Task = NodeApi::find(&which.target)?.get(&format!("/v1/tasks/{}", which.task))?;
    let entrant = choose(task.entrants, which.miner.as_deref())?;
    let recipe = entrant.recipe.as_ref().ok_or_else(|| {
        CliError::refused(format!("{} has revealed no recipe yet; ask again after the reveal", entrant.miner))
    })?;
    let form = Form::of(recipe).map_err(|error| CliError::refused(error.to_string()))?;
    Ok((entrant, form))
}

/// The entrant whose key begins so, or the winner.
fn choose(entrants: Vec<Entrant>, miner: Option<&str>) -> Result<Entrant, CliError> {
    let mut fitting = entrants.into_iter().filter(|entrant| match miner {
        Some(start) => entrant.miner.starts_with(start),
        None => entrant.rank == Some(1),
    });
    match (fitting.next(), fitting.next(), miner) {
        (Some(entrant), None, _) => Ok(entrant),
        (Some(_), Some(_), _) => Err(CliError::usage("several miners' keys begin so; give more digits")),
        (None, _, Some(start)) => Err(CliError::refused(format!("no entrant's key begins with {start}"))),
        (None, _, None) => Err(CliError::refused("the task has no winner; name a miner")),
    }
}

#[cfg(test)]
mod tests {
    use tiltyard_proto::recipe::Strategy;
    use tiltyard_train::strategy::{learned, space::Point};

    use super::*;

    fn entrant(miner: &str, rank: Option<u8>) -> Entrant {
        Entrant {
            miner: miner.into(),
            commit_height: 1,
            stage: "judged".into(),
            strategy: None,
            tokens_trained: None,
            mean_micro: Some(2_000_000),
            gain_ppm: None,
            reference_gain_ppm: None,
            rank,
            reason: String::new(),
            reward: 0,
            bond: None,
            manifest: None,
            recipe: Some(Point::PLAIN.recipe(Strategy::Search, 1, 40, 100)),
        }
    }

    #[test]
    fn the_winner_is_meant_unless_a_key_is_begun() {
        let field = || vec![entrant("aa01", Some(2)), entrant("aa02", Some(1)), entrant("bb", None)];
        assert_eq!(choose(field(), None).map(|found| found.miner).ok().as_deref(), Some("aa02"));
        assert_eq!(choose(field(), Some("b")).map(|found| found.miner).ok().as_deref(), Some("bb"));
        assert!(choose(field(), Some("aa")).is_err() && choose(field(), Some("cc")).is_err());
        assert!(choose(vec![entrant("bb", None)], None).is_err());
    }

    #[test]
    fn lines_written_for_miners_are_lines_that_they_read() {
        let recipe = entrant("a", None).recipe.expect("there");
        let past = Past { task: "t".into(), base_micro: 2, mean_micro: 1, recipe };
        let line = serde_json::to_string(&past).expect("written");
        assert_eq!(learned::parse(line.as_bytes()).expect("read"), [past]);
    }
}
