//! Groups of linear layers that share an input, with optional low-rank adapters.
//!
//! A group's weights lie one after another, so query, key and value (or gate and up)
//! are one matrix product. An adapter adds `scale * (x A^T) B^T` to its module's
//! columns (Hu et al. 2021, arXiv:2106.09685); the adapters of one group share the
//! dropout mask of their input.

use std::ops::Range;

use crate::kernel::buffer::Buffer;
use crate::kernel::dropout::Dropout;
use crate::kernel::gemm::{Mat, MatMut, Write, gemm};
use crate::kernel::simd::product_transposed;
use crate::model::layout::AdapterSlot;

/// Low-rank activations narrower than this are multiplied row by row: the matrix product
/// takes another path, with other rounding, for few rows of few columns.
const NARROW: usize = 16;

/// One group's weights for one layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group<'a> {
    /// `outputs x inputs`, row-major.
    pub(crate) weight: &'a [f32],
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) adapter: Option<Lora<'a>>,
}

/// The adapters of one group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lora<'a> {
    pub(crate) slot: &'a AdapterSlot,
    /// All adapter parameters of the layer; the slot's ranges index it.
    pub(crate) theta: &'a [f32],
    pub(crate) rank: usize,
    pub(crate) scale: f32,
    /// The mask of this step, with the layer's and the slot's numbers.
    pub(crate) dropout: Option<(Dropout, usize, usize)>,
}

/// Where a group adds its parameter gradients; `None` for frozen parameters.
#[derive(Debug)]
pub(crate) struct Grads<'a> {
    pub(crate) weight: Option<&'a mut [f32]>,
    pub(crate) adapter: Option<&'a mut [f32]>,
}

impl Lora<'_> {
    /// Columns of the group's joint low-rank activation.
    fn width(&self) -> usize {
        self.slot.modules.len() * self.rank
    }

    fn a(&self, inputs: usize) -> Mat<'_> {
        Mat::dense(&self.theta[self.slot.a.clone()], self.width(), inputs)
    }

    fn b(&self, range: &Range<usize>, outputs: usize) -> Mat<'_> {
        Mat::dense(&self.theta[range.clone()], outputs, self.rank)
    }

    /// The adapter's input: `x` itself, or a masked copy.
    fn input<'x>(&self, x: &'x [f32], width: usize) -> std::borrow::Cow<'x, [f32]> {
        match self.dropout {
            None => std::borrow::Cow::Borrowed(x),
            Some((dropout, layer, slot)) => {
                let mut masked = vec![0f32; x.len()];
                dropout.apply(layer, slot, width, x, &mut masked, false);
                std::borrow::Cow::Owned(masked)
            }
        }
    }
}

