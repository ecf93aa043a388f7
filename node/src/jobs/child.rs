//! The child's side: `tiltyard job train|eval|check DIR` and `tiltyard job exec`.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tiltyard_train::job::{run_check, run_eval, run_train};

/// Environment variable with the process id of the node that started the job.
pub(crate) const PARENT_VARIABLE: &str = "TILTYARD_JOB_PARENT";

/// Which work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Train,
    Evaluate,
    Check,
}

impl Work {
    /// The word on the command line.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Evaluate => "eval",
            Self::Check => "check",
        }
    }
}

/// Does the folder's job and returns the exit code that the folder contract gives it.
pub(crate) fn work(work: Work, dir: &Path) -> u8 {
    if let Err(fact) = tie_to_parent() {
        eprintln!("job: {fact}");
        return 4;
    }
    // Held until the process ends: a job that was killed with its node may still be dying when the next one starts.
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join("lock"))
        .and_then(|file| file.lock().map(|()| file));
    let _lock = match lock {
        Ok(file) => file,
        Err(error) => {
            eprintln!("job: cannot lock {}: {error}; check the folder and its owner", dir.display());
            return 4;
        }
    };
    let outcome = match work {
        Work::Train => run_train(dir),
        Work::Evaluate => run_eval(dir),
        Work::Check => run_check(dir),
    };
    match outcome {
        Ok(_) => 0,
        Err(error) => {
            eprintln!("job: {error}");
            error.exit_code()
        }
    }
}

/// Makes the kernel kill this process when the node dies, however it dies.
fn tie_to_parent() -> Result<(), String> {
    let Some(parent) = std::env::var(PARENT_VARIABLE).ok().and_then(|text| text.parse::<i32>().ok()) else {
        // Started by hand: nobody to die with.
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("cannot be tied to the node: {error}"))?;
    // The node may have died before the line above.
    let alive = getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == parent);
    if alive { Ok(()) } else { Err("the node that started it is gone".to_owned()) }
}

/// Becomes a miner's own trainer, which then dies when its job does; returns only when that fails.
pub(crate) fn exec(command: &[String]) -> u8 {
    let Some((program, arguments)) = command.split_first() else {
        eprintln!("job: no command was given");
        return 2;
    };
    if let Err(fact) = tie_to_parent() {
        eprintln!("job: {fact}");
        return 4;
    }
    let error = std::process::Command::new(program).args(arguments).exec();
    eprintln!("job: {program:?} cannot be started: {error}; check the path and its permissions");
    2
}
