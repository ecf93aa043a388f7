//! The node's settings: one TOML file, typed, unknown keys refused, checked once at the start.

mod text;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use text::template;

/// What a node does besides following the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Trains for tasks.
    Miner,
    /// Orders blocks and judges checkpoints.
    Validator,
    /// Follows the chain and serves clients; a requester's node is one too.
    Observer,
}

impl Role {
    /// The word for it, as in the configuration.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Miner => "miner",
            Self::Validator => "validator",
            Self::Observer => "observer",
        }
    }
}

/// How a new node catches up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SyncMode {
    /// Executes every block from the first one: slow, and everything is checked here.
    #[default]
    Blocks,
    /// Fetches a recent state, proven by certificates, and the blocks after it.
    Snapshot,
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) role: Role,
    #[serde(default)]
    pub(crate) sync: SyncMode,
    #[serde(default)]
    pub(crate) network: NetworkConfig,
    #[serde(default)]
    pub(crate) api: ApiConfig,
    #[serde(default)]
    pub(crate) storage: StorageConfig,
    #[serde(default)]
    pub(crate) mempool: MempoolConfig,
    #[serde(default)]
    pub(crate) jobs: JobsConfig,
    #[serde(default)]
    pub(crate) validator: ValidatorSection,
    #[serde(default)]
    pub(crate) judge: JudgeSection,
    #[serde(default)]
    pub(crate) miner: MinerSection,
    #[serde(default)]
    pub(crate) testing: TestingSection,
}

/// Peers and addresses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NetworkConfig {
    /// Multiaddresses to listen on; port 0 lets the system choose.
    pub(crate) listen: Vec<String>,
    /// Multiaddresses of peers to stay connected to.
    pub(crate) bootstrap: Vec<String>,
    /// Whether to stay connected to the validators named by the ledger.
    pub(crate) dial_validators: bool,
    /// Most connections that others open.
    pub(crate) inbound_max: u32,
    /// Most connections that this node opens.
    pub(crate) outbound_max: u32,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            listen: vec!["/ip4/0.0.0.0/tcp/26900".to_owned()],
            bootstrap: Vec::new(),
            dial_validators: true,
            inbound_max: 96,
            outbound_max: 40,
        }
    }
}

/// The HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ApiConfig {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Further names under which the API may be reached, besides loopback.
    pub(crate) hosts: Vec<String>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 26_980)), hosts: Vec::new() }
    }
}

/// Bounds of what is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StorageConfig {
    /// Most megabytes of blobs.
    pub(crate) blobs_mb_max: u64,
    /// A snapshot of the state is made after every so many blocks; 0 for never.
    pub(crate) snapshot_every: u64,
    /// Blocks older than so many are dropped once snapshots cover them; 0 keeps every block.
    pub(crate) keep_blocks: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { blobs_mb_max: 20_000, snapshot_every: 1_000, keep_blocks: 100_000 }
    }
}

/// Bounds of pending transactions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MempoolConfig {
    /// Most kilobytes in all.
    pub(crate) kb_max: u32,
    /// Most transactions of one sender.
    pub(crate) per_sender_max: u32,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self { kb_max: 8_192, per_sender_max: 256 }
    }
}

/// Child processes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JobsConfig {
    /// Trainings at a time.
    pub(crate) train_max: usize,
    /// Evaluations and checks at a time.
    pub(crate) evaluate_max: usize,
    /// Most megabytes of memory of one job.
    pub(crate) memory_mb_max: u64,
    /// Most CPU seconds of one evaluation or check.
    pub(crate) evaluate_cpu_s_max: u64,
    /// Most CPU seconds of one training.
    pub(crate) train_cpu_s_max: u64,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            train_max: 1,
            evaluate_max: 1,
            memory_mb_max: 8_192,
            evaluate_cpu_s_max: 3_600,
            train_cpu_s_max: 864_000,
        }
    }
}

/// What keeps a validator's key from signing two things.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ValidatorSection {
    /// Heights that a starting validator listens to before it signs, when its journal does not tell what its key said.
    pub(crate) twin_wait_blocks: u64,
}

impl Default for ValidatorSection {
    fn default() -> Self {
        Self { twin_wait_blocks: 2 }
    }
}

/// What a validator takes on as judge.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JudgeSection {
    /// Whether to judge tasks at all.
    pub(crate) enabled: bool,
    /// Largest base, data set or checkpoint that is fetched, in megabytes.
    pub(crate) blob_mb_max: u64,
}

impl Default for JudgeSection {
    fn default() -> Self {
        Self { enabled: true, blob_mb_max: 4_096 }
    }
}

