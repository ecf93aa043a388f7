//! One training run: a recipe applied to a base and rows, a step at a time.

use candle_core::{CpuStorage, InplaceOp1, Layout, bail};
use tiltyard_proto::codec;
use tiltyard_proto::recipe::{Method, Recipe};

use super::optim::{AdamW, Moments, rate};
use super::shard;
use super::state::{Position, State};
use crate::data::stream::{StepShape, Stream};
use crate::data::{Average, Example, micro_batches};
use crate::model::adapter::{AdapterError, AdapterSpec};
use crate::model::{Model, ModelError, Pass};
use crate::ops::tape::elements;
use crate::rng::mix;

/// Says why a run fails.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The adapter cannot be made.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The loss is not a number.
    #[error("the loss at step {step} is not finite; lower the learning rate of {rate:e}")]
    Diverged {
        /// The step, from 1.
        step: u64,
        /// The learning rate of that step.
        rate: f64,
    },
    /// The recipe trains no layer.
    #[error("the recipe adapts no layer; name at least one in targets")]
    NoTargets,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps taken, this one included.
    pub step: u64,
    /// Mean loss of the step's rows, in nats.
    pub loss: f64,
    /// Learning rate used.
    pub rate: f64,
    /// Gradient norm before clipping.
    pub norm: f64,
    /// Tokens of the step.
    pub tokens: u64,
}

/// A run in progress.
#[derive(Debug)]
pub struct Run<'a> {
    model: Model,
    recipe: Recipe,
    average: Average,
    optimizer: AdamW,
    moments: Moments,
    stream: Stream<'a>,
    step: u64,
    tokens: u64,
    workers: usize,
}

/// The seeds of the parts of a run, drawn from the recipe's one seed.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Adapter = 1,
    Order = 2,
    Dropout = 3,
}

fn seed(recipe: &Recipe, purpose: Purpose) -> u64 {
    mix(recipe.seed ^ mix(purpose as u64))
}

/// The free key of a recipe that says how losses are averaged.
pub const AVERAGE_KEY: &str = "loss-average";

/// Reads how a recipe averages losses: by token unless it says `example`.
pub fn average(recipe: &Recipe) -> Average {
    let found = recipe.extra.iter().find(|(key, _)| key == AVERAGE_KEY);
    match found.map(|(_, value)| value.as_str()) {
        Some("example") => Average::Example,
        Some(_) | None => Average::Token,
    }
}

/// How a recipe's rows make a step.
pub fn step_shape(recipe: &Recipe) -> StepShape {
    let blocks = recipe.batch_rows as usize * recipe.accumulation.max(1) as usize;
    let packed_tokens = recipe.packing.then_some(recipe.sequence_tokens as usize);
    StepShape { blocks, packed_tokens }
}

impl<'a> Run<'a> {
    /// Starts a run from the base.
    ///
    /// # Errors
    /// [`RunError`] when the recipe's method does not fit the base.
    pub fn new(
        base: &Model,
        recipe: Recipe,
        examples: &'a [Example],
        workers: usize,
    ) -> Result<Self, RunError> {
        let mut model = base.clone();
        match AdapterSpec::from_method(&recipe.method) {
            None => model.train_base()?,
            Some(spec) if spec.modules.is_empty() => return Err(RunError::NoTargets),
            Some(spec) => model.train_new_adapter(&spec, seed(&recipe, Purpose::Adapter))?,
        }
        let optimizer = AdamW {
            weight_decay: recipe.weight_decay_ppm as f32 / 1e6,
            clip: (recipe.clip_milli > 0).then_some(recipe.clip_milli as f32 / 1e3),
            ..AdamW::default()
        };
        let sizes: Vec<usize> = model.variables().iter().map(|v| v.elem_count()).collect();
        let stream = Stream::new(examples, seed(&recipe, Purpose::Order), step_shape(&recipe));
        let average = average(&recipe);
        let moments = Moments::zero(sizes.into_iter());
        Ok(Self { model, recipe, average, optimizer, moments, stream, step: 0, tokens: 0, workers })
    }

