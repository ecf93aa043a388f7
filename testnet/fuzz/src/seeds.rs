//! Seeds from the golden bytes, so that a fuzzer begins where valid messages are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Target;

/// Folder of the golden bytes.
pub(crate) fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/golden")
}

/// Reads the golden bytes of one kind.
pub(crate) fn of_kind(kind: &str) -> Vec<(String, Vec<u8>)> {
    let path = golden().join(format!("{kind}.hex"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines()
        .filter_map(|line| {
            let (name, digits) = line.split_once(' ')?;
            Some((name.replace('/', "-"), hex::decode(digits).expect("golden hex")))
        })
        .collect()
}

/// Writes a target's seeds into `folder`.
pub(crate) fn write((_, kinds, _): &Target, folder: &Path) {
    fs::create_dir_all(folder).expect("a folder for seeds");
    for kind in *kinds {
        for (name, bytes) in of_kind(kind) {
            fs::write(folder.join(format!("{kind}-{name}")), bytes).expect("a seed is written");
        }
    }
}
