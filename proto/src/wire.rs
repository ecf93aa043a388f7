//! Frames of the gossip topics and of the request protocols.
//!
//! A topic's name is `/tiltyard/<first 16 hex digits of the genesis hash>/<name>/1`.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::{GenesisHash, PublicKey, Signature};

use crate::block::{DecidedBlock, Header};
use crate::certificate::Certificate;
use crate::ids::{BlockHash, TransactionId};
use crate::light::LightBlock;
use crate::snapshot::{SnapshotChunk, SnapshotCut};
use crate::transaction::SignedTransaction;
use crate::units::{Height, Round};
use crate::vote::{SignedProposal, SignedVote, VoteKind};

/// The gossip topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Topic {
    /// Task announcements: post, accept, cancel.
    Tasks,
    /// Signed checkpoint hashes: commits and reveals.
    Checkpoints,
    /// Every other transaction.
    Transactions,
    /// Votes and proposals.
    Consensus,
    /// Proposed blocks.
    Bodies,
    /// Decided headers with certificates.
    Blocks,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 6] =
        [Self::Tasks, Self::Checkpoints, Self::Transactions, Self::Consensus, Self::Bodies, Self::Blocks];

    /// Returns the topic's full name on the network of `genesis`.
    #[must_use]
    pub fn full_name(self, genesis: &GenesisHash) -> String {
        let prefix: String = genesis.to_string().chars().take(16).collect();
        let name = match self {
            Self::Tasks => "tasks",
            Self::Checkpoints => "checkpoints",
            Self::Transactions => "tx",
            Self::Consensus => "consensus",
            Self::Bodies => "bodies",
            Self::Blocks => "blocks",
        };
        format!("/tiltyard/{prefix}/{name}/1")
    }
}

/// Frame of the three transaction topics: 1..n canonical signed transactions, ≤ 64 KiB in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionFrame {
    /// Canonical bytes of one signed transaction each.
    pub transactions: Vec<ByteBuf>,
}

/// Votes of one kind that prove a round's outcome, as the consensus core exchanges them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteProof {
    /// Which votes, when all are of one kind; the round certificate of a skip mixes kinds.
    pub votes: Vec<SignedVote>,
    /// Height of the votes.
    pub height: Height,
    /// Round of the votes.
    pub round: Round,
}

/// A message of the consensus topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConsensusMessage {
    /// One vote.
    Vote(SignedVote),
    /// One proposal.
    Proposal(SignedProposal),
    /// More than 2/3 prevotes for one block.
    Polka {
        /// The block.
        block: BlockHash,
        /// The prevotes.
        proof: VoteProof,
    },
    /// Why a round was left: more than 1/3 votes of a later round, or more than 2/3 precommits.
    RoundChange {
        /// Which kind of round certificate: `Prevote` for a skip, `Precommit` for a full round.
        kind: VoteKind,
        /// The votes.
        proof: VoteProof,
    },
}

/// Frame of the consensus topic. The counter lies outside every signature, so that a re-sent message is a new frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusFrame {
    /// 0 the first time, larger each time the message is sent again.
    pub counter: u64,
    /// The message.
    pub message: ConsensusMessage,
}

/// Frame of the bodies topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyFrame {
    /// 0 the first time, larger each time the block is sent again.
    pub counter: u64,
    /// Canonical block bytes.
    pub block: ByteBuf,
    /// Round it is offered in.
    pub round: Round,
    /// Who sends it: the round's proposer.
    pub sender: PublicKey,
    /// The sender's body signature over height ‖ round ‖ block hash, integers big-endian.
    pub signature: Signature,
}

impl BodyFrame {
    /// Returns the signed payload.
    #[must_use]
    pub fn payload(height: Height, round: Round, block: &BlockHash) -> Vec<u8> {
        [&height.get().to_be_bytes()[..], &round.get().to_be_bytes()[..], block.as_bytes()].concat()
    }
}

/// Frame of the blocks topic; its message id is a function of network and height alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFrame {
    /// The decided header.
    pub header: Header,
    /// What decided it.
    pub certificate: Certificate,
}

/// Asks a peer for blocks or pending transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// Where are you?
    Status,
    /// Decided blocks from `from`, at most `max` and at most 4 MiB.
    Blocks {
        /// First height wanted.
        from: Height,
        /// Most blocks wanted (≤ 64).
        max: u32,
    },
    /// A proposed block that has not been decided yet.
    Body {
        /// Its hash.
        block: BlockHash,
    },
    /// Ids of pending transactions.
    PendingIds,
    /// Pending transactions by id (≤ 256).
    Pending {
        /// The ids.
        ids: Vec<TransactionId>,
    },
    /// A decided header with everything needed to judge it.
    LightBlock {
        /// Its height.
        height: Height,
    },
    /// Which snapshots can be had?
    Snapshots,
    /// The subtrees that a snapshot's chunks are.
    SnapshotCut {
        /// Height of the block that the snapshot is after.
        height: Height,
    },
    /// One chunk of a snapshot.
    SnapshotChunk {
        /// Height of the block that the snapshot is after.
        height: Height,
        /// The chunk's place in the cut, from 0.
        index: u32,
    },
}

/// Answers a [`SyncRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncResponse {
    /// Tip and first block kept.
    Status {
        /// Height of the last decided block.
        tip: Height,
        /// First height whose block is kept.
        first: Height,
    },
    /// Consecutive decided blocks.
    Blocks(Vec<DecidedBlock>),
    /// The proposed block's canonical bytes, if known.
    Body(Option<ByteBuf>),
    /// Ids of pending transactions (≤ 4,096).
    PendingIds(Vec<TransactionId>),
    /// Canonical bytes of pending transactions.
    Pending(Vec<ByteBuf>),
    /// The header asked for, if it is kept and its sets are known.
    LightBlock(Option<Box<LightBlock>>),
    /// Heights of the snapshots that can be had, ascending (≤ 8).
    Snapshots(Vec<Height>),
    /// The cut asked for, if the snapshot is kept.
    SnapshotCut(Option<SnapshotCut>),
    /// The chunk asked for, if the snapshot is kept and has it.
    SnapshotChunk(Option<SnapshotChunk>),
}

/// Names a peer: the multihash bytes of its libp2p peer id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Peer(ByteBuf);

impl Peer {
    /// Wraps the multihash bytes of a peer id.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(ByteBuf::from(bytes))
    }

    /// Returns the multihash bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A gossip message after strict decoding, before any signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GossipMessage {
    /// Signed transactions on one of the three transaction topics.
    Transactions(Topic, Vec<SignedTransaction>),
    /// A vote, proposal or proof.
    Consensus(ConsensusFrame),
    /// A proposed block.
    Body(BodyFrame),
    /// A decided header.
    Block(Box<BlockFrame>),
}

/// What becomes of a gossip message after it was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Acceptance {
    /// Valid: forward it.
    Accept,
    /// Of no use, but no fault of the sender's: do not forward it.
    Ignore,
    /// Provably bad: do not forward it and lower the sender's score.
    Reject,
}