    /// The model as trained so far.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The recipe the run follows.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Tokens trained on.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Takes one step at the learning rate of the recipe's schedule.
    ///
    /// # Errors
    /// [`RunError::Diverged`] when the loss is no number; the parameters are then not changed.
    pub fn advance(&mut self) -> Result<StepReport, RunError> {
        let peak = self.recipe.learning_rate_nano as f64 / 1e9;
        let steps = u64::from(self.recipe.steps);
        let share = rate(self.recipe.schedule, self.recipe.warmup_ppm, self.step, steps);
        self.advance_at(peak * share)
    }

    /// Takes one step at a given learning rate.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn advance_at(&mut self, rate: f64) -> Result<StepReport, RunError> {
        let rows = self.stream.next_step();
        let batches = micro_batches(&rows, self.average);
        let dropout = match self.recipe.method {
            Method::Lora { dropout_ppm, .. } if dropout_ppm > 0 => {
                Some((seed(&self.recipe, Purpose::Dropout), self.step, dropout_ppm))
            }
            Method::Lora { .. } | Method::Full => None,
        };
        let pass = Pass { dropout, recompute: false };
        let gradients = shard::gradients(&self.model, &batches, pass, self.workers)?;
        let targets = batches.iter().flat_map(|batch| batch.targets());
        let weighted = gradients.losses.iter().zip(targets);
        let loss: f64 = weighted.map(|(loss, target)| loss * f64::from(target.weight)).sum();
        let norm = super::optim::global_norm(&gradients.values);
        let step = self.step + 1;
        if !loss.is_finite() || !norm.is_finite() {
            return Err(RunError::Diverged { step, rate });
        }
        let variables = self.model.variables();
        let norm = self.optimizer.apply(&variables, &gradients.values, &mut self.moments, rate as f32)?;
        let tokens: u64 = batches.iter().map(|batch| batch.tokens() as u64).sum();
        self.step = step;
        self.tokens += tokens;
        Ok(StepReport { step, loss, rate, norm, tokens })
    }

    /// Identifies the run: its recipe and the number of rows it reads.
    fn identity(recipe: &Recipe, examples: usize) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&codec::encode(recipe));
        hasher.update(&(examples as u64).to_le_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Captures everything needed to go on later.
    ///
    /// # Errors
    /// [`RunError::Model`] when a parameter cannot be read.
    pub(crate) fn save(&self, examples: usize) -> Result<State, RunError> {
        let mut parameters = Vec::new();
        for variable in self.model.variables() {
            parameters.push(elements(variable).map_err(ModelError::from)?.to_vec());
        }
        Ok(State {
            position: Position {
                run: Self::identity(&self.recipe, examples),
                step: self.step,
                tokens: self.tokens,
                sizes: parameters.iter().map(|values| values.len() as u64).collect(),
            },
            parameters,
            first: self.moments.first.clone(),
            second: self.moments.second.clone(),
        })
    }

    /// Goes on from a saved state; `false` when it belongs to another run.
    ///
    /// # Errors
    /// [`RunError::Model`] when a parameter cannot be written.
    pub(crate) fn restore(&mut self, state: State, examples: usize) -> Result<bool, RunError> {
        let variables = self.model.variables();
        let sizes: Vec<u64> = variables.iter().map(|v| v.elem_count() as u64).collect();
        let position = &state.position;
        if position.run != Self::identity(&self.recipe, examples) || position.sizes != sizes {
            return Ok(false);
        }
        for (variable, values) in variables.iter().zip(&state.parameters) {
            variable.inplace_op1(&Overwrite { values }).map_err(ModelError::from)?;
        }
        self.stream.skip(position.step.saturating_sub(self.step));
        (self.step, self.tokens) = (position.step, position.tokens);
        self.moments = Moments { step: position.step, first: state.first, second: state.second };
        Ok(true)
    }
}

/// Replaces a parameter's values where they lie.
struct Overwrite<'a> {
    values: &'a [f32],
}

impl InplaceOp1 for Overwrite<'_> {
    fn name(&self) -> &'static str {
        "tiltyard-overwrite"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(to), Some((start, end))) if end - start == self.values.len() => {
                to[start..end].copy_from_slice(self.values);
                Ok(())
            }
            _ => bail!("a parameter is not contiguous f32 of the saved size"),
        }
    }
}
