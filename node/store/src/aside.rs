//! Keeps what is damaged for people to look at, out of the way of what is used.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::StoreError;

/// Name of the folder, beside the damaged file.
const NAME: &str = "aside";
/// Most files kept for one name; further damage of it is not kept.
const KEPT_MAX: u32 = 64;

/// Returns a path for `name` that is not taken.
fn place(beside: &Path, name: &str) -> Result<PathBuf, StoreError> {
    let folder = beside.parent().unwrap_or_else(|| Path::new(".")).join(NAME);
    disk::create_folder(&folder).map_err(|e| StoreError::io("create folder", &folder, e))?;
    let free =
        (0..KEPT_MAX).map(|number| folder.join(format!("{name}.{number}"))).find(|path| !path.exists());
    Ok(free.unwrap_or_else(|| folder.join(format!("{name}.last"))))
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| "file".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Moves a whole file aside; returns where it is.
pub(crate) fn move_file(path: &Path) -> Result<PathBuf, StoreError> {
    let kept = place(path, &name_of(path))?;
    fs::rename(path, &kept).map_err(|e| StoreError::io("move", path, e))?;
    for folder in [path.parent(), kept.parent()].into_iter().flatten() {
        disk::sync_folder(folder).map_err(|e| StoreError::io("sync folder", folder, e))?;
    }
    Ok(kept)
}

/// Copies the bytes `from..end` of a file aside; returns where they are.
pub(crate) fn copy_bytes(path: &Path, file: &File, from: u64, end: u64) -> Result<PathBuf, StoreError> {
    let kept = place(path, &format!("{}-{from}", name_of(path)))?;
    copy(file, from, end, &kept).map_err(|e| StoreError::io("copy to", &kept, e))?;
    Ok(kept)
}

fn copy(file: &File, from: u64, end: u64, kept: &Path) -> io::Result<()> {
    let out = disk::private().write(true).create(true).truncate(true).open(kept)?;
    let mut buffer = vec![0u8; 64 * 1024];
    let mut at = from;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..want];
        file.read_exact_at(piece, at)?;
        out.write_all_at(piece, at - from)?;
        at = at.saturating_add(want as u64);
    }
    out.sync_all()
}
