//! A node's disk. What is written outlives a crash once it is synced; what is not may be lost, kept or torn.
//!
//! Modelled after the store: a block log, which is the truth; the state, made from it; a vote journal; proposed
//! bodies; role entries. A torn frame is what the store cuts off when it opens: never written. A torn commit is a block
//! that is in the log and not in the state: the state is made again from the log.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tiltyard_keys::Verifier;
use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{BlockContext, ReadError, StateRead, query};
use tiltyard_machine::io::Commit;
use tiltyard_machine::{JoinState, Recovered};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::snapshot::SnapshotCut;
use tiltyard_proto::units::Height;

use super::planted::Bug;
use super::snapshots::{Joining, Snapshot};
use super::view::StateView;

/// What becomes of writes that were not synced when the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFate {
    /// None of them is there.
    Lost,
    /// All of them are there.
    Kept,
    /// The last one is there in part, those before it are there.
    Torn,
}

/// What is found broken on a disk after a crash. Checksums tell; what is broken counts as gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    None,
    /// The state: it is made again from the log.
    State,
    /// Proposed bodies: a node that voted for one of them must not sign any more.
    Bodies,
}

/// All that a disk holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    /// Height before the first block in the log: not 0 where the chain begins with a snapshot.
    pub(crate) base: u64,
    pub(crate) blocks: Vec<Rc<DecidedBlock>>,
    pub(crate) state: MemoryState,
    /// Height of the block that the state is after.
    pub(crate) state_height: u64,
    pub(crate) journal: Vec<Rc<Vec<u8>>>,
    /// The vote journal of the height before; read by a planted bug alone.
    before: Vec<Rc<Vec<u8>>>,
    pub(crate) bodies: BTreeMap<BlockHash, (Height, Rc<Vec<u8>>)>,
    pub(crate) roles: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether snapshots are made in this run.
    pub(crate) makes_snapshots: bool,
    pub(crate) snapshots: BTreeMap<u64, Rc<Snapshot>>,
    pub(crate) joining: Option<Joining>,
}

impl Content {
    /// Returns the height of the last block in the log.
    pub(crate) fn tip(&self) -> u64 {
        self.base + self.blocks.len() as u64
    }

    /// Returns the block at a height.
    pub(crate) fn block(&self, height: u64) -> Option<&Rc<DecidedBlock>> {
        self.blocks.get(height.checked_sub(self.base + 1)? as usize)
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Body { block, height, bytes } => {
                self.bodies.insert(*block, (*height, Rc::clone(bytes)));
            }
            Write::Journal(bytes) => self.journal.push(Rc::clone(bytes)),
            Write::ResetJournal(bytes) => {
                self.before = core::mem::replace(&mut self.journal, vec![Rc::clone(bytes)]);
            }
            Write::Commit(decided, commit) => {
                self.blocks.push(Rc::clone(decided));
                self.state.apply(&commit.changes);
                self.state_height = self.tip();
                let reached = Height::new(self.state_height);
                self.bodies.retain(|_, (height, _)| *height > reached);
                self.make_snapshot();
            }
            Write::BeginSnapshot(decided, cut) => {
                let (decided, cut) = (Rc::clone(decided), Rc::clone(cut));
                let chunks = BTreeMap::new();
                self.joining = Some(Joining { decided, cut, chunks, is_whole: false });
            }
            Write::Chunk(index, bytes) => {
                if let Some(joining) = &mut self.joining {
                    joining.chunks.insert(*index, Rc::clone(bytes));
                }
            }
            Write::WholeSnapshot => {
                if let Some(joining) = &mut self.joining {
                    joining.is_whole = true;
                }
            }
            Write::DropSnapshot => self.joining = None,
            Write::Role(key, value) => {
                if value.is_empty() {
                    self.roles.remove(key);
                } else {
                    self.roles.insert(key.clone(), value.clone());
                }
            }
        }
    }

    /// Applies what a torn write leaves: of a commit the block in the log, of anything else nothing.
    fn tear(&mut self, write: &Write) {
        match write {
            Write::Commit(decided, _) => self.blocks.push(Rc::clone(decided)),
            Write::Body { .. }
            | Write::Journal(_)
            | Write::ResetJournal(_)
            | Write::Role(..)
            | Write::BeginSnapshot(..)
            | Write::Chunk(..)
            | Write::WholeSnapshot
            | Write::DropSnapshot => {}
        }
    }
}

