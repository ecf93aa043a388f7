//! The shell of each node: starts its machine, gives it what happens, carries out what it asks for, dies.

use std::convert::Infallible;
use std::rc::Rc;

use tiltyard_machine::io::{Commit, JobId};
use tiltyard_machine::roles::{JudgeConfig, MinerConfig, RoleConfig, RoleSecret};
use tiltyard_machine::{Config, Effect, Event, Input, JoinConfig, Machine, MempoolLimits};
use tiltyard_proto::codec;
use tiltyard_proto::state::{Account, StateKey};
use tiltyard_proto::units::{Blocks, MicroCredits};

use super::disk::{Damage, Write};
use super::market::secret;
use super::network::{ACCOUNT, CONSENSUS, peer};
use super::plan::Treason;
use super::planted::Bug;
use super::view::BUGGY;
use super::violation::Violation;
use super::wire::Frame;
use super::world::{Boundary, Doom, Due, World};

/// How long an effect that must be durable takes at most, in milliseconds.
const FSYNC_MS_MAX: u64 = 4;
/// Largest blob of the simulated network, in bytes.
const BLOB_BYTES_MAX: u64 = 1 << 30;

fn is_durable(effect: &Effect) -> bool {
    match effect {
        Effect::SaveBody { .. }
        | Effect::Journal(_)
        | Effect::ResetJournal(_)
        | Effect::Commit(_)
        | Effect::SaveRole(_)
        | Effect::BeginSnapshot { .. }
        | Effect::SaveChunk { .. }
        | Effect::FinishSnapshot { .. }
        | Effect::DropSnapshot => true,
        Effect::Say { .. }
        | Effect::Publish { .. }
        | Effect::Report { .. }
        | Effect::Ask { .. }
        | Effect::Respond { .. }
        | Effect::Penalize { .. }
        | Effect::SetTimer { .. }
        | Effect::CancelTimer(_)
        | Effect::Fetch { .. }
        | Effect::Serve { .. }
        | Effect::Drop(_)
        | Effect::StartJob { .. }
        | Effect::FinishJob(_)
        | Effect::CancelJob(_)
        | Effect::Notify(_)
        | Effect::Repair(_)
        | Effect::StopSigning { .. } => false,
    }
}

impl World {
    fn config(&self, node: usize) -> Config {
        let miner = MinerConfig {
            bond_max: MicroCredits::new(1_000_000_000),
            pot_min: MicroCredits::new(1),
            blob_bytes_max: BLOB_BYTES_MAX,
            finish_before: Blocks::new(3),
            tasks_max: 2,
        };
        let mines = node + 1 < self.nodes.len() && node < 3;
        Config {
            genesis: self.genesis.clone(),
            peer: peer(node),
            validator: Some(secret(CONSENSUS, node)),
            twin_wait: Blocks::new(if self.plan.is_honest(node) { 2 } else { 0 }),
            account: secret(ACCOUNT, node),
            roles: RoleConfig {
                judge: Some(JudgeConfig { blob_bytes_max: BLOB_BYTES_MAX }),
                miner: mines.then_some(miner),
            },
            role_secret: RoleSecret::new([node as u8; 32]),
            mempool: MempoolLimits::default(),
            join: self.nodes[node].joins.then_some(JoinConfig { checkpoint: None }),
        }
    }

    /// Starts a node from its disk.
    pub(crate) fn start(&mut self, at: usize) {
        if self.nodes[at].machine.is_some() {
            return;
        }
        let bug = self.plan.shape.planted;
        let (config, now) = (self.config(at), self.clock(at));
        let node = &mut self.nodes[at];
        let base = node.disk.durable.base;
        let recovered = match node.disk.open(&self.genesis, bug) {
            Ok(recovered) => recovered,
            Err(error) => {
                return self.oracle.say(Violation::Stopped { node: at, fact: error.to_string() });
            }
        };
        let tip = node.disk.durable.tip();
        self.trace.note(self.now_ms, at, 1, &tip.to_be_bytes(), || format!("starts at height {tip}"));
        if node.disk.durable.base != base {
            self.oracle.joined(at, &node.disk.durable);
            node.acknowledged = tip;
        }
        self.oracle.restarted(at, tip, node.acknowledged);
        match Machine::new(config, node.disk.view(at, bug), recovered, now) {
            Ok(machine) => node.machine = Some(machine),
            Err(error) => {
                return self.oracle.say(Violation::Stopped { node: at, fact: error.to_string() });
            }
        }
        node.life += 1;
        self.give(at, Input::Start);
        self.connect_all();
    }

