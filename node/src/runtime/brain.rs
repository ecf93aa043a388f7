//! The machine's thread: one input at a time, effects in order, nothing else touches machine or store.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tiltyard_keys::PublicKey;
use tiltyard_machine::{Durable, Input, Machine, MachineError, Now};
use tiltyard_net::NetHandle;
use tiltyard_proto::ids::{BlobRoot, SealKey};
use tiltyard_proto::transaction::VerifiedTransaction;
use tiltyard_proto::units::Nonce;
use tiltyard_proto::wire::Peer;
use tiltyard_store::blob::BlobStore;
use tiltyard_store::{Store, StoreReader};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::timers::Timers;
use super::{Audiences, RunError, Shared, TransactionFate};
use crate::clock::{Monotonic, Wall};
use crate::jobs::JobHandle;

/// How often the shared status is made anew at most.
const STATUS_EVERY: Duration = Duration::from_millis(100);
/// Inputs that may wait for the machine.
const ORDERS_MAX: usize = 1_024;
/// Frames of transactions that may wait besides, of at most 64 KiB each.
const BULK_MAX: usize = 64;

/// Something for the machine's thread.
#[derive(Debug)]
pub(crate) enum Order {
    /// An input.
    Input(Box<Input>),
    /// Transactions of a local client; answered with what became of each.
    Submit { transactions: Vec<VerifiedTransaction>, fates: oneshot::Sender<Vec<Result<(), String>>> },
    /// A requester's key; answered when it is durable.
    KeepKey { ciphertext: BlobRoot, key: SealKey, kept: oneshot::Sender<()> },
    /// Asks for the nonce of an account's next transaction.
    NextNonce { account: PublicKey, answer: oneshot::Sender<Nonce> },
}

/// The machine's thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping; try again when it runs")]
pub(crate) struct Stopped;

/// Talks to the machine's thread. Cheap to clone.
///
/// Two lanes lead there: transactions wait in `bulk` and are taken only while nothing else waits, so that a flood of them
/// delays neither votes nor blocks.
#[derive(Debug, Clone)]
pub(crate) struct BrainHandle {
    orders: mpsc::Sender<Order>,
    bulk: mpsc::Sender<Input>,
}

/// The receiving ends of both lanes.
#[derive(Debug)]
pub(super) struct Mailbox {
    orders: mpsc::Receiver<Order>,
    bulk: mpsc::Receiver<Input>,
}

impl BrainHandle {
    pub(super) fn new() -> (Self, Mailbox) {
        let (orders, first) = mpsc::channel(ORDERS_MAX);
        let (bulk, second) = mpsc::channel(BULK_MAX);
        (Self { orders, bulk }, Mailbox { orders: first, bulk: second })
    }

    /// Hands transactions of a peer over; gives them back when too many wait already.
    pub(crate) fn offer(&self, input: Input) -> Result<(), Box<Input>> {
        self.bulk.try_send(input).map_err(|error| Box::new(error.into_inner()))
    }

    /// Hands an input over; waits while the queue is full.
    pub(crate) async fn tell(&self, input: Input) -> Result<(), Stopped> {
        self.orders.send(Order::Input(Box::new(input))).await.map_err(|_| Stopped)
    }

    /// Hands transactions over and waits until each is taken or refused.
    pub(crate) async fn submit(
        &self,
        transactions: Vec<VerifiedTransaction>,
    ) -> Result<Vec<Result<(), String>>, Stopped> {
        let (fates, answer) = oneshot::channel();
        self.orders.send(Order::Submit { transactions, fates }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Hands a key over and waits until it is durable.
    pub(crate) async fn keep_key(&self, ciphertext: BlobRoot, key: SealKey) -> Result<(), Stopped> {
        let (kept, answer) = oneshot::channel();
        self.orders.send(Order::KeepKey { ciphertext, key, kept }).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Asks for the nonce of an account's next transaction, those that wait counted.
    pub(crate) async fn next_nonce(&self, account: PublicKey) -> Result<Nonce, Stopped> {
        let (answer, nonce) = oneshot::channel();
        self.orders.send(Order::NextNonce { account, answer }).await.map_err(|_| Stopped)?;
        nonce.await.map_err(|_| Stopped)
    }
}

/// Everything that the thread owns or reaches.
#[derive(Debug)]
pub(super) struct Brain {
    pub(super) machine: Machine<StoreReader>,
    pub(super) store: Store,
    pub(super) net: NetHandle,
    pub(super) jobs: JobHandle,
    pub(super) blobs: BlobStore,
    pub(super) audiences: Audiences,
    pub(super) shared: std::sync::Arc<Shared>,
    pub(super) clock: Monotonic,
    pub(super) wall: Wall,
    pub(super) own_peer: Peer,
    pub(super) dial_validators: bool,
}

/// What the shell keeps between steps.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) timers: Timers,
    /// Inputs that effects led to; taken before anything from outside.
    pub(super) next: VecDeque<Input>,
    /// How far the vote journal is on disk: opens what the validator key says.
    pub(super) written: Durable,
    /// The store holds a whole snapshot: it is opened anew, and everything on it.
    pub(super) reopen: bool,
}

/// Why the machine's thread ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was asked to.
    Stopped,
    /// The state was fetched as a snapshot: the node starts again on it.
    Reopen,
}

/// Runs until `stop`, or until store or machine cannot go on.
pub(super) fn run(
    mut brain: Brain,
    mut mailbox: Mailbox,
    handle: &Handle,
    stop: &CancellationToken,
) -> Result<Ended, RunError> {
    let outcome = brain.work(&mut mailbox, handle, stop);
    if let Err(error) = &outcome {
        error!(%error, "the machine cannot go on");
        if let RunError::Machine(MachineError::DecidedInvalid { .. }) = error {
            // Either this program is wrong, or what it read: the second is cured at the next start.
            brain.store.distrust_state();
        }
    }
    outcome
}

impl Brain {
    fn now(&self) -> Now {
        Now { mono_ms: self.clock.ms(), unix: self.wall.now() }
    }