impl Group<'_> {
    /// Computes the group's outputs for `rows` rows, and the low-rank activation for later.
    pub(crate) fn forward(&self, x: &[f32], rows: usize, out: &mut [f32]) -> Buffer {
        let input = Mat::dense(x, rows, self.inputs);
        let weight = Mat::dense(self.weight, self.outputs, self.inputs);
        gemm(MatMut::dense(out, rows, self.outputs), Write::Replace, 1.0, input, weight.t());
        let Some(lora) = &self.adapter else {
            return Buffer::default();
        };
        let width = lora.width();
        let mut low = Buffer::any(rows * width);
        let masked = lora.input(x, self.inputs);
        if width < NARROW {
            let a = &lora.theta[lora.slot.a.clone()];
            product_transposed(&masked, a, self.inputs, &mut low, width, false);
            low.iter_mut().for_each(|v| *v *= lora.scale);
        } else {
            let masked = Mat::dense(&masked, rows, self.inputs);
            let dst = MatMut::dense(&mut low, rows, width);
            gemm(dst, Write::Replace, lora.scale, masked, lora.a(self.inputs).t());
        }
        for (at, module) in lora.slot.modules.iter().enumerate() {
            let low = Mat::strided(&low[at * lora.rank..], rows, lora.rank, width);
            let columns = &mut out[module.column..];
            let dst = MatMut::strided(columns, rows, module.outputs, self.outputs);
            gemm(dst, Write::Add, 1.0, low, lora.b(&module.b, module.outputs).t());
        }
        low
    }

    /// As [`Self::forward`] for few rows, without dropout: every row has the same bits in
    /// any company, and the weights are read in place.
    pub(crate) fn forward_few(&self, x: &[f32], out: &mut [f32]) {
        product_transposed(x, self.weight, self.inputs, out, self.outputs, false);
        let Some(lora) = &self.adapter else { return };
        let (width, rank) = (lora.width(), lora.rank);
        let rows = x.len() / self.inputs;
        let mut low = vec![0f32; rows * width];
        product_transposed(x, &lora.theta[lora.slot.a.clone()], self.inputs, &mut low, width, false);
        low.iter_mut().for_each(|v| *v *= lora.scale);
        for (at, module) in lora.slot.modules.iter().enumerate() {
            let part = low.chunks_exact(width).flat_map(|row| &row[at * rank..(at + 1) * rank]);
            let part: Vec<f32> = part.copied().collect();
            let columns = &mut out[module.column..];
            product_transposed(&part, &lora.theta[module.b.clone()], rank, columns, self.outputs, true);
        }
    }

    /// Adds the gradients of one forward pass; writes the one towards the input into `dx`.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        rows: usize,
        low: &[f32],
        dout: &[f32],
        mut dx: Option<&mut [f32]>,
        grads: Grads<'_>,
    ) {
        let d = Mat::dense(dout, rows, self.outputs);
        if let Some(dx) = dx.as_deref_mut() {
            let weight = Mat::dense(self.weight, self.outputs, self.inputs);
            gemm(MatMut::dense(dx, rows, self.inputs), Write::Replace, 1.0, d, weight);
        }
        if let Some(dweight) = grads.weight {
            let dst = MatMut::dense(dweight, self.outputs, self.inputs);
            gemm(dst, Write::Add, 1.0, d.t(), Mat::dense(x, rows, self.inputs));
        }
        if let (Some(lora), Some(dtheta)) = (&self.adapter, grads.adapter) {
            self.backward_lora(lora, x, rows, low, dout, dx, dtheta);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one private step of `backward`")]
    fn backward_lora(
        &self,
        lora: &Lora<'_>,
        x: &[f32],
        rows: usize,
        low: &[f32],
        dout: &[f32],
        dx: Option<&mut [f32]>,
        dtheta: &mut [f32],
    ) {
        let width = lora.width();
        let mut dlow = Buffer::any(rows * width);
        for (at, module) in lora.slot.modules.iter().enumerate() {
            let d = Mat::strided(&dout[module.column..], rows, module.outputs, self.outputs);
            let low = Mat::strided(&low[at * lora.rank..], rows, lora.rank, width);
            let db = MatMut::dense(&mut dtheta[module.b.clone()], module.outputs, lora.rank);
            gemm(db, Write::Add, 1.0, d.t(), low);
            let dst = MatMut::strided(&mut dlow[at * lora.rank..], rows, lora.rank, width);
            gemm(dst, Write::Replace, lora.scale, d, lora.b(&module.b, module.outputs));
        }
        let dlow = Mat::dense(&dlow, rows, width);
        let masked = lora.input(x, self.inputs);
        let da = MatMut::dense(&mut dtheta[lora.slot.a.clone()], width, self.inputs);
        gemm(da, Write::Add, 1.0, dlow.t(), Mat::dense(&masked, rows, self.inputs));
        let Some(dx) = dx else { return };
        match lora.dropout {
            None => {
                let dst = MatMut::dense(dx, rows, self.inputs);
                gemm(dst, Write::Add, 1.0, dlow, lora.a(self.inputs));
            }
            Some((dropout, layer, slot)) => {
                let mut dmasked = Buffer::any(rows * self.inputs);
                let dst = MatMut::dense(&mut dmasked, rows, self.inputs);
                gemm(dst, Write::Replace, 1.0, dlow, lora.a(self.inputs));
                dropout.apply(layer, slot, self.inputs, &dmasked, dx, true);
            }
        }
    }
}
