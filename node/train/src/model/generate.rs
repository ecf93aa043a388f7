//! Batched generation with a key-value cache.
//!
//! Prompts are run through the layers together, then every sequence grows by one token
//! a step; finished ones leave the batch. A sequence's tokens depend on its own prompt,
//! its number and the weights alone: the same in any batch, at any number of workers.

use std::ops::Deref;

use super::{Batch, INVARIANT_ROWS, Model, ModelError};
use crate::kernel::attention;
use crate::kernel::norm;
use crate::kernel::simd::{product_transposed, wide};
use crate::ops::block::Block;
use crate::ops::tape::elements;
use crate::rng::mix;

/// Tokens of prompts run through the layers together.
const PREFILL_TOKENS: usize = 1_024;
/// Sequences that one worker grows together, at most.
const SEQUENCES_MAX: usize = 64;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// The largest logit; the lowest token on equal ones.
    Greedy,
    /// Drawn from `softmax(logits / temperature)` by a counter keyed by (seed, sequence, position).
    Sample {
        /// The seed.
        seed: u64,
        /// The temperature; must be positive.
        temperature: f32,
    },
}

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Generation {
    /// Tokens to add at most; the context ends a sequence earlier.
    pub new_tokens_max: usize,
    /// The token that ends a sequence, such as the configuration's `eos`.
    pub stop: u32,
    /// How tokens are chosen.
    pub choice: Choice,
    /// Worker threads; the result does not depend on them.
    pub workers: usize,
}

/// A generated continuation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Continuation {
    /// The tokens added, the stop token included when it was reached.
    pub tokens: Vec<u32>,
    /// Whether the stop token was reached.
    pub stopped: bool,
}

/// One growing sequence.
#[derive(Debug)]
struct Sequence {
    /// Its place among the prompts, which also keys its draws.
    place: usize,
    /// Tokens in the cache.
    position: usize,
    last: u32,
    /// Keys and values of each layer: one row of `key * dim` elements per position.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    made: Continuation,
}

