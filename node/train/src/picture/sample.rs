//! Draws pictures: from noise to image in equal steps along the path that the model learned.

use super::{Picture, draw};
use crate::model::{Model, ModelError};

/// Steps from noise to image.
pub const STEPS: u32 = 50;

/// Draws `count` pictures; the same for the same seed and weights.
///
/// # Errors
/// [`ModelError::Batch`] when the model is no image model.
pub fn pictures(model: &Model, count: usize, seed: u64) -> Result<Vec<Picture>, ModelError> {
    let pixels = model.config().image().map_or(0, |shape| shape.pixels());
    let mut images: Vec<Vec<f32>> = (0..count).map(|at| draw(seed, 0, at as u64, pixels).0).collect();
    for step in (1..=STEPS).rev() {
        let t = f64::from(step) / f64::from(STEPS);
        let now: Vec<(Vec<f32>, f32)> = images.iter().map(|values| (values.clone(), t as f32)).collect();
        let said = model.predict(&now)?;
        for (values, said) in images.iter_mut().zip(said) {
            values.iter_mut().zip(said).for_each(|(value, pull)| *value -= pull / STEPS as f32);
        }
    }
    let shape = model.config().image();
    Ok(images.iter().filter_map(|values| Some(Picture::of_values(&shape?.join(values)))).collect())
}
