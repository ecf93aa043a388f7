//! A causal language model (Llama, Qwen2, Qwen3): loading, losses and gradients.
//!
//! Inference runs the slice kernels directly. Training puts one node per decoder
//! layer and one for the head on candle's tape, which carries the gradients between
//! them. Only what is trained gets a gradient.

pub mod adapter;
pub mod config;
pub mod folder;
pub mod layout;
pub mod rotary;
pub(crate) mod weights;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Tensor, Var};
use tiltyard_proto::score::Fault;

use crate::kernel::dropout::Dropout;
use crate::kernel::head::{Head, Target};
use crate::kernel::{Segments, rope};
use crate::ops::block::Block;
use crate::ops::tape::{BlockOp, EmbedOp, HeadOp, Trains, elements, embed};
use crate::safe::{LoadError, TensorSet, read_small};

use config::{Config, ConfigError};
use layout::{AdapterLayout, LayerLayout};
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
    /// The tape failed: a bug or a lack of memory.
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

/// Sequences laid end to end, and the positions whose next token is predicted.
#[derive(Debug, Clone)]
pub struct Batch {
    ids: Arc<[u32]>,
    segments: Arc<Segments>,
    targets: Arc<[Target]>,
    first_row: u64,
}

impl Batch {
    /// Joins sequences and their targets; target rows count from the first sequence's start.
    ///
    /// `first_row` is the position of the first token inside the whole step's tokens;
    /// dropout is keyed by it.
    pub fn new(sequences: &[&[u32]], targets: Vec<Target>, first_row: u64) -> Self {
        let segments = Segments::new(sequences.iter().map(|sequence| sequence.len()));
        Self {
            ids: sequences.concat().into(),
            segments: Arc::new(segments),
            targets: targets.into(),
            first_row,
        }
    }

    /// Tokens in the batch.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The positions predicted, in order.
    pub fn targets(&self) -> &[Target] {
        &self.targets
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

/// How a training pass runs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pass {
    /// Seed, step and share of adapter dropout; `None` drops nothing.
    pub dropout: Option<(u64, u64, u32)>,
    /// Whether to run each layer's forward pass again instead of keeping activations.
    pub recompute: bool,
}

/// The losses and gradients of one micro-batch.
#[derive(Debug)]
pub struct Gradients {
    /// Natural-log loss of each target, in order, unweighted.
    pub losses: Vec<f64>,
    /// The gradient of the weighted sum of losses, one vector per trained parameter; see
    /// [`Model::name_values`].
    pub values: Vec<Vec<f32>>,
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

    /// The trained parameters, in one fixed order; empty when nothing is trained.
    pub(crate) fn variables(&self) -> Vec<&Tensor> {
        match (self.trained, &self.adapter) {
            (Trained::Base, _) => self.base.all(),
            (Trained::Adapter, Some(adapter)) => adapter.layers.iter().collect(),
            (Trained::Adapter | Trained::Nothing, _) => Vec::new(),
        }
    }

    fn check(&self, batch: &Batch) -> Result<(), ModelError> {
        let wrong = |fact: String| Err(ModelError::Batch { fact });
        if batch.segments.longest() > self.context() {
            let (longest, context) = (batch.segments.longest(), self.context());
            return wrong(format!("a sequence of {longest} tokens exceeds the context of {context}"));
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

    fn hidden(&self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        let mut x = embed(&elements(&self.base.embed)?, self.config.hidden, &batch.ids);
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
    /// # Errors
    /// [`ModelError::Batch`] when the batch does not fit the model.
    pub fn losses(&self, batch: &Batch) -> Result<Vec<f64>, ModelError> {
        self.check(batch)?;
        let x = self.hidden(batch)?;
        let (norm, matrix) = (elements(&self.base.norm)?, elements(self.base.matrix())?);
        let head = Head { norm: &norm, matrix: &matrix, eps: self.config.rms_eps };
        Ok(head.losses(&x, &batch.targets, None))
    }

    /// Computes losses and the gradients of everything trained.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the batch does not fit; [`ModelError::Tensor`] when the tape fails.
    pub fn gradients(&self, batch: &Batch, pass: Pass) -> Result<Gradients, ModelError> {
        self.check(batch)?;
        let dropout =
            pass.dropout.and_then(|(seed, step, ppm)| Dropout::new(seed, step, ppm, batch.first_row));
        let mut x = self.embedded(batch)?;
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
            x = x.apply_op2(theta, op)?;
        }
        let losses = Arc::new(Mutex::new(Vec::new()));
        let head = HeadOp {
            targets: batch.targets.clone(),
            eps: self.config.rms_eps,
            trains: self.trained == Trained::Base,
            losses: losses.clone(),
            stash: Mutex::new(None),
        };
        let mut store = x.apply_op3(&self.base.norm, self.base.matrix(), head)?.backward()?;
        let mut values = Vec::new();
        for variable in self.variables() {
            values.push(match store.remove(variable) {
                Some(gradient) => elements(&gradient)?.to_vec(),
                None => vec![0.0; variable.elem_count()],
            });
        }
        let losses = std::mem::take(&mut *losses.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Gradients { losses, values })
    }

    fn embedded(&self, batch: &Batch) -> Result<Tensor, ModelError> {
        if self.trained == Trained::Base {
            return Ok(self.base.embed.apply_op1(EmbedOp { ids: batch.ids.clone() })?);
        }
        let x = embed(&elements(&self.base.embed)?, self.config.hidden, &batch.ids);
        let shape = (batch.ids.len(), self.config.hidden);
        Ok(Tensor::from_vec(x, shape, &candle_core::Device::Cpu)?)
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

    /// Returns the bytes of a `model.safetensors` of the base weights.
    ///
    /// # Errors
    /// [`ModelError::Encode`] when the format refuses them.
    pub fn to_safetensors(&self, file_type: FileType) -> Result<Vec<u8>, ModelError> {
        self.base.to_safetensors(&self.config, &self.layout, file_type)
    }
}
