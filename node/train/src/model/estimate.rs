//! What a task needs, from the model's shape alone: memory in bytes, work in operations.

use super::config::Config;
use crate::kernel::head::CHUNK;

/// Bytes of the program itself: code, tokenizer, rows.
const PROGRAM_BYTES: u64 = 64 << 20;
/// Bytes of an `f32`.
const VALUE: u64 = 4;

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trained {
    /// All weights.
    Base,
    /// An adapter of this rank on every linear layer.
    Adapter {
        /// The rank.
        rank: u32,
    },
}

impl Trained {
    /// All weights without a rank, else an adapter of that rank.
    pub fn from_rank(rank: Option<u32>) -> Self {
        rank.map_or(Self::Base, |rank| Self::Adapter { rank })
    }
}

/// The widths of one decoder layer, in elements a token.
struct Widths {
    hidden: u64,
    inner: u64,
    qkv: u64,
    query: u64,
}

fn widths(config: &Config) -> Widths {
    let dim = config.head_dim as u64;
    Widths {
        hidden: config.hidden as u64,
        inner: config.inner as u64,
        qkv: (config.query_heads + 2 * config.key_heads) as u64 * dim,
        query: config.query_heads as u64 * dim,
    }
}

fn layer_parameters(config: &Config) -> u64 {
    let Widths { hidden, inner, qkv, query } = widths(config);
    hidden * qkv + query * hidden + 3 * hidden * inner
}

/// The parameters of a model of this shape.
pub fn parameters(config: &Config) -> u64 {
    let table = config.vocab as u64 * config.hidden as u64;
    let head = config.outputs() as u64 * config.hidden as u64;
    let tables = if config.tied { table } else { table + head };
    let norms = (2 * config.layers as u64 + 1) * config.hidden as u64;
    tables + norms + config.layers as u64 * layer_parameters(config)
}

fn trained_parameters(config: &Config, trained: Trained) -> u64 {
    match trained {
        Trained::Base => parameters(config),
        Trained::Adapter { rank } => {
            let Widths { hidden, inner, qkv, query } = widths(config);
            let ends = (3 * hidden + qkv) + (query + hidden) + (2 * hidden + 2 * inner) + (inner + hidden);
            ends * u64::from(rank) * config.layers as u64
        }
    }
}

/// Activations of one layer kept for its backward pass, in elements a token.
fn kept(config: &Config) -> u64 {
    let Widths { hidden, inner, qkv, query } = widths(config);
    3 * hidden + qkv + query + 3 * inner
}

/// Memory of one evaluation, in bytes: the weights once, and each worker's activations.
///
/// `longest` is the longest row, in tokens.
pub fn evaluation_bytes(config: &Config, longest: usize, workers: usize) -> u64 {
    let tokens = longest.max(512) as u64;
    let layer = tokens * (kept(config) + 2 * config.hidden as u64);
    let scores = (longest as u64).pow(2);
    let logits = CHUNK as u64 * config.vocab as u64;
    PROGRAM_BYTES + VALUE * (parameters(config) + workers as u64 * (layer + scores + logits))
}

/// Memory of one training run, in bytes: the weights once, the optimizer's moments, and each
/// worker's gradients and activations.
///
/// `shard_tokens` is the larger of the shard and the longest row.
pub fn training_bytes(
    config: &Config,
    trained: Trained,
    shard_tokens: usize,
    workers: usize,
    recompute: bool,
) -> u64 {
    let (tokens, layers) = (shard_tokens as u64, config.layers as u64);
    let variables = trained_parameters(config, trained);
    let inputs = (layers + 1) * config.hidden as u64;
    let activations = if recompute { kept(config) } else { layers * kept(config) } + inputs;
    let backward = 2 * kept(config) + 2 * tokens;
    let logits = CHUNK as u64 * config.vocab as u64;
    let worker = tokens * (activations + backward) + logits + 2 * variables;
    // The variables, two moments, the sum of the gradients, and what is being saved.
    let shared = parameters(config) + 7 * variables;
    PROGRAM_BYTES + VALUE * (shared + workers as u64 * worker)
}

/// Floating-point operations of a forward pass, for a row of `length` tokens of which
/// `targets` are predicted.
pub fn forward_operations(config: &Config, length: u64, targets: u64) -> u64 {
    let linear = config.layers as u64 * layer_parameters(config) * length;
    let attention = config.layers as u64 * widths(config).query * length * length;
    2 * (linear + 2 * attention + targets * config.outputs() as u64 * config.hidden as u64)
}

/// How many forward passes a training step costs, in tenths: the activations' gradients cost
/// one more, the weights' gradients another, and computing activations again one more.
pub fn training_factor_tenths(trained: Trained, recompute: bool) -> u64 {
    let backward = match trained {
        Trained::Base => 30,
        Trained::Adapter { .. } => 22,
    };
    if recompute { backward + 10 } else { backward }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::pretrain::tiny;

    #[test]
    fn the_shape_gives_the_number_of_parameters() {
        let config = tiny(1_024, 0);
        assert_eq!(parameters(&config), 1_771_200);
        let model = crate::model::Model::random(config, 1).map(|model| model.parameters());
        assert_eq!(model.ok(), Some(1_771_200));
    }

    #[test]
    fn needs_grow_with_what_is_kept() {
        let config = tiny(1_024, 0);
        let need = |trained, workers, recompute| training_bytes(&config, trained, 256, workers, recompute);
        let adapter = Trained::Adapter { rank: 16 };
        assert!(need(adapter, 1, true) < need(adapter, 1, false));
        assert!(need(adapter, 1, false) < need(adapter, 2, false));
        assert!(need(adapter, 1, false) < need(Trained::Base, 1, false));
        assert!(evaluation_bytes(&config, 64, 1) < need(adapter, 1, true) + (64 << 20));
        assert!(forward_operations(&config, 100, 100) > 2 * 1_500_000 * 100);
    }
}
