//! A validator's duties: accept what it can judge, hold the bytes, score, seal, open.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;
use tiltyard_ledger::ReadError;
use tiltyard_proto::codec;
use tiltyard_proto::ids::{BlobRoot, TaskId};
use tiltyard_proto::manifest::{BlobRef, Manifest};
use tiltyard_proto::merkle;
use tiltyard_proto::score::{Fault, Row, score_commitment};
use tiltyard_proto::state::{EntrantStage, Phase, Reveal, TaskRecord};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::{Blocks, Height};

use super::{Duty, JudgeConfig, Turn, View, Who, entry_key};
use crate::io::{Audience, Effect, Job, JobId, JobOutcome};

const ROWS: &[u8] = b"rows/";
const KEPT: &[u8] = b"kept/";
const SALT_SCORES: u8 = 2;
const EVALUATION_TRIES: u8 = 2;
const ROWS_BYTES_MAX: usize = 512 * 1024;
/// A judge says what it holds, complete or not, this many blocks before the phase closes.
const HELD_BEFORE_CLOSE: Blocks = Blocks::new(4);

/// What a judge remembers of one task beyond the ledger.
#[derive(Debug, Default)]
struct Case {
    check: Check,
    served: BTreeSet<BlobRoot>,
    started: BTreeSet<u32>,
    rows: BTreeMap<u32, Row>,
    failures: BTreeMap<u32, u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Check {
    #[default]
    NotYet,
    Running,
    Passed,
    Refused,
}

/// Judges tasks with one validator key.
#[derive(Debug)]
pub(crate) struct Judge {
    key: PublicKey,
    config: JudgeConfig,
    cases: BTreeMap<TaskId, Case>,
    published: BTreeSet<BlobRoot>,
}

impl Judge {
    pub(crate) fn new(key: PublicKey, config: JudgeConfig) -> Self {
        Self { key, config, cases: BTreeMap::new(), published: BTreeSet::new() }
    }

    pub(crate) fn on_checked(&mut self, task: TaskId, outcome: &JobOutcome) {
        let case = self.cases.entry(task).or_default();
        case.check = match outcome {
            JobOutcome::Checked => Check::Passed,
            JobOutcome::Refused { .. } | JobOutcome::Failed { .. } => Check::Refused,
            JobOutcome::Lost { .. } => Check::NotYet,
            JobOutcome::Trained { .. } | JobOutcome::Evaluated { .. } => case.check,
        };
    }

    pub(crate) fn on_evaluated(&mut self, task: TaskId, row: u32, outcome: &JobOutcome, turn: &mut Turn<'_>) {
        let case = self.cases.entry(task).or_default();
        match outcome {
            JobOutcome::Evaluated { row: found } => {
                case.rows.insert(row, found.clone());
                save_rows(task, &case.rows, turn);
            }
            JobOutcome::Failed { .. } | JobOutcome::Refused { .. } => {
                let failures = case.failures.entry(row).or_default();
                *failures = failures.saturating_add(1);
                if *failures < EVALUATION_TRIES {
                    case.started.remove(&row);
                }
            }
            // No failure of the checkpoint's: the disk's. The row waits for the bytes.
            JobOutcome::Lost { .. } => {
                case.started.remove(&row);
            }
            JobOutcome::Checked | JobOutcome::Trained { .. } => {}
        }
    }

    pub(crate) fn on_task(
        &mut self,
        view: &View<'_>,
        task: &TaskId,
        record: &TaskRecord,
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        let saved = || load_rows(turn.saved.get(&entry_key(ROWS, task.as_bytes())));
        let case = self.cases.entry(*task).or_insert_with(|| Case { rows: saved(), ..Case::default() });
        if record.phase == Phase::Accepting {
            if record.accepted.binary_search(&self.key).is_err() && view.is_validator(&self.key)? {
                accept(&self.config, case, task, record, turn);
            }
            return Ok(());
        }
        let committee = view.committee(task)?;
        if !committee.iter().any(|member| member.key == self.key) {
            return Ok(());
        }
        serve_inputs(case, record, turn);
        match record.phase {
            Phase::Accepting | Phase::Committing | Phase::Settled | Phase::Refunded(_) => {}
            Phase::Revealing | Phase::Holding | Phase::KeyOpening => {
                self.hold(view, task, record, turn)?;
            }
            Phase::ScoreCommitting => self.score(view, task, record, turn)?,
            Phase::ScoreOpening => self.open(view, task, record, turn)?,
        }
        Ok(())
    }