/// One write of the shell.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Body { block: BlockHash, height: Height, bytes: Rc<Vec<u8>> },
    Journal(Rc<Vec<u8>>),
    ResetJournal(Rc<Vec<u8>>),
    Commit(Rc<DecidedBlock>, Rc<Commit>),
    Role(Vec<u8>, Vec<u8>),
    BeginSnapshot(Rc<DecidedBlock>, Rc<SnapshotCut>),
    Chunk(u32, Rc<Vec<u8>>),
    WholeSnapshot,
    DropSnapshot,
}

/// Says why a disk cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// A block of the log does not lead to the state that its header names.
    #[error("block {height} of the log leads to another state than its header says: {fact}")]
    Replay { height: u64, fact: String },
    /// A snapshot that was fetched whole does not lead to the state that it is of.
    #[error("a joined state cannot be made: {fact}")]
    Join { fact: String },
}

/// A disk.
#[derive(Debug)]
pub(crate) struct Disk {
    /// As it reads now.
    pub(crate) live: Rc<RefCell<Content>>,
    /// As it would be found after a crash that loses everything unsynced.
    pub(crate) durable: Content,
    pending: Vec<Write>,
    /// What was synced, newest last; kept only where a planted bug brings an old disk back.
    backups: Option<Vec<Content>>,
    /// Where the log begins: a state, and the height of the block that it is after.
    origin: (u64, MemoryState),
    genesis: MemoryState,
}

impl Disk {
    /// Makes a disk at genesis.
    pub(crate) fn new(genesis: MemoryState, bug: Option<Bug>, makes_snapshots: bool) -> Self {
        let content = Content { state: genesis.clone(), makes_snapshots, ..Content::default() };
        Self {
            live: Rc::new(RefCell::new(content.clone())),
            durable: content,
            pending: Vec::new(),
            backups: (bug == Some(Bug::RestoredBackup)).then(Vec::new),
            origin: (0, genesis.clone()),
            genesis,
        }
    }

    /// Writes, without making it durable.
    pub(crate) fn write(&mut self, write: Write) {
        self.live.borrow_mut().apply(&write);
        self.pending.push(write);
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&mut self) {
        for write in self.pending.drain(..) {
            self.durable.apply(&write);
        }
        if let Some(backups) = &mut self.backups {
            backups.push(self.durable.clone());
        }
    }

    /// Cuts the power.
    pub(crate) fn crash(&mut self, fate: WriteFate, damage: Damage) {
        let pending = core::mem::take(&mut self.pending);
        match fate {
            WriteFate::Lost => {}
            WriteFate::Kept => pending.iter().for_each(|write| self.durable.apply(write)),
            WriteFate::Torn => {
                if let Some((last, before)) = pending.split_last() {
                    before.iter().for_each(|write| self.durable.apply(write));
                    self.durable.tear(last);
                }
            }
        }
        if let Some(backups) = &mut self.backups {
            let at = backups.len().saturating_sub(20);
            if let Some(old) = backups.get(at) {
                self.durable = old.clone();
            }
            backups.truncate(at);
        }
        match damage {
            Damage::None => {}
            Damage::State => {
                (self.durable.state_height, self.durable.state) = self.origin.clone();
            }
            Damage::Bodies => self.durable.bodies.clear(),
        }
        // Readers made before stay on the disk as it was then.
        self.live = Rc::new(RefCell::new(self.durable.clone()));
    }

