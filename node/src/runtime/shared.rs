//! What the machine's thread tells everyone else: status, events, the fate of transactions, block latency.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde_json::{Value, json};
use tiltyard_machine::{Event, Status};
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{BlobRoot, BlockHash, TaskId, TransactionId};
use tiltyard_proto::units::Height;
use tokio::sync::broadcast;

use crate::words;

/// Events that a slow reader may be behind.
const EVENTS_MAX: usize = 8_192;
/// Transactions whose fate is remembered.
const FATES_MAX: usize = 10_000;
/// Blocks whose latency is remembered.
const SAMPLES_MAX: usize = 2_000;
/// Blobs whose fetching is remembered.
const FETCHES_MAX: usize = 1_000;
/// Tasks that are listed, live and over.
const TASKS_MAX: usize = 1_000;

/// What became of a transaction that was handed in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TransactionFate {
    Pending,
    Included { height: Height, took_effect: bool },
    Dropped { fact: String },
}

/// How fetching a blob goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FetchState {
    pub(crate) bytes: u64,
    pub(crate) total: u64,
    pub(crate) fault: Option<String>,
}

#[derive(Debug, Default)]
struct Tables {
    fates: BTreeMap<TransactionId, TransactionFate>,
    fate_order: VecDeque<TransactionId>,
    samples: VecDeque<u64>,
    fetches: BTreeMap<BlobRoot, FetchState>,
    tasks: BTreeMap<u64, TaskId>,
    task_numbers: BTreeMap<TaskId, u64>,
}

/// An event as clients read it.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Its name, as in the text.
    pub(crate) name: &'static str,
    pub(crate) json: Arc<str>,
}

/// Shared by the machine's thread, the API and the network's pump.
#[derive(Debug)]
pub(crate) struct Shared {
    status: RwLock<Status>,
    tables: Mutex<Tables>,
    events: broadcast::Sender<Told>,
}

