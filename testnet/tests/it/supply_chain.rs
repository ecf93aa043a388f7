//! Our own list of versions to stay above, and licences to stay within.
//!
//! Advisory databases miss most of these (gossipsub, yamux and libp2p-quic have none there), so the list is kept here.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Crate, first good version, why.
const FLOORS: &[(&str, [u64; 3], &str)] = &[
    ("libp2p-gossipsub", [0, 50, 1], "GHSA-vrx6-jcp8-vm7m, CVE-2026-33040, CVE-2026-34219"),
    ("yamux", [0, 13, 10], "CVE-2024-32984, CVE-2026-31814, CVE-2026-32314"),
    ("quinn-proto", [0, 11, 15], "RUSTSEC-2026-0185"),
    ("libp2p", [0, 45, 1], "RUSTSEC-2022-0084"),
    ("hickory-proto", [0, 26, 1], "RUSTSEC-2026-0118, RUSTSEC-2026-0119"),
    ("snow", [0, 9, 5], "RUSTSEC-2024-0011"),
    ("serde_cbor", [0, 10, 2], "RUSTSEC-2019-0025"),
    ("ed25519-dalek", [2, 0, 0], "RUSTSEC-2022-0093"),
    ("curve25519-dalek", [4, 1, 3], "RUSTSEC-2024-0344"),
    ("crossbeam-epoch", [0, 9, 20], "RUSTSEC-2026-0204"),
    ("bytes", [1, 11, 1], "RUSTSEC-2026-0007"),
    ("memmap2", [0, 9, 11], "RUSTSEC-2026-0186"),
    ("tokio", [1, 44, 2], "RUSTSEC-2025-0023"),
    ("time", [0, 3, 47], "RUSTSEC-2026-0009"),
    ("h2", [0, 4, 16], "RUSTSEC-2026-0258"),
    ("rustls-webpki", [0, 103, 13], "RUSTSEC-2026-0104"),
    ("ring", [0, 17, 12], "RUSTSEC-2025-0009"),
    // Comes with candle, for formats that are never opened here.
    ("zip", [2, 3, 0], "RUSTSEC-2026-0068"),
];

/// Crates that must not be in the graph at all, and why.
const ABSENT: &[(&str, &str)] = &[
    ("bincode", "RUSTSEC-2025-0141: unmaintained"),
    ("tar", "no archives are ever unpacked"),
    ("libp2p-rendezvous", "GHSA-cqfx-gf56-8x59"),
];

/// Licences that a dependency may offer.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "0BSD",
    "Unlicense",
    "MPL-2.0",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "MIT-0",
];

fn metadata() -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn packages(metadata: &Value) -> Vec<(String, String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let nodes = metadata["resolve"]["nodes"].as_array().expect("resolved graph");
    let used: std::collections::BTreeSet<&str> =
        nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id)))
        .map(|package| {
            let name = text(&package["name"]).expect("name");
            (name, text(&package["version"]).expect("version"), text(&package["license"]))
        })
        .collect()
}

fn triple(version: &str) -> [u64; 3] {
    let core = version.split(['-', '+']).next().unwrap_or(version);
    let mut parts = core.split('.').map(|part| part.parse().unwrap_or(0));
    [parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0)]
}

#[test]
fn no_dependency_is_below_its_advisory_floor() {
    let metadata = metadata();
    let packages = packages(&metadata);
    let mut seen = 0;
    for (name, floor, advisory) in FLOORS {
        for (_, version, _) in packages.iter().filter(|(found, ..)| found == name) {
            seen += 1;
            assert!(triple(version) >= *floor, "{name} {version} is below {floor:?}: {advisory}");
        }
    }
    assert!(seen >= 5, "the list no longer matches the graph: only {seen} entries found");
    for (name, why) in ABSENT {
        assert!(!packages.iter().any(|(found, ..)| found == name), "{name} is in the graph: {why}");
    }
}

#[test]
fn every_dependency_offers_a_licence_we_may_use() {
    let metadata = metadata();
    for (name, version, licence) in packages(&metadata) {
        let licence = licence.unwrap_or_default();
        let fits = licence.replace('/', " OR ").split(" OR ").any(|choice| {
            choice.split(" AND ").all(|part| LICENCES.contains(&part.trim().trim_matches(['(', ')']).trim()))
        });
        assert!(fits, "{name} {version} has licence {licence:?}");
    }
}

#[test]
fn a_version_compares_by_its_numbers() {
    assert!(triple("0.50.1") > triple("0.5.9"));
    assert_eq!(triple("0.5.0-alpha"), [0, 5, 0]);
}
