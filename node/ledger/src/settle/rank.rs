//! Who is eligible, who copied, and in which order: a total order over entrants (SPEC.md, "Ranking").

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::FileHash;
use tiltyard_proto::state::{Reason, TaskRules};
use tiltyard_proto::units::{Height, Ppm};

use super::compare::{Gap, gain_ppm, total};

/// What comes first of two commits: height, then a hash that nobody knew when it committed.
pub type Priority = (Height, [u8; 32]);

/// An entrant with scores.
#[derive(Debug, Clone)]
pub struct Scored {
    /// Whose it is.
    pub miner: PublicKey,
    /// Median score of each example, in micro-units.
    pub scores: Vec<u32>,
    /// What decides ties.
    pub priority: Priority,
    /// Hash of the file with the weights.
    pub weights: FileHash,
    /// Whether it is the unpaid reference entrant.
    pub reference: bool,
}

/// What ranking needs to know of the task.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Scores of the untouched base; their sum must not be zero.
    pub base: &'a [u32],
    /// Smallest gain over the base that is paid.
    pub min_gain: Ppm,
    /// Whether the kind's scores are continuous, so that close cells show a copy.
    pub continuous: bool,
    /// The parameters in force.
    pub rules: &'a TaskRules,
}

/// Where an entrant stands, in the order of the entrants given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stand {
    /// Rank from 1, if eligible.
    pub rank: Option<u8>,
    /// Why it stands there.
    pub reason: Reason,
}

/// Ranks the entrants; the base's total loss must not be zero.
pub fn rank(field: &[Scored], terms: &Terms<'_>) -> Vec<Stand> {
    let mut stands: Vec<Option<Stand>> = field
        .iter()
        .map(|entrant| exclude(entrant, field, terms).map(|reason| Stand { rank: None, reason }))
        .collect();
    let mut left: Vec<usize> =
        stands.iter().enumerate().filter(|(_, stand)| stand.is_none()).map(|(at, _)| at).collect();
    let mut overtaken: Option<(usize, usize)> = None;
    let mut next = 1u8;
    while let Some(draw) = draw(field, &left) {
        let reason = explain(field, &draw, overtaken, next);
        if let Some(stand) = stands.get_mut(draw.winner) {
            *stand = Some(Stand { rank: Some(next), reason });
        }
        overtaken = (draw.winner != draw.leader).then_some((draw.leader, draw.winner));
        left.retain(|at| *at != draw.winner);
        next = next.saturating_add(1);
    }
    stands.into_iter().map(|stand| stand.unwrap_or(NOT_DRAWN)).collect()
}

/// Never seen: every entrant is excluded or drawn.
const NOT_DRAWN: Stand = Stand { rank: None, reason: Reason::NotRevealed };

/// Says why an entrant is not ranked, if it is not.
fn exclude(entrant: &Scored, field: &[Scored], terms: &Terms<'_>) -> Option<Reason> {
    if entrant.reference {
        return Some(Reason::Reference);
    }
    let gain = gain_ppm(total(terms.base), total(&entrant.scores)).unwrap_or(i64::MIN);
    if gain < terms.min_gain.get() {
        return Some(Reason::BelowGain { gain: Ppm::new(gain), needed: terms.min_gain });
    }
    let gap = Gap::of(&entrant.scores, terms.base);
    if !gap.beats() {
        return Some(Reason::NotBetterThanBase { mean_gap: gap.mean(), needed: gap.needed() });
    }
    field
        .iter()
        .filter(|other| other.priority < entrant.priority)
        .filter_map(|other| copied(entrant, other, terms).map(|close| (other, close)))
        .min_by_key(|(other, _)| other.priority)
        .map(|(other, close)| Reason::Duplicate { of: other.miner, close })
}

/// Returns the share of cells that are the same if `entrant` is a copy of `other`.
fn copied(entrant: &Scored, other: &Scored, terms: &Terms<'_>) -> Option<Ppm> {
    let cells = entrant.scores.len();
    let reach = terms.rules.duplicate_micro_nats;
    let pairs = entrant.scores.iter().zip(&other.scores);
    let close = pairs.filter(|(a, b)| a.abs_diff(**b) <= reach).count();
    let share = close.saturating_mul(1_000_000).checked_div(cells).unwrap_or(0);
    let share = Ppm::new(i64::try_from(share).unwrap_or(i64::MAX));
    let same_file = entrant.weights == other.weights;
    (same_file || (terms.continuous && share >= terms.rules.duplicate_cells)).then_some(share)
}