    /// Fetches entrants' bytes, serves them to the rest of the committee, and says whose it holds.
    fn hold(
        &mut self,
        view: &View<'_>,
        task: &TaskId,
        record: &TaskRecord,
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        let Some(case) = self.cases.get_mut(task) else {
            return Ok(());
        };
        let mut bitmap = vec![0u8; record.entrants.len().div_ceil(8)];
        let (mut held, mut revealed, mut unsaid) = (0u32, 0u32, false);
        for (at, miner) in record.entrants.iter().enumerate() {
            let Some(reveal) = reveal_of(view, task, miner)? else {
                continue;
            };
            revealed = revealed.saturating_add(1);
            if reveal.bytes > self.config.blob_bytes_max || !want_reveal(&reveal, turn) {
                continue;
            }
            held = held.saturating_add(1);
            unsaid |= !reveal.held_by.contains(&self.key);
            if let Some(byte) = bitmap.get_mut(at / 8) {
                *byte |= 1 << (at % 8);
            }
            if case.served.insert(reveal.manifest) {
                let audience = Audience::Peers(view.committee_peers(task)?);
                turn.effect(Effect::Serve { root: reveal.manifest, audience });
            }
            turn.saved.put(
                [&entry_key(KEPT, task.as_bytes())[..], reveal.manifest.as_bytes()].concat(),
                miner.as_bytes().to_vec(),
                turn.out,
            );
        }
        let closing = view.height.plus(HELD_BEFORE_CLOSE) >= record.deadlines.held;
        let complete = held == revealed;
        if record.phase == Phase::Holding && unsaid && (complete || closing) {
            let action = Action::Held { task: *task, entrants: ByteBuf::from(bitmap) };
            turn.submit(Who::Validator, *task, Duty::Held(held), action);
        }
        Ok(())
    }

    /// Scores the base and every standing entrant, one child process each, and seals the rows.
    fn score(
        &mut self,
        view: &View<'_>,
        task: &TaskId,
        record: &TaskRecord,
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        let (Some(case), Some(key)) = (self.cases.get_mut(task), record.key) else {
            return Ok(());
        };
        let spec = &record.spec;
        let inputs = [spec.base, spec.evaluation.ciphertext];
        if !turn.want_all(&inputs) {
            return Ok(());
        }
        let closing = view.height.plus(HELD_BEFORE_CLOSE) >= record.deadlines.score_commit;
        let subjects = core::iter::once(None).chain(record.entrants.iter().map(Some));
        for (row, miner) in (0u32..).zip(subjects) {
            if case.rows.contains_key(&row) {
                continue;
            }
            let subject = match miner {
                None => None,
                Some(miner) => {
                    let Some(reveal) = reveal_of(view, task, miner)? else {
                        continue;
                    };
                    if !want_reveal(&reveal, turn) {
                        // The rest of the committee holds it; this judge says that it could not get it.
                        if closing {
                            case.rows.insert(row, Row::Fault(Fault::Unavailable));
                            save_rows(*task, &case.rows, turn);
                        }
                        continue;
                    }
                    Some(reveal.manifest)
                }
            };
            if case.started.insert(row) {
                let spec = Box::new(spec.clone());
                let job = Job::Evaluate { task: *task, row, spec, key, subject };
                let id = JobId::Evaluate(*task, row);
                turn.effect(Effect::StartJob { id, job: Box::new(job) });
            }
        }
        if case.rows.len() > record.entrants.len() && view.judge(task, &self.key)?.committed.is_none() {
            let rows = row_bytes(&case.rows);
            let root = merkle::root(&rows);
            let salt = turn.keys.secret.salt(SALT_SCORES, task, root.as_bytes());
            let sealed = score_commitment(&view.genesis, task, &self.key, &root, &salt);
            let action = Action::ScoreCommit { task: *task, root: sealed };
            turn.submit(Who::Validator, *task, Duty::ScoreCommit, action);
        }
        Ok(())
    }

    /// Opens every row that was sealed and is not open yet.
    fn open(
        &mut self,
        view: &View<'_>,
        task: &TaskId,
        record: &TaskRecord,
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        let Some(case) = self.cases.get(task) else {
            return Ok(());
        };
        let judged = view.judge(task, &self.key)?;
        let rows = row_bytes(&case.rows);
        if judged.committed.is_none() || rows.len() <= record.entrants.len() {
            return Ok(());
        }
        let rows_root = merkle::root(&rows);
        let salt = turn.keys.secret.salt(SALT_SCORES, task, rows_root.as_bytes());
        for (at, (row, bytes)) in (0u32..).zip(&rows).enumerate() {
            if judged.opened.binary_search(&row).is_ok() {
                continue;
            }
            let Some(path) = merkle::path(&rows, at) else {
                continue;
            };
            let bytes = ByteBuf::from(bytes.clone());
            let action = Action::ScoreOpen { task: *task, row, bytes, path, rows_root, salt };
            turn.submit(Who::Validator, *task, Duty::ScoreOpen(row), action);
        }
        Ok(())
    }

