//! Scores of pictures: how much of the base's error a model leaves, per picture and noise level.

use crate::loss::{cuts, in_order};
use crate::model::image::ImageShape;
use crate::model::{Batch, Model, ModelError, Patches};
use crate::picture::{Picture, level};

/// Patches computed together.
const FORWARD_PATCHES: usize = 512;

/// The mean squared error of every picture at every noise level: picture by picture, levels ascending.
///
/// The same bits at any number of workers and in any company.
///
/// # Errors
/// [`ModelError::Batch`] when the model takes no pictures of this shape.
pub fn errors(
    model: &Model,
    pictures: &[Picture],
    shape: ImageShape,
    levels: u32,
    workers: usize,
) -> Result<Vec<f64>, ModelError> {
    let pairs: Vec<(&Picture, u32)> =
        pictures.iter().flat_map(|picture| (0..levels).map(move |at| (picture, at))).collect();
    let groups = cuts(pairs.iter().map(|_| shape.patches()), FORWARD_PATCHES);
    let score = |group: &std::ops::Range<usize>| {
        let mut patches = Patches::default();
        for (picture, at) in &pairs[group.clone()] {
            let t = level(*at, levels);
            let (seen, goal) = picture.noisy(shape, &picture.score_noise(*at), t);
            patches.features.extend(shape.describe(&seen, t));
            patches.goals.extend(goal);
            patches.weights.push(1.0);
        }
        model.losses(&Batch::patches(patches, shape.patches(), 0))
    };
    Ok(in_order(&groups, workers, score)?.into_iter().flatten().collect())
}

/// The largest score of a picture at a level: four times the base's.
const CLIP: f64 = 4.0;

/// Errors as shares of the base's error on the same picture at the same level, clipped at 4.
///
/// Where the base makes no error at all there is no number.
pub fn shares(errors: &[f64], base: &[f64]) -> Vec<f64> {
    // `min` would make a number of what is none.
    let clip = |share: f64| if share > CLIP { CLIP } else { share };
    errors.iter().zip(base).map(|(error, base)| clip(error / base)).collect()
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn the_base_is_worth_one_everywhere() {
        assert_eq!(shares(&[1.0, 10.0], &[1.0, 10.0]), [1.0, 1.0]);
        assert_eq!(shares(&[1.0, 10.0], &[2.0, 1.0]), [0.5, 4.0]);
        assert!(shares(&[0.0], &[0.0])[0].is_nan());
    }
}
