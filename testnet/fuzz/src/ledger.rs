//! The rules: sequences of transactions in blocks on a small state. Whatever is asked, supply is conserved, an outcome
//! is typed, and a block that was built is executed to the same state.

use std::sync::OnceLock;

use serde_bytes::ByteBuf;
use tiltyard_keys::SecretKey;
use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{BlockContext, execute, fee_due, genesis, query, select, totals};
use tiltyard_proto::codec;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::ids::{Commitment, ScoreCommitment, SealKey, TaskId};
use tiltyard_proto::transaction::{Action, SignedTransaction, Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Blocks, Height, MicroCredits, Nonce, Stake, UnixMillis};

use crate::{Target, seeds};

const PEOPLE: u8 = 6;
const VALIDATORS: u8 = 4;
/// Blocks and transactions of one input: the time it takes is bounded.
const BLOCKS_MAX: u64 = 40;
const TRANSACTIONS_MAX: usize = 48;

pub(crate) fn targets() -> Vec<Target> {
    vec![("execute", &[], rules)]
}

/// Bytes that are drawn from; zeros after the end.
struct Draw<'a>(&'a [u8]);

impl Draw<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number that is small, at an edge, or any.
    fn number(&mut self) -> u64 {
        match self.byte() {
            0..=127 => u64::from(self.byte()),
            128..=191 => u64::from(u16::from_be_bytes([self.byte(), self.byte()])) * 1_000,
            192..=223 => u64::MAX - u64::from(self.byte()),
            224..=255 => u64::from_be_bytes([0; 8].map(|_: u8| self.byte())),
        }
    }
}

struct World {
    genesis: Genesis,
    state: MemoryState,
    keys: Vec<SecretKey>,
    actions: Vec<Action>,
}

fn secret(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

/// The network that every input starts from, made once.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let keys: Vec<SecretKey> = (1..=VALIDATORS + PEOPLE).map(secret).collect();
        let (first, others) = keys.split_at(usize::from(VALIDATORS));
        let mut validators: Vec<GenesisValidator> = first
            .iter()
            .map(|key| GenesisValidator {
                key: key.public(),
                stake: Stake::new(100),
                peer: ByteBuf::new(),
                addresses: Vec::new(),
                payout: key.public(),
            })
            .collect();
        validators.sort_by_key(|validator| validator.key);
        let mut grants: Vec<Grant> = others
            .iter()
            .map(|key| Grant { account: key.public(), amount: MicroCredits::new(500_000_000) })
            .collect();
        grants.sort();
        let params = Params {
            epoch: Blocks::new(4),
            window_min: Blocks::new(1),
            window_max: Blocks::new(6),
            fee_min: MicroCredits::new(10),
            fee_per_cell: MicroCredits::new(1),
            stamp_bits: 0,
            unbonding: Blocks::new(60),
            evidence_age: Blocks::new(10),
            stake_min: Stake::new(10),
            absence_window: Blocks::new(6),
            jail: Blocks::new(3),
            subsidy_per_epoch: MicroCredits::new(1_001),
            faucet: MicroCredits::new(500),
            faucet_interval: Blocks::new(2),
            ..Params::default_for(u64::from(VALIDATORS))
        };
        let genesis_document =
            Genesis { version: 1, name: "fuzz".into(), time: UnixMillis::new(0), params, validators, grants };
        genesis_document.check().expect("the document holds");
        let mut state = MemoryState::new();
        state.apply(&genesis(&genesis_document).expect("the document holds"));
        let actions = seeds::of_kind("signed-transaction")
            .into_iter()
            .map(|(_, bytes)| SignedTransaction::decode(&bytes).expect("golden").transaction.action)
            .collect();
        World { genesis: genesis_document, state, keys, actions }
    })
}

/// Draws an action: on a task that is there where it can be, else a golden one with some bytes replaced.
fn action(draw: &mut Draw<'_>, world: &World, tasks: &[TaskId]) -> Action {
    let to = world.keys[usize::from(draw.byte()) % world.keys.len()].public();
    let task = tasks.get(usize::from(draw.byte()) % tasks.len().max(1)).copied();
    let task = task.unwrap_or(TaskId::from_bytes([9; 32]));
    let amount = |draw: &mut Draw<'_>| MicroCredits::new(draw.number());
    match draw.byte() % 14 {
        0 => Action::Transfer { to, amount: amount(draw) },
        1 => Action::Faucet { to },
        2 => Action::Bond { stake: Stake::new(draw.number()) },
        3 => Action::Unbond { stake: Stake::new(draw.number()) },
        4 => Action::Unjail,
        5 => Action::Accept { task },
        6 => Action::Cancel { task },
        7 => Action::Commit {
            task,
            commitment: Commitment::from_bytes([draw.byte(); 32]),
            bond: amount(draw),
            stamp: (draw.byte() % 2 == 0).then(|| draw.number()),
            reference: draw.byte() % 4 == 0,
        },
        8 => Action::Held { task, entrants: ByteBuf::from(vec![draw.byte(); usize::from(draw.byte() % 10)]) },
        9 => Action::OpenKey { task, key: SealKey::from_bytes([draw.byte(); 32]) },
        10 => Action::ScoreCommit { task, root: ScoreCommitment::from_bytes([draw.byte(); 32]) },
        11 => post(draw, world),
        _ => golden(draw, world),
    }
}

