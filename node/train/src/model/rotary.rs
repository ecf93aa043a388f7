//! The angles of rotary position embedding, as configurations describe them.

use std::f64::consts::TAU;

/// How positions turn into angles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// Base of the angles.
    pub theta: f64,
    /// How they are stretched for longer contexts.
    pub scaling: Scaling,
}

/// A stretch of the angles beyond the context of pre-training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// None.
    None,
    /// Every angle is divided (Chen et al. 2023, arXiv:2306.15595).
    Linear {
        /// By how much.
        factor: f64,
    },
    /// Slow angles are divided, fast ones kept, those between blended: `rope_type` "llama3".
    Llama3 {
        /// By how much the slow ones are divided.
        factor: f64,
        /// Angles that turn fewer times than this over the first context are slow.
        low: f64,
        /// Angles that turn more times than this are fast.
        high: f64,
        /// The context of pre-training, in tokens.
        original: f64,
    },
}

impl Rotary {
    /// Plain angles.
    pub fn plain(theta: f64) -> Self {
        Self { theta, scaling: Scaling::None }
    }

    /// The turn per position of each pair of a head of `head_dim` elements, in radians.
    pub(crate) fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let plain = |pair: usize| 1.0 / self.theta.powf(2.0 * pair as f64 / head_dim as f64);
        (0..head_dim / 2).map(|pair| self.scaling.stretch(plain(pair)) as f32).collect()
    }
}

impl Scaling {
    fn stretch(self, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low, high, original } => {
                let turns = original * frequency / TAU;
                if turns < low {
                    return frequency / factor;
                }
                if turns > high {
                    return frequency;
                }
                let share = (turns - low) / (high - low);
                (1.0 - share) * frequency / factor + share * frequency
            }
        }
    }
}
