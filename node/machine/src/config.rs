//! What a machine starts from, and why it stops.

use tiltyard_keys::SecretKey;
use tiltyard_ledger::{AdmitError, ExecuteError, ReadError};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::genesis::{Genesis, GenesisError};
use tiltyard_proto::ids::{BlockHash, TransactionId};
use tiltyard_proto::snapshot::SnapshotCut;
use tiltyard_proto::units::{Blocks, Height};
use tiltyard_proto::wire::Peer;

use crate::io::RoleEntry;
use crate::mempool::MempoolLimits;
use crate::roles::{RoleConfig, RoleSecret};

/// What a machine is told once.
#[derive(Debug)]
pub struct Config {
    /// The network; checked by [`Genesis::decode`].
    pub genesis: Genesis,
    /// This node's own name among peers.
    pub peer: Peer,
    /// Consensus key; none for nodes that do not validate.
    pub validator: Option<SecretKey>,
    /// Heights that a validator listens to before it signs, where its journal does not tell what its key said before.
    /// 0 turns the protection off: for simulated liars, who hear what they said themselves.
    pub twin_wait: Blocks,
    /// Account that mines and posts.
    pub account: SecretKey,
    /// What the node takes part in.
    pub roles: RoleConfig,
    /// Hides commitments; drawn once when the node was set up.
    pub role_secret: RoleSecret,
    /// Limits of the mempool.
    pub mempool: MempoolLimits,
    /// How a state snapshot is joined by; none to fetch blocks only.
    pub join: Option<JoinConfig>,
}

/// How a node without blocks joins by a state snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinConfig {
    /// A block that the user trusts, by height and hash; headers are proven from it. Without it they are proven from
    /// the genesis document.
    pub checkpoint: Option<(Height, BlockHash)>,
}

/// A join that an earlier life began.
#[derive(Debug, Clone)]
pub struct JoinState {
    /// The block whose state is fetched.
    pub decided: DecidedBlock,
    /// Cut of its state.
    pub cut: SnapshotCut,
    /// Chunks that are kept.
    pub have: Vec<u32>,
}

/// What the store brings back after a start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Last durable block; the state is the one after it.
    pub tip: Option<DecidedBlock>,
    /// Vote journal entries, oldest first.
    pub journal: Vec<Vec<u8>>,
    /// Proposed blocks: name, height, canonical bytes.
    pub bodies: Vec<(BlockHash, Height, Vec<u8>)>,
    /// Role entries.
    pub roles: Vec<RoleEntry>,
    /// A snapshot that was being fetched.
    pub joining: Option<JoinState>,
    /// Whether the chain here begins with a snapshot: what was signed before is not known.
    pub begun_by_snapshot: bool,
}

/// Says why the machine cannot go on: the node must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// The genesis document is refused.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The state cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ledger itself cannot go on.
    #[error(transparent)]
    Ledger(ExecuteError),
    /// The store confirmed something that was not asked for.
    #[error("store says height {given} is durable, asked was {asked:?}; stop the node and check its store")]
    Committed {
        /// Height confirmed.
        given: Height,
        /// Height being committed.
        asked: Option<Height>,
    },
    /// More than 2/3 of the stake decided a block that this node finds invalid.
    #[error(
        "block {block} at height {height} was decided, but is invalid here ({fact}); this program and the network disagree: stop and upgrade"
    )]
    DecidedInvalid {
        /// Its height.
        height: Height,
        /// The block.
        block: BlockHash,
        /// Why it is invalid here.
        fact: String,
    },
}

impl From<ExecuteError> for MachineError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Read(error) => Self::Read(error),
            ExecuteError::Invalid(_) | ExecuteError::Broken { .. } => Self::Ledger(error),
        }
    }
}

/// Says why a transaction is not taken into the mempool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It may not be in the next block.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// It waits already.
    #[error("transaction {id} is waiting already; nothing to do")]
    Known {
        /// The transaction.
        id: TransactionId,
    },
    /// Another transaction with the same number pays as much.
    #[error(
        "another transaction with this nonce waits; pay more than {fee} micro-credits to replace it, or wait"
    )]
    Taken {
        /// Fee of the one that waits.
        fee: u64,
    },
    /// Too many of one sender.
    #[error("{max} transactions of this sender wait; wait until some are in a block")]
    SenderFull {
        /// Most that may wait.
        max: usize,
    },
    /// No room and nothing cheaper to evict.
    #[error("the mempool is full of better paying transactions; pay more or wait")]
    Full,
    /// The nonce is too far ahead.
    #[error("nonce is too far ahead of the account's {next}; send the missing ones first")]
    Gap {
        /// The account's next nonce.
        next: u64,
    },
}
