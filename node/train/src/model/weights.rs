//! A base model's weights: reading, writing and random starts.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;

use super::ModelError;
use super::config::{Config, ConfigError};
use super::image;
use super::layout::{LayerLayout, Module, bias_ranges};
use crate::ops::tape::elements;
use crate::rng::Rng;
use crate::safe::{LoadError, TensorFile, TensorSet};

/// The element type of a written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// 4 bytes a value, exact.
    F32,
    /// 2 bytes a value, rounded to nearest even.
    Bf16,
}

/// The weights of a base model, in `f32` on the CPU.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    /// `vocab x hidden`; for image models one row a feature.
    pub(crate) embed: Tensor,
    /// One flat vector per layer, laid out by [`LayerLayout`].
    pub(crate) layers: Vec<Tensor>,
    /// `hidden`.
    pub(crate) norm: Tensor,
    /// `outputs x hidden`, when the model is not tied.
    pub(crate) head: Option<Tensor>,
}

/// One named tensor's place: which parameter, which elements, which shape.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    part: Part,
    range: std::ops::Range<usize>,
    shape: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Embed,
    Layer(usize),
    Norm,
    Head,
}

fn places(config: &Config, layout: &LayerLayout) -> Vec<Place> {
    let (vocab, hidden) = (config.vocab, config.hidden);
    let (embed, head) = match config.image() {
        None => ("model.embed_tokens.weight", "lm_head.weight"),
        Some(_) => (image::EMBED, image::HEAD),
    };
    let whole = |name: &str, part, shape: Vec<usize>| {
        let range = 0..shape.iter().product();
        Place { name: name.to_owned(), part, range, shape }
    };
    let mut places = vec![whole(embed, Part::Embed, vec![vocab, hidden])];
    for layer in 0..config.layers {
        let part = Part::Layer(layer);
        let name = |path: &str| format!("model.layers.{layer}.{path}.weight");
        let norms =
            [("input_layernorm", &layout.input_norm), ("post_attention_layernorm", &layout.post_norm)];
        for (path, range) in norms {
            let (range, shape) = (range.clone(), vec![hidden]);
            places.push(Place { name: name(path), part, range, shape });
        }
        for module in Module::ALL {
            let (outputs, inputs) = layout.module_shape(module);
            let (range, shape) = (layout.module_range(module), vec![outputs, inputs]);
            places.push(Place { name: name(module.path()), part, range, shape });
        }
        for (module, range) in layout.qkv_bias.iter().flat_map(|bias| bias_ranges(layout.heads, bias)) {
            let name = format!("model.layers.{layer}.{}.bias", module.path());
            places.push(Place { name, part, shape: vec![range.len()], range });
        }
        for (path, range) in ["q_norm", "k_norm"].into_iter().zip(layout.head_norms.iter().flatten()) {
            let (range, shape) = (range.clone(), vec![layout.heads.dim]);
            places.push(Place { name: name(&format!("self_attn.{path}")), part, range, shape });
        }
    }
    places.push(whole("model.norm.weight", Part::Norm, vec![hidden]));
    if !config.tied {
        places.push(whole(head, Part::Head, vec![config.outputs(), hidden]));
    }
    places
}

impl Weights {
    /// The names and shapes of every tensor of a model of this configuration.
    pub(crate) fn schema(config: &Config, layout: &LayerLayout) -> BTreeMap<String, Vec<usize>> {
        places(config, layout).into_iter().map(|place| (place.name, place.shape)).collect()
    }

    /// Reads a checkpoint's `model.safetensors`, which must hold exactly the schema's tensors.
    pub(crate) fn load(
        path: &Path,
        limit: u64,
        config: &Config,
        layout: &LayerLayout,
    ) -> Result<Self, ModelError> {
        let file = TensorFile::read(path, limit)?;
        file.check_schema(&Self::schema(config, layout))?;
        Self::build(config, layout, |place| file.values(&place.name))
    }

    /// Reads a base's tensors; a tied output matrix and tables of angles may be there too.
    pub(crate) fn load_base(
        tensors: &TensorSet,
        config: &Config,
        layout: &LayerLayout,
    ) -> Result<Self, ModelError> {
        let spare =
            |name: &str| name.ends_with("rotary_emb.inv_freq") || (config.tied && name == "lm_head.weight");
        tensors.check_schema(&Self::schema(config, layout), spare)?;
        let weights = Self::build(config, layout, |place| tensors.values(&place.name))?;
        if config.tied && tensors.contains("lm_head.weight") {
            let head = tensors.values("lm_head.weight")?;
            if head != *elements(&weights.embed)? {
                return Err(ConfigError::Sizes {
                    fact: "tie_word_embeddings is true, but lm_head.weight is not the embedding".into(),
                }
                .into());
            }
        }
        Ok(weights)
    }

    /// Draws small random weights: normal with deviation 0.02, less into the residual stream.
    pub(crate) fn random(config: &Config, layout: &LayerLayout, seed: u64) -> Result<Self, ModelError> {
        let mut rng = Rng::new(seed);
        let residual = 0.02 / (2.0 * config.layers as f32).sqrt();
        Self::build(config, layout, |place| {
            let into_residual =
                place.name.ends_with("o_proj.weight") || place.name.ends_with("down_proj.weight");
            let deviation = if into_residual { residual } else { 0.02 };
            let deviation = if place.name == image::EMBED { image::EMBED_DEVIATION } else { deviation };
            let is_norm = place.shape.len() == 1 && !place.name.ends_with(".bias");
            let draw = |_| {
                if is_norm { 1.0 } else { rng.normal() * deviation }
            };
            Ok(place.range.clone().map(draw).collect())
        })
    }

