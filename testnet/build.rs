//! Names the code that benchmark results come from: hashes over the sources that decide them.

use std::fs;
use std::path::{Path, PathBuf};

/// Variable and the sources it covers, relative to this crate.
const PARTS: [(&str, &[&str]); 3] = [
    (
        "TILTYARD_CODE_TRAINER",
        &[
            "../node/train/src/data",
            "../node/train/src/eval",
            "../node/train/src/fit",
            "../node/train/src/kernel",
            "../node/train/src/model",
            "../node/train/src/ops",
        ],
    ),
    (
        "TILTYARD_CODE_STRATEGY",
        &[
            "../node/train/src/strategy/form.rs",
            "../node/train/src/strategy/search.rs",
            "../node/train/src/strategy/session.rs",
            "../node/train/src/strategy/space.rs",
        ],
    ),
    ("TILTYARD_CODE_RIVALS", &["src/bench/market/play", "bench"]),
];

fn main() {
    for (variable, folders) in PARTS {
        let mut files = Vec::new();
        for folder in folders {
            println!("cargo:rerun-if-changed={folder}");
            match Path::new(folder).is_dir() {
                true => collect(Path::new(folder), &mut files),
                false => files.push(PathBuf::from(folder)),
            }
        }
        files.sort();
        let mut hash = FNV_START;
        for file in &files {
            let text = fs::read(file).unwrap_or_default();
            hash = text.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME));
        }
        println!("cargo:rustc-env={variable}={hash:016x}");
    }
}

/// FNV-1a of 64 bits: it tells versions apart and guards against nobody.
const FNV_START: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01B3;

/// Program text below a folder; results and other data lie beside it.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let source = path.extension().is_some_and(|extension| extension == "rs" || extension == "py");
        if path.is_dir() {
            collect(&path, files);
        } else if source && path.file_name().is_some_and(|name| name != "tests.rs") {
            files.push(path);
        }
    }
}
