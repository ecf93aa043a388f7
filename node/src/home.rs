//! The data folder of a node: where everything lies, and how secrets in it are written.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Says why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    #[error("no --dir given and neither XDG_DATA_HOME nor HOME is set; name a folder with --dir")]
    NoPlace,
    #[error("cannot {action} {}: {source}; check the path, its owner and the disk", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{} is there already; remove it first, or name another folder", path.display())]
    Exists { path: PathBuf },
    #[error("{} is used by another running node; stop it first, or give this one its own folder", path.display())]
    Locked { path: PathBuf },
    #[error(
        "{} can be read by others (mode {mode:o}); if nobody did, run: chmod 600 {}", path.display(), path.display()
    )]
    Shared { path: PathBuf, mode: u32 },
    #[error("{} is malformed: {fact}; restore it from your backup", path.display())]
    Malformed { path: PathBuf, fact: &'static str },
}

impl HomeError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Which secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyName {
    /// Identity on the network.
    Node,
    /// Consensus key of a validator.
    Validator,
    /// Account that mines, posts and pays.
    Account,
}

impl KeyName {
    fn file(self) -> &'static str {
        match self {
            Self::Node => "node.key",
            Self::Validator => "validator.key",
            Self::Account => "account.key",
        }
    }
}

/// A data folder.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    /// Uses `dir`, or the user's data folder.
    pub(crate) fn find(dir: Option<&Path>) -> Result<Self, HomeError> {
        if let Some(dir) = dir {
            return Ok(Self { root: dir.to_owned() });
        }
        let base = std::env::var_os("XDG_DATA_HOME")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")))
            .ok_or(HomeError::NoPlace)?;
        Ok(Self { root: base.join("tiltyard") })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    pub(crate) fn genesis(&self) -> PathBuf {
        self.root.join("genesis.cbor")
    }

    pub(crate) fn key(&self, name: KeyName) -> PathBuf {
        self.root.join("keys").join(name.file())
    }

    pub(crate) fn role_secret(&self) -> PathBuf {
        self.root.join("keys").join("role.secret")
    }

    pub(crate) fn public_record(&self) -> PathBuf {
        self.root.join("public.json")
    }

    pub(crate) fn chain(&self) -> PathBuf {
        self.root.join("chain")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn token(&self) -> PathBuf {
        self.root.join("api.token")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("run.lock")
    }

    /// Makes the folder and its parts that hold secrets, readable by the owner alone.
    pub(crate) fn make(&self) -> Result<(), HomeError> {
        for dir in [self.root.clone(), self.root.join("keys")] {
            make_dir(&dir)?;
        }
        Ok(())
    }

    /// Takes the folder for this process, until the guard is dropped or the process ends.
    pub(crate) fn lock(&self) -> Result<RunLock, HomeError> {
        let path = self.lock_file();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(HomeError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(RunLock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(HomeError::Locked { path }),
            Err(fs::TryLockError::Error(source)) => Err(HomeError::Io { action: "lock", path, source }),
        }
    }

    /// Reads the secret that hides commitments; draws it when the folder has none yet.
    pub(crate) fn read_role_secret(&self) -> Result<[u8; 32], HomeError> {
        secret_hex(&self.role_secret())
    }

    /// Reads the API's write token; draws it when the folder has none yet.
    pub(crate) fn read_token(&self) -> Result<String, HomeError> {
        secret_hex(&self.token()).map(hex::encode)
    }
}

/// Holds a data folder for this process.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

/// Makes a folder for the owner alone; one that is there stays as it is.
pub(crate) fn make_dir(path: &Path) -> Result<(), HomeError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(HomeError::io("make", path))
}

/// Writes a new file for the owner alone, durably; refuses one that is there.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(HomeError::Exists { path: path.to_owned() });
        }
        Err(source) => return Err(HomeError::Io { action: "create", path: path.to_owned(), source }),
    };
    file.write_all(bytes).map_err(HomeError::io("write", path))?;
    file.sync_all().map_err(HomeError::io("sync", path))
}

/// Refuses a secret file that its group or others may read or change.
pub(crate) fn refuse_shared(path: &Path) -> Result<(), HomeError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path).map_err(HomeError::io("open", path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(HomeError::Shared { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Reads a whole file of at most `max` bytes.
pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, HomeError> {
    use std::io::Read as _;
    let file = File::open(path).map_err(HomeError::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(HomeError::io("read", path))?;
    if bytes.len() as u64 > max {
        return Err(HomeError::Malformed { path: path.to_owned(), fact: "larger than it may be" });
    }
    Ok(bytes)
}

/// Draws random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).expect("the operating system has a source of randomness");
    bytes
}

fn secret_hex(path: &Path) -> Result<[u8; 32], HomeError> {
    if !path.exists() {
        let drawn: [u8; 32] = random();
        write_secret(path, hex::encode(drawn).as_bytes())?;
        return Ok(drawn);
    }
    refuse_shared(path)?;
    let text = read_bounded(path, 256)?;
    let mut out = [0u8; 32];
    hex::decode_to_slice(text.trim_ascii(), &mut out)
        .map_err(|_| HomeError::Malformed { path: path.to_owned(), fact: "not 64 hex digits" })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn secrets_are_readable_by_the_owner_alone_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.key");
        write_secret(&path, b"x").expect("first write");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(write_secret(&path, b"y"), Err(HomeError::Exists { .. })));
    }

    #[test]
    fn second_node_in_one_folder_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = Home::find(Some(dir.path())).expect("given");
        let _held = home.lock().expect("first");
        assert!(matches!(home.lock(), Err(HomeError::Locked { .. })));
    }

    #[test]
    fn role_secret_is_drawn_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = Home::find(Some(dir.path())).expect("given");
        home.make().expect("made");
        let first = home.read_role_secret().expect("drawn");
        assert_eq!(first, home.read_role_secret().expect("read"));
        assert_ne!(first, [0; 32]);
    }
}