impl Model {
    /// Continues every prompt.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when a prompt is empty, leaves no room in the context or has
    /// a token outside the vocabulary.
    ///
    /// # Panics
    /// When a worker panicked: a bug, passed on.
    pub fn generate(&self, prompts: &[&[u32]], what: &Generation) -> Result<Vec<Continuation>, ModelError> {
        for prompt in prompts {
            if prompt.is_empty() || prompt.len() >= self.context() {
                let (tokens, context) = (prompt.len(), self.context());
                let fact =
                    format!("a prompt of {tokens} tokens cannot be continued in a context of {context}");
                return Err(ModelError::Batch { fact });
            }
        }
        let workers = what.workers.clamp(1, prompts.len().max(1));
        let share = prompts.len().div_ceil(workers).clamp(1, SEQUENCES_MAX);
        let groups: Vec<(usize, &[&[u32]])> =
            prompts.chunks(share).enumerate().map(|(at, group)| (at * share, group)).collect();
        let mut made = Vec::with_capacity(prompts.len());
        for wave in groups.chunks(workers) {
            let results: Vec<_> = match wave {
                [(first, group)] => vec![self.grow(*first, group, what)],
                several => std::thread::scope(|scope| {
                    let run = |&(first, group)| scope.spawn(move || self.grow(first, group, what));
                    let handles: Vec<_> = several.iter().map(run).collect();
                    let join = |handle: std::thread::ScopedJoinHandle<'_, _>| match handle.join() {
                        Ok(result) => result,
                        Err(panic) => std::panic::resume_unwind(panic),
                    };
                    handles.into_iter().map(join).collect()
                }),
            };
            for result in results {
                made.extend(result?);
            }
        }
        Ok(made)
    }

    /// Continues a group of prompts on this thread.
    fn grow(
        &self,
        first: usize,
        prompts: &[&[u32]],
        what: &Generation,
    ) -> Result<Vec<Continuation>, ModelError> {
        let mut done: Vec<Continuation> = vec![Continuation::default(); prompts.len()];
        if what.new_tokens_max == 0 {
            return Ok(done);
        }
        let weights = Guards::new(self)?;
        let weights = weights.borrow();
        let (mut growing, mut hidden) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < prompts.len() {
            let mut tokens = 0;
            let fits = |prompt: &&&[u32]| {
                tokens += prompt.len();
                tokens <= PREFILL_TOKENS
            };
            let count = prompts[at..].iter().take_while(fits).count().max(1);
            let (sequences, last) = self.prefill(&weights, first + at, &prompts[at..at + count], what)?;
            growing.extend(sequences);
            hidden.extend(last);
            at += count;
        }
        loop {
            self.choose(&weights, &hidden, &mut growing, what);
            let full =
                |s: &Sequence| s.made.tokens.len() == what.new_tokens_max || s.position == self.context();
            let (ended, going): (Vec<_>, Vec<_>) =
                growing.into_iter().partition(|sequence| sequence.made.stopped || full(sequence));
            for sequence in ended {
                done[sequence.place - first] = sequence.made;
            }
            growing = going;
            if growing.is_empty() {
                return Ok(done);
            }
            hidden = self.step(&weights, &mut growing);
        }
    }

    /// Runs prompts through the layers; returns their sequences and last hidden states.
    fn prefill(
        &self,
        weights: &Borrowed<'_>,
        first: usize,
        prompts: &[&[u32]],
        what: &Generation,
    ) -> Result<(Vec<Sequence>, Vec<f32>), ModelError> {
        let batch = Batch::new(prompts, Vec::new(), 0);
        self.check(&batch)?;
        let batch = batch.padded(INVARIANT_ROWS);
        let (heads, hidden) = (self.layout.heads, self.config.hidden);
        let (query, width) = (heads.query * heads.dim, heads.key * heads.dim);
        let mut sequences: Vec<Sequence> = prompts
            .iter()
            .enumerate()
            .map(|(at, prompt)| Sequence {
                place: first + at,
                position: prompt.len(),
                last: 0,
                keys: Vec::with_capacity(self.config.layers),
                values: Vec::with_capacity(self.config.layers),
                made: Continuation::default(),
            })
            .collect();
        let mut x = crate::ops::tape::embed(weights.embed, hidden, &batch.ids);
        for layer in 0..self.config.layers {
            let (out, saved) = self.block(weights, layer, &batch).forward(&x);
            x = out;
            for (sequence, range) in sequences.iter_mut().zip(batch.segments.ranges()) {
                let room = (range.len() + what.new_tokens_max).min(self.context()) * width;
                let (mut keys, mut values) = (Vec::with_capacity(room), Vec::with_capacity(room));
                for row in
                    saved.qkv()[range.start * heads.row()..range.end * heads.row()].chunks_exact(heads.row())
                {
                    keys.extend_from_slice(&row[query..query + width]);
                    values.extend_from_slice(&row[query + width..]);
                }
                sequence.keys.push(keys);
                sequence.values.push(values);
            }
        }
        let last = batch.segments.ranges().take(prompts.len());
        let last = last.flat_map(|range| x[(range.end - 1) * hidden..range.end * hidden].to_vec());
        Ok((sequences, last.collect()))
    }

    fn block<'a>(&'a self, weights: &Borrowed<'a>, layer: usize, batch: &'a Batch) -> Block<'a> {
        Block {
            layout: &self.layout,
            base: weights.layers[layer],
            adapter: self
                .adapter
                .as_ref()
                .zip(weights.adapter.get(layer))
                .map(|(adapter, &theta)| (adapter.layout.as_ref(), theta)),
            rope: &self.rope,
            segments: &batch.segments,
            layer,
            dropout: None,
        }
    }

    /// Picks the next token of every sequence from its hidden state.
    fn choose(&self, weights: &Borrowed<'_>, hidden: &[f32], growing: &mut [Sequence], what: &Generation) {
        let mut normed = vec![0f32; hidden.len()];
        norm::forward(hidden, weights.norm, self.config.rms_eps, &mut normed);
        let vocab = self.config.vocab;
        let mut logits = vec![0f32; growing.len() * vocab];
        product_transposed(&normed, weights.matrix, self.config.hidden, &mut logits, vocab, false);
        for (sequence, logits) in growing.iter_mut().zip(logits.chunks_exact_mut(vocab)) {
            let token = match what.choice {
                Choice::Greedy => largest(logits),
                Choice::Sample { seed, temperature } => {
                    let key = mix(seed ^ mix(sequence.place as u64)) ^ sequence.position as u64;
                    let unit = (mix(mix(key)) >> 11) as f64 / (1u64 << 53) as f64;
                    draw(logits, temperature, unit)
                }
            };
            sequence.made.tokens.push(token);
            sequence.made.stopped = token == what.stop;
            sequence.last = token;
        }
    }

    /// Runs the last token of every sequence through the layers; returns the hidden states.
    fn step(&self, weights: &Borrowed<'_>, growing: &mut [Sequence]) -> Vec<f32> {
        let heads = self.layout.heads;
        let (query, width) = (heads.query * heads.dim, heads.key * heads.dim);
        let ids: Vec<u32> = growing.iter().map(|sequence| sequence.last).collect();
        let mut x = crate::ops::tape::embed(weights.embed, self.config.hidden, &ids);
        // Only the layers' weights are read from it: every row is a sequence of its own.
        let rows = Batch::new(&[&ids], Vec::new(), 0);
        for layer in 0..self.config.layers {
            x = self.block(weights, layer, &rows).step(&x, |at, row, out| {
                let sequence = &mut growing[at];
                self.rope.turn_at(&mut row[..query + width], sequence.position);
                sequence.keys[layer].extend_from_slice(&row[query..query + width]);
                sequence.values[layer].extend_from_slice(&row[query + width..]);
                attention::step(heads, row, &sequence.keys[layer], &sequence.values[layer], out);
            });
        }
        growing.iter_mut().for_each(|sequence| sequence.position += 1);
        x
    }
}

