//! Ends a task: pays everyone, writes the verdict, and removes what only a live task needs.

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::{MerkleRoot, TaskId};
use tiltyard_proto::state::{
    BondFate, EntrantRecord, EntrantVerdict, JudgeRecord, KeyDefault, Phase, Reason, RefundCause, StateKey,
    TaskRecord, ValidatorRecord, Verdict,
};
use tiltyard_proto::units::MicroCredits;
use tiltyard_proto::validators::Validator;

use super::narrow::{entrant, reveal_of, unscored};
use crate::book::Book;
use crate::error::Stop;
use crate::event::LedgerEvent;
use crate::settle::money::{portion, share};
use crate::totals::Place;

/// How a task ends. The pot is exactly rewards + judges' pay + returned + burned.
pub(crate) struct Ending {
    pub(crate) phase: Phase,
    pub(crate) base_mean: Option<u64>,
    pub(crate) reference_mean: Option<u64>,
    /// Entrants that were in to the end: ranked first, by rank.
    pub(crate) entrants: Vec<EntrantVerdict>,
    /// Members whose work counted, and their pay, sorted by key.
    pub(crate) judges: Vec<(PublicKey, MicroCredits)>,
    pub(crate) returned: MicroCredits,
    pub(crate) burned: MicroCredits,
    pub(crate) rows_root: MerkleRoot,
}

impl Ending {
    /// Makes an ending without scores: everybody's bond returns.
    pub(crate) fn without_verdict(
        book: &mut Book<'_>,
        task: TaskId,
        record: &TaskRecord,
        cause: RefundCause,
    ) -> Result<Self, Stop> {
        let mut entrants = Vec::with_capacity(record.entrants.len());
        for miner in &record.entrants {
            let entry = entrant(book, task, *miner)?;
            entrants.push(unscored(*miner, &entry, Reason::NoVerdict { cause }));
        }
        Ok(Self {
            phase: Phase::Refunded(cause),
            base_mean: None,
            reference_mean: None,
            entrants,
            judges: Vec::new(),
            returned: MicroCredits::ZERO,
            burned: MicroCredits::ZERO,
            rows_root: MerkleRoot::from_bytes([0; 32]),
        })
    }
}

/// Gives the whole pot back: nobody is to blame, or nobody can be proved to be.
pub(crate) fn refund(
    book: &mut Book<'_>,
    task: TaskId,
    record: TaskRecord,
    cause: RefundCause,
) -> Result<(), Stop> {
    let mut ending = Ending::without_verdict(book, task, &record, cause)?;
    ending.returned = record.spec.pot;
    close(book, task, record, ending)
}

/// The requester failed with the key: those judges that fetched the bytes are paid, the rest of the pot is burned.
///
/// If it were returned, a requester could take the published adapters and default.
pub(super) fn key_default(
    book: &mut Book<'_>,
    task: TaskId,
    record: TaskRecord,
    default: KeyDefault,
) -> Result<(), Stop> {
    let committee: Vec<Validator> = book.get(StateKey::Committee(task))?.unwrap_or_default();
    let mut holders = Vec::new();
    for miner in &record.entrants {
        if let Some(reveal) = reveal_of(&entrant(book, task, *miner)?) {
            holders.extend_from_slice(&reveal.held_by);
        }
    }
    let pool = share(record.spec.pot, record.rules.judges);
    let judges: Vec<_> = committee
        .iter()
        .filter(|member| holders.contains(&member.key))
        .map(|member| (member.key, portion(pool, member.stake.get(), record.committee_stake.get())))
        .collect();
    let mut ending = Ending::without_verdict(book, task, &record, RefundCause::KeyDefault(default))?;
    ending.burned = record.spec.pot.saturating_sub(sum(judges.iter().map(|(_, pay)| *pay)));
    ending.judges = judges;
    close(book, task, record, ending)
}

pub(crate) fn sum(amounts: impl IntoIterator<Item = MicroCredits>) -> MicroCredits {
    amounts.into_iter().fold(MicroCredits::ZERO, MicroCredits::saturating_add)
}

