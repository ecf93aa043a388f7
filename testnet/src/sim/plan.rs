//! What goes wrong in one run, drawn from its seed before it starts.

use std::collections::BTreeSet;

use super::disk::{Damage, WriteFate};
use super::join;
use super::life::{self, Step};
use super::random::Dice;
use super::shape::{STRIKE, Shape};

/// Virtual milliseconds before which nothing goes wrong: nodes have met by then.
const CALM_MS: u64 = 1_200;
/// How far a clock may jump: an hour.
const CLOCK_MS_MAX: u64 = 3_600_000;
/// How far every clock may be off: below the bound at which blocks are refused.
const SKEW_MS_MAX: u64 = 3_000;

/// The network when nothing is wrong with it.
pub(crate) const FAIR: Weather = Weather { lost_percent: 0, twice_percent: 0, jitter_ms: 5 };

/// How bad the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Frames lost, in percent.
    pub lost_percent: u64,
    /// Frames delivered twice, in percent.
    pub twice_percent: u64,
    /// Delay added to a frame, at most; what makes frames overtake each other.
    pub jitter_ms: u64,
}

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A node dies after so many effects and comes back.
    Crash {
        /// Which node.
        node: usize,
        /// Effects carried out after the start of the fault and before the crash.
        effects: u64,
        /// What becomes of the write under way.
        fate: WriteFate,
        /// What is found broken on its disk.
        damage: Damage,
    },
    /// Nothing passes between two sides.
    Partition {
        /// Nodes of one side, a bit each.
        side: u64,
        /// Whether the connections between the sides end, and are made again afterwards.
        hang_up: bool,
    },
    /// Nothing passes from one node to another; the way back is open.
    Cut {
        /// From.
        from: usize,
        /// To.
        to: usize,
    },
    /// The network is bad.
    Storm(Weather),
    /// A node's clock jumps, and jumps back.
    Clock {
        /// Which node.
        node: usize,
        /// By how much, in milliseconds.
        by_ms: i64,
    },
    /// A node stands still; what is sent to it waits.
    Freeze {
        /// Which node.
        node: usize,
    },
    /// A node loses its whole disk, and joins again by a snapshot.
    Wipe {
        /// Which node.
        node: usize,
        /// Whether it dies once more, after so many effects, and with what fate of a write.
        again: Option<(u64, WriteFate)>,
    },
}

impl Fault {
    /// Leaves a disk's bodies whole.
    fn spare_bodies(&mut self) {
        if let Self::Crash { damage: damage @ Damage::Bodies, .. } = self {
            *damage = Damage::None;
        }
    }
}

/// A fault with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// When it begins, in virtual milliseconds.
    pub at_ms: u64,
    /// How long it lasts, in milliseconds.
    pub for_ms: u64,
    /// What.
    pub fault: Fault,
}

/// How a byzantine validator behaves; most have several ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Treason {
    /// Proposes two blocks and votes for both, one to each half of the network.
    Equivocate,
    /// Says nothing in agreement.
    Silent,
    /// Says everything late, and old things again.
    Stale,
    /// Speaks to some only.
    Selective,
    /// Proposes blocks whose bodies nobody gets.
    Withhold,
    /// Proposes blocks whose state root is wrong.
    WrongRoot,
    /// Takes nobody's transactions into its blocks.
    Censor,
    /// Sends messages in others' names, headers that nobody decided and proposals out of turn.
    Forge,
    /// Claims blocks that it has not, and gives damaged ones.
    Lie,
    /// Scores one miner well whatever it brings.
    Collude,
    /// Seals scores and does not open them.
    HideScores,
}

impl Treason {
    const ALL: [Self; 11] = [
        Self::Equivocate,
        Self::Silent,
        Self::Stale,
        Self::Selective,
        Self::Withhold,
        Self::WrongRoot,
        Self::Censor,
        Self::Forge,
        Self::Lie,
        Self::Collude,
        Self::HideScores,
    ];

