//! One task from post to verdict, driven by real transactions, described by a few words.

use serde_bytes::ByteBuf;
use tiltyard_proto::hash::plain;
use tiltyard_proto::ids::{BlobRoot, Commitment, FileHash, Salt, SealKey, TaskId};
use tiltyard_proto::manifest::{BlobKind, BlobRef, FileEntry, Manifest};
use tiltyard_proto::merkle;
use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy};
use tiltyard_proto::score::{Fault, MicroNats, Row, score_commitment};
use tiltyard_proto::task::{Payout, SealedSet, TaskKind, TaskSpec, Windows, commitment, seal_key_hash};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::Blocks;

use crate::world::{JUDGES, World, key, micro, percent};

pub(crate) const POT: u64 = 100_000;
pub(crate) const BOND: u64 = 1_000;

pub(crate) fn seal_key() -> SealKey {
    SealKey::from_bytes([7; 32])
}

fn blob(name: &str) -> BlobRef {
    BlobRef { root: BlobRoot::from_bytes(plain(name.as_bytes())), bytes: 1_000 }
}

pub(crate) fn spec(examples: u32) -> TaskSpec {
    TaskSpec {
        title: "add two numbers".into(),
        kind: TaskKind::Instruction,
        base: blob("base"),
        training: blob("training"),
        evaluation: SealedSet {
            ciphertext: blob("evaluation"),
            key_hash: seal_key_hash(&seal_key()),
            examples,
            plaintext_bytes: 900,
        },
        windows: Windows {
            open: Blocks::new(3),
            commit: Blocks::new(8),
            reveal: Blocks::new(3),
            held: Blocks::new(3),
            key: Blocks::new(3),
            score_commit: Blocks::new(3),
            score_open: Blocks::new(6),
        },
        pot: micro(POT),
        payout: Payout::ThreePlaces,
        min_gain: percent(1),
        bond: micro(BOND),
        entrants_max: 8,
        unbonded_max: 2,
        checkpoint_bytes_max: 10_000,
        reference: Some(recipe("reference").hash()),
        small_set: true,
    }
}

pub(crate) fn recipe(name: &str) -> Recipe {
    Recipe {
        version: 1,
        trainer: "test 1".into(),
        strategy: Strategy::Fixed(name.into()),
        method: Method::Lora { rank: 8, alpha_milli: 16_000, dropout_ppm: 0, targets: Method::ALL_LINEAR },
        learning_rate_nano: 100_000,
        schedule: Schedule::Linear,
        warmup_ppm: 0,
        batch_rows: 4,
        accumulation: 1,
        steps: 10,
        sequence_tokens: 48,
        packing: false,
        weight_decay_ppm: 0,
        clip_milli: 1_000,
        seed: 1,
        tokens_trained: 1_000,
        extra: Vec::new(),
    }
}

/// A miner's checkpoint; `weights` names the bytes of its adapter.
#[derive(Clone)]
pub(crate) struct Checkpoint {
    pub(crate) manifest: Manifest,
    pub(crate) recipe: Recipe,
    pub(crate) salt: Salt,
}

impl Checkpoint {
    pub(crate) fn new(miner: &str, weights: &str, recipe_name: &str) -> Self {
        let recipe = recipe(recipe_name);
        let file = |name: &str, text: &str| FileEntry {
            name: name.into(),
            bytes: 500,
            hash: FileHash::from_bytes(plain(text.as_bytes())),
        };
        let manifest = Manifest {
            version: 1,
            kind: BlobKind::Adapter,
            base: Some(spec(4).base.root),
            recipe: Some(recipe.hash()),
            files: vec![file("adapter_config.json", miner), file("adapter_model.safetensors", weights)],
        };
        Self { manifest, recipe, salt: Salt::from_bytes(plain(miner.as_bytes())) }
    }

    pub(crate) fn commitment(&self, world: &World, task: TaskId, miner: &str) -> Commitment {
        let bytes = self.manifest.total_bytes().expect("small");
        let genesis = world.genesis.hash();
        commitment(&genesis, &task, &key(miner), &self.manifest.root(), bytes, &self.salt)
    }

    pub(crate) fn commit(&self, world: &World, task: TaskId, miner: &str, bond: u64) -> Action {
        Action::Commit {
            task,
            commitment: self.commitment(world, task, miner),
            bond: micro(bond),
            stamp: None,
            reference: false,
        }
    }

    pub(crate) fn reveal(&self, task: TaskId) -> Action {
        Action::Reveal {
            task,
            manifest: ByteBuf::from(self.manifest.encode()),
            salt: self.salt,
            recipe: ByteBuf::from(self.recipe.encode()),
        }
    }
}

