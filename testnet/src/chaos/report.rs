//! What a run found.

use std::fmt;

use serde::Serialize;

use super::plan::Step;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "violation")]
pub(super) enum Violation {
    /// Two nodes hold different blocks at one height.
    Fork { height: u64, nodes: (usize, usize) },
    /// A block that does not hold: its parent, its certificate, its transactions.
    BadBlock { node: usize, height: u64, words: String },
    /// An acknowledged transaction is not in exactly the block that was named.
    Lost { id: String, acknowledged_at: u64, by: usize, found_at: Vec<u64> },
    /// A sender's transactions are out of order.
    Order { sender: String, height: u64, expected: u64, found: u64 },
    /// A balance is not what the blocks add up to.
    Balance { node: usize, account: String, expected: u64, found: u64 },
    /// A receipt does not verify.
    Receipt { id: String, words: String },
    /// An honest validator lost stake or standing.
    Punished { node: usize, validator: String, standing: String, stake: u64 },
    /// Credits appeared or vanished.
    Supply { node: usize, height: u64 },
    /// A node has fewer blocks than it once said it had.
    HeightLost { node: usize, told: u64, now: u64 },
    /// A process ended by itself.
    Ended { node: usize, words: String },
    /// The network did not go on although everything was whole again.
    Stuck { seconds: u64, heights: Vec<Option<u64>>, wanted: u64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fork { height, nodes: (a, b) } => {
                write!(f, "nodes {a} and {b} hold different blocks at height {height}")
            }
            Self::BadBlock { node, height, words } => write!(f, "block {height} of node {node}: {words}"),
            Self::Lost { id, acknowledged_at, by, found_at } => write!(
                f,
                "transaction {id} was acknowledged by node {by} at height {acknowledged_at}, and is at {found_at:?}"
            ),
            Self::Order { sender, height, expected, found } => {
                write!(f, "block {height} has nonce {found} of {sender}, {expected} was next")
            }
            Self::Balance { node, account, expected, found } => {
                write!(f, "node {node} says {account} owns {found}, its blocks add up to {expected}")
            }
            Self::Receipt { id, words } => write!(f, "receipt of {id}: {words}"),
            Self::Punished { node, validator, standing, stake } => {
                write!(
                    f,
                    "node {node} says honest validator {validator} is {standing} with {stake} credits at stake"
                )
            }
            Self::Supply { node, height } => {
                write!(f, "node {node} does not conserve supply at height {height}")
            }
            Self::HeightLost { node, told, now } => {
                write!(f, "node {node} once had block {told} and now has {now}")
            }
            Self::Ended { node, words } => write!(f, "node {node}: {words}"),
            Self::Stuck { seconds, heights, wanted } => write!(
                f,
                "no progress to height {wanted} within {seconds} s after everything was whole again: heights {heights:?}"
            ),
        }
    }
}

/// A fault that was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Done {
    pub(super) planned: Step,
    pub(super) words: String,
}

/// A whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) nodes: usize,
    pub(super) faults: Vec<Done>,
    pub(super) heights: u64,
    pub(super) transactions_offered: usize,
    pub(super) transactions_acknowledged: usize,
    pub(super) transactions_in_blocks: usize,
    pub(super) receipts_verified: usize,
    /// Milliseconds from the end of the last fault until every node had three blocks more.
    pub(super) recovery_ms: u64,
    pub(super) seconds: f64,
    pub(super) violations: Vec<Violation>,
}
