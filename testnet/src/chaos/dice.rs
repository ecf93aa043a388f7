//! Random numbers that a seed and a purpose fix.

use crate::run::plan::Seed;

/// A stream of numbers: the hash of seed, purpose and position.
#[derive(Debug, Clone)]
pub(super) struct Dice {
    seed: Seed,
    purpose: String,
    drawn: u64,
}

impl Dice {
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        Self { seed: Seed(seed), purpose: format!("chaos/{purpose}"), drawn: 0 }
    }

    /// Returns a number below `end`; 0 when it is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.drawn += 1;
        self.seed.below(&format!("{}/{}", self.purpose, self.drawn), end)
    }

    /// Returns a number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Returns an index below `length`; 0 when it is 0.
    pub(super) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// Draws `count` of the numbers below `length`, sorted.
    pub(super) fn some(&mut self, count: usize, length: usize) -> Vec<usize> {
        let mut left: Vec<usize> = (0..length).collect();
        let mut out: Vec<usize> =
            (0..count.min(length)).map(|_| left.remove(self.index(left.len()))).collect();
        out.sort_unstable();
        out
    }
}
