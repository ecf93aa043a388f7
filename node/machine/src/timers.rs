//! Names of timers: one number space for everything that waits.

use tiltyard_consensus::{ConsensusTimer, TimerKind};
use tiltyard_proto::units::{Height, Round};

use crate::io::TimerId;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A step of agreement.
    Consensus(ConsensusTimer),
    /// The next height may start.
    Pace,
    /// A starting node has listened long enough.
    Listen,
    /// Waiting transactions leave.
    Flush,
    /// Own transactions are offered again, and a peer's pending ids are asked for.
    Offer,
    /// Progress of sync is looked at.
    Sync,
    /// Missing bodies are asked for.
    Pull,
    /// What this node said at this height is said again to newcomers.
    SayAgain,
}

const TAG_SHIFT: u32 = 60;
const KIND_SHIFT: u32 = 58;
const ROUND_SHIFT: u32 = 42;
const ROUND_MASK: u64 = 0xffff;
const HEIGHT_MASK: u64 = (1 << ROUND_SHIFT) - 1;

impl Timer {
    /// Returns the timer's name. Rounds above 65,535 share one, which no height reaches.
    pub(crate) fn id(self) -> TimerId {
        let simple = |tag: u64| TimerId(tag << TAG_SHIFT);
        match self {
            Self::Consensus(timer) => {
                let kind: u64 = match timer.kind {
                    TimerKind::Propose => 0,
                    TimerKind::Prevote => 1,
                    TimerKind::Precommit => 2,
                    TimerKind::Rebroadcast => 3,
                };
                let round = u64::from(timer.round.get()).min(ROUND_MASK);
                let height = timer.height.get() & HEIGHT_MASK;
                TimerId((1 << TAG_SHIFT) | (kind << KIND_SHIFT) | (round << ROUND_SHIFT) | height)
            }
            Self::Pace => simple(2),
            Self::Flush => simple(3),
            Self::Offer => simple(4),
            Self::Sync => simple(5),
            Self::Pull => simple(6),
            Self::SayAgain => simple(7),
            Self::Listen => simple(8),
        }
    }

    /// Reads a timer's name; `None` for one that this machine never made.
    pub(crate) fn of(id: TimerId) -> Option<Self> {
        Some(match id.0 >> TAG_SHIFT {
            1 => {
                let kind = match (id.0 >> KIND_SHIFT) & 3 {
                    0 => TimerKind::Propose,
                    1 => TimerKind::Prevote,
                    2 => TimerKind::Precommit,
                    _ => TimerKind::Rebroadcast,
                };
                let round = u32::try_from((id.0 >> ROUND_SHIFT) & ROUND_MASK).ok()?;
                let height = Height::new(id.0 & HEIGHT_MASK);
                Self::Consensus(ConsensusTimer { height, kind, round: Round::new(round) })
            }
            2 => Self::Pace,
            3 => Self::Flush,
            4 => Self::Offer,
            5 => Self::Sync,
            6 => Self::Pull,
            7 => Self::SayAgain,
            8 => Self::Listen,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_read_back_from_its_name() {
        let consensus = |kind, round, height| {
            let (height, round) = (Height::new(height), Round::new(round));
            Timer::Consensus(ConsensusTimer { height, kind, round })
        };
        let all = [
            consensus(TimerKind::Propose, 0, 1),
            consensus(TimerKind::Prevote, 3, 70_000),
            consensus(TimerKind::Precommit, 65_535, (1 << 42) - 1),
            consensus(TimerKind::Rebroadcast, 1, 9),
            Timer::Pace,
            Timer::Listen,
            Timer::Flush,
            Timer::Offer,
            Timer::Sync,
            Timer::Pull,
            Timer::SayAgain,
        ];
        for timer in all {
            assert_eq!(Timer::of(timer.id()), Some(timer));
        }
        let mut ids: Vec<TimerId> = all.iter().map(|timer| timer.id()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all.len());
    }
}
