//! One training run: a recipe applied to a base and rows, a step at a time.

use candle_core::{CpuStorage, InplaceOp1, Layout, bail};
use tiltyard_proto::codec;
use tiltyard_proto::recipe::{Method, Recipe};

use super::objective::{Completions, Objective, Shown, Step};
use super::optim::{AdamW, Moments, rate};
use super::settings::Settings;
use super::shard;
use super::state::{Position, State};
use crate::data::Example;
use crate::data::stream::{StepShape, Stream};
use crate::kernel::simd::wide;
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
    /// A free key of the recipe has a value that is not understood.
    #[error("the recipe sets {key} = {value:?}; {wanted} is accepted")]
    Setting {
        /// The key.
        key: &'static str,
        /// Its value, cut to 80 characters.
        value: String,
        /// What is accepted.
        wanted: String,
    },
    /// The recipe trains no layer.
    #[error("the recipe adapts no layer; name at least one in targets")]
    NoTargets,
    /// A warm-up without a reference answer.
    #[error(
        "the recipe warms up on reference answers and row {row} has no completion; add it, or set warm_steps to 0"
    )]
    NoReference {
        /// The row, from 1.
        row: usize,
    },
    /// No sampled answer earned anything for many steps.
    #[error(
        "no answer earned a reward in {steps} steps; warm up on reference answers, or reward a part of the way"
    )]
    NoReward {
        /// Steps in a row.
        steps: u32,
    },
    /// No sampled answer ended, or earned anything, for many steps.
    #[error(
        "every answer of {steps} steps ran into the limit of {tokens} tokens and earned nothing; warm up on reference answers, or raise tokens_max"
    )]
    NeverEnds {
        /// Steps in a row.
        steps: u32,
        /// The token limit.
        tokens: usize,
    },
}

impl RunError {
    /// Whether the run is lost from here on, but not what it kept before.
    pub(crate) fn ends_training(&self) -> bool {
        matches!(self, Self::Diverged { .. } | Self::NoReward { .. } | Self::NeverEnds { .. })
    }
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
    /// Share of right answers among the step's rows, for kinds that know any.
    pub accuracy: Option<f64>,
}

/// A run in progress.
#[derive(Debug)]
pub struct Run<'a> {
    model: Model,
    recipe: Recipe,
    settings: Settings,
    objective: Box<dyn Objective + 'a>,
    rows: usize,
    optimizer: AdamW,
    moments: Moments,
    /// The running average of every parameter, when the recipe asks for one.
    averages: Option<Vec<Vec<f32>>>,
    stream: Stream,
    step: u64,
    tokens: u64,
    workers: usize,
    recompute: bool,
}

/// The seeds of the parts of a run, drawn from the recipe's one seed.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Adapter = 1,
    Order = 2,
    Dropout = 3,
    Objective = 4,
}

fn seed(recipe: &Recipe, purpose: Purpose) -> u64 {
    mix(recipe.seed ^ mix(purpose as u64))
}

/// How a recipe's rows make a step.
///
/// # Errors
/// [`RunError::Setting`] when a free key is not understood.
pub fn step_shape(recipe: &Recipe) -> Result<StepShape, RunError> {
    let blocks = recipe.batch_rows as usize * recipe.accumulation.max(1) as usize;
    let packed_tokens = recipe.packing.then_some(recipe.sequence_tokens as usize);
    Ok(StepShape { blocks, packed_tokens, bucket_steps: Settings::read(recipe)?.bucket_steps })
}

impl<'a> Run<'a> {
    /// Starts a supervised run from the base.
    ///
    /// # Errors
    /// [`RunError`] when the recipe's method does not fit the base.
    pub fn new(
        base: &Model,
        recipe: Recipe,
        examples: &'a [Example],
        workers: usize,
    ) -> Result<Self, RunError> {
        let average = Settings::read(&recipe)?.average;
        Self::with_objective(base, recipe, Box::new(Completions { examples, average }), workers)
    }

    /// Starts a run from the base that learns from any objective.
    ///
    /// # Errors
    /// [`RunError`] when the recipe's method does not fit the base.
    pub fn with_objective(
        base: &Model,
        recipe: Recipe,
        objective: Box<dyn Objective + 'a>,
        workers: usize,
    ) -> Result<Self, RunError> {
        let settings = Settings::read(&recipe)?;
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
        let lengths = objective.lengths();
        let rows = lengths.len();
        let stream = Stream::new(lengths, seed(&recipe, Purpose::Order), step_shape(&recipe)?);
        let mut run = Self {
            moments: Moments::zero(model.variables().iter().map(|v| v.elem_count())),
            model,
            recipe,
            settings,
            objective,
            rows,
            optimizer,
            averages: None,
            stream,
            step: 0,
            tokens: 0,
            workers,
            recompute: false,
        };
        if run.settings.ema_decay_ppm.is_some() {
            run.averages = Some(run.parameters()?);
        }
        Ok(run)
    }

    /// Computes each layer's forward pass again in the backward pass instead of keeping its
    /// activations, or not. Changes memory and time, and no bit of the result.
    pub fn recompute(&mut self, recompute: bool) {
        self.recompute = recompute;
    }

