//! The same model in candle's stock operations, for devices that the fused kernels do not run on.
//!
//! One sequence at a time, with candle's own automatic differentiation. On the CPU it is
//! the slow second opinion that the fused kernels are tested against; with the `cuda`
//! feature it is what a graphics card computes. The trained parameters and the optimizer
//! stay on the CPU; a step sends the parameters over and brings their gradients back.

use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor, Var, bail};

use super::layout::{Module, Slot, bias_ranges};
use super::weights::Weights;
use super::{Batch, Gradients, Model, ModelError, Pass, Trained};
use crate::kernel::dropout::Dropout;
use crate::ops::tape::elements;

/// A device and the frozen weights that lie on it.
#[derive(Debug, Clone)]
pub(crate) struct Elsewhere {
    device: Device,
    base: Weights,
}

/// A model's parameters on a device, for one pass.
struct Stock<'a> {
    model: &'a Model,
    device: &'a Device,
    base: Weights,
    adapter: Vec<Tensor>,
    dropout: Option<Dropout>,
}

impl Model {
    /// Computes the gradients of training on `device` with stock operations from now on.
    ///
    /// Evaluation and generation stay on the CPU, where every judge gets the same bits.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when the weights do not fit the device.
    pub fn train_on(&mut self, device: &Device) -> std::result::Result<(), ModelError> {
        let base = self.base.try_map(|tensor| tensor.to_device(device)?.copy())?;
        self.elsewhere = Some(Arc::new(Elsewhere { device: device.clone(), base }));
        Ok(())
    }

    /// Computes a batch's gradients with stock operations on the CPU or where
    /// [`Self::train_on`] says.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when the device fails.
    pub fn stock_gradients(&self, batch: &Batch, pass: Pass) -> std::result::Result<Gradients, ModelError> {
        self.check(batch)?;
        if self.config.image().is_some() {
            let fact = "image models are trained on the processor only; train on cpu".to_owned();
            return Err(ModelError::Batch { fact });
        }
        let cpu = Device::Cpu;
        let (device, frozen) = match &self.elsewhere {
            Some(elsewhere) => (&elsewhere.device, &elsewhere.base),
            None => (&cpu, &self.base),
        };
        let variable = |tensor: &Tensor| Var::from_tensor(&tensor.to_device(device)?);
        let adapter = self.adapter.as_ref().map(|adapter| adapter.layers.as_slice()).unwrap_or_default();
        let adapter: Vec<Var> = adapter.iter().map(variable).collect::<Result<_>>()?;
        let base: Vec<Var> = match self.trained {
            Trained::Base => self.base.all().into_iter().map(variable).collect::<Result<_>>()?,
            Trained::Adapter | Trained::Nothing => Vec::new(),
        };
        let mut moved = base.iter();
        let base_now = match self.trained {
            Trained::Base => self.base.try_map(|old| match moved.next() {
                Some(variable) => Ok(variable.as_tensor().clone()),
                None => Ok(old.clone()),
            })?,
            Trained::Adapter | Trained::Nothing => frozen.clone(),
        };
        let stock = Stock {
            model: self,
            device,
            base: base_now,
            adapter: adapter.iter().map(|variable| variable.as_tensor().clone()).collect(),
            dropout: pass
                .dropout
                .and_then(|(seed, step, ppm)| Dropout::new(seed, step, ppm, batch.first_row)),
        };
        let trained: &[Var] = if self.trained == Trained::Base { &base } else { &adapter };
        Ok(stock.gradients(batch, trained)?)
    }
}

