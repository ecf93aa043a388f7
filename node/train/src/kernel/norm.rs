//! Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467).

use super::math::{dot, sum_squares};
use super::simd::wide;

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_squares(x) / x.len() as f32 + eps).sqrt()
}

/// Computes `out = x / rms(x) * weight` for each row of `weight.len()` elements.
pub(crate) fn forward(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    wide(|| {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let inv = inverse_rms(x, eps);
            for ((o, &x), &w) in out.iter_mut().zip(x).zip(weight) {
                *o = x * inv * w;
            }
        }
    });
}

/// Adds the gradient towards `x` into `dx` and, when asked, towards the weight into `dweight`.
pub(crate) fn backward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    mut dweight: Option<&mut [f32]>,
) {
    let width = weight.len();
    let mut scaled = vec![0f32; width];
    let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(dy.chunks_exact(width));
    wide(|| {
        for ((dx, x), dy) in rows {
            let inv = inverse_rms(x, eps);
            for ((s, &g), &w) in scaled.iter_mut().zip(dy).zip(weight) {
                *s = g * w;
            }
            let pull = dot(&scaled, x) * inv * inv * inv / width as f32;
            for ((d, &s), &x) in dx.iter_mut().zip(&scaled).zip(x) {
                *d += s * inv - x * pull;
            }
            if let Some(dweight) = dweight.as_deref_mut() {
                for ((d, &g), &x) in dweight.iter_mut().zip(dy).zip(x) {
                    *d += g * x * inv;
                }
            }
        }
    });
}
