//! The `tiltyard` binary: a node of the fine-tuning market, and the tools to use one.
//!
//! Wiring only: settings, files, threads, the HTTP API and the command line. Rules live in `ledger`, agreement in
//! `consensus`, decisions of a node in `machine`.
//!
//! Exit codes: 0 done, 1 refused or false, 2 wrong usage, 3 the surroundings fail. `job` has its own, see
//! `tiltyard_train::job`.

mod amount;
mod api;
mod cli;
mod clock;
mod config;
mod home;
mod jobs;
mod keyfile;
mod logs;
mod runtime;
mod words;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use cli::{Answer, Cli, CliError, Command, Exit};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Job(job) => ExitCode::from(do_job(&job)),
        Command::Run(options) => match run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("tiltyard: {}", words(&error));
                ExitCode::from(Exit::Environment.code())
            }
        },
        command => finish(cli::answer(command, cli.json), cli.json),
    }
}

/// Joins an error and its causes, leaving out a cause whose words were said already.
fn words(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        if said.contains(&cause) {
            said
        } else if said.is_empty() {
            cause
        } else {
            format!("{said}: {cause}")
        }
    })
}

fn do_job(job: &cli::Job) -> u8 {
    match job {
        cli::Job::Train { dir } => jobs::work(jobs::Work::Train, dir),
        cli::Job::Eval { dir } => jobs::work(jobs::Work::Evaluate, dir),
        cli::Job::Check { dir } => jobs::work(jobs::Work::Check, dir),
        cli::Job::Exec { command } => jobs::exec(command),
    }
}

fn run(options: &cli::Run) -> anyhow::Result<()> {
    logs::start(&options.log, options.log_json).map_err(anyhow::Error::msg)?;
    let start = runtime::Start {
        home: home::Home::find(options.place.dir.as_deref())?,
        role: options.role,
        password: keyfile::PasswordSource { file: options.password_file.clone() },
        checkpoint: options.checkpoint,
    };
    runtime::run(&start).context("the node cannot run")
}

fn finish(outcome: Result<Answer, CliError>, json: bool) -> ExitCode {
    let (text, exit) = match outcome {
        Ok(answer) => {
            let text = if json { answer.json.to_string() } else { answer.text };
            (text, answer.exit)
        }
        Err(error) => {
            let exit = error.exit();
            if json {
                (serde_json::json!({ "error": error.to_string() }).to_string(), exit)
            } else {
                eprintln!("tiltyard: {error}");
                return ExitCode::from(exit.code());
            }
        }
    };
    // A closed pipe (`| head`) is no failure of the command.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::from(exit.code())
}