    /// Forgets tasks that are over; keeps paid entrants' bytes for anyone as long as the rules say.
    pub(crate) fn on_live(
        &mut self,
        view: &View<'_>,
        live: &[TaskId],
        turn: &mut Turn<'_>,
    ) -> Result<(), ReadError> {
        self.cases.retain(|task, _| live.binary_search(task).is_ok());
        for (entry, miner) in turn.saved.with_prefix(KEPT) {
            let Some((task, root)) = split_kept(&entry) else {
                continue;
            };
            if live.binary_search(&task).is_ok() {
                continue;
            }
            turn.saved.remove(&entry_key(ROWS, task.as_bytes()), turn.out);
            match keep_until(view, &task, &miner)? {
                Some(until) if view.height <= until => {
                    if self.published.insert(root) {
                        turn.effect(Effect::Serve { root, audience: Audience::Public });
                    }
                }
                Some(_) | None => {
                    turn.effect(Effect::Serve { root, audience: Audience::Nobody });
                    turn.effect(Effect::Drop(root));
                    turn.blobs.dropped(&root);
                    turn.saved.remove(&entry, turn.out);
                }
            }
        }
        Ok(())
    }
}

fn accept(config: &JudgeConfig, case: &mut Case, task: &TaskId, record: &TaskRecord, turn: &mut Turn<'_>) {
    let spec = &record.spec;
    let inputs = [spec.base, spec.training, spec.evaluation.ciphertext];
    if inputs.iter().any(|blob| blob.bytes > config.blob_bytes_max) {
        return;
    }
    match case.check {
        Check::NotYet => {
            if turn.want_all(&inputs) {
                case.check = Check::Running;
                let job = Job::Check { task: *task, spec: Box::new(spec.clone()) };
                turn.effect(Effect::StartJob { id: JobId::Check(*task), job: Box::new(job) });
            }
        }
        Check::Passed => {
            turn.submit(Who::Validator, *task, Duty::Accept, Action::Accept { task: *task });
        }
        Check::Running | Check::Refused => {}
    }
    serve_inputs(case, record, turn);
}

/// Serves base, training set and ciphertext to anyone, once they are here.
fn serve_inputs(case: &mut Case, record: &TaskRecord, turn: &mut Turn<'_>) {
    let spec = &record.spec;
    for blob in [spec.base, spec.training, spec.evaluation.ciphertext] {
        if turn.want(blob, None) && case.served.insert(blob.root) {
            turn.effect(Effect::Serve { root: blob.root, audience: Audience::Public });
        }
    }
}

fn reveal_of(view: &View<'_>, task: &TaskId, miner: &PublicKey) -> Result<Option<Reveal>, ReadError> {
    Ok(view.entrant(task, miner)?.and_then(|entrant| match entrant.stage {
        EntrantStage::Committed => None,
        EntrantStage::Revealed(reveal) | EntrantStage::Standing(reveal) => Some(reveal),
    }))
}

fn want_reveal(reveal: &Reveal, turn: &mut Turn<'_>) -> bool {
    let blob = BlobRef { root: reveal.manifest, bytes: reveal.bytes };
    turn.want(blob, Manifest::decode(&reveal.manifest_bytes).ok())
}

fn row_bytes(rows: &BTreeMap<u32, Row>) -> Vec<Vec<u8>> {
    rows.values().map(Row::to_bytes).collect()
}

fn save_rows(task: TaskId, rows: &BTreeMap<u32, Row>, turn: &mut Turn<'_>) {
    let list: Vec<(u32, &Row)> = rows.iter().map(|(row, scores)| (*row, scores)).collect();
    turn.saved.put(entry_key(ROWS, task.as_bytes()), codec::encode(&list), turn.out);
}

/// Rows that cannot be read again are scored again: nothing was promised on them that the ledger does not hold.
fn load_rows(bytes: Option<&[u8]>) -> BTreeMap<u32, Row> {
    bytes
        .and_then(|bytes| codec::decode::<Vec<(u32, Row)>>("saved rows", bytes, ROWS_BYTES_MAX).ok())
        .map(|rows| rows.into_iter().collect())
        .unwrap_or_default()
}

fn split_kept(entry: &[u8]) -> Option<(TaskId, BlobRoot)> {
    let rest = entry.strip_prefix(KEPT)?;
    let (task, root) = rest.split_at_checked(32)?;
    Some((TaskId::from_bytes(task.try_into().ok()?), BlobRoot::from_bytes(root.try_into().ok()?)))
}

/// Returns until when a paid entrant's bytes are kept; none for unpaid ones.
fn keep_until(view: &View<'_>, task: &TaskId, miner: &[u8]) -> Result<Option<Height>, ReadError> {
    let Ok(miner) = <[u8; 32]>::try_from(miner).map(PublicKey::from_bytes) else {
        return Ok(None);
    };
    let (Some(verdict), Some(entrant), Some(record)) =
        (view.verdict(task)?, view.entrant_verdict(task, &miner)?, view.task(task)?)
    else {
        return Ok(None);
    };
    let paid = entrant.reward.get() > 0;
    Ok(paid.then(|| verdict.settled_at.plus(record.rules.keep)))
}
