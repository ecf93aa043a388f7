//! Who plays: the untouched base, presets, miners, and choosers of hyperparameters.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use tiltyard_keys::{PublicKey, SecretKey};

/// What may be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(in super::super) enum League {
    /// Adapters only, by the task's limit on checkpoints.
    Lora,
    /// All weights too.
    Open,
}

impl League {
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::Open => "open",
        }
    }

    /// The limit on a checkpoint: in the league of adapters a little less than all weights take as bf16.
    pub(super) fn checkpoint_bytes_max(self, base: &Path) -> Result<u64> {
        let weights = base.join("model.safetensors");
        let bytes =
            fs::metadata(&weights).with_context(|| format!("cannot find {}", weights.display()))?.len();
        Ok(match self {
            Self::Lora => bytes / 100 * 95,
            Self::Open => super::CHECKPOINT_BYTES_MAX,
        })
    }
}

/// How hyperparameters are chosen from trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Chooser {
    /// Learning rates of a fixed recipe, evenly spaced on a logarithmic scale.
    Sweep,
    /// Uniform draws from the space.
    Random,
    /// Optuna's TPE with median pruning.
    Tpe,
}

/// One contestant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Rival {
    /// The base as it is.
    Base,
    /// A preset by name.
    Preset(String),
    /// Our miner of this number with `search`.
    Search(u8),
    /// Trials, then a final run of the best with what is left.
    Trials { chooser: Chooser, search_percent: u64 },
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => write!(f, "base"),
            Self::Preset(name) => write!(f, "preset:{name}"),
            Self::Search(number) => write!(f, "search:{number}"),
            Self::Trials { chooser, search_percent } => {
                let name = match chooser {
                    Chooser::Sweep => "sweep",
                    Chooser::Random => "random",
                    Chooser::Tpe => "tpe",
                };
                write!(f, "{name}:{search_percent}")
            }
        }
    }
}

impl FromStr for Rival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "there is no rival {text:?}; known are base, preset:NAME, search:NUMBER, and sweep:, random: or tpe:PERCENT (of the tokens for trials)"
            )
        };
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let trials = |chooser| {
            let search_percent =
                rest.parse().ok().filter(|share| (1..=100).contains(share)).ok_or_else(unknown)?;
            Ok(Self::Trials { chooser, search_percent })
        };
        match kind {
            "base" if rest.is_empty() => Ok(Self::Base),
            "preset" => tiltyard_train::strategy::form::Form::preset(rest)
                .map(|_| Self::Preset(rest.to_owned()))
                .map_err(|error| error.to_string()),
            "search" => rest.parse().map(Self::Search).map_err(|_| unknown()),
            "sweep" => trials(Chooser::Sweep),
            "random" => trials(Chooser::Random),
            "tpe" => trials(Chooser::Tpe),
            _ => Err(unknown()),
        }
    }
}

impl Rival {
    /// The key that its randomness follows from: miners have one each, the others share one.
    pub(in super::super) fn key(&self) -> PublicKey {
        let number = match self {
            Self::Search(number) => number.saturating_add(1),
            Self::Base | Self::Preset(_) | Self::Trials { .. } => 0,
        };
        SecretKey::from_seed(&[number; 32]).public()
    }

    /// Hashes of the sources that decide what it does.
    pub(in super::super) fn code(&self) -> String {
        let trainer = &env!("TILTYARD_CODE_TRAINER")[..8];
        let own = match self {
            Self::Search(_) => env!("TILTYARD_CODE_STRATEGY"),
            Self::Base | Self::Preset(_) | Self::Trials { .. } => env!("TILTYARD_CODE_RIVALS"),
        };
        format!("{trainer}-{}", &own[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_the_rivals_they_name() {
        for name in ["base", "preset:axolotl-stretched", "search:7", "sweep:100", "random:60", "tpe:30"] {
            assert_eq!(name.parse::<Rival>().expect("known").to_string(), name);
        }
        for wrong in ["bass", "base:1", "preset:nobody", "search:-1", "tpe:0", "tpe:101", "tpe"] {
            assert!(wrong.parse::<Rival>().is_err(), "{wrong}");
        }
        assert_ne!(Rival::Search(0).key(), Rival::Search(1).key());
    }
}
