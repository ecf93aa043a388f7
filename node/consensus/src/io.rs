//! What goes into consensus and what comes out.

use tiltyard_keys::PublicKey;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::genesis::Params;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Height, Round, UnixMillis};
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_proto::wire::ConsensusMessage;

use crate::durable::{JournalWrite, Sealed};

/// The shell's clocks at the moment of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; only differences mean anything.
    pub mono_ms: u64,
    /// The wall clock; may jump.
    pub unix: UnixMillis,
}

/// Which step of a round a timer bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// Waiting for a proposal.
    Propose,
    /// Waiting for prevotes to agree.
    Prevote,
    /// Waiting for precommits to agree.
    Precommit,
    /// Sends this node's last votes again.
    Rebroadcast,
}

/// Names a timer of one height and round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsensusTimer {
    /// Height that it belongs to; a timer of another height is of no effect.
    pub height: Height,
    /// What it bounds.
    pub kind: TimerKind,
    /// Round that it belongs to.
    pub round: Round,
}

/// Round timeouts in milliseconds; each later round adds half of the first one's, up to a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Propose timeout of round 0.
    pub propose_ms: u64,
    /// Prevote timeout of round 0.
    pub prevote_ms: u64,
    /// Precommit timeout of round 0.
    pub precommit_ms: u64,
    /// Rebroadcast interval of round 0.
    pub rebroadcast_ms: u64,
}

const TIMEOUT_MS_MAX: u64 = 60_000;

impl Timeouts {
    /// Takes the timeouts from a network's parameters.
    #[must_use]
    pub fn of(params: &Params) -> Self {
        Self {
            propose_ms: u64::from(params.propose_timeout_ms),
            prevote_ms: u64::from(params.prevote_timeout_ms),
            precommit_ms: u64::from(params.precommit_timeout_ms),
            rebroadcast_ms: u64::from(params.rebroadcast_ms),
        }
    }

    /// Returns how long a timer of `kind` runs in `round`, in milliseconds.
    #[must_use]
    pub fn after_ms(&self, kind: TimerKind, round: Round) -> u64 {
        let base = match kind {
            TimerKind::Propose => self.propose_ms,
            TimerKind::Prevote => self.prevote_ms,
            TimerKind::Precommit => self.precommit_ms,
            TimerKind::Rebroadcast => self.rebroadcast_ms,
        };
        let grown = (base / 2).saturating_mul(u64::from(round.get()));
        base.saturating_add(grown).min(TIMEOUT_MS_MAX)
    }
}

/// A proposed block after the caller executed it. Given only once the block's bytes are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// The block.
    pub block: BlockHash,
    /// Height it is for.
    pub height: Height,
    /// Round it was offered in.
    pub round: Round,
    /// Who offered it.
    pub proposer: PublicKey,
    /// Whether it may become the block of this height.
    pub valid: bool,
}

/// What can happen to consensus.
#[derive(Debug, Clone)]
pub enum ConsensusInput {
    /// Starts a height; everything of an earlier height is forgotten.
    Start {
        /// The height; its parent is durable.
        height: Height,
        /// The set that decides it.
        set: ValidatorSet,
        /// Journal batches of this height from before a restart, oldest first.
        journal: Vec<Vec<u8>>,
    },
    /// A message of another validator that [`crate::Authenticator::check`] passed.
    Message(ConsensusMessage),
    /// A proposed block was executed.
    Judged(Judged),
    /// Answers [`ConsensusOutput::Build`] with a block that is durable and valid.
    Propose {
        /// Round that was asked for.
        round: Round,
        /// The block.
        block: BlockHash,
    },
    /// A timer ran out.
    Timer(ConsensusTimer),
    /// The height was decided elsewhere: nothing more happens until the next start.
    Stop,
    /// A peer may have missed what this node said: say it again.
    SayAgain,
}

/// What the caller must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsensusOutput {
    /// Make this batch durable before anything after it happens.
    Journal {
        /// The batch replaces everything in the journal (first batch of a height).
        fresh: bool,
        /// The batch.
        batch: JournalWrite,
    },
    /// Send a message to the validators.
    Publish {
        /// The message, sealed until the journal holds why it is said.
        message: Sealed<ConsensusMessage>,
        /// Peers may have seen these exact bytes: they need a new frame to get through.
        again: bool,
    },
    /// This node proposes: build a block and answer with [`ConsensusInput::Propose`].
    Build {
        /// Height.
        height: Height,
        /// Round.
        round: Round,
    },
    /// Send the bytes of a known block again, as offered in a round by this node.
    Restream {
        /// The block.
        block: BlockHash,
        /// Round.
        round: Round,
    },
    /// Sets a timer; setting one again replaces it.
    SetTimer {
        /// Names it.
        timer: ConsensusTimer,
        /// Runs out after so many milliseconds.
        after_ms: u64,
    },
    /// Forgets a timer.
    CancelTimer(ConsensusTimer),
    /// A round began.
    RoundStarted {
        /// Height.
        height: Height,
        /// Round.
        round: Round,
        /// Who proposes in it.
        proposer: PublicKey,
    },
    /// The height is decided; nothing more happens until the next start.
    Decided(Certificate),
    /// Something that should not happen did, without harm to safety; for the log.
    Trouble {
        /// What, for people.
        fact: String,
    },
    /// The durable journal contradicts what this node would say now: it must never sign again.
    Halted {
        /// Why, for people.
        fact: String,
    },
}
