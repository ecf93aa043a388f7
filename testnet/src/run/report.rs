//! The report: what scripts outside the project rely on.

use serde::Serialize;

/// What a run came to.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) validators: usize,
    pub(crate) miners: usize,
    /// Height of the last block.
    pub(crate) heights: u64,
    /// First process start to last exit.
    pub(crate) elapsed_s: f64,
    pub(crate) tasks: Vec<Task>,
    pub(crate) state_roots_equal: bool,
    pub(crate) supply_conserved: bool,
    pub(crate) receipt_verified: bool,
    pub(crate) killed: Vec<Killed>,
    /// Proposal to durable decision, over all validators.
    pub(crate) finality_ms: Finality,
    /// All nodes and their children.
    pub(crate) rss_mb_total_max: f64,
    pub(crate) rss_mb_validator_idle_max: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) title: String,
    pub(crate) state: String,
    pub(crate) eval_examples: u64,
    /// Mean score of the untouched base, in nats.
    pub(crate) base_score: f64,
    /// Phases seen, in order.
    pub(crate) phases: Vec<Phase>,
    pub(crate) entrants: Vec<Entrant>,
    /// Key of the winner.
    pub(crate) winner: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Phase {
    pub(crate) phase: String,
    /// First height at which the observer saw it.
    pub(crate) height: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Entrant {
    /// Name of the miner's process.
    pub(crate) miner: String,
    pub(crate) key: String,
    /// From the revealed recipe.
    pub(crate) strategy: String,
    pub(crate) tokens_trained: u64,
    pub(crate) commit_height: u64,
    pub(crate) resumed_from_step: u64,
    /// In nats.
    pub(crate) mean_score: Option<f64>,
    pub(crate) gain_ppm: Option<i64>,
    pub(crate) rank: Option<u64>,
    pub(crate) reason: String,
    /// In micro-credits.
    pub(crate) reward: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Killed {
    pub(crate) node: String,
    pub(crate) role: String,
    /// Height of the chain when it was killed.
    pub(crate) height: u64,
    /// Height at which it was level with the chain again.
    pub(crate) back_at_height: Option<u64>,
    /// Whether a later certificate carries its signature (validators).
    pub(crate) signed_after: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Finality {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Smallest gain that the best winner of the default run must reach.
const GAIN_PPM_MIN: i64 = 200_000;

impl Report {
    /// Lists what does not hold; an empty list makes the run a success.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut require = |holds: bool, fact: String| {
            if !holds {
                failures.push(fact);
            }
        };
        for task in &self.tasks {
            require(task.state == "settled", format!("task {} is {}, not settled", task.title, task.state));
            require(task.winner.is_some(), format!("task {} has no winner", task.title));
        }
        require(self.state_roots_equal, "state roots differ".to_owned());
        require(self.supply_conserved, "supply is not conserved".to_owned());
        require(self.receipt_verified, "the winner's receipt was not verified".to_owned());
        for role in ["validator", "miner"] {
            let killed = self.killed.iter().any(|killed| killed.role == role);
            require(killed, format!("no {role} was killed and came back"));
        }
        for killed in &self.killed {
            let name = &killed.node;
            require(killed.back_at_height.is_some(), format!("{name} did not catch up after its kill"));
            require(killed.signed_after != Some(false), format!("{name} signed nothing after its kill"));
            if killed.role == "miner" {
                let came_through = self.tasks.iter().flat_map(|task| &task.entrants).any(|entrant| {
                    let tied = entrant.reason.contains("tied");
                    entrant.miner == *name
                        && entrant.resumed_from_step > 0
                        && (entrant.rank.is_some() || tied)
                });
                require(came_through, format!("{name} was not ranked with a continued run"));
            }
        }
        let best = self
            .tasks
            .iter()
            .flat_map(|task| &task.entrants)
            .filter(|entrant| entrant.rank == Some(1))
            .filter_map(|entrant| entrant.gain_ppm)
            .max();
        require(
            best.is_some_and(|gain| gain >= GAIN_PPM_MIN),
            format!("best winner gains {best:?} ppm over the base; {GAIN_PPM_MIN} are needed"),
        );
        failures
    }
}
