//! A miner's part: take a task, train, commit, reveal, serve.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_ledger::{ReadError, stamp};
use tiltyard_proto::codec;
use tiltyard_proto::ids::{BlobRoot, TaskId};
use tiltyard_proto::manifest::Manifest;
use tiltyard_proto::recipe::Recipe;
use tiltyard_proto::state::{EntrantStage, Phase, TaskRecord};
use tiltyard_proto::task::commitment;
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::MicroCredits;

use super::{Duty, MinerConfig, Turn, View, Who, entry_key};
use crate::event::Event;
use crate::io::{Audience, Effect, Job, JobId, JobOutcome};

const TRAINED: &[u8] = b"trained/";
const SALT_CHECKPOINT: u8 = 1;
const TRAINING_TRIES: u8 = 3;
const ENTRY_BYTES_MAX: usize = 16 * 1024;
/// Stamps tried in one step: about 10 ms of hashing, so that a step never holds up a vote.
const STAMPS_PER_STEP: u64 = 50_000;

/// A checkpoint that is ready to commit, as it is kept across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Trained {
    manifest: Manifest,
    recipe: Recipe,
}

#[derive(Debug, Default)]
struct Run {
    started: bool,
    finishing: bool,
    failures: u8,
    served: bool,
    next_stamp: u64,
    stamp: Option<u64>,
    declined: bool,
}

/// Mines with one account.
#[derive(Debug)]
pub(crate) struct Miner {
    config: MinerConfig,
    runs: BTreeMap<TaskId, Run>,
    published: BTreeSet<TaskId>,
}

impl Miner {
    pub(crate) fn new(config: MinerConfig) -> Self {
        Self { config, runs: BTreeMap::new(), published: BTreeSet::new() }
    }

    pub(crate) fn on_trained(&mut self, task: TaskId, outcome: JobOutcome, turn: &mut Turn<'_>) {
        match outcome {
            JobOutcome::Trained { manifest, recipe, .. } => {
                let trained = Trained { manifest: *manifest, recipe: *recipe };
                turn.saved.put(entry_key(TRAINED, task.as_bytes()), codec::encode(&trained), turn.out);
            }
            JobOutcome::Failed { .. } | JobOutcome::Refused { .. } => {
                let run = self.runs.entry(task).or_default();
                run.failures = run.failures.saturating_add(1);
                run.started = run.failures >= TRAINING_TRIES;
            }
            JobOutcome::Lost { .. } => self.runs.entry(task).or_default().started = false,
            JobOutcome::Checked | JobOutcome::Evaluated { .. } => {}
        }
    }

    pub(crate) fn on_task(
        &mut self,
        view: &View<'_>,
        task: &TaskId,
        record: &TaskRecord,
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        let trained = load(turn, task);
        match record.phase {
            Phase::Accepting => {
                if self.is_worth_it(record) {
                    // Bytes may travel while validators still decide.
                    turn.want(record.spec.base, None);
                    turn.want(record.spec.training, None);
                }
                Ok(())
            }
            Phase::Committing => match trained {
                None => self.train(view, task, record, turn),
                Some(trained) => self.commit(view, task, record, &trained, turn),
            },
            Phase::Revealing => match trained {
                None => Ok(()),
                Some(trained) => self.reveal(view, task, &trained, turn),
            },
            Phase::Holding | Phase::KeyOpening | Phase::ScoreCommitting | Phase::ScoreOpening => {
                match trained {
                    None => Ok(()),
                    Some(trained) => self.serve(view, task, &trained, turn),
                }
            }
            Phase::Settled | Phase::Refunded(_) => Ok(()),
        }
    }

    fn is_worth_it(&self, record: &TaskRecord) -> bool {
        let spec = &record.spec;
        let largest = spec.base.bytes.max(spec.training.bytes);
        spec.pot >= self.config.pot_min && largest <= self.config.blob_bytes_max
    }

    fn train(
        &mut self,
        view: &View<'_>,
        task: &TaskId,
        record: &TaskRecord,
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        let (base, training) = (record.spec.base, record.spec.training);
        let taken = self.runs.values().filter(|run| run.started).count();
        let room = u32::try_from(taken).unwrap_or(u32::MAX) < self.config.tasks_max;
        let worth = self.is_worth_it(record);
        let run = self.runs.entry(*task).or_default();
        if !worth || (!run.started && !room) {
            return Ok(());
        }
        let here = turn.want_all(&[base, training]);
        let finish_at = view.height.plus(self.config.finish_before);
        if here && !run.started && run.failures < TRAINING_TRIES {
            run.started = true;
            let miner = turn.keys.account;
            let job = Job::Train { task: *task, spec: Box::new(record.spec.clone()), miner };
            turn.effect(Effect::StartJob { id: JobId::Train(*task), job: Box::new(job) });
        }
        if run.started && !run.finishing && finish_at >= record.deadlines.commit {
            run.finishing = true;
            turn.effect(Effect::FinishJob(JobId::Train(*task)));
        }
        Ok(())
    }