    /// Returns its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        use clap::ValueEnum as _;
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Everything that a seed decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What was asked for.
    pub shape: Shape,
    /// The network when nothing else is wrong.
    pub weather: Weather,
    /// Milliseconds from node to node.
    pub latency_ms: Vec<Vec<u64>>,
    /// How far each node's clock is off, in milliseconds.
    pub skew_ms: Vec<i64>,
    /// Faults that happen, with their numbers in the full plan.
    pub faults: Vec<(usize, Timed)>,
    /// From when on nothing goes wrong any more, in virtual milliseconds.
    pub heal_ms: u64,
    /// How each byzantine node behaves; empty for honest ones.
    pub treason: Vec<BTreeSet<Treason>>,
    /// The half of the network that byzantine nodes tell one thing, a bit each.
    pub audience: u64,
    /// Whether absence is punished within a run.
    pub absence: bool,
    /// What operators do with the stake of their validators.
    pub life: Vec<Step>,
}

impl Plan {
    /// Draws the plan of a seed.
    #[must_use]
    pub fn of(seed: u64, shape: &Shape) -> Self {
        let mut dice = Dice::new(seed, 1);
        let nodes = shape.nodes;
        let weather = Weather {
            lost_percent: dice.below(4),
            twice_percent: dice.below(6),
            jitter_ms: dice.between(1, 25),
        };
        let latency_ms = latencies(nodes, &mut dice);
        let skew = |dice: &mut Dice| dice.below(2 * SKEW_MS_MAX) as i64 - SKEW_MS_MAX as i64;
        let skew_ms = (0..nodes).map(|_| skew(&mut dice)).collect();
        let mut treason = treasons(shape, &mut dice);
        let heal_ms = CALM_MS + dice.between(4_000, 10_000);
        let count = dice.between(3, 9) as usize;
        // At least a crash and a partition in every plan.
        let kinds = (0..count).map(|at| if at < 2 { at as u64 } else { dice.below(6) }).collect::<Vec<_>>();
        let skewed = dice.index(nodes);
        let honest: Vec<usize> = (0..nodes).filter(|node| treason[*node].is_empty()).collect();
        let audience = split(&honest, &mut dice);
        let spare = shape.tolerated() > shape.byzantine;
        let mut faults = Vec::new();
        for kind in kinds {
            let at_ms = CALM_MS + dice.below(heal_ms - CALM_MS - 500);
            let for_ms = dice.between(100, 3_500).min(heal_ms - at_ms);
            let fault = draw(kind, nodes, &honest, (skewed, spare), &mut dice);
            faults.push(Timed { at_ms, for_ms, fault });
        }
        let mut faults: Vec<(usize, Timed)> = faults
            .into_iter()
            .enumerate()
            .filter(|(at, _)| !shape.calm && shape.only.as_ref().is_none_or(|only| only.contains(at)))
            .collect();
        faults.extend(shape.strike.map(|strike| (STRIKE, strike.timed())));
        let absence = shape.byzantine == 0 && !shape.calm && dice.percent(25);
        let weather = if shape.calm { FAIR } else { weather };
        let life = life::draw(seed, shape, &honest);
        if absence || !life.is_empty() {
            // A seat that is empty for a while leaves none to spare for a validator that must not sign any more.
            faults.iter_mut().for_each(|(_, timed)| timed.fault.spare_bodies());
        } else {
            let ground = join::Ground { honest: &honest, skewed, spare, heal_ms };
            let wiped = join::draw(seed, shape, &ground, &mut treason);
            faults.extend(wiped.filter(|(at, _)| shape.only.as_ref().is_none_or(|only| only.contains(at))));
        }
        let shape = shape.clone();
        Self { seed, shape, weather, latency_ms, skew_ms, faults, heal_ms, treason, audience, absence, life }
    }

    /// Returns the blocks that every honest node must reach: a life of stake takes longer.
    #[must_use]
    pub fn heights(&self) -> u64 {
        if self.life.is_empty() { self.shape.heights } else { self.shape.heights.max(life::HEIGHTS) }
    }

    /// Says whether validators may lose their seats in this run, and must get them back.
    #[must_use]
    pub fn seats_move(&self) -> bool {
        self.absence || !self.life.is_empty()
    }

