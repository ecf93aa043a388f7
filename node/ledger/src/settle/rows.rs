//! From opened rows to one row per entrant: a fault by more than half of the opened weight, else weighted medians.

use tiltyard_proto::score::{Fault, Row};
use tiltyard_proto::units::Stake;
use tiltyard_proto::validators::more_than_half;

/// What the committee says of one entrant, or of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// One score per example, in micro-units.
    Scores(Vec<u32>),
    /// No scores, and why.
    Fault(Fault),
}

/// One judge's row with the judge's weight.
pub(super) type Voice<'a> = (Stake, &'a Row);

/// Draws the verdict on one row from the voices of all judges that opened everything.
pub(super) fn judge_row(voices: &[Voice<'_>], examples: usize) -> Judged {
    let opened = weigh(voices, |_| true);
    let faulty = weigh(voices, |row| matches!(row, Row::Fault(_)));
    if more_than_half(faulty, opened) {
        return Judged::Fault(leading_fault(voices));
    }
    let numeric = weigh(voices, |row| matches!(row, Row::Scores(_)));
    let mut cells: Vec<(u32, u64)> = Vec::with_capacity(voices.len());
    let mut medians = Vec::with_capacity(examples);
    for example in 0..examples {
        cells.clear();
        for (stake, row) in voices {
            if let Row::Scores(scores) = row
                && let Some(score) = scores.get(example)
            {
                cells.push((score.get(), stake.get()));
            }
        }
        medians.push(weighted_median(&mut cells, numeric));
    }
    Judged::Scores(medians)
}

/// Returns the weight of the voices that say so.
pub(super) fn weigh(voices: &[Voice<'_>], says: impl Fn(&Row) -> bool) -> Stake {
    voices.iter().filter(|(_, row)| says(row)).fold(Stake::ZERO, |sum, (stake, _)| sum.saturating_add(*stake))
}

/// Returns the fault with the largest weight; of equals, the first in the order of faults.
fn leading_fault(voices: &[Voice<'_>]) -> Fault {
    let mut leader = (Stake::ZERO, Fault::Unavailable);
    for fault in Fault::ALL {
        let weight = weigh(voices, |row| *row == Row::Fault(fault));
        if weight > leader.0 {
            leader = (weight, fault);
        }
    }
    leader.1
}

/// Returns the smallest value whose cumulative weight reaches half of `whole`.
fn weighted_median(cells: &mut [(u32, u64)], whole: Stake) -> u32 {
    cells.sort_unstable();
    let mut below = 0u128;
    for (value, weight) in cells.iter() {
        below = below.saturating_add(u128::from(*weight));
        if below.saturating_mul(2) >= u128::from(whole.get()) {
            return *value;
        }
    }
    cells.last().map_or(0, |(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiltyard_proto::score::MicroNats;

    /// `3:10,20` is a judge of stake 3 with scores 10 and 20; `2:crashed` one that says so.
    fn verdict(text: &str) -> String {
        let rows: Vec<(Stake, Row)> = text
            .split_whitespace()
            .map(|voice| {
                let (stake, row) = voice.split_once(':').expect("stake:row");
                let row = match row {
                    "crashed" => Row::Fault(Fault::Crashed),
                    "wrong-base" => Row::Fault(Fault::WrongBase),
                    numbers => Row::Scores(
                        numbers.split(',').map(|n| MicroNats::clamped(n.parse().expect("score"))).collect(),
                    ),
                };
                (Stake::new(stake.parse().expect("stake")), row)
            })
            .collect();
        let voices: Vec<Voice<'_>> = rows.iter().map(|(stake, row)| (*stake, row)).collect();
        match judge_row(&voices, 2) {
            Judged::Scores(scores) => format!("{scores:?}"),
            Judged::Fault(fault) => format!("{fault:?}"),
        }
    }

    #[test]
    fn the_median_is_the_smallest_value_that_reaches_half_of_the_stake() {
        assert_eq!(verdict("1:1,9 1:2,8 1:3,7"), "[2, 8]");
        assert_eq!(verdict("1:1,9 5:2,8 1:3,7"), "[2, 8]");
        assert_eq!(verdict("7:1,9 1:2,8 1:3,7"), "[1, 9]");
    }

    #[test]
    fn an_even_split_of_stake_takes_the_lower_value() {
        assert_eq!(verdict("1:10,40 1:20,30"), "[10, 30]");
        assert_eq!(verdict("2:10,40 1:20,30 1:30,20"), "[10, 30]");
    }

    #[test]
    fn less_than_half_of_the_stake_moves_no_cell_beyond_the_others() {
        assert_eq!(verdict("49:0,33000000 51:20,30"), "[20, 30]");
    }

    #[test]
    fn a_fault_needs_more_than_half_of_the_opened_weight() {
        assert_eq!(verdict("1:crashed 1:5,6"), "[5, 6]");
        assert_eq!(verdict("2:crashed 1:5,6"), "Crashed");
        assert_eq!(verdict("1:crashed 1:wrong-base 1:5,6"), "WrongBase");
        assert_eq!(verdict("2:crashed 1:wrong-base 1:5,6"), "Crashed");
    }

    #[test]
    fn faulty_rows_do_not_weigh_in_the_medians() {
        assert_eq!(verdict("4:crashed 3:5,6 2:9,9"), "[5, 6]");
    }
}
