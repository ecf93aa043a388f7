//! One decoder layer, forward and backward, over slices.

use crate::kernel::buffer::Buffer;
use crate::kernel::dropout::Dropout;
use crate::kernel::{Segments, attention, math, norm, rope, swiglu};
use crate::model::layout::{AdapterLayout, LayerLayout, Slot};

use super::linear::{Grads as GroupGrads, Group, Lora};

/// One layer with everything its passes read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    pub(crate) layout: &'a LayerLayout,
    /// The layer's flat weights.
    pub(crate) base: &'a [f32],
    /// The layer's flat adapter, when it has one.
    pub(crate) adapter: Option<(&'a AdapterLayout, &'a [f32])>,
    pub(crate) rope: &'a rope::Table,
    pub(crate) segments: &'a Segments,
    pub(crate) layer: usize,
    pub(crate) dropout: Option<Dropout>,
}

/// What the backward pass needs from the forward pass; each is `rows x width`.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    normed: Buffer,
    /// Query, key and value before their heads are normalized; empty when they are not.
    raw: Vec<f32>,
    qkv: Buffer,
    attended: Buffer,
    middle: Buffer,
    post_normed: Buffer,
    gate_up: Buffer,
    gated: Buffer,
    low: [Buffer; 4],
}

impl Saved {
    /// The turned queries and keys, and the values, of every row.
    pub(crate) fn qkv(&self) -> &[f32] {
        &self.qkv
    }
}

/// Where the layer adds its parameter gradients; `None` for frozen parameters.
#[derive(Debug)]
pub(crate) struct Grads<'a> {
    pub(crate) base: Option<&'a mut [f32]>,
    pub(crate) adapter: Option<&'a mut [f32]>,
}

impl Grads<'_> {
    fn group(&mut self, layout: &LayerLayout, slot: Slot) -> GroupGrads<'_> {
        GroupGrads {
            weight: self.base.as_deref_mut().map(|base| &mut base[layout.slots[slot.index()].clone()]),
            adapter: self.adapter.as_deref_mut(),
        }
    }
}

