//! The deterministic simulator: many machines, virtual time, everything that can go wrong, and a watcher.
//!
//! Each node is the real, pure machine of a node with the real rules of ledger, agreement and roles. What is simulated
//! is what lies around it: a network that delays, loses, repeats, reorders and splits; a disk that forgets what was
//! not synced and tears what was being written; clocks that jump; nodes that die between any two effects and come
//! back; validators that lie. Training is simulated by its results. One task runs through its whole life.
//!
//! A seed decides everything: the same seed gives the same trace, bit for bit. The watcher ([`Violation`]) looks after
//! each block and each message; a violation is a bug, and comes with the one command that shows it again, with as few
//! faults as show it. In some runs operators move stake: validators release some, leave, come back, are jailed for
//! absence and return, while committees stay frozen. In others a validator loses its whole disk and joins again by a
//! snapshot of its peers, one of which may lie, and may die on the way.
//!
//! - `sim --seeds A..B`: networks drawn from seeds, every core busy.
//! - `sim --every-effect A..B`: one crash at each effect of each node within those heights, with each write fate.
//! - `sim --planted all`: plants every bug that it knows, and fails unless each is caught.
//!
//! Every node verifies every signature itself: remembering verdicts across nodes would be faster and would leave the
//! nodes' own checks untried.
//!
//! Deliberately absent: threads within a run, real clocks, files, sockets. Disks are modelled, not the store's own
//! files: those have their own crash tests.

mod books;
mod client;
mod command;
mod disk;
mod every;
mod hunt;
mod join;
mod life;
mod market;
mod network;
mod oracle;
mod plan;
mod planted;
mod pool;
mod random;
mod shape;
mod shell;
mod shrink;
mod snapshots;
mod timely;
mod trace;
mod treason;
mod verdict;
mod view;
mod violation;
mod wire;
mod world;

pub use command::{Options, run};
pub use disk::{Damage, WriteFate};
pub use every::strikes;
pub use life::{Change, Step};
pub use plan::{Fault, Plan, Timed, Treason, Weather};
pub use planted::Bug;
pub use shape::{Shape, Strike};
pub use shrink::{Shrunk, shrink};
pub use violation::Violation;
pub use world::Boundary;

use world::World;

/// What one run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Blocks of the longest chain.
    pub heights: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// When each block was first durable at an honest node, in virtual milliseconds.
    pub block_ms: Vec<u64>,
    /// Hash of everything that happened, in order.
    pub trace: [u8; 32],
    /// Heights that needed more than one round.
    pub late_rounds: u64,
    /// Offences that were punished: height of the offence, height of the block that burned stake for it.
    pub punished: Vec<(u64, u64)>,
    /// Times that a node lost its power.
    pub crashes: u64,
    /// Splits of the network that began.
    pub splits: u64,
    /// Times that a node lost its disk.
    pub wiped: u64,
    /// Times that a node made its state from a snapshot of its peers.
    pub joins: u64,
    /// What honest nodes told their operators while no block came: who, and what.
    pub stalls: Vec<(usize, String)>,
    /// Blocks whose validator set was another one than that of the block before.
    pub set_changes: u64,
    /// Times that a node with a damaged disk stopped signing, as it must.
    pub stopped_signing: u64,
    /// Whether a task was settled, not refunded.
    pub is_settled: bool,
    /// What each node was about at each effect that it carried out; kept in calm runs only.
    pub carried: Vec<Vec<Boundary>>,
    /// What went wrong; empty when nothing did.
    pub violations: Vec<Violation>,
    /// The trace in words, when it was asked for.
    pub lines: Option<String>,
}

/// Runs one seed.
///
/// # Errors
/// When the shape is no network: too few or too many nodes.
pub fn run_seed(seed: u64, shape: &Shape, keep_lines: bool) -> anyhow::Result<Outcome> {
    anyhow::ensure!((2..=32).contains(&shape.nodes), "simulate 2 to 32 nodes, not {}", shape.nodes);
    anyhow::ensure!(
        shape.byzantine < shape.nodes,
        "{} of {} nodes cannot be byzantine: at least one must be honest",
        shape.byzantine,
        shape.nodes
    );
    if let Some(strike) = shape.strike {
        anyhow::ensure!(strike.node < shape.nodes, "there is no node {} to crash", strike.node);
    }
    run_plan(Plan::of(seed, shape), keep_lines)
}

/// Runs a plan, drawn or made by hand.
///
/// # Errors
/// As [`run_seed`].
pub fn run_plan(plan: Plan, keep_lines: bool) -> anyhow::Result<Outcome> {
    let mut world = World::new(plan)?;
    if keep_lines {
        world.trace.keep_lines();
    }
    let virtual_ms = world.run();
    Ok(Outcome {
        heights: world.oracle.height(),
        virtual_ms,
        block_ms: world.oracle.block_ms.clone(),
        trace: world.trace.hash(),
        late_rounds: world.oracle.late_rounds,
        punished: world.oracle.punished.iter().map(|((_, of), at)| (*of, *at)).collect(),
        crashes: world.crashes,
        splits: world.splits,
        wiped: world.wiped,
        joins: world.oracle.joins,
        stalls: world.oracle.stalls.clone(),
        set_changes: world.oracle.set_changes,
        stopped_signing: world.stopped_signing,
        is_settled: world.is_settled(),
        carried: world.nodes.iter_mut().map(|node| core::mem::take(&mut node.carried)).collect(),
        violations: world.oracle.violations().to_vec(),
        lines: world.trace.take_lines(),
    })
}
