//! A causal language model (Llama, Qwen2, Qwen3), or a transformer over an image's patches
//! ([`image`]): loading, losses and gradients.
//!
//! Inference runs the slice kernels directly. Training runs a chain of one operation per
//! decoder layer and one for the head, forward and back. Only what is trained gets a gradient.

pub mod adapter;
mod batch;
pub mod config;
pub mod estimate;
pub mod folder;
pub mod generate;
pub mod image;
pub mod layout;
mod pass;
pub mod rotary;
mod stock;
pub(crate) mod weights;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Tensor, Var};
use tiltyard_proto::score::Fault;

use crate::kernel::rope;
use crate::safe::{LoadError, TensorSet, read_small};

pub use batch::{Batch, Patches, Weigh};
use config::{Config, ConfigError};
use layout::{AdapterLayout, LayerLayout};
pub(crate) use pass::INVARIANT_ROWS;
pub use pass::{Gradients, Pass};
pub use weights::FileType;
use weights::Weights;

/// Longest context this engine tabulates, in tokens, whatever a configuration claims.
pub const CONTEXT_MAX: usize = 8_192;

/// Says why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file is refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `config.json` is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A batch that does not fit the model.
    #[error("batch does not fit the model: {fact}")]
    Batch {
        /// What does not fit.
        fact: String,
    },
    /// A file could not be written in its format.
    #[error("weights cannot be encoded: {fact}")]
    Encode {
        /// What failed.
        fact: String,
    },
    /// A tensor failed: a bug or a lack of memory.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl ModelError {
    /// The fault that a judge reports for an entrant that causes this.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Load(error) => error.fault(),
            Self::Config(_) => Fault::Malformed,
            Self::Batch { .. } => Fault::EvaluationUnusable,
            Self::Encode { .. } | Self::Tensor(_) => Fault::Crashed,
        }
    }
}

/// What a model trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trained {
    Nothing,
    Base,
    Adapter,
}

/// A low-rank adapter's parameters: one flat vector per layer.
#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    pub(crate) layout: Arc<AdapterLayout>,
    pub(crate) layers: Vec<Tensor>,
}

/// A model with an optional adapter.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) layout: Arc<LayerLayout>,
    rope: Arc<rope::Table>,
    pub(crate) base: Weights,
    pub(crate) adapter: Option<Adapter>,
    trained: Trained,
    /// Where gradients are computed, when not here.
    elsewhere: Option<Arc<stock::Elsewhere>>,
}

impl Model {
    /// Loads a Hugging Face folder: `config.json` and weights in one file or several, each of at most
    /// `limit` bytes.
    ///
    /// # Errors
    /// [`ModelError`] naming the file and the rule it breaks.
    pub fn load(folder: &Path, limit: u64) -> Result<Self, ModelError> {
        let config = Config::from_json(&read_small(&folder.join("config.json"))?)?;
        let layout = LayerLayout::new(&config);
        let weights = Weights::load_base(&TensorSet::read(folder, limit)?, &config, &layout)?;
        Ok(Self::assemble(config, layout, weights))
    }

    /// Replaces the base weights by a fully tuned checkpoint of exactly the same tensors.
    ///
    /// # Errors
    /// [`ModelError::Load`] naming the rule the file breaks.
    pub fn load_checkpoint(&mut self, folder: &Path, limit: u64) -> Result<(), ModelError> {
        let path = folder.join("model.safetensors");
        self.base = Weights::load(&path, limit, &self.config, &self.layout)?;
        self.use_adapter(None);
        Ok(())
    }

    /// Starts a model of random weights.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when the tensors cannot be made.
    pub fn random(config: Config, seed: u64) -> Result<Self, ModelError> {
        let layout = LayerLayout::new(&config);
        let weights = Weights::random(&config, &layout, seed)?;
        Ok(Self::assemble(config, layout, weights))
    }

