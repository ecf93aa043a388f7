//! Candle custom operations around the hand-written layers.
//!
//! Each wraps one forward pass and keeps what its gradient needs until the way back asks
//! for it. They run on the CPU only; candle reports any other device as an error.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Storage, Tensor, bail,
};

use crate::kernel::dropout::Dropout;
use crate::kernel::head::{self, Head, Target};
use crate::kernel::{Segments, rope};
use crate::model::Weigh;
use crate::model::layout::{AdapterLayout, LayerLayout};

use super::block::{Block, Grads, Saved};

/// A read lock on a contiguous `f32` CPU tensor, seen as its elements.
struct Elements<G> {
    guard: G,
    start: usize,
    end: usize,
}

/// Borrows a tensor's elements.
///
/// # Errors
/// When the tensor is not contiguous, not `f32` or not on the CPU.
pub(crate) fn elements(tensor: &Tensor) -> Result<impl Deref<Target = [f32]> + '_> {
    let (guard, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("tensor is not contiguous") };
    match &*guard {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(Elements { guard, start, end }),
        Storage::Cpu(_) | Storage::Cuda(_) | Storage::Metal(_) => {
            bail!("tensor is not f32 on the CPU")
        }
    }
}

impl<G: Deref<Target = Storage>> Deref for Elements<G> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.guard {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.start..self.end],
            Storage::Cpu(_) | Storage::Cuda(_) | Storage::Metal(_) => &[],
        }
    }
}

pub(super) fn stored<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("tensor is not contiguous") };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

pub(super) fn unlock<T>(result: std::result::Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}

/// Looks up token embeddings; trains the table.
#[derive(Debug)]
pub(crate) struct EmbedOp {
    pub(crate) ids: Arc<[u32]>,
}

/// Gathers the rows of `table` (`vocab x hidden`) that `ids` name.
pub(crate) fn embed(table: &[f32], hidden: usize, ids: &[u32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(ids.len() * hidden);
    for &id in ids {
        let at = id as usize * hidden;
        out.extend_from_slice(&table[at..at + hidden]);
    }
    out
}

impl CustomOp1 for EmbedOp {
    fn name(&self) -> &'static str {
        "tiltyard-embed"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, hidden) = layout.shape().dims2()?;
        let out = embed(stored(table, layout)?, hidden, &self.ids);
        Ok((CpuStorage::F32(out), (self.ids.len(), hidden).into()))
    }

    fn bwd(&self, table: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (vocab, hidden) = table.dims2()?;
        let grad = grad.contiguous()?;
        let grad = elements(&grad)?;
        let mut out = vec![0f32; vocab * hidden];
        for (&id, row) in self.ids.iter().zip(grad.chunks_exact(hidden)) {
            let at = id as usize * hidden;
            crate::kernel::math::add_into(&mut out[at..at + hidden], row);
        }
        Ok(Some(Tensor::from_vec(out, (vocab, hidden), &Device::Cpu)?))
    }
}

/// Which of a layer's parameters the second operand of [`BlockOp`] is.
#[derive(Debug, Clone)]
pub(crate) enum Trains {
    /// The layer's own weights; there is no adapter.
    Base,
    /// The adapter; the layer's weights are frozen and held here.
    Adapter { base: Tensor, layout: Arc<AdapterLayout> },
}

/// One decoder layer: operands are its input and its trained parameters.
#[derive(Debug)]
pub(crate) struct BlockOp {
    pub(crate) trains: Trains,
    pub(crate) layout: Arc<LayerLayout>,
    pub(crate) rope: Arc<rope::Table>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) layer: usize,
    pub(crate) dropout: Option<Dropout>,
    /// Whether the gradient towards the input is wanted.
    pub(crate) wants_dx: bool,
    /// Whether to run the forward pass again instead of keeping its activations.
    pub(crate) recompute: bool,
    pub(crate) saved: Mutex<Option<Saved>>,
}

