//! Learning from rewards: group-relative policy optimization (GRPO, arXiv:2402.03300).
//!
//! Each step samples a group of answers to every prompt, grades them, and weighs each answer
//! by how much better than its group it is ([`group_weights`]). One update per sample
//! (on-policy), no reference model, no clipping. A recipe may begin with supervised steps on
//! the rows' reference answers: a model that never earns a reward learns nothing from them.
//!
//! Answers are drawn by a counter keyed by (seed, step, place of the row in the step, sample):
//! the same at any number of workers, and again after a restart.
//!
//! | key of the recipe | value | what it does |
//! |---|---|---|
//! | `group-size` | 2 to 64 | answers sampled to a prompt (8) |
//! | `warm-steps` | from 0 | supervised steps on the reference answers before (0) |
//! | `temperature-milli` | 1 to 10000 | temperature of the samples, in thousandths (1000) |
//! | `group-rate-ppm` | 1 to 1000000 | share of the learning rate that steps on rewards take (all) |

use std::sync::{Mutex, PoisonError};

use tiltyard_proto::recipe::Recipe;

use super::objective::{Objective, Step};
use super::run::RunError;
use super::settings::number;
use crate::data::Template;
use crate::data::graded::Question;
use crate::loss::{self, Row, group_weights, in_order};
use crate::model::Batch;
use crate::model::generate::{Choice, Continuation, Generation};
use crate::rng::mix;

/// The free key of the number of answers to a prompt.
pub const GROUP_KEY: &str = "group-size";
/// The free key of the number of supervised steps.
pub const WARM_KEY: &str = "warm-steps";
/// The free key of the temperature, in thousandths.
pub const TEMPERATURE_KEY: &str = "temperature-milli";
/// The free key of the share of the learning rate for steps on rewards, in millionths.
pub const RATE_KEY: &str = "group-rate-ppm";

/// Steps without one answer that differs in reward from its group after which a run ends.
pub const SILENT_STEPS_MAX: u32 = 20;

/// How groups are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSettings {
    /// Answers sampled to a prompt.
    pub size: usize,
    /// Supervised steps before.
    pub warm_steps: u64,
    /// Temperature of the samples, in thousandths.
    pub temperature_milli: u32,
    /// Share of the learning rate that steps on rewards take, in millionths.
    pub rate_ppm: u32,
}

impl GroupSettings {
    /// Reads the free keys of a recipe.
    ///
    /// # Errors
    /// [`RunError::Setting`] naming the key, its value and what is accepted.
    pub fn read(recipe: &Recipe) -> Result<Self, RunError> {
        Ok(Self {
            size: number(recipe, GROUP_KEY, 2, 64)?.map_or(8, |size| size as usize),
            warm_steps: number(recipe, WARM_KEY, 0, u64::from(u32::MAX))?.unwrap_or(0),
            temperature_milli: number(recipe, TEMPERATURE_KEY, 1, 10_000)?.unwrap_or(1_000) as u32,
            rate_ppm: number(recipe, RATE_KEY, 1, 1_000_000)?.unwrap_or(1_000_000) as u32,
        })
    }
}

/// What the last steps on rewards saw.
#[derive(Debug, Default)]
struct Seen {
    /// Mean reward of the last step's answers; `None` after a supervised step.
    reward: Option<f64>,
    /// Steps in a row in which no group had two different rewards.
    silent_steps: u32,
    /// Answers, in those steps, that the token limit cut off, and all of them.
    cut: u64,
    answers: u64,
    /// The largest reward in those steps.
    best: f64,
}

/// Answers of the model itself, weighed by their rewards.
#[derive(Debug)]
pub struct Groups<'a> {
    template: &'a Template,
    questions: &'a [Question],
    tokens_max: usize,
    settings: GroupSettings,
    seen: Mutex<Seen>,
}

impl<'a> Groups<'a> {
    /// Learns from the rewards of these questions, with answers of at most `tokens_max` tokens.
    ///
    /// # Errors
    /// [`RunError::NoReference`] when the recipe warms up and a question has no reference answer.
    pub fn new(
        template: &'a Template,
        questions: &'a [Question],
        tokens_max: usize,
        settings: GroupSettings,
    ) -> Result<Self, RunError> {
        let bare = questions.iter().position(|question| question.reference.is_none());
        match bare.filter(|_| settings.warm_steps > 0) {
            Some(row) => Err(RunError::NoReference { row: row + 1 }),
            None => Ok(Self { template, questions, tokens_max, settings, seen: Mutex::default() }),
        }
    }

