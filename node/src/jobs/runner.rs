//! One task that owns every job: queues, starts, watches, ends.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tiltyard_machine::io::{Job, JobId, JobOutcome};
use tiltyard_store::blob::BlobStore;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::child::{PARENT_VARIABLE, Work};
use super::outcome::{self, Attempt};
use super::prepare::{Prepared, Preparer};
use super::{JobSettings, JobTable, RunnerError, name};

/// An attempt and one more.
const ATTEMPTS_MAX: u32 = 2;
/// How long a training may take to save its state when the node stops.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// Exit code of a job that was asked to stop.
const EXIT_STOPPED: i32 = 3;
const COMMANDS_MAX: usize = 1_024;

#[derive(Debug)]
enum Order {
    Start { id: JobId, job: Box<Job> },
    Finish(JobId),
    Cancel(JobId),
}

/// Gives orders to the runner; never blocks.
#[derive(Debug, Clone)]
pub(crate) struct JobHandle {
    orders: mpsc::Sender<Order>,
}

impl JobHandle {
    pub(crate) fn start(&self, id: JobId, job: Box<Job>) {
        self.give(Order::Start { id, job });
    }

    pub(crate) fn finish(&self, id: JobId) {
        self.give(Order::Finish(id));
    }

    pub(crate) fn cancel(&self, id: JobId) {
        self.give(Order::Cancel(id));
    }

    fn give(&self, order: Order) {
        if let Err(error) = self.orders.try_send(order) {
            warn!(%error, "job order lost; the next block repeats what is still needed");
        }
    }
}

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    started: bool,
    finish: bool,
    stop: CancellationToken,
}

/// Ended jobs, for the machine.
pub(crate) type Ended = (JobId, JobOutcome);

/// The task that owns every job.
#[derive(Debug)]
pub(crate) struct JobRunner {
    settings: JobSettings,
    table: JobTable,
    orders: mpsc::Receiver<Order>,
    ended: mpsc::Sender<Ended>,
    entries: BTreeMap<JobId, Entry>,
    queue: VecDeque<JobId>,
    worker: Worker,
    tasks: JoinSet<(JobId, Option<JobOutcome>)>,
}

/// What a running job needs; shared by all.
#[derive(Debug, Clone)]
struct Worker {
    dir: PathBuf,
    preparer: Arc<Preparer>,
    blobs: BlobStore,
    table: JobTable,
}

impl JobRunner {
    /// Makes the runner and the handle to it. Outcomes go to `ended`.
    pub(crate) fn new(
        settings: JobSettings,
        blobs: BlobStore,
        table: JobTable,
        ended: mpsc::Sender<Ended>,
    ) -> (Self, JobHandle) {
        let (sender, orders) = mpsc::channel(COMMANDS_MAX);
        let worker = Worker {
            dir: settings.dir.clone(),
            preparer: Arc::new(Preparer::new(blobs.clone(), settings.clone())),
            blobs,
            table: table.clone(),
        };
        let runner = Self {
            settings,
            table,
            orders,
            ended,
            entries: BTreeMap::new(),
            queue: VecDeque::new(),
            worker,
            tasks: JoinSet::new(),
        };
        (runner, JobHandle { orders: sender })
    }

