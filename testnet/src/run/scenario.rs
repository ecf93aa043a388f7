//! The play: start, post, race, kill, restart, settle, fetch, prove, compare, stop.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Options;
use super::client::{Client, Tool, text};
use super::layout::Network;
use super::plan::{Estimate, split};
use super::process::Node;
use super::race::Screen;
use super::report::{Entrant, Finality, Killed, Report, Task};
use super::watch::Seen;

const TICK: Duration = Duration::from_millis(400);
const START_PATIENCE: Duration = Duration::from_secs(60);
const RACE_PATIENCE: Duration = Duration::from_secs(600);
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// `faq` has rows that need more time than the short windows give, so it stays out.
const DATA_SETS: [&str; 2] = ["add", "define"];
const WINDOWS: &str = "8,130,8,8,8,100,8";
/// Pace of blocks, as in the genesis document.
const BLOCK_MS: u64 = 500;

/// A run in progress.
struct Play<'a> {
    options: &'a Options,
    network: Network,
    dir: &'a Path,
    interrupted: &'a Receiver<()>,
    client: Client,
    tool: Tool,
    screen: Screen,
    seen: Seen,
    tasks: Vec<String>,
    killed: Vec<Killed>,
    patience: Duration,
}

/// Plays the whole run and returns what it came to.
pub(crate) fn play(
    options: &Options,
    network: Network,
    dir: &Path,
    interrupted: &Receiver<()>,
) -> Result<Report> {
    let tool = Tool { binary: network.binary.clone() };
    let mut play = Play {
        options,
        network,
        dir,
        interrupted,
        client: Client::new(),
        tool,
        screen: Screen::new(),
        seen: Seen::default(),
        tasks: Vec::new(),
        killed: Vec::new(),
        patience: RACE_PATIENCE,
    };
    let began = Instant::now();
    play.start()?;
    play.post()?;
    play.race()?;
    let mut report = play.take_stock()?;
    play.prove(&mut report)?;
    play.compare(&mut report)?;
    play.stop()?;
    report.elapsed_s = began.elapsed().as_secs_f64();
    play.summary(&report);
    Ok(report)
}