impl Block<'_> {
    fn group(&self, slot: Slot) -> Group<'_> {
        let (inputs, outputs) = self.layout.slot_shape(slot);
        let adapter = self.adapter.and_then(|(layout, theta)| {
            layout.slot(slot).map(|adapter| Lora {
                slot: adapter,
                theta,
                rank: layout.rank,
                scale: layout.scale,
                dropout: self.dropout.map(|dropout| (dropout, self.layer, slot.index())),
            })
        });
        let weight = &self.base[self.layout.slots[slot.index()].clone()];
        Group { weight, inputs, outputs, adapter }
    }

    fn run(&self, slot: Slot, x: &[f32], saved: &mut Saved) -> Buffer {
        let (rows, group) = (self.segments.total(), self.group(slot));
        let mut out = Buffer::any(rows * group.outputs);
        saved.low[slot.index()] = group.forward(x, rows, &mut out);
        out
    }

    fn norm(&self, x: &[f32], range: &std::ops::Range<usize>) -> Buffer {
        let mut out = Buffer::any(x.len());
        norm::forward(x, &self.base[range.clone()], self.layout.eps, &mut out);
        out
    }

    fn turn(&self, qkv: &mut [f32], turn: rope::Turn) {
        let heads = self.layout.heads;
        self.rope.turn(qkv, heads.row(), heads.query + heads.key, self.segments, turn);
    }

    /// Adds the bias and normalizes the heads, where the layer has them; returns what was normalized.
    pub(crate) fn shift_and_norm(&self, qkv: &mut [f32]) -> Vec<f32> {
        let (layout, heads) = (self.layout, self.layout.heads);
        if let Some(bias) = &layout.qkv_bias {
            for row in qkv.chunks_exact_mut(heads.row()) {
                math::add_into(row, &self.base[bias.clone()]);
            }
        }
        let Some(norms) = &layout.head_norms else { return Vec::new() };
        let raw = qkv.to_vec();
        for (row, raw) in qkv.chunks_exact_mut(heads.row()).zip(raw.chunks_exact(heads.row())) {
            for (norm, columns) in norms.iter().zip(heads.turned()) {
                let weight = &self.base[norm.clone()];
                norm::forward(&raw[columns.clone()], weight, layout.eps, &mut row[columns]);
            }
        }
        raw
    }

    /// Turns the gradient after [`Self::shift_and_norm`] into the one before it.
    fn back_shift_and_norm(&self, raw: &[f32], dqkv: &mut [f32], grads: &mut Grads<'_>) {
        let (layout, heads) = (self.layout, self.layout.heads);
        if let Some(norms) = &layout.head_norms {
            for (drow, raw) in dqkv.chunks_exact_mut(heads.row()).zip(raw.chunks_exact(heads.row())) {
                for (norm, columns) in norms.iter().zip(heads.turned()) {
                    let dy = drow[columns.clone()].to_vec();
                    drow[columns.clone()].fill(0.0);
                    self.back_norm(norm, &raw[columns.clone()], &dy, &mut drow[columns], grads);
                }
            }
        }
        if let (Some(bias), Some(dbase)) = (&layout.qkv_bias, grads.base.as_deref_mut()) {
            for drow in dqkv.chunks_exact(heads.row()) {
                math::add_into(&mut dbase[bias.clone()], drow);
            }
        }
    }

    /// Computes the layer's output for `x` (`rows x hidden`), and what [`Self::backward`] needs.
    pub(crate) fn forward(&self, x: &[f32]) -> (Vec<f32>, Saved) {
        let (layout, rows) = (self.layout, self.segments.total());
        let mut saved = Saved { normed: self.norm(x, &layout.input_norm), ..Saved::default() };
        let normed = std::mem::take(&mut saved.normed);
        saved.qkv = self.run(Slot::AttentionIn, &normed, &mut saved);
        saved.normed = normed;
        saved.raw = self.shift_and_norm(&mut saved.qkv);
        self.turn(&mut saved.qkv, rope::Turn::Forward);
        let mut attended = Buffer::any(rows * layout.heads.query * layout.heads.dim);
        attention::forward(layout.heads, &saved.qkv, self.segments, &mut attended);
        let mut middle = self.run(Slot::AttentionOut, &attended, &mut saved);
        math::add_into(&mut middle, x);
        let post_normed = self.norm(&middle, &layout.post_norm);
        let gate_up = self.run(Slot::MlpIn, &post_normed, &mut saved);
        let mut gated = Buffer::any(rows * layout.inner);
        swiglu::forward(&gate_up, layout.inner, &mut gated);
        let mut out = self.run(Slot::MlpOut, &gated, &mut saved);
        math::add_into(&mut out, &middle);
        let out = out.to_vec();
        let saved = Saved { attended, middle, post_normed, gate_up, gated, ..saved };
        (out, saved)
    }

    fn few(&self, slot: Slot, x: &[f32]) -> Vec<f32> {
        let group = self.group(slot);
        let mut out = vec![0f32; x.len() / group.inputs * group.outputs];
        group.forward_few(x, &mut out);
        out
    }

    /// Computes the layer's output for one new row of each of several sequences.
    ///
    /// `attend` is given every row's number and queries, keys and values (not yet turned),
    /// and writes what the row's attention gives.
    pub(crate) fn step(&self, x: &[f32], mut attend: impl FnMut(usize, &mut [f32], &mut [f32])) -> Vec<f32> {
        let (layout, heads) = (self.layout, self.layout.heads);
        let mut qkv = self.few(Slot::AttentionIn, &self.norm(x, &layout.input_norm));
        self.shift_and_norm(&mut qkv);
        let width = heads.query * heads.dim;
        let mut attended = vec![0f32; x.len() / layout.hidden * width];
        let rows = qkv.chunks_exact_mut(heads.row()).zip(attended.chunks_exact_mut(width));
        for (at, (qkv, attended)) in rows.enumerate() {
            attend(at, qkv, attended);
        }
        let mut middle = self.few(Slot::AttentionOut, &attended);
        math::add_into(&mut middle, x);
        let gate_up = self.few(Slot::MlpIn, &self.norm(&middle, &layout.post_norm));
        let mut gated = vec![0f32; gate_up.len() / 2];
        swiglu::forward(&gate_up, layout.inner, &mut gated);
        let mut out = self.few(Slot::MlpOut, &gated);
        math::add_into(&mut out, &middle);
        out
    }

    fn back(&self, slot: Slot, x: &[f32], saved: &Saved, dout: &[f32], grads: &mut Grads<'_>) -> Buffer {
        let (rows, group) = (self.segments.total(), self.group(slot));
        let mut dx = Buffer::any(rows * group.inputs);
        let low = &saved.low[slot.index()];
        group.backward(x, rows, low, dout, Some(&mut dx), grads.group(self.layout, slot));
        dx
    }

    fn back_norm(
        &self,
        range: &std::ops::Range<usize>,
        x: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        grads: &mut Grads<'_>,
    ) {
        let dweight = grads.base.as_deref_mut().map(|base| &mut base[range.clone()]);
        norm::backward(x, &self.base[range.clone()], self.layout.eps, dy, dx, dweight);
    }

    /// Adds the layer's parameter gradients and returns the gradient towards `x`.
    ///
    /// `wants_dx = false` (the first layer under a frozen embedding) returns `None`
    /// and skips the work.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        saved: &Saved,
        dout: &[f32],
        wants_dx: bool,
        grads: &mut Grads<'_>,
    ) -> Option<Vec<f32>> {
        let (layout, rows) = (self.layout, self.segments.total());
        let dgated = self.back(Slot::MlpOut, &saved.gated, saved, dout, grads);
        let mut dgate_up = Buffer::any(rows * 2 * layout.inner);
        swiglu::backward(&saved.gate_up, layout.inner, &dgated, &mut dgate_up);
        let dpost = self.back(Slot::MlpIn, &saved.post_normed, saved, &dgate_up, grads);
        let mut dmiddle = dout.to_vec();
        self.back_norm(&layout.post_norm, &saved.middle, &dpost, &mut dmiddle, grads);
        let dattended = self.back(Slot::AttentionOut, &saved.attended, saved, &dmiddle, grads);
        let mut dqkv = Buffer::zeros(rows * layout.heads.row());
        let (qkv, attended) = (&saved.qkv, &saved.attended);
        attention::backward(layout.heads, qkv, self.segments, attended, &dattended, &mut dqkv);
        self.turn(&mut dqkv, rope::Turn::Backward);
        self.back_shift_and_norm(&saved.raw, &mut dqkv, grads);
        if !wants_dx && grads.base.is_none() {
            let group = self.group(Slot::AttentionIn);
            let low = &saved.low[Slot::AttentionIn.index()];
            let grads = grads.group(layout, Slot::AttentionIn);
            group.backward(&saved.normed, rows, low, &dqkv, None, grads);
            return None;
        }
        let dnormed = self.back(Slot::AttentionIn, &saved.normed, saved, &dqkv, grads);
        self.back_norm(&layout.input_norm, x, &dnormed, &mut dmiddle, grads);
        Some(dmiddle)
    }
}
