//! SPEC.md names what the code uses.

use tiltyard_proto::genesis::Params;
use tiltyard_proto::hash::context;

const SPEC: &str = include_str!("../../SPEC.md");

#[test]
fn every_hash_context_and_signing_tag_is_in_the_spec() {
    for name in [
        context::GENESIS,
        context::TRANSACTION,
        context::HEADER,
        context::CERTIFICATE,
        context::VALIDATORS,
        context::PARAMS,
        context::RECIPE,
        context::COMMIT,
        context::SCORE,
        context::SEAL_KEY,
        context::PRIORITY,
        context::STAMP,
        context::PROPOSER,
        context::MERKLE_LEAF,
        context::MERKLE_NODE,
        context::MERKLE_ROOT,
        context::SEAL_NONCE,
        context::TRAINING_SEED,
        context::GOSSIP,
    ] {
        assert!(SPEC.contains(&format!("\"{name}\"")), "{name}");
    }
    for purpose in ["transaction", "vote", "proposal", "body", "peer"] {
        assert!(SPEC.contains(&format!("`tiltyard/sign/{purpose}/v1`")), "{purpose}");
    }
}

#[test]
fn every_default_parameter_is_in_the_spec() {
    let table = SPEC.split("## 9.").nth(1).and_then(|rest| rest.split("## 10.").next()).expect("section 9");
    let params = serde_json::to_value(Params::default_for(4)).expect("JSON");
    for (name, value) in params.as_object().expect("an object") {
        let stem = name.trim_end_matches("_timeout_ms");
        let named = |line: &&str| {
            let first = line.split('|').nth(1).unwrap_or_default();
            first
                .split([' ', ','])
                .any(|word| word.trim_end_matches("_timeout_ms").trim_end_matches('_') == stem)
        };
        let row = table.lines().find(named);
        let row = row.unwrap_or_else(|| panic!("{name} has no row"));
        // The shortest window follows from the number of validators.
        let number = if name == "window_min" { "2 × validators".to_owned() } else { value.to_string() };
        assert!(value.is_array() || row.contains(&number), "{name}: {number} is not in: {row}");
    }
}
