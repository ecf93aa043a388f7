//! Image models: a transformer over patches that tells noise from image (DiT, arXiv:2212.09748).
//!
//! The same decoder layers as the language models, except that every patch sees all others.
//! An image is cut into square patches, row by row; a patch enters as a vector of features:
//! its values, which patch it is (one of all), and [`TIME_FEATURES`] waves of the noise level.
//! A matrix turns features into the residual stream, another the stream into the patch's
//! values: no convolutions, no separate time network.
//!
//! The path from image to noise is straight (arXiv:2209.03003): at noise level t from 0 to 1
//! the model is given `(1 − t)·image + t·noise` and predicts `noise − image`.
//!
//! A folder holds `config.json` with `model_type` = [`MODEL_TYPE`] and `model.safetensors`;
//! there is no tokenizer.

use serde::{Deserialize, Serialize};

use super::batch::Patches;
use super::config::{Config, ConfigError, Family};
use super::pass::INVARIANT_ROWS;
use super::rotary::Rotary;
use super::{Batch, Model, ModelError};
use crate::kernel::norm;
use crate::kernel::simd::product_transposed;
use crate::ops::image::PatchHeadOp;
use crate::ops::tape::{LossesAndWeights, elements};

/// `model_type` of image models.
pub const MODEL_TYPE: &str = "tiltyard-patches";
/// Waves of the noise level in a patch's features: a cosine and a sine of each frequency.
pub const TIME_FEATURES: usize = 16;
/// Widest image accepted, in pixels.
pub const SIDE_MAX: usize = 64;
/// Name of the matrix from features.
pub(crate) const EMBED: &str = "model.embed_patches.weight";
/// Name of the matrix to a patch's values.
pub(crate) const HEAD: &str = "model.patch_head.weight";
/// Deviation of the first weights of the matrix from features: images enter at their own size.
pub(crate) const EMBED_DEVIATION: f32 = 0.2;

/// The images of a model: square, of one grey channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// Pixels along a side.
    pub side: usize,
    /// Pixels along a patch's side; divides `side`.
    pub patch: usize,
}

impl ImageShape {
    /// Pixels of an image.
    pub fn pixels(self) -> usize {
        self.side * self.side
    }

    /// Patches of an image.
    pub fn patches(self) -> usize {
        let along = self.side / self.patch.max(1);
        along * along
    }

    /// Values of a patch.
    pub fn patch_values(self) -> usize {
        self.patch * self.patch
    }

    /// Features of a patch.
    pub fn features(self) -> usize {
        self.patch_values() + self.patches() + TIME_FEATURES
    }

    /// Puts an image's pixels, row by row, into the order of its patches.
    pub fn cut(self, pixels: &[f32]) -> Vec<f32> {
        self.order().map(|at| pixels.get(at).copied().unwrap_or(0.0)).collect()
    }

    /// Puts values in the order of patches into an image's rows.
    pub fn join(self, values: &[f32]) -> Vec<f32> {
        let mut pixels = vec![0f32; self.pixels()];
        for (at, &value) in self.order().zip(values) {
            pixels[at] = value;
        }
        pixels
    }

    /// The pixel of every value, patch by patch.
    fn order(self) -> impl Iterator<Item = usize> {
        let (along, patch) = (self.side / self.patch.max(1), self.patch);
        (0..self.patches()).flat_map(move |at| {
            let (top, left) = (at / along * patch, at % along * patch);
            (0..patch * patch).map(move |inside| (top + inside / patch) * self.side + left + inside % patch)
        })
    }

    /// The features of every patch of a noisy image (in the order of patches) at noise level t.
    pub fn describe(self, values: &[f32], t: f32) -> Vec<f32> {
        let waves = waves(t);
        let mut features = Vec::with_capacity(self.patches() * self.features());
        for (at, values) in values.chunks_exact(self.patch_values()).enumerate() {
            features.extend_from_slice(values);
            features.extend((0..self.patches()).map(|other| f32::from(u8::from(other == at))));
            features.extend_from_slice(&waves);
        }
        features
    }
}

