//! Single-threaded numeric kernels over plain `f32` slices.
//!
//! Every matrix is row-major. Rows are tokens; a micro-batch is a list of
//! sequences laid end to end without padding, described by [`Segments`].
//! Nothing here allocates in proportion to anything but its inputs, starts a
//! thread or reads a clock, and every reduction has one fixed order: the same
//! input gives the same bits on one processor type.

pub(crate) mod attention;
pub(crate) mod buffer;
pub(crate) mod dropout;
pub(crate) mod gemm;
pub(crate) mod head;
pub(crate) mod math;
pub(crate) mod norm;
pub(crate) mod rope;
pub(crate) mod simd;
pub(crate) mod swiglu;

use std::ops::Range;

/// The lengths of the sequences of one micro-batch, in order, in tokens.
///
/// Sequences never see each other: positions restart at 0 and attention stays
/// inside its sequence, so packing many short rows costs no padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments {
    lengths: Vec<usize>,
    total: usize,
}

impl Segments {
    /// Describes sequences of the given lengths, in tokens; empty ones are dropped.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let lengths: Vec<usize> = lengths.into_iter().filter(|&len| len > 0).collect();
        let total = lengths.iter().sum();
        Self { lengths, total }
    }

    /// The number of tokens in all sequences together.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The length of the longest sequence, in tokens.
    pub fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// The row range of each sequence, in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.lengths.iter().scan(0, |start, &len| {
            let range = *start..*start + len;
            *start = range.end;
            Some(range)
        })
    }
}
