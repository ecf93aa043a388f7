//! LoRA adapters in the format of the PEFT library: `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! Only what this engine computes is accepted: plain LoRA on the decoder's linear
//! layers. A setting that would change the arithmetic is refused, never ignored. Ranks
//! and scales that differ by layer become one: the largest rank, short factors filled
//! with zeros, and each layer's scale folded into its `B`.

mod peft;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tiltyard_proto::recipe::Method;
use tiltyard_proto::score::Fault;

use super::config::LAYERS_MAX;
use super::layout::{AdapterLayout, LayerLayout, Module};
use super::weights::{FileType, to_bytes, to_safetensors};
use super::{Adapter, Model, ModelError};
use crate::kernel::gemm::{Mat, MatMut, Write, gemm};
use crate::ops::tape::elements;
use crate::rng::Rng;
use crate::safe::{LoadError, TensorFile, read_bytes};

use peft::{Part, PeftConfig};

/// Largest rank accepted.
pub const RANK_MAX: u32 = 1_024;
/// Largest `adapter_config.json` accepted, in bytes.
const CONFIG_BYTES_MAX: u64 = 256 << 10;
/// The file with an adapter's settings.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file with an adapter's weights.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// What an adapter is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSpec {
    /// Rank of every adapted layer.
    pub rank: u32,
    /// Scale numerator; the product is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Adapted layers, in layout order.
    pub modules: Vec<Module>,
}

/// Says why an adapter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file is refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `adapter_config.json` is not readable as such.
    #[error("adapter_config.json cannot be read: {0}; save the adapter with PEFT again")]
    Json(#[from] serde_json::Error),
    /// A setting this engine does not compute.
    #[error(
        "adapter_config.json sets {key} = {value}, which is not plain LoRA on linear layers; retrain without it"
    )]
    Unsupported {
        /// The key.
        key: String,
        /// Its value, cut to 80 characters.
        value: String,
    },
    /// A rank of zero or beyond the limit.
    #[error("adapter has rank {rank}; 1 to {RANK_MAX} are accepted")]
    Rank {
        /// The rank.
        rank: u64,
    },
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl AdapterError {
    /// The fault that a judge reports for an entrant with this adapter.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Load(error) => error.fault(),
            Self::Json(_) | Self::Unsupported { .. } => Fault::Malformed,
            Self::Rank { .. } => Fault::OverLimits,
            Self::Model(error) => error.fault(),
        }
    }
}

impl AdapterSpec {
    /// Reads the LoRA settings of a recipe; `None` for full fine-tuning.
    pub fn from_method(method: &Method) -> Option<Self> {
        match *method {
            Method::Full => None,
            Method::Lora { rank, alpha_milli, targets, .. } => {
                let bits = Module::ALL.into_iter().enumerate();
                let modules = bits.filter(|(bit, _)| targets & (1 << bit) != 0).map(|(_, m)| m);
                Some(Self { rank, alpha: f64::from(alpha_milli) / 1_000.0, modules: modules.collect() })
            }
        }
    }

    /// Reads the bytes of an `adapter_config.json`, of an adapter on any base.
    ///
    /// # Errors
    /// [`AdapterError`] naming the first setting that is not plain LoRA.
    pub fn from_json(bytes: &[u8]) -> Result<Self, AdapterError> {
        Ok(PeftConfig::from_json(bytes)?.plan(LAYERS_MAX)?.0)
    }

    fn layout(&self, layer: &LayerLayout) -> AdapterLayout {
        let scale = (self.alpha / f64::from(self.rank.max(1))) as f32;
        AdapterLayout::new(layer, self.rank as usize, scale, &self.modules)
    }