    /// Runs until `stop`; then lets trainings save their state, and ends everything else.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(joined) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    match joined {
                        Ok((id, outcome)) => self.on_ended(id, outcome).await,
                        Err(error) => warn!(%error, "a job's watcher broke"),
                    }
                }
                order = self.orders.recv() => match order {
                    Some(order) => self.on_order(order),
                    None => break,
                },
            }
            self.fill();
        }
        self.shut_down().await;
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Start { id, job } => {
                if self.entries.contains_key(&id) {
                    return;
                }
                let (strategy, budget) = match *job {
                    Job::Train { .. } => (Some(self.strategy_words()), self.settings.tokens),
                    Job::Check { .. } | Job::Evaluate { .. } => (None, 0),
                };
                self.table.queued(id, strategy, budget, u64::from(self.settings.checkpoint_steps));
                let entry = Entry {
                    job: Arc::from(job),
                    started: false,
                    finish: false,
                    stop: CancellationToken::new(),
                };
                self.entries.insert(id, entry);
                self.queue.push_back(id);
            }
            Order::Finish(id) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.finish = true;
                    if entry.started {
                        self.worker.flag(&id, "finish");
                    }
                }
            }
            Order::Cancel(id) => match self.entries.get(&id) {
                Some(entry) if entry.started => entry.stop.cancel(),
                Some(_) | None => {
                    self.entries.remove(&id);
                    self.queue.retain(|queued| *queued != id);
                    self.table.cancelled(&id);
                    self.worker.forget(&id);
                }
            },
        }
    }

    fn strategy_words(&self) -> String {
        use tiltyard_train::job::spec::StrategySpec;
        match &self.settings.strategy {
            StrategySpec::Preset(name) => format!("fixed:{name}"),
            StrategySpec::File(path) => {
                format!("fixed:{}", path.file_stem().unwrap_or_default().to_string_lossy())
            }
            StrategySpec::Search => "search".to_owned(),
            StrategySpec::Learned(_) => "learned".to_owned(),
            StrategySpec::External(external) => format!("external:{}", external.command.join(" ")),
        }
    }

    /// Starts what may run now.
    fn fill(&mut self) {
        let is_training = |id: &JobId| matches!(id, JobId::Train(_));
        let mut training = self.entries.iter().filter(|(id, entry)| entry.started && is_training(id)).count();
        let mut other = self.entries.iter().filter(|(id, entry)| entry.started && !is_training(id)).count();
        let mut waiting = VecDeque::new();
        while let Some(id) = self.queue.pop_front() {
            let (running, max) = if is_training(&id) {
                (&mut training, self.settings.train_max)
            } else {
                (&mut other, self.settings.evaluate_max)
            };
            if *running >= max {
                waiting.push_back(id);
                continue;
            }
            if let Some(entry) = self.entries.get_mut(&id) {
                *running += 1;
                entry.started = true;
                self.table.running(&id);
                let worker = self.worker.clone();
                let (job, stop, finish) = (entry.job.clone(), entry.stop.clone(), entry.finish);
                self.tasks.spawn(async move {
                    let outcome = worker.work(id, job, stop, finish).await;
                    (id, outcome)
                });
            }
        }
        self.queue = waiting;
    }

    async fn on_ended(&mut self, id: JobId, outcome: Option<JobOutcome>) {
        self.entries.remove(&id);
        match outcome {
            Some(outcome) => {
                self.table.ended(&id, &outcome);
                match &outcome {
                    JobOutcome::Failed { fact } | JobOutcome::Refused { fact } => {
                        warn!(job = %name(&id), %fact, "job ended without result");
                    }
                    JobOutcome::Lost { blobs } => {
                        warn!(job = %name(&id), blobs = blobs.len(), "inputs are damaged on this disk; they are fetched again");
                    }
                    JobOutcome::Checked | JobOutcome::Trained { .. } | JobOutcome::Evaluated { .. } => {
                        info!(job = %name(&id), "job done");
                    }
                }
                // A training's folder stays until its task is over: its result may be asked for again.
                if !matches!(id, JobId::Train(_)) || matches!(outcome, JobOutcome::Failed { .. }) {
                    self.worker.forget_inputs(&id, &outcome);
                }
                if self.ended.send((id, outcome)).await.is_err() {
                    warn!("a job's outcome was lost: the node is stopping");
                }
            }
            None => {
                self.table.cancelled(&id);
                self.worker.forget(&id);
            }
        }
    }

    async fn shut_down(mut self) {
        for (id, entry) in self.entries.iter().filter(|(_, entry)| entry.started) {
            match id {
                JobId::Train(_) => self.worker.flag(id, "stop"),
                JobId::Check(_) | JobId::Evaluate(..) => entry.stop.cancel(),
            }
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, all).await.is_err() {
            warn!("a training did not save its state in time; it continues from the state before");
        }
        // Dropping the set drops the children, which are killed on drop.
        self.tasks.shutdown().await;
    }
}

impl Worker {
    fn folder(&self, id: &JobId) -> PathBuf {
        self.dir.join(name(id))
    }

    fn flag(&self, id: &JobId, flag: &str) {
        let path = self.folder(id).join(flag);
        if let Err(error) = fs::write(&path, b"") {
            warn!(path = %path.display(), %error, "job cannot be told");
        }
    }

