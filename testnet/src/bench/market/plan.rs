//! Which cells are played, and in which order: what many comparisons need comes first.

use super::play::rival::Rival;

/// The cells of a stage: who plays, and with how many times the tokens of one miner.
type Stage = Vec<(Rival, u64)>;

/// Presets played.
const PRESETS: [&str; 9] = [
    "autotrain-ui",
    "autotrain-ui-stretched",
    "autotrain-cli-stretched",
    "axolotl-stretched",
    "together",
    "together-cli",
    "databricks",
    "trl",
    "gradients-example",
];
/// Choosers, with the share of the tokens that goes to trials.
const CHOOSERS: [&str; 3] = ["sweep:60", "random:60", "tpe:60"];
/// Miners of the small market and of the large one.
pub(super) const MARKETS: [u8; 2] = [3, 8];

/// Whether Optuna can be used here.
pub(super) fn optuna() -> bool {
    super::play::optuna()
}

fn rival(name: &str) -> Option<Rival> {
    name.parse().ok()
}

/// The stages, each played on every task and seed before the next begins.
pub(super) fn stages(wanted: &[Rival], quick: bool, optuna: bool) -> Vec<Stage> {
    if !wanted.is_empty() {
        return vec![wanted.iter().map(|rival| (rival.clone(), 1)).collect()];
    }
    let [few, many] = MARKETS;
    let miners = |numbers: std::ops::Range<u8>| numbers.map(|number| (Rival::Search(number), 1));
    let choosers = |times: u64| {
        let usable = CHOOSERS.into_iter().filter(move |name| optuna || !name.starts_with("tpe"));
        usable.filter_map(rival).map(move |rival| (rival, times))
    };
    let base = || [(Rival::Base, 1)].into_iter();
    if quick {
        let preset = ["preset:autotrain-ui-stretched"].into_iter().filter_map(rival).map(|rival| (rival, 1));
        return vec![base().chain(preset).chain(miners(0..few)).chain(choosers(1)).collect()];
    }
    let presets = PRESETS.iter().filter_map(|name| rival(&format!("preset:{name}"))).map(|rival| (rival, 1));
    vec![
        base().chain(miners(0..few)).chain(choosers(1)).chain(presets).collect(),
        choosers(u64::from(few)).collect(),
        miners(few..many).collect(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_plays_once_and_rivals_also_with_the_markets_tokens() {
        let all: Stage = stages(&[], false, true).into_iter().flatten().collect();
        let names: Vec<String> = all.iter().map(|(rival, times)| format!("{rival} {times}")).collect();
        for name in PRESETS {
            assert!(names.contains(&format!("preset:{name} 1")), "{name} does not parse");
        }
        for name in CHOOSERS {
            assert!(names.contains(&format!("{name} 1")) && names.contains(&format!("{name} 3")), "{name}");
        }
        assert_eq!(names.iter().filter(|name| name.starts_with("search:")).count(), 8);
        let mut distinct = names.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), names.len());
        let without: Stage = stages(&[], false, false).into_iter().flatten().collect();
        assert!(without.iter().all(|(rival, _)| !rival.to_string().starts_with("tpe")));
    }
}
