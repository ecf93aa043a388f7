//! Typed outcomes in plain words, the same in the API, the command line and the log.

use tiltyard_proto::recipe::{Recipe, Strategy};
use tiltyard_proto::score::Fault;
use tiltyard_proto::state::{BondFate, KeyDefault, Phase, Reason, RefundCause, Standing};
use tiltyard_proto::units::Ppm;

/// The one word for a phase.
pub(crate) const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Accepting => "accepting",
        Phase::Committing => "committing",
        Phase::Revealing => "revealing",
        Phase::Holding => "holding",
        Phase::KeyOpening => "key-opening",
        Phase::ScoreCommitting => "score-committing",
        Phase::ScoreOpening => "score-opening",
        Phase::Settled => "settled",
        Phase::Refunded(_) => "refunded",
    }
}

/// Why a task ended without payout.
pub(crate) fn refund_cause(cause: RefundCause) -> String {
    let words = match cause {
        RefundCause::Cancelled => "withdrawn by the requester before it opened",
        RefundCause::NotAccepted => "not accepted by more than 2/3 of the stake",
        RefundCause::NoCommits => "no commit at the deadline",
        RefundCause::NoEntrants => "no entrant revealed and was held",
        RefundCause::NotJudged => "not more than 2/3 of the committee opened all scores",
        RefundCause::BaseLossZero => "the untouched base has no measurable loss",
        RefundCause::KeyDefault(KeyDefault::Absent) => {
            "the requester did not open the evaluation key in time; the rest of the pot is burned"
        }
        RefundCause::KeyDefault(KeyDefault::Early) => {
            "the requester opened the evaluation key early; the rest of the pot is burned"
        }
        RefundCause::KeyDefault(KeyDefault::Wrong) => {
            "the requester opened a wrong evaluation key; the rest of the pot is burned"
        }
        RefundCause::EvaluationUnusable => {
            "the evaluation set was judged unusable; the rest of the pot is burned"
        }
        RefundCause::BaseFaulty(found) => {
            return format!("the untouched base could not be scored: {}", fault(found));
        }
    };
    words.to_owned()
}

/// What is wrong with a checkpoint.
pub(crate) const fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Unavailable => "bytes not available",
        Fault::Malformed => "files malformed",
        Fault::WrongBase => "does not fit the task's base",
        Fault::OverLimits => "over the limits",
        Fault::NotFinite => "numbers that are not finite",
        Fault::Crashed => "evaluation ended without result",
        Fault::OutOfResources => "evaluation took too much time or memory",
        Fault::EvaluationUnusable => "evaluation set unusable",
    }
}

fn percent(share: Ppm) -> String {
    format!("{:+.2} %", share.get() as f64 / 10_000.0)
}

fn nats(micro: i64) -> String {
    format!("{:.4}", micro as f64 / 1e6)
}

/// Why an entrant stands where it stands, with the numbers that decided it.
pub(crate) fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Ranked { rank } => format!("ranked {rank}"),
        Reason::RankedByEarlierCommit { rank, leader } => {
            format!("ranked {rank}: tied with {} and committed earlier", leader.short())
        }
        Reason::TiedWithEarlier { rank, ahead, mean_gap, needed } => format!(
            "ranked {rank}: tied with an earlier commit of {}: mean gap {}, needed {}",
            ahead.short(),
            nats(*mean_gap),
            nats(*needed)
        ),
        Reason::BelowGain { gain, needed } => {
            format!("gain {} is below the task's {}", percent(*gain), percent(*needed))
        }
        Reason::NotBetterThanBase { mean_gap, needed } => format!(
            "not better than the untouched base: mean gap {}, needed {}",
            nats(*mean_gap),
            nats(*needed)
        ),
        Reason::Duplicate { of, close } => {
            format!("a copy of {}: {} of the scores are the same", of.short(), percent(*close))
        }
        Reason::Faulty { fault: found } => format!("faulty: {}", fault(*found)),
        Reason::NotRevealed => "committed but did not reveal".to_owned(),
        Reason::NotHeld { held, total } => {
            format!("bytes held by {held} of {total} stake, not more than 1/3: bond burned")
        }
        Reason::HeldByTooFew { held, total } => {
            format!("bytes held by {held} of {total} stake, not more than 2/3")
        }
        Reason::NoVerdict { cause } => format!("no verdict: {}", refund_cause(*cause)),
        Reason::Reference => "unpaid reference entrant".to_owned(),
    }
}

/// What became of a bond.
pub(crate) fn bond(fate: BondFate) -> String {
    match fate {
        BondFate::None => "none".to_owned(),
        BondFate::Returned(amount) => format!("{amount} returned"),
        BondFate::Burned(amount) => format!("{amount} burned"),
    }
}

/// Whether a validator may vote.
pub(crate) fn standing(standing: Standing) -> String {
    match standing {
        Standing::Active => "active".to_owned(),
        Standing::Jailed { until } => format!("jailed until {until}"),
        Standing::Tombstoned => "tombstoned".to_owned(),
    }
}

/// How a recipe was chosen.
pub(crate) fn strategy(recipe: &Recipe) -> String {
    match &recipe.strategy {
        Strategy::Fixed(name) => format!("fixed:{name}"),
        Strategy::Search => "search".to_owned(),
        Strategy::Learned => "learned".to_owned(),
        Strategy::External(name) => format!("external:{name}"),
    }
}