    /// Says whether some node joins by a snapshot: then all make them.
    #[must_use]
    pub fn has_joins(&self) -> bool {
        self.faults.iter().any(|(_, timed)| matches!(timed.fault, Fault::Wipe { .. }))
    }

    /// Says whether nothing but byzantine nodes disturbs this run: then promises about time hold to the block.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.faults.is_empty() && self.weather == FAIR
    }

    /// Says whether a node follows the protocol.
    #[must_use]
    pub fn is_honest(&self, node: usize) -> bool {
        self.treason.get(node).is_none_or(BTreeSet::is_empty)
    }
}

/// Draws a half of the network with honest nodes on both sides of it, where there are two.
fn split(honest: &[usize], dice: &mut Dice) -> u64 {
    let drawn = dice.next();
    match honest {
        [first, second, ..] => (drawn | (1 << first)) & !(1 << second),
        [_] | [] => drawn,
    }
}

/// Puts nodes into three regions, as far from each other as on one continent or two.
fn latencies(nodes: usize, dice: &mut Dice) -> Vec<Vec<u64>> {
    const REGIONS: [[u64; 3]; 3] = [[1, 12, 35], [12, 1, 28], [35, 28, 1]];
    let scale = dice.between(1, 2);
    let regions: Vec<usize> = (0..nodes).map(|_| dice.index(3)).collect();
    regions
        .iter()
        .map(|from| regions.iter().map(|to| REGIONS[*from][*to] * scale + dice.below(4)).collect())
        .collect()
}

fn treasons(shape: &Shape, dice: &mut Dice) -> Vec<BTreeSet<Treason>> {
    let mut order: Vec<usize> = (0..shape.nodes).collect();
    dice.shuffle(&mut order);
    let mut all = vec![BTreeSet::new(); shape.nodes];
    for node in order.into_iter().take(shape.byzantine) {
        let ways = dice.between(1, 3);
        let mut chosen: BTreeSet<Treason> =
            (0..ways).map(|_| Treason::ALL[dice.index(Treason::ALL.len())]).collect();
        if shape.byzantine > shape.tolerated() {
            // More than the protocol bears: they act together, and the checks must say so.
            chosen = BTreeSet::from([Treason::Equivocate]);
        }
        if let Some(treason) = shape.treason {
            chosen = BTreeSet::from([treason]);
        }
        all[node] = chosen;
    }
    all
}

fn draw(kind: u64, nodes: usize, honest: &[usize], (skewed, spare): (usize, bool), dice: &mut Dice) -> Fault {
    let node = honest.get(dice.index(honest.len())).copied().unwrap_or(0);
    let fate = [WriteFate::Lost, WriteFate::Kept, WriteFate::Torn][dice.index(3)];
    let effects = dice.below(40);
    let damage = match dice.below(10) {
        0 | 1 => Damage::State,
        // A node that must not sign any more counts against those that may fail.
        2 | 3 if spare && node == skewed => Damage::Bodies,
        _ => Damage::None,
    };
    let hang_up = dice.percent(50);
    // At least one node on either side.
    let side = dice.between(1, (1u64 << nodes.min(63)) - 2);
    let other = (node + 1 + dice.index(nodes - 1)) % nodes;
    let far = dice.between(1_000, CLOCK_MS_MAX) as i64 * if dice.percent(50) { 1 } else { -1 };
    let storm = Weather {
        lost_percent: dice.between(5, 40),
        twice_percent: dice.between(0, 40),
        jitter_ms: dice.between(10, 250),
    };
    match kind {
        0 => Fault::Crash { node, effects, fate, damage },
        1 => Fault::Partition { side, hang_up },
        2 => Fault::Cut { from: node, to: other },
        3 => Fault::Storm(storm),
        // A jump of more than a third of the clocks may decide a time that the others then wait for.
        4 if spare => Fault::Clock { node: skewed, by_ms: far },
        4 => Fault::Clock { node, by_ms: far % SKEW_MS_MAX as i64 },
        _ => Fault::Freeze { node },
    }
}