    fn assemble(config: Config, layout: LayerLayout, base: Weights) -> Self {
        let positions = config.positions.min(CONTEXT_MAX);
        let rope = rope::Table::new(&config.rotary.frequencies(config.head_dim), positions);
        Self {
            config,
            layout: Arc::new(layout),
            rope: Arc::new(rope),
            base,
            adapter: None,
            trained: Trained::Nothing,
            elsewhere: None,
        }
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The longest sequence it takes, in tokens.
    pub fn context(&self) -> usize {
        self.rope.positions()
    }

    /// The number of base parameters.
    pub fn parameters(&self) -> usize {
        self.base.all().iter().map(|tensor| tensor.elem_count()).sum()
    }

    /// Makes every base weight trainable and drops any adapter.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when the variables cannot be made.
    pub fn train_base(&mut self) -> Result<(), ModelError> {
        self.base = self.base.try_map(|tensor| Ok(Var::from_tensor(tensor)?.as_tensor().clone()))?;
        self.adapter = None;
        self.trained = Trained::Base;
        Ok(())
    }

    /// Freezes the base and trains `adapter`.
    pub(crate) fn train_adapter(&mut self, adapter: Adapter) -> Result<(), ModelError> {
        let layers = adapter.layers.iter();
        let layers = layers.map(|tensor| Ok(Var::from_tensor(tensor)?.as_tensor().clone()));
        let layers = layers.collect::<candle_core::Result<_>>()?;
        self.adapter = Some(Adapter { layers, ..adapter });
        self.trained = Trained::Adapter;
        Ok(())
    }

    /// Uses `adapter` for inference, unmerged.
    pub(crate) fn use_adapter(&mut self, adapter: Option<Adapter>) {
        self.adapter = adapter;
        self.trained = Trained::Nothing;
    }

    /// Goes on training the adapter in use.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when the variables cannot be made.
    pub fn train_current_adapter(&mut self) -> Result<(), ModelError> {
        match self.adapter.take() {
            None => Ok(()),
            Some(adapter) => self.train_adapter(adapter),
        }
    }

    /// Splits values in the order of the trained parameters into named tensors, as on disk.
    ///
    /// Adapter names come without PEFT's `base_model.model.` prefix.
    pub fn name_values(&self, values: &[Vec<f32>]) -> BTreeMap<String, Vec<f32>> {
        match (self.trained, &self.adapter) {
            (Trained::Base, _) => Weights::name_values(&self.config, &self.layout, values),
            (Trained::Adapter, Some(adapter)) => adapter.name_values(values),
            (Trained::Adapter | Trained::Nothing, _) => BTreeMap::new(),
        }
    }

    /// Takes one first step of AdamW at `rate`, without clipping: for tests and experiments;
    /// a [`crate::fit::run::Run`] keeps the moments.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when the gradients are not this model's.
    pub fn descend(&self, gradients: &Gradients, rate: f32) -> Result<(), ModelError> {
        let sizes = self.variables().into_iter().map(|variable| variable.elem_count());
        let mut moments = crate::fit::optim::Moments::zero(sizes);
        let plain = crate::fit::optim::AdamW { clip: None, ..Default::default() };
        plain.apply(&self.variables(), &gradients.values, &mut moments, rate)?;
        Ok(())
    }

    /// The trained parameters, in one fixed order; empty when nothing is trained.
    pub(crate) fn variables(&self) -> Vec<&Tensor> {
        match (self.trained, &self.adapter) {
            (Trained::Base, _) => self.base.all(),
            (Trained::Adapter, Some(adapter)) => adapter.layers.iter().collect(),
            (Trained::Adapter | Trained::Nothing, _) => Vec::new(),
        }
    }

    /// This model with other values of the trained parameters, for measuring and writing.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when they have other sizes.
    pub(crate) fn with_parameters(&self, values: &[Vec<f32>]) -> Result<Self, ModelError> {
        let mut values = values.iter();
        let mut replace = |old: &Tensor| {
            let values = values.next().cloned().unwrap_or_default();
            Tensor::from_vec(values, old.shape(), &candle_core::Device::Cpu)
        };
        let mut model = self.clone();
        match (self.trained, &self.adapter) {
            (Trained::Base, _) => model.base = self.base.try_map(replace)?,
            (Trained::Adapter, Some(adapter)) => {
                let layers = adapter.layers.iter().map(&mut replace).collect::<candle_core::Result<_>>()?;
                model.adapter = Some(Adapter { layers, ..adapter.clone() });
            }
            (Trained::Adapter | Trained::Nothing, _) => {}
        }
        model.trained = Trained::Nothing;
        Ok(model)
    }

    /// The same base with the adapter switched off: the reference of DPO and GRPO.
    ///
    /// Shares the weights; nothing is copied. While all weights are trained this is the
    /// model itself: keep a clone of the base from before.
    pub fn without_adapter(&self) -> Self {
        Self { adapter: None, trained: Trained::Nothing, ..self.clone() }
    }

    /// Returns the bytes of a `model.safetensors` of the base weights.
    ///
    /// # Errors
    /// [`ModelError::Encode`] when the format refuses them.
    pub fn to_safetensors(&self, file_type: FileType) -> Result<Vec<u8>, ModelError> {
        self.base.to_safetensors(&self.config, &self.layout, file_type)
    }
}
