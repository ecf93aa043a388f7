//! A network of one pen: blocks are written, executed and kept in memory; names stand for keys.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;
use tiltyard_keys::{PublicKey, SecretKey};
use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{
    AdmitError, BlockContext, BlockError, ExecuteError, LedgerEvent, MarketError, StateRead, execute,
    fee_due, genesis, query, totals,
};
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::hash::plain;
use tiltyard_proto::ids::{StateRoot, TaskId};
use tiltyard_proto::state::{Phase, TaskRecord};
use tiltyard_proto::transaction::{Action, Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Blocks, Height, MicroCredits, Nonce, Ppm, Stake, UnixMillis};

/// The four validators of every world, each with the stake given, in this order.
pub(crate) const JUDGES: [&str; 4] = ["v1", "v2", "v3", "v4"];

/// First balance of every other name.
pub(crate) const GRANT: u64 = 1_000_000;

const PEOPLE: [&str; 10] = ["r", "a", "b", "c", "d", "e", "f", "g", "h", "x"];

pub(crate) fn secret(name: &str) -> SecretKey {
    SecretKey::from_seed(&plain(name.as_bytes()))
}

pub(crate) fn key(name: &str) -> PublicKey {
    secret(name).public()
}

pub(crate) fn micro(amount: u64) -> MicroCredits {
    MicroCredits::new(amount)
}

pub(crate) fn params() -> Params {
    Params {
        epoch: Blocks::new(10),
        window_min: Blocks::new(2),
        window_max: Blocks::new(20),
        fee_min: micro(10),
        fee_per_cell: micro(1),
        stamp_bits: 3,
        unbonding: Blocks::new(171),
        evidence_age: Blocks::new(30),
        stake_min: Stake::new(10),
        absence_window: Blocks::new(10),
        jail: Blocks::new(5),
        faucet: micro(500),
        faucet_interval: Blocks::new(5),
        ..Params::default_for(4)
    }
}

