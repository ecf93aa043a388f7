//! One process per folder: an exclusive lock on `run.lock`, freed by the system when the process ends.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::disk;
use crate::error::StoreError;

/// Holds a folder for this process until it is dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Name of the lock file.
    pub const NAME: &'static str = "run.lock";

    /// Takes `folder` for this process. Waits for nobody.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it.
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        disk::create_folder(folder).map_err(|e| StoreError::io("create folder", folder, e))?;
        let path = folder.join(Self::NAME);
        let mut file = disk::private()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| StoreError::io("open", &path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::Locked { path }),
            Err(errno) => {
                return Err(StoreError::io("lock", &path, io::Error::from(errno)));
            }
        }
        // The id is for people who look; the lock itself does not depend on it, nor on there being room for it.
        drop(file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_once_and_free_after_drop() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let first = FolderLock::take(folder.path()).expect("nobody else holds it");
        assert!(matches!(FolderLock::take(folder.path()), Err(StoreError::Locked { .. })));
        drop(first);
        FolderLock::take(folder.path()).expect("freed by drop");
    }
}