impl Play<'_> {
    /// Waits a moment; fails when the user wants to stop.
    fn pause(&self, time: Duration) -> Result<()> {
        match self.interrupted.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => bail!("interrupted; everything was stopped"),
        }
    }

    fn start(&mut self) -> Result<()> {
        self.screen.tell(&format!(
            "starting {} validators, {} miners, an observer and a requester (genesis {})",
            self.network.validators.len(),
            self.network.miners.len(),
            &self.network.genesis_hash[..16]
        ));
        for node in self.network.all_mut() {
            node.start()?;
        }
        let until = Instant::now() + START_PATIENCE;
        loop {
            self.check_alive()?;
            self.seen.look(&self.client, &self.network);
            if self.seen.heights.iter().all(|(_, height)| height.is_some_and(|height| height >= 1)) {
                break;
            }
            ensure!(Instant::now() < until, "the network decided no block in time: {:?}", self.seen.heights);
            self.pause(TICK)?;
        }
        self.screen.tell(&format!("the chain runs; height {}", self.seen.height));
        Ok(())
    }

    fn post(&mut self) -> Result<()> {
        for at in 0..self.options.tasks {
            let data = DATA_SETS.get(at % DATA_SETS.len()).copied().unwrap_or("add");
            let split = split(self.network.seed, &self.network.assets.join("data").join(data))?;
            let split = if self.options.base.is_some() { split.small() } else { split };
            let folder = self.dir.join(format!("task-{at}"));
            fs::create_dir_all(&folder)?;
            let (train, eval) = (folder.join("train.jsonl"), folder.join("eval.jsonl"));
            fs::write(&train, split.training)?;
            fs::write(&eval, split.evaluation)?;
            let title = if at < DATA_SETS.len() { data.to_owned() } else { format!("{data}-{at}") };
            let base = self.base();
            let windows = self.windows(&base, &train, &eval)?;
            // Adapters fit, whole models do not: the winner loads in PEFT.
            let (checkpoint_mb, small) = match self.options.base {
                None => ("4", None),
                Some(_) => ("40", Some("--small-set")),
            };
            let mut words = vec![
                "task",
                "post",
                "--dir",
                text(&self.network.requester.place.dir)?,
                "--title",
                &title,
                "--kind",
                "instruction",
                "--base",
                text(&base)?,
                "--train",
                text(&train)?,
                "--eval",
                text(&eval)?,
                "--pot",
                "100",
                "--bond",
                "5",
                "--min-gain",
                "2",
                "--windows",
                &windows,
                "--checkpoint-mb",
                checkpoint_mb,
            ];
            words.extend(small);
            let posted = self.tool.json(&words)?;
            let id = posted["task"].as_str().context("task post prints no task id")?.to_owned();
            self.screen.tell(&format!("posted {title} as {}: pot 100 credits", &id[..8]));
            self.tasks.push(id);
        }
        Ok(())
    }

    fn base(&self) -> PathBuf {
        self.options.base.clone().unwrap_or_else(|| self.network.assets.join("base"))
    }

    /// Windows of a task: as measured for the base that ships, else from what `task check` reckons.
    fn windows(&mut self, base: &Path, train: &Path, eval: &Path) -> Result<String> {
        if self.options.base.is_none() {
            return Ok(WINDOWS.to_owned());
        }
        let words = ["task", "check", "--base", text(base)?, "--train", text(train)?, "--eval", text(eval)?];
        let checked = self.tool.json(&words)?;
        let number = |path: &str| checked.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let estimate = Estimate {
            evaluation_cpu_ms: number("/report/evaluation_cpu_ms"),
            epoch_cpu_ms: number("/report/epoch_cpu_ms"),
            epoch_tokens: number("/report/training/tokens"),
            base_bytes: fs::metadata(base.join("model.safetensors"))?.len(),
        };
        let (validators, miners) = (self.options.validators as u64, self.options.miners as u64);
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let tasks = self.options.tasks as u64;
        let tokens = self.options.tokens().saturating_mul(tasks);
        let windows = estimate.windows(validators, miners, tokens, cores, BLOCK_MS);
        let blocks: u64 = windows.iter().sum();
        self.patience += Duration::from_millis(blocks.saturating_mul(BLOCK_MS).saturating_mul(2));
        let windows = windows.map(|window| window.to_string()).join(",");
        self.screen.tell(&format!(
            "task check reckons {:.1} CPU-s an evaluation, {:.1} CPU-s an epoch: windows {windows}",
            estimate.evaluation_cpu_ms as f64 / 1e3,
            estimate.epoch_cpu_ms as f64 / 1e3
        ));
        Ok(windows)
    }

    fn race(&mut self) -> Result<()> {
        let until = Instant::now() + self.patience;
        let mut fate = Fate::default();
        while !(self.seen.all_over(&self.tasks) && fate.is_done()) {
            self.check_alive()?;
            self.seen.look(&self.client, &self.network);
            self.kill_and_restart(&mut fate)?;
            let picture = self.seen.picture(&self.network, &self.tasks);
            self.screen.draw(&picture);
            ensure!(Instant::now() < until, "the tasks were not over in time");
            self.pause(TICK)?;
        }
        let picture = self.seen.picture(&self.network, &self.tasks);
        self.screen.draw(&picture);
        self.screen.tell("every task is over");
        Ok(())
    }

    fn kill_and_restart(&mut self, fate: &mut Fate) -> Result<()> {
        let (kills, height) = (self.network.kills, self.seen.height);
        if fate.opened_at.is_none() && self.seen.any_open(&self.tasks) {
            fate.opened_at = Some(height);
        }
        let due = fate.opened_at.is_some_and(|opened| height >= opened + kills.validator_after_blocks);
        fate.validator.step(
            due,
            height,
            kills.validator_down_blocks,
            &mut self.network.validators[kills.validator],
            &mut self.screen,
        )?;
        let saved = self.seen.runs.iter().any(|((miner, _), job)| {
            *miner == kills.miner && job.state == "running" && job.checkpoint_step > 0
        });
        if fate.saved_at.is_none() && saved {
            fate.saved_at = Some(height);
        }
        let due = saved && fate.saved_at.is_some_and(|at| height >= at + kills.miner_after_blocks);
        fate.miner.step(
            due,
            height,
            kills.miner_down_blocks,
            &mut self.network.miners[kills.miner],
            &mut self.screen,
        )?;
        let nodes = [(&mut fate.validator, "validator"), (&mut fate.miner, "miner")];
        for (victim, role) in nodes {
            if let Some(killed) = victim.level_with_chain(&self.seen, role) {
                let news = format!("{} is level with the chain again at height {height}", killed.node);
                self.screen.tell(&news);
                self.killed.push(killed);
            }
        }
        Ok(())
    }

    fn take_stock(&mut self) -> Result<Report> {
        let mut report = Report {
            validators: self.network.validators.len(),
            miners: self.network.miners.len(),
            ..Report::default()
        };
        for id in &self.tasks {
            let task = self.client.task(&self.network.observer.place.url, id)?;
            let phases = self.seen.phases.get(id).cloned().unwrap_or_default();
            let entrants = task.entrants.iter().map(|entrant| self.entrant(id, entrant)).collect();
            report.tasks.push(Task {
                id: task.id,
                kind: task.kind,
                title: task.title,
                state: task.phase,
                eval_examples: task.examples,
                base_score: task.base_mean_micro.unwrap_or(0) as f64 / 1e6,
                phases,
                entrants,
                winner: task.winner,
            });
        }
        let mut samples = Vec::new();
        for node in &self.network.validators {
            samples.extend(self.client.status(&node.place.url)?.finality_ms.samples);
        }
        report.finality_ms = percentiles(samples);
        report.rss_mb_total_max = self.seen.rss_total_max_kib as f64 / 1024.0;
        report.rss_mb_validator_idle_max = self.seen.rss_validator_idle_max_kib as f64 / 1024.0;
        Ok(report)
    }

    fn entrant(&self, task: &str, entrant: &super::client::Entrant) -> Entrant {
        let at = self.network.miner_keys.iter().position(|key| key.to_string() == entrant.miner);
        let name = at.and_then(|at| self.network.miners.get(at)).map(|node| node.place.name.clone());
        let job = at.and_then(|at| self.seen.runs.get(&(at, task.to_owned())));
        Entrant {
            miner: name.unwrap_or_else(|| "unknown".to_owned()),
            key: entrant.miner.clone(),
            strategy: entrant.strategy.clone().unwrap_or_default(),
            tokens_trained: entrant.tokens_trained.unwrap_or(0),
            commit_height: entrant.commit_height,
            resumed_from_step: job.map_or(0, |job| job.resumed_from_step),
            mean_score: entrant.mean_micro.map(|mean| mean as f64 / 1e6),
            gain_ppm: entrant.gain_ppm,
            rank: entrant.rank,
            reason: entrant.reason.clone(),
            reward: entrant.reward,
        }
    }

    /// Fetches each winner's checkpoint and proves its payment to a light client that trusts the genesis hash alone.
    fn prove(&mut self, report: &mut Report) -> Result<()> {
        let observer = self.network.observer.place.url.clone();
        let requester = self.network.requester.place.dir.clone();
        let mut verified = !report.tasks.is_empty();
        for task in &report.tasks {
            let Some(winner) = &task.winner else {
                verified = false;
                continue;
            };
            let out = self.dir.join(format!("winner-{}", task.title));
            self.tool.json(&["task", "fetch", &task.id, "--dir", text(&requester)?, "--out", text(&out)?])?;
            let receipt = self.dir.join(format!("{}.receipt", task.title));
            let file = text(&receipt)?;
            self.tool.json(&["receipt", "get", &task.id, winner, "--url", &observer, "--out", file])?;
            let genesis = text(&self.network.genesis_file)?;
            let offline = self.tool.json(&["receipt", "verify", file, "--genesis", genesis])?;
            let light = self.tool.json(&[
                "light",
                "--url",
                &observer,
                "--genesis-hash",
                &self.network.genesis_hash,
                "--receipt",
                file,
            ])?;
            let holds = offline["valid"] == true && light["valid"] == true;
            verified &= holds;
            self.screen.tell(&format!(
                "{}: winner's adapter fetched, its receipt {} from the genesis hash alone",
                task.title,
                if holds { "verified" } else { "REFUSED" }
            ));
        }
        report.receipt_verified = verified;
        Ok(())
    }

    /// Compares state roots at one height on every node, supply, and the killed validator's signature.
    fn compare(&mut self, report: &mut Report) -> Result<()> {
        let statuses: Vec<_> =
            self.network.all().map(|node| self.client.status(&node.place.url)).collect::<Result<_>>()?;
        let height = statuses.iter().map(|status| status.height).min().unwrap_or(0);
        report.heights = statuses.iter().map(|status| status.height).max().unwrap_or(0);
        report.supply_conserved = statuses.iter().all(|status| status.supply.conserved);
        let mut roots: Vec<String> = self
            .network
            .all()
            .map(|node| Ok(self.client.block(&node.place.url, height)?.state_root))
            .collect::<Result<_>>()?;
        roots.dedup();
        report.state_roots_equal = roots.len() == 1;
        let observer = self.network.observer.place.url.clone();
        let victim = self.network.validator_keys[self.network.kills.validator].to_string();
        for killed in &mut self.killed {
            if killed.role != "validator" {
                continue;
            }
            let from = killed.back_at_height.unwrap_or(killed.height) + 1;
            let mut signed = false;
            for at in from..height {
                if self.client.block(&observer, at)?.signers.contains(&victim) {
                    signed = true;
                    break;
                }
            }
            killed.signed_after = Some(signed);
        }
        report.killed = self.killed.clone();
        let idle = statuses.iter().all(|status| !status.syncing && status.peers > 0);
        ensure!(idle, "a node is still syncing or has no peers at the end");
        ensure!(!statuses.is_empty() && !statuses[0].state_root.is_empty(), "a node reports no state root");
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.screen.tell("stopping every process");
        for node in self.network.all() {
            node.ask_to_stop();
        }
        let interrupted = self.interrupted;
        // A second Ctrl-C while stopping changes nothing: everything is on its way out.
        let tick = move |time: Duration| {
            let _ = interrupted.recv_timeout(time);
        };
        let mut late = Vec::new();
        for node in self.network.all_mut() {
            if !node.reap(STOP_PATIENCE, &tick)? {
                late.push(node.place.name.clone());
            }
        }
        ensure!(late.is_empty(), "had to kill {} at the end: they did not stop when asked", late.join(", "));
        Ok(())
    }

    fn check_alive(&mut self) -> Result<()> {
        self.network.all_mut().try_for_each(Node::check_alive)
    }

    fn summary(&mut self, report: &Report) {
        println!("\nresults");
        for task in &report.tasks {
            println!(
                "  {} ({}): base {:.4}, {} examples",
                task.title, task.state, task.base_score, task.eval_examples
            );
            for entrant in &task.entrants {
                let score = entrant.mean_score.map_or("-".to_owned(), |score| format!("{score:.4}"));
                let gain =
                    entrant.gain_ppm.map_or("-".to_owned(), |gain| format!("{:+.1} %", gain as f64 / 1e4));
                println!(
                    "    {:<9} {:<22} score {score:>8}  gain {gain:>8}  paid {:>9.3}  {}",
                    entrant.miner,
                    entrant.strategy,
                    entrant.reward as f64 / 1e6,
                    entrant.reason
                );
            }
        }
        println!(
            "  {} blocks in {:.1} s; decided and durable in p50 {:.0} ms, p99 {:.0} ms; {:.0} MB in all, idle validator {:.0} MB",
            report.heights,
            report.elapsed_s,
            report.finality_ms.p50,
            report.finality_ms.p99,
            report.rss_mb_total_max,
            report.rss_mb_validator_idle_max
        );
    }
}

