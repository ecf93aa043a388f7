//! A running node: opens what is on disk, starts every part, and closes them in order.
//!
//! One thread owns the machine and the store and carries out effects in order. A tokio runtime owns the network, the
//! API and the child processes; everything they have for the machine goes through one bounded queue.

mod audiences;
mod blobs;
mod brain;
mod effects;
mod pump;
mod recovered;
mod shared;
mod timers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use tiltyard_keys::{PublicKey, SecretKey};
use tiltyard_machine::roles::{JudgeConfig, MinerConfig, RoleConfig, RoleSecret};
use tiltyard_machine::{JoinConfig, Machine, MachineError, MempoolLimits, NotDurable};
use tiltyard_net::{Limits, Net, NetConfig, NetError, NetHandle, Target};
use tiltyard_proto::genesis::{Genesis, GenesisError};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Blocks, Height, MicroCredits};
use tiltyard_proto::wire::Topic;
use tiltyard_store::blob::{BlobError, BlobLimits, BlobStore};
use tiltyard_store::{ChainStore as _, Store, StoreError, StoreOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::api::{self, ApiError, App};
use crate::clock::{Monotonic, Wall};
use crate::config::{Config, ConfigError, Role, SyncMode};
use crate::home::{self, Home, HomeError, KeyName};
use crate::jobs::{self, JobRunner, JobSettings, JobTable};
use crate::keyfile::{self, KeyFileError, PasswordSource};

pub(crate) use audiences::Audiences;
pub(crate) use brain::BrainHandle;
use brain::Ended;
use recovered::{machine_recovered, tell_recovery};
pub(crate) use shared::{FetchState, Shared, TransactionFate};

const MEGABYTE: u64 = 1 << 20;
/// How far back posts are looked for when the node starts.
const POSTS_SCANNED_BLOCKS: u64 = 20_000;

/// Says why a node cannot start or had to stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error("{}: {source}", path.display())]
    Genesis { path: PathBuf, source: GenesisError },
    #[error("config.toml: {0}")]
    Setting(String),
    #[error("chain data: {0}")]
    Store(#[from] StoreError),
    #[error("blob store: {0}")]
    Blobs(#[from] BlobError),
    #[error("network: {0}")]
    Net(#[from] NetError),
    #[error("HTTP API: {0}")]
    Api(#[from] ApiError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    NotDurable(#[from] NotDurable),
    #[error("cannot {action}: {source}")]
    System { action: &'static str, source: std::io::Error },
    #[error("{0}")]
    Broken(&'static str),
}

/// What a node is started with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) home: Home,
    pub(crate) role: Option<Role>,
    pub(crate) password: PasswordSource,
    /// A block that the user trusts, by height and hash: the node joins by a snapshot proven from it.
    pub(crate) checkpoint: Option<(Height, BlockHash)>,
}

/// Keys of a node.
#[derive(Debug)]
struct Keys {
    node: SecretKey,
    validator: Option<SecretKey>,
    account: SecretKey,
    role_secret: [u8; 32],
}

/// Runs a node until it is asked to end, or has to.
pub(crate) fn run(start: &Start) -> Result<(), RunError> {
    let home = &start.home;
    let mut config = Config::read(&home.config())?;
    config.role = start.role.unwrap_or(config.role);
    let _lock = home.lock()?;
    let genesis = read_genesis(&home.genesis())?;
    let keys = read_keys(home, config.role, &start.password)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| RunError::System { action: "start the async runtime", source })?;
    let node = Node { home, config: &config, genesis, keys, checkpoint: start.checkpoint };
    let outcome = loop {
        match runtime.block_on(node.run()) {
            Ok(Ended::Reopen) => info!("opening the state that was fetched"),
            Ok(Ended::Stopped) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // Whatever still blocks (a large copy, say) is not waited for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

fn read_genesis(path: &Path) -> Result<Genesis, RunError> {
    let bytes = home::read_bounded(path, tiltyard_proto::limits::GENESIS_BYTES_MAX as u64)?;
    Genesis::decode(&bytes).map_err(|source| RunError::Genesis { path: path.to_owned(), source })
}

fn read_keys(home: &Home, role: Role, password: &PasswordSource) -> Result<Keys, RunError> {
    let validator = match role {
        Role::Validator => Some(keyfile::read(&home.key(KeyName::Validator), password)?),
        Role::Miner | Role::Observer => None,
    };
    Ok(Keys {
        node: keyfile::read(&home.key(KeyName::Node), password)?,
        validator,
        account: keyfile::read(&home.key(KeyName::Account), password)?,
        role_secret: home.read_role_secret()?,
    })
}

struct Node<'a> {
    home: &'a Home,
    config: &'a Config,
    genesis: Genesis,
    keys: Keys,
    checkpoint: Option<(Height, BlockHash)>,
}

impl Node<'_> {
    async fn run(&self) -> Result<Ended, RunError> {
        let clock = Monotonic::start();
        let wall = self.wall();
        let stop = CancellationToken::new();
        let job_settings = self.job_settings()?;
        let (store, recovered) = Store::open(&self.home.chain(), &self.genesis, self.store_options())?;
        tell_recovery(&recovered);
        let limits = BlobLimits {
            total_bytes_max: self.config.storage.blobs_mb_max.saturating_mul(MEGABYTE),
            ..BlobLimits::default()
        };
        let blob_store = BlobStore::open(&self.home.blobs(), limits)?;
        let audiences = Audiences::default();
        let access = blobs::Access::new(blob_store.clone(), audiences.clone());
        let (net, net_events) = Net::spawn(self.net_config()?, Arc::new(access))?;
        let (brain, mailbox) = BrainHandle::new();
        let table = JobTable::new(&self.home.jobs());
        let (ended, outcomes) = mpsc::channel(64);
        let (runner, job_handle) = JobRunner::new(job_settings, blob_store.clone(), table.clone(), ended);
        home::make_dir(&self.home.jobs())?;
        let shared = Arc::new(Shared::new(&self.genesis));
        let reader = store.reader();
        let machine = Machine::new(
            self.machine_config(&net),
            reader.clone(),
            machine_recovered(recovered),
            tiltyard_machine::Now { mono_ms: clock.ms(), unix: wall.now() },
        )?;
        let tip = tiltyard_store::ChainRead::tip(&reader);
        info!(role = self.config.role.word(), network = %self.genesis.hash(), height = %tip, "node opened");
        know_tasks(&reader, &shared);
        let app = self.app(&reader, &brain, &blob_store, &net, &table, &shared, &audiences)?;
        let api = api::serve(self.config.api.listen, app, stop.clone()).await?;
        let thread = brain::Brain {
            machine,
            store,
            net: net.clone(),
            jobs: job_handle,
            blobs: blob_store,
            audiences,
            shared: shared.clone(),
            clock,
            wall,
            own_peer: net.local_peer().clone(),
            dial_validators: self.config.network.dial_validators,
        };
        let handle = tokio::runtime::Handle::current();
        let brain_stop = CancellationToken::new();
        let token = brain_stop.clone();
        let thread = thread::Builder::new()
            .name("machine".to_owned())
            .spawn(move || brain::run(thread, mailbox, &handle, &token))
            .map_err(|source| RunError::System { action: "start the machine's thread", source })?;
        let pump = tokio::spawn(pump::network(net_events, brain.clone(), net.clone(), reader, shared));
        let jobs_stop = CancellationToken::new();
        let jobs_task = tokio::spawn(runner.run(jobs_stop.clone()));
        let feed = tokio::spawn(pump::jobs(outcomes, brain));
        wait_for_end(&thread).await?;
        info!("stopping");
        stop.cancel();
        api.await.map_err(|_| RunError::Broken("the API's task broke"))??;
        jobs_stop.cancel();
        // Each part is waited for; how it ended is in its own log line.
        let _ = jobs_task.await;
        let _ = feed.await;
        brain_stop.cancel();
        let outcome = tokio::task::spawn_blocking(move || thread.join()).await;
        net.shutdown();
        let _ = pump.await;
        info!("stopped");
        match outcome {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => {
                Err(RunError::Broken("the machine's thread broke; this is a fault of the program, report it"))
            }
        }
    }

    /// The clock of this node; a test may have set it wrong, which nobody should overlook.
    fn wall(&self) -> Wall {
        let offset_ms = self.config.testing.clock_offset_ms;
        if offset_ms != 0 {
            warn!(offset_ms, "testing.clock_offset_ms is set: this node's clock is wrong on purpose");
        }
        Wall::moved(offset_ms)
    }

    fn store_options(&self) -> StoreOptions {
        let snapshot_every = Blocks::new(self.config.storage.snapshot_every);
        let keep = self.config.storage.keep_blocks;
        let keep_blocks = (keep > 0).then(|| Blocks::new(keep));
        StoreOptions { snapshot_every, keep_blocks, ..StoreOptions::default() }
    }

    fn net_config(&self) -> Result<NetConfig, RunError> {
        let bootstrap = self
            .config
            .network
            .bootstrap
            .iter()
            .map(|text| Target::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let topics = match self.config.role {
            Role::Validator => Topic::ALL.to_vec(),
            // Votes and bodies concern validators alone.
            Role::Miner | Role::Observer => {
                vec![Topic::Tasks, Topic::Checkpoints, Topic::Transactions, Topic::Blocks]
            }
        };
        Ok(NetConfig {
            seed: *self.keys.node.seed(),
            genesis: self.genesis.hash(),
            listen: self.config.network.listen.clone(),
            bootstrap,
            topics,
            block_bytes_max: self.genesis.params.block_bytes_max as usize,
            limits: Limits {
                inbound_max: self.config.network.inbound_max,
                outbound_max: self.config.network.outbound_max,
                ..Limits::default()
            },
        })
    }

    fn job_settings(&self) -> Result<JobSettings, RunError> {
        let (jobs, miner) = (&self.config.jobs, &self.config.miner);
        Ok(JobSettings {
            dir: std::path::absolute(self.home.jobs())
                .map_err(|source| RunError::System { action: "find the jobs' folder", source })?,
            train_max: jobs.train_max,
            evaluate_max: jobs.evaluate_max,
            memory_bytes_max: jobs.memory_mb_max.saturating_mul(MEGABYTE),
            evaluate_cpu_s_max: jobs.evaluate_cpu_s_max,
            train_cpu_s_max: jobs.train_cpu_s_max,
            strategy: jobs::strategy(&miner.strategy, self.home.root()).map_err(RunError::Setting)?,
            tokens: miner.tokens,
            checkpoint_steps: miner.checkpoint_steps,
        })
    }

    fn machine_config(&self, net: &NetHandle) -> tiltyard_machine::Config {
        let miner = &self.config.miner;
        let judge = JudgeConfig { blob_bytes_max: self.config.judge.blob_mb_max.saturating_mul(MEGABYTE) };
        let mine = MinerConfig {
            bond_max: MicroCredits::new(miner.bond_max),
            pot_min: MicroCredits::new(miner.pot_min),
            blob_bytes_max: miner.blob_mb_max.saturating_mul(MEGABYTE),
            finish_before: Blocks::new(miner.finish_before),
            tasks_max: miner.tasks_max,
        };
        let roles = match self.config.role {
            Role::Validator => RoleConfig { judge: self.config.judge.enabled.then_some(judge), miner: None },
            Role::Miner => RoleConfig { judge: None, miner: Some(mine) },
            Role::Observer => RoleConfig { judge: None, miner: None },
        };
        tiltyard_machine::Config {
            genesis: self.genesis.clone(),
            peer: net.local_peer().clone(),
            validator: self.keys.validator.as_ref().map(|key| SecretKey::from_seed(&key.seed())),
            twin_wait: Blocks::new(self.config.validator.twin_wait_blocks),
            account: SecretKey::from_seed(&self.keys.account.seed()),
            roles,
            role_secret: RoleSecret::new(self.keys.role_secret),
            mempool: MempoolLimits {
                bytes_max: (self.config.mempool.kb_max as usize).saturating_mul(1_024),
                per_sender_max: self.config.mempool.per_sender_max as usize,
            },
            join: (self.config.sync == SyncMode::Snapshot || self.checkpoint.is_some())
                .then_some(JoinConfig { checkpoint: self.checkpoint }),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "it only gathers what the API reads")]
    fn app(
        &self,
        reader: &tiltyard_store::StoreReader,
        brain: &BrainHandle,
        blobs: &BlobStore,
        net: &NetHandle,
        jobs: &JobTable,
        shared: &Arc<Shared>,
        audiences: &Audiences,
    ) -> Result<App, RunError> {
        Ok(App {
            reader: reader.clone(),
            network: self.genesis.hash(),
            genesis: Arc::new(self.genesis.clone()),
            brain: brain.clone(),
            blobs: blobs.clone(),
            net: net.clone(),
            jobs: jobs.clone(),
            shared: shared.clone(),
            audiences: audiences.clone(),
            token: Arc::from(self.home.read_token()?),
            hosts: Arc::from(self.config.api.hosts.clone()),
            role: self.config.role,
            validator: self.keys.validator.as_ref().map(SecretKey::public),
            account: self.keys.account.public(),
        })
    }
}

/// Lists the tasks posted in the newest blocks; those after are told by the machine. Runs beside the start.
fn know_tasks(reader: &tiltyard_store::StoreReader, shared: &Arc<Shared>) {
    let (reader, shared) = (reader.clone(), shared.clone());
    tokio::task::spawn_blocking(move || match api::posted_tasks(&reader, POSTS_SCANNED_BLOCKS) {
        Ok(tasks) => tasks.into_iter().for_each(|task| shared.know_task(task)),
        Err(error) => warn!(%error, "older tasks are not listed"),
    });
}

/// Waits for Ctrl-C, SIGTERM, or the end of the machine's thread.
async fn wait_for_end<T>(thread: &thread::JoinHandle<T>) -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let watch = |source| RunError::System { action: "watch for signals", source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(watch)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(watch)?;
    let mut look = tokio::time::interval(std::time::Duration::from_millis(200));
    loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = look.tick() => {
                if thread.is_finished() {
                    debug!("the machine's thread has ended");
                    return Ok(());
                }
            }
        }
    }
}

/// Says which key the node signs blocks with, for people.
pub(crate) fn key_text(key: Option<PublicKey>) -> Option<String> {
    key.map(|key| key.to_string())
}
