//! What a node needs of its chain store, on disk ([`crate::Store`]) or in memory ([`crate::memory::MemoryStore`]).

use tiltyard_ledger::{ChangeSet, StateRead};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::ids::{BlockHash, TransactionId};
use tiltyard_proto::units::Height;

use crate::append::Salvage;
use crate::bodies::BodyEntry;
use crate::error::StoreError;
use crate::log::LogReport;
use crate::recover::RebuildReport;
use crate::snapshot::JoinProgress;
use crate::state::TransactionPlace;

/// What a node knows of its past when it starts.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The last decided block; `None` before the first one.
    pub tip: Option<DecidedBlock>,
    /// Entries of the vote journal since its last reset, in order.
    pub journal: Vec<Vec<u8>>,
    /// Proposed bodies above the tip, in the order they were saved.
    pub bodies: Vec<BodyEntry>,
    /// Entries of the roles, sorted by key.
    pub roles: Vec<(Vec<u8>, Vec<u8>)>,
    /// How the state index was brought to the log's end; `None` when it was there already.
    pub rebuilt: Option<RebuildReport>,
    /// A snapshot that was being fetched.
    pub joining: Option<JoinProgress>,
    /// Whether the log begins with a snapshot's block, not with genesis: what this node's keys signed before is not
    /// known here.
    pub begun_by_snapshot: bool,
    /// What was damaged, and what became of it.
    pub damage: Damage,
}

/// What a start found damaged. Nothing of it was dropped: it lies aside, and peers have what is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// The block log.
    pub log: LogReport,
    /// Blocks that are missing in the log.
    pub missing_blocks: u64,
    /// The vote journal: what this node signed is unknown.
    pub journal: Option<Salvage>,
    /// The proposed bodies: some that this node voted for may be gone.
    pub bodies: Option<Salvage>,
    /// The memory of the roles: some entries may be gone.
    pub roles: Option<Salvage>,
}

/// A decided block with what it changes.
#[derive(Debug, Clone, Copy)]
pub struct CommitRef<'a> {
    /// Block and certificate.
    pub decided: &'a DecidedBlock,
    /// What it changes.
    pub changes: &'a ChangeSet,
    /// Transaction ids, in block order, with `true` where the action took effect.
    pub outcomes: &'a [(TransactionId, bool)],
}

/// Writes chain data. Every method returns when its effect is durable; after an error the node must stop.
pub trait ChainStore {
    /// Reads the state after the last commit, and the blocks.
    type Reader: ChainRead + Clone;

    /// Returns a reader that sees each commit.
    fn reader(&self) -> Self::Reader;

    /// Keeps a proposed block's canonical bytes until a block of its height or above is committed.
    ///
    /// # Errors
    /// [`StoreError`]; the body then does not count as kept.
    fn save_body(&mut self, block: BlockHash, height: Height, bytes: &[u8]) -> Result<(), StoreError>;

    /// Appends an entry to the vote journal.
    ///
    /// # Errors
    /// [`StoreError`]; the vote must then not leave.
    fn journal(&mut self, entry: &[u8]) -> Result<(), StoreError>;

    /// Empties the vote journal for a new height and makes `first` its only entry.
    ///
    /// # Errors
    /// [`StoreError`]; the old entries then still count.
    fn reset_journal(&mut self, first: &[u8]) -> Result<(), StoreError>;

    /// Appends the block to the log, then writes the state, then forgets bodies that it made useless.
    ///
    /// # Errors
    /// [`StoreError::NotNext`] for a block that does not continue the tip, or what the disk says. The block may then be
    /// in the log all the same: the next start tells.
    fn commit(&mut self, commit: CommitRef<'_>) -> Result<(), StoreError>;

    /// Keeps a role's entry; an empty value removes the key.
    ///
    /// # Errors
    /// [`StoreError`]; the old value then still counts.
    fn save_role(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError>;
}

/// Reads chain data. [`StateRead`] answers from the state after the last commit.
pub trait ChainRead: StateRead {
    /// Returns the height of the last committed block; 0 before the first one.
    fn tip(&self) -> Height;

    /// Returns the first height whose block is kept; `None` before the first one.
    fn first(&self) -> Option<Height>;

    /// Returns a decided block; `None` when its height is not kept.
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] when its bytes are no longer what they were.
    fn block(&self, height: Height) -> Result<Option<DecidedBlock>, StoreError>;

    /// Returns where a committed transaction is; `None` when it is in no block that is kept.
    ///
    /// # Errors
    /// [`StoreError`] when the index cannot tell.
    fn transaction(&self, id: &TransactionId) -> Result<Option<TransactionPlace>, StoreError>;

    /// Returns consecutive decided blocks from `from`: at most `max`, and no more than fit `bytes_max` encoded (but
    /// always the first).
    ///
    /// # Errors
    /// [`StoreError::DamagedBlock`] when a block's bytes are no longer what they were.
    fn blocks(&self, from: Height, max: u32, bytes_max: usize) -> Result<Vec<DecidedBlock>, StoreError> {
        let mut found = Vec::new();
        let mut bytes = 0usize;
        let mut height = from;
        while found.len() < usize::try_from(max).unwrap_or(usize::MAX) {
            let Some(decided) = self.block(height)? else { break };
            bytes = bytes.saturating_add(tiltyard_proto::codec::encode(&decided).len());
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(decided);
            height = height.next();
        }
        Ok(found)
    }
}

/// Refuses a commit that does not continue `tip` or contradicts itself.
pub(crate) fn check_next(tip: (Height, BlockHash), commit: &CommitRef<'_>) -> Result<(), StoreError> {
    let header = &commit.decided.block.header;
    let hash = header.hash();
    let certificate = &commit.decided.certificate;
    let fact = if header.height != tip.0.next() {
        Some("its height is not the next one")
    } else if header.parent != tip.1 {
        Some("its parent is another block")
    } else if header.state_root != commit.changes.state_root {
        Some("its changes lead to another state than its header says")
    } else if certificate.height != header.height || certificate.block != hash {
        Some("its certificate is another block's")
    } else if commit.outcomes.len() != commit.decided.block.body.transactions.len() {
        Some("it has more or fewer outcomes than transactions")
    } else {
        None
    };
    match fact {
        Some(fact) => Err(StoreError::NotNext { height: header.height, hash, tip: tip.0, fact }),
        None => Ok(()),
    }
}
