//! Virtual time: one queue of everything that will happen, taken in order.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tiltyard_keys::SecretKey;
use tiltyard_ledger::memory::MemoryState;
use tiltyard_machine::io::{Input, JobId, JobOutcome, RequestToken, TimerId};
use tiltyard_machine::{Durable, Machine, Now};
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::units::UnixMillis;
use tiltyard_proto::wire::SyncRequest;

use super::client::Clients;
use super::disk::{Damage, Disk, WriteFate};
use super::life::Operator;
use super::market::{Market, secret};
use super::network::{ACCOUNT, CONSENSUS, EPOCH_MS, genesis};
use super::oracle::Oracle;
use super::plan::{Fault, Plan};
use super::planted::Bug;
use super::random::Dice;
use super::trace::Trace;
use super::treason::Plot;
use super::view::StateView;
use super::violation::Violation;
use super::wire::Frame;

/// After the last fault, nodes must be done within this virtual time.
const PATIENCE_MS: u64 = 90_000;
/// After the last fault, the next block must come within this virtual time.
const RESUME_MS: u64 = 10_000;
/// More events than any run needs; a run that needs more is stuck in a loop.
const EVENTS_MAX: u64 = 20_000_000;

/// A crash that waits for its effect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doom {
    pub(crate) effects: u64,
    pub(crate) fate: WriteFate,
    pub(crate) damage: Damage,
    pub(crate) down_ms: u64,
}

/// One node: its disk, and its machine while it runs.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: SecretKey,
    pub(crate) disk: Disk,
    pub(crate) machine: Option<Machine<StateView>>,
    /// How far its vote journal is written in this life.
    pub(crate) written: Durable,
    /// Counts starts and ends: what was meant for an earlier life is lost.
    pub(crate) life: u64,
    pub(crate) timers: BTreeMap<TimerId, u64>,
    /// Frames that came by, as the network shell remembers them.
    pub(crate) seen: BTreeSet<[u8; 32]>,
    /// Frames that the machine judges, with who forwarded them.
    pub(crate) judging: BTreeMap<u64, (Rc<Frame>, usize)>,
    pub(crate) jobs: BTreeSet<JobId>,
    pub(crate) doom: Option<Doom>,
    pub(crate) frozen_until: u64,
    /// Last height that was acknowledged as durable.
    pub(crate) acknowledged: u64,
    /// A proposed body on its disk was damaged once: it may have to stop signing.
    pub(crate) is_damaged: bool,
    /// It lost its disk once, and joins by a snapshot when it has no blocks.
    pub(crate) joins: bool,
    /// Effects carried out, in all its lives.
    pub(crate) carried: Vec<Boundary>,
}

/// What a node was about when it carried out an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// The height after its last durable block.
    pub height: u64,
    /// Whether the effect is a write.
    pub is_write: bool,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Due {
    Input { to: usize, life: u64, input: Box<Input> },
    Frame { to: usize, life: u64, from: usize, frame: Rc<Frame>, again: bool },
    Serve { to: usize, from: usize, life: u64, token: RequestToken, request: SyncRequest },
    Job { to: usize, life: u64, id: JobId, outcome: Box<JobOutcome> },
    Timer { at: usize, life: u64, id: TimerId, serial: u64 },
    Start(usize),
    Begin(usize),
    End(usize),
    Clients,
    Operators,
    Healed,
    Resumed { height: u64 },
}

/// The whole network.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) genesis: Genesis,
    pub(crate) market: Market,
    pub(crate) nodes: Vec<Node>,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) dice: Dice,
    pub(crate) now_ms: u64,
    pub(crate) connected: BTreeSet<(usize, usize)>,
    /// Requests that a machine answers: who asked, in which life, under which name.
    pub(crate) requests: BTreeMap<u64, (usize, u64, RequestToken)>,
    pub(crate) token: u64,
    pub(crate) plot: Plot,
    pub(crate) clients: Clients,
    pub(crate) operators: Vec<Operator>,
    pub(crate) active: BTreeSet<usize>,
    /// Times that a node with a damaged disk stopped signing, as it must.
    pub(crate) stopped_signing: u64,
    /// Times that a node lost its power.
    pub(crate) crashes: u64,
    /// Splits of the network that began.
    pub(crate) splits: u64,
    /// Times that a node lost its disk.
    pub(crate) wiped: u64,
    queue: BTreeMap<(u64, u64), Due>,
    serial: u64,
}

