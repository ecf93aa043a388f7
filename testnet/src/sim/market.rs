//! The task of a run, and what its jobs bring: drawn from the seed, since training is not what is simulated.

use tiltyard_keys::{PublicKey, SecretKey};
use tiltyard_machine::io::{Job, JobOutcome};
use tiltyard_proto::hash;
use tiltyard_proto::ids::{BlobRoot, FileHash, SealKey, TaskId};
use tiltyard_proto::manifest::{BlobKind, BlobRef, FileEntry, Manifest};
use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy, training_seed};
use tiltyard_proto::score::{Fault, MicroNats, Row};
use tiltyard_proto::task::{Payout, SealedSet, TaskKind, TaskSpec, Windows, seal_key_hash};
use tiltyard_proto::units::{Blocks, MicroCredits, Ppm};

use super::random::Dice;

/// Examples of the task's evaluation set.
pub(crate) const EXAMPLES: u32 = 12;
/// Shortest window of the simulated network, in blocks.
pub(crate) const WINDOW_MIN: u64 = 4;
/// Longest one.
pub(crate) const WINDOW_MAX: u64 = 7;

/// What the seed decides about the market.
#[derive(Debug, Clone)]
pub(crate) struct Market {
    seed: u64,
    pub(crate) key: SealKey,
    miners: Vec<(PublicKey, Skill)>,
}

/// What a miner's checkpoint is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Skill {
    /// Mean loss in micro-nats.
    Loss(u32),
    /// Cannot be scored.
    Faulty(Fault),
}

fn blob(name: u8) -> BlobRef {
    BlobRef { root: BlobRoot::from_bytes([name; 32]), bytes: 1_000 }
}

impl Market {
    /// Draws the skills of `miners`.
    pub(crate) fn new(seed: u64, miners: Vec<PublicKey>) -> Self {
        let mut dice = Dice::new(seed, 2);
        let draw = |dice: &mut Dice| match dice.below(10) {
            0 => Skill::Faulty(Fault::ALL[dice.index(Fault::ALL.len() - 1)]),
            1 => Skill::Loss(3_000_000),
            2 => Skill::Loss(2_000_000),
            _ => Skill::Loss(dice.between(1_400_000, 3_100_000) as u32),
        };
        let miners = miners.into_iter().map(|miner| (miner, draw(&mut dice))).collect();
        Self { seed, key: SealKey::from_bytes(hash::plain(&seed.to_be_bytes())), miners }
    }

    pub(crate) fn spec(&self) -> TaskSpec {
        TaskSpec {
            title: "simulated".to_owned(),
            kind: TaskKind::Instruction,
            base: blob(1),
            training: blob(2),
            evaluation: SealedSet {
                ciphertext: blob(3),
                key_hash: seal_key_hash(&self.key),
                examples: EXAMPLES,
                plaintext_bytes: 900,
            },
            windows: Windows {
                open: Blocks::new(5),
                commit: Blocks::new(7),
                reveal: Blocks::new(4),
                held: Blocks::new(5),
                key: Blocks::new(4),
                score_commit: Blocks::new(6),
                score_open: Blocks::new(5),
            },
            pot: MicroCredits::new(100_000_007),
            payout: Payout::ThreePlaces,
            min_gain: Ppm::new(1_000),
            bond: MicroCredits::new(1_000_000),
            entrants_max: 8,
            unbonded_max: 0,
            checkpoint_bytes_max: 1 << 20,
            reference: None,
            small_set: true,
        }
    }

    /// Returns the sealed set's root.
    pub(crate) fn ciphertext(&self) -> BlobRoot {
        self.spec().evaluation.ciphertext.root
    }

    /// Does a job honestly.
    pub(crate) fn outcome(&self, job: &Job) -> JobOutcome {
        match job {
            Job::Check { .. } => JobOutcome::Checked,
            Job::Train { task, spec, miner } => {
                let (manifest, recipe) = checkpoint(task, spec.base.root, miner);
                JobOutcome::Trained {
                    manifest: Box::new(manifest),
                    recipe: Box::new(recipe),
                    resumed_from_step: 0,
                }
            }
            Job::Evaluate { task, spec, subject, .. } => {
                let miner = subject.as_ref().and_then(|root| self.miner_of(task, spec.base.root, root));
                JobOutcome::Evaluated { row: self.row(miner.as_ref()) }
            }
        }
    }

