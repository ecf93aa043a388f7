//! The trace of a run: a running hash of everything that happened, in order.

use std::fmt::Write as _;

/// Hashes what happens. Prints it too, when asked.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    lines: Option<String>,
}

impl Trace {
    /// Keeps readable lines beside the hash.
    pub(crate) fn keep_lines(&mut self) {
        self.lines = Some(String::new());
    }

    /// Notes that something happened; `line` is called only when lines are kept.
    pub(crate) fn note(
        &mut self,
        at_ms: u64,
        node: usize,
        what: u8,
        detail: &[u8],
        line: impl FnOnce() -> String,
    ) {
        self.hasher.update(&at_ms.to_be_bytes());
        self.hasher.update(&[node as u8, what]);
        self.hasher.update(&(detail.len() as u64).to_be_bytes());
        self.hasher.update(detail);
        if let Some(lines) = &mut self.lines {
            // Writing to a string does not fail.
            let _written = writeln!(lines, "{at_ms:>7} {node} {}", line());
        }
    }

    /// Returns the hash so far.
    pub(crate) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// Returns the lines kept.
    pub(crate) fn take_lines(&mut self) -> Option<String> {
        self.lines.take()
    }
}
