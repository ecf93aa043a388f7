//! What a run is asked to be, besides its seed.

use std::collections::BTreeSet;

use super::disk::{Damage, WriteFate};
use super::plan::{Fault, Timed, Treason};
use super::planted::Bug;

/// The number of the one crash that a shape may ask for; not one of those that are drawn.
pub(crate) const STRIKE: usize = 99;
/// The number of the loss of a disk, which is drawn beside the other faults.
pub(crate) const WIPE: usize = 98;

/// What a run is asked to be, besides its seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Validators; each also mines, the last one posts a task.
    pub nodes: usize,
    /// How many of them are byzantine.
    pub byzantine: usize,
    /// Blocks that every honest node must reach.
    pub heights: u64,
    /// A bug to be found.
    pub planted: Option<Bug>,
    /// Faults of the plan that happen, by their number; all if none is named.
    pub only: Option<BTreeSet<usize>>,
    /// What every byzantine node does; drawn for each if none is named.
    pub treason: Option<Treason>,
    /// No faults, and a network that loses nothing: what liars alone can do, with every promise about time checked.
    pub calm: bool,
    /// One crash at one effect, beside whatever else is planned.
    pub strike: Option<Strike>,
    /// Validators bond, leave and come back in every run, not in a few.
    pub life: bool,
}

impl core::fmt::Display for Strike {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let fate = match self.fate {
            WriteFate::Lost => "lost",
            WriteFate::Kept => "kept",
            WriteFate::Torn => "torn",
        };
        write!(f, "{}:{}:{fate}", self.node, self.effect)
    }
}

impl core::str::FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?}: write NODE:EFFECT:FATE, for example 1:120:torn");
        let [node, effect, fate] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(form());
        };
        let fate = match fate {
            "lost" => WriteFate::Lost,
            "kept" => WriteFate::Kept,
            "torn" => WriteFate::Torn,
            _ => return Err(form()),
        };
        let (node, effect) = (node.parse().map_err(|_| form())?, effect.parse().map_err(|_| form())?);
        Ok(Self { node, effect, fate })
    }
}

/// A crash at one effect of one node, counted from its first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// Which node.
    pub node: usize,
    /// Effects that it carries out before it dies.
    pub effect: u64,
    /// What becomes of the write under way, if it is one.
    pub fate: WriteFate,
}

impl Shape {
    /// The usual shape: 30 heights, nothing planted.
    #[must_use]
    pub fn of(nodes: usize, byzantine: usize) -> Self {
        Self {
            nodes,
            byzantine,
            heights: 30,
            planted: None,
            only: None,
            treason: None,
            calm: false,
            strike: None,
            life: false,
        }
    }

    /// The same without faults of disk, network and clocks.
    #[must_use]
    pub fn calm(self) -> Self {
        Self { calm: true, ..self }
    }

    /// The same with byzantine nodes that all do one thing.
    #[must_use]
    pub fn with_treason(self, treason: Treason) -> Self {
        Self { treason: Some(treason), ..self }
    }

    /// Most byzantine validators that the protocol promises to bear: fewer than a third.
    #[must_use]
    pub fn tolerated(&self) -> usize {
        self.nodes.saturating_sub(1) / 3
    }
}

impl Strike {
    /// The fault that it is. The node comes back within the same round after an even effect, heights later after an
    /// odd one.
    pub(crate) fn timed(self) -> Timed {
        let Self { node, effect, fate } = self;
        let for_ms = if effect.is_multiple_of(2) { 30 } else { 900 };
        Timed { at_ms: 0, for_ms, fault: Fault::Crash { node, effects: effect, fate, damage: Damage::None } }
    }
}
