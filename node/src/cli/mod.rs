//! The command line: what can be typed, and which function answers.

mod answer;
mod blob;
mod check;
mod db;
mod genesis;
mod help;
mod kind;
mod light;
mod model;
mod node_api;
mod post;
mod query;
mod receipt;
mod recipe;
mod setup;
mod submit;
mod task;
mod train;
mod validator;
mod wallet;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::Height;

use crate::config::Role;

pub(crate) use answer::{Answer, CliError, Exit};

/// A node of the Tiltyard fine-tuning market, and the tools to use one.
#[derive(Debug, Parser)]
#[command(name = "tiltyard", version, after_help = help::ROOT)]
pub(crate) struct Cli {
    /// Prints one JSON object instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the node's data lies.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Data folder; by default tiltyard in the user's data folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Which node to ask.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Address of the node's API; by default the one in the folder's config.toml.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
}

/// Who signs, and through which node.
#[derive(Debug, Clone, Args)]
pub(crate) struct Signing {
    #[command(flatten)]
    pub(crate) target: Target,
    /// File whose first line is the password of the key.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// Everything that can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a data folder with keys and configuration.
    #[command(after_help = help::INIT)]
    Init(setup::Init),
    /// Makes, shows or hashes the document that a network starts from.
    #[command(subcommand, after_help = help::GENESIS)]
    Genesis(genesis::Command),
    /// Runs a node until Ctrl-C.
    #[command(after_help = help::RUN)]
    Run(Run),
    /// Shows how a running node is doing.
    #[command(after_help = help::STATUS)]
    Status(Target),
    /// Lists the peers of a running node.
    #[command(after_help = help::PEERS)]
    Peers(Target),
    /// Checks, posts, lists, shows, watches tasks, and fetches their winners.
    #[command(subcommand, after_help = help::TASK)]
    Task(task::Command),
    /// Says why an entrant of a task stands where it stands.
    #[command(after_help = help::WHY)]
    Why(query::Why),
    /// Shows and moves credits; exports and imports the account's key.
    #[command(subcommand, after_help = help::WALLET)]
    Wallet(wallet::Command),
    /// Bonds, releases and restores a validator's stake.
    #[command(subcommand, after_help = help::VALIDATOR)]
    Validator(validator::Command),
    /// Adds file sets to a running node, or lists them.
    #[command(subcommand, after_help = help::BLOB)]
    Blob(blob::Command),
    /// Trains on this machine, without a network.
    #[command(after_help = help::TRAIN)]
    Train(Box<train::Train>),
    /// Shows model folders, and merges checkpoints into them.
    #[command(subcommand, after_help = help::MODEL)]
    Model(model::Command),
    /// Follows a chain from its genesis hash alone, trusting no node.
    #[command(after_help = help::LIGHT)]
    Light(light::Light),
    /// Lists the recipes of settled tasks, shows one, writes one as a file to train with.
    #[command(subcommand, after_help = help::RECIPE)]
    Recipe(recipe::Command),
    /// Gets a portable proof of an entrant's verdict, or verifies one.
    #[command(subcommand, after_help = help::RECEIPT)]
    Receipt(receipt::Command),
    /// Measures, verifies, repairs and compacts the chain data of a node that does not run.
    #[command(subcommand, after_help = help::DB)]
    Db(db::Command),
    /// Does one job in a folder; started by the node.
    #[command(subcommand, hide = true)]
    Job(Job),
}

/// Options of a running node.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) place: Place,
    /// What the node does; by default as config.toml says.
    #[arg(long)]
    pub(crate) role: Option<Role>,
    /// File whose first line is the password of the keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Joins by a state snapshot proven from this block, which you trust: its height and hash, from a source of your own.
    #[arg(long, value_name = "HEIGHT:HASH", value_parser = checkpoint)]
    pub(crate) checkpoint: Option<(Height, BlockHash)>,
    /// Writes logs as JSON lines.
    #[arg(long)]
    pub(crate) log_json: bool,
    /// What to log, such as `info` or `info,tiltyard_net=debug`.
    #[arg(long, value_name = "FILTER", env = "TILTYARD_LOG", default_value = "info")]
    pub(crate) log: String,
}

fn checkpoint(text: &str) -> Result<(Height, BlockHash), String> {
    let wanted = || "give HEIGHT:HASH, as in 120000:<64 hex digits>".to_owned();
    let (height, hash) = text.split_once(':').ok_or_else(wanted)?;
    let height: u64 = height.parse().map_err(|_| wanted())?;
    let hash: BlockHash = hash.parse().map_err(|error| format!("{error}"))?;
    if height == 0 {
        return Err("block 0 is the genesis document itself; leave --checkpoint out".to_owned());
    }
    Ok((Height::new(height), hash))
}

/// Work for a child process.
#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Trains as the folder's job.json says.
    Train {
        /// The job's folder.
        dir: PathBuf,
    },
    /// Evaluates as the folder's job.json says.
    Eval {
        /// The job's folder.
        dir: PathBuf,
    },
    /// Checks as the folder's job.json says.
    Check {
        /// The job's folder.
        dir: PathBuf,
    },
    /// Runs a miner's own trainer, which dies with its job.
    Exec {
        /// The command; the job's folder is its last argument.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// Answers everything but `run` and `job`, which are processes of their own kind.
pub(crate) fn answer(command: Command, json: bool) -> Result<Answer, CliError> {
    match command {
        Command::Init(options) => setup::init(&options),
        Command::Genesis(command) => genesis::answer(&command),
        Command::Status(target) => query::status(&target),
        Command::Peers(target) => query::peers(&target),
        Command::Task(command) => task::answer(command, json),
        Command::Why(options) => query::why(&options),
        Command::Wallet(command) => wallet::answer(&command),
        Command::Validator(command) => validator::answer(&command),
        Command::Blob(command) => blob::answer(&command),
        Command::Train(options) => train::train(&options, json),
        Command::Model(command) => model::answer(&command),
        Command::Light(options) => light::answer(&options),
        Command::Recipe(command) => recipe::answer(&command),
        Command::Receipt(command) => receipt::answer(&command),
        Command::Db(command) => db::answer(&command),
        Command::Run(_) | Command::Job(_) => Err(CliError::usage("this command runs by itself")),
    }
}