pub(crate) fn plain_checkpoint(miner: &str) -> Checkpoint {
    Checkpoint::new(miner, miner, miner)
}

impl World {
    /// Posts a task in the next block.
    pub(crate) fn post(&mut self, spec: TaskSpec) -> TaskId {
        let nonce = self.nonce("r");
        let signed = self.sign("r", nonce, Action::Post(Box::new(spec)));
        let task = TaskId::from_bytes(*signed.id().as_bytes());
        assert_eq!(self.apply(&[signed]).expect("valid"), vec![Ok(())]);
        task
    }

    /// Posts, and lets every validator accept; the next block is the first of the commit window.
    pub(crate) fn open(&mut self, spec: TaskSpec) -> TaskId {
        let task = self.post(spec);
        let accept = Action::Accept { task };
        self.block(&JUDGES.map(|judge| (judge, accept.clone())));
        let open = self.task(task).deadlines.open;
        self.pass(open);
        task
    }

    pub(crate) fn enter(&mut self, task: TaskId, miner: &str) {
        let action = plain_checkpoint(miner).commit(self, task, miner, BOND);
        self.act(miner, action);
    }

    pub(crate) fn close_commits(&mut self, task: TaskId) {
        let at = self.task(task).deadlines.commit;
        self.pass(at);
    }

    pub(crate) fn close_reveals(&mut self, task: TaskId) {
        let at = self.task(task).deadlines.reveal;
        self.pass(at);
    }

    pub(crate) fn hold(&mut self, task: TaskId, judges: &[&str]) {
        let entrants = self.task(task).entrants.len();
        let mut bits = vec![0u8; entrants.div_ceil(8)];
        for at in 0..entrants {
            bits[at / 8] |= 1 << (at % 8);
        }
        let action = Action::Held { task, entrants: ByteBuf::from(bits) };
        let all: Vec<_> = judges.iter().map(|judge| (*judge, action.clone())).collect();
        assert!(self.block(&all).iter().all(Result::is_ok));
    }

    pub(crate) fn close_held(&mut self, task: TaskId) {
        let at = self.task(task).deadlines.held;
        self.pass(at);
    }

    pub(crate) fn open_key(&mut self, task: TaskId) {
        self.act("r", Action::OpenKey { task, key: seal_key() });
        let at = self.task(task).deadlines.key;
        self.pass(at);
    }

    /// Seals the rows of the judges given and closes the window; rows are in row order.
    pub(crate) fn seal(&mut self, task: TaskId, scores: &[(&str, Vec<Row>)]) {
        let all: Vec<_> =
            scores.iter().map(|(judge, rows)| (*judge, self.seal_action(task, judge, rows))).collect();
        assert!(self.block(&all).iter().all(Result::is_ok));
        let at = self.task(task).deadlines.score_commit;
        self.pass(at);
    }

    pub(crate) fn seal_action(&self, task: TaskId, judge: &str, rows: &[Row]) -> Action {
        let root = merkle::root(rows.iter().map(Row::to_bytes));
        let root = score_commitment(&self.genesis.hash(), &task, &key(judge), &root, &salt(judge));
        Action::ScoreCommit { task, root }
    }

    /// Opens all rows of the judges given and closes the window: the task settles.
    pub(crate) fn unseal(&mut self, task: TaskId, scores: &[(&str, Vec<Row>)]) {
        for (judge, rows) in scores {
            let all: Vec<_> =
                (0..rows.len()).map(|row| (*judge, open_action(task, judge, rows, row))).collect();
            assert!(self.block(&all).iter().all(Result::is_ok));
        }
        let at = self.task(task).deadlines.score_open;
        self.pass(at);
    }
}

pub(crate) fn salt(judge: &str) -> Salt {
    Salt::from_bytes(plain(judge.as_bytes()))
}

pub(crate) fn open_action(task: TaskId, judge: &str, rows: &[Row], row: usize) -> Action {
    let bytes: Vec<_> = rows.iter().map(Row::to_bytes).collect();
    Action::ScoreOpen {
        task,
        row: u32::try_from(row).expect("small"),
        bytes: ByteBuf::from(bytes[row].clone()),
        path: merkle::path(&bytes, row).expect("there is such a row"),
        rows_root: merkle::root(&bytes),
        salt: salt(judge),
    }
}

pub(crate) fn row(text: &str) -> Row {
    match text {
        "crashed" => Row::Fault(Fault::Crashed),
        "not-finite" => Row::Fault(Fault::NotFinite),
        "unusable" => Row::Fault(Fault::EvaluationUnusable),
        numbers => Row::Scores(
            numbers.split_whitespace().map(|n| MicroNats::clamped(n.parse().expect("a score"))).collect(),
        ),
    }
}
