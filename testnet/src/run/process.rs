//! One node as an operating-system process: started, killed, started again, stopped, weighed.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::Role;

/// Where one node lives and how to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Name for people, such as `validator-2`.
    pub(crate) name: String,
    /// What it does.
    pub(crate) role: Role,
    /// Data folder.
    pub(crate) dir: PathBuf,
    /// Base URL of its HTTP API.
    pub(crate) url: String,
}

/// A node process.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    binary: PathBuf,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn new(place: Place, binary: &Path) -> Self {
        Self { place, binary: binary.to_owned(), child: None }
    }

    /// Starts the process; its output goes to `node.log` in its folder.
    pub(crate) fn start(&mut self) -> Result<()> {
        let log = open_log(&self.place.dir.join("node.log"))?;
        let child = Command::new(&self.binary)
            .arg("run")
            .arg("--dir")
            .arg(&self.place.dir)
            .arg("--role")
            .arg(self.place.role.word())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log file")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Fails when the process has ended by itself, with the last lines of its log.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        if let Some(status) = child.try_wait().context("cannot ask for the process's state")? {
            let log = self.log_tail(15);
            bail!("{} ended by itself ({status}); its last words:\n{log}", self.place.name);
        }
        Ok(())
    }

    /// Kills the process the hard way: no signal handler runs, nothing is flushed.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("cannot kill the process")?;
            child.wait().context("cannot reap the process")?;
        }
        Ok(())
    }

    /// Asks the process to end.
    pub(crate) fn ask_to_stop(&self) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            // Already gone is as good as stopped.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until the process has ended; kills it after `patience`. Returns whether it ended by itself.
    pub(crate) fn reap(&mut self, patience: Duration, tick: &dyn Fn(Duration)) -> Result<bool> {
        let Some(mut child) = self.child.take() else {
            return Ok(true);
        };
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if child.try_wait().context("cannot ask for the process's state")?.is_some() {
                return Ok(true);
            }
            tick(Duration::from_millis(20));
        }
        child.kill().context("cannot kill the process")?;
        child.wait().context("cannot reap the process")?;
        Ok(false)
    }

    /// Returns the last lines of the node's log.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(self.place.dir.join("node.log")).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whatever went wrong, nothing that was started here stays behind.
        let _ = self.kill();
    }
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Resident memory of a process, and of it with all its descendants, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weight {
    pub(crate) own_kib: u64,
    pub(crate) tree_kib: u64,
}

/// Weighs processes by `/proc`; a process that has ended weighs nothing.
pub(crate) fn weigh(pids: &[u32]) -> Vec<Weight> {
    let table = process_table();
    pids.iter()
        .map(|pid| {
            let own_kib = resident_kib(*pid);
            let mut tree_kib = own_kib;
            let mut open = vec![*pid];
            while let Some(parent) = open.pop() {
                for (child, _) in table.iter().filter(|(_, of)| *of == parent) {
                    tree_kib += resident_kib(*child);
                    open.push(*child);
                }
            }
            Weight { own_kib, tree_kib }
        })
        .collect()
}

fn process_table() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The command may hold spaces and parentheses; fields begin after the last one.
            let fields = stat.rsplit(')').next()?;
            Some((pid, fields.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect()
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