    fn work(
        &mut self,
        mailbox: &mut Mailbox,
        handle: &Handle,
        stop: &CancellationToken,
    ) -> Result<Ended, RunError> {
        let mut desk = Desk {
            timers: Timers::default(),
            next: VecDeque::new(),
            written: Durable::at_start(),
            reopen: false,
        };
        desk.next.push_back(Input::Start);
        self.tell_missing(&mut desk)?;
        let mut shown = Instant::now();
        loop {
            while let Some(input) = desk.next.pop_front() {
                self.step(input, &mut desk)?;
            }
            if desk.reopen {
                return Ok(Ended::Reopen);
            }
            if let Some(id) = desk.timers.take_due(self.clock.ms()) {
                self.step(Input::Timer(id), &mut desk)?;
                continue;
            }
            if shown.elapsed() >= STATUS_EVERY {
                shown = Instant::now();
                self.shared.set_status(self.machine.status());
            }
            let due = desk.timers.next_ms().map(|at| self.clock.at(at));
            match handle.block_on(wait(mailbox, due, stop)) {
                Woken::Stop => return Ok(Ended::Stopped),
                Woken::Timer => {}
                Woken::Order(order) => self.on_order(order, &mut desk)?,
            }
        }
    }

    fn on_order(&mut self, order: Order, desk: &mut Desk) -> Result<(), RunError> {
        match order {
            Order::Input(input) => self.step(*input, desk),
            Order::Submit { transactions, fates } => {
                let ids: Vec<_> = transactions.iter().map(VerifiedTransaction::id).collect();
                for transaction in transactions {
                    self.shared.handed_in(transaction.id());
                    self.step(Input::Submit(Box::new(transaction)), desk)?;
                }
                // A block on its way to the disk holds inputs back, as below.
                while let Some(input) = desk.next.pop_front() {
                    self.step(input, desk)?;
                }
                let fate = |id| match self.shared.fate(&id) {
                    Some(TransactionFate::Dropped { fact }) => Err(fact),
                    Some(TransactionFate::Pending | TransactionFate::Included { .. }) | None => Ok(()),
                };
                // Whoever asked may have gone; the transactions are kept all the same.
                let _ = fates.send(ids.into_iter().map(fate).collect());
                Ok(())
            }
            Order::KeepKey { ciphertext, key, kept } => {
                self.step(Input::KeepKey { ciphertext, key }, desk)?;
                // While a block is on its way to the disk the machine holds inputs back: finish that first.
                while let Some(input) = desk.next.pop_front() {
                    self.step(input, desk)?;
                }
                // Whoever asked may have gone; the key is kept all the same.
                let _ = kept.send(());
                Ok(())
            }
            Order::NextNonce { account, answer } => {
                let nonce = self.machine.next_nonce(&account)?;
                // Whoever asked may have gone.
                let _ = answer.send(nonce);
                Ok(())
            }
        }
    }

    fn step(&mut self, input: Input, desk: &mut Desk) -> Result<(), RunError> {
        let effects = self.machine.step(self.now(), input)?;
        for effect in effects {
            self.carry_out(effect, desk)?;
        }
        Ok(())
    }
}

enum Woken {
    Stop,
    Timer,
    Order(Order),
}

async fn wait(mailbox: &mut Mailbox, due: Option<Instant>, stop: &CancellationToken) -> Woken {
    let timer = async {
        match due {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => core::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => Woken::Stop,
        () = timer => Woken::Timer,
        order = mailbox.orders.recv() => order.map_or(Woken::Stop, Woken::Order),
        input = mailbox.bulk.recv() => {
            input.map_or(Woken::Stop, |input| Woken::Order(Order::Input(Box::new(input))))
        }
    }
}
