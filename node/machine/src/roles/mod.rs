//! What a node does for the market: judge, mine, open keys.
//!
//! Roles hold almost no state of their own. At every block they look at the ledger and say what should be done now;
//! the machine signs it, keeps one live transaction per duty, and offers it until it is in a block. A restarted node
//! therefore continues by looking. What the ledger cannot know yet (a trained checkpoint, score rows, a requester's
//! key) is kept in role entries, which are durable before they are used.
//!
//! Deliberately absent: clocks, randomness (salts are derived from the node's own secret) and floats.

mod judge;
mod miner;
mod requester;
mod view;

use std::collections::BTreeMap;

use tiltyard_keys::PublicKey;
use tiltyard_ledger::ReadError;
use tiltyard_proto::hash::derive;
use tiltyard_proto::ids::{BlobRoot, Salt, SealKey, TaskId};
use tiltyard_proto::manifest::{BlobRef, Manifest};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::{Blocks, MicroCredits};

use crate::io::{Effect, JobId, JobOutcome, RoleEntry};

pub use view::View;

/// What a node takes part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleConfig {
    /// Judges tasks, if the node holds a validator key.
    pub judge: Option<JudgeConfig>,
    /// Trains for tasks.
    pub miner: Option<MinerConfig>,
}

/// Limits of a judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeConfig {
    /// Largest base, training set or checkpoint fetched, in bytes.
    pub blob_bytes_max: u64,
}

/// What a miner takes and when it stops training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinerConfig {
    /// Largest bond locked for one task.
    pub bond_max: MicroCredits,
    /// Smallest pot worth training for.
    pub pot_min: MicroCredits,
    /// Largest base or training set fetched, in bytes.
    pub blob_bytes_max: u64,
    /// Asks the training job to finish this many blocks before commits close.
    pub finish_before: Blocks,
    /// Most tasks trained for at a time.
    pub tasks_max: u32,
}

/// Keys that the roles act with.
#[derive(Debug, Clone, Copy)]
pub struct RoleKeys {
    /// Consensus key of a validator.
    pub validator: Option<PublicKey>,
    /// Account that mines and posts.
    pub account: PublicKey,
    /// Hides commitments; drawn once when the node was set up, never shown.
    pub secret: RoleSecret,
}

/// 32 secret bytes that salts are derived from.
#[derive(Clone, Copy)]
pub struct RoleSecret([u8; 32]);

impl RoleSecret {
    /// Wraps secret bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn salt(&self, purpose: u8, task: &TaskId, of: &[u8]) -> Salt {
        const CONTEXT: &str = "tiltyard/role-salt/v1";
        Salt::from_bytes(derive(CONTEXT, &[&self.0, &[purpose], task.as_bytes(), of]))
    }
}

impl core::fmt::Debug for RoleSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RoleSecret(..)")
    }
}

/// Which of the node's keys signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The consensus key.
    Validator,
    /// The account.
    Account,
}

/// What a transaction does for a task; the machine keeps one live transaction for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// Accepts.
    Accept,
    /// Commits.
    Commit,
    /// Reveals.
    Reveal,
    /// Says that so many entrants are held.
    Held(u32),
    /// Opens the key.
    OpenKey,
    /// Commits to scores.
    ScoreCommit,
    /// Opens a row.
    ScoreOpen(u32),
}

/// Names a duty for one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DutyKey {
    /// The task.
    pub task: TaskId,
    /// The duty.
    pub duty: Duty,
}

/// What the roles want done.
#[derive(Debug, Clone)]
pub enum RoleAction {
    /// Something for the shell.
    Effect(Effect),
    /// A transaction to sign and to offer until it is in a block.
    Submit {
        /// Who signs.
        from: Who,
        /// What it does; a live transaction of the same name is not replaced.
        key: DutyKey,
        /// The action.
        action: Box<Action>,
    },
}

/// What the shell tells the roles.
#[derive(Debug, Clone)]
pub enum RoleInput {
    /// A blob is here, or could not be had.
    Blob {
        /// Its root.
        root: BlobRoot,
        /// Whether it is here.
        held: bool,
    },
    /// A job ended.
    JobEnded {
        /// Which.
        id: JobId,
        /// How.
        outcome: Box<JobOutcome>,
    },
    /// A requester's key to open when it is due.
    KeepKey {
        /// Root of the sealed set.
        ciphertext: BlobRoot,
        /// The key.
        key: SealKey,
    },
}

/// Role entries in memory, written through to the shell.
#[derive(Debug, Default)]
pub(crate) struct Saved(BTreeMap<Vec<u8>, Vec<u8>>);

impl Saved {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice)
    }

    fn with_prefix(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.0
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>, out: &mut Vec<RoleAction>) {
        if self.0.get(&key) == Some(&value) {
            return;
        }
        self.0.insert(key.clone(), value.clone());
        out.push(RoleAction::Effect(Effect::SaveRole((key, value))));
    }

    fn remove(&mut self, key: &[u8], out: &mut Vec<RoleAction>) {
        if self.0.remove(key).is_some() {
            out.push(RoleAction::Effect(Effect::SaveRole((key.to_vec(), Vec::new()))));
        }
    }
}

/// Blobs that were asked for and blobs that are here, shared by the roles of one node.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    state: BTreeMap<BlobRoot, bool>,
}

impl Blobs {
    /// Says whether the blob is here; asks for it the first time.
    fn want(&mut self, request: Effect, root: BlobRoot, out: &mut Vec<RoleAction>) -> bool {
        if let Some(held) = self.state.get(&root) {
            return *held;
        }
        self.state.insert(root, false);
        out.push(RoleAction::Effect(request));
        false
    }

