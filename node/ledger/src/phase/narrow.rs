//! Who is out before anything is scored: those that did not reveal, and those whose bytes the committee could not get.

use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;
use tiltyard_proto::hash::{context, derive};
use tiltyard_proto::ids::{RecipeHash, TaskId};
use tiltyard_proto::state::{
    BondFate, EntrantRecord, EntrantStage, EntrantVerdict, Reason, Reveal, StateKey, TaskRecord,
};
use tiltyard_proto::units::{MicroCredits, Stake};
use tiltyard_proto::validators::{Validator, more_than_two_thirds};

use crate::book::Book;
use crate::error::Stop;
use crate::totals::Place;

/// Returns a listed entrant's record.
pub(crate) fn entrant(book: &mut Book<'_>, task: TaskId, miner: PublicKey) -> Result<EntrantRecord, Stop> {
    book.get(StateKey::Entrant(task, miner))?.ok_or(Stop::Broken("a listed entrant has no record"))
}

/// Says whether an entrant is left that can be paid.
pub(super) fn has_racer(book: &mut Book<'_>, task: TaskId, record: &TaskRecord) -> Result<bool, Stop> {
    for miner in &record.entrants {
        if !entrant(book, task, *miner)?.reference {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn drop_unrevealed(
    book: &mut Book<'_>,
    task: TaskId,
    record: &mut TaskRecord,
) -> Result<(), Stop> {
    for miner in record.entrants.clone() {
        let entry = entrant(book, task, miner)?;
        match &entry.stage {
            EntrantStage::Committed => put_out(book, task, record, miner, &entry, Reason::NotRevealed, true)?,
            EntrantStage::Revealed(_) | EntrantStage::Standing(_) => {}
        }
    }
    Ok(())
}

pub(super) fn drop_unheld(book: &mut Book<'_>, task: TaskId, record: &mut TaskRecord) -> Result<(), Stop> {
    let committee: Vec<Validator> = book.get(StateKey::Committee(task))?.unwrap_or_default();
    let total = record.committee_stake;
    for miner in record.entrants.clone() {
        let mut entry = entrant(book, task, miner)?;
        let reveal = match &entry.stage {
            EntrantStage::Revealed(reveal) | EntrantStage::Standing(reveal) => reveal.clone(),
            EntrantStage::Committed => return Err(Stop::Broken("an entrant is being held without reveal")),
        };
        let held = committee
            .iter()
            .filter(|member| reveal.held_by.binary_search(&member.key).is_ok())
            .fold(Stake::ZERO, |sum, member| sum.saturating_add(member.stake));
        if more_than_two_thirds(held, total) {
            entry.stage = EntrantStage::Standing(reveal);
            book.put(StateKey::Entrant(task, miner), entry)?;
        } else if u128::from(held.get()).saturating_mul(3) < u128::from(total.get()) {
            put_out(book, task, record, miner, &entry, Reason::NotHeld { held, total }, true)?;
        } else {
            put_out(book, task, record, miner, &entry, Reason::HeldByTooFew { held, total }, false)?;
        }
    }
    Ok(())
}

/// Ends an entry before its task ends: its verdict is written now.
fn put_out(
    book: &mut Book<'_>,
    task: TaskId,
    record: &mut TaskRecord,
    miner: PublicKey,
    entry: &EntrantRecord,
    reason: Reason,
    burn: bool,
) -> Result<(), Stop> {
    let mut verdict = unscored(miner, entry, reason);
    if entry.bond > MicroCredits::ZERO {
        if burn {
            book.shift(Place::Bonds, Place::Burned, entry.bond)?;
            verdict.bond = BondFate::Burned(entry.bond);
        } else {
            book.credit(Place::Bonds, miner, entry.bond)?;
        }
    }
    book.remove::<EntrantRecord>(StateKey::Entrant(task, miner))?;
    book.put(StateKey::EntrantVerdict(task, miner), verdict)?;
    record.entrants.retain(|key| *key != miner);
    if let Err(at) = record.out.binary_search(&miner) {
        record.out.insert(at, miner);
    }
    Ok(())
}

/// Returns the verdict of an entry without scores, its bond returned.
pub(crate) fn unscored(miner: PublicKey, entry: &EntrantRecord, reason: Reason) -> EntrantVerdict {
    let reveal = reveal_of(entry);
    let recipe: Option<ByteBuf> = reveal.map(|reveal| reveal.recipe.clone());
    EntrantVerdict {
        miner,
        committed_at: entry.committed_at,
        manifest: reveal.map(|reveal| reveal.manifest),
        mean: None,
        gain: None,
        reference_gain: None,
        rank: None,
        reason,
        reward: MicroCredits::ZERO,
        bond: if entry.bond > MicroCredits::ZERO { BondFate::Returned(entry.bond) } else { BondFate::None },
        recipe_hash: recipe
            .as_ref()
            .map(|bytes| RecipeHash::from_bytes(derive(context::RECIPE, &[bytes.as_slice()]))),
        recipe,
    }
}

/// Returns what an entry revealed.
pub(crate) const fn reveal_of(entry: &EntrantRecord) -> Option<&Reveal> {
    match &entry.stage {
        EntrantStage::Committed => None,
        EntrantStage::Revealed(reveal) | EntrantStage::Standing(reveal) => Some(reveal),
    }
}
