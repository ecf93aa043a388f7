//! Grouped-query attention, causal or over the whole sequence (Ainslie et al. 2023, arXiv:2305.13245).
//!
//! A row of `qkv` holds the query heads, then the key heads, then the value heads.
//! Probabilities are recomputed in the backward pass instead of kept.

use super::Segments;
use super::gemm::{Mat, MatMut, Write, gemm};
use super::math::{dot, exp, max, sum};
use super::simd::wide;

/// The head counts and head width of one attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Query heads.
    pub(crate) query: usize,
    /// Key and value heads; divides `query`.
    pub(crate) key: usize,
    /// Elements per head.
    pub(crate) dim: usize,
    /// Whether a position sees only itself and those before it.
    pub(crate) causal: bool,
}

impl Heads {
    /// Elements of one `qkv` row.
    pub(crate) fn row(&self) -> usize {
        (self.query + 2 * self.key) * self.dim
    }

    /// The columns of all query heads and of all key heads inside a row.
    pub(crate) fn turned(&self) -> [std::ops::Range<usize>; 2] {
        let query = self.query * self.dim;
        [0..query, query..query + self.key * self.dim]
    }

    fn key_offset(&self, head: usize) -> usize {
        (self.query + head / (self.query / self.key)) * self.dim
    }

    fn value_offset(&self, head: usize) -> usize {
        self.key_offset(head) + self.key * self.dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Fills `probs` (`len x len`) with the softmax of one head of one sequence.
    fn probabilities(&self, qkv: &[f32], head: usize, len: usize, probs: &mut [f32]) {
        let row = self.row();
        let q = Mat::strided(&qkv[head * self.dim..], len, self.dim, row);
        let k = Mat::strided(&qkv[self.key_offset(head)..], len, self.dim, row);
        gemm(MatMut::dense(probs, len, len), Write::Replace, self.scale(), q, k.t());
        wide(|| {
            for (i, scores) in probs.chunks_exact_mut(len).enumerate() {
                let (seen, unseen) = scores.split_at_mut(if self.causal { i + 1 } else { len });
                softmax(seen);
                unseen.fill(0.0);
            }
        });
    }
}

/// Turns scores into probabilities.
#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let top = max(scores);
    for s in scores.iter_mut() {
        *s = exp(*s - top);
    }
    let inv = 1.0 / sum(scores);
    for s in scores.iter_mut() {
        *s *= inv;
    }
}

/// Computes attention of one new row over the keys and values kept so far, its own included.
///
/// `row` is a `qkv` row, turned; `keys` and `values` hold one row of `key * dim` elements
/// per position.
pub(crate) fn step(heads: Heads, row: &[f32], keys: &[f32], values: &[f32], out: &mut [f32]) {
    let (dim, width) = (heads.dim, heads.key * heads.dim);
    let mut scores = vec![0f32; keys.len() / width];
    wide(|| {
        for head in 0..heads.query {
            let query = &row[head * dim..][..dim];
            let at = head / (heads.query / heads.key) * dim;
            for (score, key) in scores.iter_mut().zip(keys.chunks_exact(width)) {
                *score = dot(query, &key[at..at + dim]) * heads.scale();
            }
            softmax(&mut scores);
            let out = &mut out[head * dim..][..dim];
            out.fill(0.0);
            for (&p, value) in scores.iter().zip(values.chunks_exact(width)) {
                for (o, &v) in out.iter_mut().zip(&value[at..at + dim]) {
                    *o += p * v;
                }
            }
        }
    });
}

/// Computes attention for every sequence; a row of `out` is `query * dim` elements.
pub(crate) fn forward(heads: Heads, qkv: &[f32], segments: &Segments, out: &mut [f32]) {
    let (row, width) = (heads.row(), heads.query * heads.dim);
    let mut probs = vec![0f32; segments.longest() * segments.longest()];
    for range in segments.ranges() {
        let len = range.len();
        let qkv = &qkv[range.start * row..range.end * row];
        let out = &mut out[range.start * width..range.end * width];
        let probs = &mut probs[..len * len];
        for head in 0..heads.query {
            heads.probabilities(qkv, head, len, probs);
            let v = Mat::strided(&qkv[heads.value_offset(head)..], len, heads.dim, row);
            let dst = MatMut::strided(&mut out[head * heads.dim..], len, heads.dim, width);
            gemm(dst, Write::Replace, 1.0, Mat::dense(probs, len, len), v);
        }
    }
}

/// Computes the gradient towards `qkv` into `dqkv`, which must be zero on entry.
pub(crate) fn backward(
    heads: Heads,
    qkv: &[f32],
    segments: &Segments,
    out: &[f32],
    dout: &[f32],
    dqkv: &mut [f32],
) {
    let (row, width, dim) = (heads.row(), heads.query * heads.dim, heads.dim);
    let longest = segments.longest();
    let mut probs = vec![0f32; longest * longest];
    let mut dscores = vec![0f32; longest * longest];
    for range in segments.ranges() {
        let len = range.len();
        let qkv = &qkv[range.start * row..range.end * row];
        let out = &out[range.start * width..range.end * width];
        let dout = &dout[range.start * width..range.end * width];
        let dqkv = &mut dqkv[range.start * row..range.end * row];
        let (probs, dscores) = (&mut probs[..len * len], &mut dscores[..len * len]);
        for head in 0..heads.query {
            heads.probabilities(qkv, head, len, probs);
            let at = head * dim;
            let (ko, vo) = (heads.key_offset(head), heads.value_offset(head));
            let g = Mat::strided(&dout[at..], len, dim, width);
            let v = Mat::strided(&qkv[vo..], len, dim, row);
            gemm(MatMut::dense(dscores, len, len), Write::Replace, 1.0, g, v.t());
            wide(|| {
                for i in 0..len {
                    let cols = i * width + at..i * width + at + dim;
                    let pull = dot(&out[cols.clone()], &dout[cols]);
                    let span = i * len..(i + 1) * len;
                    for (ds, &p) in dscores[span.clone()].iter_mut().zip(&probs[span]) {
                        *ds = p * (*ds - pull);
                    }
                }
            });
            let (p, ds) = (Mat::dense(probs, len, len), Mat::dense(dscores, len, len));
            let q = Mat::strided(&qkv[at..], len, dim, row);
            let k = Mat::strided(&qkv[ko..], len, dim, row);
            let dq = MatMut::strided(&mut dqkv[at..], len, dim, row);
            gemm(dq, Write::Replace, heads.scale(), ds, k);
            let dk = MatMut::strided(&mut dqkv[ko..], len, dim, row);
            gemm(dk, Write::Add, heads.scale(), ds.t(), q);
            let dv = MatMut::strided(&mut dqkv[vo..], len, dim, row);
            gemm(dv, Write::Add, 1.0, p.t(), g);
        }
    }
}