/// Moves the money, writes the verdicts, tidies up.
pub(crate) fn close(
    book: &mut Book<'_>,
    task: TaskId,
    mut record: TaskRecord,
    ending: Ending,
) -> Result<(), Stop> {
    let pot = record.spec.pot;
    let paid_miners = sum(ending.entrants.iter().map(|entrant| entrant.reward));
    let paid_judges = sum(ending.judges.iter().map(|(_, pay)| *pay));
    if sum([paid_miners, paid_judges, ending.returned, ending.burned]) != pot {
        return Err(Stop::Broken("a pot is not shared out exactly"));
    }
    pay(book, &record, &ending)?;
    let committee: Vec<Validator> = book.get(StateKey::Committee(task))?.unwrap_or_default();
    let listed = list_entrants(&ending.entrants, &record.out);
    for verdict in ending.entrants {
        let miner = verdict.miner;
        book.remove::<EntrantRecord>(StateKey::Entrant(task, miner))?;
        book.put(StateKey::EntrantVerdict(task, miner), verdict)?;
    }
    dismiss(book, task, &committee)?;
    let verdict = Verdict {
        phase: ending.phase,
        settled_at: book.height,
        requester: record.requester,
        pot,
        base_mean: ending.base_mean,
        reference_mean: ending.reference_mean,
        examples: record.spec.evaluation.examples,
        entrants: listed,
        paid_miners,
        paid_judges,
        returned: ending.returned,
        burned: ending.burned,
        rows_root: ending.rows_root,
        key: record.key,
        judges: ending.judges,
        committee,
    };
    book.put(StateKey::Verdict(task), verdict)?;
    let mut live: Vec<TaskId> = book.get(StateKey::LiveTasks)?.unwrap_or_default();
    live.retain(|other| *other != task);
    book.put(StateKey::LiveTasks, live)?;
    record.phase = ending.phase;
    record.accepted = Vec::new();
    record.entrants = Vec::new();
    record.out = Vec::new();
    book.set_task(task, record)?;
    book.event(LedgerEvent::TaskPhase { task, phase: ending.phase });
    Ok(())
}

fn pay(book: &mut Book<'_>, record: &TaskRecord, ending: &Ending) -> Result<(), Stop> {
    for verdict in &ending.entrants {
        book.credit(Place::Escrow, verdict.miner, verdict.reward)?;
        match verdict.bond {
            BondFate::None => {}
            BondFate::Returned(bond) => book.credit(Place::Bonds, verdict.miner, bond)?,
            BondFate::Burned(bond) => book.shift(Place::Bonds, Place::Burned, bond)?,
        }
    }
    for (judge, amount) in &ending.judges {
        let validator: Option<ValidatorRecord> = book.get(StateKey::Validator(*judge))?;
        let payout = validator.map_or(*judge, |validator| validator.payout);
        book.credit(Place::Escrow, payout, *amount)?;
    }
    book.credit(Place::Escrow, record.requester, ending.returned)?;
    book.shift(Place::Escrow, Place::Burned, ending.burned)
}

/// Lists ranked entrants by rank, then all others by key.
fn list_entrants(entrants: &[EntrantVerdict], out: &[PublicKey]) -> Vec<PublicKey> {
    let mut ranked: Vec<_> =
        entrants.iter().filter_map(|entrant| entrant.rank.map(|rank| (rank, entrant.miner))).collect();
    ranked.sort_unstable();
    let mut others: Vec<_> = entrants
        .iter()
        .filter(|entrant| entrant.rank.is_none())
        .map(|entrant| entrant.miner)
        .chain(out.iter().copied())
        .collect();
    others.sort_unstable();
    ranked.into_iter().map(|(_, miner)| miner).chain(others).collect()
}

/// Frees the committee's stake and removes its working entries.
fn dismiss(book: &mut Book<'_>, task: TaskId, committee: &[Validator]) -> Result<(), Stop> {
    for member in committee {
        if let Some(mut validator) = book.get::<ValidatorRecord>(StateKey::Validator(member.key))? {
            validator.duties = validator.duties.saturating_sub(1);
            book.put(StateKey::Validator(member.key), validator)?;
        }
        let key = StateKey::Judge(task, member.key);
        if let Some(judge) = book.get::<JudgeRecord>(key)? {
            for row in judge.opened {
                book.remove::<serde_bytes::ByteBuf>(StateKey::OpenedRow(task, member.key, row))?;
            }
            book.remove::<JudgeRecord>(key)?;
        }
    }
    Ok(book.remove::<Vec<Validator>>(StateKey::Committee(task))?)
}
