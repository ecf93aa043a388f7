//! The engine's promises: the same bits in any company, weights that are weights, generation.

use tiltyard_train::fit::shard;
use tiltyard_train::loss::{Pair, Row, batch, log_probs, shards};
use tiltyard_train::model::adapter::AdapterSpec;
use tiltyard_train::model::config::{Config, Family};
use tiltyard_train::model::generate::{Choice, Generation};
use tiltyard_train::model::layout::Module;
use tiltyard_train::model::rotary::Rotary;
use tiltyard_train::model::{Model, Pass, Weigh};

/// Wide enough (576) that the matrix product's inner loop is cut in several.
fn config() -> Config {
    Config {
        family: Family::Llama,
        vocab: 97,
        hidden: 576,
        inner: 640,
        layers: 2,
        query_heads: 9,
        key_heads: 3,
        head_dim: 64,
        rotary: Rotary::plain(10_000.0),
        rms_eps: 1e-5,
        positions: 128,
        tied: true,
        eos: 0,
    }
}

/// A model with an adapter of this rank whose both factors are away from zero.
fn adapted(rank: u32) -> Model {
    let mut model = Model::random(config(), 11).unwrap();
    let modules = vec![Module::Query, Module::Output, Module::Up, Module::Down];
    model.train_new_adapter(&AdapterSpec { rank, alpha: 8.0, modules }, 5).unwrap();
    let rows = rows();
    for step in 0..2 {
        let pass = Pass::default();
        let gradients = shard::gradients(&model, &shards(&rows, 64), pass, 1).unwrap();
        model.descend(&gradients, 0.05 * (step + 1) as f32).unwrap();
    }
    model
}

/// Rows of many lengths; some predict a single token.
fn rows() -> Vec<Row> {
    let ids = |at: usize, len: usize| (0..len).map(|i| ((at * 31 + i * 7) % 97) as u32).collect::<Vec<_>>();
    let row = |at: usize| {
        let len = 2 + at * 13 % 41;
        let prompt = if at.is_multiple_of(3) { len - 1 } else { 1 + at % (len - 1) };
        Row::completion(ids(at, len), prompt, 1.0 / (1 + at) as f32)
    };
    (0..17).map(row).collect()
}

#[test]
fn log_probabilities_have_the_same_bits_at_any_number_of_workers_and_in_any_batch() {
    for rank in [1, 2, 16] {
        let model = adapted(rank);
        let all = rows();
        let together = log_probs(&model, &all, 1).unwrap();
        for workers in [2, 3, 4] {
            assert_eq!(together, log_probs(&model, &all, workers).unwrap(), "{workers} workers");
        }
        for size in [1, 2, 5] {
            let apart: Vec<Vec<f64>> =
                all.chunks(size).flat_map(|rows| log_probs(&model, rows, 1).unwrap()).collect();
            assert_eq!(together, apart, "batches of {size}, rank {rank}");
        }
        let mut turned: Vec<Row> = all.clone();
        turned.reverse();
        let mut turned = log_probs(&model, &turned, 1).unwrap();
        turned.reverse();
        assert_eq!(together, turned, "another order, rank {rank}");
    }
}

#[test]
fn gradients_have_the_same_bytes_at_any_number_of_workers() {
    let model = adapted(4);
    let shards = shards(&rows(), 48);
    assert!(shards.len() > 5);
    let pass = Pass { dropout: Some((3, 7, 100_000)), recompute: false };
    let one = shard::gradients(&model, &shards, pass, 1).unwrap();
    for workers in [2, 3, 4, 9] {
        let several = shard::gradients(&model, &shards, pass, workers).unwrap();
        assert_eq!((&one.values, &one.losses), (&several.values, &several.losses), "{workers} workers");
    }
    let again = Pass { recompute: true, ..pass };
    assert_eq!(one.values, shard::gradients(&model, &shards, again, 2).unwrap().values);
    let other = Pass { dropout: Some((3, 8, 100_000)), recompute: false };
    assert_ne!(one.values, shard::gradients(&model, &shards, other, 1).unwrap().values);
}

#[test]
fn the_reference_is_the_base_without_its_adapter() {
    let (model, base) = (adapted(4), Model::random(config(), 11).unwrap());
    let reference = log_probs(&model.without_adapter(), &rows(), 1).unwrap();
    assert_eq!(reference, log_probs(&base, &rows(), 1).unwrap());
    assert_ne!(reference, log_probs(&model, &rows(), 1).unwrap());
}

