//! Applies a block: transactions in order, then what ends with it.

use tiltyard_keys::{GenesisHash, PublicKey};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::genesis::Params;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::limits::VALID_UNTIL_BLOCKS_MAX;
use tiltyard_proto::state::Account;
use tiltyard_proto::transaction::{Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Blocks, Height};
use tiltyard_proto::validators::ValidatorSet;

use crate::book::Book;
use crate::changes::ChangeSet;
use crate::error::{AdmitError, BlockError, ExecuteError, MarketError, Stop};
use crate::event::LedgerEvent;
use crate::read::StateRead;
use crate::totals::Place;
use crate::{attendance, epoch, fee, phase, query, rules, tree};

/// What a block is, apart from its transactions.
#[derive(Debug, Clone, Copy)]
pub struct BlockContext<'a> {
    /// Height, from 1.
    pub height: Height,
    /// Who built it.
    pub builder: PublicKey,
    /// The network.
    pub genesis: GenesisHash,
    /// Certificate of the parent, as the block carries it, and the set that decided the parent; none at height 1.
    pub parent_certificate: Option<(&'a Certificate, &'a ValidatorSet)>,
}

/// What became of one transaction of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The transaction.
    pub id: TransactionId,
    /// Whether its action took effect, or the rule that it broke.
    pub result: Result<(), MarketError>,
}

/// What a block does.
#[derive(Debug, Clone)]
pub struct Executed {
    /// What it changes.
    pub changes: ChangeSet,
    /// What became of each transaction, in order.
    pub outcomes: Vec<Outcome>,
    /// What happened, in order.
    pub events: Vec<LedgerEvent>,
    /// The set that decides this block.
    pub set: ValidatorSet,
    /// The set that decides the next block.
    pub next_set: ValidatorSet,
    /// Parameters in force in this block.
    pub params: Params,
}

/// A block made of those candidates that may be in it.
#[derive(Debug, Clone)]
pub struct Selected {
    /// What the block of the included candidates does.
    pub executed: Executed,
    /// Positions of the candidates that are in the block, ascending.
    pub included: Vec<usize>,
    /// Positions of the candidates that may not be in it, and why.
    pub refused: Vec<(usize, AdmitError)>,
}

/// Applies a block to the state after its parent.
///
/// # Errors
/// [`ExecuteError::Invalid`] when the block may not be decided (vote nil); the others stop the node.
pub fn execute(
    state: &dyn StateRead,
    context: &BlockContext<'_>,
    transactions: &[VerifiedTransaction],
) -> Result<Executed, ExecuteError> {
    let mut run = Run::begin(state, context)?;
    let max = run.book.params.block_transactions_max;
    if transactions.len() > usize::try_from(max).unwrap_or(usize::MAX) {
        return Err(BlockError::TooManyTransactions { count: transactions.len(), max }.into());
    }
    for (index, transaction) in transactions.iter().enumerate() {
        if let Err(source) = run.apply(transaction)? {
            return Err(BlockError::Transaction { index, id: transaction.id(), source }.into());
        }
    }
    run.finish(state)
}

/// Builds a block: applies the candidates in order and leaves out those that may not be in it.
///
/// [`execute`] of the included ones gives the same [`Executed`]. The caller bounds the bytes.
///
/// # Errors
/// [`ExecuteError`] when the parent's certificate does not fit or the state cannot be read.
pub fn select(
    state: &dyn StateRead,
    context: &BlockContext<'_>,
    candidates: &[VerifiedTransaction],
) -> Result<Selected, ExecuteError> {
    let mut run = Run::begin(state, context)?;
    let max = usize::try_from(run.book.params.block_transactions_max).unwrap_or(usize::MAX);
    let (mut included, mut refused) = (Vec::new(), Vec::new());
    for (index, transaction) in candidates.iter().enumerate() {
        if included.len() >= max {
            break;
        }
        match run.apply(transaction)? {
            Ok(()) => included.push(index),
            Err(source) => refused.push((index, source)),
        }
    }
    Ok(Selected { executed: run.finish(state)?, included, refused })
}

/// Says whether a transaction may wait for a block after `height`, the newest one.
///
/// Nonces above the account's are accepted: they wait for their turn. A free action is tried out against the state.
///
/// # Errors
/// The outer [`ExecuteError`] when the state cannot be read; the inner [`AdmitError`] when it may not.
pub fn check(
    state: &dyn StateRead,
    genesis: GenesisHash,
    height: Height,
    transaction: &VerifiedTransaction,
) -> Result<Result<(), AdmitError>, ExecuteError> {
    let params = query::params(state)?;
    precheck(state, &params, genesis, height, transaction.transaction())
}

