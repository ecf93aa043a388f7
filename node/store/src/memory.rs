//! The in-memory twin of the store, for tests and the simulator. It can forget what was not synced.
//!
//! By default every write is durable when it returns, as on disk. In [`Durability::OnSync`] writes pile up until
//! [`MemoryStore::sync`], and a crash loses the pile: that is how a node which acts before its data is durable is
//! caught.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{ReadError, StateRead};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{BlockHash, TransactionId};
use tiltyard_proto::units::Height;

use crate::bodies::BodyEntry;
use crate::chain::{ChainRead, ChainStore, CommitRef, Damage, Recovered, check_next};
use crate::error::StoreError;
use crate::state::TransactionPlace;

/// When a write outlives a crash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// As soon as it returns: what the store on disk promises.
    #[default]
    OnReturn,
    /// Only after [`MemoryStore::sync`].
    OnSync,
}

/// All that a store holds.
#[derive(Debug, Clone, Default)]
struct Content {
    blocks: BTreeMap<Height, DecidedBlock>,
    state: MemoryState,
    transactions: BTreeMap<TransactionId, TransactionPlace>,
    journal: Vec<Vec<u8>>,
    bodies: Vec<BodyEntry>,
    roles: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Content {
    fn tip(&self) -> Option<&DecidedBlock> {
        self.blocks.last_key_value().map(|(_, decided)| decided)
    }
}

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Mutex<Content>>,
    synced: Content,
    durability: Durability,
    origin: BlockHash,
}

impl MemoryStore {
    /// Makes a store at genesis.
    ///
    /// # Errors
    /// [`StoreError::Replay`] when the document breaks a rule.
    pub fn new(genesis: &Genesis, durability: Durability) -> Result<Self, StoreError> {
        let changes = tiltyard_ledger::genesis(genesis)
            .map_err(|error| StoreError::Replay { height: Height::ZERO, fact: error.to_string() })?;
        let mut content = Content::default();
        content.state.apply(&changes);
        let shared = Arc::new(Mutex::new(content.clone()));
        Ok(Self { shared, synced: content, durability, origin: genesis.block_hash() })
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&mut self, change: impl FnOnce(&mut Content)) {
        change(&mut self.content());
    }

    /// Makes everything written so far outlive a crash.
    pub fn sync(&mut self) {
        let content = self.content().clone();
        self.synced = content;
    }

    /// Ends the node without warning: forgets what was not durable and returns what a new start finds. Readers made
    /// before stay on the store as it was then.
    pub fn crash(&mut self) -> Recovered {
        let content = match self.durability {
            Durability::OnReturn => self.content().clone(),
            Durability::OnSync => self.synced.clone(),
        };
        let tip = content.tip().cloned();
        let reached = tip.as_ref().map_or(Height::ZERO, |decided| decided.block.header.height);
        let recovered = Recovered {
            tip,
            journal: content.journal.clone(),
            bodies: content.bodies.iter().filter(|(_, height, _)| *height > reached).cloned().collect(),
            roles: content.roles.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            rebuilt: None,
            damage: Damage::default(),
            joining: None,
            begun_by_snapshot: false,
        };
        self.synced = content.clone();
        self.shared = Arc::new(Mutex::new(content));
        recovered
    }
}

impl ChainStore for MemoryStore {
    type Reader = MemoryReader;

    fn reader(&self) -> MemoryReader {
        MemoryReader { shared: Arc::clone(&self.shared) }
    }

    fn save_body(&mut self, block: BlockHash, height: Height, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(|content| {
            let kept = content.bodies.iter().any(|(name, at, _)| *name == block && *at == height);
            if !kept {
                content.bodies.push((block, height, bytes.to_vec()));
            }
        });
        Ok(())
    }

    fn journal(&mut self, entry: &[u8]) -> Result<(), StoreError> {
        self.write(|content| content.journal.push(entry.to_vec()));
        Ok(())
    }

    fn reset_journal(&mut self, first: &[u8]) -> Result<(), StoreError> {
        self.write(|content| content.journal = vec![first.to_vec()]);
        Ok(())
    }

    fn commit(&mut self, commit: CommitRef<'_>) -> Result<(), StoreError> {
        let tip = self.content().tip().map_or((Height::ZERO, self.origin), |decided| {
            (decided.block.header.height, decided.block.hash())
        });
        check_next(tip, &commit)?;
        let height = commit.decided.block.header.height;
        self.write(|content| {
            content.blocks.insert(height, commit.decided.clone());
            content.state.apply(commit.changes);
            for (index, (id, took_effect)) in (0u32..).zip(commit.outcomes) {
                let place = TransactionPlace { height, index, took_effect: *took_effect };
                content.transactions.insert(*id, place);
            }
            content.bodies.retain(|(_, at, _)| *at > height);
        });
        Ok(())
    }

    fn save_role(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.write(|content| {
            if value.is_empty() {
                content.roles.remove(key);
            } else {
                content.roles.insert(key.to_vec(), value.to_vec());
            }
        });
        Ok(())
    }
}

/// Reads a store in memory.
#[derive(Debug, Clone)]
pub struct MemoryReader {
    shared: Arc<Mutex<Content>>,
}

impl MemoryReader {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateRead for MemoryReader {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.content().state.value(key)
    }

    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.content().state.node(key)
    }

    fn tree_version(&self) -> Result<Option<u64>, ReadError> {
        self.content().state.tree_version()
    }
}

impl ChainRead for MemoryReader {
    fn tip(&self) -> Height {
        self.content().tip().map_or(Height::ZERO, |decided| decided.block.header.height)
    }

    fn first(&self) -> Option<Height> {
        self.content().blocks.first_key_value().map(|(height, _)| *height)
    }

    fn block(&self, height: Height) -> Result<Option<DecidedBlock>, StoreError> {
        Ok(self.content().blocks.get(&height).cloned())
    }

    fn transaction(&self, id: &TransactionId) -> Result<Option<TransactionPlace>, StoreError> {
        Ok(self.content().transactions.get(id).copied())
    }
}