impl Stock<'_> {
    fn gradients(&self, batch: &Batch, trained: &[Var]) -> Result<Gradients> {
        let losses = self.losses(batch)?;
        let values: Vec<f64> = losses.to_dtype(DType::F64)?.to_vec1()?;
        let weights: Vec<f32> = match &batch.weigh {
            Some(weigh) => weigh.weights(&values),
            None => batch.targets.iter().map(|target| target.weight).collect(),
        };
        let total = (losses * Tensor::new(weights.as_slice(), self.device)?)?.sum_all()?;
        let store = total.backward()?;
        let gradient = |variable: &Var| match store.get(variable.as_tensor()) {
            Some(gradient) => Ok(elements(&gradient.to_device(&Device::Cpu)?.contiguous()?)?.to_vec()),
            None => Ok(vec![0.0; variable.elem_count()]),
        };
        let gradients = trained.iter().map(gradient).collect::<Result<_>>()?;
        Ok(Gradients { losses: values, weights, values: gradients })
    }

    fn losses(&self, batch: &Batch) -> Result<Tensor> {
        let mut parts = Vec::new();
        for range in batch.segments.ranges() {
            let inside = batch.targets.iter().filter(|target| range.contains(&target.row));
            let (rows, golds): (Vec<u32>, Vec<u32>) =
                inside.map(|target| ((target.row - range.start) as u32, target.token)).unzip();
            if !rows.is_empty() {
                parts.push(self.sequence(&batch.ids[range.clone()], range.start, &rows, &golds)?);
            }
        }
        if parts.is_empty() {
            bail!("a batch without targets has no gradient")
        }
        Tensor::cat(&parts, 0)
    }

    /// Losses of one sequence's targets; `first` is its first row inside the batch.
    fn sequence(&self, ids: &[u32], first: usize, rows: &[u32], golds: &[u32]) -> Result<Tensor> {
        let config = &self.model.config;
        let tensor = |values: &[u32]| Tensor::new(values, self.device);
        let mut x = self.base.embed.index_select(&tensor(ids)?, 0)?;
        for layer in 0..config.layers {
            let layout = &self.model.layout;
            let flat = &self.base.layers[layer];
            let weight = |range: &std::ops::Range<usize>| flat.narrow(0, range.start, range.len());
            let normed = self.norm(&x, &weight(&layout.input_norm)?)?;
            x = (&x + self.attention(&normed, layer, first)?)?;
            let normed = self.norm(&x, &weight(&layout.post_norm)?)?;
            let gate = self.linear(&normed, layer, Module::Gate, first)?;
            let gate = (&gate / (gate.neg()?.exp()? + 1.0)?)?;
            let up = self.linear(&normed, layer, Module::Up, first)?;
            x = (&x + self.linear(&(gate * up)?, layer, Module::Down, first)?)?;
        }
        let x = self.norm(&x.index_select(&tensor(rows)?, 0)?, &self.base.norm)?;
        let logits = x.matmul(&self.base.matrix().t()?)?;
        let top = logits.max_keepdim(D::Minus1)?.detach();
        let total = logits.broadcast_sub(&top)?.exp()?.sum_keepdim(D::Minus1)?.log()?;
        let gold = logits.gather(&tensor(golds)?.unsqueeze(1)?, 1)?;
        ((total + top)? - gold)?.squeeze(1)
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let mean = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(self.model.config.rms_eps))?;
        x.broadcast_div(&mean.sqrt()?)?.broadcast_mul(weight)
    }

    fn linear(&self, x: &Tensor, layer: usize, module: Module, first: usize) -> Result<Tensor> {
        let layout = &self.model.layout;
        let (outputs, inputs) = layout.module_shape(module);
        let range = layout.module_range(module);
        let weight =
            self.base.layers[layer].narrow(0, range.start, range.len())?.reshape((outputs, inputs))?;
        let y = x.matmul(&weight.t()?)?;
        let Some((adapter, theta)) = self.model.adapter.as_ref().zip(self.adapter.get(layer)) else {
            return Ok(y);
        };
        let parts = adapter.layout.parts();
        let Some((_, a, b)) = parts.iter().find(|(found, _, _)| *found == module) else { return Ok(y) };
        let rank = adapter.layout.rank;
        let a = theta.narrow(0, a.start, a.len())?.reshape((rank, inputs))?;
        let b = theta.narrow(0, b.start, b.len())?.reshape((outputs, rank))?;
        let masked = self.masked(x, layer, module.slot(), first)?;
        let low = masked.matmul(&a.t()?)?.matmul(&b.t()?)?;
        y + (low * f64::from(adapter.layout.scale))?
    }

    /// The adapter's input under this step's dropout: the very mask the fused kernels draw.
    fn masked(&self, x: &Tensor, layer: usize, slot: Slot, first: usize) -> Result<Tensor> {
        let Some(dropout) = self.dropout else { return Ok(x.clone()) };
        let (rows, width) = x.dims2()?;
        let (ones, mut mask) = (vec![1f32; (first + rows) * width], vec![0f32; (first + rows) * width]);
        dropout.apply(layer, slot.index(), width, &ones, &mut mask, false);
        x * Tensor::from_slice(&mask[first * width..], (rows, width), self.device)?
    }

    fn rope(&self, x: &Tensor) -> Result<Tensor> {
        let (_, len, dim) = x.dims3()?;
        let half = dim / 2;
        let frequencies = self.model.config.rotary.frequencies(dim);
        let angle = |at: usize| f64::from((at / half) as f32 * frequencies[at % half]);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..len * half).map(|at| f(angle(at)) as f32).collect();
            Tensor::from_vec(values, (1, len, half), self.device)
        };
        let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
        let (low, high) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let turned_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
        let turned_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
        Tensor::cat(&[turned_low, turned_high], 2)
    }

    fn attention(&self, x: &Tensor, layer: usize, first: usize) -> Result<Tensor> {
        let (len, _) = x.dims2()?;
        let config = &self.model.config;
        let (query, key, dim) = (config.query_heads, config.key_heads, config.head_dim);
        let (layout, flat) = (&self.model.layout, &self.base.layers[layer]);
        let part = |range: &std::ops::Range<usize>| flat.narrow(0, range.start, range.len());
        let heads = |module: Module, heads: usize| {
            let mut y = self.linear(x, layer, module, first)?;
            let biases = layout.qkv_bias.iter().flat_map(|bias| bias_ranges(layout.heads, bias));
            for (_, range) in biases.filter(|(found, _)| *found == module) {
                y = y.broadcast_add(&part(&range)?)?;
            }
            y.reshape((len, heads, dim))?.transpose(0, 1)?.contiguous()
        };
        let norm = |y: Tensor, which: usize| match &layout.head_norms {
            None => Ok(y),
            Some(norms) => self.norm(&y, &part(&norms[which])?),
        };
        let q = self.rope(&norm(heads(Module::Query, query)?, 0)?)?;
        let k = self.rope(&norm(heads(Module::Key, key)?, 1)?)?;
        let v = heads(Module::Value, key)?;
        let spread = |y: &Tensor| {
            let wide = y.unsqueeze(1)?.broadcast_as((key, query / key, len, dim))?;
            wide.reshape((query, len, dim))?.contiguous()
        };
        let scores = (q.matmul(&spread(&k)?.t()?.contiguous()?)? * (1.0 / (dim as f64).sqrt()))?;
        let mask = |at: usize| if at % len > at / len { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..len * len).map(mask).collect();
        let scores = scores.broadcast_add(&Tensor::from_vec(mask, (1, len, len), self.device)?)?;
        let top = scores.max_keepdim(D::Minus1)?.detach();
        let shares = scores.broadcast_sub(&top)?.exp()?;
        let probs = shares.broadcast_div(&shares.sum_keepdim(D::Minus1)?)?;
        let out = probs.matmul(&spread(&v)?)?.transpose(0, 1)?.reshape((len, query * dim))?;
        self.linear(&out, layer, Module::Output, first)
    }
}
