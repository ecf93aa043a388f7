//! Learning to tell noise from pictures.
//!
//! Each time a picture is trained on, a noise level and noise are drawn for it, keyed by (seed,
//! step, place in the step); the loss is the mean squared error of `noise − image`.

use super::objective::{Objective, Step};
use super::run::RunError;
use crate::loss::cuts;
use crate::model::image::ImageShape;
use crate::model::{Batch, Patches};
use crate::picture::{Picture, draw};

/// Pictures under random noise.
#[derive(Debug, Clone, Copy)]
pub struct Denoise<'a> {
    /// The pictures.
    pub pictures: &'a [Picture],
    /// Their shape.
    pub shape: ImageShape,
}

impl Objective for Denoise<'_> {
    fn lengths(&self) -> Vec<usize> {
        vec![self.shape.patches(); self.pictures.len()]
    }

    fn shards(&self, step: &Step<'_>, rows: &[usize]) -> Result<Vec<Batch>, RunError> {
        let picked: Vec<&Picture> = rows.iter().filter_map(|&row| self.pictures.get(row)).collect();
        let weight = crate::loss::mean_weight(picked.len());
        let (each, mut first) = (self.shape.patches(), 0);
        let mut shards = Vec::new();
        for range in cuts(picked.iter().map(|_| each), step.shard_tokens) {
            let mut patches = Patches::default();
            for place in range {
                let (noise, t) = draw(step.seed, step.number, place as u64, self.shape.pixels());
                let (seen, goal) = picked[place].noisy(self.shape, &noise, t);
                patches.features.extend(self.shape.describe(&seen, t));
                patches.goals.extend(goal);
                patches.weights.push(weight);
            }
            let shard = Batch::patches(patches, each, first);
            first += shard.tokens() as u64;
            shards.push(shard);
        }
        Ok(shards)
    }
}