/// Says the same as [`check`] of a transaction whose signature nobody has looked at: what the state refuses need not be
/// verified. `params` are those in force after `height`.
///
/// A paying transaction costs one read, of its sender's account.
///
/// # Errors
/// As [`check`].
pub fn precheck(
    state: &dyn StateRead,
    params: &Params,
    genesis: GenesisHash,
    height: Height,
    body: &Transaction,
) -> Result<Result<(), AdmitError>, ExecuteError> {
    let next = height.next();
    let account = query::account(state, &body.sender)?;
    if body.nonce < account.nonce {
        let (sender, given, next) = (body.sender, body.nonce, account.nonce);
        return Ok(Err(AdmitError::Nonce { sender, given, next }));
    }
    if let Err(error) = may_enter(genesis, next, params, &account, body) {
        return Ok(Err(error));
    }
    if body.fee < params.fee_min {
        let mut book = Book::open(state, genesis, next)?;
        match rules::apply(&mut book, body) {
            Ok(()) => {}
            Err(Stop::Market(error)) => return Ok(Err(AdmitError::FreeFailure(error))),
            Err(stop) => return Err(stop.outside(next)),
        }
    }
    Ok(Ok(()))
}

fn is_free(book: &Book<'_>, body: &Transaction) -> bool {
    body.fee < book.params.fee_min
}

/// Checks what does not depend on the nonce.
fn may_enter(
    genesis: GenesisHash,
    height: Height,
    params: &Params,
    account: &Account,
    body: &Transaction,
) -> Result<(), AdmitError> {
    if body.genesis != genesis {
        return Err(AdmitError::ForeignNetwork { theirs: body.genesis, ours: genesis });
    }
    if body.valid_until < height {
        return Err(AdmitError::Expired { valid_until: body.valid_until, height });
    }
    if body.valid_until > height.plus(Blocks::new(VALID_UNTIL_BLOCKS_MAX)) {
        return Err(AdmitError::TooFarAhead { valid_until: body.valid_until, height });
    }
    let needed = fee::fee_due(&body.action, params);
    if body.fee < needed {
        return Err(AdmitError::FeeTooLow { fee: body.fee, needed });
    }
    if body.fee > account.balance {
        return Err(AdmitError::FeeUnpayable { fee: body.fee, balance: account.balance });
    }
    Ok(())
}

struct Run<'a> {
    book: Book<'a>,
    set: ValidatorSet,
    outcomes: Vec<Outcome>,
}

impl<'a> Run<'a> {
    fn begin(state: &'a dyn StateRead, context: &BlockContext<'_>) -> Result<Self, ExecuteError> {
        let mut book = Book::open(state, context.genesis, context.height)?;
        let set = book.set()?;
        if let Some((certificate, parent_set)) = context.parent_certificate {
            let members = parent_set.members().len();
            let signed = certificate.signed_by(members).ok_or(BlockError::Certificate { members })?;
            attendance::record(&mut book, parent_set, &signed)
                .map_err(|stop| stop.outside(context.height))?;
        }
        book.keep();
        Ok(Self { book, set, outcomes: Vec::new() })
    }

    /// Applies one transaction, or leaves everything as it was and says why it may not be in the block.
    fn apply(&mut self, transaction: &VerifiedTransaction) -> Result<Result<(), AdmitError>, ExecuteError> {
        let height = self.book.height;
        let body = transaction.transaction();
        let mut account = self.book.account(body.sender)?;
        if let Err(error) = may_enter(self.book.genesis, height, &self.book.params, &account, body) {
            return Ok(Err(error));
        }
        if body.nonce != account.nonce {
            let (sender, given, next) = (body.sender, body.nonce, account.nonce);
            return Ok(Err(AdmitError::Nonce { sender, given, next }));
        }
        account.nonce = account
            .nonce
            .checked_add(tiltyard_proto::units::Nonce::new(1))
            .ok_or(ExecuteError::Broken { height, fact: "a nonce overflows" })?;
        self.book.set_account(body.sender, account)?;
        let free = is_free(&self.book, body);
        self.book.debit(body.sender, Place::Burned, body.fee).map_err(|stop| stop.outside(height))?;
        if !free {
            // Nonce and fee stay, whatever becomes of the action.
            self.book.keep();
        }
        let result = match rules::apply(&mut self.book, body) {
            Ok(()) => {
                self.book.keep();
                Ok(())
            }
            Err(Stop::Market(error)) => {
                self.book.roll_back();
                if free {
                    return Ok(Err(AdmitError::FreeFailure(error)));
                }
                Err(error)
            }
            Err(stop) => return Err(stop.outside(height)),
        };
        self.outcomes.push(Outcome { id: transaction.id(), result });
        Ok(Ok(()))
    }

    fn finish(mut self, state: &dyn StateRead) -> Result<Executed, ExecuteError> {
        let height = self.book.height;
        let ended = phase::end_of_block(&mut self.book).and_then(|()| epoch::end_of_block(&mut self.book));
        ended.map_err(|stop| stop.outside(height))?;
        let next_set = self
            .book
            .set_at(height.next())?
            .ok_or(ExecuteError::Broken { height, fact: "the next validator set is missing" })?;
        let params = self.book.params.clone();
        let (values, events) = self.book.close().map_err(|stop| stop.outside(height))?;
        let changes = tree::update(state, values)?;
        Ok(Executed { changes, outcomes: self.outcomes, events, set: self.set, next_set, params })
    }
}
