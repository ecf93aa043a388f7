//! The processor's widest vectors, chosen at run time, without `unsafe`.
//!
//! [`wide`] compiles a plain loop for the vectors at hand: the bits do not change,
//! because Rust neither reorders nor fuses floating-point operations by itself.
//! [`product_transposed`] multiplies few rows by a weight matrix, each element always
//! in the same order whatever stands beside it.

use pulp::{Arch, Simd, WithSimd};

use super::gemm::{Line, prefetch};

/// Runs a loop compiled for the widest vectors of this processor.
#[inline(always)]
pub(crate) fn wide<R>(f: impl FnOnce() -> R) -> R {
    struct Wide<F>(F);
    impl<R, F: FnOnce() -> R> WithSimd for Wide<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    Arch::new().dispatch(Wide(f))
}

/// Rows of the weight matrix multiplied together.
const COLUMNS: usize = 4;
/// How far ahead of the product weights are called from memory, in elements.
const AHEAD: usize = 8 << 10;

/// Operands of [`product_transposed`].
struct Product<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    inner: usize,
    stride: usize,
    out: &'a mut [f32],
    add: bool,
}

impl Product<'_> {
    /// Computes `ROWS` rows of `x` against `weights`, into `out` from `column` on.
    #[allow(
        clippy::needless_range_loop,
        reason = "iterators over the sums keep them in memory, not in registers"
    )]
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
        weights: [&[f32]; COLUMNS],
        columns: usize,
    ) {
        let inner = self.inner;
        let rows: [&[f32]; ROWS] = std::array::from_fn(|at| &self.x[(row + at) * inner..][..inner]);
        let rows = rows.map(|row| S::as_simd_f32s(row));
        let weights = weights.map(|row| S::as_simd_f32s(row));
        let mut sums = [[simd.splat_f32s(0.0); COLUMNS]; ROWS];
        let lanes = rows[0].0.len();
        let rows_whole = rows.map(|(whole, _)| &whole[..lanes]);
        let weights_whole = weights.map(|(whole, _)| &whole[..lanes]);
        // The rows of the weights that come next, while these are multiplied: few rows are
        // multiplied faster than memory answers.
        let ahead =
            if row == 0 { &self.weight[(column * inner + AHEAD).min(self.weight.len())..] } else { &[] };
        let lines = COLUMNS * size_of::<S::f32s>() / size_of::<Line>();
        let mut ahead = ahead.as_chunks().0.chunks_exact(lines.max(1));
        for at in 0..lanes {
            if let Some(block) = ahead.next() {
                block.iter().for_each(prefetch);
            }
            let w: [S::f32s; COLUMNS] = std::array::from_fn(|c| weights_whole[c][at]);
            for r in 0..ROWS {
                let x = rows_whole[r][at];
                for c in 0..COLUMNS {
                    sums[r][c] = simd.mul_add_f32s(x, w[c], sums[r][c]);
                }
            }
        }
        if !rows[0].1.is_empty() {
            let w = weights.map(|(_, rest)| simd.partial_load_f32s(rest));
            for r in 0..ROWS {
                let x = simd.partial_load_f32s(rows[r].1);
                for c in 0..COLUMNS {
                    sums[r][c] = simd.mul_add_f32s(x, w[c], sums[r][c]);
                }
            }
        }
        // What follows is too long to be unrolled and takes the sums by index. Read through this
        // copy, the sums themselves need no place in memory while they grow.
        let sums = std::hint::black_box(sums);
        for r in 0..ROWS {
            let start = (row + r) * self.stride + column;
            let out = &mut self.out[start..start + columns];
            for c in 0..COLUMNS {
                let total = simd.reduce_sum_f32s(sums[r][c]);
                if let Some(out) = out.get_mut(c) {
                    *out = if self.add { *out + total } else { total };
                }
            }
        }
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let inner = self.inner;
        let rows = self.x.len() / inner;
        let outputs = self.weight.len() / inner;
        for column in (0..outputs).step_by(COLUMNS) {
            let columns = (outputs - column).min(COLUMNS);
            // Past the last column the last one stands in; its results are not stored.
            let weight = self.weight;
            let weights: [&[f32]; COLUMNS] =
                std::array::from_fn(|at| &weight[(column + at).min(outputs - 1) * inner..][..inner]);
            let mut row = 0;
            if S::REGISTER_COUNT >= 32 {
                while row + 4 <= rows {
                    self.tile::<S, 4>(simd, row, column, weights, columns);
                    row += 4;
                }
            }
            while row + 2 <= rows {
                self.tile::<S, 2>(simd, row, column, weights, columns);
                row += 2;
            }
            if row < rows {
                self.tile::<S, 1>(simd, row, column, weights, columns);
            }
        }
    }
}

/// Computes `out = x * weight^T` for dense row-major `x` (rows × `inner`) and `weight`
/// (outputs × `inner`), or adds it; rows of `out` are `stride` elements apart.
///
/// Reads the weights once, in order, and copies nothing: for few rows. Element
/// `(row, output)` depends on its row and its output alone, to the last bit.
///
/// # Panics
/// When `out` is shorter than the rows ask for: a bug of the caller.
pub(crate) fn product_transposed(
    x: &[f32],
    weight: &[f32],
    inner: usize,
    out: &mut [f32],
    stride: usize,
    add: bool,
) {
    if inner == 0 || x.is_empty() || weight.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(inner) && weight.len().is_multiple_of(inner), "whole rows are needed");
    Arch::new().dispatch(Product { x, weight, inner, stride, out, add });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn draw(rng: &mut Rng, len: usize) -> Vec<f32> {
        (0..len).map(|_| rng.unit() - 0.5).collect()
    }

    #[test]
    fn products_agree_with_a_plain_loop_at_odd_sizes() {
        let mut rng = Rng::new(3);
        for (rows, inner, outputs) in
            [(1, 1, 1), (1, 16, 5), (3, 17, 4), (7, 45, 9), (9, 64, 3), (2, 100, 130)]
        {
            let (x, weight) = (draw(&mut rng, rows * inner), draw(&mut rng, outputs * inner));
            let before = draw(&mut rng, rows * outputs);
            let (mut replaced, mut added) = (vec![9f32; rows * outputs], before.clone());
            product_transposed(&x, &weight, inner, &mut replaced, outputs, false);
            product_transposed(&x, &weight, inner, &mut added, outputs, true);
            for row in 0..rows {
                for column in 0..outputs {
                    let pairs = x[row * inner..][..inner].iter().zip(&weight[column * inner..][..inner]);
                    let want: f64 = pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                    let at = row * outputs + column;
                    assert!((f64::from(replaced[at]) - want).abs() < 1e-5);
                    assert!((f64::from(added[at]) - want - f64::from(before[at])).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_company() {
        let mut rng = Rng::new(4);
        let (inner, outputs) = (77, 21);
        let (x, weight) = (draw(&mut rng, 11 * inner), draw(&mut rng, outputs * inner));
        let mut together = vec![0f32; 11 * outputs];
        product_transposed(&x, &weight, inner, &mut together, outputs, false);
        for rows in 1..=11 {
            for from in 0..=11 - rows {
                let mut part = vec![0f32; rows * outputs];
                product_transposed(
                    &x[from * inner..(from + rows) * inner],
                    &weight,
                    inner,
                    &mut part,
                    outputs,
                    false,
                );
                assert_eq!(part, together[from * outputs..(from + rows) * outputs]);
            }
        }
    }
}