/// What becomes of the two victims.
#[derive(Debug, Default)]
struct Fate {
    opened_at: Option<u64>,
    saved_at: Option<u64>,
    validator: Victim,
    miner: Victim,
}

impl Fate {
    /// A victim that was killed must be back before the run ends; one that never was due is reported by its absence.
    fn is_done(&self) -> bool {
        [&self.validator, &self.miner].iter().all(|victim| match victim {
            Victim::Alive | Victim::Back => true,
            Victim::Down { .. } | Victim::Restarted { .. } => false,
        })
    }
}

#[derive(Debug, Default)]
enum Victim {
    #[default]
    Alive,
    Down {
        at: u64,
    },
    Restarted {
        name: String,
        at: u64,
    },
    Back,
}

impl Victim {
    fn step(
        &mut self,
        due: bool,
        height: u64,
        down_blocks: u64,
        node: &mut Node,
        screen: &mut Screen,
    ) -> Result<()> {
        match self {
            Self::Alive if due => {
                node.kill()?;
                screen.tell(&format!("kill -9 {} at height {height}", node.place.name));
                *self = Self::Down { at: height };
            }
            Self::Down { at } if height >= *at + down_blocks => {
                node.start()?;
                screen.tell(&format!("{} started again at height {height}", node.place.name));
                *self = Self::Restarted { name: node.place.name.clone(), at: *at };
            }
            Self::Alive | Self::Down { .. } | Self::Restarted { .. } | Self::Back => {}
        }
        Ok(())
    }

    /// Returns the record of a victim that has caught up, once.
    fn level_with_chain(&mut self, seen: &Seen, role: &str) -> Option<Killed> {
        let Self::Restarted { name, at } = self else {
            return None;
        };
        let own = seen.heights.iter().find(|(node, _)| node == name)?.1?;
        if own + 1 < seen.height {
            return None;
        }
        let killed = Killed {
            node: name.clone(),
            role: role.to_owned(),
            height: *at,
            back_at_height: Some(own),
            signed_after: None,
        };
        *self = Self::Back;
        Some(killed)
    }
}

fn percentiles(mut samples: Vec<f64>) -> Finality {
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (samples.len().saturating_sub(1) as f64 * share).round() as usize;
        samples.get(index).copied().unwrap_or(0.0)
    };
    Finality { p50: at(0.5), p99: at(0.99) }
}
