//! `adapter_config.json` of the PEFT library, reduced to which layer has which rank and scale.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AdapterError, AdapterSpec, RANK_MAX};
use crate::model::layout::Module;

/// Keys that never change the arithmetic of a saved adapter.
const HARMLESS: [&str; 13] = [
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "loftq_config",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];
/// Most entries of a pattern or list.
const ENTRIES_MAX: usize = 4_096;

/// Settings of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PeftConfig {
    rank: u32,
    alpha: f64,
    /// Whether the scale is `alpha / sqrt(rank)` (Kalajdzievski 2023, arXiv:2312.03732).
    root: bool,
    /// Ends of the names of adapted modules; `None` for every linear layer.
    targets: Option<Vec<String>>,
    /// Adapted decoder layers; `None` for all.
    layers: Option<Vec<usize>>,
    /// Ranks and alphas of modules by the end of their name, sorted by name.
    ranks: BTreeMap<String, u32>,
    alphas: BTreeMap<String, f64>,
}

/// One adapted linear layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Part {
    pub(super) layer: usize,
    pub(super) module: Module,
    pub(super) rank: u32,
    /// Its scale as a share of the whole adapter's.
    pub(super) share: f32,
}

fn refuse(key: &str, value: &Value) -> AdapterError {
    AdapterError::Unsupported { key: key.to_owned(), value: value.to_string().chars().take(80).collect() }
}

fn rank(key: &str, value: &Value) -> Result<u32, AdapterError> {
    let found = value.as_u64().ok_or_else(|| refuse(key, value))?;
    let good = u32::try_from(found).ok().filter(|rank| (1..=RANK_MAX).contains(rank));
    good.ok_or(AdapterError::Rank { rank: found })
}

fn alpha(key: &str, value: &Value) -> Result<f64, AdapterError> {
    let good = value.as_f64().filter(|alpha| alpha.is_finite() && *alpha > 0.0 && *alpha < 1e6);
    good.ok_or_else(|| refuse(key, value))
}