    fn picked(&self, rows: &[usize]) -> Vec<&'a Question> {
        rows.iter().filter_map(|&row| self.questions.get(row)).collect()
    }

    fn supervised(&self, step: &Step<'_>, rows: &[usize]) -> Vec<Batch> {
        let questions = self.picked(rows);
        let reference = |question: &&'a Question| question.reference.clone().unwrap_or_default();
        let targets: usize = questions.iter().map(|question| reference(question).len()).sum();
        let row = |question: &&'a Question| {
            let ids = [question.prompt.clone(), reference(question)].concat();
            Row::completion(ids, question.prompt.len(), loss::mean_weight(targets))
        };
        loss::shards(&questions.iter().map(row).collect::<Vec<_>>(), step.shard_tokens)
    }

    /// Samples the groups of a step, in order: one list of answers per question.
    fn sample(&self, step: &Step<'_>, questions: &[&Question]) -> Result<Vec<Continuation>, RunError> {
        let prompts = questions
            .iter()
            .flat_map(|question| std::iter::repeat_n(question.prompt.as_slice(), self.settings.size));
        let prompts: Vec<&[u32]> = prompts.collect();
        let what = Generation {
            new_tokens_max: self.tokens_max,
            stop: self.template.end(),
            choice: Choice::Sample {
                seed: mix(step.seed ^ mix(step.number)),
                temperature: self.settings.temperature_milli as f32 / 1e3,
            },
            workers: step.workers,
        };
        Ok(step.model.generate(&prompts, &what)?)
    }

    fn graded(&self, step: &Step<'_>, rows: &[usize]) -> Result<Vec<Batch>, RunError> {
        let (questions, size) = (self.picked(rows), self.settings.size);
        let answers = self.sample(step, &questions)?;
        let pairs: Vec<(&Question, &Continuation)> =
            answers.iter().enumerate().map(|(at, answer)| (questions[at / size], answer)).collect();
        let rewards = in_order(&pairs, step.workers, |(question, answer)| {
            let text = self.template.answer_text(&answer.tokens);
            Ok::<f64, RunError>(text.map_or(0.0, |text| question.reward.of_answer(&text)))
        })?;
        self.watch(&rewards, &answers)?;
        let mut weighed = Vec::with_capacity(answers.len());
        for (at, question) in questions.iter().enumerate() {
            let group = at * size..(at + 1) * size;
            let lengths: Vec<usize> = answers[group.clone()].iter().map(|made| made.tokens.len()).collect();
            let weights = group_weights(&rewards[group.clone()], &lengths, questions.len());
            for (answer, weight) in answers[group].iter().zip(weights) {
                let ids = [question.prompt.as_slice(), &answer.tokens].concat();
                weighed.push(Row::completion(ids, question.prompt.len(), weight));
            }
        }
        // An answer that weighs nothing changes nothing; one is kept so that a step is a step.
        let idle = |row: &Row| row.golds.iter().all(|gold| gold.weight == 0.0);
        let first = weighed.first().cloned();
        weighed.retain(|row| !idle(row));
        if weighed.is_empty() {
            weighed.extend(first);
        }
        Ok(loss::shards(&weighed, step.shard_tokens))
    }

    /// Notes the rewards of a step, and ends a run whose rewards say nothing for too long.
    fn watch(&self, rewards: &[f64], answers: &[Continuation]) -> Result<(), RunError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.reward = Some(rewards.iter().sum::<f64>() / rewards.len().max(1) as f64);
        let told = |group: &[f64]| group.iter().any(|reward| Some(reward) != group.first());
        if rewards.chunks(self.settings.size).any(told) {
            *seen = Seen { reward: seen.reward, ..Seen::default() };
            return Ok(());
        }
        seen.silent_steps += 1;
        seen.answers += answers.len() as u64;
        seen.cut += answers.iter().filter(|answer| !answer.stopped).count() as u64;
        seen.best = rewards.iter().copied().fold(seen.best, f64::max);
        if seen.silent_steps < SILENT_STEPS_MAX || seen.best > 0.0 {
            return Ok(());
        }
        let (steps, tokens) = (seen.silent_steps, self.tokens_max);
        Err(match seen.cut == seen.answers {
            true => RunError::NeverEnds { steps, tokens },
            false => RunError::NoReward { steps },
        })
    }
}

impl Objective for Groups<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.questions.iter().map(|question| question.tokens(self.tokens_max)).collect()
    }

    fn shards(&self, step: &Step<'_>, rows: &[usize]) -> Result<Vec<Batch>, RunError> {
        if step.number < self.settings.warm_steps {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).reward = None;
            return Ok(self.supervised(step, rows));
        }
        self.graded(step, rows)
    }

    /// 1 − the mean reward of the step's answers; the mean loss of a supervised step.
    fn loss(&self, targets: &mut dyn Iterator<Item = (f64, f64)>) -> f64 {
        let surrogate: f64 = targets.map(|(weight, loss)| weight * loss).sum();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.reward {
            // A surrogate that is no number must be seen as such.
            Some(reward) if surrogate.is_finite() => 1.0 - reward,
            Some(_) | None => surrogate,
        }
    }

    fn rate_share(&self, step: u64) -> f64 {
        match step < self.settings.warm_steps {
            true => 1.0,
            false => f64::from(self.settings.rate_ppm) / 1e6,
        }
    }
}
