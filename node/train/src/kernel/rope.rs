//! Rotary position embedding in the rotate-half form of Hugging Face Llama
//! (Su et al. 2021, arXiv:2104.09864).

use super::Segments;
use super::simd::wide;

/// Cosines and sines for every position up to a limit: `half` of each per position.
#[derive(Debug)]
pub(crate) struct Table {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

/// Which way to turn: the gradient of a rotation is the inverse rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The forward pass.
    Forward,
    /// The backward pass.
    Backward,
}

impl Table {
    /// Tabulates positions `0..positions` for the turn per position of each pair, in radians.
    ///
    /// Angles are formed in `f32` like the reference implementation, then turned
    /// into cosines and sines in `f64`.
    pub(crate) fn new(frequencies: &[f32], positions: usize) -> Self {
        let half = frequencies.len();
        let mut cos = Vec::with_capacity(positions * half);
        let mut sin = Vec::with_capacity(positions * half);
        for position in 0..positions {
            for frequency in frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        Self { half, cos, sin }
    }

    /// The number of positions tabulated.
    pub(crate) fn positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }

    /// Turns the first `heads` heads of every row of `rows` in place; rows are `stride` apart.
    pub(crate) fn turn(
        &self,
        rows: &mut [f32],
        stride: usize,
        heads: usize,
        segments: &Segments,
        turn: Turn,
    ) {
        let sign = match turn {
            Turn::Forward => 1.0,
            Turn::Backward => -1.0,
        };
        wide(|| {
            for range in segments.ranges() {
                let span = &mut rows[range.start * stride..range.end * stride];
                for (position, row) in span.chunks_exact_mut(stride).enumerate() {
                    self.turn_row(&mut row[..heads * 2 * self.half], position, sign);
                }
            }
        });
    }

    /// Turns the heads of one row forward, as at `position`.
    pub(crate) fn turn_at(&self, heads: &mut [f32], position: usize) {
        self.turn_row(heads, position, 1.0);
    }

    #[inline(always)]
    fn turn_row(&self, heads: &mut [f32], position: usize, sign: f32) {
        let at = position * self.half..(position + 1) * self.half;
        let (cos, sin) = (&self.cos[at.clone()], &self.sin[at]);
        for head in heads.chunks_exact_mut(2 * self.half) {
            let (low, high) = head.split_at_mut(self.half);
            for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let (x, y, s) = (*a, *b, sign * s);
                *a = x * c - y * s;
                *b = y * c + x * s;
            }
        }
    }
}