    /// Forgets everything: a new disk.
    pub(crate) fn wipe(&mut self) {
        let makes_snapshots = self.durable.makes_snapshots;
        self.pending.clear();
        self.durable = Content { state: self.genesis.clone(), makes_snapshots, ..Content::default() };
        self.origin = (0, self.genesis.clone());
        self.live = Rc::new(RefCell::new(self.durable.clone()));
    }

    /// Closes the disk in good order.
    pub(crate) fn close(&mut self) {
        self.sync();
        self.live = Rc::new(RefCell::new(self.durable.clone()));
    }

    /// Opens the disk at a start: brings the state to the log's end and returns what the machine starts from.
    pub(crate) fn open(&mut self, genesis: &Genesis, bug: Option<Bug>) -> Result<Recovered, OpenError> {
        let content = &mut self.durable;
        let base = content.base;
        content.adopt(bug).map_err(|fact| OpenError::Join { fact })?;
        if content.base != base {
            self.origin = (content.state_height, content.state.clone());
        }
        if bug == Some(Bug::SkippedReplay) {
            content.state_height = content.tip();
        }
        while content.state_height < content.tip() {
            replay(content, genesis)?;
        }
        let reached = content.tip();
        let recovered = Recovered {
            tip: content.blocks.last().map(|decided| decided.as_ref().clone()),
            journal: match bug {
                Some(Bug::ForgottenJournal) => &content.before,
                Some(_) | None => &content.journal,
            }
            .iter()
            .map(|bytes| bytes.to_vec())
            .collect(),
            bodies: content
                .bodies
                .iter()
                .filter(|(_, (height, _))| height.get() > reached)
                .map(|(block, (height, bytes))| (*block, *height, bytes.to_vec()))
                .collect(),
            roles: content.roles.clone().into_iter().collect(),
            joining: content.joining.as_ref().map(|joining| JoinState {
                decided: joining.decided.as_ref().clone(),
                cut: joining.cut.as_ref().clone(),
                have: joining.chunks.keys().copied().collect(),
            }),
            begun_by_snapshot: content.base > 0,
        };
        self.live = Rc::new(RefCell::new(content.clone()));
        Ok(recovered)
    }

    /// Returns the state as a machine reads it.
    pub(crate) fn view(&self, node: usize, bug: Option<Bug>) -> StateView {
        StateView::new(Rc::clone(&self.live), node, bug)
    }
}

/// Executes the first block of the log that the state is not after.
fn replay(content: &mut Content, genesis: &Genesis) -> Result<(), OpenError> {
    let height = content.state_height + 1;
    let failed = |fact: String| OpenError::Replay { height, fact };
    let decided = content.block(height).cloned().ok_or_else(|| failed("it is not in the log".to_owned()))?;
    let read = |error: ReadError| failed(error.to_string());
    let parent_set = query::set_at(&content.state, Height::new(content.state_height)).map_err(read)?;
    let verifier = Verifier::new(genesis.hash());
    let verified: Result<Vec<_>, _> =
        decided.block.body.transactions.iter().map(|signed| signed.clone().verify(&verifier)).collect();
    let context = BlockContext {
        height: Height::new(height),
        builder: decided.block.header.builder,
        genesis: genesis.hash(),
        parent_certificate: decided.block.body.parent_certificate.as_ref().map(|c| (c, &parent_set)),
    };
    let transactions = verified.map_err(|error| failed(error.to_string()))?;
    let executed = tiltyard_ledger::execute(&content.state, &context, &transactions)
        .map_err(|error| failed(error.to_string()))?;
    if executed.changes.state_root != decided.block.header.state_root {
        return Err(failed("another state root".to_owned()));
    }
    content.state.apply(&executed.changes);
    content.state_height = height;
    let reached = Height::new(height);
    content.bodies.retain(|_, (at, _)| *at > reached);
    Ok(())
}

impl StateRead for Content {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.state.value(key)
    }

    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.state.node(key)
    }

    fn tree_version(&self) -> Result<Option<u64>, ReadError> {
        self.state.tree_version()
    }
}
