//! Learning from past tasks, honest ones and lies.

use tiltyard_proto::manifest::BlobKind;
use tiltyard_proto::recipe::Strategy;
use tiltyard_train::job::run_train;
use tiltyard_train::job::spec::{JobSpec, StrategySpec, Subject};
use tiltyard_train::strategy::learned::Past;
use tiltyard_train::strategy::space::Point;

use crate::jobs::Yard;

const BUDGET: u64 = 30_000;

fn past(task: usize, rate: f64) -> Past {
    let recipe = Point { learning_rate: rate, ..Point::PLAIN }.recipe(Strategy::Search, 1, 40, 100);
    Past { task: format!("t{task}"), base_micro: 4_000_000, mean_micro: 1_000_000, recipe }
}

/// Trains with these past recipes; the mean score of what came out.
fn learned(yard: &Yard, name: &str, past: &[Past]) -> u64 {
    let folder = yard.job(name, &JobSpec::Train(yard.train(StrategySpec::Search, BUDGET)));
    let file = folder.join("past.jsonl");
    let lines: Vec<String> = past.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let (checkpoint, result) = yard.trained(name, yard.train(StrategySpec::Learned(file), BUDGET));
    assert_eq!(result.recipe.strategy, Strategy::Learned);
    assert!(result.recipe.tokens_trained <= BUDGET * 21 / 20, "{}", result.recipe.tokens_trained);
    let subject = match result.kind {
        BlobKind::Model => Subject::Model(checkpoint),
        _ => Subject::Adapter(checkpoint),
    };
    yard.evaluated(&format!("score-{name}"), yard.eval(subject)).mean_micro
}

#[test]
fn a_ledger_full_of_lies_costs_rungs_and_decides_nothing() {
    let yard = Yard::new();
    let base = yard.evaluated("score-base", yard.eval(Subject::Base)).mean_micro;
    let honest: Vec<Past> = (0..8).map(|task| past(task, [3e-3, 6e-3][task % 2])).collect();
    let lies: Vec<Past> = (0..8).map(|task| past(task, [4e-1, 1.1e-5][task % 2])).collect();
    let (taught, deceived) = (learned(&yard, "honest", &honest), learned(&yard, "lies", &lies));
    assert!(taught < base * 2 / 3, "{taught} of {base}");
    assert!(deceived < base * 2 / 3, "{deceived} of {base}: lies decided");
}

#[test]
fn a_file_that_is_no_list_of_past_recipes_ends_the_job_with_its_line() {
    let yard = Yard::new();
    let folder = yard.job("broken", &JobSpec::Train(yard.train(StrategySpec::Search, BUDGET)));
    let file = folder.join("past.jsonl");
    std::fs::write(&file, "{}\n").unwrap();
    let folder = yard.job("broken", &JobSpec::Train(yard.train(StrategySpec::Learned(file), BUDGET)));
    let error = run_train(&folder).unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
    assert_eq!(error.exit_code(), 2);
}
