//! The order in which rows are trained on: shuffled epochs, cut into steps.
//!
//! The order is a function of the seed and the step number, so a restarted run goes
//! on with the rows it would have seen.

use super::Example;
use crate::rng::{Rng, mix};

/// How rows make a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepShape {
    /// Blocks in a step: rows, or packed groups of rows.
    pub blocks: usize,
    /// Tokens that fit a packed block; `None` when every block is one row.
    pub packed_tokens: Option<usize>,
}

/// An endless stream of steps over a set of rows.
#[derive(Debug, Clone)]
pub struct Stream<'a> {
    examples: &'a [Example],
    seed: u64,
    shape: StepShape,
    epoch: u64,
    order: Vec<usize>,
    at: usize,
}

impl<'a> Stream<'a> {
    /// Starts at the first step.
    pub fn new(examples: &'a [Example], seed: u64, shape: StepShape) -> Self {
        let mut stream = Self { examples, seed, shape, epoch: 0, order: Vec::new(), at: 0 };
        stream.order = stream.shuffled();
        stream
    }

    fn shuffled(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.examples.len()).collect();
        Rng::new(mix(self.seed) ^ mix(self.epoch)).shuffle(&mut order);
        order
    }

    fn next_row(&mut self) -> Option<&'a Example> {
        if self.at == self.order.len() {
            self.epoch += 1;
            self.order = self.shuffled();
            self.at = 0;
        }
        let row = self.examples.get(*self.order.get(self.at)?)?;
        self.at += 1;
        Some(row)
    }

    /// Returns the rows of the next step; empty only when there are no rows at all.
    pub fn next_step(&mut self) -> Vec<&'a Example> {
        let mut rows = Vec::new();
        for _ in 0..self.shape.blocks.max(1) {
            let Some(row) = self.next_row() else { break };
            rows.push(row);
            let Some(fit) = self.shape.packed_tokens else { continue };
            let mut tokens = row.ids.len();
            while let Some(next) = self.order.get(self.at).map(|&row| &self.examples[row]) {
                tokens += next.ids.len();
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

/// The number of steps that go once through the rows, rounded up.
pub fn steps_per_epoch(examples: &[Example], shape: StepShape) -> u64 {
    let mut stream = Stream::new(examples, 0, shape);
    let mut steps = 0;
    while stream.epoch == 0 && stream.at < examples.len() {
        stream.next_step();
        steps += 1;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(count: usize) -> Vec<Example> {
        (0..count).map(|at| Example { ids: vec![at as u32; 5 + at % 4], prompt: 1 }).collect()
    }

    #[test]
    fn an_epoch_shows_every_row_once() {
        let rows = examples(23);
        for packed_tokens in [None, Some(16)] {
            let shape = StepShape { blocks: 1, packed_tokens };
            let steps = steps_per_epoch(&rows, shape);
            let mut stream = Stream::new(&rows, 9, shape);
            let mut seen: Vec<u32> = Vec::new();
            while seen.len() < 23 {
                let step = stream.next_step();
                let tokens: usize = step.iter().map(|row| row.ids.len()).sum();
                assert!(tokens <= 16);
                seen.extend(step.iter().map(|row| row.ids[0]));
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..23).collect::<Vec<u32>>());
            assert!((8..=23).contains(&steps), "{steps}");
        }
    }

    #[test]
    fn skipping_lands_where_stepping_would() {
        let rows = examples(10);
        let shape = StepShape { blocks: 3, packed_tokens: None };
        let (mut walked, mut skipped) = (Stream::new(&rows, 4, shape), Stream::new(&rows, 4, shape));
        for _ in 0..7 {
            walked.next_step();
        }
        skipped.skip(7);
        assert_eq!(walked.next_step(), skipped.next_step());
    }
}
