//! The fused kernels against candle's stock operations: same losses, same gradients.
//!
//! The model here is written a second time, in tensor operations with candle's own
//! automatic differentiation, from nothing but the files the engine saves.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use tiltyard_train::Target;
use tiltyard_train::model::adapter::AdapterSpec;
use tiltyard_train::model::config::{Config, Family};
use tiltyard_train::model::layout::Module;
use tiltyard_train::model::rotary::Rotary;
use tiltyard_train::model::{Batch, FileType, Model, Pass};

struct Stock {
    config: Config,
    tensors: HashMap<String, Var>,
    scale: f64,
}

impl Stock {
    fn new(model: &Model, scale: f64) -> Self {
        let mut tensors = HashMap::new();
        let mut read = |bytes: &[u8]| {
            for (name, tensor) in candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap() {
                let name = name.trim_start_matches("base_model.model.").to_owned();
                tensors.insert(name, Var::from_tensor(&tensor).unwrap());
            }
        };
        read(&model.to_safetensors(FileType::F32).unwrap());
        if let Some(adapter) = model.adapter_to_safetensors(FileType::F32).unwrap() {
            read(&adapter);
        }
        Self { config: model.config().clone(), tensors, scale }
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors[name].as_tensor()
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let mut y = x.matmul(&self.get(&format!("{name}.weight")).t()?)?;
        if let Some(bias) = self.tensors.get(&format!("{name}.bias")) {
            y = y.broadcast_add(bias)?;
        }
        match self.tensors.get(&format!("{name}.lora_A.weight")) {
            None => Ok(y),
            Some(a) => {
                let b = self.get(&format!("{name}.lora_B.weight"));
                y + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * self.scale)?
            }
        }
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let mean = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(self.config.rms_eps))?;
        x.broadcast_div(&mean.sqrt()?)?.broadcast_mul(self.get(&format!("{name}.weight")))
    }

    fn rope(&self, x: &Tensor) -> Result<Tensor> {
        let (_, len, dim) = x.dims3()?;
        let half = dim / 2;
        let angle = |at: usize| {
            let (position, j) = (at / half, at % half);
            position as f64 / self.config.rotary.theta.powf(2.0 * j as f64 / dim as f64)
        };
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..len * half).map(|at| f(angle(at)) as f32).collect();
            Tensor::from_vec(values, (1, len, half), &Device::Cpu)
        };
        let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
        let (low, high) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let turned_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
        let turned_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
        Tensor::cat(&[turned_low, turned_high], 2)
    }

    fn attention(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let (len, _) = x.dims2()?;
        let (query, key, dim) = (self.config.query_heads, self.config.key_heads, self.config.head_dim);
        let split = |y: Tensor, heads: usize| y.reshape((len, heads, dim))?.transpose(0, 1)?.contiguous();
        let turned = |part: &str, heads: usize| {
            let heads = split(self.linear(x, &format!("{name}.{part}_proj"))?, heads)?;
            let norm = format!("{name}.{part}_norm");
            match self.tensors.contains_key(&format!("{norm}.weight")) {
                true => self.rope(&self.norm(&heads, &norm)?),
                false => self.rope(&heads),
            }
        };
        let (q, k) = (turned("q", query)?, turned("k", key)?);
        let v = split(self.linear(x, &format!("{name}.v_proj"))?, key)?;
        let spread = |y: &Tensor| {
            let wide = y.unsqueeze(1)?.broadcast_as((key, query / key, len, dim))?;
            wide.reshape((query, len, dim))?.contiguous()
        };
        let scores = (q.matmul(&spread(&k)?.t()?.contiguous()?)? * (1.0 / (dim as f64).sqrt()))?;
        let mask = |at: usize| if at % len > at / len { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..len * len).map(mask).collect();
        let scores = scores.broadcast_add(&Tensor::from_vec(mask, (1, len, len), &Device::Cpu)?)?;
        let probs = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let out = probs.matmul(&spread(&v)?)?.transpose(0, 1)?.reshape((len, query * dim))?;
        self.linear(&out, &format!("{name}.o_proj"))
    }

    /// Losses of one sequence's targets.
    fn losses(&self, ids: &[u32], targets: &[(usize, u32)]) -> Result<Tensor> {
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let mut x = self.get("model.embed_tokens.weight").index_select(&ids, 0)?;
        for layer in 0..self.config.layers {
            let at = format!("model.layers.{layer}");
            let normed = self.norm(&x, &format!("{at}.input_layernorm"))?;
            x = (&x + self.attention(&normed, &format!("{at}.self_attn"))?)?;
            let normed = self.norm(&x, &format!("{at}.post_attention_layernorm"))?;
            let gate = candle_nn::ops::silu(&self.linear(&normed, &format!("{at}.mlp.gate_proj"))?)?;
            let up = self.linear(&normed, &format!("{at}.mlp.up_proj"))?;
            x = (&x + self.linear(&(gate * up)?, &format!("{at}.mlp.down_proj"))?)?;
        }
        let rows = Tensor::new(targets.iter().map(|t| t.0 as u32).collect::<Vec<_>>(), &Device::Cpu)?;
        let gold = Tensor::new(targets.iter().map(|t| t.1).collect::<Vec<_>>(), &Device::Cpu)?;
        let x = self.norm(&x.index_select(&rows, 0)?, "model.norm")?;
        let head = if self.config.tied { "model.embed_tokens" } else { "lm_head" };
        let log = candle_nn::ops::log_softmax(&self.linear(&x, head)?, D::Minus1)?;
        log.gather(&gold.unsqueeze(1)?, 1)?.squeeze(1)?.neg()
    }
}