impl Shared {
    pub(crate) fn new(genesis: &Genesis) -> Self {
        let status = Status {
            height: Height::ZERO,
            hash: BlockHash::from_bytes(*genesis.hash().as_bytes()),
            time: genesis.time,
            round: None,
            peers: 0,
            best_peer_height: Height::ZERO,
            pending_transactions: 0,
            pending_bytes: 0,
            own_pending: 0,
            syncing: true,
            validating: false,
            halted: false,
            stale: false,
            joining: None,
        };
        let (events, _) = broadcast::channel(EVENTS_MAX);
        Self { status: RwLock::new(status), tables: Mutex::default(), events }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> Status {
        self.status.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_status(&self, status: Status) {
        *self.status.write().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Subscribes to events.
    pub(crate) fn events(&self) -> broadcast::Receiver<Told> {
        self.events.subscribe()
    }

    /// Remembers that a transaction was handed in.
    pub(crate) fn handed_in(&self, id: TransactionId) {
        self.set_fate(id, TransactionFate::Pending);
    }

    pub(crate) fn fate(&self, id: &TransactionId) -> Option<TransactionFate> {
        self.tables().fates.get(id).cloned()
    }

    fn set_fate(&self, id: TransactionId, fate: TransactionFate) {
        let mut tables = self.tables();
        if tables.fates.insert(id, fate).is_none() {
            tables.fate_order.push_back(id);
        }
        while tables.fate_order.len() > FATES_MAX {
            if let Some(oldest) = tables.fate_order.pop_front() {
                tables.fates.remove(&oldest);
            }
        }
    }

    /// Returns the newest latencies from proposal to durable decision, in milliseconds, oldest first.
    pub(crate) fn latencies_ms(&self) -> Vec<u64> {
        self.tables().samples.iter().copied().collect()
    }

    pub(crate) fn fetch_state(&self, root: &BlobRoot) -> Option<FetchState> {
        self.tables().fetches.get(root).cloned()
    }

    pub(crate) fn set_fetch_state(&self, root: BlobRoot, state: FetchState) {
        let mut tables = self.tables();
        if tables.fetches.len() >= FETCHES_MAX && !tables.fetches.contains_key(&root) {
            tables.fetches.pop_first();
        }
        tables.fetches.insert(root, state);
    }

    /// Remembers that a task exists; the oldest remembered is forgotten when there are too many.
    pub(crate) fn know_task(&self, task: TaskId) {
        let mut tables = self.tables();
        if tables.task_numbers.contains_key(&task) {
            return;
        }
        let number = tables.tasks.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        tables.tasks.insert(number, task);
        tables.task_numbers.insert(task, number);
        if tables.tasks.len() > TASKS_MAX
            && let Some((_, oldest)) = tables.tasks.pop_first()
        {
            tables.task_numbers.remove(&oldest);
        }
    }

    /// Returns the tasks that were seen, oldest first.
    pub(crate) fn known_tasks(&self) -> Vec<TaskId> {
        self.tables().tasks.values().copied().collect()
    }

    /// Takes an event of the machine: remembers what clients ask for, and passes it on.
    pub(crate) fn tell(&self, event: &Event) {
        match event {
            Event::Decided { finality_ms: Some(ms), .. } => {
                let mut tables = self.tables();
                tables.samples.push_back(*ms);
                if tables.samples.len() > SAMPLES_MAX {
                    tables.samples.pop_front();
                }
            }
            Event::TransactionIncluded { id, height, ok } => {
                self.set_fate(*id, TransactionFate::Included { height: *height, took_effect: *ok });
            }
            Event::TransactionDropped { id, fact } => {
                self.set_fate(*id, TransactionFate::Dropped { fact: fact.clone() });
            }
            Event::TaskPhase { task, .. } => self.know_task(*task),
            Event::Decided { .. }
            | Event::TransactionAccepted { .. }
            | Event::Syncing { .. }
            | Event::Synced { .. }
            | Event::Stale { .. }
            | Event::Fresh { .. }
            | Event::Joining { .. }
            | Event::TaskDeclined { .. }
            | Event::Ledger { .. }
            | Event::DutyDone { .. }
            | Event::RoundStarted { .. }
            | Event::Undecided(_)
            | Event::Equivocation { .. }
            | Event::BlockRefused { .. }
            | Event::Listening { .. }
            | Event::Trouble { .. } => {}
        }
        // Without subscribers there is nobody to tell, and no text to make.
        if self.events.receiver_count() > 0 {
            let json: Arc<str> = event_json(event).to_string().into();
            let _ = self.events.send(Told { name: event_name(event), json });
        }
    }
}

const fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Decided { .. } => "decided",
        Event::Syncing { .. } => "syncing",
        Event::Synced { .. } => "synced",
        Event::Stale { .. } => "stale",
        Event::Fresh { .. } => "fresh",
        Event::Joining { .. } => "joining",
        Event::Undecided(_) => "undecided",
        Event::TaskPhase { .. } => "task-phase",
        Event::TaskDeclined { .. } => "task-declined",
        Event::Ledger { .. } => "ledger",
        Event::DutyDone { .. } => "duty-done",
        Event::TransactionAccepted { .. } => "transaction-accepted",
        Event::TransactionIncluded { .. } => "transaction-included",
        Event::TransactionDropped { .. } => "transaction-dropped",
        Event::RoundStarted { .. } => "round-started",
        Event::Equivocation { .. } => "equivocation",
        Event::BlockRefused { .. } => "block-refused",
        Event::Listening { .. } => "listening",
        Event::Trouble { .. } => "trouble",
    }
}

fn event_json(event: &Event) -> Value {
    let name = event_name(event);
    match event {
        Event::Decided { height, hash, transactions, time, round, builder, finality_ms } => json!({
            "event": name, "height": height, "hash": hash, "transactions": transactions,
            "time_ms": time, "round": round, "builder": builder, "finality_ms": finality_ms,
        }),
        Event::Syncing { height, target } => {
            json!({ "event": name, "height": height, "target": target })
        }
        Event::Synced { height } => json!({ "event": name, "height": height }),
        Event::Stale { height, silent_ms, peers } => {
            json!({ "event": name, "height": height, "silent_ms": silent_ms, "peers": peers })
        }
        Event::Fresh { height } => json!({ "event": name, "height": height }),
        Event::Joining { height, chunks } => {
            json!({ "event": name, "height": height, "chunks": chunks })
        }
        Event::TaskPhase { task, phase } => {
            json!({ "event": name, "task": task, "phase": words::phase(*phase) })
        }
        Event::TaskDeclined { task, fact } => json!({ "event": name, "task": task, "fact": fact }),
        Event::Ledger { height, event } => {
            json!({ "event": name, "height": height, "what": format!("{event:?}") })
        }
        Event::DutyDone { task, duty, height, ok } => json!({
            "event": name, "task": task, "duty": format!("{duty:?}"), "height": height, "took_effect": ok,
        }),
        Event::TransactionAccepted { id } => json!({ "event": name, "id": id }),
        Event::TransactionIncluded { id, height, ok } => {
            json!({ "event": name, "id": id, "height": height, "took_effect": ok })
        }
        Event::TransactionDropped { id, fact } => {
            json!({ "event": name, "id": id, "fact": fact })
        }
        Event::RoundStarted { height, round, proposer } => {
            json!({ "event": name, "height": height, "round": round, "proposer": proposer })
        }
        Event::Undecided(told) => json!({
            "event": name, "height": told.height, "waited_ms": told.waited_ms, "heard": told.heard,
            "total": told.total, "silent": told.silent, "fact": told.to_string(),
        }),
        Event::Equivocation { validator, height } => {
            json!({ "event": name, "validator": validator, "height": height })
        }
        Event::Listening { height, from } => {
            json!({ "event": "listening", "height": height, "from": from })
        }
        Event::BlockRefused { height, block, fact } => {
            json!({ "event": name, "height": height, "block": block, "fact": fact })
        }
        Event::Trouble { fact } => json!({ "event": name, "fact": fact }),
    }
}
