//! AdamW with global-norm clipping, and learning-rate schedules by step count.

use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, bail};
use tiltyard_proto::recipe::Schedule;

use crate::kernel::math::sum_squares;
use crate::kernel::simd::wide;
use crate::model::ModelError;

/// The constants of AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, per unit of learning rate.
    pub weight_decay: f32,
    /// Largest global gradient norm; `None` never clips.
    pub clip: Option<f32>,
}

impl Default for AdamW {
    /// PyTorch's defaults, without decay, clipped at 1.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, clip: Some(1.0) }
    }
}

/// The moments of every parameter and the number of steps taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Steps taken.
    pub step: u64,
    /// First moments, per parameter.
    pub first: Vec<Vec<f32>>,
    /// Second moments, per parameter.
    pub second: Vec<Vec<f32>>,
}

impl Moments {
    /// Starts at zero for parameters of these sizes.
    pub fn zero(sizes: impl Iterator<Item = usize>) -> Self {
        let first: Vec<Vec<f32>> = sizes.map(|size| vec![0.0; size]).collect();
        Self { step: 0, second: first.clone(), first }
    }
}

/// One parameter's update, applied where the parameter lies.
struct Update<'a> {
    gradient: &'a [f32],
    moments: Mutex<(&'a mut [f32], &'a mut [f32])>,
    optimizer: AdamW,
    learning_rate: f32,
    scale: f32,
    corrections: (f32, f32),
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "tiltyard-adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("a parameter is not contiguous f32")
        };
        let mut moments = self.moments.lock().unwrap_or_else(|poison| poison.into_inner());
        let (first, second) = &mut *moments;
        let values = &mut values[start..end];
        if values.len() != self.gradient.len() || values.len() != first.len() {
            bail!("a gradient has another size than its parameter")
        }
        let AdamW { beta1, beta2, eps, weight_decay, .. } = self.optimizer;
        let keep = 1.0 - self.learning_rate * weight_decay;
        let (correct1, correct2) = self.corrections;
        let rate = self.learning_rate / correct1;
        let states = first.iter_mut().zip(second.iter_mut());
        wide(|| {
            for ((value, &g), (m, v)) in values.iter_mut().zip(self.gradient).zip(states) {
                let g = g * self.scale;
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                let root = (*v / correct2).sqrt() + eps;
                *value = *value * keep - rate * *m / root;
            }
        });
        Ok(())
    }
}

/// Computes the Euclidean norm over all gradients together.
pub fn global_norm(gradients: &[Vec<f32>]) -> f64 {
    let blocks = gradients.iter().flat_map(|gradient| gradient.chunks(4_096));
    blocks.map(|block| f64::from(wide(|| sum_squares(block)))).sum::<f64>().sqrt()
}

impl AdamW {
    /// Applies one step to `variables` and returns the gradient norm before clipping.
    ///
    /// # Errors
    /// [`ModelError::Tensor`] when a parameter is not what the gradients were made for.
    pub(crate) fn apply(
        &self,
        variables: &[&Tensor],
        gradients: &[Vec<f32>],
        moments: &mut Moments,
        learning_rate: f32,
    ) -> Result<f64, ModelError> {
        let norm = global_norm(gradients);
        let scale = match self.clip {
            Some(clip) if norm > f64::from(clip) => (f64::from(clip) / norm) as f32,
            Some(_) | None => 1.0,
        };
        moments.step += 1;
        let power = moments.step.min(i32::MAX as u64) as i32;
        let correct = |beta: f32| (1.0 - f64::from(beta).powi(power)) as f32;
        let states = moments.first.iter_mut().zip(&mut moments.second);
        for ((variable, gradient), (first, second)) in variables.iter().zip(gradients).zip(states) {
            variable.inplace_op1(&Update {
                gradient,
                moments: Mutex::new((first, second)),
                optimizer: *self,
                learning_rate,
                scale,
                corrections: (correct(self.beta1), correct(self.beta2)),
            })?;
        }
        Ok(norm)
    }
}

/// Computes the learning rate of a step, counted from 0, as a share of the peak.
///
/// Rises in a line over the warm-up steps, then follows the schedule to zero at the end.
pub fn rate(schedule: Schedule, warmup_ppm: u32, step: u64, steps: u64) -> f64 {
    let warmup = (u128::from(steps) * u128::from(warmup_ppm)).div_ceil(1_000_000) as u64;
    if step < warmup {
        return (step + 1) as f64 / warmup as f64;
    }
    let left = steps.saturating_sub(warmup).max(1);
    let gone = step.saturating_sub(warmup).min(left) as f64 / left as f64;
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - gone,
        Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * gone).cos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn two_steps_match_the_textbook_in_f64() -> Result<(), ModelError> {
        let start = [0.5f32, -0.25, 0.0];
        let variable = Var::from_slice(&start, 3, &Device::Cpu)?;
        let optimizer = AdamW { weight_decay: 0.1, ..AdamW::default() };
        let mut moments = Moments::zero([3].into_iter());
        let (mut want, mut m, mut v) = (start.map(f64::from), [0f64; 3], [0f64; 3]);
        for (step, gradient) in [[3.0f32, -4.0, 0.5], [0.1, 0.2, -0.3]].into_iter().enumerate() {
            optimizer.apply(&[&variable], &[gradient.to_vec()], &mut moments, 0.01)?;
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let power = step as i32 + 1;
            for i in 0..3 {
                let g = f64::from(gradient[i]) / norm.max(1.0);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(power)), v[i] / (1.0 - 0.999f64.powi(power)));
                want[i] = want[i] * (1.0 - 0.01 * 0.1) - 0.01 * mh / (vh.sqrt() + 1e-8);
            }
        }
        let got = variable.to_vec1::<f32>()?;
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{got} {want}");
        }
        Ok(())
    }

    #[test]
    fn schedules_rise_then_fall_to_zero() {
        let at = |schedule, step| rate(schedule, 100_000, step, 100);
        assert_eq!(at(Schedule::Linear, 0), 0.1);
        assert_eq!(at(Schedule::Linear, 9), 1.0);
        assert_eq!(at(Schedule::Linear, 10), 1.0);
        assert_eq!(at(Schedule::Linear, 55), 0.5);
        assert!(at(Schedule::Linear, 99) > 0.0);
        assert_eq!(at(Schedule::Constant, 99), 1.0);
        assert!((at(Schedule::Cosine, 55) - 0.5).abs() < 1e-12);
        assert!(at(Schedule::Cosine, 99) < 0.01);
    }
}