    fn build(
        config: &Config,
        layout: &LayerLayout,
        mut values: impl FnMut(&Place) -> Result<Vec<f32>, LoadError>,
    ) -> Result<Self, ModelError> {
        let (mut embed, mut norm, mut head) = (Vec::new(), Vec::new(), None);
        let mut layers = vec![Vec::new(); config.layers];
        for place in places(config, layout) {
            let found = values(&place)?;
            match place.part {
                Part::Embed => embed = found,
                Part::Norm => norm = found,
                Part::Head => head = Some(found),
                Part::Layer(layer) => {
                    let flat: &mut Vec<f32> = &mut layers[layer];
                    flat.resize(layout.total, 0.0);
                    flat[place.range].copy_from_slice(&found);
                }
            }
        }
        let cpu = &Device::Cpu;
        let layers = layers.into_iter().map(|flat| Tensor::from_vec(flat, layout.total, cpu));
        Ok(Self {
            embed: Tensor::from_vec(embed, (config.vocab, config.hidden), cpu)?,
            layers: layers.collect::<Result<_, _>>()?,
            norm: Tensor::from_vec(norm, config.hidden, cpu)?,
            head: head
                .map(|head| Tensor::from_vec(head, (config.outputs(), config.hidden), cpu))
                .transpose()?,
        })
    }

    /// The output matrix.
    pub(crate) fn matrix(&self) -> &Tensor {
        self.head.as_ref().unwrap_or(&self.embed)
    }

    /// Every parameter, in one fixed order.
    pub(crate) fn all(&self) -> Vec<&Tensor> {
        let mut all = vec![&self.embed];
        all.extend(&self.layers);
        all.push(&self.norm);
        all.extend(&self.head);
        all
    }

    /// Splits values in the order of [`Self::all`] into named tensors.
    pub(crate) fn name_values(
        config: &Config,
        layout: &LayerLayout,
        values: &[Vec<f32>],
    ) -> BTreeMap<String, Vec<f32>> {
        let index = |part| match part {
            Part::Embed => 0,
            Part::Layer(layer) => 1 + layer,
            Part::Norm => 1 + config.layers,
            Part::Head => 2 + config.layers,
        };
        let named = places(config, layout).into_iter().filter_map(|place| {
            let part = values.get(index(place.part))?.get(place.range)?;
            Some((place.name, part.to_vec()))
        });
        named.collect()
    }

    /// Replaces every parameter with what `f` makes of it.
    pub(crate) fn try_map(
        &self,
        mut f: impl FnMut(&Tensor) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<Self> {
        Ok(Self {
            embed: f(&self.embed)?,
            layers: self.layers.iter().map(&mut f).collect::<candle_core::Result<_>>()?,
            norm: f(&self.norm)?,
            head: self.head.as_ref().map(f).transpose()?,
        })
    }

    /// Returns the bytes of a `model.safetensors` of these weights.
    pub(crate) fn to_safetensors(
        &self,
        config: &Config,
        layout: &LayerLayout,
        file_type: FileType,
    ) -> Result<Vec<u8>, ModelError> {
        let mut named = Vec::new();
        for place in places(config, layout) {
            let tensor = match place.part {
                Part::Embed => &self.embed,
                Part::Norm => &self.norm,
                Part::Head => self.matrix(),
                Part::Layer(layer) => &self.layers[layer],
            };
            let values = elements(tensor)?;
            named.push((place.name, place.shape, to_bytes(&values[place.range], file_type)));
        }
        to_safetensors(&named, file_type)
    }
}

/// Encodes values little-endian.
pub(crate) fn to_bytes(values: &[f32], file_type: FileType) -> Vec<u8> {
    match file_type {
        FileType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        FileType::Bf16 => {
            let round = |value: &f32| {
                let bits = value.to_bits();
                let half = 0x7FFF + ((bits >> 16) & 1);
                ((bits.wrapping_add(half)) >> 16) as u16
            };
            values.iter().flat_map(|value| round(value).to_le_bytes()).collect()
        }
    }
}

/// Builds safetensors bytes from named tensors, with the metadata `transformers` asks for.
pub(crate) fn to_safetensors(
    named: &[(String, Vec<usize>, Vec<u8>)],
    file_type: FileType,
) -> Result<Vec<u8>, ModelError> {
    let dtype = match file_type {
        FileType::F32 => safetensors::Dtype::F32,
        FileType::Bf16 => safetensors::Dtype::BF16,
    };
    let mut views = Vec::with_capacity(named.len());
    for (name, shape, bytes) in named {
        let view = TensorView::new(dtype, shape.clone(), bytes)
            .map_err(|error| ModelError::Encode { fact: format!("{name}: {error}") })?;
        views.push((name.as_str(), view));
    }
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    safetensors::serialize(views, Some(metadata))
        .map_err(|error| ModelError::Encode { fact: error.to_string() })
}
