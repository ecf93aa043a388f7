//! The deterministic simulator: many machines, virtual time, everything that can go wrong, and a watcher.
//!
//! Each node is the real, pure machine of a node with the real rules of ledger, agreement and roles. What is simulated
//! is what lies around it: a network that delays, loses, repeats, reorders and splits; a disk that forgets what was
//! not synced and tears what was being written; clocks that jump; nodes that die between any two effects and come
//! back; validators that lie. Training is simulated by its results. One task runs through its whole life.
//!
//! A seed decides everything: the same seed gives the same trace, bit for bit. The watcher ([`Violation`]) looks after
//! each block and each message; a violation is a bug, and comes with the one command that shows it again.
//!
//! Deliberately absent: threads within a run, real clocks, files, sockets. Disks are modelled, not the store's own
//! files: those have their own crash tests.

mod client;
mod command;
mod disk;
mod market;
mod oracle;
mod plan;
mod planted;
mod random;
mod shell;
mod shrink;
mod trace;
mod treason;
mod verdict;
mod view;
mod wire;
mod world;

pub use command::{Options, run};
pub use disk::{Damage, WriteFate};
pub use oracle::Violation;
pub use plan::{Fault, Plan, Shape, Timed, Treason, Weather};
pub use planted::Bug;
pub use shrink::{Shrunk, shrink};

use world::World;

/// What one run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Blocks of the longest chain.
    pub heights: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// Hash of everything that happened, in order.
    pub trace: [u8; 32],
    /// Heights that needed more than one round.
    pub late_rounds: u64,
    /// Times that a node saw an offender slashed.
    pub slashed: u64,
    /// Times that a node with a damaged disk stopped signing, as it must.
    pub stopped_signing: u64,
    /// Whether the task was settled, not refunded.
    pub is_settled: bool,
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
    let mut world = World::new(Plan::of(seed, shape))?;
    if keep_lines {
        world.trace.keep_lines();
    }
    let virtual_ms = world.run();
    Ok(Outcome {
        heights: world.oracle.height(),
        virtual_ms,
        trace: world.trace.hash(),
        late_rounds: world.oracle.late_rounds,
        slashed: world.oracle.slashed,
        stopped_signing: world.stopped_signing,
        is_settled: world.is_settled(),
        violations: world.oracle.violations().to_vec(),
        lines: world.trace.take_lines(),
    })
}