    /// Cuts a node's power.
    fn crash(&mut self, at: usize, doom: Doom) {
        self.trace.note(self.now_ms, at, 2, &[], || format!("crashes: {doom:?}"));
        self.stop(at);
        self.crashes += 1;
        let node = &mut self.nodes[at];
        node.is_damaged |= doom.damage == Damage::Bodies;
        node.disk.crash(doom.fate, doom.damage);
        self.later(doom.down_ms, Due::Start(at));
    }

    /// Gives a node an input now and carries out what follows.
    pub(crate) fn give(&mut self, at: usize, input: Input) {
        let now = self.clock(at);
        let Some(machine) = self.nodes[at].machine.as_mut() else {
            return;
        };
        self.trace.note(self.now_ms, at, 3, &[], || format!("< {}", short(&input)));
        match machine.step(now, input) {
            Ok(effects) => self.carry_out_all(at, effects),
            Err(error) => {
                self.nodes[at].machine = None;
                if self.plan.is_honest(at) {
                    self.oracle.say(Violation::Stopped { node: at, fact: error.to_string() });
                }
            }
        }
    }

    fn carry_out_all(&mut self, at: usize, mut effects: Vec<Effect>) {
        if self.plan.shape.planted == Some(Bug::SendBeforeWrite) {
            effects.sort_by_key(is_durable);
        }
        let mut lag_ms = 0;
        for effect in effects {
            let dies = match &mut self.nodes[at].doom {
                Some(doom) if doom.effects == 0 => Some(*doom),
                Some(doom) => {
                    doom.effects -= 1;
                    None
                }
                None => None,
            };
            if let Some(doom) = dies {
                self.nodes[at].doom = None;
                if is_durable(&effect) {
                    let unfinished = self.nodes[at].disk.live.borrow().tip();
                    self.trace.note(self.now_ms, at, 4, &unfinished.to_be_bytes(), || {
                        format!("dies while it writes: {}", effect_name(&effect))
                    });
                    self.write(at, effect);
                }
                return self.crash(at, doom);
            }
            if self.plan.shape.calm {
                let height = self.nodes[at].disk.durable.tip() + 1;
                self.nodes[at].carried.push(Boundary { height, is_write: is_durable(&effect) });
            }
            if is_durable(&effect) {
                lag_ms += self.dice.below(FSYNC_MS_MAX + 1);
                let is_end = matches!(effect, Effect::FinishSnapshot { .. });
                self.carry_out_write(at, effect, lag_ms);
                if is_end {
                    return self.reopen(at);
                }
            } else {
                self.carry_out(at, effect, lag_ms);
            }
        }
    }

    /// Writes without syncing. Returns the height of a block that was committed.
    fn write(&mut self, at: usize, effect: Effect) -> Option<Rc<Commit>> {
        let bug = self.plan.shape.planted;
        let disk = &mut self.nodes[at].disk;
        match effect {
            Effect::SaveBody { .. } if bug == Some(Bug::DroppedBodies) => {}
            Effect::SaveBody { block, height, bytes } => {
                disk.write(Write::Body { block, height, bytes: Rc::new(bytes) });
            }
            Effect::Journal(batch) => {
                let write = |bytes: &[u8]| {
                    disk.write(Write::Journal(Rc::new(bytes.to_vec())));
                    Ok::<(), Infallible>(())
                };
                let Ok(written) = batch.perform(write);
                self.nodes[at].written = written;
            }
            Effect::ResetJournal(batch) => {
                let write = |bytes: &[u8]| {
                    disk.write(Write::ResetJournal(Rc::new(bytes.to_vec())));
                    Ok::<(), Infallible>(())
                };
                let Ok(written) = batch.perform(write);
                self.nodes[at].written = written;
            }
            Effect::SaveRole((key, value)) => disk.write(Write::Role(key, value)),
            Effect::Commit(mut commit) => {
                damage(bug, at, &mut commit);
                let commit = Rc::new(*commit);
                disk.write(Write::Commit(Rc::new(commit.decided.clone()), Rc::clone(&commit)));
                return Some(commit);
            }
            other => self.write_snapshot(at, other),
        }
        None
    }

