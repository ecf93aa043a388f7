//! Runs a real network of Tiltyard processes on one machine.
//!
//! Everything is a real operating-system process on loopback; nothing is mocked. `chaos` breaks what it runs on purpose;
//! the deterministic simulator (`sim`) is the exception: it runs machines in virtual time.

mod bench;
mod chaos;
mod join;
mod junk;
mod restart;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tiltyard_testnet::sim;

/// Brings up a market on this machine, races miners on real tasks, and checks what came out.
#[derive(Debug, Parser)]
#[command(name = "tiltyard-testnet", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  tiltyard-testnet run
  tiltyard-testnet run --report report.json --seed 7
  tiltyard-testnet run --validators 7 --miners 5 --tasks 3 --keep ./net
  tiltyard-testnet junk --rate 10000 --seconds 60
  tiltyard-testnet chaos --seed 3 --faults 20
  tiltyard-testnet bench latency --seconds 60";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the whole market once: post, train, commit, reveal, judge, pay, prove.
    Run(run::Options),
    /// Measures how soon a node on a long chain votes again after kill -9.
    Restart(restart::Options),
    /// Measures how long a new node takes to join a long chain by a state snapshot: real processes on loopback.
    Join(join::Options),
    /// Measures real processes against the bars that the project set itself.
    Bench(bench::Options),
    /// Simulates networks in virtual time: seeded faults, liars, and a watcher that trusts nobody.
    Sim(sim::Options),
    /// Runs real validators under seeded faults and audits their history.
    Chaos(chaos::Options),
    /// Floods a network of real processes with junk transactions and measures what honest ones feel.
    Junk(junk::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Run(options) => run::run(&options),
        Command::Restart(options) => restart::run(&options),
        Command::Join(options) => join::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Sim(options) => sim::run(&options),
        Command::Chaos(options) => chaos::run(&options),
        Command::Junk(options) => junk::run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("testnet: {error:#}");
            ExitCode::from(3)
        }
    }
}