/// `cos(2^k·π·t / 2)` and `sin(2^k·π·t / 2)` for k = 0, 1, …
fn waves(t: f32) -> [f32; TIME_FEATURES] {
    std::array::from_fn(|at| {
        let angle = f64::from(t) * std::f64::consts::FRAC_PI_2 * f64::from(1u32 << (at / 2));
        (if at % 2 == 0 { angle.cos() } else { angle.sin() }) as f32
    })
}

/// The shape of the image model shipped with the project: 0.4 million parameters, 8 x 8 pixels.
pub fn tiny() -> Config {
    config(ImageShape { side: 8, patch: 2 }, 96, 256, 4, 4)
}

fn config(shape: ImageShape, hidden: usize, inner: usize, layers: usize, heads: usize) -> Config {
    Config {
        family: Family::Patches(shape),
        vocab: shape.features(),
        hidden,
        inner,
        layers,
        query_heads: heads,
        key_heads: heads,
        head_dim: hidden.checked_div(heads).unwrap_or(0),
        rotary: Rotary::plain(10_000.0),
        rms_eps: 1e-5,
        positions: shape.patches(),
        tied: false,
        eos: 0,
    }
}

/// `config.json` of an image model.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    model_type: String,
    image_size: usize,
    patch_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    torch_dtype: String,
}

/// Reads the `config.json` of an image model.
pub(super) fn read(bytes: &[u8]) -> Result<Config, ConfigError> {
    let raw: Written = serde_json::from_slice(bytes)?;
    let shape = ImageShape { side: raw.image_size, patch: raw.patch_size };
    let fits = (1..=SIDE_MAX).contains(&shape.side)
        && (1..=shape.side).contains(&shape.patch)
        && shape.side.is_multiple_of(shape.patch);
    if !fits {
        let (side, patch) = (shape.side, shape.patch);
        let fact = format!(
            "images of {side} pixels in patches of {patch}; the patch must divide a side of 1 to {SIDE_MAX}"
        );
        return Err(ConfigError::Sizes { fact });
    }
    if raw.num_attention_heads == 0 || !raw.hidden_size.is_multiple_of(raw.num_attention_heads) {
        let fact = format!("{} heads do not divide a width of {}", raw.num_attention_heads, raw.hidden_size);
        return Err(ConfigError::Sizes { fact });
    }
    Ok(config(shape, raw.hidden_size, raw.intermediate_size, raw.num_hidden_layers, raw.num_attention_heads))
}

/// Writes the `config.json` of an image model.
pub(super) fn write(
    config: &Config,
    shape: ImageShape,
    torch_dtype: &str,
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec_pretty(&Written {
        model_type: MODEL_TYPE.to_owned(),
        image_size: shape.side,
        patch_size: shape.patch,
        hidden_size: config.hidden,
        intermediate_size: config.inner,
        num_hidden_layers: config.layers,
        num_attention_heads: config.query_heads,
        torch_dtype: torch_dtype.to_owned(),
    })
}

/// Turns features into the residual stream: `features x table`, a row's bits independent of the others.
pub(crate) fn embed(table: &[f32], hidden: usize, features: &[f32]) -> Vec<f32> {
    let width = table.len() / hidden;
    let mut out = vec![0f32; features.len() / width * hidden];
    for (out, features) in out.chunks_exact_mut(hidden).zip(features.chunks_exact(width)) {
        for (&feature, row) in features.iter().zip(table.chunks_exact(hidden)) {
            if feature != 0.0 {
                out.iter_mut().zip(row).for_each(|(o, &w)| *o += feature * w);
            }
        }
    }
    out
}

impl Model {
    pub(super) fn check_patches(&self, shape: ImageShape, patches: &Patches) -> Result<(), ModelError> {
        let count = patches.weights.len() * shape.patches();
        let fits = patches.features.len() == count * shape.features()
            && patches.goals.len() == count * shape.patch_values();
        match fits {
            true => Ok(()),
            false => Err(ModelError::Batch {
                fact: format!("images are not of {} x {} pixels, as the model's are", shape.side, shape.side),
            }),
        }
    }

