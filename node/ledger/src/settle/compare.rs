//! When one model beats another: by enough, and not by luck.
//!
//! For medians m and d_i = m_b,i − m_a,i over n examples, S = Σd and Q = Σd²: *a beats b* iff S ≥ 1000·n and
//! S²·(n − 1) > 4·(n·Q − S²). That is a mean gap of at least 1e-3 nats and a paired t above 2, in integers: |d| ≤ 2^25
//! and n ≤ 2^10 keep every term below 2^81.
//!
//! Beating is transitive: means add up, and the spread of a sum is at most the sum of the spreads. Not beating is not:
//! a chain of ties can end in a defeat, which is why ranks are drawn one at a time.

/// Smallest mean gap, in micro-units.
const MEAN_GAP_MIN: i128 = 1_000;

/// How far one row lies below another, example by example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    count: i128,
    sum: i128,
    squares: i128,
}

impl Gap {
    /// Measures how much better `a` is than `b`.
    pub(super) fn of(a: &[u32], b: &[u32]) -> Self {
        let mut gap = Self { count: 0, sum: 0, squares: 0 };
        for (better, worse) in a.iter().zip(b) {
            let difference = i128::from(*worse).saturating_sub(i128::from(*better));
            gap.count = gap.count.saturating_add(1);
            gap.sum = gap.sum.saturating_add(difference);
            gap.squares = gap.squares.saturating_add(difference.saturating_mul(difference));
        }
        gap
    }

    /// Says whether `a` beats `b`.
    pub(super) fn beats(&self) -> bool {
        let square = self.sum.saturating_mul(self.sum);
        self.sum >= MEAN_GAP_MIN.saturating_mul(self.count)
            && square.saturating_mul(self.count.saturating_sub(1)) > self.spread().saturating_mul(4)
    }

    /// n·Q − S²: n² times the variance of the differences.
    fn spread(&self) -> i128 {
        let square = self.sum.saturating_mul(self.sum);
        self.count.saturating_mul(self.squares).saturating_sub(square)
    }

    /// Returns the mean gap, in micro-units, rounded down.
    pub(super) fn mean(&self) -> i64 {
        let mean = self.sum.checked_div_euclid(self.count).unwrap_or(0);
        i64::try_from(mean).unwrap_or(i64::MAX)
    }

    /// Returns the mean gap that would have beaten, given how far the differences spread, in micro-units.
    pub(super) fn needed(&self) -> i64 {
        let quotient = self.spread().saturating_mul(4).checked_div(self.count.saturating_sub(1));
        let Some(quotient) = quotient else {
            return i64::MAX;
        };
        let sum = quotient.checked_isqrt().unwrap_or(0).saturating_add(1);
        let above = sum.saturating_add(self.count.saturating_sub(1)).checked_div(self.count).unwrap_or(0);
        i64::try_from(above.max(MEAN_GAP_MIN)).unwrap_or(i64::MAX)
    }
}

/// Returns the sum of a row, in micro-units.
pub(super) fn total(scores: &[u32]) -> u64 {
    scores.iter().fold(0u64, |sum, score| sum.saturating_add(u64::from(*score)))
}

/// Returns how much lower `loss` is than `base`, in ppm of `base`, rounded down; `None` for a base of zero.
pub(super) fn gain_ppm(base: u64, loss: u64) -> Option<i64> {
    let lower = i128::from(base).saturating_sub(i128::from(loss));
    let gain = lower.saturating_mul(1_000_000).checked_div_euclid(i128::from(base))?;
    Some(i64::try_from(gain).unwrap_or(i64::MIN))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mean_gap_below_a_thousandth_never_beats() {
        assert!(!Gap::of(&[0; 8], &[999; 8]).beats());
        assert!(Gap::of(&[0; 8], &[1_000; 8]).beats());
        assert_eq!(Gap::of(&[0; 8], &[999; 8]).needed(), 1_000);
    }

    #[test]
    fn a_large_mean_from_one_example_does_not_beat() {
        let worse = [1_000_000, 0, 0, 0, 0, 0, 0, 0];
        let gap = Gap::of(&[0; 8], &worse);
        assert_eq!(gap.mean(), 125_000);
        assert!(!gap.beats(), "t is 1");
        assert!(gap.needed() > gap.mean());
    }

    #[test]
    fn one_example_beats_nobody() {
        assert!(!Gap::of(&[0], &[1 << 25]).beats());
        assert_eq!(Gap::of(&[0], &[1 << 25]).needed(), i64::MAX);
    }

    #[test]
    fn the_largest_rows_do_not_overflow() {
        let gap = Gap::of(&[0; 1_024], &[1 << 25; 1_024]);
        assert!(gap.beats());
        assert!(!Gap::of(&[1 << 25; 1_024], &[0; 1_024]).beats());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn beating_is_transitive_and_one_way(
            cells in proptest::collection::vec((0u32..9_000, 0u32..9_000, 0u32..9_000), 2..9)
        ) {
            let row = |pick: fn(&(u32, u32, u32)) -> u32| cells.iter().map(pick).collect::<Vec<_>>();
            let (a, b, c) = (row(|cell| cell.0), row(|cell| cell.1), row(|cell| cell.2));
            let beats = |a: &[u32], b: &[u32]| Gap::of(a, b).beats();
            prop_assert!(!(beats(&a, &b) && beats(&b, &a)));
            if beats(&a, &b) && beats(&b, &c) {
                prop_assert!(beats(&a, &c));
            }
        }
    }

    #[test]
    fn gains_round_down_and_may_be_losses() {
        assert_eq!(gain_ppm(3, 2), Some(333_333));
        assert_eq!(gain_ppm(3, 4), Some(-333_334));
        assert_eq!(gain_ppm(0, 4), None);
    }
}
