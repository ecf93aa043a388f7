//! Elementary functions and reductions with one fixed order of operations.
//!
//! `exp` is our own polynomial rather than the C library's: it has the same bits
//! wherever `f32` addition and multiplication do, and the compiler can vectorise it.

use super::simd::wide;

const LANES: usize = 16;

/// Computes `e^x` to within 2 units in the last place, for `x` clamped to [-87, 88].
///
/// Cody-Waite range reduction and the degree-5 polynomial of the Cephes library.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it leaves the nearest integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    value * f32::from_bits(exponent.wrapping_shl(23))
}

/// Sums a slice in sixteen interleaved partial sums, added up in order.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    fold(values, |acc, v| acc + v)
}

/// Sums the squares of a slice, in the order of [`sum`].
#[inline(always)]
pub(crate) fn sum_squares(values: &[f32]) -> f32 {
    fold(values, |acc, v| acc + v * v)
}

#[inline(always)]
fn fold(values: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut acc = [0f32; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (a, &v) in acc.iter_mut().zip(chunk) {
            *a = f(*a, v);
        }
    }
    for (a, &v) in acc.iter_mut().zip(chunks.remainder()) {
        *a = f(*a, v);
    }
    acc.iter().sum()
}

/// Computes the inner product of two slices of equal length, in the order of [`sum`].
#[inline(always)]
pub(crate) fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let (mut l, mut r) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    for (a, b) in (&mut l).zip(&mut r) {
        for ((acc, &x), &y) in acc.iter_mut().zip(a).zip(b) {
            *acc += x * y;
        }
    }
    for ((acc, &x), &y) in acc.iter_mut().zip(l.remainder()).zip(r.remainder()) {
        *acc += x * y;
    }
    acc.iter().sum()
}

/// The largest value of a slice; `f32::NEG_INFINITY` when empty.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (a, &v) in acc.iter_mut().zip(chunk) {
            *a = if v > *a { v } else { *a };
        }
    }
    for (a, &v) in acc.iter_mut().zip(chunks.remainder()) {
        *a = if v > *a { v } else { *a };
    }
    acc.iter().copied().fold(f32::NEG_INFINITY, |m, v| if v > m { v } else { m })
}

/// Adds `from` into `to`, element by element.
pub(crate) fn add_into(to: &mut [f32], from: &[f32]) {
    wide(|| {
        for (t, &f) in to.iter_mut().zip(from) {
            *t += f;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0f64;
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - want) / want).abs());
        }
        assert!(worst < 2.5e-7, "worst relative error {worst:e}");
    }

    #[test]
    fn exp_saturates_instead_of_overflowing() {
        assert!(exp(1e30).is_finite());
        assert!(exp(-1e30) > 0.0 && exp(-1e30) < 1e-37);
    }

    #[test]
    fn reductions_agree_with_f64_loops_at_every_length() {
        for len in 0..70usize {
            let values: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin()).collect();
            let want: f64 = values.iter().map(|&v| f64::from(v)).sum();
            let square: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            assert!((f64::from(sum(&values)) - want).abs() < 1e-5);
            assert!((f64::from(sum_squares(&values)) - square).abs() < 1e-5);
            assert!((f64::from(dot(&values, &values)) - square).abs() < 1e-5);
            let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&values), largest);
        }
    }
}
