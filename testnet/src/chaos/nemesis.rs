//! Carries a plan out: begins and ends each fault when its time has come.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::api::Api;
use super::damage;
use super::dice::Dice;
use super::links::Gate;
use super::plan::{Cut, Fault, Step};
use super::report::{Done, Violation};
use super::world::World;

const TICK: Duration = Duration::from_millis(50);
/// How often every node that runs is asked for its height.
const LOOK: Duration = Duration::from_millis(500);

/// Whoever does it.
pub(super) struct Nemesis<'a> {
    pub(super) world: &'a mut World,
    pub(super) up: Arc<Vec<AtomicBool>>,
    pub(super) interrupted: &'a Receiver<()>,
    pub(super) quiet: bool,
    api: Api,
    dice: Dice,
    /// Highest block that each node said it has: durable, so never taken back.
    told: Vec<u64>,
    /// Nodes that may end by themselves: their disk is full.
    excused: BTreeSet<usize>,
    pub(super) violations: Vec<Violation>,
    pub(super) done: Vec<Done>,
    begun: Instant,
}

impl<'a> Nemesis<'a> {
    pub(super) fn new(
        world: &'a mut World,
        up: Arc<Vec<AtomicBool>>,
        interrupted: &'a Receiver<()>,
        seed: u64,
        quiet: bool,
    ) -> Self {
        let told = vec![0; world.nodes.len()];
        Self {
            world,
            up,
            interrupted,
            quiet,
            api: Api::brief(),
            dice: Dice::new(seed, "damage"),
            told,
            excused: BTreeSet::new(),
            violations: Vec::new(),
            done: Vec::new(),
            begun: Instant::now(),
        }
    }

    fn set_up(&self, node: usize, is_up: bool) {
        if let Some(up) = self.up.get(node) {
            up.store(is_up, Ordering::Relaxed);
        }
    }

    fn say(&self, words: &str) {
        if !self.quiet {
            println!("{:>7.1} s  {words}", self.begun.elapsed().as_secs_f64());
        }
    }

    /// Starts every node.
    pub(super) fn start_all(&mut self) -> Result<()> {
        for at in 0..self.world.nodes.len() {
            self.start(at)?;
        }
        Ok(())
    }

    fn start(&mut self, at: usize) -> Result<()> {
        self.excused.remove(&at);
        self.world.node_mut(at)?.start()?;
        self.set_up(at, true);
        Ok(())
    }

    fn kill(&mut self, at: usize) -> Result<()> {
        self.set_up(at, false);
        self.world.node_mut(at)?.kill()
    }

    /// Runs through the plan; everything is whole again when it returns.
    pub(super) fn play(&mut self, plan: &[Step]) -> Result<()> {
        self.begun = Instant::now();
        let mut events: Vec<(u64, bool, &Step)> = plan
            .iter()
            .flat_map(|step| [(step.at_ms, true, step), (step.at_ms + step.lasts_ms, false, step)])
            .collect();
        events.sort_by_key(|(at, begins, _)| (*at, *begins));
        for (at_ms, begins, step) in events {
            self.wait_until(Duration::from_millis(at_ms))?;
            let found = if begins { self.begin(step)? } else { self.end(step)? };
            let head = if begins { "begin" } else { "end  " };
            self.say(&format!("{head}  {}{found}", step.fault));
            if begins {
                self.done.push(Done { planned: step.clone(), words: format!("{}{found}", step.fault) });
            }
        }
        self.world.links.heal();
        Ok(())
    }