impl BlockOp {
    fn with_block<R>(&self, theta: &[f32], f: impl FnOnce(&Block<'_>) -> R) -> Result<R> {
        let block = |base: &[f32], adapter: Option<(&AdapterLayout, &[f32])>| {
            f(&Block {
                layout: &self.layout,
                base,
                adapter,
                rope: &self.rope,
                segments: &self.segments,
                layer: self.layer,
                dropout: self.dropout,
            })
        };
        match &self.trains {
            Trains::Base => Ok(block(theta, None)),
            Trains::Adapter { base, layout } => Ok(block(&elements(base)?, Some((layout, theta)))),
        }
    }
}

impl CustomOp2 for BlockOp {
    fn name(&self) -> &'static str {
        "tiltyard-block"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        theta: &CpuStorage,
        theta_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, theta) = (stored(x, x_layout)?, stored(theta, theta_layout)?);
        let (out, saved) = self.with_block(theta, |block| block.forward(x))?;
        if !self.recompute {
            *unlock(self.saved.lock()) = Some(saved);
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        theta: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x_shape, theta_shape) = (x.shape(), theta.shape());
        let grad = grad.contiguous()?;
        let (x, theta, grad) = (elements(x)?, elements(theta)?, elements(&grad)?);
        let saved = unlock(self.saved.lock()).take();
        let mut dtheta = vec![0f32; theta.len()];
        let dx = self.with_block(&theta, |block| {
            let saved = saved.unwrap_or_else(|| block.forward(&x).1);
            let mut grads = match &self.trains {
                Trains::Base => Grads { base: Some(&mut dtheta), adapter: None },
                Trains::Adapter { .. } => Grads { base: None, adapter: Some(&mut dtheta) },
            };
            block.backward(&x, &saved, &grad, self.wants_dx, &mut grads)
        })?;
        let dx = dx.map(|dx| Tensor::from_vec(dx, x_shape, &Device::Cpu)).transpose()?;
        Ok((dx, Some(Tensor::from_vec(dtheta, theta_shape, &Device::Cpu)?)))
    }
}

/// The loss and the weight of each target, left by a head for its caller.
pub(crate) type LossesAndWeights = Arc<Mutex<(Vec<f64>, Vec<f32>)>>;

/// Gradients computed with the head's forward pass: towards its input, norm and matrix.
pub(crate) type HeadStash = (Vec<f32>, Option<Vec<f32>>, Option<Vec<f32>>);

/// The head: operands are the last hidden states, the final norm and the output matrix.
///
/// The result is the weighted sum of losses; the unweighted loss of each target is
/// left in `losses`.
#[derive(Debug)]
pub(crate) struct HeadOp {
    pub(crate) targets: Arc<[Target]>,
    pub(crate) weigh: Option<Weigh>,
    pub(crate) eps: f32,
    /// Whether the norm and the matrix are trained.
    pub(crate) trains: bool,
    /// The loss and the weight of each target.
    pub(crate) losses: LossesAndWeights,
    pub(crate) stash: Mutex<Option<HeadStash>>,
}

impl CustomOp3 for HeadOp {
    fn name(&self) -> &'static str {
        "tiltyard-head"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        norm: &CpuStorage,
        norm_layout: &Layout,
        matrix: &CpuStorage,
        matrix_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = stored(x, x_layout)?;
        let (norm, matrix) = (stored(norm, norm_layout)?, stored(matrix, matrix_layout)?);
        let mut dx = vec![0f32; x.len()];
        let mut dnorm = self.trains.then(|| vec![0f32; norm.len()]);
        let mut dmatrix = self.trains.then(|| vec![0f32; matrix.len()]);
        let grads = head::Grads { dx: &mut dx, dnorm: dnorm.as_deref_mut(), dmatrix: dmatrix.as_deref_mut() };
        let head = Head { norm, matrix, eps: self.eps };
        let reweighed = self.weigh.as_ref().map(|weigh| {
            let weights = weigh.weights(&head.losses(x, &self.targets, None));
            let weighted = self.targets.iter().zip(weights);
            weighted.map(|(target, weight)| Target { weight, ..*target }).collect::<Vec<_>>()
        });
        let targets = reweighed.as_deref().unwrap_or(&self.targets);
        if targets.len() != self.targets.len() {
            bail!("{} weights were made for {} targets", targets.len(), self.targets.len());
        }
        let losses = head.losses(x, targets, Some(grads));
        let weighted = losses.iter().zip(targets);
        let total: f64 = weighted.map(|(loss, target)| loss * f64::from(target.weight)).sum();
        *unlock(self.losses.lock()) = (losses, targets.iter().map(|target| target.weight).collect());
        *unlock(self.stash.lock()) = Some((dx, dnorm, dmatrix));
        Ok((CpuStorage::F32(vec![total as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        x: &Tensor,
        norm: &Tensor,
        matrix: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some((dx, dnorm, dmatrix)) = unlock(self.stash.lock()).take() else {
            bail!("the head's gradient was already taken")
        };
        let scale = grad.to_scalar::<f32>()?;
        let tensor = |mut values: Vec<f32>, like: &Tensor| {
            if scale != 1.0 {
                values.iter_mut().for_each(|v| *v *= scale);
            }
            Tensor::from_vec(values, like.shape(), &Device::Cpu)
        };
        let dnorm = dnorm.map(|d| tensor(d, norm)).transpose()?;
        let dmatrix = dmatrix.map(|d| tensor(d, matrix)).transpose()?;
        Ok((Some(tensor(dx, x)?), dnorm, dmatrix))
    }
}