#[test]
fn weights_made_from_the_losses_of_the_pass_act_like_weights_given() {
    let model = adapted(4);
    let pair = [rows()[7].clone(), rows()[8].clone()];
    let lengths = pair.clone().map(|row| row.golds.len());
    let said = log_probs(&model, &pair, 1).unwrap();
    let sum = |tokens: &[f64]| tokens.iter().sum::<f64>();
    let about =
        Pair { reference_chosen: sum(&said[0]) - 1.0, reference_rejected: sum(&said[1]) + 2.0, beta: 0.5 };
    let (up, down) = about.weights(sum(&said[0]), sum(&said[1]), 1);
    let mut given = pair.clone();
    for (row, weight) in given.iter_mut().zip([up, down]) {
        row.golds.iter_mut().for_each(|gold| gold.weight = weight);
    }
    let given = model.gradients(&batch(&given, 0), Pass::default()).unwrap();
    let weigh = Weigh::new(move |losses| {
        let (chosen, rejected) = losses.split_at(lengths[0]);
        let (up, down) = about.weights(-chosen.iter().sum::<f64>(), -rejected.iter().sum::<f64>(), 1);
        [vec![up; chosen.len()], vec![down; rejected.len()]].concat()
    });
    let made = model.gradients(&batch(&pair, 0).weighed_by(weigh), Pass::default()).unwrap();
    assert!((made.weights[0] - up).abs() < 1e-6 && (made.weights[lengths[0]] - down).abs() < 1e-6);
    let largest = given.values.iter().flatten().fold(0f32, |most, v| most.max(v.abs()));
    for (given, made) in given.values.iter().flatten().zip(made.values.iter().flatten()) {
        assert!((given - made).abs() < 1e-5 * largest);
    }
}

#[test]
fn greedy_tokens_are_the_most_probable_and_the_same_in_any_batch_at_any_number_of_workers() {
    let model = adapted(4);
    let prompts: Vec<Vec<u32>> = rows().into_iter().take(9).map(|row| row.ids).collect();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let what = |workers| Generation { new_tokens_max: 12, stop: 0, choice: Choice::Greedy, workers };
    let together = model.generate(&prompts, &what(1)).unwrap();
    assert!(together.iter().any(|made| made.tokens.len() == 12));
    for workers in [2, 4] {
        assert_eq!(together, model.generate(&prompts, &what(workers)).unwrap());
    }
    for (prompt, made) in prompts.iter().zip(&together) {
        assert_eq!(*made, model.generate(&[prompt], &what(1)).unwrap()[0]);
    }
    for (prompt, made) in prompts.iter().zip(&together).skip(2).step_by(4) {
        let mut ids = prompt.to_vec();
        for &token in made.tokens.iter().take(4) {
            // Every token of the vocabulary as the next: none is more probable than the chosen.
            let nexts: Vec<Row> = (0..97)
                .map(|next| Row::completion([ids.as_slice(), &[next]].concat(), ids.len(), 1.0))
                .collect();
            let nexts = log_probs(&model, &nexts, 1).unwrap();
            let most = nexts.iter().map(|tokens| tokens[0]).fold(f64::NEG_INFINITY, f64::max);
            assert!(nexts[token as usize][0] > most - 1e-4, "{token} after {ids:?}");
            ids.push(token);
        }
        assert_eq!(made.stopped, made.tokens.last() == Some(&0));
    }
}

#[test]
fn cached_generation_says_what_whole_passes_say_in_every_family() {
    for family in [Family::Llama, Family::Qwen2, Family::Qwen3] {
        let small =
            Config { family, hidden: 48, inner: 64, query_heads: 3, key_heads: 1, head_dim: 16, ..config() };
        let mut model = Model::random(small, 3).unwrap();
        model.train_base().unwrap();
        let prompt: Vec<u32> = vec![4, 8, 15];
        // Away from random: biases and head norms must matter.
        let rows = [Row::completion((0..20).map(|at| at * 5 % 97).collect(), 1, 1.0)];
        let gradients = shard::gradients(&model, &shards(&rows, 64), Pass::default(), 1).unwrap();
        model.descend(&gradients, 0.1).unwrap();
        let what = Generation { new_tokens_max: 10, stop: u32::MAX, choice: Choice::Greedy, workers: 1 };
        let made = model.generate(&[&prompt], &what).unwrap().remove(0).tokens;
        let mut ids = prompt;
        for token in made {
            let nexts: Vec<Row> = (0..97)
                .map(|next| Row::completion([ids.as_slice(), &[next]].concat(), ids.len(), 1.0))
                .collect();
            let nexts = log_probs(&model, &nexts, 1).unwrap();
            let most = nexts.iter().map(|tokens| tokens[0]).fold(f64::NEG_INFINITY, f64::max);
            assert!(nexts[token as usize][0] > most - 1e-4, "{family:?}: {token} after {ids:?}");
            ids.push(token);
        }
    }
}

#[test]
fn sampled_tokens_follow_their_probabilities_and_their_seed() {
    let model = adapted(4);
    let prompt: Vec<u32> = vec![5, 9, 2];
    let prompts = vec![prompt.as_slice(); 3_000];
    let sample = |seed, workers| {
        let choice = Choice::Sample { seed, temperature: 1.0 };
        model.generate(&prompts, &Generation { new_tokens_max: 1, stop: 0, choice, workers }).unwrap()
    };
    let drawn = sample(1, 2);
    assert_eq!(drawn, sample(1, 1));
    assert_ne!(drawn, sample(2, 1));
    let nexts: Vec<Row> =
        (0..97).map(|next| Row::completion([prompt.as_slice(), &[next]].concat(), 3, 1.0)).collect();
    let nexts = log_probs(&model, &nexts, 1).unwrap();
    for (token, tokens) in nexts.iter().enumerate() {
        let (want, found) =
            (tokens[0].exp(), drawn.iter().filter(|made| made.tokens[0] == token as u32).count());
        let found = found as f64 / 3_000.0;
        assert!((found - want).abs() < 5.0 * (want / 3_000.0).sqrt() + 2e-3, "{token}: {found} for {want}");
    }
}
