//! What a seed fixes: keys, splits, who is killed and when. Not who wins.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use blake3::Hasher;

const CONTEXT: &str = "tiltyard/testnet-plan/v1";

/// Draws everything of a run from one number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    /// Returns 32 bytes for a purpose.
    pub(crate) fn bytes(self, purpose: &str) -> [u8; 32] {
        let mut hasher = Hasher::new_derive_key(CONTEXT);
        hasher.update(&self.0.to_be_bytes());
        hasher.update(purpose.as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Returns a number below `bound` for a purpose; 0 when the bound is 0.
    pub(crate) fn below(self, purpose: &str, bound: u64) -> u64 {
        let bytes = self.bytes(purpose);
        let mut first = [0u8; 8];
        first.copy_from_slice(&bytes[..8]);
        u64::from_be_bytes(first).checked_rem(bound).unwrap_or(0)
    }
}

/// When the two victims die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kills {
    /// Which validator.
    pub(crate) validator: usize,
    /// Blocks after the first task opened.
    pub(crate) validator_after_blocks: u64,
    /// For how many blocks it is down.
    pub(crate) validator_down_blocks: u64,
    /// Which miner.
    pub(crate) miner: usize,
    /// Blocks after the miner's first durable checkpoint.
    pub(crate) miner_after_blocks: u64,
    /// For how many blocks it is down.
    pub(crate) miner_down_blocks: u64,
}

impl Kills {
    /// Draws the kills of a run.
    pub(crate) fn draw(seed: Seed, validators: usize, miners: usize) -> Self {
        let index =
            |purpose: &str, count: usize| usize::try_from(seed.below(purpose, count as u64)).unwrap_or(0);
        Self {
            validator: index("kill/validator", validators),
            validator_after_blocks: 10 + seed.below("kill/validator-at", 20),
            validator_down_blocks: 6 + seed.below("kill/validator-down", 6),
            miner: index("kill/miner", miners),
            miner_after_blocks: 2 + seed.below("kill/miner-at", 8),
            miner_down_blocks: 4 + seed.below("kill/miner-down", 4),
        }
    }
}

/// A task's rows, split by the seed.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    pub(crate) training: String,
    pub(crate) evaluation: String,
}

/// Pools a data set's shipped rows and splits them again: as many evaluation rows as it ships, the rest to train on.
pub(crate) fn split(seed: Seed, folder: &Path) -> Result<Split> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (training, evaluation) = (read("train.jsonl")?, read("eval.jsonl")?);
    let evaluation_rows = evaluation.lines().count();
    let mut rows: Vec<(&str, [u8; 32])> = training
        .lines()
        .chain(evaluation.lines())
        .map(|row| (row, seed.bytes(&format!("split/{row}"))))
        .collect();
    ensure!(rows.len() > evaluation_rows, "{} has no rows to train on", folder.display());
    rows.sort_by_key(|(_, key)| *key);
    let (evaluation, training) = rows.split_at(evaluation_rows);
    let join =
        |rows: &[(&str, [u8; 32])]| rows.iter().fold(String::new(), |text, (row, _)| text + row + "\n");
    Ok(Split { training: join(training), evaluation: join(evaluation) })
}

/// Rows of a task on a base that is slow: evaluation rows, training rows.
const SMALL: (usize, usize) = (16, 96);

impl Split {
    /// Leaves only a few rows, for a base that is slow.
    pub(crate) fn small(self) -> Self {
        let first = |text: &str, rows: usize| text.split_inclusive('\n').take(rows).collect();
        let (evaluation, training) = SMALL;
        Self { training: first(&self.training, training), evaluation: first(&self.evaluation, evaluation) }
    }
}

/// What `task check` reckons of a task on this machine alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    /// Processor time of one evaluation, in milliseconds.
    pub(crate) evaluation_cpu_ms: u64,
    /// Processor time of once through the training rows, in milliseconds.
    pub(crate) epoch_cpu_ms: u64,
    /// Tokens of the training rows.
    pub(crate) epoch_tokens: u64,
    /// Size of the base, in bytes.
    pub(crate) base_bytes: u64,
}

/// Bytes a second at which a process reads a base and spreads it out in memory, on a busy machine.
const LOAD_BYTES_S: u64 = 100_000_000;
/// Bytes a second at which one machine copies a base to all nodes.
const COPY_BYTES_S: u64 = 50_000_000;
/// How much longer everything may take than reckoned.
const SLACK: u64 = 3;

impl Estimate {
    /// The seven windows of a task, in blocks, when all nodes share this machine's cores.
    pub(crate) fn windows(
        &self,
        validators: u64,
        miners: u64,
        tokens: u64,
        cores: u64,
        block_ms: u64,
    ) -> [u64; 7] {
        let load_ms = self.base_bytes.saturating_mul(1_000) / LOAD_BYTES_S;
        let shared = |each_ms: u64, processes: u64| {
            each_ms.saturating_mul(processes.div_ceil(cores.max(1))).saturating_mul(SLACK)
        };
        let copies_ms = self.base_bytes.saturating_mul((validators + miners) * 1_000) / COPY_BYTES_S;
        let open = copies_ms + shared(load_ms + self.evaluation_cpu_ms, validators);
        let train_ms = self.epoch_cpu_ms.saturating_mul(tokens) / self.epoch_tokens.max(1);
        let train = copies_ms + shared(load_ms + train_ms, miners);
        let judge = shared(load_ms + self.evaluation_cpu_ms, validators * (miners + 1));
        [open, train, 0, 20_000, 0, judge, 0].map(|ms| ms.div_ceil(block_ms.max(1)).max(WINDOW_MIN))
    }
}

/// Shortest window that the network allows, in blocks.
const WINDOW_MIN: u64 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_keys_and_kills() {
        assert_eq!(Seed(1).bytes("node/validator-0"), Seed(1).bytes("node/validator-0"));
        assert_ne!(Seed(1).bytes("node/validator-0"), Seed(2).bytes("node/validator-0"));
        assert_eq!(Kills::draw(Seed(3), 4, 3), Kills::draw(Seed(3), 4, 3));
    }

    #[test]
    fn windows_grow_with_what_is_reckoned_and_with_who_shares_the_cores() {
        let small = Estimate {
            evaluation_cpu_ms: 900,
            epoch_cpu_ms: 5_000,
            epoch_tokens: 1_000,
            base_bytes: 3_000_000,
        };
        let large = Estimate { evaluation_cpu_ms: 9_000, base_bytes: 540_000_000, ..small };
        let windows = |estimate: &Estimate, cores| estimate.windows(4, 3, 4_000, cores, 500);
        for (small, large) in windows(&small, 2).into_iter().zip(windows(&large, 2)) {
            assert!(WINDOW_MIN <= small && small <= large);
        }
        assert!(windows(&large, 2)[5] > windows(&large, 8)[5]);
        assert!(windows(&large, 2)[1] * 500 > 5_000 * 4, "less than training alone takes");
    }

    #[test]
    fn a_split_keeps_every_row_once() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let rows = |from: u32, to: u32| (from..to).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>();
        fs::write(dir.path().join("train.jsonl"), rows(0, 30)).expect("written");
        fs::write(dir.path().join("eval.jsonl"), rows(30, 40)).expect("written");
        let split = split(Seed(9), dir.path()).expect("split");
        assert_eq!(split.evaluation.lines().count(), 10);
        let mut all: Vec<&str> = split.training.lines().chain(split.evaluation.lines()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 40);
    }
}
