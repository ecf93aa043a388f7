//! `Commit`: a miner enters with a bond, a stamp or the reference recipe, or replaces its commit.
//!
//! When all places are taken, entrants without bond yield first (the newest of them), then the lowest bond (the newest
//! of equals) to one at least twice as high. The reference entrant, at most one a task, is never evicted.

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::{Commitment, TaskId};
use tiltyard_proto::state::{EntrantRecord, EntrantStage, Phase, StateKey, TaskRecord};
use tiltyard_proto::units::{Height, MicroCredits};

use crate::book::Book;
use crate::error::{MarketError, Stop};
use crate::event::LedgerEvent;
use crate::stamp;
use crate::totals::Place;

/// What a miner offers.
pub(super) struct Offer {
    pub(super) commitment: Commitment,
    pub(super) bond: MicroCredits,
    pub(super) stamp: Option<u64>,
    pub(super) reference: bool,
    pub(super) fee: MicroCredits,
}

/// The three ways in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Bonded,
    Stamped(u64),
    Reference,
}

impl Offer {
    fn sort(&self) -> Result<Sort, MarketError> {
        match (self.bond > MicroCredits::ZERO, self.stamp, self.reference) {
            (true, None, false) => Ok(Sort::Bonded),
            (false, Some(stamp), false) => Ok(Sort::Stamped(stamp)),
            (false, None, true) => Ok(Sort::Reference),
            (true, _, true) | (true, Some(_), false) | (false, Some(_), true) | (false, None, false) => {
                Err(MarketError::CommitForm)
            }
        }
    }
}

pub(super) fn apply(book: &mut Book<'_>, miner: PublicKey, task: TaskId, offer: &Offer) -> Result<(), Stop> {
    let mut record = book.task_in(task, Phase::Committing, |record| record.deadlines.commit)?;
    let sort = offer.sort()?;
    if sort != Sort::Reference && miner == record.requester {
        return Err(MarketError::RequesterEnters.into());
    }
    if sort == Sort::Bonded && offer.bond < record.spec.bond {
        return Err(MarketError::BondTooLow { bond: offer.bond, needed: record.spec.bond }.into());
    }
    if let Sort::Stamped(stamp) = sort {
        let bits = stamp::work_bits(&book.genesis, &task, &miner, stamp);
        if bits < u32::from(record.rules.stamp_bits) {
            return Err(MarketError::StampInvalid { bits, needed: record.rules.stamp_bits }.into());
        }
    }
    match book.get::<EntrantRecord>(StateKey::Entrant(task, miner))? {
        Some(before) => {
            check_replacement(book, offer, &before)?;
            book.credit(Place::Bonds, miner, before.bond)?;
        }
        None => enter(book, miner, task, &mut record, sort, offer)?,
    }
    book.debit(miner, Place::Bonds, offer.bond)?;
    let entry = EntrantRecord {
        commitment: offer.commitment,
        committed_at: book.height,
        bond: offer.bond,
        reference: offer.reference,
        stage: EntrantStage::Committed,
    };
    book.put(StateKey::Entrant(task, miner), entry)?;
    book.set_task(task, record)?;
    book.event(LedgerEvent::Committed { task, miner });
    Ok(())
}

/// A new commit in place of the old one; its priority starts anew with its height.
fn check_replacement(book: &Book<'_>, offer: &Offer, before: &EntrantRecord) -> Result<(), MarketError> {
    if before.commitment == offer.commitment {
        return Err(MarketError::CommitUnchanged);
    }
    let same = before.reference == offer.reference && offer.bond >= before.bond;
    if !same {
        return Err(MarketError::CommitSort);
    }
    if offer.fee < book.params.fee_min {
        return Err(MarketError::ReplacementFee { needed: book.params.fee_min });
    }
    Ok(())
}

fn enter(
    book: &mut Book<'_>,
    miner: PublicKey,
    task: TaskId,
    record: &mut TaskRecord,
    sort: Sort,
    offer: &Offer,
) -> Result<(), Stop> {
    let field = Field::read(book, task, record)?;
    match sort {
        Sort::Bonded => {}
        Sort::Stamped(_) => {
            if field.unbonded >= usize::from(record.spec.unbonded_max) {
                return Err(MarketError::UnbondedFull { max: record.spec.unbonded_max }.into());
            }
        }
        Sort::Reference => {
            if record.spec.reference.is_none() {
                return Err(MarketError::NoReference.into());
            }
            if let Some(holder) = field.reference {
                return Err(MarketError::ReferenceTaken { miner: holder }.into());
            }
        }
    }
    if record.entrants.len() >= usize::from(record.spec.entrants_max) {
        make_room(book, miner, task, record, &field, offer.bond)?;
    }
    if let Err(at) = record.entrants.binary_search(&miner) {
        record.entrants.insert(at, miner);
    }
    Ok(())
}

/// Who holds the places.
struct Field {
    unbonded: usize,
    reference: Option<PublicKey>,
    /// Who yields first: lowest bond, then newest commit, then highest key.
    weakest: Option<(MicroCredits, PublicKey)>,
}

impl Field {
    fn read(book: &mut Book<'_>, task: TaskId, record: &TaskRecord) -> Result<Self, Stop> {
        let mut field = Self { unbonded: 0, reference: None, weakest: None };
        let mut weakest: Option<(MicroCredits, Height, PublicKey)> = None;
        for miner in &record.entrants {
            let entry: EntrantRecord = book
                .get(StateKey::Entrant(task, *miner))?
                .ok_or(Stop::Broken("a listed entrant has no record"))?;
            if entry.reference {
                field.reference = Some(*miner);
                continue;
            }
            if entry.bond == MicroCredits::ZERO {
                field.unbonded = field.unbonded.saturating_add(1);
            }
            let yields = weakest.is_none_or(|(bond, at, key)| {
                entry.bond < bond || (entry.bond == bond && (entry.committed_at, *miner) > (at, key))
            });
            if yields {
                weakest = Some((entry.bond, entry.committed_at, *miner));
            }
        }
        field.weakest = weakest.map(|(bond, _, miner)| (bond, miner));
        Ok(field)
    }
}

fn make_room(
    book: &mut Book<'_>,
    by: PublicKey,
    task: TaskId,
    record: &mut TaskRecord,
    field: &Field,
    bond: MicroCredits,
) -> Result<(), Stop> {
    let stop = record.deadlines.commit.get().saturating_sub(record.rules.eviction_stop.get());
    let until = Height::new(stop);
    let (lowest, miner) = field.weakest.ok_or(MarketError::Full { needed: MicroCredits::MAX, until })?;
    let needed = MicroCredits::new(lowest.get().saturating_mul(2).max(record.spec.bond.get()));
    if bond < needed || book.height > until {
        return Err(MarketError::Full { needed, until }.into());
    }
    book.credit(Place::Bonds, miner, lowest)?;
    book.remove::<EntrantRecord>(StateKey::Entrant(task, miner))?;
    record.entrants.retain(|key| *key != miner);
    book.event(LedgerEvent::Evicted { task, miner, by });
    Ok(())
}