    /// Removes the folder of a job that nobody will ask for again.
    fn forget(&self, id: &JobId) {
        let folder = self.folder(id);
        if folder.exists()
            && let Err(error) = fs::remove_dir_all(&folder)
        {
            warn!(path = %folder.display(), %error, "job folder left behind");
        }
    }

    /// Keeps a failed job's folder for people to look at, without the evaluation key in it.
    fn forget_inputs(&self, id: &JobId, outcome: &JobOutcome) {
        match outcome {
            JobOutcome::Failed { .. } | JobOutcome::Refused { .. } | JobOutcome::Lost { .. } => {
                // Absent when the job was never prepared.
                let _ = fs::remove_file(self.folder(id).join(tiltyard_train::job::spec::JOB_FILE));
            }
            JobOutcome::Checked | JobOutcome::Trained { .. } | JobOutcome::Evaluated { .. } => {
                self.forget(id)
            }
        }
    }

    /// Does a job to its end; `None` when it was called off.
    async fn work(
        self,
        id: JobId,
        job: Arc<Job>,
        stop: CancellationToken,
        finish: bool,
    ) -> Option<JobOutcome> {
        let mut last = JobOutcome::Failed { fact: "never tried".to_owned() };
        for attempt in 1..=ATTEMPTS_MAX {
            match self.attempt(&id, &job, &stop, finish).await {
                Ok(None) => return None,
                Ok(Some(Attempt::Ended(outcome))) => return Some(outcome),
                Ok(Some(Attempt::Again(outcome))) => {
                    warn!(job = %name(&id), attempt, ?outcome, "job broke off");
                    last = outcome;
                }
                Err(error) => {
                    warn!(job = %name(&id), attempt, %error, "job cannot be run");
                    if let Some(root) = error.lost() {
                        return Some(JobOutcome::Lost { blobs: vec![root] });
                    }
                    last = JobOutcome::Failed { fact: error.to_string() };
                }
            }
        }
        Some(last)
    }

    async fn attempt(
        &self,
        id: &JobId,
        job: &Arc<Job>,
        stop: &CancellationToken,
        finish: bool,
    ) -> Result<Option<Attempt>, RunnerError> {
        let folder = self.folder(id);
        let (preparer, wanted, place) = (self.preparer.clone(), job.clone(), folder.clone());
        let prepared = blocking(move || preparer.prepare(&wanted, &place)).await?;
        let work = match prepared {
            Prepared::Settled(outcome) => return Ok(Some(Attempt::Ended(*outcome))),
            Prepared::Ready(work) => work,
        };
        if finish {
            self.flag(id, "finish");
        }
        let mut child = spawn(work, &folder)?;
        info!(job = %name(id), pid = child.id(), "job started");
        let status = tokio::select! {
            biased;
            () = stop.cancelled() => {
                self.table.freeze(id);
                // Already gone is as good as killed.
                let _ = child.kill().await;
                return Ok(None);
            }
            status = child.wait() => status.map_err(RunnerError::io("wait for the process of", &folder))?,
        };
        if status.code() == Some(EXIT_STOPPED) {
            // Its state is saved; it continues when the node runs again.
            return Ok(None);
        }
        let (wanted, blobs) = (job.clone(), self.blobs.clone());
        blocking(move || outcome::read(&wanted, &folder, status, &blobs)).await.map(Some)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunnerError> + Send + 'static,
) -> Result<T, RunnerError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| RunnerError::Spawn(std::io::Error::other(error)))?
}

fn spawn(work: Work, folder: &Path) -> Result<Child, RunnerError> {
    let path = folder.join("job.log");
    let log =
        OpenOptions::new().create(true).append(true).open(&path).map_err(RunnerError::io("open", &path))?;
    let program = std::env::current_exe().map_err(RunnerError::Spawn)?;
    Command::new(program)
        .args(["job", work.word()])
        .arg(folder)
        .env(PARENT_VARIABLE, std::process::id().to_string())
        .env("RAYON_NUM_THREADS", "1")
        // A job needs no key: it must not inherit what opens them.
        .env_remove(crate::keyfile::PASSWORD_VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(RunnerError::Spawn)
}
