//! The language-model head: final norm, logits and weighted cross-entropy in one pass.
//!
//! Logits exist only at target positions and only [`CHUNK`] rows at a time. The
//! log-sum-exp is accumulated in `f64`: a plain `f32` running sum over a large
//! vocabulary biases the loss by about 1e-4 nats.

use super::buffer::Buffer;
use super::gemm::{Mat, MatMut, Write, gemm};
use super::math::{exp, max};
use super::norm;
use super::simd::wide;

/// Rows of logits held at a time.
pub(crate) const CHUNK: usize = 256;

/// One position whose next token is predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// The row (token position in the micro-batch) that predicts.
    pub row: usize,
    /// The token it should predict.
    pub token: u32,
    /// The weight of its loss in the total.
    pub weight: f32,
}

/// The head's parameters: `matrix` is `vocab x hidden`, row-major.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) norm: &'a [f32],
    pub(crate) matrix: &'a [f32],
    pub(crate) eps: f32,
}

/// Where the head adds its gradients; `dx` is always wanted when any is.
#[derive(Debug)]
pub(crate) struct Grads<'a> {
    pub(crate) dx: &'a mut [f32],
    pub(crate) dnorm: Option<&'a mut [f32]>,
    pub(crate) dmatrix: Option<&'a mut [f32]>,
}

impl Head<'_> {
    fn hidden(&self) -> usize {
        self.norm.len()
    }

    fn vocab(&self) -> usize {
        self.matrix.len() / self.norm.len()
    }

    /// Computes the natural-log loss of each target, in order, unweighted.
    ///
    /// When `grads` is given, also adds the gradient of the weighted sum of losses.
    pub(crate) fn losses(&self, x: &[f32], targets: &[Target], mut grads: Option<Grads<'_>>) -> Vec<f64> {
        let mut losses = Vec::with_capacity(targets.len());
        for chunk in targets.chunks(CHUNK) {
            self.chunk(x, chunk, &mut losses, grads.as_mut());
        }
        losses
    }

    fn chunk(&self, x: &[f32], targets: &[Target], losses: &mut Vec<f64>, grads: Option<&mut Grads<'_>>) {
        let (rows, hidden, vocab) = (targets.len(), self.hidden(), self.vocab());
        let mut gathered = Vec::with_capacity(rows * hidden);
        for target in targets {
            gathered.extend_from_slice(&x[target.row * hidden..(target.row + 1) * hidden]);
        }
        let mut normed = Buffer::any(rows * hidden);
        norm::forward(&gathered, self.norm, self.eps, &mut normed);
        let mut logits = Buffer::any(rows * vocab);
        let matrix = Mat::dense(self.matrix, vocab, hidden);
        let dst = MatMut::dense(&mut logits, rows, vocab);
        gemm(dst, Write::Replace, 1.0, Mat::dense(&normed, rows, hidden), matrix.t());
        for (row, target) in logits.chunks_exact_mut(vocab).zip(targets) {
            losses.push(cross_entropy(row, target, grads.is_some()));
        }
        let Some(grads) = grads else { return };
        let dlogits = Mat::dense(&logits, rows, vocab);
        let mut dnormed = Buffer::any(rows * hidden);
        gemm(MatMut::dense(&mut dnormed, rows, hidden), Write::Replace, 1.0, dlogits, matrix);
        if let Some(dmatrix) = grads.dmatrix.as_deref_mut() {
            let dst = MatMut::dense(dmatrix, vocab, hidden);
            gemm(dst, Write::Add, 1.0, dlogits.t(), Mat::dense(&normed, rows, hidden));
        }
        let mut dgathered = vec![0f32; rows * hidden];
        let dnorm = grads.dnorm.as_deref_mut();
        norm::backward(&gathered, self.norm, self.eps, &dnormed, &mut dgathered, dnorm);
        for (target, d) in targets.iter().zip(dgathered.chunks_exact(hidden)) {
            let at = target.row * hidden;
            super::math::add_into(&mut grads.dx[at..at + hidden], d);
        }
    }
}

/// Returns the loss of one row of logits; when `differentiate`, leaves its gradient in the row.
fn cross_entropy(row: &mut [f32], target: &Target, differentiate: bool) -> f64 {
    let gold = target.token as usize;
    let gold_logit = f64::from(row[gold]);
    let top = wide(|| max(row));
    let total = wide(|| exponentials(row, top));
    if differentiate {
        let share = (f64::from(target.weight) / total) as f32;
        wide(|| row.iter_mut().for_each(|z| *z *= share));
        row[gold] -= target.weight;
    }
    total.ln() + f64::from(top) - gold_logit
}

/// Replaces each logit by `e^(logit - top)` and returns their sum.
#[inline(always)]
fn exponentials(row: &mut [f32], top: f32) -> f64 {
    let mut sums = [0f64; 16];
    let mut chunks = row.chunks_exact_mut(16);
    for chunk in &mut chunks {
        for (sum, z) in sums.iter_mut().zip(chunk) {
            *z = exp(*z - top);
            *sum += f64::from(*z);
        }
    }
    for (sum, z) in sums.iter_mut().zip(chunks.into_remainder()) {
        *z = exp(*z - top);
        *sum += f64::from(*z);
    }
    sums.iter().sum()
}
