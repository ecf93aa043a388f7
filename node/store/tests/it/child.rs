//! The test binary as its own child: a real process that can be killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{blobs, bytes, crash, full};

const MODE: &str = "TILTYARD_STORE_CHILD";
const FOLDER: &str = "TILTYARD_STORE_FOLDER";

/// What every child prints before a fact, so that the harness's own lines are not taken for one.
pub(crate) const FACT: &str = "fact: ";

/// Entry of the child: does nothing unless the harness asks for it.
#[test]
fn child() {
    let (Ok(mode), Ok(folder)) = (std::env::var(MODE), std::env::var(FOLDER)) else { return };
    let folder = Path::new(&folder);
    match mode.as_str() {
        "commit" => crash::commit_forever(folder, false),
        "lie" => crash::commit_forever(folder, true),
        "fetch" => blobs::fetch(folder),
        "empty" => bytes::commit_empty_blocks(folder),
        "full" => full::fill_disk(folder),
        other => panic!("no such mode: {other}"),
    }
}

/// Starts a child; `file_bytes_max` limits the files it can write.
pub(crate) fn start(
    mode: &str,
    folder: &Path,
    file_bytes_max: Option<u64>,
) -> (Child, impl Iterator<Item = String>) {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    // A write beyond the limit must be an error, not a signal: ignored signals are inherited.
    let limit = file_bytes_max.map_or(String::new(), |bytes| format!("ulimit -f {}; ", bytes / 512));
    command.arg("-c").arg(format!("trap '' XFSZ; {limit}exec \"$0\" child::child --exact --nocapture"));
    command.arg(program).env(MODE, mode).env(FOLDER, folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The harness prints the test's name without a line end before the first fact.
    let facts =
        lines.map_while(Result::ok).filter_map(|line| line.split_once(FACT).map(|(_, fact)| fact.to_owned()));
    (child, facts)
}
