//! Pre-training of a small base model on plain text.

use tiltyard_proto::recipe::Schedule;
use tokenizers::Tokenizer;

use super::optim::{AdamW, Moments, rate};
use super::shard;
use crate::kernel::head::Target;
use crate::model::config::{Config, Family};
use crate::model::rotary::Rotary;
use crate::model::{Batch, Model, ModelError, Pass};
use crate::rng::Rng;

/// Largest part of the text kept apart to measure the loss on, in tokens.
const HELD_OUT_TOKENS_MAX: usize = 16_384;
/// Bytes of text tokenized at a time; cuts fall on line ends.
const PIECE_BYTES: usize = 64 << 10;

/// What to pre-train and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Optimizer steps.
    pub steps: u64,
    /// Windows per step.
    pub batch: usize,
    /// Tokens per window.
    pub sequence: usize,
    /// Seed of the initial weights and of the data order.
    pub seed: u64,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// Worker threads; the result does not depend on them.
    pub workers: usize,
    /// Windows per shard; part of the arithmetic, unlike the number of workers.
    pub shard: usize,
}

/// Says why pre-training cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The text is too short to cut windows from.
    #[error("the text has {tokens} tokens; windows of {sequence} need at least {needed}")]
    TextTooShort {
        /// Tokens in the text.
        tokens: usize,
        /// Tokens per window.
        sequence: usize,
        /// Tokens needed.
        needed: usize,
    },
    /// The tokenizer failed on the text.
    #[error("the text cannot be tokenized: {0}")]
    Tokenize(String),
}

/// The progress of a run, given every few steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Mean training loss since the last report, in nats a token.
    pub loss: f64,
    /// Loss on the text kept apart, when measured.
    pub held_out: Option<f64>,
}

/// The shape of the base model shipped with the project: 1.8 million parameters.
pub fn tiny(vocab: usize, eos: u32) -> Config {
    Config {
        family: Family::Llama,
        vocab,
        hidden: 192,
        inner: 512,
        layers: 4,
        query_heads: 6,
        key_heads: 2,
        head_dim: 32,
        rotary: Rotary::plain(10_000.0),
        rms_eps: 1e-5,
        positions: 1_024,
        tied: true,
        eos,
    }
}

/// Turns text into tokens, piece by piece.
///
/// # Errors
/// [`PretrainError::Tokenize`] when the tokenizer fails.
pub fn tokenize(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, PretrainError> {
    let mut ids = Vec::new();
    let mut piece = String::with_capacity(PIECE_BYTES * 2);
    let mut flush = |piece: &mut String| {
        let encoded = tokenizer.encode(piece.as_str(), false);
        ids.extend(encoded.map_err(|e| PretrainError::Tokenize(e.to_string()))?.get_ids());
        piece.clear();
        Ok::<(), PretrainError>(())
    };
    for line in text.split_inclusive('\n') {
        piece.push_str(line);
        if piece.len() >= PIECE_BYTES {
            flush(&mut piece)?;
        }
    }
    flush(&mut piece)?;
    Ok(ids)
}

fn window(ids: &[u32], start: usize, sequence: usize) -> &[u32] {
    &ids[start..start + sequence + 1]
}

fn batch(windows: &[&[u32]], weight: f32, first_row: u64) -> Batch {
    let inputs: Vec<&[u32]> = windows.iter().map(|window| &window[..window.len() - 1]).collect();
    let tokens = windows.iter().flat_map(|window| &window[1..]);
    let targets = tokens.enumerate().map(|(row, &token)| Target { row, token, weight }).collect();
    Batch::new(&inputs, targets, first_row)
}

/// Measures the mean loss over consecutive windows, in nats a token.
fn held_out(model: &Model, ids: &[u32], sequence: usize) -> Result<f64, ModelError> {
    let starts = (0..).step_by(sequence).take_while(|start| start + sequence < ids.len());
    let windows: Vec<&[u32]> = starts.map(|start| window(ids, start, sequence)).collect();
    let (mut total, mut count) = (0f64, 0usize);
    for windows in windows.chunks(8) {
        let losses = model.losses(&batch(windows, 1.0, 0))?;
        total += losses.iter().sum::<f64>();
        count += losses.len();
    }
    Ok(total / count.max(1) as f64)
}

/// Pre-trains a model from random weights and reports about `reports` times.
///
/// AdamW (0.9, 0.95), decay 0.1, clip 1, 2 % warm-up, cosine. Equal settings and
/// text give equal weights on one processor type, at any number of workers.
///
/// # Errors
/// [`PretrainError`] when the text is too short or the model fails.
pub fn run(
    config: Config,
    ids: &[u32],
    settings: &Settings,
    reports: u64,
    mut report: impl FnMut(Progress),
) -> Result<Model, PretrainError> {
    let sequence = settings.sequence;
    let apart = (ids.len() / 20).min(HELD_OUT_TOKENS_MAX);
    let (train, test) = ids.split_at(ids.len() - apart);
    if test.len() <= sequence || sequence == 0 {
        let needed = 20 * (sequence + 1);
        return Err(PretrainError::TextTooShort { tokens: ids.len(), sequence, needed });
    }
    let mut model = Model::random(config, settings.seed)?;
    model.train_base()?;
    let optimizer = AdamW { beta2: 0.95, weight_decay: 0.1, clip: Some(1.0), ..AdamW::default() };
    let sizes: Vec<usize> = model.variables().iter().map(|tensor| tensor.elem_count()).collect();
    let mut moments = Moments::zero(sizes.into_iter());
    let mut rng = Rng::new(settings.seed ^ 0x0DA7_A0BD);
    let every = settings.steps.div_ceil(reports.max(1)).max(1);
    let (mut total, mut count) = (0f64, 0usize);
    for step in 0..settings.steps {
        let shards = draw(train, settings, &mut rng);
        let gradients = shard::gradients(&model, &shards, Pass::default(), settings.workers)?;
        let share = rate(Schedule::Cosine, 20_000, step, settings.steps) as f32;
        let rate = settings.learning_rate * share;
        optimizer.apply(&model.variables(), &gradients.values, &mut moments, rate)?;
        total += gradients.losses.iter().sum::<f64>();
        count += gradients.losses.len();
        let done = step + 1;
        if done.is_multiple_of(every) || done == settings.steps {
            let measured = held_out(&model, test, sequence)?;
            let loss = total / count.max(1) as f64;
            report(Progress { step: done, loss, held_out: Some(measured) });
            (total, count) = (0.0, 0);
        }
    }
    Ok(model)
}

fn draw(ids: &[u32], settings: &Settings, rng: &mut Rng) -> Vec<Batch> {
    let last = ids.len() - settings.sequence;
    let windows: Vec<&[u32]> =
        (0..settings.batch).map(|_| window(ids, rng.below(last), settings.sequence)).collect();
    let weight = 1.0 / (settings.batch * settings.sequence).max(1) as f32;
    let mut first = 0u64;
    let mut shards = Vec::new();
    for windows in windows.chunks(settings.shard.max(1)) {
        shards.push(batch(windows, weight, first));
        first += (windows.len() * settings.sequence) as u64;
    }
    shards
}