    fn commit(
        &mut self,
        view: &View<'_>,
        task: &TaskId,
        record: &TaskRecord,
        trained: &Trained,
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        let miner = turn.keys.account;
        if view.entrant(task, &miner)?.is_some() {
            return Ok(());
        }
        let Ok(bytes) = trained.manifest.total_bytes() else {
            return Ok(());
        };
        let root = trained.manifest.root();
        let salt = turn.keys.secret.salt(SALT_CHECKPOINT, task, root.as_bytes());
        let commitment = commitment(&view.genesis, task, &miner, &root, bytes, &salt);
        let run = self.runs.entry(*task).or_default();
        let balance = view.account(&miner)?.balance;
        let affordable = record.spec.bond <= self.config.bond_max && balance > record.spec.bond;
        let (bond, found) = if affordable {
            (record.spec.bond, None)
        } else if record.spec.unbonded_max > 0 {
            search_stamp(run, view, task, &miner, record.rules.stamp_bits);
            let Some(found) = run.stamp else {
                return Ok(());
            };
            (MicroCredits::ZERO, Some(found))
        } else {
            if !run.declined {
                run.declined = true;
                let fact = format!(
                    "bond of {} micro-credits is above the balance {balance} or bond_max",
                    record.spec.bond
                );
                turn.effect(Effect::Notify(Event::TaskDeclined { task: *task, fact }));
            }
            return Ok(());
        };
        let action = Action::Commit { task: *task, commitment, bond, stamp: found, reference: false };
        turn.submit(Who::Account, *task, Duty::Commit, action);
        Ok(())
    }

    fn reveal(
        &mut self,
        view: &View<'_>,
        task: &TaskId,
        trained: &Trained,
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        self.serve(view, task, trained, turn)?;
        let Some(entrant) = view.entrant(task, &turn.keys.account)? else {
            return Ok(());
        };
        if entrant.stage != EntrantStage::Committed {
            return Ok(());
        }
        let root = trained.manifest.root();
        let action = Action::Reveal {
            task: *task,
            manifest: ByteBuf::from(trained.manifest.encode()),
            salt: turn.keys.secret.salt(SALT_CHECKPOINT, task, root.as_bytes()),
            recipe: ByteBuf::from(trained.recipe.encode()),
        };
        turn.submit(Who::Account, *task, Duty::Reveal, action);
        Ok(())
    }

    /// Serves the checkpoint to the committee, and to nobody else until the task is settled.
    fn serve(
        &mut self,
        view: &View<'_>,
        task: &TaskId,
        trained: &Trained,
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        let run = self.runs.entry(*task).or_default();
        if !run.served {
            run.served = true;
            let audience = Audience::Peers(view.committee_peers(task)?);
            turn.effect(Effect::Serve { root: trained.manifest.root(), audience });
        }
        Ok(())
    }

    /// Opens a paid checkpoint to everyone once its task is over; ends jobs that can no longer count.
    pub(crate) fn on_live(
        &mut self,
        view: &View<'_>,
        live: &[TaskId],
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        let over: Vec<TaskId> =
            self.runs.keys().filter(|task| live.binary_search(task).is_err()).copied().collect();
        for task in over {
            if self.runs.remove(&task).is_some_and(|run| run.started) {
                turn.effect(Effect::CancelJob(JobId::Train(task)));
            }
        }
        for (entry, bytes) in turn.saved.with_prefix(TRAINED) {
            let Some(task) = entry.strip_prefix(TRAINED).and_then(|id| id.try_into().ok()) else {
                continue;
            };
            let task = TaskId::from_bytes(task);
            if live.binary_search(&task).is_ok() || !self.published.insert(task) {
                continue;
            }
            let Some(root) = root_of(&bytes) else {
                continue;
            };
            let paid = view
                .entrant_verdict(&task, &turn.keys.account)?
                .is_some_and(|verdict| verdict.reward.get() > 0);
            let audience = if paid { Audience::Public } else { Audience::Nobody };
            turn.effect(Effect::Serve { root, audience });
        }
        Ok(())
    }
}

fn load(turn: &Turn<'_>, task: &TaskId) -> Option<Trained> {
    turn.saved
        .get(&entry_key(TRAINED, task.as_bytes()))
        .and_then(|bytes| codec::decode("saved checkpoint", bytes, ENTRY_BYTES_MAX).ok())
}

fn root_of(bytes: &[u8]) -> Option<BlobRoot> {
    codec::decode::<Trained>("saved checkpoint", bytes, ENTRY_BYTES_MAX)
        .ok()
        .map(|trained| trained.manifest.root())
}

fn search_stamp(run: &mut Run, view: &View<'_>, task: &TaskId, miner: &tiltyard_keys::PublicKey, bits: u8) {
    if run.stamp.is_some() {
        return;
    }
    let end = run.next_stamp.saturating_add(STAMPS_PER_STEP);
    run.stamp =
        (run.next_stamp..end).find(|candidate| stamp::is_valid(&view.genesis, task, miner, *candidate, bits));
    run.next_stamp = end;
}
