//! What goes wrong, when, and for how long: drawn from a seed, bounded.

use std::fmt;

use serde::Serialize;

use super::dice::Dice;

/// How the nodes of one side lose those of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Cut {
    /// Bytes are held back and delivered late, as by a network that loses its route for a while.
    Held,
    /// Connections break and new ones are refused.
    Broken,
    /// Bytes of the first side to the second are held back; those of the other direction pass.
    OneWay,
}

/// Which files of a stopped node are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Target {
    /// Bits of the state index are flipped.
    Index,
    /// Bits of decided blocks are flipped; they must come again from peers.
    Log,
    /// Bytes of a block that was never finished follow the block log's last one.
    TornLog,
    /// Bytes of a record that was never finished follow the vote journal's last one.
    TornJournal,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fault")]
pub(super) enum Fault {
    /// kill -9, started again at the end.
    Kill { nodes: Vec<usize> },
    /// SIGSTOP, SIGCONT at the end.
    Pause { nodes: Vec<usize> },
    /// The nodes of `side` and all others lose each other.
    Split { side: Vec<usize>, cut: Cut },
    /// Everything to and from a node arrives later.
    Slow { node: usize, delay_ms: u64 },
    /// The disk takes no more than this many bytes after the block log's end.
    Full { node: usize, room_bytes: u64 },
    /// The process is killed, and its files are damaged while it is down: so many bits, or a tail as long as they say.
    Damage { node: usize, target: Target, bits: u64 },
    /// The clock of the machine is set wrong.
    Clock { node: usize, offset_ms: i64 },
}

/// A fault in time. Times are milliseconds from when all nodes first agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) at_ms: u64,
    pub(super) lasts_ms: u64,
    #[serde(flatten)]
    pub(super) fault: Fault,
}

/// Shortest and longest time that a fault lasts, and that the network has between two, in milliseconds.
const LASTS_MS: (u64, u64) = (1_500, 6_000);
const PAUSE_MS: (u64, u64) = (1_000, 3_500);
/// Wrong clocks, in milliseconds: within and beyond what a fresh block may differ.
const OFFSETS_MS: [i64; 6] = [-3_600_000, -90_000, -5_000, 5_000, 30_000, 3_600_000];
const KINDS: u64 = 10;

/// Draws faults until there are `faults` of them or the last one ends after `limit_ms`.
///
/// Two faults out of three are alone; the others begin while the one before lasts, on whatever nodes: then more than a
/// third may be away, and the network may stand still until they are back.
pub(super) fn draw(seed: u64, nodes: usize, faults: usize, limit_ms: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed, "plan");
    let mut steps: Vec<Step> = Vec::new();
    let mut free_ms = 0;
    while steps.len() < faults {
        let last = steps.last();
        let with_last = last.is_some_and(|last| last.at_ms + last.lasts_ms == free_ms) && dice.below(3) == 0;
        let (pause, lasts_ms) = (dice.between(PAUSE_MS.0, PAUSE_MS.1), dice.between(LASTS_MS.0, LASTS_MS.1));
        let at_ms = match last {
            Some(last) if with_last => last.at_ms + last.lasts_ms / 2,
            Some(_) | None => free_ms + pause,
        };
        let fault = draw_fault(&mut dice, nodes);
        // One process has one fault at a time: what a fault undoes at its end must be what it did.
        let clash = last.is_some_and(|last| with_last && last.fault.touches(&fault));
        if clash {
            continue;
        }
        free_ms = free_ms.max(at_ms + lasts_ms);
        if free_ms > limit_ms {
            break;
        }
        // The next fault may join this one only when it stands alone.
        if with_last {
            free_ms += 1;
        }
        steps.push(Step { at_ms, lasts_ms, fault });
    }
    steps
}

fn draw_fault(dice: &mut Dice, nodes: usize) -> Fault {
    let node = dice.index(nodes);
    match dice.below(KINDS) {
        0 | 1 => {
            let count = [1, 1, 2, nodes][dice.index(4)];
            Fault::Kill { nodes: dice.some(count, nodes) }
        }
        2 => {
            let count = [1, 2][dice.index(2)];
            Fault::Pause { nodes: dice.some(count, nodes) }
        }
        3 | 4 => {
            let count = 1 + dice.index(nodes / 2);
            let cut = [Cut::Held, Cut::Broken, Cut::OneWay][dice.index(3)];
            Fault::Split { side: dice.some(count, nodes), cut }
        }
        5 => Fault::Slow { node, delay_ms: dice.between(20, 300) },
        6 => Fault::Full { node, room_bytes: dice.below(2_000) },
        7 | 8 => {
            let target = [Target::Index, Target::Log, Target::TornLog, Target::TornJournal][dice.index(4)];
            Fault::Damage { node, target, bits: dice.between(1, 16) }
        }
        _ => Fault::Clock { node, offset_ms: OFFSETS_MS[dice.index(OFFSETS_MS.len())] },
    }
}

