//! Passes through a model: losses without gradients, and gradients.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use super::{Batch, Model, ModelError, Trained, image};
use crate::kernel::dropout::Dropout;
use crate::kernel::head::{Head, Target};
use crate::ops::block::Block;
use crate::ops::chain::Chain;
use crate::ops::image::FeatureOp;
use crate::ops::tape::{BlockOp, EmbedOp, HeadOp, LossesAndWeights, Trains, elements, embed};

/// Fewest rows run through the layers at once when the bits must not depend on the batch.
///
/// The matrix product takes other paths, which round otherwise, below 65 rows; above, an
/// element's bits depend on its row and column alone (a test holds it to that).
pub(crate) const INVARIANT_ROWS: usize = 65;

/// How a training pass runs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pass {
    /// Seed, step and share of adapter dropout; `None` drops nothing.
    pub dropout: Option<(u64, u64, u32)>,
    /// Whether to run each layer's forward pass again instead of keeping activations.
    pub recompute: bool,
}

/// The losses and gradients of one micro-batch.
#[derive(Debug, Default)]
pub struct Gradients {
    /// Natural-log loss of each target, in order, unweighted.
    pub losses: Vec<f64>,
    /// The weight of each target, in order, as the batch gave it or made it.
    pub weights: Vec<f32>,
    /// The gradient of the weighted sum of losses, one vector per trained parameter; see
    /// [`Model::name_values`].
    pub values: Vec<Vec<f32>>,
}

impl Model {
    pub(super) fn check(&self, batch: &Batch) -> Result<(), ModelError> {
        let wrong = |fact: String| Err(ModelError::Batch { fact });
        if batch.segments.longest() > self.context() {
            let (longest, context) = (batch.segments.longest(), self.context());
            return wrong(format!("a sequence of {longest} tokens exceeds the context of {context}"));
        }
        match (self.config.image(), &batch.patches) {
            (None, None) => {}
            (Some(shape), Some(patches)) => return self.check_patches(shape, patches),
            (Some(_), None) => {
                return wrong("an image model is given text; post a task of kind diffusion".into());
            }
            (None, Some(_)) => {
                return wrong("a language model is given images; name an image model's folder".into());
            }
        }
        let vocab = self.config.vocab;
        if let Some(id) = batch.ids.iter().find(|&&id| id as usize >= vocab) {
            return wrong(format!("token {id} is not in the vocabulary of {vocab}; wrong tokenizer?"));
        }
        let bad = |target: &&Target| target.row >= batch.ids.len() || target.token as usize >= vocab;
        match batch.targets.iter().find(bad) {
            None => Ok(()),
            Some(target) => wrong(format!("target {target:?} points outside the batch")),
        }
    }

    pub(super) fn hidden(&self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        let mut x = self.inputs(batch)?;
        for (layer, base) in self.base.layers.iter().enumerate() {
            let base = elements(base)?;
            let theta = self.adapter.as_ref().map(|adapter| elements(&adapter.layers[layer]));
            let theta = theta.transpose()?;
            let adapter = self.adapter.as_ref().zip(theta.as_deref());
            let block = Block {
                layout: &self.layout,
                base: &base,
                adapter: adapter.map(|(adapter, theta)| (adapter.layout.as_ref(), theta)),
                rope: &self.rope,
                segments: &batch.segments,
                layer,
                dropout: None,
            };
            x = block.forward(&x).0;
        }
        Ok(x)
    }

