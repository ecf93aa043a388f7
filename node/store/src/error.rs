//! What can go wrong with chain data on disk. Every variant stops the node: none is a peer's fault.

use std::io;
use std::path::{Path, PathBuf};

use tiltyard_keys::GenesisHash;
use tiltyard_proto::ids::{BlockHash, StateRoot};
use tiltyard_proto::units::Height;

/// Says why chain data cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}; check the path, its owner and the disk", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No room: disk, quota or file size limit. What was being written is not acknowledged.
    #[error("cannot {action} {}: {source}; free some space and start again, nothing acknowledged is lost", path.display())]
    Full {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk is filled up to the reserve: nothing new is signed before a write can fail.
    #[error("{free} bytes are free for {}, less than the reserve of {reserve}; free some space and start again", path.display())]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
    /// Another process has the folder open.
    #[error("{} is held by another running node; stop it first, or give this one its own folder", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The folder belongs to another network.
    #[error("{} belongs to network {found}, not to {expected}; use another data folder or the right genesis", path.display())]
    Foreign {
        /// The file that says so.
        path: PathBuf,
        /// Network of the file.
        found: GenesisHash,
        /// Network that was asked for.
        expected: GenesisHash,
    },
    /// Bytes that were once acknowledged are no longer what they were. Nothing was dropped.
    #[error("{} is damaged at byte {offset}: {fact}; restore it from a copy, or move the folder away and sync anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged record starts, in bytes.
        offset: u64,
        /// What does not fit.
        fact: String,
    },
    /// A damaged block of the log.
    #[error("block {height} in {} is damaged at byte {offset}: {fact}; restore it from a copy or from peers", path.display())]
    DamagedBlock {
        /// The block that cannot be read, or the one that should come next.
        height: Height,
        /// The segment.
        path: PathBuf,
        /// Where its record starts, in bytes.
        offset: u64,
        /// What does not fit.
        fact: String,
    },
    /// A block that does not continue the tip.
    #[error(
        "block {height} ({hash}) does not continue the stored tip {tip}: {fact}; this is a fault of the program, report it"
    )]
    NotNext {
        /// Height offered.
        height: Height,
        /// Its hash.
        hash: BlockHash,
        /// Height of the stored tip.
        tip: Height,
        /// What does not fit.
        fact: &'static str,
    },
    /// The state index knows a height that the log does not have.
    #[error(
        "state index is at height {state}, the log ends at {log}; restore the log from a copy, or move the folder away and sync anew"
    )]
    Ahead {
        /// Height of the state index.
        state: Height,
        /// Last height of the log.
        log: Height,
    },
    /// A block that the state needs is missing in the log.
    #[error(
        "block {height} is missing in the log; the start cuts the log before it and has it again from peers"
    )]
    Hole {
        /// The missing height.
        height: Height,
    },
    /// Re-execution of a logged block leads elsewhere.
    #[error(
        "re-executing block {height} gives state {found}, its header says {expected}; this program applies other rules than the one that wrote the log"
    )]
    Diverged {
        /// The block.
        height: Height,
        /// Root computed.
        found: StateRoot,
        /// Root in the header.
        expected: StateRoot,
    },
    /// A logged block cannot be executed.
    #[error(
        "re-executing block {height}: {fact}; this program applies other rules than the one that wrote the log"
    )]
    Replay {
        /// The block; 0 for genesis.
        height: Height,
        /// What the ledger says.
        fact: String,
    },
    /// The state cannot be made again: the log does not reach back to genesis, and no snapshot lies below it.
    #[error(
        "the log begins at block {first} and no snapshot is there to start from; move the chain folder away and join anew from peers"
    )]
    NoBase {
        /// First block of the log.
        first: Height,
    },
    /// A snapshot is fetched that was not begun.
    #[error("no snapshot is being fetched; this is a fault of the program, report it")]
    NotJoining,
    /// The state index failed while in use; it is rebuilt at the next start.
    #[error("state index failed: {fact}; start the node again, the index is then rebuilt from the log")]
    Index {
        /// What the database says.
        fact: String,
    },
    /// An entry larger than its place allows.
    #[error("{what} has {length} bytes, at most {max} are kept; this is a fault of the caller")]
    TooLarge {
        /// What was to be kept.
        what: &'static str,
        /// Its size in bytes.
        length: u64,
        /// Most allowed, in bytes.
        max: u64,
    },
    /// An earlier write failed; what is on disk is uncertain until the next start.
    #[error("{} refused a write before; start the node again", path.display())]
    Poisoned {
        /// The file.
        path: PathBuf,
    },
}

/// Says whether an I/O error means that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl StoreError {
    /// Wraps a failed system call, telling a full disk from the rest.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if is_full(&source) { Self::Full { action, path, source } } else { Self::Io { action, path, source } }
    }

    /// Says whether there was no room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NoSpace { .. })
    }
}