    /// Returns the bytes of the `adapter_config.json` that PEFT loads.
    ///
    /// # Errors
    /// [`AdapterError::Json`] only when alpha is not finite, which reading excludes.
    pub fn to_json(&self) -> Result<Vec<u8>, AdapterError> {
        #[derive(Debug, Serialize, Deserialize)]
        struct Written<'a> {
            peft_type: &'a str,
            task_type: &'a str,
            base_model_name_or_path: Option<String>,
            r: u32,
            lora_alpha: Value,
            lora_dropout: f64,
            bias: &'a str,
            fan_in_fan_out: bool,
            inference_mode: bool,
            init_lora_weights: bool,
            modules_to_save: Option<Vec<String>>,
            target_modules: Vec<&'a str>,
            use_dora: bool,
            use_rslora: bool,
        }
        let whole = (self.alpha.fract() == 0.0).then_some(self.alpha as u64);
        let mut target_modules: Vec<&str> = self.modules.iter().map(|m| m.short_name()).collect();
        target_modules.sort_unstable();
        Ok(serde_json::to_vec_pretty(&Written {
            peft_type: "LORA",
            task_type: "CAUSAL_LM",
            base_model_name_or_path: None,
            r: self.rank,
            lora_alpha: whole.map_or_else(|| Value::from(self.alpha), Value::from),
            lora_dropout: 0.0,
            bias: "none",
            fan_in_fan_out: false,
            inference_mode: true,
            init_lora_weights: true,
            modules_to_save: None,
            target_modules,
            use_dora: false,
            use_rslora: false,
        })?)
    }
}

/// The PEFT name of one adapter matrix.
fn name(layer: usize, module: Module, matrix: char) -> String {
    format!("base_model.model.model.layers.{layer}.{}.lora_{matrix}.weight", module.path())
}

impl Adapter {
    /// Splits one flat vector per layer into named matrices, without PEFT's prefix.
    pub(crate) fn name_values(&self, values: &[Vec<f32>]) -> BTreeMap<String, Vec<f32>> {
        let mut named = BTreeMap::new();
        for (layer, values) in values.iter().enumerate() {
            for (module, a, b) in self.layout.parts() {
                for (matrix, range) in [('A', a), ('B', b)] {
                    let name = name(layer, module, matrix);
                    let name = name.trim_start_matches("base_model.model.").to_owned();
                    named.insert(name, values[range].to_vec());
                }
            }
        }
        named
    }

    /// Draws a fresh adapter as PEFT does: `A` uniform in ±1/sqrt(inputs), `B` zero.
    fn fresh(layout: Arc<AdapterLayout>, layers: usize, seed: u64) -> Result<Self, ModelError> {
        let mut rng = Rng::new(seed);
        let tensors = (0..layers).map(|_| {
            let mut theta = vec![0f32; layout.total];
            for (_, a, _) in layout.parts() {
                let bound = 1.0 / ((a.len() / layout.rank) as f32).sqrt();
                theta[a].iter_mut().for_each(|v| *v = (2.0 * rng.unit() - 1.0) * bound);
            }
            Tensor::from_vec(theta, layout.total, &Device::Cpu)
        });
        let layers = tensors.collect::<candle_core::Result<_>>()?;
        Ok(Self { layout, layers })
    }
}

impl Model {
    /// Freezes the base and trains a fresh adapter.
    ///
    /// # Errors
    /// [`AdapterError::Rank`] when the rank is out of bounds.
    pub fn train_new_adapter(&mut self, spec: &AdapterSpec, seed: u64) -> Result<(), AdapterError> {
        if !(1..=RANK_MAX).contains(&spec.rank) {
            return Err(AdapterError::Rank { rank: u64::from(spec.rank) });
        }
        let layout = Arc::new(spec.layout(&self.layout));
        let adapter = Adapter::fresh(layout, self.config.layers, seed)?;
        self.train_adapter(adapter)?;
        Ok(())
    }