    fn arrived(&mut self, root: BlobRoot, held: bool) {
        if held {
            self.state.insert(root, true);
        } else {
            // Asked for again at the next block.
            self.state.remove(&root);
        }
    }

    fn dropped(&mut self, root: &BlobRoot) {
        self.state.remove(root);
    }
}

/// The roles of one node.
#[derive(Debug)]
pub struct Roles {
    keys: RoleKeys,
    saved: Saved,
    blobs: Blobs,
    judge: Option<judge::Judge>,
    miner: Option<miner::Miner>,
    requester: requester::Requester,
}

impl Roles {
    /// Sets the roles up from their configuration and the entries saved before.
    #[must_use]
    pub fn new(config: RoleConfig, keys: RoleKeys, saved: Vec<RoleEntry>) -> Self {
        let judge = keys.validator.zip(config.judge).map(|(key, config)| judge::Judge::new(key, config));
        Self {
            keys,
            saved: Saved(saved.into_iter().filter(|(_, value)| !value.is_empty()).collect()),
            blobs: Blobs::default(),
            judge,
            miner: config.miner.map(miner::Miner::new),
            requester: requester::Requester::default(),
        }
    }

    /// Says what to do when the node starts: who may fetch what, which jobs go on.
    ///
    /// # Errors
    /// [`ReadError`] when the state cannot be read: the node must stop.
    pub fn on_start(&mut self, view: &View<'_>, out: &mut Vec<RoleAction>) -> Result<(), ReadError> {
        self.on_block(view, out)
    }

    /// Looks at the state after a block and says what should be done now.
    ///
    /// # Errors
    /// [`ReadError`] when the state cannot be read: the node must stop.
    pub fn on_block(&mut self, view: &View<'_>, out: &mut Vec<RoleAction>) -> Result<(), ReadError> {
        let live = view.live_tasks()?;
        let mut turn = Turn { keys: &self.keys, saved: &mut self.saved, blobs: &mut self.blobs, out };
        for task in &live {
            let Some(record) = view.task(task)? else {
                continue;
            };
            self.requester.on_task(view, task, &record, &mut turn)?;
            if let Some(judge) = &mut self.judge {
                judge.on_task(view, task, &record, &mut turn)?;
            }
            if let Some(miner) = &mut self.miner {
                miner.on_task(view, task, &record, &mut turn)?;
            }
        }
        self.requester.on_live(view, &live, &mut turn)?;
        if let Some(judge) = &mut self.judge {
            judge.on_live(view, &live, &mut turn)?;
        }
        if let Some(miner) = &mut self.miner {
            miner.on_live(view, &live, &mut turn)?;
        }
        Ok(())
    }

    /// Takes what the shell reports and says what follows at once.
    ///
    /// # Errors
    /// [`ReadError`] when the state cannot be read: the node must stop.
    pub fn on_input(
        &mut self,
        view: &View<'_>,
        input: RoleInput,
        out: &mut Vec<RoleAction>,
    ) -> Result<(), ReadError> {
        let mut turn = Turn { keys: &self.keys, saved: &mut self.saved, blobs: &mut self.blobs, out };
        match input {
            RoleInput::Blob { root, held } => {
                turn.blobs.arrived(root, held);
                if !held {
                    return Ok(());
                }
            }
            RoleInput::JobEnded { id, outcome } => {
                if let JobOutcome::Lost { blobs } = outcome.as_ref() {
                    for root in blobs {
                        turn.blobs.arrived(*root, false);
                    }
                }
                match id {
                    JobId::Check(task) => {
                        if let Some(judge) = &mut self.judge {
                            judge.on_checked(task, &outcome);
                        }
                    }
                    JobId::Evaluate(task, row) => {
                        if let Some(judge) = &mut self.judge {
                            judge.on_evaluated(task, row, &outcome, &mut turn);
                        }
                    }
                    JobId::Train(task) => {
                        if let Some(miner) = &mut self.miner {
                            miner.on_trained(task, *outcome, &mut turn);
                        }
                    }
                }
            }
            RoleInput::KeepKey { ciphertext, key } => {
                self.requester.keep(ciphertext, key, &mut turn);
            }
        }
        self.on_block(view, out)
    }

    /// Returns the keys that are kept for tasks of this node's requester.
    #[must_use]
    pub fn kept_keys(&self) -> Vec<BlobRoot> {
        requester::kept(&self.saved)
    }
}

/// What a role may touch during one step.
pub(crate) struct Turn<'a> {
    pub(crate) keys: &'a RoleKeys,
    pub(crate) saved: &'a mut Saved,
    pub(crate) blobs: &'a mut Blobs,
    pub(crate) out: &'a mut Vec<RoleAction>,
}

impl Turn<'_> {
    fn effect(&mut self, effect: Effect) {
        self.out.push(RoleAction::Effect(effect));
    }

    fn submit(&mut self, from: Who, task: TaskId, duty: Duty, action: Action) {
        self.out.push(RoleAction::Submit { from, key: DutyKey { task, duty }, action: Box::new(action) });
    }

    fn want(&mut self, blob: BlobRef, manifest: Option<Manifest>) -> bool {
        let request = Effect::Fetch { blob, manifest: manifest.map(Box::new) };
        self.blobs.want(request, blob.root, self.out)
    }

    /// Asks for every one of `blobs` that is not here; says whether all are.
    fn want_all(&mut self, blobs: &[BlobRef]) -> bool {
        let missing = blobs.iter().filter(|blob| !self.want(**blob, None)).count();
        missing == 0
    }
}

/// Joins a role entry's kind and id into its key.
pub(crate) fn entry_key(kind: &[u8], id: &[u8; 32]) -> Vec<u8> {
    [kind, id].concat()
}
