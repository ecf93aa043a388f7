//! What goes into the machine and what comes out.
//!
//! The shell executes the effects of one step **in order**, and finishes a durable effect (fsync included) before it
//! begins the next one. A crash may happen between any two effects.

use tiltyard_consensus::{JournalWrite, Sealed};
use tiltyard_keys::PublicKey;
use tiltyard_ledger::ChangeSet;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::ids::{BlobRoot, BlockHash, SealKey, TaskId, TransactionId};
use tiltyard_proto::manifest::{BlobRef, Manifest};
use tiltyard_proto::recipe::Recipe;
use tiltyard_proto::score::Row;
use tiltyard_proto::snapshot::SnapshotCut;
use tiltyard_proto::task::TaskSpec;
use tiltyard_proto::transaction::VerifiedTransaction;
use tiltyard_proto::units::Height;
use tiltyard_proto::wire::{Acceptance, GossipMessage, Peer, SyncRequest, SyncResponse, Topic};

use crate::event::Event;

/// Names a gossip message until it is judged; made by the network shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageToken(pub u64);

/// Names a request until it is answered; made by whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestToken(pub u64);

/// Names a timer; setting one again replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId(pub u64);

/// Names a job of the node: training or evaluation in a child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobId {
    /// Checks whether a task can be judged here.
    Check(TaskId),
    /// Trains for a task.
    Train(TaskId),
    /// Scores one row of a task.
    Evaluate(TaskId, u32),
}

/// What a job is to do. Running the same job again continues it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Loads base and data of a task and estimates its cost; everything is already in the blob store.
    Check {
        /// The task.
        task: TaskId,
        /// As posted.
        spec: Box<TaskSpec>,
    },
    /// Trains by the node's strategy; continues from its newest checkpoint.
    Train {
        /// The task.
        task: TaskId,
        /// As posted.
        spec: Box<TaskSpec>,
        /// Whose seed is used.
        miner: PublicKey,
    },
    /// Scores the untouched base (no subject) or an entrant's checkpoint.
    Evaluate {
        /// The task.
        task: TaskId,
        /// Row.
        row: u32,
        /// As posted.
        spec: Box<TaskSpec>,
        /// Opens the evaluation set.
        key: SealKey,
        /// The checkpoint, already in the blob store.
        subject: Option<BlobRoot>,
    },
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobOutcome {
    /// The task can be judged within this node's limits.
    Checked,
    /// It cannot, and why.
    Refused {
        /// The fact, for people.
        fact: String,
    },
    /// A checkpoint is ready, its files in the blob store under the manifest's root.
    Trained {
        /// The checkpoint.
        manifest: Box<Manifest>,
        /// How it was made.
        recipe: Box<Recipe>,
        /// Step from which a killed run continued; 0 if it never was.
        resumed_from_step: u32,
    },
    /// A row is ready.
    Evaluated {
        /// The row.
        row: Row,
    },
    /// Inputs on this disk are damaged or gone: they are fetched again, and the job is done anew.
    Lost {
        /// The blobs.
        blobs: Vec<BlobRoot>,
    },
    /// The job ended without result.
    Failed {
        /// The fact, for people.
        fact: String,
    },
}

/// Who may fetch a blob from this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Anyone.
    Public,
    /// These peers only.
    Peers(Vec<Peer>),
    /// Nobody.
    Nobody,
}

/// Decided blocks in a row that this node's log lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// First one.
    pub from: Height,
    /// Last one.
    pub to: Height,
    /// Hash of the last one, as the block after it names it.
    pub hash: BlockHash,
}

/// What can happen to a node.
#[derive(Debug, Clone)]
pub enum Input {
    /// The shell is up; peers may be there. Given once, first.
    Start,
    /// A timer that was set has run out.
    Timer(TimerId),
    /// A gossip message arrived; answered by [`Effect::Report`].
    Gossip {
        /// Names it.
        token: MessageToken,
        /// Who forwarded it.
        from: Peer,
        /// What it says.
        message: Box<GossipMessage>,
    },
    /// A peer asks; answered by [`Effect::Respond`].
    Request {
        /// Names the request.
        token: RequestToken,
        /// Who asks.
        from: Peer,
        /// What is asked.
        request: SyncRequest,
    },
    /// An answer to [`Effect::Ask`].
    Response {
        /// Names the request.
        token: RequestToken,
        /// Who answers.
        from: Peer,
        /// The answer, or `None` when the peer failed.
        response: Option<Box<SyncResponse>>,
    },
    /// A peer connected and can be asked.
    PeerUp(Peer),
    /// A peer is gone.
    PeerDown(Peer),
    /// A peer subscribed to a topic: what it may have missed is sent again.
    Subscribed(Peer, Topic),
    /// [`Effect::Commit`] is durable.
    Committed(Height),
    /// A local client offers a transaction.
    Submit(Box<VerifiedTransaction>),
    /// A blob that was asked for is complete and verified, or could not be had.
    Blob {
        /// Its root.
        root: BlobRoot,
        /// Whether it is here.
        held: bool,
    },
    /// A job ended.
    JobEnded {
        /// Which.
        id: JobId,
        /// How.
        outcome: Box<JobOutcome>,
    },
    /// The log lost blocks, or has them all again. Given after [`Effect::Repair`] too, with what is missing still.
    Missing(Option<Missing>),
    /// A requester's key for a task that this node opens when it is due.
    KeepKey {
        /// Root of the sealed set's file set; names the key until the task has an id.
        ciphertext: BlobRoot,
        /// The key.
        key: SealKey,
    },
}