pub(crate) struct World {
    pub(crate) genesis: Genesis,
    pub(crate) state: MemoryState,
    pub(crate) height: Height,
    pub(crate) root: StateRoot,
    pub(crate) events: Vec<LedgerEvent>,
    names: BTreeMap<PublicKey, String>,
    secrets: BTreeMap<String, SecretKey>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with([100; 4], params())
    }

    pub(crate) fn with(stakes: [u64; 4], params: Params) -> Self {
        let mut validators: Vec<GenesisValidator> = JUDGES
            .iter()
            .zip(stakes)
            .map(|(name, stake)| GenesisValidator {
                key: key(name),
                stake: Stake::new(stake),
                peer: ByteBuf::from(name.as_bytes().to_vec()),
                addresses: Vec::new(),
                payout: key(name),
            })
            .collect();
        validators.sort_by_key(|validator| validator.key);
        let mut grants: Vec<Grant> =
            PEOPLE.iter().map(|name| Grant { account: key(name), amount: micro(GRANT) }).collect();
        grants.sort();
        let document =
            Genesis { version: 1, name: "test".into(), time: UnixMillis::new(0), params, validators, grants };
        let first = genesis(&document).expect("the document is sound");
        let mut state = MemoryState::new();
        state.apply(&first);
        let secrets: BTreeMap<String, SecretKey> =
            JUDGES.iter().chain(PEOPLE.iter()).map(|name| ((*name).to_string(), secret(name))).collect();
        let names = secrets.iter().map(|(name, secret)| (secret.public(), name.clone())).collect();
        Self {
            genesis: document,
            state,
            height: Height::ZERO,
            root: first.state_root,
            events: Vec::new(),
            names,
            secrets,
        }
    }

    pub(crate) fn name(&self, key: &PublicKey) -> String {
        self.names.get(key).cloned().unwrap_or_else(|| key.short())
    }

    pub(crate) fn context(&self) -> BlockContext<'static> {
        BlockContext {
            height: self.height.next(),
            builder: key("v1"),
            genesis: self.genesis.hash(),
            parent_certificate: None,
        }
    }

    /// Signs with the given nonce, the fee due, valid as long as allowed.
    pub(crate) fn sign(&self, who: &str, nonce: u64, action: Action) -> VerifiedTransaction {
        let fee = fee_due(&action, &self.genesis.params);
        self.sign_with(who, nonce, fee, action)
    }

    pub(crate) fn sign_with(
        &self,
        who: &str,
        nonce: u64,
        fee: MicroCredits,
        action: Action,
    ) -> VerifiedTransaction {
        let made;
        let secret = match self.secrets.get(who) {
            Some(secret) => secret,
            None => {
                made = secret(who);
                &made
            }
        };
        Transaction {
            version: 1,
            genesis: self.genesis.hash(),
            sender: secret.public(),
            nonce: Nonce::new(nonce),
            fee,
            valid_until: self.height.plus(Blocks::new(1_000)),
            action,
        }
        .sign(&secret.signer(self.genesis.hash()))
    }

    pub(crate) fn nonce(&self, who: &str) -> u64 {
        query::account(&self.state, &key(who)).expect("readable").nonce.get()
    }

    /// Applies a block of signed transactions; the state stays as it was when the block is invalid.
    pub(crate) fn apply(
        &mut self,
        transactions: &[VerifiedTransaction],
    ) -> Result<Vec<Result<(), MarketError>>, ExecuteError> {
        let context = self.context();
        self.apply_in(&context, transactions)
    }

    pub(crate) fn apply_in(
        &mut self,
        context: &BlockContext<'_>,
        transactions: &[VerifiedTransaction],
    ) -> Result<Vec<Result<(), MarketError>>, ExecuteError> {
        let executed = execute(&self.state, context, transactions)?;
        self.state.apply(&executed.changes);
        self.height = context.height;
        self.root = executed.changes.state_root;
        self.events.extend(executed.events);
        let counted = totals::recount(&self.state).expect("readable");
        assert_eq!(counted, query::totals(&self.state).expect("readable"), "a total drifted");
        assert!(counted.is_conserved(), "supply is not conserved");
        Ok(executed.outcomes.into_iter().map(|outcome| outcome.result).collect())
    }

    /// Applies a block of actions, nonces chained per sender.
    pub(crate) fn block(&mut self, actions: &[(&str, Action)]) -> Vec<Result<(), MarketError>> {
        let transactions = self.sign_all(actions);
        self.apply(&transactions).expect("the block is valid")
    }

    pub(crate) fn sign_all(&self, actions: &[(&str, Action)]) -> Vec<VerifiedTransaction> {
        let mut nonces: BTreeMap<&str, u64> = BTreeMap::new();
        actions
            .iter()
            .map(|(who, action)| {
                let nonce = nonces.entry(*who).or_insert_with(|| self.nonce(who));
                let signed = self.sign(who, *nonce, action.clone());
                *nonce += 1;
                signed
            })
            .collect()
    }

    /// Applies a block of one action that must take effect.
    pub(crate) fn act(&mut self, who: &str, action: Action) {
        assert_eq!(self.block(&[(who, action)]), vec![Ok(())]);
    }

    /// Applies a block of one action that must break a rule: recorded when it paid, refused when it was free.
    pub(crate) fn refused(&mut self, who: &str, action: Action) -> MarketError {
        let before = self.state.clone();
        let paid = self.sign_with(who, self.nonce(who), micro(10), action.clone());
        let fee_unpayable = self.balance(who) < 10;
        if tiltyard_ledger::may_be_free(&action) {
            let free = self.sign_with(who, self.nonce(who), MicroCredits::ZERO, action);
            let error = match self.apply(core::slice::from_ref(&free)) {
                Err(ExecuteError::Invalid(BlockError::Transaction {
                    source: AdmitError::FreeFailure(error),
                    ..
                })) => error,
                other => panic!("a free action that breaks a rule must spoil the block, got {other:?}"),
            };
            assert_eq!(self.state, before, "an invalid block changed the state");
            if fee_unpayable {
                return error;
            }
            let height = self.height;
            let recorded = self.apply(&[paid]).expect("valid").remove(0).expect_err("breaks a rule");
            assert_eq!(self.height, height.next());
            return recorded;
        }
        self.apply(&[paid]).expect("valid").remove(0).expect_err("breaks a rule")
    }

    pub(crate) fn advance(&mut self, blocks: u64) {
        for _ in 0..blocks {
            self.apply(&[]).expect("an empty block is valid");
        }
    }

    /// Goes on with empty blocks until the next block is the first after `height`.
    pub(crate) fn pass(&mut self, height: Height) {
        while self.height < height {
            self.advance(1);
        }
    }

    pub(crate) fn balance(&self, who: &str) -> u64 {
        query::account(&self.state, &key(who)).expect("readable").balance.get()
    }

    pub(crate) fn task(&self, task: TaskId) -> TaskRecord {
        query::task(&self.state, &task).expect("readable").expect("the task exists")
    }

    pub(crate) fn phase(&self, task: TaskId) -> Phase {
        self.task(task).phase
    }

    pub(crate) fn burned(&self) -> u64 {
        query::totals(&self.state).expect("readable").burned.get()
    }
}

/// Ppm of a percentage.
pub(crate) fn percent(value: i64) -> Ppm {
    Ppm::new(value * 10_000)
}

/// Reads an entry's raw bytes.
pub(crate) fn raw(state: &dyn StateRead, key: &tiltyard_proto::state::StateKey) -> Option<Vec<u8>> {
    state.value(&key.to_bytes()).expect("readable")
}