fn config(tied: bool) -> Config {
    family(Family::Llama, tied)
}

fn family(family: Family, tied: bool) -> Config {
    Config {
        family,
        vocab: 61,
        hidden: 24,
        inner: 40,
        layers: 3,
        query_heads: 4,
        key_heads: 2,
        head_dim: 8,
        rotary: Rotary::plain(10_000.0),
        rms_eps: 1e-5,
        positions: 64,
        tied,
        eos: 0,
    }
}

/// A sequence and its targets: row inside the sequence, token.
type Sequence = (Vec<u32>, Vec<(usize, u32)>);

/// Three sequences of different length.
fn rows() -> Vec<Sequence> {
    let ids = |len: usize, step: usize| (0..len).map(|i| (i * step % 61) as u32).collect::<Vec<_>>();
    vec![
        (ids(17, 7), vec![(4, 3), (5, 60), (16, 0)]),
        (ids(1, 1), vec![(0, 9)]),
        (ids(30, 11), vec![(0, 1), (29, 2)]),
    ]
}

fn batch() -> Batch {
    let rows = rows();
    let (mut start, mut targets) = (0, Vec::new());
    for (ids, gold) in &rows {
        let shifted = gold.iter().map(|&(row, token)| Target { row: start + row, token, weight: 0.25 });
        targets.extend(shifted);
        start += ids.len();
    }
    let ids: Vec<&[u32]> = rows.iter().map(|(ids, _)| ids.as_slice()).collect();
    Batch::new(&ids, targets, 0)
}

/// Compares losses, then each named tensor's gradient.
fn check(model: &Model, scale: f64, names: impl Fn(&str) -> bool) {
    let ours = model.gradients(&batch(), Pass::default()).unwrap();
    let stock = Stock::new(model, scale);
    let mut total: Option<Tensor> = None;
    let mut theirs = Vec::new();
    for (ids, gold) in rows() {
        let losses = stock.losses(&ids, &gold).unwrap();
        theirs.extend(losses.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap());
        let sum = (losses.sum_all().unwrap() * 0.25).unwrap();
        total = Some(match total {
            None => sum,
            Some(total) => (total + sum).unwrap(),
        });
    }
    for (ours, theirs) in ours.losses.iter().zip(&theirs) {
        assert!((ours - theirs).abs() < 3e-5, "loss {ours} against {theirs}");
    }
    let grads = total.unwrap().backward().unwrap();
    let want: HashMap<String, Vec<f32>> = stock
        .tensors
        .iter()
        .filter(|(name, _)| names(name))
        .map(|(name, var)| {
            let grad = grads.get(var.as_tensor()).expect("every trained tensor has a gradient");
            (name.clone(), grad.flatten_all().unwrap().to_vec1().unwrap())
        })
        .collect();
    let got = model.name_values(&ours.values);
    assert_eq!(got.len(), want.len(), "one gradient per trained tensor");
    for (name, want) in want {
        let got = &got[name.as_str()];
        let largest = want.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() < 2e-4 * largest, "{name}: {g} against {w} (largest {largest})");
        }
    }
}

#[test]
fn full_fine_tuning_gradients_match_stock_operations() {
    let families = [Family::Llama, Family::Llama, Family::Qwen2, Family::Qwen3];
    for (of, tied) in families.into_iter().zip([true, false, true, false]) {
        let mut model = Model::random(family(of, tied), 3).unwrap();
        model.train_base().unwrap();
        check(&model, 0.0, |_| true);
    }
}

