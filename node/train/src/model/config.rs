//! `config.json` of a Hugging Face folder (Llama, Qwen2, Qwen3) or of an image model of our own
//! ([`super::image`]), reduced to what the engine runs.
//!
//! Unknown keys are ignored, as the format has dozens that do not change the
//! arithmetic; every key that would change it is either understood or refused.

use serde::{Deserialize, Serialize};

use super::image::{self, ImageShape};
use super::rotary::{Rotary, Scaling};
use crate::kernel::attention::Heads;

/// Largest number of layers accepted.
pub(crate) const LAYERS_MAX: usize = 256;
/// Largest size of any single dimension accepted.
const DIMENSION_MAX: usize = 1 << 20;
/// Longest context accepted, in tokens.
const POSITIONS_MAX: usize = 1 << 21;

/// The architectures this engine runs; they differ only in the attention's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Plain projections: Llama 2 and 3, SmolLM2.
    Llama,
    /// Query, key and value projections with a bias: Qwen2, Qwen2.5.
    Qwen2,
    /// Query and key heads normalized before they are turned: Qwen3.
    Qwen3,
    /// A transformer over the patches of a noisy image, each seeing all: our own.
    Patches(ImageShape),
}

impl Family {
    /// The `model_type` of a configuration.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Patches(_) => image::MODEL_TYPE,
        }
    }

    /// The class that Hugging Face loads.
    pub fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Patches(_) => "TiltyardPatches",
        }
    }

    /// Head width of a configuration that does not give one and has no sizes to derive it from.
    fn head_dim_default(self, hidden: usize, heads: usize) -> usize {
        match self {
            Self::Llama | Self::Qwen2 | Self::Patches(_) => hidden.checked_div(heads).unwrap_or(0),
            Self::Qwen3 => 128,
        }
    }
}

/// The shape of a causal language model.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The architecture.
    pub family: Family,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the gated layer.
    pub inner: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub query_heads: usize,
    /// Key and value heads.
    pub key_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// How positions turn into angles.
    pub rotary: Rotary,
    /// Added to the mean square before the root.
    pub rms_eps: f32,
    /// Longest context, in tokens.
    pub positions: usize,
    /// Whether the output matrix is the embedding.
    pub tied: bool,
    /// The token that ends a completion.
    pub eos: u32,
}

/// Says why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a required key is absent or of the wrong type.
    #[error("config.json cannot be read: {0}; use the folder's original file")]
    Json(#[from] serde_json::Error),
    /// A key has a value this engine does not compute.
    #[error("config.json sets {key} = {value}, which this engine does not run; it runs {runs}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        runs: &'static str,
    },
    /// Sizes that contradict each other or exceed the limits.
    #[error("config.json has impossible sizes: {fact}")]
    Sizes {
        /// What does not fit.
        fact: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Eos {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Debug, Deserialize)]