impl Fault {
    /// The processes that it stops, kills or starts.
    pub(super) fn processes(&self) -> Vec<usize> {
        match self {
            Self::Kill { nodes } | Self::Pause { nodes } => nodes.clone(),
            Self::Split { .. } | Self::Slow { .. } => Vec::new(),
            Self::Full { node, .. } | Self::Damage { node, .. } | Self::Clock { node, .. } => vec![*node],
        }
    }

    fn is_of_links(&self) -> bool {
        matches!(self, Self::Split { .. } | Self::Slow { .. })
    }

    fn touches(&self, other: &Self) -> bool {
        let ours = self.processes();
        other.processes().iter().any(|node| ours.contains(node))
            || (self.is_of_links() && other.is_of_links())
    }

    /// The one word for its kind.
    #[cfg(test)]
    const fn word(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Pause { .. } => "pause",
            Self::Split { .. } => "split",
            Self::Slow { .. } => "slow",
            Self::Full { .. } => "full",
            Self::Damage { .. } => "damage",
            Self::Clock { .. } => "clock",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { nodes } => write!(f, "kill -9 nodes {nodes:?}"),
            Self::Pause { nodes } => write!(f, "SIGSTOP nodes {nodes:?}"),
            Self::Split { side, cut: Cut::Held } => write!(f, "nodes {side:?} lose the route to the others"),
            Self::Split { side, cut: Cut::Broken } => write!(f, "nodes {side:?} are cut off from the others"),
            Self::Split { side, cut: Cut::OneWay } => write!(f, "nodes {side:?} are not heard by the others"),
            Self::Slow { node, delay_ms } => write!(f, "node {node} is {delay_ms} ms away"),
            Self::Full { node, room_bytes } => {
                write!(f, "disk of node {node} is full {room_bytes} bytes beyond the log's end")
            }
            Self::Damage { node, target: Target::Index, bits } => {
                write!(f, "kill -9 node {node}, flip {bits} bits of its state index")
            }
            Self::Damage { node, target: Target::Log, bits } => {
                write!(f, "kill -9 node {node}, flip {bits} bits of its block log")
            }
            Self::Damage { node, target: Target::TornLog, .. } => {
                write!(f, "kill -9 node {node}, tear its block log")
            }
            Self::Damage { node, target: Target::TornJournal, .. } => {
                write!(f, "kill -9 node {node}, tear its vote journal")
            }
            Self::Clock { node, offset_ms } => {
                write!(f, "kill -9 node {node}, back with a clock {:+.0} s off", *offset_ms as f64 / 1_000.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_its_plan_again_and_another_seed_another() {
        assert_eq!(draw(7, 4, 12, u64::MAX), draw(7, 4, 12, u64::MAX));
        assert_ne!(draw(7, 4, 12, u64::MAX), draw(8, 4, 12, u64::MAX));
        // What comes later does not move what comes before.
        assert_eq!(draw(7, 4, 12, u64::MAX)[..6], draw(7, 4, 6, u64::MAX));
    }

    #[test]
    fn plans_keep_their_bounds() {
        for seed in 0..200 {
            let steps = draw(seed, 4, 40, 90_000);
            assert!(!steps.is_empty() && steps.iter().all(|step| step.at_ms + step.lasts_ms <= 90_000));
            for (at, step) in steps.iter().enumerate() {
                assert!((LASTS_MS.0..=LASTS_MS.1).contains(&step.lasts_ms));
                assert!(step.fault.processes().iter().all(|node| *node < 4));
                let together =
                    steps.iter().skip(at + 1).filter(|other| other.at_ms <= step.at_ms + step.lasts_ms);
                for other in together {
                    assert!(!step.fault.touches(&other.fault), "seed {seed}: {step:?} and {other:?}");
                }
            }
        }
    }

    #[test]
    fn every_kind_of_fault_is_drawn() {
        let steps: Vec<Step> = (0..40).flat_map(|seed| draw(seed, 4, 12, u64::MAX)).collect();
        for word in ["kill", "pause", "split", "slow", "full", "damage", "clock"] {
            assert!(steps.iter().any(|step| step.fault.word() == word), "{word}");
        }
    }
}