    /// What the model says of every patch of every image, in order.
    fn patch_values(&self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        let x = self.hidden(&batch.clone().padded(INVARIANT_ROWS))?;
        let x = &x[..batch.tokens() * self.config.hidden];
        let (weight, matrix) = (elements(&self.base.norm)?, elements(self.base.matrix())?);
        let mut normed = vec![0f32; x.len()];
        norm::forward(x, &weight, self.config.rms_eps, &mut normed);
        let outputs = self.config.outputs();
        let mut said = vec![0f32; batch.tokens() * outputs];
        product_transposed(&normed, &matrix, self.config.hidden, &mut said, outputs, false);
        Ok(said)
    }

    /// Predicts `noise − image` for noisy images given in the order of patches, with their noise levels.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the model is no image model or an image has another size.
    pub fn predict(&self, images: &[(Vec<f32>, f32)]) -> Result<Vec<Vec<f32>>, ModelError> {
        let Some(shape) = self.config.image() else {
            return Err(ModelError::Batch {
                fact: "a language model draws no images; name an image model's folder".into(),
            });
        };
        let features = images.iter().flat_map(|(values, t)| shape.describe(values, *t)).collect();
        let goals = vec![0.0; images.len() * shape.pixels()];
        let batch =
            Batch::patches(Patches { features, goals, weights: vec![0.0; images.len()] }, shape.patches(), 0);
        self.check(&batch)?;
        Ok(self.patch_values(&batch)?.chunks_exact(shape.pixels()).map(<[f32]>::to_vec).collect())
    }

    /// The mean squared error of every image.
    pub(super) fn patch_errors(&self, batch: &Batch, patches: &Patches) -> Result<Vec<f64>, ModelError> {
        let said = self.patch_values(batch)?;
        Ok(errors(&said, &patches.goals, patches.weights.len()))
    }

    pub(super) fn patch_head(
        &self,
        patches: &std::sync::Arc<Patches>,
        losses: &LossesAndWeights,
    ) -> PatchHeadOp {
        PatchHeadOp::new(
            patches.clone(),
            self.config.rms_eps,
            self.trained == super::Trained::Base,
            losses.clone(),
        )
    }
}

/// The mean squared error of each of `images` images, summed in order in `f64`.
pub(crate) fn errors(said: &[f32], goals: &[f32], images: usize) -> Vec<f64> {
    let size = (goals.len() / images.max(1)).max(1);
    let error = |(said, goals): (&[f32], &[f32])| {
        let squares = said.iter().zip(goals).map(|(said, goal)| f64::from(said - goal).powi(2));
        squares.sum::<f64>() / size as f64
    };
    said.chunks_exact(size).zip(goals.chunks_exact(size)).map(error).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_go_there_and_back() {
        let shape = ImageShape { side: 4, patch: 2 };
        let pixels: Vec<f32> = (0u8..16).map(f32::from).collect();
        let cut = shape.cut(&pixels);
        assert_eq!(cut[..8], [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
        assert_eq!(shape.join(&cut), pixels);
        let features = shape.describe(&cut, 0.0);
        assert_eq!(features.len(), shape.patches() * shape.features());
        assert_eq!(features[shape.features()..][..8], [2.0, 3.0, 6.0, 7.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_configuration_comes_back_and_impossible_ones_are_refused() {
        let text = tiny().to_json("float32").expect("finite");
        assert_eq!(Config::from_json(&text).expect("read"), tiny());
        let text = String::from_utf8(text).expect("text");
        for (from, to) in [
            ("\"patch_size\": 2", "\"patch_size\": 3"),
            ("\"image_size\": 8", "\"image_size\": 4096"),
            ("\"num_attention_heads\": 4", "\"num_attention_heads\": 0"),
            ("\"image_size\"", "\"channels\": 3, \"image_size\""),
        ] {
            assert!(text.contains(from));
            assert!(Config::from_json(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }
}
