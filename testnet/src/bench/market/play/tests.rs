//! Tests of playing cells on the shipped model.

use super::*;

fn table(folder: &Path) -> Table {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tasks = tasks::find(&[root.join("assets/data")], &["add".to_owned()]).expect("ships");
    Table::lay(&tasks[0], 1, &root.join("assets/base"), folder).expect("laid")
}

fn play(table: &Table, rival: &str, budget: u64) -> Outcome {
    table.play(&rival.parse().expect("known"), League::Lora, budget).expect("plays")
}

fn mean(scores: &[u32]) -> u64 {
    scores.iter().map(|score| u64::from(*score)).sum::<u64>() / scores.len() as u64
}

#[test]
fn everyone_is_scored_on_the_same_rows_and_stays_within_the_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let table = table(folder.path());
    let base = play(&table, "base", 9_000);
    assert_eq!((base.sealed.len(), base.report.len(), base.tokens), (160, 160, 0));
    for rival in ["preset:axolotl-stretched", "search:0", "sweep:60", "random:60"] {
        let outcome = play(&table, rival, 9_000);
        assert_eq!(outcome.fault, None, "{rival}");
        assert_eq!(outcome.report.len(), 160);
        assert!((4_500..=9_900).contains(&outcome.tokens), "{rival}: {}", outcome.tokens);
        assert!(mean(&outcome.report) < mean(&base.report), "{rival} learned nothing");
    }
    let again = play(&table, "random:60", 9_000);
    assert_eq!(again.report, play(&table, "random:60", 9_000).report, "a cell repeats itself");
}

#[test]
fn a_budget_that_pays_for_no_step_is_said_and_leaves_the_base() {
    let folder = tempfile::tempdir().expect("a folder");
    let table = table(folder.path());
    let base = play(&table, "base", 10);
    for rival in ["preset:axolotl-stretched", "search:0", "sweep:60"] {
        let outcome = play(&table, rival, 10);
        let fault = outcome.fault.expect("cannot work");
        assert!(fault.contains("budget"), "{rival}: {fault}");
        assert_eq!(outcome.report, base.report);
    }
}