struct RopeParameters {
    #[serde(default, alias = "type")]
    rope_type: Option<String>,
    #[serde(default)]
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl RopeParameters {
    fn scaling(&self) -> Result<Scaling, ConfigError> {
        let need = |value: Option<f64>, key| {
            let good = value.filter(|value| value.is_finite() && *value > 0.0);
            good.ok_or_else(|| refuse(key, format!("{value:?}"), "a positive number"))
        };
        match self.rope_type.as_deref() {
            None | Some("default") => Ok(Scaling::None),
            Some("linear") => Ok(Scaling::Linear { factor: need(self.factor, "rope factor")? }),
            Some("llama3") => {
                let low = need(self.low_freq_factor, "low_freq_factor")?;
                let high = need(self.high_freq_factor, "high_freq_factor")?;
                if high <= low {
                    return Err(refuse("high_freq_factor", high, "more than low_freq_factor"));
                }
                let original =
                    need(self.original_max_position_embeddings, "original_max_position_embeddings")?;
                Ok(Scaling::Llama3 { factor: need(self.factor, "rope factor")?, low, high, original })
            }
            Some(kind) => Err(refuse("rope_type", kind, "\"default\", \"linear\" and \"llama3\"")),
        }
    }
}

#[derive(Debug, Deserialize)]
struct ModelType {
    model_type: String,
}

impl ModelType {
    fn family(&self) -> Result<Family, ConfigError> {
        match self.model_type.as_str() {
            "llama" => Ok(Family::Llama),
            "qwen2" => Ok(Family::Qwen2),
            "qwen3" => Ok(Family::Qwen3),
            other => {
                Err(refuse("model_type", other, "\"llama\", \"qwen2\", \"qwen3\" and \"tiltyard-patches\""))
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct Raw {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeParameters>,
    rope_parameters: Option<RopeParameters>,
    rms_norm_eps: f64,
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    layer_types: Option<Vec<String>>,
    quantization_config: Option<serde_json::Value>,
    hidden_act: Option<String>,
    eos_token_id: Option<Eos>,
}

#[derive(Debug, Serialize)]
struct Written<'a> {
    architectures: [&'a str; 1],
    model_type: &'a str,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    hidden_act: &'a str,
    rope_theta: f64,
    rms_norm_eps: f64,
    max_position_embeddings: usize,
    tie_word_embeddings: bool,
    attention_bias: bool,
    mlp_bias: bool,
    bos_token_id: u32,
    eos_token_id: u32,
    torch_dtype: &'a str,
}

fn refuse(key: &'static str, value: impl ToString, runs: &'static str) -> ConfigError {
    ConfigError::Unsupported { key, value: value.to_string(), runs }
}

impl Raw {
    fn check_arithmetic(&self) -> Result<(), ConfigError> {
        if let Some(act) = self.hidden_act.as_deref().filter(|act| *act != "silu") {
            return Err(refuse("hidden_act", act, "\"silu\""));
        }
        if self.attention_bias || self.mlp_bias {
            return Err(refuse("attention_bias or mlp_bias", true, "linear layers without bias"));
        }
        let slides = |kind: &&String| kind.as_str() != "full_attention";
        if let Some(kind) = self.layer_types.iter().flatten().find(slides) {
            return Err(refuse("layer_types", kind, "\"full_attention\" in every layer"));
        }
        if self.use_sliding_window {
            return Err(refuse("use_sliding_window", true, "attention to every earlier token"));
        }
        if self.quantization_config.is_some() {
            return Err(refuse("quantization_config", "a setting", "weights in f32, bf16 or f16"));
        }
        Ok(())
    }

    fn rotary(&self) -> Result<Rotary, ConfigError> {
        let newer = self.rope_parameters.as_ref();
        let theta = self.rope_theta.or(newer.and_then(|rope| rope.rope_theta)).unwrap_or(10_000.0);
        if !(theta.is_finite() && theta > 0.0) {
            return Err(ConfigError::Sizes { fact: format!("rope_theta {theta} is not positive") });
        }
        let scaling =
            self.rope_scaling.as_ref().or(newer).map_or(Ok(Scaling::None), RopeParameters::scaling)?;
        Ok(Rotary { theta, scaling })
    }
}

impl Config {
    /// Reads the bytes of a `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first key that cannot be used.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        // First, so that a stranger's keys are not reported as missing.
        let kind: ModelType = serde_json::from_slice(bytes)?;
        if kind.model_type == image::MODEL_TYPE {
            let config = image::read(bytes)?;
            config.check_sizes()?;
            return Ok(config);
        }
        let family = kind.family()?;
        let raw: Raw = serde_json::from_slice(bytes)?;
        raw.check_arithmetic()?;
        let rotary = raw.rotary()?;
        let eos = match raw.eos_token_id {
            Some(Eos::One(eos)) => Some(eos),
            Some(Eos::Many(list)) => list.first().copied(),
            None => None,
        };
        let config = Self {
            family,
            vocab: raw.vocab_size,
            hidden: raw.hidden_size,
            inner: raw.intermediate_size,
            layers: raw.num_hidden_layers,
            query_heads: raw.num_attention_heads,
            key_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: raw
                .head_dim
                .unwrap_or_else(|| family.head_dim_default(raw.hidden_size, raw.num_attention_heads)),
            rotary,
            rms_eps: raw.rms_norm_eps as f32,
            positions: raw.max_position_embeddings,
            tied: raw.tie_word_embeddings,
            eos: eos.ok_or_else(|| refuse("eos_token_id", "nothing", "a model with an end token"))?,
        };
        config.check_sizes()?;
        Ok(config)
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let wrong = |fact: String| Err(ConfigError::Sizes { fact });
        let sizes = [self.vocab, self.hidden, self.inner, self.query_heads, self.key_heads];
        if sizes.iter().any(|&size| size == 0 || size > DIMENSION_MAX) {
            return wrong(format!("every size must be in 1..={DIMENSION_MAX}, found {sizes:?}"));
        }
        if self.layers == 0 || self.layers > LAYERS_MAX {
            return wrong(format!("{} layers; 1 to {LAYERS_MAX} are accepted", self.layers));
        }
        if self.positions == 0 || self.positions > POSITIONS_MAX {
            let found = self.positions;
            return wrong(format!("{found} positions; 1 to {POSITIONS_MAX} are accepted"));
        }
        if !self.query_heads.is_multiple_of(self.key_heads) {
            let (query, key) = (self.query_heads, self.key_heads);
            return wrong(format!("{query} query heads do not divide into {key} key heads"));
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(2) || self.head_dim > 4_096 {
            return wrong(format!("head width {} is not even or above 4,096", self.head_dim));
        }
        if self.eos as usize >= self.vocab {
            return wrong(format!("end token {} is not below {}", self.eos, self.vocab));
        }
        if !(self.rms_eps.is_finite() && self.rms_eps > 0.0) {
            return wrong(format!("rms_norm_eps {} is not positive", self.rms_eps));
        }
        Ok(())
    }

    /// The image shape of an image model.
    pub fn image(&self) -> Option<ImageShape> {
        match self.family {
            Family::Patches(shape) => Some(shape),
            Family::Llama | Family::Qwen2 | Family::Qwen3 => None,
        }
    }

    /// Rows of the output matrix: tokens, or the values of a patch.
    pub(crate) fn outputs(&self) -> usize {
        self.image().map_or(self.vocab, |shape| shape.patch_values())
    }

    /// Writes the `config.json` that Hugging Face loads, of a model without scaled angles.
    ///
    /// # Errors
    /// [`serde_json::Error`] only when a number is not finite, which reading excludes.
    pub fn to_json(&self, torch_dtype: &str) -> Result<Vec<u8>, serde_json::Error> {
        if let Some(shape) = self.image() {
            return image::write(self, shape, torch_dtype);
        }
        let eps: f64 = self.rms_eps.to_string().parse().unwrap_or(f64::from(self.rms_eps));
        serde_json::to_vec_pretty(&Written {
            architectures: [self.family.class()],
            model_type: self.family.model_type(),
            vocab_size: self.vocab,
            hidden_size: self.hidden,
            intermediate_size: self.inner,
            num_hidden_layers: self.layers,
            num_attention_heads: self.query_heads,
            num_key_value_heads: self.key_heads,
            head_dim: self.head_dim,
            hidden_act: "silu",
            rope_theta: self.rotary.theta,
            rms_norm_eps: eps,
            max_position_embeddings: self.positions,
            tie_word_embeddings: self.tied,
            attention_bias: false,
            mlp_bias: false,
            bos_token_id: self.eos,
            eos_token_id: self.eos,
            torch_dtype,
        })
    }

    pub(crate) fn heads(&self) -> Heads {
        Heads {
            query: self.query_heads,
            key: self.key_heads,
            dim: self.head_dim,
            causal: self.image().is_none(),
        }
    }
}