    /// Computes the natural-log loss of each target, without gradients or dropout.
    ///
    /// A target's loss depends on its own sequence and the weights alone: it has the same
    /// bits in any batch.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the batch does not fit the model.
    pub fn losses(&self, batch: &Batch) -> Result<Vec<f64>, ModelError> {
        self.check(batch)?;
        if let Some(patches) = &batch.patches {
            return self.patch_errors(batch, patches);
        }
        let Some(&last) = batch.targets.last() else { return Ok(Vec::new()) };
        let x = self.hidden(&batch.clone().padded(INVARIANT_ROWS))?;
        let (norm, matrix) = (elements(&self.base.norm)?, elements(self.base.matrix())?);
        let head = Head { norm: &norm, matrix: &matrix, eps: self.config.rms_eps };
        let mut targets = batch.targets.to_vec();
        targets.resize(targets.len().max(INVARIANT_ROWS), last);
        let mut losses = head.losses(&x, &targets, None);
        losses.truncate(batch.targets.len());
        Ok(losses)
    }

    /// Computes losses and the gradients of everything trained.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the batch does not fit; [`ModelError::Tensor`] when memory lacks.
    pub fn gradients(&self, batch: &Batch, pass: Pass) -> Result<Gradients, ModelError> {
        if self.elsewhere.is_some() {
            return self.stock_gradients(batch, pass);
        }
        self.check(batch)?;
        let dropout =
            pass.dropout.and_then(|(seed, step, ppm)| Dropout::new(seed, step, ppm, batch.first_row));
        let mut chain = Chain::default();
        let mut x = self.embedded(batch, &mut chain)?;
        for layer in 0..self.base.layers.len() {
            let (theta, trains) = self.block_parameters(layer);
            let wants_dx = layer > 0 || self.trained == Trained::Base;
            let op = BlockOp {
                trains,
                layout: self.layout.clone(),
                rope: self.rope.clone(),
                segments: batch.segments.clone(),
                layer,
                dropout,
                wants_dx,
                recompute: pass.recompute,
                saved: Mutex::new(None),
            };
            x = chain.next(x, theta, op)?;
        }
        let losses = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let (norm, matrix) = (&self.base.norm, self.base.matrix());
        let mut found = match &batch.patches {
            Some(patches) => chain.back(&x, norm, matrix, self.patch_head(patches, &losses))?,
            None => chain.back(&x, norm, matrix, self.token_head(batch, &losses))?,
        };
        drop(x);
        let mut values = Vec::new();
        for variable in self.variables() {
            let gradient = found.take(variable)?;
            values.push(gradient.unwrap_or_else(|| vec![0.0; variable.elem_count()]));
        }
        let (losses, weights) = std::mem::take(&mut *losses.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Gradients { losses, weights, values })
    }

    fn token_head(&self, batch: &Batch, losses: &LossesAndWeights) -> HeadOp {
        HeadOp {
            targets: batch.targets.clone(),
            weigh: batch.weigh.clone(),
            eps: self.config.rms_eps,
            trains: self.trained == Trained::Base,
            losses: losses.clone(),
            stash: Mutex::new(None),
        }
    }

    fn embedded(&self, batch: &Batch, chain: &mut Chain) -> Result<Tensor, ModelError> {
        if self.trained == Trained::Base {
            let table = &self.base.embed;
            return Ok(match &batch.patches {
                Some(patches) => chain.first(table, FeatureOp { patches: patches.clone() })?,
                None => chain.first(table, EmbedOp { ids: batch.ids.clone() })?,
            });
        }
        let shape = (batch.tokens(), self.config.hidden);
        Ok(Tensor::from_vec(self.inputs(batch)?, shape, &candle_core::Device::Cpu)?)
    }

    /// What the first layer is given.
    fn inputs(&self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        let table = elements(&self.base.embed)?;
        Ok(match &batch.patches {
            Some(patches) => image::embed(&table, self.config.hidden, &patches.features),
            None => embed(&table, self.config.hidden, &batch.ids),
        })
    }

    fn block_parameters(&self, layer: usize) -> (&Tensor, Trains) {
        let base = &self.base.layers[layer];
        match &self.adapter {
            None => (base, Trains::Base),
            Some(adapter) => {
                let layout = adapter.layout.clone();
                (&adapter.layers[layer], Trains::Adapter { base: base.clone(), layout })
            }
        }
    }
}
