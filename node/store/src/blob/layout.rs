//! Where a blob's files lie, and how they are read and checked.
//!
//! ```text
//! <folder>/<root in hex>/manifest.cbor          complete blobs
//!                        files/<name>
//!                        outboards/<name>.obao  made by whoever serves them; may be missing
//! <folder>/.partial/<root in hex>/              the same, and `pieces`: which ones are kept
//! <folder>/.damaged/<root in hex>/              set aside for people
//! <folder>/.trash/                              emptied at every start
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tiltyard_proto::ids::{BlobRoot, FileHash};
use tiltyard_proto::limits::MANIFEST_BYTES_MAX;
use tiltyard_proto::manifest::Manifest;

use super::error::BlobError;
use crate::disk;

pub(super) const MANIFEST: &str = "manifest.cbor";
pub(super) const FILES: &str = "files";
pub(super) const OUTBOARDS: &str = "outboards";
pub(super) const PIECES: &str = "pieces";
pub(super) const PARTIAL: &str = ".partial";
pub(super) const DAMAGED: &str = ".damaged";
pub(super) const TRASH: &str = ".trash";
/// Bytes read at once when a file is hashed or copied.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// Makes the folders of one blob.
pub(super) fn make(home: &Path) -> Result<(), BlobError> {
    for folder in [home.to_path_buf(), home.join(FILES), home.join(OUTBOARDS)] {
        disk::create_folder(&folder).map_err(|e| BlobError::io("create folder", &folder, e))?;
    }
    Ok(())
}

/// Names one of a blob's files. Names come from checked manifests only, so they never leave the folder.
pub(super) fn file(home: &Path, name: &str) -> PathBuf {
    home.join(FILES).join(name)
}

/// Reads a manifest and checks that it is the one that `root` names.
pub(super) fn manifest(home: &Path, root: &BlobRoot) -> Result<Manifest, BlobError> {
    let path = home.join(MANIFEST);
    let file = disk::private().read(true).open(&path).map_err(|e| BlobError::io("open", &path, e))?;
    let mut bytes = Vec::new();
    file.take(MANIFEST_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| BlobError::io("read", &path, e))?;
    let manifest = Manifest::decode(&bytes)?;
    if manifest.root() != *root {
        let fact = format!("names {} instead", manifest.root());
        return Err(BlobError::Damaged { root: *root, name: MANIFEST.to_owned(), fact });
    }
    Ok(manifest)
}

/// Hashes what is left of a reader; returns hash and length in bytes. `sink` sees every byte.
pub(super) fn hash_through(
    mut from: impl Read,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(FileHash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0u8; BUFFER_BYTES];
    let mut total = 0u64;
    loop {
        let got = from.read(&mut buffer)?;
        if got == 0 {
            return Ok((FileHash::from_bytes(*hasher.finalize().as_bytes()), total));
        }
        let piece = &buffer[..got];
        hasher.update(piece);
        sink(piece)?;
        total = total.saturating_add(got as u64);
    }
}

/// Checks one file against its entry; returns what does not fit.
pub(super) fn misfit(
    home: &Path,
    entry: &tiltyard_proto::manifest::FileEntry,
) -> Result<Option<String>, BlobError> {
    let path = file(home, &entry.name);
    let opened = match disk::private().read(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("is gone".to_owned())),
        other => other.map_err(|e| BlobError::io("open", &path, e))?,
    };
    let length = length(&opened, &path)?;
    if length != entry.bytes {
        return Ok(Some(format!("has {length} bytes instead of {}", entry.bytes)));
    }
    let (hash, _) = hash_through(&opened, |_| Ok(())).map_err(|e| BlobError::io("read", &path, e))?;
    Ok((hash != entry.hash).then(|| "holds other bytes than it should".to_owned()))
}

pub(super) fn length(file: &File, path: &Path) -> Result<u64, BlobError> {
    Ok(file.metadata().map_err(|e| BlobError::io("inspect", path, e))?.len())
}

/// Moves `from` to `to`, in whose place nothing may be left, and makes both names durable.
pub(super) fn shift(from: &Path, to: &Path) -> Result<(), BlobError> {
    fs::rename(from, to).map_err(|e| BlobError::io("move", from, e))?;
    for folder in [from.parent(), to.parent()].into_iter().flatten() {
        disk::sync_folder(folder).map_err(|e| BlobError::io("sync folder", folder, e))?;
    }
    Ok(())
}

/// Syncs the folders of one blob.
pub(super) fn sync(home: &Path) -> Result<(), BlobError> {
    for folder in [home.join(FILES), home.to_path_buf()] {
        disk::sync_folder(&folder).map_err(|e| BlobError::io("sync folder", &folder, e))?;
    }
    Ok(())
}
