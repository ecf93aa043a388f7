//! Matrix multiplication: a bounds-checked view over slices around the `gemm` crate.
//!
//! This is the crate's only file with `unsafe`: `gemm` takes raw pointers and
//! strides. The views below check once, on construction, that every index they
//! can produce lies inside their slice, so the call can only touch memory its
//! borrows already cover. A property test compares it with a naive loop. [`prefetch`]
//! stands here for the same reason.

/// A read-only matrix view: element `(r, c)` is `data[r * row_stride + c * col_stride]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A writable row-major matrix view whose rows do not overlap.
#[derive(Debug)]
pub(crate) struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

/// Whether the product replaces the destination or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// `dst = alpha * a * b`
    Replace,
    /// `dst += alpha * a * b`
    Add,
}

fn assert_covers(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) {
    if rows == 0 || cols == 0 {
        return;
    }
    let last = (rows - 1)
        .checked_mul(row_stride)
        .zip((cols - 1).checked_mul(col_stride))
        .and_then(|(row, col)| row.checked_add(col));
    assert!(
        last.is_some_and(|last| last < len),
        "matrix view of {rows}x{cols} with strides {row_stride},{col_stride} exceeds {len} elements"
    );
    assert!(
        row_stride <= isize::MAX as usize && col_stride <= isize::MAX as usize,
        "matrix strides exceed the address space"
    );
}

impl<'a> Mat<'a> {
    /// Views `data` as `rows x cols` with rows `row_stride` elements apart.
    pub(crate) fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert_covers(data.len(), rows, cols, row_stride, 1);
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// Views `data` as a dense `rows x cols` matrix.
    pub(crate) fn dense(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// The transpose; no data moves.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

impl<'a> MatMut<'a> {
    /// Views `data` as a writable `rows x cols` with rows `row_stride >= cols` elements apart.
    pub(crate) fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows <= 1 || row_stride >= cols, "destination rows must not overlap");
        assert_covers(data.len(), rows, cols, row_stride, 1);
        Self { data, rows, cols, row_stride }
    }

    /// Views `data` as a dense writable `rows x cols` matrix.
    pub(crate) fn dense(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }
}

/// Computes `dst = alpha * a * b`, or adds it to `dst`, on the calling thread.
///
/// # Panics
/// When the shapes do not fit together: a bug of the caller, never of its data.
pub(crate) fn gemm(dst: MatMut<'_>, into: Write, alpha: f32, a: Mat<'_>, b: Mat<'_>) {
    assert!(
        dst.rows == a.rows && dst.cols == b.cols && a.cols == b.rows,
        "gemm shapes differ: {}x{} = {}x{} * {}x{}",
        dst.rows,
        dst.cols,
        a.rows,
        a.cols,
        b.rows,
        b.cols
    );
    if dst.rows == 0 || dst.cols == 0 {
        return;
    }
    if a.cols == 0 {
        if into == Write::Replace {
            for row in dst.data.chunks_mut(dst.row_stride.max(1)).take(dst.rows) {
                let cols = dst.cols.min(row.len());
                row[..cols].fill(0.0);
            }
        }
        return;
    }
    call(dst, into, alpha, a, b);
}