    /// Does an evaluation as a broken worker does: it scores the base, whatever it is given.
    pub(crate) fn broken(&self, job: &Job) -> JobOutcome {
        match job {
            Job::Evaluate { .. } => JobOutcome::Evaluated { row: self.row(None) },
            Job::Check { .. } | Job::Train { .. } => self.outcome(job),
        }
    }

    /// Does an evaluation as a colluding judge does: everyone is as bad as the base, but the first miner.
    pub(crate) fn bent(&self, job: &Job) -> JobOutcome {
        match job {
            Job::Evaluate { task, spec, subject, .. } => {
                let miner = subject.as_ref().and_then(|root| self.miner_of(task, spec.base.root, root));
                let favoured = miner.is_some() && miner == self.miners.first().map(|(key, _)| *key);
                let loss = if favoured { 100_000 } else { 3_500_000 };
                JobOutcome::Evaluated { row: self.cells(loss) }
            }
            Job::Check { .. } | Job::Train { .. } => self.outcome(job),
        }
    }

    fn miner_of(&self, task: &TaskId, base: BlobRoot, root: &BlobRoot) -> Option<PublicKey> {
        self.miners
            .iter()
            .map(|(miner, _)| *miner)
            .find(|miner| checkpoint(task, base, miner).0.root() == *root)
    }

    /// Returns the row that every honest judge finds: of a miner's checkpoint, or of the base.
    pub(crate) fn row(&self, miner: Option<&PublicKey>) -> Row {
        let skill = match miner {
            None => Skill::Loss(3_000_000),
            Some(miner) => {
                let known = self.miners.iter().find(|(key, _)| key == miner);
                known.map_or(Skill::Faulty(Fault::Malformed), |(_, skill)| *skill)
            }
        };
        match skill {
            Skill::Loss(loss) => self.cells(loss),
            Skill::Faulty(fault) => Row::Fault(fault),
        }
    }

    /// Spreads a mean over examples: harder ones are harder for everyone, and a little for each alone.
    fn cells(&self, loss: u32) -> Row {
        let cell = |at: u32| {
            let shared = Dice::new(self.seed, 1_000 + u64::from(at)).below(100_000);
            let own = Dice::new(self.seed ^ u64::from(loss), 2_000 + u64::from(at)).below(5_000);
            MicroNats::clamped(u64::from(loss) + shared + own)
        };
        Row::Scores((0..EXAMPLES).map(cell).collect())
    }
}

fn checkpoint(task: &TaskId, base: BlobRoot, miner: &PublicKey) -> (Manifest, Recipe) {
    let recipe = Recipe {
        version: 1,
        trainer: "simulated".to_owned(),
        strategy: Strategy::Search,
        method: Method::Full,
        learning_rate_nano: 1_000,
        schedule: Schedule::Constant,
        warmup_ppm: 0,
        batch_rows: 1,
        accumulation: 1,
        steps: 10,
        sequence_tokens: 64,
        packing: false,
        weight_decay_ppm: 0,
        clip_milli: 0,
        seed: training_seed(task, miner),
        tokens_trained: 640,
        extra: vec![],
    };
    let file = |name: &str, bytes: u64| FileEntry {
        name: name.to_owned(),
        bytes,
        hash: FileHash::from_bytes(hash::plain(
            &[task.as_bytes().as_slice(), miner.as_bytes(), name.as_bytes()].concat(),
        )),
    };
    let manifest = Manifest {
        version: Manifest::VERSION,
        kind: BlobKind::Adapter,
        base: Some(base),
        recipe: Some(recipe.hash()),
        files: vec![file("adapter_config.json", 100), file("adapter_model.safetensors", 5_000)],
    };
    (manifest, recipe)
}

/// Makes the key of a purpose and number; the same in every run, so that a trace names the same keys.
pub(crate) fn secret(purpose: u8, number: usize) -> SecretKey {
    let mut seed = [purpose; 32];
    seed[1] = number as u8;
    SecretKey::from_seed(&seed)
}