impl World {
    /// Sets a network up.
    ///
    /// # Errors
    /// What genesis refuses: a shape that is no network.
    pub(crate) fn new(plan: Plan) -> anyhow::Result<Self> {
        let genesis = genesis(&plan);
        genesis.check()?;
        let mut origin = MemoryState::new();
        origin.apply(&tiltyard_ledger::genesis(&genesis)?);
        let count = plan.shape.nodes;
        let bug = plan.shape.planted;
        let nodes = (0..count)
            .map(|node| Node {
                key: secret(CONSENSUS, node),
                disk: Disk::new(origin.clone(), bug, plan.has_joins()),
                machine: None,
                written: Durable::at_start(),
                life: 0,
                timers: BTreeMap::new(),
                seen: BTreeSet::new(),
                judging: BTreeMap::new(),
                jobs: BTreeSet::new(),
                doom: None,
                frozen_until: 0,
                acknowledged: 0,
                is_damaged: false,
                joins: false,
                carried: Vec::new(),
            })
            .collect();
        let miners =
            (0..count.saturating_sub(1)).take(3).map(|node| secret(ACCOUNT, node).public()).collect();
        let market = Market::new(plan.seed, miners);
        let clients = Clients::new(count);
        let honest = (0..count).filter(|node| plan.is_honest(*node));
        let operators = Operator::of(&plan.life, honest);
        Ok(Self {
            oracle: Oracle::new(&genesis, &plan)?,
            dice: Dice::new(plan.seed, 3),
            plan,
            genesis,
            market,
            nodes,
            trace: Trace::default(),
            now_ms: 0,
            connected: BTreeSet::new(),
            requests: BTreeMap::new(),
            token: 0,
            plot: Plot::default(),
            clients,
            operators,
            active: BTreeSet::new(),
            stopped_signing: 0,
            crashes: 0,
            splits: 0,
            wiped: 0,
            queue: BTreeMap::new(),
            serial: 0,
        })
    }

    /// Returns a node's clocks. The monotone one of each node counts from somewhere else.
    pub(crate) fn clock(&self, node: usize) -> Now {
        let mut unix = (EPOCH_MS + self.now_ms) as i64 + self.plan.skew_ms[node];
        for (_, timed) in self.active_faults() {
            if let Fault::Clock { node: whose, by_ms } = &timed.fault
                && *whose == node
            {
                unix += by_ms;
            }
        }
        Now { mono_ms: self.now_ms + 1_000 * node as u64, unix: UnixMillis::new(unix.unsigned_abs()) }
    }

    pub(crate) fn active_faults(&self) -> impl Iterator<Item = &(usize, super::plan::Timed)> {
        self.active.iter().filter_map(|at| self.plan.faults.get(*at))
    }

    /// Says whether the time of faults is over.
    pub(crate) fn is_healed(&self) -> bool {
        self.now_ms >= self.plan.heal_ms
    }

    /// Adds something that happens `delay_ms` from now.
    pub(crate) fn later(&mut self, delay_ms: u64, due: Due) -> u64 {
        self.serial += 1;
        self.queue.insert((self.now_ms + delay_ms, self.serial), due);
        self.serial
    }

    pub(crate) fn next_serial(&self) -> u64 {
        self.serial + 1
    }

    /// Gives a node an input after a delay, if it still lives the same life then.
    pub(crate) fn give_later(&mut self, to: usize, delay_ms: u64, input: Input) {
        let life = self.nodes[to].life;
        self.later(delay_ms, Due::Input { to, life, input: Box::new(input) });
    }

    /// Runs until everything is done, something is wrong, or time is up. Returns the virtual milliseconds spent.
    pub(crate) fn run(&mut self) -> u64 {
        for node in 0..self.nodes.len() {
            let delay = self.dice.below(300);
            self.later(delay, Due::Start(node));
        }
        for (at, (_, timed)) in self.plan.faults.clone().iter().enumerate() {
            self.later(timed.at_ms, Due::Begin(at));
            self.later(timed.at_ms + timed.for_ms, Due::End(at));
        }
        self.later(1_000, Due::Clients);
        if self.plan.seats_move() {
            self.later(1_000, Due::Operators);
        }
        self.later(self.plan.heal_ms, Due::Healed);
        let mut left = EVENTS_MAX;
        while let Some(((at_ms, _), due)) = self.queue.pop_first() {
            self.now_ms = at_ms;
            left -= 1;
            if left == 0 || at_ms > self.plan.heal_ms + PATIENCE_MS {
                let fact = self.progress();
                self.oracle.say(Violation::NoProgress { fact });
                break;
            }
            self.happen(due);
            if self.oracle.is_broken() || (self.oracle.took_moved() && self.is_done()) {
                break;
            }
        }
        if !self.oracle.is_broken() && !self.is_done() {
            let fact = format!("nothing will ever happen again; {}", self.progress());
            self.oracle.say(Violation::NoProgress { fact });
        }
        if !self.oracle.is_broken() {
            self.check_end();
        }
        self.now_ms
    }

