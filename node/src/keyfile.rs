//! Keystore files: read with a password from a file, the environment or the terminal; written for the owner alone.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use tiltyard_keys::{Entropy, Keystore, KeystoreError, Lock, SecretKey};
use zeroize::Zeroizing;

use crate::home::{self, HomeError};

/// Name of the environment variable that may hold the password.
pub(crate) const PASSWORD_VARIABLE: &str = "TILTYARD_PASSWORD";

const KEYSTORE_BYTES_MAX: u64 = 4_096;

/// Says why a key cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("{}: {source}", path.display())]
    Keystore { path: PathBuf, source: KeystoreError },
    #[error("no password: set {PASSWORD_VARIABLE}, give --password-file, or run on a terminal")]
    NoPassword,
    #[error("cannot read the password from the terminal: {0}")]
    Terminal(std::io::Error),
    #[error("the two passwords differ; try again")]
    PasswordsDiffer,
}

/// Where a password comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct PasswordSource {
    /// First line of this file.
    pub(crate) file: Option<PathBuf>,
}

impl PasswordSource {
    /// Returns the password of existing keys.
    pub(crate) fn get(&self) -> Result<Zeroizing<String>, KeyFileError> {
        match self.given()? {
            Some(password) => Ok(password),
            None => prompt("Password: "),
        }
    }

    /// Returns the password for new keys; on a terminal it is asked for twice.
    pub(crate) fn get_new(&self) -> Result<Zeroizing<String>, KeyFileError> {
        if let Some(password) = self.given()? {
            return Ok(password);
        }
        let first = prompt("New password (at least 8 characters): ")?;
        let second = prompt("The same again: ")?;
        if *first == *second { Ok(first) } else { Err(KeyFileError::PasswordsDiffer) }
    }

    fn given(&self) -> Result<Option<Zeroizing<String>>, KeyFileError> {
        if let Some(path) = &self.file {
            let bytes = Zeroizing::new(home::read_bounded(path, 1_024)?);
            let text = String::from_utf8_lossy(&bytes);
            let line = text.lines().next().unwrap_or_default();
            return Ok(Some(Zeroizing::new(line.to_owned())));
        }
        Ok(std::env::var(PASSWORD_VARIABLE).ok().map(Zeroizing::new))
    }
}

/// Reads a key; asks for a password only when the file is encrypted.
pub(crate) fn read(path: &Path, password: &PasswordSource) -> Result<SecretKey, KeyFileError> {
    let keystore = parse(path)?;
    let wrap = |source| KeyFileError::Keystore { path: path.to_owned(), source };
    match keystore.open(None) {
        Err(KeystoreError::PasswordNeeded { .. }) => keystore.open(Some(&password.get()?)).map_err(wrap),
        other => other.map_err(wrap),
    }
}

/// Reads the file without opening it; refuses one that others than its owner can read.
pub(crate) fn parse(path: &Path) -> Result<Keystore, KeyFileError> {
    home::refuse_shared(path)?;
    let bytes = Zeroizing::new(home::read_bounded(path, KEYSTORE_BYTES_MAX)?);
    Keystore::parse(&bytes).map_err(|source| KeyFileError::Keystore { path: path.to_owned(), source })
}

/// Writes a new key file; `None` leaves it unencrypted.
pub(crate) fn write(path: &Path, secret: &SecretKey, password: Option<&str>) -> Result<(), KeyFileError> {
    let entropy = Entropy { salt: home::random(), nonce: home::random() };
    let lock = password.map_or(Lock::OpenForTestnet, Lock::Password);
    let keystore = Keystore::seal(secret, lock, &entropy)
        .map_err(|source| KeyFileError::Keystore { path: path.to_owned(), source })?;
    home::write_secret(path, keystore.as_text().as_bytes())?;
    Ok(())
}

/// Draws a new key.
pub(crate) fn generate() -> SecretKey {
    SecretKey::from_seed(&Zeroizing::new(home::random::<32>()))
}

fn prompt(text: &str) -> Result<Zeroizing<String>, KeyFileError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(KeyFileError::NoPassword);
    }
    eprint!("{text}");
    std::io::stderr().flush().map_err(KeyFileError::Terminal)?;
    let before = tcgetattr(&stdin).map_err(|error| KeyFileError::Terminal(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &silent).map_err(|error| KeyFileError::Terminal(error.into()))?;
    let mut line = Zeroizing::new(String::new());
    let read = stdin.lock().read_line(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Now, &before);
    eprintln!();
    read.map_err(KeyFileError::Terminal)?;
    restored.map_err(|error| KeyFileError::Terminal(error.into()))?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_password_names_the_file_and_says_what_to_do() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("account.key");
        let secret = SecretKey::from_seed(&[7; 32]);
        write(&path, &secret, Some("correct horse")).expect("written");
        let file = dir.path().join("password");
        std::fs::write(&file, "wrong horse\n").expect("written");
        let error = read(&path, &PasswordSource { file: Some(file.clone()) }).expect_err("wrong");
        assert!(error.to_string().contains("account.key"), "{error}");
        std::fs::write(&file, "correct horse\n").expect("written");
        let opened = read(&path, &PasswordSource { file: Some(file) }).expect("right");
        assert_eq!(opened.public(), secret.public());
    }

    #[test]
    fn key_file_that_others_can_read_is_refused_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("validator.key");
        write(&path, &SecretKey::from_seed(&[9; 32]), None).expect("written");
        for mode in [0o604, 0o640, 0o620, 0o602] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
            let error = read(&path, &PasswordSource::default()).expect_err("shared").to_string();
            assert!(error.contains("chmod 600") && error.contains("validator.key"), "{error}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        assert!(read(&path, &PasswordSource::default()).is_ok());
    }

    #[test]
    fn open_key_needs_no_password() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("node.key");
        write(&path, &SecretKey::from_seed(&[9; 32]), None).expect("written");
        assert!(read(&path, &PasswordSource::default()).is_ok());
    }
}