/// Saves the model's adapter with no matrix left at zero.
fn spoiled(model: &Model, spec: &AdapterSpec) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bytes = model.adapter_to_safetensors(FileType::F32).unwrap().unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    let shift = |tensor: &Tensor| {
        let values: Vec<f32> = (0..tensor.elem_count()).map(|i| (i as f32 * 0.7).sin() * 0.1).collect();
        tensor + Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?
    };
    let tensors: HashMap<String, Tensor> =
        tensors.iter().map(|(name, tensor)| (name.clone(), shift(tensor).unwrap())).collect();
    candle_core::safetensors::save(&tensors, folder.path().join("adapter_model.safetensors")).unwrap();
    std::fs::write(folder.path().join("adapter_config.json"), spec.to_json().unwrap()).unwrap();
    folder
}

#[test]
fn adapter_gradients_match_stock_operations() {
    let some = || vec![Module::Query, Module::Value, Module::Down];
    let cases = [
        (Family::Llama, Module::ALL.to_vec()),
        (Family::Llama, some()),
        (Family::Llama, vec![Module::Up]),
        (Family::Qwen2, some()),
        (Family::Qwen3, Module::ALL.to_vec()),
    ];
    for (of, modules) in cases {
        let mut model = Model::random(family(of, true), 4).unwrap();
        let spec = AdapterSpec { rank: 3, alpha: 6.0, modules };
        model.train_new_adapter(&spec, 5).unwrap();
        let folder = spoiled(&model, &spec);
        model.load_adapter(folder.path(), 1 << 20).unwrap();
        model.train_current_adapter().unwrap();
        check(&model, 2.0, |name| name.contains("lora_"));
    }
}

#[test]
fn recomputing_activations_changes_no_bit() {
    let mut model = Model::random(config(true), 7).unwrap();
    model.train_base().unwrap();
    let kept = model.gradients(&batch(), Pass::default()).unwrap();
    let pass = Pass { recompute: true, ..Pass::default() };
    assert_eq!(kept.values, model.gradients(&batch(), pass).unwrap().values);
}

#[test]
fn packed_rows_do_not_see_each_other() {
    let model = Model::random(config(true), 8).unwrap();
    let together = model.losses(&batch()).unwrap();
    let mut alone = Vec::new();
    for (ids, gold) in rows() {
        let targets = gold.iter().map(|&(row, token)| Target { row, token, weight: 1.0 }).collect();
        alone.extend(model.losses(&Batch::new(&[&ids], targets, 0)).unwrap());
    }
    for (together, alone) in together.iter().zip(&alone) {
        assert!((together - alone).abs() < 1e-5, "{together} {alone}");
    }
}

#[test]
fn the_crate_s_own_stock_path_gives_the_same_gradients_dropout_and_all() {
    let close = |model: &Model, pass: Pass| {
        let fused = model.gradients(&batch(), pass).unwrap();
        let mut other = model.clone();
        other.train_on(&Device::Cpu).unwrap();
        let stock = other.gradients(&batch(), pass).unwrap();
        let largest = fused.values.iter().flatten().fold(1e-3f32, |most, v| most.max(v.abs()));
        for (fused, stock) in fused.losses.iter().zip(&stock.losses) {
            assert!((fused - stock).abs() < 3e-5);
        }
        for (fused, stock) in fused.values.iter().flatten().zip(stock.values.iter().flatten()) {
            assert!((fused - stock).abs() < 2e-4 * largest, "{fused} against {stock}");
        }
    };
    let mut model = Model::random(config(false), 9).unwrap();
    model.train_base().unwrap();
    close(&model, Pass::default());
    let mut model = Model::random(config(true), 4).unwrap();
    let spec = AdapterSpec { rank: 3, alpha: 6.0, modules: Module::ALL.to_vec() };
    model.train_new_adapter(&spec, 5).unwrap();
    let folder = spoiled(&model, &spec);
    model.load_adapter(folder.path(), 1 << 20).unwrap();
    model.train_current_adapter().unwrap();
    close(&model, Pass { dropout: Some((1, 2, 200_000)), recompute: false });
    for other in [Family::Qwen2, Family::Qwen3] {
        let mut model = Model::random(family(other, true), 6).unwrap();
        model.train_base().unwrap();
        close(&model, Pass::default());
    }
}
