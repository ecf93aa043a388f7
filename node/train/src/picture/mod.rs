//! Pictures: rows of images, the noise that is laid over them, and what a model draws.
//!
//! A row is `{"image": HEX}`: one byte a pixel (0 black, 255 white), row by row, as lower-case
//! hexadecimal digits. Byte b stands for the value `2·b/255 − 1`.

pub mod png;
pub mod sample;

use serde::Deserialize;

use crate::data::{ROW_BYTES_MAX, RowFault};
use crate::model::image::ImageShape;

/// Derives the noise under which pictures are scored.
const SCORE_CONTEXT: &str = "tiltyard/diffusion-noise/v1";
/// Derives the noise and the noise levels of training and sampling; no rule of the network.
const DRAW_CONTEXT: &str = "tiltyard-train/diffusion-draw/v1";
/// Bytes of a noise value: twelve numbers of two bytes.
const NOISE_BYTES: usize = 24;

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// One byte a pixel, row by row.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    image: Option<String>,
}

impl Picture {
    /// Reads a row.
    ///
    /// # Errors
    /// [`RowFault`] when it is no picture of this shape.
    pub fn parse(line: &[u8], shape: ImageShape) -> Result<Self, RowFault> {
        if line.len() > ROW_BYTES_MAX {
            return Err(RowFault::TooLarge { bytes: line.len() });
        }
        let raw: RawRow =
            serde_json::from_slice(line).map_err(|error| RowFault::NotJson { fact: error.to_string() })?;
        let text = raw.image.ok_or(RowFault::MissingColumn { column: "image" })?;
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|[high, low]| Some(nibble(*high)? * 16 + nibble(*low)?)).collect();
        match bytes.filter(|bytes| rest.is_empty() && bytes.len() == shape.pixels()) {
            Some(bytes) => Ok(Self { bytes }),
            None => {
                Err(RowFault::Picture { found: text.len(), wanted: 2 * shape.pixels(), side: shape.side })
            }
        }
    }

    /// The values of its pixels, from −1 to 1, row by row.
    pub fn values(&self) -> Vec<f32> {
        self.bytes.iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect()
    }

    /// The nearest picture to values row by row.
    pub fn of_values(values: &[f32]) -> Self {
        let byte = |value: &f32| ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
        Self { bytes: values.iter().map(byte).collect() }
    }

    /// The picture laid under noise at level t, and what is to be predicted of it: both in the
    /// order of the patches.
    pub(crate) fn noisy(&self, shape: ImageShape, noise: &[f32], t: f32) -> (Vec<f32>, Vec<f32>) {
        let (values, noise) = (shape.cut(&self.values()), shape.cut(noise));
        let pairs = || values.iter().zip(&noise);
        let seen = pairs().map(|(value, noise)| (1.0 - t) * value + t * noise).collect();
        (seen, pairs().map(|(value, noise)| noise - value).collect())
    }

    /// The noise under which it is scored at a level: a function of its bytes and the level.
    pub(crate) fn score_noise(&self, level: u32) -> Vec<f32> {
        let mut hasher = blake3::Hasher::new_derive_key(SCORE_CONTEXT);
        hasher.update(&self.bytes).update(&level.to_be_bytes());
        normals(hasher.finalize_xof(), self.bytes.len())
    }
}

/// Numbers of mean 0 and deviation 1: twelve uniform ones of 16 bits added up, which is exact
/// in `f32`, so that every machine draws the same.
fn normals(mut bytes: blake3::OutputReader, count: usize) -> Vec<f32> {
    let mut block = [0u8; NOISE_BYTES];
    let one = |_| {
        bytes.fill(&mut block);
        let sum: i32 = block.as_chunks::<2>().0.iter().map(|two| i32::from(u16::from_be_bytes(*two))).sum();
        (sum - 6 * 65_535) as f32 / 65_536.0
    };
    (0..count).map(one).collect()
}

/// Draws the noise of one use (seed, step, place), and a noise level from 0 to 1.
pub(crate) fn draw(seed: u64, step: u64, place: u64, pixels: usize) -> (Vec<f32>, f32) {
    let mut hasher = blake3::Hasher::new_derive_key(DRAW_CONTEXT);
    for part in [seed, step, place] {
        hasher.update(&part.to_be_bytes());
    }
    let mut bytes = hasher.finalize_xof();
    let mut level = [0u8; 4];
    bytes.fill(&mut level);
    let level = (u32::from_be_bytes(level) >> 8) as f32 / (1u32 << 24) as f32;
    (normals(bytes, pixels), level)
}

/// Noise level `level` (from 0) of `levels`: the middle of its share of 0 to 1.
pub fn level(level: u32, levels: u32) -> f32 {
    ((f64::from(level) + 0.5) / f64::from(levels.max(1))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { side: 2, patch: 1 };

    #[test]
    fn a_row_is_read_and_what_is_no_picture_is_refused() {
        let picture = Picture::parse(br#"{"image":"00ff807f"}"#, SHAPE).expect("a picture");
        assert_eq!(picture.bytes, [0, 255, 128, 127]);
        assert_eq!(Picture::of_values(&picture.values()), picture);
        for row in [
            r#"{"image":"00ff80"}"#,
            r#"{"image":"00FF807f"}"#,
            r#"{"image":"00ff807fa"}"#,
            r#"{"image":"00ff80zz"}"#,
            r#"{}"#,
            r#"{"image":"00ff807f","label":9}"#,
            "[]",
        ] {
            assert!(Picture::parse(row.as_bytes(), SHAPE).is_err(), "{row}");
        }
    }

    #[test]
    fn noise_is_normal_and_depends_on_everything_that_keys_it() {
        let (noise, _) = draw(1, 2, 3, 20_000);
        let mean = noise.iter().map(|&n| f64::from(n)).sum::<f64>() / 2e4;
        let variance = noise.iter().map(|&n| f64::from(n).powi(2)).sum::<f64>() / 2e4;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert_ne!(draw(1, 2, 3, 4), draw(1, 2, 4, 4));
        assert_ne!(draw(1, 2, 3, 4), draw(1, 3, 3, 4));
        let picture = Picture { bytes: vec![0, 1, 2, 3] };
        assert_ne!(picture.score_noise(0), picture.score_noise(1));
    }

    #[test]
    fn the_noise_of_a_score_is_what_another_implementation_finds() {
        let noise = Picture { bytes: vec![0, 1, 2, 3] }.score_noise(1);
        assert_eq!(noise.iter().map(|n| (n * 65_536.0) as i32).collect::<Vec<_>>(), NOISE_SHOWN);
    }

    /// Computed by another implementation (Python's blake3).
    const NOISE_SHOWN: [i32; 4] = [-6890, -40048, 77617, 14356];
}