/// What a miner takes on and how it trains.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MinerSection {
    /// `fixed:<preset>`, `fixed:<file>` or `search`.
    pub(crate) strategy: String,
    /// Tokens to train on for one task, search included.
    pub(crate) tokens: u64,
    /// Steps between two checkpoints.
    pub(crate) checkpoint_steps: u32,
    /// Largest bond for one task, in micro-credits.
    pub(crate) bond_max: u64,
    /// Smallest pot worth training for, in micro-credits.
    pub(crate) pot_min: u64,
    /// Largest base or training set that is fetched, in megabytes.
    pub(crate) blob_mb_max: u64,
    /// Asks a training to finish this many blocks before commits close.
    pub(crate) finish_before: u64,
    /// Most tasks at a time.
    pub(crate) tasks_max: u32,
}

impl Default for MinerSection {
    fn default() -> Self {
        Self {
            strategy: "search".to_owned(),
            tokens: 200_000,
            checkpoint_steps: 20,
            bond_max: 100_000_000,
            pot_min: 0,
            blob_mb_max: 4_096,
            finish_before: 10,
            tasks_max: 4,
        }
    }
}

/// Faults that tests of whole networks ask a node to have. Left out of generated files; nobody needs it to run a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TestingSection {
    /// Milliseconds that this node's idea of the time is ahead of the system's clock; negative when behind.
    pub(crate) clock_offset_ms: i64,
}

/// Says why settings are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {}: {source}; make one with `tiltyard init`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is no valid configuration: {fact}", path.display())]
    Parse { path: PathBuf, fact: String },
    #[error("{}: {key} is {value}; {remedy}", path.display())]
    Value { path: PathBuf, key: &'static str, value: String, remedy: &'static str },
}

impl Config {
    /// Reads and checks the file.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Checks text that came from `path`.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), fact: error.to_string() })?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let counts = |value: usize| value.to_string();
        let rules: [(&'static str, String, bool, &'static str); 9] = [
            (
                "storage.keep_blocks",
                self.storage.keep_blocks.to_string(),
                self.storage.keep_blocks == 0
                    || (self.storage.keep_blocks >= 2_000 && self.storage.snapshot_every > 0),
                "use 0 to keep every block, or at least 2000 with snapshots",
            ),
            (
                "validator.twin_wait_blocks",
                self.validator.twin_wait_blocks.to_string(),
                (1..=1_000).contains(&self.validator.twin_wait_blocks),
                "use 1 to 1000",
            ),
            (
                "network.listen",
                counts(self.network.listen.len()),
                !self.network.listen.is_empty(),
                "name at least one address",
            ),
            (
                "network.bootstrap",
                counts(self.network.bootstrap.len()),
                self.network.bootstrap.len() <= 64,
                "name at most 64",
            ),
            (
                "jobs.train_max",
                counts(self.jobs.train_max),
                (1..=64).contains(&self.jobs.train_max),
                "use 1 to 64",
            ),
            (
                "jobs.evaluate_max",
                counts(self.jobs.evaluate_max),
                (1..=64).contains(&self.jobs.evaluate_max),
                "use 1 to 64",
            ),
            (
                "jobs.memory_mb_max",
                self.jobs.memory_mb_max.to_string(),
                self.jobs.memory_mb_max >= 256,
                "use at least 256",
            ),
            ("miner.tokens", self.miner.tokens.to_string(), self.miner.tokens >= 1_000, "use at least 1000"),
            (
                "miner.checkpoint_steps",
                self.miner.checkpoint_steps.to_string(),
                self.miner.checkpoint_steps >= 1,
                "use at least 1",
            ),
        ];
        for (key, value, holds, remedy) in rules {
            if !holds {
                return Err(ConfigError::Value { path: path.to_owned(), key, value, remedy });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("config.toml"), text)
    }

    #[test]
    fn generated_file_says_exactly_the_defaults() {
        for role in [Role::Miner, Role::Validator, Role::Observer] {
            let generated = parse(&template(role)).expect("the template is valid");
            let bare = parse(&format!("role = {:?}", role.word())).expect("a role is enough");
            assert_eq!(generated, bare);
        }
    }

    #[test]
    fn unknown_key_is_refused_by_name() {
        let error = parse("role = \"miner\"\n[miner]\ntokns = 5").expect_err("a typo");
        assert!(error.to_string().contains("tokns"), "{error}");
    }

    #[test]
    fn value_out_of_range_is_refused_with_a_remedy() {
        let error = parse("role = \"miner\"\n[jobs]\ntrain_max = 0").expect_err("zero trainings");
        assert_eq!(error.to_string(), "config.toml: jobs.train_max is 0; use 1 to 64");
    }

    #[test]
    fn horizon_without_snapshots_is_refused() {
        let text = "role = \"miner\"\n[storage]\nsnapshot_every = 0\nkeep_blocks = 5000";
        let error = parse(text).expect_err("nothing would cover what is dropped");
        assert!(error.to_string().contains("storage.keep_blocks is 5000"), "{error}");
        parse("role = \"miner\"\n[storage]\nsnapshot_every = 0\nkeep_blocks = 0").expect("keeps everything");
    }

    #[test]
    fn missing_role_is_refused() {
        assert!(parse("").expect_err("no role").to_string().contains("role"));
    }
}