    fn carry_out_write(&mut self, at: usize, effect: Effect, lag_ms: u64) {
        let bug = self.plan.shape.planted;
        let unsynced = match (bug, &effect) {
            (Some(Bug::UnsyncedJournal), Effect::Journal(_) | Effect::ResetJournal(_)) => true,
            (Some(Bug::EarlyAcknowledgement), Effect::Commit(_)) => true,
            (_, Effect::SaveChunk { .. }) => true,
            (Some(_) | None, _) => false,
        };
        let committed = self.write(at, effect);
        if !unsynced {
            self.nodes[at].disk.sync();
        }
        if let Some(commit) = committed {
            let height = commit.decided.block.header.height;
            let hash = commit.decided.block.hash();
            self.trace
                .note(self.now_ms, at, 5, hash.as_bytes(), || format!("commits {height} {}", hash.short()));
            let live = Rc::clone(&self.nodes[at].disk.live);
            self.oracle.committed(at, self.now_ms, &commit, &live.borrow());
            self.nodes[at].acknowledged = height.get();
            self.give_later(at, lag_ms, Input::Committed(height));
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect, lag_ms: u64) {
        match effect {
            Effect::SaveBody { .. }
            | Effect::Journal(_)
            | Effect::ResetJournal(_)
            | Effect::Commit(_)
            | Effect::SaveRole(_)
            | Effect::BeginSnapshot { .. }
            | Effect::SaveChunk { .. }
            | Effect::FinishSnapshot { .. }
            | Effect::DropSnapshot => self.carry_out_write(at, effect, lag_ms),
            Effect::Say { topic, frame } => match frame.open(&self.nodes[at].written) {
                Ok(bytes) => self.carry_out(at, Effect::Publish { topic, bytes }, lag_ms),
                // Only a shell with a bug comes here: the message stays sealed, and is never sent.
                Err(error) => self.oracle.say(Violation::Stopped { node: at, fact: error.to_string() }),
            },
            Effect::Publish { topic, bytes } => {
                if self.plan.is_honest(at) {
                    self.publish(at, topic, &bytes, lag_ms);
                } else {
                    self.betray(at, topic, bytes, lag_ms);
                }
            }
            Effect::Report { token, acceptance, .. } => self.judged(at, token, acceptance, lag_ms),
            Effect::Ask { token, to, request } => self.ask(at, lag_ms, token, &to, request),
            Effect::Respond { token, response } => self.respond(at, lag_ms, token, *response),
            Effect::Penalize { peer, fact } => {
                if self.plan.is_honest(at) {
                    self.oracle.penalized(at, super::network::node_of(&peer), fact);
                }
            }
            Effect::SetTimer { id, after_ms } => {
                let (life, serial) = (self.nodes[at].life, self.next_serial());
                self.nodes[at].timers.insert(id, serial);
                self.later(lag_ms + after_ms, Due::Timer { at, life, id, serial });
            }
            Effect::CancelTimer(id) => {
                self.nodes[at].timers.remove(&id);
            }
            Effect::Fetch { blob, .. } => {
                let held = self.is_healed() || !self.dice.percent(5);
                let delay = self.dice.between(10, 250);
                self.give_later(at, delay, Input::Blob { root: blob.root, held });
            }
            // No disk of the simulator loses blocks in the middle.
            Effect::Serve { .. } | Effect::Drop(_) | Effect::FinishJob(_) | Effect::Repair(_) => {}
            Effect::StartJob { id, job } => self.start_job(at, id, &job),
            Effect::CancelJob(id) => {
                self.nodes[at].jobs.remove(&id);
            }
            Effect::Notify(event) => self.notified(at, &event),
            Effect::StopSigning { fact } => {
                self.stopped_signing += u64::from(self.nodes[at].is_damaged);
                if self.plan.is_honest(at) && !self.nodes[at].is_damaged {
                    self.oracle.say(Violation::Stopped { node: at, fact });
                }
            }
        }
    }

    fn publish(&mut self, at: usize, topic: tiltyard_proto::wire::Topic, bytes: &[u8], lag_ms: u64) {
        match Frame::decode(topic, bytes) {
            Ok(frame) => {
                self.trace.note(self.now_ms, at, 6, &frame.id, || format!("> {}", frame_name(&frame)));
                self.oracle.published(at, &frame, &self.nodes[at].disk.durable);
                self.nodes[at].seen.insert(frame.id);
                self.spread(at, lag_ms, &frame, u64::MAX);
            }
            Err(error) => {
                let fact = format!("published what does not decode: {error}");
                self.oracle.say(Violation::Stopped { node: at, fact });
            }
        }
    }

    fn notified(&mut self, at: usize, event: &Event) {
        self.trace.note(self.now_ms, at, 7, &[], || format!("! {event:?}"));
        if self.plan.is_honest(at) {
            self.oracle.told(at, event);
        }
    }

    fn start_job(&mut self, at: usize, id: JobId, job: &tiltyard_machine::io::Job) {
        if !self.nodes[at].jobs.insert(id) {
            return;
        }
        let delay = self.dice.between(20, 900);
        let fails = self.dice.percent(3) && !self.is_healed();
        let outcome = if fails {
            tiltyard_machine::io::JobOutcome::Failed { fact: "simulated".to_owned() }
        } else if self.plan.shape.planted == Some(Bug::WrongScores) {
            self.market.broken(job)
        } else if self.plan.treason[at].contains(&Treason::Collude) {
            self.market.bent(job)
        } else {
            self.market.outcome(job)
        };
        let life = self.nodes[at].life;
        self.later(delay, Due::Job { to: at, life, id, outcome: Box::new(outcome) });
    }
}

/// What planted bugs do to a block's changes on their way to the disk.
fn damage(bug: Option<Bug>, at: usize, commit: &mut Commit) {
    let height = commit.decided.block.header.height;
    let is = |key: &[u8], kind: &StateKey| key.first() == kind.to_bytes().first();
    let zero = tiltyard_keys::PublicKey::from_bytes([0; 32]);
    let task = tiltyard_proto::ids::TaskId::from_bytes([0; 32]);
    let values = &mut commit.changes.values;
    match bug {
        Some(Bug::SettlementRounding) if values.keys().any(|key| is(key, &StateKey::Verdict(task))) => {
            let account = values.iter_mut().find(|(key, _)| is(key, &StateKey::Account(zero)));
            if let Some((_, Some(value))) = account
                && let Ok(mut decoded) = codec::decode::<Account>("account", value, value.len())
            {
                decoded.balance = decoded.balance.saturating_sub(MicroCredits::new(1));
                *value = codec::encode(&decoded);
            }
        }
        Some(Bug::LostWrite) if at == BUGGY && height.get().is_multiple_of(10) => {
            values.pop_last();
        }
        Some(_) | None => {}
    }
}

fn short(input: &Input) -> String {
    let text = format!("{input:?}");
    text.chars().take(160).collect()
}

fn effect_name(effect: &Effect) -> String {
    let text = format!("{effect:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

pub(crate) fn frame_name(frame: &Frame) -> String {
    let text = format!("{:?}", frame.message);
    text.chars().take(200).collect()
}
