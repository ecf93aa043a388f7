//! Files replaced as a whole: written beside, synced, then renamed.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Says which file operation failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file or folder could not be written.
    #[error("{path} cannot be written: {source}; check free space and permissions")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file or folder could not be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of ours does not parse.
    #[error("{path} is damaged: {source}; remove the job folder and start again")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        source: serde_json::Error,
    },
}

fn writing(path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Write { path, source }
}

fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Read { path, source }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(writing(parent))
}

/// Writes a file so that after a crash it is the old one or the new one, never a part.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let fresh = beside(path, ".new");
    let mut file = File::create(&fresh).map_err(writing(&fresh))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(writing(&fresh))?;
    fs::rename(&fresh, path).map_err(writing(path))?;
    sync_parent(path)
}

/// Writes a value as indented JSON, as [`write`] does.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let parse = |source| FileError::Parse { path: path.to_owned(), source };
    write(path, &serde_json::to_vec_pretty(value).map_err(parse)?)
}

/// Reads a JSON file of ours, or the default when there is none.
pub(crate) fn read_json_or_default<T: DeserializeOwned + Default>(path: &Path) -> Result<T, FileError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|source| FileError::Parse { path: path.to_owned(), source }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(reading(path)(error)),
    }
}

/// Creates a folder and its parents.
pub(crate) fn create_dir(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(writing(path))
}

fn remove_dir(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(writing(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Creates an empty folder beside `path`, to be filled and then put in its place by [`swap_dir`].
pub(crate) fn fresh_dir(path: &Path) -> Result<PathBuf, FileError> {
    let fresh = beside(path, ".new");
    remove_dir(&fresh)?;
    create_dir(&fresh)?;
    Ok(fresh)
}

/// Puts the filled fresh folder in the place of `path`.
pub(crate) fn swap_dir(path: &Path) -> Result<(), FileError> {
    let (fresh, old) = (beside(path, ".new"), beside(path, ".old"));
    File::open(&fresh).and_then(|folder| folder.sync_all()).map_err(writing(&fresh))?;
    remove_dir(&old)?;
    if path.exists() {
        fs::rename(path, &old).map_err(writing(path))?;
    }
    fs::rename(&fresh, path).map_err(writing(path))?;
    sync_parent(path)?;
    remove_dir(&old)
}

/// Ends a swap that a crash cut in half: between the two renames only the old folder is whole.
pub(crate) fn recover_dir(path: &Path) -> Result<(), FileError> {
    let old = beside(path, ".old");
    if !path.exists() && old.exists() {
        fs::rename(&old, path).map_err(writing(path))?;
        sync_parent(path)?;
    }
    Ok(())
}

/// Lists the names, without extension, of the files in a folder that have it; sorted.
pub(crate) fn names_with_extension(folder: &Path, extension: &str) -> Result<Vec<String>, FileError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(reading(folder))? {
        let path = entry.map_err(reading(folder))?.path();
        if path.extension().is_some_and(|found| found == extension)
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_cut_between_its_renames_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let best = folder.path().join("best");
        for text in ["one", "two"] {
            write(&fresh_dir(&best).unwrap().join("file"), text.as_bytes()).unwrap();
            swap_dir(&best).unwrap();
        }
        fs::rename(&best, beside(&best, ".old")).unwrap();
        recover_dir(&best).unwrap();
        assert_eq!(fs::read(best.join("file")).unwrap(), b"two");
    }
}