    /// The model as trained so far, not averaged.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model to measure and to keep: the average of the weights where the recipe asks
    /// for one, else the model itself.
    ///
    /// # Errors
    /// [`RunError::Model`] when the parameters cannot be made.
    pub fn result(&self) -> Result<Model, RunError> {
        match &self.averages {
            None => Ok(self.model.clone()),
            Some(averages) => Ok(self.model.with_parameters(averages)?),
        }
    }

    /// The recipe the run follows.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The settings under the recipe's free keys.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Tokens trained on.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    fn parameters(&self) -> Result<Vec<Vec<f32>>, RunError> {
        let variables = self.model.variables().into_iter();
        let copies = variables.map(|variable| Ok(elements(variable)?.to_vec()));
        Ok(copies.collect::<candle_core::Result<_>>().map_err(ModelError::from)?)
    }

    /// Takes one step at the learning rate of the recipe's schedule.
    ///
    /// # Errors
    /// [`RunError::Diverged`] when the loss is no number; the parameters are then not changed.
    pub fn advance(&mut self) -> Result<StepReport, RunError> {
        let peak = self.recipe.learning_rate_nano as f64 / 1e9;
        let steps = u64::from(self.recipe.steps);
        let share = rate(self.recipe.schedule, self.recipe.warmup_ppm, self.step, steps);
        self.advance_at(peak * share * self.objective.rate_share(self.step))
    }

    /// Takes one step at a given learning rate.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn advance_at(&mut self, rate: f64) -> Result<StepReport, RunError> {
        let rows = self.stream.next_step();
        let about = Step {
            model: &self.model,
            number: self.step,
            seed: seed(&self.recipe, Purpose::Objective),
            workers: self.workers,
            shard_tokens: self.settings.shard_tokens,
        };
        let shards = self.objective.shards(&about, &rows)?;
        let dropout = match self.recipe.method {
            Method::Lora { dropout_ppm, .. } if dropout_ppm > 0 => {
                Some((seed(&self.recipe, Purpose::Dropout), self.step, dropout_ppm))
            }
            Method::Lora { .. } | Method::Full => None,
        };
        let pass = Pass { dropout, recompute: self.recompute };
        let gradients = shard::gradients(&self.model, &shards, pass, self.workers)?;
        let weights = gradients.weights.iter().map(|&weight| f64::from(weight));
        let Shown { loss, accuracy } =
            self.objective.shown(&rows, &mut weights.zip(gradients.losses.iter().copied()));
        let norm = super::optim::global_norm(&gradients.values);
        let step = self.step + 1;
        if !loss.is_finite() || !norm.is_finite() {
            return Err(RunError::Diverged { step, rate });
        }
        let variables = self.model.variables();
        let norm = self.optimizer.apply(&variables, &gradients.values, &mut self.moments, rate as f32)?;
        let tokens: u64 = shards.iter().map(|batch| batch.tokens() as u64).sum();
        self.step = step;
        self.tokens += tokens;
        self.follow()?;
        Ok(StepReport { step, loss, rate, norm, tokens, accuracy })
    }

    /// Moves the averages towards the parameters: decay `min(d, (1 + t) / (10 + t))` at step t,
    /// so that the first steps do not weigh for long.
    fn follow(&mut self) -> Result<(), RunError> {
        let (Some(averages), Some(ppm)) = (&mut self.averages, self.settings.ema_decay_ppm) else {
            return Ok(());
        };
        let step = self.step as f64;
        let keep = (f64::from(ppm) / 1e6).min((1.0 + step) / (10.0 + step)) as f32;
        for (average, variable) in averages.iter_mut().zip(self.model.variables()) {
            let now = elements(variable).map_err(ModelError::from)?;
            wide(|| {
                for (average, &now) in average.iter_mut().zip(now.iter()) {
                    *average = keep * *average + (1.0 - keep) * now;
                }
            });
        }
        Ok(())
    }

    /// Identifies the run: its recipe and the number of rows it reads.
    fn identity(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&codec::encode(&self.recipe));
        hasher.update(&(self.rows as u64).to_le_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Captures everything needed to go on later.
    ///
    /// # Errors
    /// [`RunError::Model`] when a parameter cannot be read.
    pub(crate) fn save(&self) -> Result<State, RunError> {
        let parameters = self.parameters()?;
        Ok(State {
            position: Position {
                run: self.identity(),
                step: self.step,
                tokens: self.tokens,
                sizes: parameters.iter().map(|values| values.len() as u64).collect(),
                averaged: self.averages.is_some(),
            },
            parameters,
            first: self.moments.first.clone(),
            second: self.moments.second.clone(),
            averages: self.averages.clone().unwrap_or_default(),
        })
    }

    /// Goes on from a saved state; `false` when it belongs to another run.
    ///
    /// # Errors
    /// [`RunError::Model`] when a parameter cannot be written.
    pub(crate) fn restore(&mut self, state: State) -> Result<bool, RunError> {
        let variables = self.model.variables();
        let sizes: Vec<u64> = variables.iter().map(|v| v.elem_count() as u64).collect();
        let position = &state.position;
        let averaged = self.averages.is_some();
        if position.run != self.identity() || position.sizes != sizes || position.averaged != averaged {
            return Ok(false);
        }
        for (variable, values) in variables.iter().zip(&state.parameters) {
            variable.inplace_op1(&Overwrite { values }).map_err(ModelError::from)?;
        }
        self.stream.skip(position.step.saturating_sub(self.step));
        (self.step, self.tokens) = (position.step, position.tokens);
        self.averages = averaged.then_some(state.averages);
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
