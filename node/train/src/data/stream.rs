//! The order in which rows are trained on: shuffled epochs, cut into steps.
//!
//! The order is a function of the seed and the step number, so a restarted run goes
//! on with the rows it would have seen.

use crate::rng::{Rng, mix};

/// How rows make a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepShape {
    /// Blocks in a step: rows, or packed groups of rows.
    pub blocks: usize,
    /// Tokens that fit a packed block; `None` when every block is one row.
    pub packed_tokens: Option<usize>,
    /// Steps whose rows are sorted by length together; 1 sorts nothing.
    pub bucket_steps: usize,
}

/// An endless stream of steps over a set of rows.
#[derive(Debug, Clone)]
pub struct Stream {
    lengths: Vec<usize>,
    seed: u64,
    shape: StepShape,
    epoch: u64,
    order: Vec<usize>,
    at: usize,
}

impl Stream {
    /// Starts at the first step over rows of these lengths, in tokens.
    pub fn new(lengths: Vec<usize>, seed: u64, shape: StepShape) -> Self {
        let mut stream = Self { lengths, seed, shape, epoch: 0, order: Vec::new(), at: 0 };
        stream.order = stream.shuffled();
        stream
    }

    fn shuffled(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.lengths.len()).collect();
        let mut rng = Rng::new(mix(self.seed) ^ mix(self.epoch));
        rng.shuffle(&mut order);
        match self.shape.bucket_steps {
            0 | 1 => order,
            steps => self.bucketed(&order, steps, &mut rng),
        }
    }

    /// Sorts the rows of every `steps` steps by length, then shuffles the steps, so that the
    /// rows of a step are about equally long.
    fn bucketed(&self, order: &[usize], steps: usize, rng: &mut Rng) -> Vec<usize> {
        let blocks = self.shape.blocks.max(1);
        let mut sorted = Vec::with_capacity(order.len());
        for window in order.chunks(steps.saturating_mul(blocks)) {
            let mut window = window.to_vec();
            window.sort_by_key(|&row| (self.lengths[row], row));
            let (whole, rest) = window.as_slice().split_at(window.len() / blocks * blocks);
            let mut groups: Vec<&[usize]> = whole.chunks(blocks).collect();
            rng.shuffle(&mut groups);
            sorted.extend(groups.concat());
            sorted.extend_from_slice(rest);
        }
        sorted
    }

    fn next_row(&mut self) -> Option<usize> {
        if self.at == self.order.len() {
            self.epoch += 1;
            self.order = self.shuffled();
            self.at = 0;
        }
        let row = *self.order.get(self.at)?;
        self.at += 1;
        Some(row)
    }

    /// Returns the row numbers of the next step; empty only when there are no rows at all.
    pub fn next_step(&mut self) -> Vec<usize> {
        let mut rows = Vec::new();
        for _ in 0..self.shape.blocks.max(1) {
            let Some(row) = self.next_row() else { break };
            rows.push(row);
            let Some(fit) = self.shape.packed_tokens else { continue };
            let mut tokens = self.lengths[row];
            while let Some(&next) = self.order.get(self.at) {
                tokens += self.lengths[next];
                if tokens > fit {
                    break;
                }
                rows.push(next);
                self.at += 1;
            }
        }
        rows
    }

    /// Goes past a number of steps, as if they had been taken.
    pub fn skip(&mut self, steps: u64) {
        for _ in 0..steps {
            self.next_step();
        }
    }
}

/// The number of steps that go once through rows of these lengths, rounded up.
pub fn steps_per_epoch(lengths: Vec<usize>, shape: StepShape) -> u64 {
    let mut stream = Stream::new(lengths, 0, shape);
    let mut steps = 0;
    while stream.epoch == 0 && stream.at < stream.lengths.len() {
        stream.next_step();
        steps += 1;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(count: usize) -> Vec<usize> {
        (0..count).map(|at| 5 + at * 7 % 4).collect()
    }

    #[test]
    fn an_epoch_shows_every_row_once() {
        let rows = lengths(23);
        for packed_tokens in [None, Some(16)] {
            for bucket_steps in [1, 4] {
                let shape = StepShape { blocks: 1, packed_tokens, bucket_steps };
                let steps = steps_per_epoch(rows.clone(), shape);
                let mut stream = Stream::new(rows.clone(), 9, shape);
                let mut seen: Vec<usize> = Vec::new();
                while seen.len() < 23 {
                    let step = stream.next_step();
                    assert!(step.iter().map(|&row| rows[row]).sum::<usize>() <= 16);
                    seen.extend(step);
                }
                seen.sort_unstable();
                assert_eq!(seen, (0..23).collect::<Vec<usize>>());
                assert!((8..=23).contains(&steps), "{steps}");
            }
        }
    }

    #[test]
    fn buckets_bring_rows_of_like_length_together_in_a_repeatable_order() {
        let rows: Vec<usize> = (0..64).map(|at| 1 + at * 37 % 64).collect();
        let shape = |bucket_steps| StepShape { blocks: 4, packed_tokens: None, bucket_steps };
        let spread = |bucket_steps| {
            let mut stream = Stream::new(rows.clone(), 5, shape(bucket_steps));
            let steps: Vec<Vec<usize>> = (0..32).map(|_| stream.next_step()).collect();
            let apart = |step: &Vec<usize>| {
                let lengths = step.iter().map(|&row| rows[row]);
                lengths.clone().max().unwrap_or(0) - lengths.min().unwrap_or(0)
            };
            (steps.iter().map(apart).sum::<usize>(), steps)
        };
        let (bucketed, order) = spread(16);
        assert_eq!(order, spread(16).1);
        assert_eq!(bucketed, 32 * 3, "four neighbours differ by three");
        assert!(spread(1).0 > 5 * bucketed);
        assert_ne!(order[..16], order[16..], "epochs differ");
    }

    #[test]
    fn skipping_lands_where_stepping_would() {
        for bucket_steps in [1, 2] {
            let shape = StepShape { blocks: 3, packed_tokens: None, bucket_steps };
            let (mut walked, mut skipped) =
                (Stream::new(lengths(10), 4, shape), Stream::new(lengths(10), 4, shape));
            for _ in 0..7 {
                walked.next_step();
            }
            skipped.skip(7);
            assert_eq!(walked.next_step(), skipped.next_step());
        }
    }
}