#[allow(unsafe_code, reason = "gemm's only interface is raw pointers; the views prove every index in bounds")]
fn call(dst: MatMut<'_>, into: Write, alpha: f32, a: Mat<'_>, b: Mat<'_>) {
    let keep = match into {
        Write::Replace => 0.0,
        Write::Add => 1.0,
    };
    // SAFETY: `Mat` and `MatMut` checked at construction that (rows-1)*row_stride +
    // (cols-1)*col_stride is inside their slices and that strides fit an isize, and
    // `gemm` above checked that the shapes agree, so gemm reads and writes only inside
    // the three borrows. `dst` is a unique borrow with non-overlapping rows, so it
    // aliases neither input. `f32` has no invalid bit patterns.
    unsafe {
        gemm::gemm(
            dst.rows,
            dst.cols,
            a.cols,
            dst.data.as_mut_ptr(),
            1,
            dst.row_stride as isize,
            into == Write::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            keep,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// What a cache line holds.
pub(crate) type Line = [f32; 16];

/// Asks the processor to bring `line` nearer; changes nothing else.
#[inline(always)]
#[allow(unsafe_code, reason = "the instruction takes a raw pointer; it reads no value and cannot fault")]
pub(crate) fn prefetch(line: &Line) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching is a hint that is defined for any address, and this one is
    // inside a live borrow; SSE is part of every x86-64 processor.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(keep: &[f32], into: Write, alpha: f32, a: Mat<'_>, b: Mat<'_>) -> Vec<f64> {
        let mut out = Vec::new();
        for r in 0..a.rows {
            for c in 0..b.cols {
                let mut sum = 0f64;
                for k in 0..a.cols {
                    let left = a.data[r * a.row_stride + k * a.col_stride];
                    let right = b.data[k * b.row_stride + c * b.col_stride];
                    sum += f64::from(left) * f64::from(right);
                }
                let old = match into {
                    Write::Replace => 0.0,
                    Write::Add => f64::from(keep[r * b.cols + c]),
                };
                out.push(old + f64::from(alpha) * sum);
            }
        }
        out
    }

    fn values(len: usize, seed: u64) -> Vec<f32> {
        let mut rng = crate::rng::Rng::new(seed);
        (0..len).map(|_| rng.unit() - 0.5).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]
        #[test]
        fn checked_views_multiply_like_a_naive_loop(
            m in 1usize..40, n in 1usize..40, k in 0usize..40,
            pad_a in 0usize..3, pad_b in 0usize..3, pad_d in 0usize..3,
            ta: bool, tb: bool, add: bool, seed: u64,
        ) {
            let (ar, ac) = if ta { (k, m) } else { (m, k) };
            let (br, bc) = if tb { (n, k) } else { (k, n) };
            let a_data = values(ar * (ac + pad_a), seed);
            let b_data = values(br * (bc + pad_b), seed ^ 1);
            let a = Mat::strided(&a_data, ar, ac, ac + pad_a);
            let b = Mat::strided(&b_data, br, bc, bc + pad_b);
            let (a, b) = (if ta { a.t() } else { a }, if tb { b.t() } else { b });
            let into = if add { Write::Add } else { Write::Replace };
            let before = values(m * (n + pad_d), seed ^ 2);
            let mut dst = before.clone();
            gemm(MatMut::strided(&mut dst, m, n, n + pad_d), into, 0.75, a, b);
            let dense: Vec<f32> = before.chunks(n + pad_d).flat_map(|row| row[..n].to_vec()).collect();
            let want = naive(&dense, into, 0.75, a, b);
            for r in 0..m {
                for c in 0..n {
                    let got = f64::from(dst[r * (n + pad_d) + c]);
                    prop_assert!((got - want[r * n + c]).abs() < 1e-4);
                }
                for c in n..n + pad_d {
                    prop_assert_eq!(dst[r * (n + pad_d) + c], before[r * (n + pad_d) + c]);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "exceeds")]
    fn a_view_past_its_slice_is_refused() {
        let data = [0f32; 11];
        let _ = Mat::dense(&data, 3, 4);
    }

    #[test]
    #[should_panic(expected = "must not overlap")]
    fn a_destination_with_overlapping_rows_is_refused() {
        let mut data = [0f32; 12];
        let _ = MatMut::strided(&mut data, 3, 4, 2);
    }

    #[test]
    #[should_panic(expected = "gemm shapes differ")]
    fn shapes_that_do_not_fit_are_refused() {
        let (a, b, mut d) = ([0f32; 6], [0f32; 6], [0f32; 4]);
        gemm(MatMut::dense(&mut d, 2, 2), Write::Replace, 1.0, Mat::dense(&a, 2, 3), Mat::dense(&b, 2, 3));
    }
}