/// A post that this network takes, with one window moved.
fn post(draw: &mut Draw<'_>, world: &World) -> Action {
    let posts: Vec<&Action> =
        world.actions.iter().filter(|action| matches!(action, Action::Post(_))).collect();
    let Some(Action::Post(spec)) = posts.get(usize::from(draw.byte()) % posts.len().max(1)) else {
        return Action::Unjail;
    };
    let mut spec = spec.clone();
    spec.pot = MicroCredits::new(draw.number());
    mutated(draw, Action::Post(spec))
}

fn golden(draw: &mut Draw<'_>, world: &World) -> Action {
    let at = usize::from(draw.byte()) % world.actions.len();
    mutated(draw, world.actions[at].clone())
}

/// Replaces up to three bytes of the action's encoding; the action itself when nothing decodes from that.
fn mutated(draw: &mut Draw<'_>, action: Action) -> Action {
    let mut bytes = codec::encode(&action);
    for _ in 0..draw.byte() % 4 {
        let at = usize::from(u16::from_be_bytes([draw.byte(), draw.byte()])) % bytes.len();
        bytes[at] = draw.byte();
    }
    codec::decode("action", &bytes, bytes.len()).unwrap_or(action)
}

fn rules(data: &[u8]) {
    let world = world();
    let (mut state, mut draw, mut tasks) = (world.state.clone(), Draw(data), Vec::new());
    let network = world.genesis.hash();
    let mut height = Height::ZERO;
    while !draw.0.is_empty() && height.get() < BLOCKS_MAX {
        height = height.next();
        let builder = world.genesis.validators[usize::from(draw.byte() % VALIDATORS)].key;
        let context = BlockContext { height, builder, genesis: network, parent_certificate: None };
        let count = usize::from(draw.byte() % 8).min(TRANSACTIONS_MAX);
        let mut block: Vec<VerifiedTransaction> = Vec::new();
        let mut nonces = std::collections::BTreeMap::new();
        for _ in 0..count {
            let key = &world.keys[usize::from(draw.byte()) % world.keys.len()];
            let known = query::account(&state, &key.public()).expect("memory reads").nonce.get();
            let nonce = nonces.entry(key.public()).or_insert(known);
            let action = action(&mut draw, world, &tasks);
            let fee = match draw.byte() {
                0..=223 => fee_due(&action, &world.genesis.params),
                224..=255 => MicroCredits::new(draw.number()),
            };
            // Most nonces are the right ones, else nothing but refusals would be seen.
            let skew = u64::from(draw.byte() / 250);
            let transaction = Transaction {
                version: 1,
                genesis: network,
                sender: key.public(),
                nonce: Nonce::new(nonce.saturating_add(skew)),
                fee,
                valid_until: Height::new(height.get() + 10),
                action,
            };
            *nonce += 1;
            block.push(transaction.sign(&key.signer(network)));
        }
        let selected = match select(&state, &context, &block) {
            Ok(selected) => selected,
            Err(error) => panic!("a block of candidates cannot be built: {error}"),
        };
        let included: Vec<VerifiedTransaction> =
            selected.included.iter().map(|at| block[*at].clone()).collect();
        let executed = execute(&state, &context, &included).expect("what was built is executed");
        assert!(executed.changes == selected.executed.changes, "built and executed differ at {height}");
        assert!(executed.outcomes.len() == included.len(), "an outcome for each");
        for (signed, outcome) in included.iter().zip(&executed.outcomes) {
            if outcome.result.is_ok() && matches!(signed.transaction().action, Action::Post(_)) {
                tasks.push(TaskId::from_bytes(*signed.id().as_bytes()));
            }
        }
        state.apply(&executed.changes);
        let kept = query::totals(&state).expect("memory reads");
        assert!(kept.is_conserved(), "supply is not conserved at {height}: {kept:?}");
        let counted = totals::recount(&state).expect("memory reads");
        assert!(counted == kept, "the books say {kept:?}, the state holds {counted:?}");
    }
}
