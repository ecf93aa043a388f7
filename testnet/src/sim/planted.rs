//! Bugs planted in the shell around the machines, to show that the checks see them.
//!
//! A planted bug lives in this simulator alone: in the order in which effects are carried out, in what the disk keeps,
//! or in what the state shows when it is read. No crate of the node knows of it.

use super::plan::Treason;
use super::shape::Shape;

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Bug {
    /// Everything of a step is sent before anything of it is written.
    SendBeforeWrite,
    /// A restart reads the vote journal of the height before. (Without any journal the node would not sign at once.)
    ForgottenJournal,
    /// Proposed bodies are not kept.
    DroppedBodies,
    /// The journal is written but not synced.
    UnsyncedJournal,
    /// A block counts as durable before it is synced.
    EarlyAcknowledgement,
    /// A restart finds the disk as it was 20 writes before.
    RestoredBackup,
    /// Settlement loses a micro-credit when it writes the first balance after a verdict.
    SettlementRounding,
    /// One node meets the entrants of a task in another order.
    UnsortedEntrants,
    /// The first validator's stake is read as four times what it is, so that too few make a quorum.
    WeakQuorum,
    /// One node loses one value of every tenth block.
    LostWrite,
    /// One node reads accounts from a cache that is never refreshed.
    StaleCache,
    /// A timer that is set again while it runs out is forgotten.
    ForgottenRearm,
    /// Blocks asked for by a peer begin one too late.
    SyncOffByOne,
    /// A torn commit is not finished at the restart: the log has the block, the state does not.
    SkippedReplay,
    /// Every judge scores every entrant as the untouched base.
    WrongScores,
    /// One node's network shell flips a bit in the votes that it takes in.
    FlippedBit,
    /// One node hears no transactions: its blocks leave out what was sent in time.
    DeafProposer,
    /// Every offence reads as punished already.
    ForgivenOffence,
    /// A state made from a snapshot lacks the last chunk that holds anything, and its root is taken on trust.
    ShortJoin,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 19] = [
        Self::SendBeforeWrite,
        Self::ForgottenJournal,
        Self::DroppedBodies,
        Self::UnsyncedJournal,
        Self::EarlyAcknowledgement,
        Self::RestoredBackup,
        Self::SettlementRounding,
        Self::UnsortedEntrants,
        Self::WeakQuorum,
        Self::LostWrite,
        Self::StaleCache,
        Self::ForgottenRearm,
        Self::SyncOffByOne,
        Self::SkippedReplay,
        Self::WrongScores,
        Self::FlippedBit,
        Self::DeafProposer,
        Self::ForgivenOffence,
        Self::ShortJoin,
    ];

    /// Returns the shape in which it can be seen: a promise about time is kept to the block in a calm network only, and
    /// an offence needs an offender.
    #[must_use]
    pub fn shape(self, shape: Shape) -> Shape {
        let shape = Shape { planted: Some(self), ..shape };
        match self {
            Self::DeafProposer => shape.calm(),
            Self::ForgivenOffence => Shape { byzantine: 1, ..shape }.with_treason(Treason::Equivocate).calm(),
            Self::SendBeforeWrite
            | Self::ForgottenJournal
            | Self::DroppedBodies
            | Self::UnsyncedJournal
            | Self::EarlyAcknowledgement
            | Self::RestoredBackup
            | Self::SettlementRounding
            | Self::UnsortedEntrants
            | Self::WeakQuorum
            | Self::LostWrite
            | Self::StaleCache
            | Self::ForgottenRearm
            | Self::SyncOffByOne
            | Self::SkippedReplay
            | Self::WrongScores
            | Self::FlippedBit
            | Self::ShortJoin => shape,
        }
    }

    /// Returns its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        use clap::ValueEnum as _;
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
