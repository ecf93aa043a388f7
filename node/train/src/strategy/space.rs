//! The space that a search moves in: one point is one recipe without its length.
//!
//! The same space serves our own search and whatever is compared with it.

use tiltyard_proto::recipe::{Recipe, Strategy};

use super::form::{AverageName, Form, LoraForm, ScheduleName};

/// Numbers in `[0, 1)` that name a point.
pub const DIMENSIONS: usize = 8;
/// Learning rates of adapters, lowest and highest.
pub const ADAPTER_RATES: (f64, f64) = (1e-4, 5e-2);
/// Learning rates of full tuning, lowest and highest.
pub const FULL_RATES: (f64, f64) = (1e-5, 1e-2);
/// Ranks of adapters; alpha is twice the rank, so that the scale does not depend on it.
pub const RANKS: [u32; 4] = [8, 16, 32, 64];
/// Rows in a step.
pub const ROWS: [u32; 4] = [4, 8, 16, 32];
/// Shares of the adapter's input dropped.
pub const DROPOUTS: [f64; 3] = [0.0, 0.05, 0.1];
/// Decays of averaged weights; none trains without.
pub const AVERAGES: [Option<f64>; 2] = [None, Some(0.98)];
/// The attention's four layers, the narrower of the two sets of targets.
const ATTENTION: [&str; 4] = ["q_proj", "k_proj", "v_proj", "o_proj"];
/// More steps than any budget pays for: the tokens decide how long a run is.
const STEPS: u32 = 1_000_000_000;

/// A space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Whether all weights may be trained, beside adapters.
    pub full: bool,
}

/// One point.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Whether all weights are trained.
    pub full: bool,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Rank of the adapter.
    pub rank: u32,
    /// Whether the adapter covers the attention only, not all linear layers.
    pub attention_only: bool,
    /// Rows in a step.
    pub batch_rows: u32,
    /// Shape of the learning rate.
    pub schedule: ScheduleName,
    /// Share of the adapter's input dropped.
    pub dropout: f64,
    /// Decay of averaged weights.
    pub ema: Option<f64>,
}

fn pick<T: Copy>(values: &[T], unit: f64) -> T {
    let at = (unit.clamp(0.0, 1.0) * values.len() as f64) as usize;
    values[at.min(values.len() - 1)]
}

impl Space {
    /// The range of learning rates of a method.
    pub fn rates(full: bool) -> (f64, f64) {
        if full { FULL_RATES } else { ADAPTER_RATES }
    }

    /// Turns a point of the unit cube into a point of the space.
    pub fn point(self, unit: &[f64; DIMENSIONS]) -> Point {
        let [method, rate, rank, targets, rows, schedule, dropout, average] = *unit;
        let full = self.full && method >= 0.5;
        let (low, high) = Self::rates(full);
        Point {
            full,
            learning_rate: low * (high / low).powf(rate.clamp(0.0, 1.0)),
            rank: pick(&RANKS, rank),
            // All linear layers three times in four: they are better far more often than not.
            attention_only: targets >= 0.75,
            batch_rows: pick(&ROWS, rows),
            schedule: pick(&[ScheduleName::Linear, ScheduleName::Cosine], schedule),
            dropout: pick(&DROPOUTS, dropout),
            ema: pick(&AVERAGES, average),
        }
    }
}

impl Point {
    /// A plain adapter, before anything is known.
    pub const PLAIN: Self = Self {
        full: false,
        learning_rate: 4e-3,
        rank: 16,
        attention_only: false,
        batch_rows: 8,
        schedule: ScheduleName::Linear,
        dropout: 0.0,
        ema: None,
    };

    /// The recipe of this point with a number of steps, over rows of which the longest is given.
    pub fn recipe(&self, strategy: Strategy, seed: u64, sequence_tokens: u32, steps: u32) -> Recipe {
        self.form().fixed(strategy, seed, sequence_tokens, steps)
    }

    /// The recipe of this point, as long as its token budget.
    pub fn form(&self) -> Form {
        let targets = self.attention_only.then(|| ATTENTION.map(str::to_owned).to_vec());
        let lora =
            LoraForm { rank: self.rank, alpha: 2.0 * f64::from(self.rank), dropout: self.dropout, targets };
        Form {
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            warmup: 0.02,
            batch_rows: self.batch_rows,
            accumulation: 1,
            epochs: None,
            steps: Some(STEPS),
            packing: false,
            weight_decay: 0.0,
            clip: 1.0,
            loss_average: AverageName::Example,
            shard_tokens: None,
            ema: self.ema,
            bucket_steps: None,
            evaluate_every: None,
            patience: None,
            group_size: None,
            warm_steps: None,
            temperature: None,
            group_rate: None,
            lora: (!self.full).then_some(lora),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_of_the_cube_are_corners_of_the_space() {
        let low = Space { full: true }.point(&[0.0; DIMENSIONS]);
        assert_eq!((low.full, low.rank, low.batch_rows, low.ema), (false, 8, 4, None));
        assert!((low.learning_rate / 1e-4 - 1.0).abs() < 1e-9);
        let high = Space { full: true }.point(&[1.0; DIMENSIONS]);
        assert!(high.full && high.form().lora.is_none());
        assert!((high.learning_rate / 1e-2 - 1.0).abs() < 1e-9);
        let closed = Space { full: false }.point(&[1.0; DIMENSIONS]);
        assert!(!closed.full && closed.attention_only && closed.rank == 64);
        assert!((closed.learning_rate / 5e-2 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn every_point_is_a_recipe_that_the_budget_ends() {
        let rows = [20; 96];
        for step in 0..64u32 {
            let unit: [f64; DIMENSIONS] =
                std::array::from_fn(|at| f64::from(step * (at as u32 * 2 + 1) % 64) / 64.0);
            let point = Space { full: true }.point(&unit);
            let strategy = tiltyard_proto::recipe::Strategy::Search;
            let recipe = point.form().recipe(strategy, 1, &rows, 10_000).expect("valid");
            assert_eq!(u64::from(recipe.steps), 10_000 / (20 * u64::from(point.batch_rows)));
        }
    }
}