/// One rank drawn: the lowest total left, and who takes the rank.
struct Draw {
    leader: usize,
    winner: usize,
}

/// The leader is the lowest total; among those it does not beat, itself included, the earliest takes the rank.
fn draw(field: &[Scored], left: &[usize]) -> Option<Draw> {
    let entrant = |at: &usize| field.get(*at);
    let leader = *left
        .iter()
        .min_by_key(|at| entrant(at).map(|entrant| (total(&entrant.scores), entrant.priority)))?;
    let ahead = entrant(&leader)?;
    let winner = *left
        .iter()
        .filter(|at| {
            **at == leader || entrant(at).is_some_and(|other| !Gap::of(&ahead.scores, &other.scores).beats())
        })
        .min_by_key(|at| entrant(at).map(|entrant| entrant.priority))?;
    Some(Draw { leader, winner })
}

fn explain(field: &[Scored], draw: &Draw, overtaken: Option<(usize, usize)>, rank: u8) -> Reason {
    let key = |at: usize| field.get(at).map_or(PublicKey::from_bytes([0; 32]), |entrant| entrant.miner);
    if draw.winner != draw.leader {
        return Reason::RankedByEarlierCommit { rank, leader: key(draw.leader) };
    }
    match overtaken {
        Some((leader, ahead)) if leader == draw.winner => {
            let scores = |at: usize| field.get(at).map_or(&[][..], |entrant| &entrant.scores);
            let gap = Gap::of(scores(leader), scores(ahead));
            Reason::TiedWithEarlier { rank, ahead: key(ahead), mean_gap: gap.mean(), needed: gap.needed() }
        }
        Some(_) | None => Reason::Ranked { rank },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tiltyard_proto::genesis::Params;

    use super::*;

    fn field(rows: &[Vec<u32>], heights: &[u64]) -> Vec<Scored> {
        (0u8..)
            .zip(rows.iter().zip(heights))
            .map(|(at, (scores, height))| Scored {
                miner: PublicKey::from_bytes([at; 32]),
                scores: scores.clone(),
                priority: (Height::new(*height), [at; 32]),
                weights: FileHash::from_bytes([at; 32]),
                reference: false,
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Ranks are 1 to k without gaps, the order in which entrants are listed decides nothing, and nobody stands
        /// ahead of an entrant that beats it and committed earlier.
        #[test]
        fn ranks_are_a_total_order_of_the_field(
            rows in proptest::collection::vec(proptest::collection::vec(0u32..9_000, 6), 1..8),
            heights in proptest::collection::vec(1u64..4, 8),
        ) {
            let rules = TaskRules::of(&Params::default_for(4));
            let base = [8_000; 6];
            let terms = Terms { base: &base, min_gain: Ppm::new(10_000), continuous: true, rules: &rules };
            let field = field(&rows, &heights);
            let stands = rank(&field, &terms);
            let mut ranks: Vec<u8> = stands.iter().filter_map(|stand| stand.rank).collect();
            ranks.sort_unstable();
            prop_assert!(ranks.iter().copied().eq(1..=u8::try_from(ranks.len()).expect("few")));
            let mut turned = field.clone();
            turned.reverse();
            let mut again = rank(&turned, &terms);
            again.reverse();
            prop_assert_eq!(&stands, &again);
            for (one, stand) in field.iter().zip(&stands) {
                for (other, place) in field.iter().zip(&stands) {
                    if let (Some(ahead), Some(behind)) = (stand.rank, place.rank)
                        && ahead < behind
                        && other.priority < one.priority
                    {
                        prop_assert!(!Gap::of(&other.scores, &one.scores).beats());
                    }
                }
            }
        }

        /// A row that is copied cell by cell, or within the tolerance, earns its owner no rank of its own.
        #[test]
        fn a_later_copy_is_never_ranked(scores in proptest::collection::vec(0u32..4_000, 200), noise in 0u32..=20) {
            let rules = TaskRules::of(&Params::default_for(4));
            let base = vec![8_000; 200];
            let terms = Terms { base: &base, min_gain: Ppm::new(0), continuous: true, rules: &rules };
            let copy: Vec<u32> = scores.iter().map(|score| score.saturating_sub(noise)).collect();
            let stands = rank(&field(&[scores, copy], &[1, 2]), &terms);
            prop_assert_eq!(stands.first().and_then(|stand| stand.rank), Some(1));
            let is_copy = matches!(stands.last().map(|stand| stand.reason), Some(Reason::Duplicate { .. }));
            prop_assert!(is_copy);
        }
    }
}
