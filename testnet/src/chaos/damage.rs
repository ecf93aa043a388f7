//! Damages the files of a node that is down, and fills the disk of one that runs.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::dice::Dice;
use super::plan::Target;

/// Damages files; returns what was done, in words.
pub(super) fn damage(dir: &Path, target: Target, bits: u64, dice: &mut Dice) -> Result<String> {
    let chain = dir.join("chain");
    match target {
        Target::Index => flip(&chain.join("state"), bits, dice),
        Target::Log => flip(&chain.join("log"), bits, dice),
        Target::TornLog => tear(&newest(&chain.join("log"), ".log"), bits, dice),
        Target::TornJournal => tear(&newest(&chain, "journal"), bits, dice),
    }
}

/// Flips bits anywhere in the files below a folder.
fn flip(folder: &Path, bits: u64, dice: &mut Dice) -> Result<String> {
    let mut files: Vec<(PathBuf, u64)> = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let total: u64 = files.iter().map(|(_, bytes)| *bytes).sum();
    for _ in 0..bits {
        let mut at = dice.below(total);
        for (path, length) in &files {
            if at < *length {
                let mut bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                    *byte ^= 1 << dice.below(8);
                }
                fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
                break;
            }
            at -= length;
        }
    }
    Ok(format!("{bits} of {} bits in {} files flipped", total * 8, files.len()))
}

/// First bytes of every frame of the store's files.
const FRAME_MAGIC: &[u8] = b"TYf1";

/// Appends what a write that was cut short leaves behind: the beginning of a record, or zeros where its bytes never came.
fn tear(file: &Option<PathBuf>, bytes: u64, dice: &mut Dice) -> Result<String> {
    let Some(path) = file else {
        return Ok("no such file yet: nothing torn".to_owned());
    };
    let (tail, what) = if dice.below(2) == 0 {
        let rest = (0..bytes * 4).map(|_| u8::try_from(dice.below(256)).unwrap_or(0));
        (FRAME_MAGIC.iter().copied().chain(rest).collect(), "of a record")
    } else {
        (vec![0; 16 + usize::try_from(bytes * 32).unwrap_or(0)], "zeros")
    };
    let mut out = OpenOptions::new().append(true).open(path)?;
    out.write_all(&tail).with_context(|| format!("cannot write {}", path.display()))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(format!("{} bytes {what} after the end of {name}", tail.len()))
}

fn collect(folder: &Path, out: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            collect(&entry.path(), out)?;
        } else if about.len() > 0 {
            out.push((entry.path(), about.len()));
        }
    }
    Ok(())
}

/// The file below `folder` with the last name that contains `part`.
fn newest(folder: &Path, part: &str) -> Option<PathBuf> {
    let mut files = Vec::new();
    collect(folder, &mut files).ok()?;
    let named = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part));
    files.into_iter().map(|(path, _)| path).filter(|path| named(path)).max()
}

/// Lets the files of a process grow no larger than the largest in its log plus `room` bytes.
pub(super) fn fill(pid: u32, dir: &Path, room: u64) -> Result<u64> {
    let mut files = Vec::new();
    collect(&dir.join("chain").join("log"), &mut files)?;
    let end = files.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    limit(pid, Some(end + room))?;
    Ok(end + room)
}

/// Sets or lifts the file-size limit of a process.
pub(super) fn limit(pid: u32, bytes: Option<u64>) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None })
        .context("cannot set a file-size limit")?;
    Ok(())
}