    fn is_done(&self) -> bool {
        let honest = (0..self.nodes.len()).filter(|node| self.plan.is_honest(*node));
        let reached = |node: usize| self.nodes[node].disk.durable.tip();
        let highest = self.oracle.height();
        let wanted = self.plan.heights();
        highest >= wanted
            && self.is_healed()
            && self.clients.are_done()
            && honest.clone().all(|node| self.nodes[node].machine.is_some())
            && honest.map(reached).all(|tip| tip >= wanted && tip + 1 >= highest)
            && self.are_seats_settled()
    }

    /// Says how far everything came, for people.
    fn progress(&self) -> String {
        let heights: Vec<u64> = self.nodes.iter().map(|node| node.disk.durable.tip()).collect();
        format!(
            "heights {heights:?}, wanted {}; transfers and task done: {} and {}; seats settled: {}",
            self.plan.heights(),
            self.clients.are_done(),
            self.clients.is_over(),
            self.are_seats_settled()
        )
    }

    fn frozen(&self, due: &Due) -> Option<u64> {
        let node = match due {
            Due::Input { to, .. } | Due::Frame { to, .. } | Due::Serve { to, .. } | Due::Job { to, .. } => {
                *to
            }
            Due::Timer { at, .. } => *at,
            Due::Start(_)
            | Due::Begin(_)
            | Due::End(_)
            | Due::Clients
            | Due::Operators
            | Due::Healed
            | Due::Resumed { .. } => return None,
        };
        let until = self.nodes[node].frozen_until;
        (until > self.now_ms).then(|| until - self.now_ms)
    }

    fn happen(&mut self, due: Due) {
        if let Some(wait_ms) = self.frozen(&due) {
            self.later(wait_ms, due);
            return;
        }
        match due {
            Due::Input { to, life, input } => {
                if self.nodes[to].life == life {
                    self.give(to, *input);
                }
            }
            Due::Frame { to, life, from, frame, again } => {
                if self.nodes[to].life == life {
                    self.hear(to, from, frame, again);
                }
            }
            Due::Serve { to, from, life, token, request } => self.serve(to, (from, life, token), request),
            Due::Job { to, life, id, outcome } => {
                if self.nodes[to].life == life && self.nodes[to].jobs.remove(&id) {
                    self.give(to, Input::JobEnded { id, outcome });
                }
            }
            Due::Timer { at, life, id, serial } => {
                let node = &mut self.nodes[at];
                if node.life == life && node.timers.get(&id) == Some(&serial) {
                    node.timers.remove(&id);
                    self.give(at, Input::Timer(id));
                    if self.plan.shape.planted == Some(Bug::ForgottenRearm) {
                        self.nodes[at].timers.remove(&id);
                    }
                }
            }
            Due::Start(node) => self.start(node),
            Due::Begin(at) => self.begin(at),
            Due::End(at) => self.end(at),
            Due::Clients => self.clients_act(),
            Due::Operators => self.operators_act(),
            Due::Healed => {
                let height = self.oracle.height();
                self.later(RESUME_MS, Due::Resumed { height });
            }
            Due::Resumed { height } => {
                if self.oracle.height() == height {
                    let fact = format!("no block within {RESUME_MS} ms; {}", self.progress());
                    self.oracle.say(Violation::NoProgress { fact });
                }
            }
        }
    }

    fn begin(&mut self, at: usize) {
        let Some((_, timed)) = self.plan.faults.get(at).cloned() else {
            return;
        };
        self.active.insert(at);
        self.splits += u64::from(matches!(timed.fault, Fault::Partition { .. }));
        match timed.fault {
            Fault::Crash { node, effects, fate, damage } => {
                let down_ms = timed.for_ms;
                self.nodes[node].doom.get_or_insert(Doom { effects, fate, damage, down_ms });
            }
            Fault::Wipe { node, again } => self.wipe(node, timed.for_ms, again),
            Fault::Freeze { node } => self.nodes[node].frozen_until = self.now_ms + timed.for_ms,
            Fault::Partition { side, hang_up: true } => self.hang_up(side),
            Fault::Partition { .. } | Fault::Cut { .. } | Fault::Storm(_) | Fault::Clock { .. } => {}
        }
    }

    fn end(&mut self, at: usize) {
        self.active.remove(&at);
        self.connect_all();
    }
}