    fn wait_until(&mut self, at: Duration) -> Result<()> {
        let mut looked = Instant::now();
        while self.begun.elapsed() < at {
            self.pause(TICK)?;
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.watch();
            }
        }
        Ok(())
    }

    /// Waits a little; fails when the user wants to end.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        match self.interrupted.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => bail!("interrupted"),
        }
    }

    /// Looks at every node that should answer: none may have ended, none may have lost a block it spoke of.
    pub(super) fn watch(&mut self) -> Vec<Option<super::api::Status>> {
        let mut seen = Vec::new();
        for at in 0..self.world.nodes.len() {
            let is_up = self.up.get(at).is_some_and(|up| up.load(Ordering::Relaxed));
            if !is_up {
                seen.push(None);
                continue;
            }
            let status = self.world.node(at).and_then(|node| self.api.status(&node.place.url)).ok();
            if let (Some(status), Some(told)) = (&status, self.told.get_mut(at)) {
                if status.height < *told {
                    self.violations.push(Violation::HeightLost { node: at, told: *told, now: status.height });
                }
                *told = (*told).max(status.height);
                if !status.supply.conserved {
                    self.violations.push(Violation::Supply { node: at, height: status.height });
                }
            }
            if status.is_none()
                && !self.excused.contains(&at)
                && let Some(node) = self.world.nodes.get_mut(at)
                && let Err(ended) = node.check_alive()
            {
                self.set_up(at, false);
                self.violations.push(Violation::Ended { node: at, words: ended.to_string() });
            }
            seen.push(status);
        }
        seen
    }

    fn begin(&mut self, step: &Step) -> Result<String> {
        match &step.fault {
            Fault::Kill { nodes } => nodes.iter().try_for_each(|at| self.kill(*at))?,
            Fault::Pause { nodes } => nodes.iter().try_for_each(|at| self.signal(*at, Signal::STOP))?,
            Fault::Split { side, cut } => self.split(side, *cut),
            Fault::Slow { node, delay_ms } => {
                let pairs = self.pairs(&[*node], true);
                self.world.links.set(&pairs, Gate::Slow(Duration::from_millis(*delay_ms)));
            }
            Fault::Full { node, room_bytes } => {
                self.excused.insert(*node);
                if let Some(pid) = self.world.node(*node)?.pid() {
                    let dir: PathBuf = self.world.node(*node)?.place.dir.clone();
                    let at = damage::fill(pid, &dir, *room_bytes)?;
                    return Ok(format!(" (at {at} bytes)"));
                }
            }
            Fault::Damage { node, target, bits } => {
                self.kill(*node)?;
                let dir = self.world.node(*node)?.place.dir.clone();
                let found = damage::damage(&dir, *target, *bits, &mut self.dice)?;
                return Ok(format!(" ({found})"));
            }
            Fault::Clock { node, offset_ms } => {
                self.kill(*node)?;
                self.world.configure(*node, *offset_ms)?;
                self.start(*node)?;
            }
        }
        Ok(String::new())
    }

    fn end(&mut self, step: &Step) -> Result<String> {
        match &step.fault {
            Fault::Kill { nodes } => nodes.iter().try_for_each(|at| self.start(*at))?,
            Fault::Pause { nodes } => nodes.iter().try_for_each(|at| self.signal(*at, Signal::CONT))?,
            Fault::Split { .. } | Fault::Slow { .. } => self.world.links.heal(),
            Fault::Full { node, .. } => return self.make_room(*node),
            Fault::Damage { node, .. } => self.start(*node)?,
            Fault::Clock { node, .. } => {
                self.kill(*node)?;
                self.world.configure(*node, 0)?;
                self.start(*node)?;
            }
        }
        Ok(String::new())
    }

    /// Gives the disk its room back. A node that has ended for want of it is started again.
    fn make_room(&mut self, node: usize) -> Result<String> {
        let alive = self.world.node_mut(node)?.check_alive().is_ok();
        if alive {
            if let Some(pid) = self.world.node(node)?.pid() {
                damage::limit(pid, None)?;
            }
            self.excused.remove(&node);
            return Ok(" (the node went on)".to_owned());
        }
        self.kill(node)?;
        self.start(node)?;
        Ok(" (the node had stopped; started again)".to_owned())
    }

    fn signal(&self, at: usize, signal: Signal) -> Result<()> {
        self.set_up(at, signal == Signal::CONT);
        let pid = self.world.node(at)?.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        match pid {
            Some(pid) => Ok(kill_process(pid, signal)?),
            None => Ok(()),
        }
    }

    fn pairs(&self, side: &[usize], both_ways: bool) -> Vec<(usize, usize)> {
        let others = (0..self.world.nodes.len()).filter(|node| !side.contains(node));
        others
            .flat_map(|other| side.iter().map(move |node| (*node, other)))
            .flat_map(|(node, other)| {
                let back = both_ways.then_some((other, node));
                [Some((node, other)), back]
            })
            .flatten()
            .collect()
    }

    fn split(&self, side: &[usize], cut: Cut) {
        let (gate, both_ways) = match cut {
            Cut::Held => (Gate::Held, true),
            Cut::Broken => (Gate::Broken, true),
            Cut::OneWay => (Gate::Held, false),
        };
        self.world.links.set(&self.pairs(side, both_ways), gate);
    }
}
