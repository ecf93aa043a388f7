//! Runs one job folder, as the node's child processes do: `job train|eval|check DIR`.

use std::path::PathBuf;
use std::process::ExitCode;

use tiltyard_train::job::{run_check, run_eval, run_train};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (Some(command), Some(folder)) = (words.next(), words.next().map(PathBuf::from)) else {
        eprintln!("usage: job train|eval|check DIR");
        return ExitCode::from(2);
    };
    let outcome = match command.as_str() {
        "train" => run_train(&folder),
        "eval" => run_eval(&folder),
        "check" => run_check(&folder),
        other => {
            eprintln!("there is no job {other:?}; there are train, eval and check");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(result) => {
            println!("{}", serde_json::to_string_pretty(&result).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
