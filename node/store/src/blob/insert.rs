//! Takes local files in: copied, hashed on the way, synced, then renamed into place.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use tiltyard_proto::ids::{BlobRoot, RecipeHash};
use tiltyard_proto::manifest::{BlobKind, FileEntry, Manifest};

use super::{BlobError, Shared, info, layout};
use crate::disk;

/// Local files that are to become a blob.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What the blob is for.
    pub kind: BlobKind,
    /// Base that an adapter or model belongs to.
    pub base: Option<BlobRoot>,
    /// Recipe that made an adapter or model.
    pub recipe: Option<RecipeHash>,
    /// Names in the blob with the paths to copy from, in any order. A path may lead through links, but must not end in
    /// one.
    pub files: &'a [(String, PathBuf)],
}

/// Gives back counted bytes and removes a half-made copy, however the insertion ends.
struct Staged<'a> {
    shared: &'a Shared,
    bytes: u64,
    home: PathBuf,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        self.shared.room().insert_ends(self.bytes);
        if self.home.exists()
            && let Err(error) = fs::remove_dir_all(&self.home)
        {
            tracing::warn!(path = %self.home.display(), %error, "half-made copy left for the next start to remove");
        }
    }
}

pub(super) fn insert(shared: &Shared, source: &Source<'_>) -> Result<Manifest, BlobError> {
    let mut opened: Vec<(&str, &Path, File, u64)> = Vec::new();
    for (name, path) in source.files {
        let (file, bytes) = open_source(path)?;
        opened.push((name, path, file, bytes));
    }
    opened.sort_by_key(|(name, ..)| *name);
    check_names(source, &opened)?;
    let bytes = opened.iter().fold(0u64, |sum, (.., bytes)| sum.saturating_add(*bytes));
    let staged = {
        let mut room = shared.room();
        shared.check_room(&room, bytes)?;
        room.insert_begins(bytes);
        let home = shared.folder.join(layout::TRASH).join(room.fresh_name());
        Staged { shared, bytes, home }
    };
    layout::make(&staged.home)?;
    let mut files = Vec::new();
    for (name, path, file, bytes) in opened {
        files.push(copy(&staged.home, name, path, file, bytes)?);
    }
    let manifest = manifest_of(source, files)?;
    let root = manifest.root();
    let path = staged.home.join(layout::MANIFEST);
    disk::replace(&path, &manifest.encode()).map_err(|e| BlobError::io("write", &path, e))?;
    layout::sync(&staged.home)?;
    let mut room = shared.room();
    if !room.has(&root) {
        layout::shift(&staged.home, &shared.home(&root))?;
        room.keep(info(root, &manifest)?);
    }
    drop(room);
    Ok(manifest)
}

fn manifest_of(source: &Source<'_>, files: Vec<FileEntry>) -> Result<Manifest, BlobError> {
    let Source { kind, base, recipe, .. } = *source;
    let manifest = Manifest { version: Manifest::VERSION, kind, base, recipe, files };
    manifest.check()?;
    Ok(manifest)
}

/// Refuses bad names before a path is made of one.
fn check_names(source: &Source<'_>, opened: &[(&str, &Path, File, u64)]) -> Result<(), BlobError> {
    let hash = tiltyard_proto::ids::FileHash::from_bytes([0; 32]);
    let files =
        opened.iter().map(|(name, _, _, bytes)| FileEntry { name: (*name).to_owned(), bytes: *bytes, hash });
    manifest_of(source, files.collect()).map(|_| ())
}

fn open_source(path: &Path) -> Result<(File, u64), BlobError> {
    let found = fs::symlink_metadata(path).map_err(|e| BlobError::io("inspect", path, e))?;
    let fact = if found.is_symlink() {
        Some("a symbolic link")
    } else if found.is_dir() {
        Some("a folder")
    } else if found.is_file() {
        None
    } else {
        Some("no regular file")
    };
    if let Some(fact) = fact {
        return Err(BlobError::Source { path: path.to_path_buf(), fact });
    }
    let file = disk::private().read(true).open(path).map_err(|e| BlobError::io("open", path, e))?;
    let bytes = layout::length(&file, path)?;
    Ok((file, bytes))
}

fn copy(home: &Path, name: &str, from: &Path, file: File, bytes: u64) -> Result<FileEntry, BlobError> {
    let path = layout::file(home, name);
    let mut out = disk::private()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|e| BlobError::io("create", &path, e))?;
    // One byte more than counted: a file that grows meanwhile is noticed without being followed to its end.
    let (hash, copied) = layout::hash_through(std::io::Read::take(file, bytes.saturating_add(1)), |piece| {
        out.write_all(piece)
    })
    .map_err(|e| BlobError::io("copy to", &path, e))?;
    out.sync_all().map_err(|e| BlobError::io("sync", &path, e))?;
    if copied != bytes {
        let fact = "a file that changes while it is copied";
        return Err(BlobError::Source { path: from.to_path_buf(), fact });
    }
    Ok(FileEntry { name: name.to_owned(), bytes, hash })
}