    /// Loads a PEFT adapter folder for inference; it is applied unmerged.
    ///
    /// The weights file may have at most `limit` bytes and must hold exactly the
    /// adapter's factors for this base.
    ///
    /// # Errors
    /// [`AdapterError`] naming the file and the rule it breaks.
    pub fn load_adapter(&mut self, folder: &Path, limit: u64) -> Result<AdapterSpec, AdapterError> {
        let text = read_bytes(&folder.join(CONFIG_FILE), CONFIG_BYTES_MAX)?;
        let (spec, parts) = PeftConfig::from_json(&text)?.plan(self.config.layers)?;
        let file = TensorFile::read(&folder.join(WEIGHTS_FILE), limit)?;
        let layout = Arc::new(spec.layout(&self.layout));
        file.check_schema(&self.adapter_schema(&parts))?;
        let mut layers = vec![vec![0f32; layout.total]; self.config.layers];
        let places = layout.parts();
        for part in &parts {
            let place = places.iter().find(|(module, _, _)| *module == part.module);
            let (_, a, b) = place.cloned().unwrap_or((part.module, 0..0, 0..0));
            let theta = &mut layers[part.layer];
            let factor = file.values(&name(part.layer, part.module, 'A'))?;
            theta[a][..factor.len()].copy_from_slice(&factor);
            let factor = file.values(&name(part.layer, part.module, 'B'))?;
            let rows = theta[b].chunks_exact_mut(layout.rank).zip(factor.chunks_exact(part.rank as usize));
            for (wide, row) in rows {
                wide.iter_mut().zip(row).for_each(|(to, from)| *to = from * part.share);
            }
        }
        let layers = layers.into_iter().map(|theta| Tensor::from_vec(theta, layout.total, &Device::Cpu));
        let layers = layers.collect::<candle_core::Result<_>>().map_err(ModelError::from)?;
        self.use_adapter(Some(Adapter { layout, layers }));
        Ok(spec)
    }

    fn adapter_schema(&self, parts: &[Part]) -> BTreeMap<String, Vec<usize>> {
        let mut schema = BTreeMap::new();
        for part in parts {
            let (outputs, inputs) = self.layout.module_shape(part.module);
            schema.insert(name(part.layer, part.module, 'A'), vec![part.rank as usize, inputs]);
            schema.insert(name(part.layer, part.module, 'B'), vec![outputs, part.rank as usize]);
        }
        schema
    }

    /// Adds the adapter in use to the base weights, `W + scale · B A`, and drops it.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when the tensors cannot be made.
    pub fn merge_adapter(&mut self) -> Result<(), ModelError> {
        let Some(adapter) = self.adapter.take() else { return Ok(()) };
        let layout = &adapter.layout;
        for (theta, base) in adapter.layers.iter().zip(&mut self.base.layers) {
            let mut merged = elements(base)?.to_vec();
            let theta = elements(theta)?;
            for (module, a, b) in layout.parts() {
                let (outputs, inputs) = self.layout.module_shape(module);
                let to = MatMut::dense(&mut merged[self.layout.module_range(module)], outputs, inputs);
                let (a, b) =
                    (Mat::dense(&theta[a], layout.rank, inputs), Mat::dense(&theta[b], outputs, layout.rank));
                gemm(to, Write::Add, layout.scale, b, a);
            }
            *base = Tensor::from_vec(merged, self.layout.total, &Device::Cpu)?;
        }
        self.use_adapter(None);
        Ok(())
    }

    /// Returns the bytes of the current adapter's `adapter_model.safetensors`; `None` without one.
    ///
    /// # Errors
    /// [`ModelError::Encode`] when the format refuses them.
    pub fn adapter_to_safetensors(&self, file_type: FileType) -> Result<Option<Vec<u8>>, ModelError> {
        let Some(adapter) = &self.adapter else { return Ok(None) };
        let mut named = Vec::new();
        for (layer, theta) in adapter.layers.iter().enumerate() {
            let theta = elements(theta)?;
            for (module, a, b) in adapter.layout.parts() {
                let (outputs, inputs) = self.layout.module_shape(module);
                let rank = adapter.layout.rank;
                let a = to_bytes(&theta[a], file_type);
                named.push((name(layer, module, 'A'), vec![rank, inputs], a));
                let b = to_bytes(&theta[b], file_type);
                named.push((name(layer, module, 'B'), vec![outputs, rank], b));
            }
        }
        Ok(Some(to_safetensors(&named, file_type)?))
    }
}