/// Entries that roles keep across restarts: `(key, value)`; an empty value removes the key.
pub type RoleEntry = (Vec<u8>, Vec<u8>);

/// A decided block with what it changes.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Block and certificate.
    pub decided: DecidedBlock,
    /// What it changes.
    pub changes: ChangeSet,
    /// Transaction ids, in block order, with `true` where the action took effect.
    pub outcomes: Vec<(TransactionId, bool)>,
}

/// What the shell must do, in order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Durable: keeps a proposed block's canonical bytes until a higher block is committed.
    SaveBody {
        /// Its hash.
        block: BlockHash,
        /// Its height.
        height: Height,
        /// Its canonical bytes.
        bytes: Vec<u8>,
    },
    /// Durable: appends an entry to the vote journal. The write gives the [`tiltyard_consensus::Durable`] that opens
    /// what [`Effect::Say`] seals.
    Journal(JournalWrite),
    /// Durable: empties the vote journal for a new height and makes this its first entry; as [`Effect::Journal`].
    ResetJournal(JournalWrite),
    /// Durable: appends the block to the log, then writes the state; answered by [`Input::Committed`].
    Commit(Box<Commit>),
    /// Durable: puts blocks that the log lost back in their places, the last one first; answered by
    /// [`Input::Missing`].
    Repair(Vec<DecidedBlock>),
    /// Durable: keeps a role's entry.
    SaveRole(RoleEntry),
    /// Durable: begins to keep a snapshot; what was kept of another one is forgotten.
    BeginSnapshot {
        /// The block whose state it is.
        decided: Box<DecidedBlock>,
        /// Its verified cut.
        cut: SnapshotCut,
    },
    /// Keeps a verified chunk of the snapshot; lost chunks are fetched again.
    SaveChunk {
        /// The chunk's place in the cut.
        index: u32,
        /// Its canonical bytes.
        bytes: Vec<u8>,
    },
    /// Durable: the snapshot is whole. The shell makes the state from it, begins the log with its block, and starts a
    /// new machine on them; this one is of no more use.
    FinishSnapshot {
        /// Height of the block whose state it is.
        height: Height,
    },
    /// Forgets the snapshot that was being fetched.
    DropSnapshot,
    /// Publishes what the validator key says: canonical bytes of a frame, sealed until the journal is durable.
    Say {
        /// Topic.
        topic: Topic,
        /// Frame bytes.
        frame: Sealed<Vec<u8>>,
    },
    /// Publishes a frame's canonical bytes.
    Publish {
        /// Topic.
        topic: Topic,
        /// Frame bytes.
        bytes: Vec<u8>,
    },
    /// Judges a gossip message.
    Report {
        /// Names it.
        token: MessageToken,
        /// Who forwarded it.
        from: Peer,
        /// The judgement.
        acceptance: Acceptance,
    },
    /// Asks a peer.
    Ask {
        /// Names the request.
        token: RequestToken,
        /// Whom.
        to: Peer,
        /// What.
        request: SyncRequest,
    },
    /// Answers a peer.
    Respond {
        /// Names the request.
        token: RequestToken,
        /// The answer.
        response: Box<SyncResponse>,
    },
    /// A peer gave what it should not have.
    Penalize {
        /// Who.
        peer: Peer,
        /// What, for the log.
        fact: &'static str,
    },
    /// Sets a timer.
    SetTimer {
        /// Names it.
        id: TimerId,
        /// Runs out after so many milliseconds of the monotonic clock.
        after_ms: u64,
    },
    /// Forgets a timer.
    CancelTimer(TimerId),
    /// Fetches a blob and keeps it; answered by [`Input::Blob`].
    Fetch {
        /// Which, and how large at most.
        blob: BlobRef,
        /// Its manifest, where the ledger already has it.
        manifest: Option<Box<Manifest>>,
    },
    /// Says who may fetch a blob from here.
    Serve {
        /// Which.
        root: BlobRoot,
        /// Who.
        audience: Audience,
    },
    /// Deletes a blob.
    Drop(BlobRoot),
    /// Starts or continues a job; answered by [`Input::JobEnded`].
    StartJob {
        /// Names it.
        id: JobId,
        /// What to do.
        job: Box<Job>,
    },
    /// Asks a training job to finish with its best checkpoint so far.
    FinishJob(JobId),
    /// Ends a job and forgets its folder.
    CancelJob(JobId),
    /// Tells people and clients.
    Notify(Event),
    /// The node must not sign any more (its durable state contradicts it); the chain is still followed.
    StopSigning {
        /// Why.
        fact: String,
    },
}
