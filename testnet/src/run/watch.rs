//! Looks at every node a few times a second and keeps what the report needs.

use std::collections::BTreeMap;

use super::client::{Client, Deadlines, Job, Task};
use super::layout::Network;
use super::process::{Node, weigh};
use super::race::{Lane, Picture, Runner};
use super::report::Phase;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Height of the observer.
    pub(crate) height: u64,
    /// Tasks by id, as last seen.
    pub(crate) tasks: BTreeMap<String, Task>,
    /// Phases of each task, in order, with the height at which each was first seen.
    pub(crate) phases: BTreeMap<String, Vec<Phase>>,
    /// Training jobs by (miner, task), as last seen.
    pub(crate) runs: BTreeMap<(usize, String), Job>,
    /// Heights of all nodes by name; none while a node is down.
    pub(crate) heights: Vec<(String, Option<u64>)>,
    /// Largest resident memory of everything together, in KiB.
    pub(crate) rss_total_max_kib: u64,
    /// Largest resident memory of a validator without jobs, in KiB.
    pub(crate) rss_validator_idle_max_kib: u64,
}

impl Seen {
    /// Looks once. A node that does not answer is taken as down; the caller knows whether it should be.
    pub(crate) fn look(&mut self, client: &Client, network: &Network) {
        self.heights = network.all().map(|node| (node.place.name.clone(), height_of(client, node))).collect();
        self.height = client.status(&network.observer.place.url).map_or(self.height, |status| status.height);
        for task in client.tasks(&network.observer.place.url).unwrap_or_default() {
            let phases = self.phases.entry(task.id.clone()).or_default();
            if phases.last().is_none_or(|last| last.phase != task.phase) {
                phases.push(Phase { phase: task.phase.clone(), height: self.height });
            }
            self.tasks.insert(task.id.clone(), task);
        }
        for (at, miner) in network.miners.iter().enumerate() {
            if miner.pid().is_none() {
                continue;
            }
            for job in client.jobs(&miner.place.url).unwrap_or_default() {
                if job.kind == "train" {
                    self.runs.insert((at, job.task.clone()), job);
                }
            }
        }
        self.weigh(network);
    }

    fn weigh(&mut self, network: &Network) {
        let pids: Vec<u32> = network.all().filter_map(Node::pid).collect();
        let total = weigh(&pids).iter().map(|weight| weight.tree_kib).sum();
        self.rss_total_max_kib = self.rss_total_max_kib.max(total);
        let validators: Vec<u32> = network.validators.iter().filter_map(Node::pid).collect();
        for weight in weigh(&validators) {
            if weight.own_kib == weight.tree_kib {
                self.rss_validator_idle_max_kib = self.rss_validator_idle_max_kib.max(weight.own_kib);
            }
        }
    }

    /// Says whether every one of `ids` is over.
    pub(crate) fn all_over(&self, ids: &[String]) -> bool {
        ids.iter().all(|id| {
            self.tasks.get(id).is_some_and(|task| matches!(task.phase.as_str(), "settled" | "refunded"))
        })
    }

    /// Says whether every one of `ids` has opened.
    pub(crate) fn any_open(&self, ids: &[String]) -> bool {
        ids.iter().any(|id| self.tasks.get(id).is_some_and(|task| task.phase == "committing"))
    }

    /// Paints what was seen.
    pub(crate) fn picture(&self, network: &Network, ids: &[String]) -> Picture {
        let lanes = ids
            .iter()
            .filter_map(|id| self.tasks.get(id))
            .map(|task| Lane {
                title: task.title.clone(),
                phase: task.phase.clone(),
                blocks_left: closes_at(&task.phase, &task.deadlines)
                    .map(|closes| closes.saturating_sub(self.height)),
                runners: network
                    .miners
                    .iter()
                    .enumerate()
                    .map(|(at, miner)| self.runner(network, at, &miner.place.name, task))
                    .collect(),
            })
            .collect();
        Picture { height: self.height, nodes: self.heights.clone(), lanes }
    }

    fn runner(&self, network: &Network, at: usize, name: &str, task: &Task) -> Runner {
        let job = self.runs.get(&(at, task.id.clone()));
        let key = network.miner_keys.get(at).map(ToString::to_string).unwrap_or_default();
        let entrant = task.entrants.iter().find(|entrant| entrant.miner == key);
        let down = network.miners.get(at).is_some_and(|miner| miner.pid().is_none());
        let stage = match (entrant, job) {
            (Some(entrant), _) => match entrant.rank {
                Some(rank) => format!("rank {rank}: {}", entrant.reason),
                None if entrant.stage == "judged" => entrant.reason.clone(),
                None => entrant.stage.clone(),
            },
            (None, _) if down => "down".to_owned(),
            (None, Some(job)) if job.state == "running" => "training".to_owned(),
            (None, Some(job)) => job.state.clone(),
            (None, None) => String::new(),
        };
        Runner {
            name: name.to_owned(),
            strategy: job.and_then(|job| job.strategy.clone()).unwrap_or_default(),
            stage,
            done: job.map_or(0.0, |job| job.tokens as f64 / job.tokens_budget.max(1) as f64),
            step: job.map_or(0, |job| job.step),
            loss: job.and_then(|job| job.loss_micro).map(|loss| loss as f64 / 1e6),
            score: entrant
                .and_then(|entrant| entrant.mean_micro.zip(entrant.gain_ppm))
                .map(|(mean, gain)| (mean as f64 / 1e6, gain as f64 / 1e4)),
        }
    }
}

fn height_of(client: &Client, node: &Node) -> Option<u64> {
    node.pid()?;
    client.status(&node.place.url).ok().map(|status| status.height)
}

fn closes_at(phase: &str, deadlines: &Deadlines) -> Option<u64> {
    Some(match phase {
        "accepting" => deadlines.open,
        "committing" => deadlines.commit,
        "revealing" => deadlines.reveal,
        "holding" => deadlines.held,
        "key-opening" => deadlines.key,
        "score-committing" => deadlines.score_commit,
        "score-opening" => deadlines.score_open,
        _ => return None,
    })
}