/// The lowest index of the largest logit.
fn largest(logits: &[f32]) -> u32 {
    let top = wide(|| crate::kernel::math::max(logits));
    logits.iter().position(|&logit| logit == top).unwrap_or(0) as u32
}

/// Draws a token: the first whose cumulative probability exceeds `unit`.
fn draw(logits: &mut [f32], temperature: f32, unit: f64) -> u32 {
    let top = wide(|| crate::kernel::math::max(logits));
    let cool = 1.0 / temperature.max(1e-6);
    wide(|| logits.iter_mut().for_each(|z| *z = crate::kernel::math::exp((*z - top) * cool)));
    let total: f64 = logits.iter().map(|&p| f64::from(p)).sum();
    let mut left = unit * total;
    for (token, &p) in logits.iter().enumerate() {
        left -= f64::from(p);
        if left < 0.0 {
            return token as u32;
        }
    }
    largest(logits)
}

/// Read locks on every weight, held while generating.
struct Guards<G> {
    embed: G,
    layers: Vec<G>,
    norm: G,
    head: Option<G>,
    adapter: Vec<G>,
}

/// The weights as slices.
struct Borrowed<'a> {
    embed: &'a [f32],
    layers: Vec<&'a [f32]>,
    norm: &'a [f32],
    matrix: &'a [f32],
    adapter: Vec<&'a [f32]>,
}

impl Guards<()> {
    fn new(model: &Model) -> Result<Guards<impl Deref<Target = [f32]> + '_>, ModelError> {
        let base = &model.base;
        let adapter = model.adapter.as_ref().map(|adapter| adapter.layers.as_slice()).unwrap_or_default();
        Ok(Guards {
            embed: elements(&base.embed)?,
            layers: base.layers.iter().map(elements).collect::<Result<_, _>>()?,
            norm: elements(&base.norm)?,
            head: base.head.as_ref().map(elements).transpose()?,
            adapter: adapter.iter().map(elements).collect::<Result<_, _>>()?,
        })
    }
}

impl<G: Deref<Target = [f32]>> Guards<G> {
    fn borrow(&self) -> Borrowed<'_> {
        Borrowed {
            embed: &self.embed,
            layers: self.layers.iter().map(|layer| &**layer).collect(),
            norm: &self.norm,
            matrix: self.head.as_deref().unwrap_or(&self.embed),
            adapter: self.adapter.iter().map(|layer| &**layer).collect(),
        }
    }
}
