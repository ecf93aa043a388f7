//! The state as the rules see it: typed entries, money that cannot get lost, events.

use tiltyard_keys::{GenesisHash, PublicKey};
use tiltyard_proto::genesis::Params;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::state::{Account, Phase, StateKey, TaskRecord, Totals};
use tiltyard_proto::units::{Height, MicroCredits};
use tiltyard_proto::validators::ValidatorSet;

use crate::changes::Values;
use crate::error::{MarketError, Stop};
use crate::event::LedgerEvent;
use crate::query;
use crate::read::{ReadError, StateRead};
use crate::table::{Stored, Table};
use crate::totals::{Place, shift};

/// The state while a block is applied.
pub(crate) struct Book<'a> {
    pub(crate) height: Height,
    pub(crate) genesis: GenesisHash,
    pub(crate) params: Params,
    pub(crate) events: Vec<LedgerEvent>,
    pub(crate) faucet_draws: u32,
    totals: Totals,
    table: Table<'a>,
    kept: Kept,
}

/// What a rollback restores beside the entries.
#[derive(Clone, Copy)]
struct Kept {
    totals: Totals,
    events: usize,
    faucet_draws: u32,
}

impl<'a> Book<'a> {
    /// Opens the state for a block.
    pub(crate) fn open(
        state: &'a dyn StateRead,
        genesis: GenesisHash,
        height: Height,
    ) -> Result<Self, ReadError> {
        let totals = query::totals(state)?;
        Ok(Self {
            height,
            genesis,
            params: query::params(state)?,
            events: Vec::new(),
            faucet_draws: 0,
            totals,
            table: Table::new(state),
            kept: Kept { totals, events: 0, faucet_draws: 0 },
        })
    }

    /// Opens the empty state for genesis.
    pub(crate) fn empty(state: &'a dyn StateRead, genesis: GenesisHash, params: Params) -> Self {
        let totals = Totals::default();
        Self {
            height: Height::ZERO,
            genesis,
            params,
            events: Vec::new(),
            faucet_draws: 0,
            totals,
            table: Table::new(state),
            kept: Kept { totals, events: 0, faucet_draws: 0 },
        }
    }

    /// Makes everything so far final.
    pub(crate) fn keep(&mut self) {
        self.table.keep();
        self.kept = Kept { totals: self.totals, events: self.events.len(), faucet_draws: self.faucet_draws };
    }

    /// Takes back everything since the last [`Self::keep`].
    pub(crate) fn roll_back(&mut self) {
        self.table.roll_back();
        self.totals = self.kept.totals;
        self.events.truncate(self.kept.events);
        self.faucet_draws = self.kept.faucet_draws;
    }

    /// Ends the block: what changed, as bytes, and what happened.
    pub(crate) fn close(mut self) -> Result<(Values, Vec<LedgerEvent>), Stop> {
        if !self.totals.is_conserved() {
            return Err(Stop::Broken("supply is not conserved"));
        }
        self.table.put(StateKey::Totals, Some(self.totals))?;
        Ok((self.table.into_changes(), self.events))
    }

    /// Reads an entry.
    pub(crate) fn get<T: Stored>(&mut self, key: StateKey) -> Result<Option<T>, ReadError> {
        self.table.get(key)
    }

    /// Writes an entry.
    pub(crate) fn put<T: Stored>(&mut self, key: StateKey, value: T) -> Result<(), ReadError> {
        self.table.put(key, Some(value))
    }

    /// Removes an entry of type `T`.
    pub(crate) fn remove<T: Stored>(&mut self, key: StateKey) -> Result<(), ReadError> {
        self.table.put::<T>(key, None)
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Sets what exists at genesis; for genesis only.
    pub(crate) fn issue_genesis(&mut self, totals: Totals) {
        self.totals = totals;
    }

    pub(crate) fn account(&mut self, key: PublicKey) -> Result<Account, ReadError> {
        Ok(self.get(StateKey::Account(key))?.unwrap_or_default())
    }

    pub(crate) fn set_account(&mut self, key: PublicKey, account: Account) -> Result<(), ReadError> {
        self.put(StateKey::Account(key), account)
    }

    /// Moves credits between two places that are not accounts.
    pub(crate) fn shift(&mut self, from: Place, to: Place, amount: MicroCredits) -> Result<(), Stop> {
        shift(&mut self.totals, from, to, amount).ok_or(Stop::Broken("a total under- or overflows"))
    }

    /// Takes credits out of an account.
    pub(crate) fn debit(&mut self, key: PublicKey, to: Place, amount: MicroCredits) -> Result<(), Stop> {
        let mut account = self.account(key)?;
        account.balance = account
            .balance
            .checked_sub(amount)
            .ok_or(MarketError::Balance { needed: amount, balance: account.balance })?;
        self.set_account(key, account)?;
        self.shift(Place::Balances, to, amount)
    }

    /// Puts credits into an account.
    pub(crate) fn credit(&mut self, from: Place, key: PublicKey, amount: MicroCredits) -> Result<(), Stop> {
        if amount == MicroCredits::ZERO {
            return Ok(());
        }
        let mut account = self.account(key)?;
        account.balance = account.balance.checked_add(amount).ok_or(Stop::Broken("a balance overflows"))?;
        self.set_account(key, account)?;
        self.shift(from, Place::Balances, amount)
    }

    pub(crate) fn set_at(&mut self, height: Height) -> Result<Option<ValidatorSet>, ReadError> {
        let epoch = query::epoch_of(&self.params, height);
        self.get(StateKey::Set(epoch))
    }

    /// Returns the set that decides the block being applied.
    pub(crate) fn set(&mut self) -> Result<ValidatorSet, ReadError> {
        let height = self.height;
        self.set_at(height)?.ok_or_else(|| ReadError::new("the running validator set is missing"))
    }

    /// Returns a task that must exist.
    pub(crate) fn task(&mut self, task: TaskId) -> Result<TaskRecord, Stop> {
        self.get(StateKey::Task(task))?.ok_or(Stop::Market(MarketError::UnknownTask { task }))
    }

    /// Returns a task that must be in `phase`, before its deadline `closes`.
    pub(crate) fn task_in(
        &mut self,
        task: TaskId,
        phase: Phase,
        closes: fn(&TaskRecord) -> Height,
    ) -> Result<TaskRecord, Stop> {
        let record = self.task(task)?;
        if record.phase > phase {
            return Err(MarketError::Late { task, at: self.height, closed: closes(&record) }.into());
        }
        if record.phase != phase {
            return Err(MarketError::TooEarly { task, phase: record.phase, needed: phase }.into());
        }
        if self.height > closes(&record) {
            return Err(MarketError::Late { task, at: self.height, closed: closes(&record) }.into());
        }
        Ok(record)
    }

    pub(crate) fn set_task(&mut self, task: TaskId, record: TaskRecord) -> Result<(), ReadError> {
        self.put(StateKey::Task(task), record)
    }

    /// Queues a task's phase end for a height.
    pub(crate) fn enqueue(&mut self, at: Height, task: TaskId) -> Result<(), ReadError> {
        let mut queue: Vec<TaskId> = self.get(StateKey::PhaseQueue(at))?.unwrap_or_default();
        queue.push(task);
        self.put(StateKey::PhaseQueue(at), queue)
    }

    pub(crate) fn event(&mut self, event: LedgerEvent) {
        self.events.push(event);
    }
}
