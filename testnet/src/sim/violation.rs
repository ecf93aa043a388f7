//! What must never happen.

/// Something that must never happen, and did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Two blocks at one height.
    #[error("fork: node {node} committed another block at height {height} than the others")]
    Fork {
        /// Who committed second.
        node: usize,
        /// Where.
        height: u64,
    },
    /// Two states after one block.
    #[error("states differ: node {node} has another state after height {height} than the others")]
    State {
        /// Who differs from the first.
        node: usize,
        /// Where.
        height: u64,
    },
    /// Credits appeared or vanished.
    #[error("supply is not conserved after height {height}: {fact}")]
    Supply {
        /// Where.
        height: u64,
        /// What does not add up.
        fact: String,
    },
    /// A block whose certificate does not carry more than two thirds of the stake.
    #[error("node {node} committed height {height} without a quorum: {fact}")]
    NoQuorum {
        /// Who.
        node: usize,
        /// Where.
        height: u64,
        /// What is missing.
        fact: String,
    },
    /// Something that was acknowledged is gone.
    #[error("node {node} lost what it acknowledged: {fact}")]
    Lost {
        /// Who.
        node: usize,
        /// What.
        fact: String,
    },
    /// An honest node said two things where it may say one.
    #[error("honest node {node} contradicted itself: {fact}")]
    Contradiction {
        /// Who.
        node: usize,
        /// What.
        fact: String,
    },
    /// Something left a node before what it depends on was durable.
    #[error("node {node} sent before it wrote: {fact}")]
    Undurable {
        /// Who.
        node: usize,
        /// What.
        fact: String,
    },
    /// An honest node was punished: slashed, accused, or blamed by an honest peer.
    #[error("honest node {node} was punished: {fact}")]
    Punished {
        /// Who.
        node: usize,
        /// By whom and for what.
        fact: String,
    },
    /// An honest node stopped.
    #[error("honest node {node} stopped: {fact}")]
    Stopped {
        /// Who.
        node: usize,
        /// Why.
        fact: String,
    },
    /// Nothing moves although nothing is wrong any more.
    #[error("no progress after everything healed: {fact}")]
    NoProgress {
        /// How far it came.
        fact: String,
    },
    /// A commit that was sent in time and left out by an honest proposer, or by all of them.
    #[error("a commit was left out at height {height}: {fact}")]
    Censored {
        /// The block that should have had it.
        height: u64,
        /// Which commit.
        fact: String,
    },
    /// A validator signed two things, and nobody punished it in time.
    #[error("an offender went unpunished until height {height}: {fact}")]
    Unpunished {
        /// Where it was noticed.
        height: u64,
        /// Who, and when it was seen.
        fact: String,
    },
    /// A verdict that does not follow from what honest judges found.
    #[error("the verdict is wrong: {fact}")]
    Verdict {
        /// What.
        fact: String,
    },
}

impl Violation {
    /// Returns its kind in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Fork { .. } => "fork",
            Self::State { .. } => "state",
            Self::Supply { .. } => "supply",
            Self::NoQuorum { .. } => "no-quorum",
            Self::Lost { .. } => "lost",
            Self::Contradiction { .. } => "contradiction",
            Self::Undurable { .. } => "undurable",
            Self::Punished { .. } => "punished",
            Self::Stopped { .. } => "stopped",
            Self::NoProgress { .. } => "no-progress",
            Self::Censored { .. } => "censored",
            Self::Unpunished { .. } => "unpunished",
            Self::Verdict { .. } => "verdict",
        }
    }
}