/// Reads a pattern's entries; names with regular expressions in them are refused.
fn pattern<T>(
    key: &str,
    value: &Value,
    read: impl Fn(&str, &Value) -> Result<T, AdapterError>,
) -> Result<BTreeMap<String, T>, AdapterError> {
    let empty = serde_json::Map::new();
    let entries = match value {
        Value::Null => &empty,
        Value::Object(entries) if entries.len() <= ENTRIES_MAX => entries,
        _ => return Err(refuse(key, value)),
    };
    let entry = |(name, value): (&String, &Value)| match is_plain(name) {
        true => Ok((name.clone(), read(key, value)?)),
        false => Err(refuse(key, &Value::from(name.as_str()))),
    };
    entries.iter().map(entry).collect()
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

/// Whether `name` names the module at `path`: the whole path or its end.
fn names(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn path(layer: usize, module: Module) -> String {
    format!("model.layers.{layer}.{}", module.path())
}

impl PeftConfig {
    /// Reads the bytes of an `adapter_config.json`.
    ///
    /// # Errors
    /// [`AdapterError`] naming the first setting that is not plain LoRA.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, AdapterError> {
        let mut keys: BTreeMap<String, Value> = serde_json::from_slice(bytes)?;
        let mut take = |key: &str| keys.remove(key).unwrap_or(Value::Null);
        let (kind, bias, init) = (take("peft_type"), take("bias"), take("init_lora_weights"));
        if kind.as_str() != Some("LORA") {
            return Err(refuse("peft_type", &kind));
        }
        if !bias.is_null() && bias.as_str() != Some("none") {
            return Err(refuse("bias", &bias));
        }
        // Other starts change the base weights too.
        if !(init.is_null() || init.is_boolean() || init.as_str() == Some("gaussian")) {
            return Err(refuse("init_lora_weights", &init));
        }
        let config = Self {
            rank: rank("r", &take("r"))?,
            alpha: alpha("lora_alpha", &take("lora_alpha"))?,
            root: take("use_rslora").as_bool().unwrap_or(false),
            targets: targets(&take("target_modules"))?,
            layers: layers(&take("layers_to_transform"))?,
            ranks: pattern("rank_pattern", &take("rank_pattern"), rank)?,
            alphas: pattern("alpha_pattern", &take("alpha_pattern"), alpha)?,
        };
        for (key, value) in &keys {
            if !HARMLESS.contains(&key.as_str()) && !is_unset(value) {
                return Err(refuse(key, value));
            }
        }
        Ok(config)
    }

    /// Lists every adapted linear layer of a model of so many decoder layers, and the one rank and
    /// scale that hold them all.
    ///
    /// # Errors
    /// [`AdapterError::Unsupported`] when a name fits no linear layer of a decoder.
    pub(super) fn plan(&self, layers: usize) -> Result<(AdapterSpec, Vec<Part>), AdapterError> {
        let places = (0..layers).flat_map(|layer| Module::ALL.map(|module| (layer, module)));
        for target in self.targets.iter().flatten() {
            if !places.clone().any(|(layer, module)| names(&path(layer, module), target)) {
                return Err(refuse("target_modules", &Value::from(target.as_str())));
            }
        }
        if let Some(layer) = self.layers.iter().flatten().find(|&&layer| layer >= layers) {
            return Err(refuse("layers_to_transform", &Value::from(*layer)));
        }
        let mut found = Vec::new();
        for (layer, module) in places {
            let path = path(layer, module);
            let wanted = self.targets.as_ref().is_none_or(|all| all.iter().any(|name| names(&path, name)));
            if !wanted || self.layers.as_ref().is_some_and(|all| !all.contains(&layer)) {
                continue;
            }
            let rank = of("rank_pattern", &self.ranks, &path)?.unwrap_or(self.rank);
            let alpha = of("alpha_pattern", &self.alphas, &path)?.unwrap_or(self.alpha);
            let below = if self.root { f64::from(rank).sqrt() } else { f64::from(rank) };
            found.push((Part { layer, module, rank, share: 1.0 }, alpha / below));
        }
        let Some(&(first, whole)) = found.first() else {
            return Err(refuse("target_modules", &Value::from("nothing in any layer")));
        };
        let rank = found.iter().map(|(part, _)| part.rank).max().unwrap_or(first.rank);
        let modules =
            Module::ALL.into_iter().filter(|module| found.iter().any(|(part, _)| part.module == *module));
        let plain = !self.root && self.alphas.is_empty() && self.ranks.is_empty();
        let alpha = if plain { self.alpha } else { whole * f64::from(rank) };
        let spec = AdapterSpec { rank, alpha, modules: modules.collect() };
        // Equal scales keep the file's very numbers: their share is exactly one.
        let parts = found.iter().map(|(part, scale)| Part { share: (scale / whole) as f32, ..*part });
        Ok((spec, parts.collect()))
    }
}

/// What a pattern gives a module; two entries that fit and differ are refused, as their order is lost.
fn of<T: Copy + PartialEq>(
    key: &str,
    pattern: &BTreeMap<String, T>,
    path: &str,
) -> Result<Option<T>, AdapterError> {
    let mut fits = pattern.iter().filter(|(name, _)| names(path, name)).map(|(_, value)| *value);
    let first = fits.next();
    match fits.all(|other| Some(other) == first) {
        true => Ok(first),
        false => Err(refuse(key, &Value::from(format!("two entries that fit {path}")))),
    }
}

fn targets(value: &Value) -> Result<Option<Vec<String>>, AdapterError> {
    if value.as_str() == Some("all-linear") {
        return Ok(None);
    }
    let refused = || refuse("target_modules", value);
    let list = value.as_array().filter(|list| !list.is_empty() && list.len() <= ENTRIES_MAX);
    let names = list.ok_or_else(refused)?.iter().map(|name| name.as_str().filter(|name| is_plain(name)));
    let names: Option<Vec<String>> = names.map(|name| name.map(str::to_owned)).collect();
    names.map(Some).ok_or_else(refused)
}

fn layers(value: &Value) -> Result<Option<Vec<usize>>, AdapterError> {
    let number = |value: &Value| value.as_u64().and_then(|layer| usize::try_from(layer).ok());
    let list = match value {
        Value::Null => return Ok(None),
        Value::Number(_) => number(value).map(|layer| vec![layer]),
        Value::Array(list) if list.len() <= ENTRIES_MAX => list.iter().map(number).collect(),
        _ => None,
    };
    list.map(Some).ok_or_else(|| refuse("layers_to_transform", value))
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
    }
}
