//! The rules of the market that an action can break.

use tiltyard_keys::PublicKey;
use tiltyard_proto::evidence::EvidenceError;
use tiltyard_proto::ids::{BlobRoot, TaskId};
use tiltyard_proto::manifest::ManifestError;
use tiltyard_proto::recipe::RecipeError;
use tiltyard_proto::score::RowError;
use tiltyard_proto::state::Phase;
use tiltyard_proto::units::{Height, MicroCredits, Stake};

/// Says why an action broke a rule of the market. The transaction stays in the block and pays its fee.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarketError {
    /// Not enough credits.
    #[error("{needed} micro-credits are needed, the account holds {balance}; get credits first")]
    Balance {
        /// What the action takes.
        needed: MicroCredits,
        /// What is there.
        balance: MicroCredits,
    },
    /// An amount of zero.
    #[error("an amount of zero moves nothing; give a positive one")]
    NothingToDo,
    /// No faucet on this network.
    #[error("this network has no faucet; ask its people for credits")]
    NoFaucet,
    /// The key drew from the faucet not long ago.
    #[error("the faucet gives to this key again from height {again}")]
    FaucetTooSoon {
        /// First height of the next draw.
        again: Height,
    },
    /// Too many draws in one block.
    #[error("the faucet has given {draws} times in this block; try in the next one")]
    FaucetBusy {
        /// Draws so far.
        draws: u32,
    },
    /// All 64-bit numbers of micro-credits are issued.
    #[error("no more credits can be issued on this network")]
    SupplyExhausted,
    /// No such task.
    #[error("task {task} does not exist; check the id")]
    UnknownTask {
        /// The task.
        task: TaskId,
    },
    /// The phase is not there yet.
    #[error("task {task} is in phase {phase:?}, this belongs to {needed:?}; wait for it")]
    TooEarly {
        /// The task.
        task: TaskId,
        /// Where it is.
        phase: Phase,
        /// Where it would have to be.
        needed: Phase,
    },
    /// The phase is over.
    #[error("task {task} closed this at height {closed}, it is {at} now; nothing can be done")]
    Late {
        /// The task.
        task: TaskId,
        /// Height of the block.
        at: Height,
        /// Last height at which it would have counted.
        closed: Height,
    },
    /// Only the requester may.
    #[error("only requester {requester} may do this")]
    NotRequester {
        /// Who may.
        requester: PublicKey,
    },
    /// A number of a post outside its limits.
    #[error("post: {field} is {value}; {remedy}")]
    PostNumber {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What would be accepted.
        remedy: &'static str,
    },
    /// The bond asked for would not pay for the judging.
    #[error("post: a bond of {bond} is below {needed}, the price of judging one entrant; raise it")]
    PostBond {
        /// The bond given.
        bond: MicroCredits,
        /// The smallest accepted.
        needed: MicroCredits,
    },
    /// The rows do not fit into the opening window.
    #[error(
        "post: opening all rows needs a window of {needed} blocks, it has {window}; lengthen score_open or allow fewer entrants"
    )]
    PostOpenWindow {
        /// Blocks given.
        window: u64,
        /// Blocks needed.
        needed: u64,
    },
    /// Too many tasks live at once.
    #[error("{live} tasks are live, no more fit; wait until one is over")]
    TooManyTasks {
        /// Tasks that are not over.
        live: usize,
    },
    /// Not a member of the running validator set.
    #[error("{key} is not in the running validator set; bond stake and wait for the next epoch")]
    NotValidator {
        /// The sender.
        key: PublicKey,
    },
    /// Accepted before.
    #[error("the task is accepted by this validator already")]
    AlreadyAccepted,
    /// Not in the task's committee.
    #[error("{key} is not in the task's committee, which was frozen when it opened")]
    NotInCommittee {
        /// The sender.
        key: PublicKey,
    },
    /// Bond, stamp and reference flag do not go together.
    #[error("a commit has either a bond, or a stamp, or is the reference; give exactly one")]
    CommitForm,
    /// The bond is below what is asked.
    #[error("a bond of {bond} is below {needed}; raise it")]
    BondTooLow {
        /// The bond given.
        bond: MicroCredits,
        /// The smallest accepted.
        needed: MicroCredits,
    },
    /// The task is full and the bond evicts nobody.
    #[error("all places are taken; a bond of {needed} takes one until height {until}")]
    Full {
        /// The bond that would take a place.
        needed: MicroCredits,
        /// Last height at which anybody is evicted.
        until: Height,
    },
    /// All places without bond are taken.
    #[error("all {max} places without bond are taken; enter with a bond")]
    UnbondedFull {
        /// Places without bond.
        max: u8,
    },
    /// Not enough work in the stamp.
    #[error("the stamp has {bits} zero bits, {needed} are needed; search on")]
    StampInvalid {
        /// Bits found.
        bits: u32,
        /// Bits needed.
        needed: u8,
    },
    /// The same commitment again.
    #[error("this commitment is already on the ledger; commit again only to replace it by another")]
    CommitUnchanged,
    /// A replacement of another sort: bonded, stamped or reference.
    #[error("a commit is replaced only by one of its own sort, with a bond at least as high")]
    CommitSort,
    /// A second commit without fee.
    #[error("a stamp frees the first commit of its fee only; pay {needed} to replace it")]
    ReplacementFee {
        /// The smallest fee.
        needed: MicroCredits,
    },
    /// The task names no reference recipe.
    #[error("the task names no reference recipe; enter without the reference flag")]
    NoReference,
    /// Someone else entered the reference.
    #[error("{miner} entered the reference recipe already")]
    ReferenceTaken {
        /// Who did.
        miner: PublicKey,
    },
    /// A requester in its own race.
    #[error("a requester may not enter its own task, except with the reference recipe")]
    RequesterEnters,
    /// Nothing to reveal.
    #[error("{miner} has no live commit in this task; it may have been evicted")]
    NoCommit {
        /// The sender.
        miner: PublicKey,
    },
    /// Revealed before.
    #[error("the commit is revealed already")]
    AlreadyRevealed,
    /// Refused manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Refused recipe.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The reveal opens another commitment: another's checkpoint, another salt, other bytes.
    #[error("manifest and salt do not open the sender's own commitment; reveal exactly what was committed")]
    NotTheCommit,
    /// The manifest is of no kind that can be entered.
    #[error("a checkpoint's manifest must be of kind adapter or model, with a weights file of that kind")]
    CheckpointKind,
    /// A checkpoint of another base.
    #[error("the checkpoint belongs to base {found:?}, the task asks for {needed}")]
    WrongBase {
        /// The base named.
        found: Option<BlobRoot>,
        /// The task's base.
        needed: BlobRoot,
    },
    /// A checkpoint larger than the task allows.
    #[error("the checkpoint has {bytes} bytes, the task allows {max}")]
    CheckpointTooLarge {
        /// Sum of its file sizes.
        bytes: u64,
        /// The task's limit.
        max: u64,
    },
    /// Manifest and recipe do not belong together.
    #[error("the manifest does not name the hash of the recipe that is revealed")]
    RecipeMismatch,
    /// The reference entrant reveals another recipe.
    #[error("the recipe is not the task's reference recipe")]
    NotTheReference,
    /// A bit field of the wrong shape.
    #[error("a bit field of {bytes} bytes does not fit {entrants} revealed entrants")]
    Bitmap {
        /// Bytes given.
        bytes: usize,
        /// Entrants it stands for.
        entrants: usize,
    },
    /// Says only what was said before.
    #[error("all of this was said before")]
    NothingNew,
    /// The key is on the ledger.
    #[error("the evaluation key of the task is on the ledger already")]
    KeyAlreadyOpen,
    /// Not the key that was committed to.
    #[error("this is not the key whose hash was posted")]
    WrongKey,
    /// Scores were sealed before.
    #[error("scores of this validator are sealed already")]
    AlreadyScored,
    /// No sealed scores to open.
    #[error("this validator sealed no scores in time")]
    NoScores,
    /// No such row.
    #[error("row {row} does not exist; the task has {rows} rows")]
    NoSuchRow {
        /// The row given.
        row: u32,
        /// Rows of the task.
        rows: u32,
    },
    /// Opened before.
    #[error("row {row} of this validator is open already")]
    RowAlreadyOpen {
        /// The row.
        row: u32,
    },
    /// Refused row.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The row is not the one that was sealed.
    #[error("row, path, root and salt do not open the sealed scores")]
    NotTheScores,
    /// The key has no validator record.
    #[error("{key} has no stake; bond some first")]
    NoStake {
        /// The sender.
        key: PublicKey,
    },
    /// Only the present payout key may revoke.
    #[error("only {payout}, the payout account of {validator}, may revoke; sign with its key")]
    NotPayoutKey {
        /// The validator.
        validator: PublicKey,
        /// Its payout account.
        payout: PublicKey,
    },
    /// Stake that would be, or stay, below the smallest.
    #[error("stake would be {stake} credits, the smallest is {needed}; bond more, or unbond all")]
    StakeTooSmall {
        /// What would be bonded.
        stake: Stake,
        /// The smallest allowed.
        needed: Stake,
    },
    /// More than is bonded.
    #[error("{bonded} credits are bonded; unbond at most that")]
    StakeTooLarge {
        /// What is bonded.
        bonded: Stake,
    },
    /// Total stake at its limit.
    #[error("total stake would reach 2^61 credits; bond less")]
    StakeTotal,
    /// Double signer.
    #[error("{key} signed two things where it may sign one and may never validate again; use another key")]
    Tombstoned {
        /// The sender.
        key: PublicKey,
    },
    /// Too many validator records.
    #[error("{count} keys hold stake, no more fit; wait until one has left")]
    ValidatorsFull {
        /// Records there are.
        count: usize,
    },
    /// Too many parts of stake on their way out.
    #[error("{count} parts of this stake are on their way out; wait until one has returned")]
    UnbondingsFull {
        /// Parts there are.
        count: usize,
    },
    /// Not in jail.
    #[error("this validator is not in jail")]
    NotJailed,
    /// Still in jail.
    #[error("this validator may unjail from height {until}")]
    StillJailed {
        /// First height.
        until: Height,
    },
    /// Peer id or addresses too long or too many.
    #[error("a validator has a peer id of 1 to 64 bytes and up to 8 addresses of up to 128 bytes")]
    Whereabouts,
    /// Evidence of a height too far back, or of the future.
    #[error("evidence is of height {height}; accepted are {oldest} to {newest}")]
    EvidenceAge {
        /// Height of the offence.
        height: Height,
        /// Oldest height accepted.
        oldest: Height,
        /// Newest height accepted.
        newest: Height,
    },
    /// The accused was not in the set.
    #[error("{key} was not in the validator set of height {height}")]
    NotInSet {
        /// The accused.
        key: PublicKey,
        /// Height of the offence.
        height: Height,
    },
    /// Punished before.
    #[error("{key} was punished for height {height} already")]
    AlreadyPunished {
        /// The accused.
        key: PublicKey,
        /// Height of the offence.
        height: Height,
    },
    /// Evidence that proves nothing.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}
