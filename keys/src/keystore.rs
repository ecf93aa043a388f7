//! Keystore bytes: secret keys under a password, or openly when a testnet asks for it.
//!
//! Form: four lines of text (magic, public key, lock, payload); the payload is the seed, in the open or sealed by
//! argon2id (RFC 9106) and XChaCha20-Poly1305. The file itself, its mode and its place are the shell's business.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::{PublicKey, SecretKey};

/// Fresh random bytes for one sealing; the shell draws them from the operating system.
#[derive(Clone, Copy)]
pub struct Entropy {
    /// Salt of the password hash.
    pub salt: [u8; 16],
    /// Nonce of the cipher.
    pub nonce: [u8; 24],
}

impl core::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Entropy(..)")
    }
}

/// How a keystore is locked.
#[derive(Clone, Copy)]
pub enum Lock<'a> {
    /// Encrypted under a password.
    Password(&'a str),
    /// Not encrypted: for testnets, asked for explicitly.
    OpenForTestnet,
}

impl core::fmt::Debug for Lock<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::OpenForTestnet => "OpenForTestnet",
        })
    }
}

/// Says why keystore bytes cannot be written or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeystoreError {
    /// The bytes are no keystore.
    #[error("not a keystore of version 1: {fact}; restore it from your backup")]
    Malformed {
        /// What was found.
        fact: String,
    },
    /// The password does not open it, or the file was changed.
    #[error(
        "the password does not open the key {key}, or the file was altered; try again or restore the backup"
    )]
    WrongPassword {
        /// Public key that the keystore claims to hold.
        key: PublicKey,
    },
    /// The keystore is encrypted and no password was given.
    #[error("the key {key} is encrypted; give its password")]
    PasswordNeeded {
        /// Public key that the keystore claims to hold.
        key: PublicKey,
    },
    /// The password is too short to protect anything.
    #[error("the password has {length} characters; use at least 8")]
    PasswordTooShort {
        /// Characters given.
        length: usize,
    },
    /// The secret does not belong to the public key beside it.
    #[error("the keystore says {claimed} but holds {held}; restore it from your backup")]
    KeyMismatch {
        /// Public key that the keystore claims to hold.
        claimed: PublicKey,
        /// Public key of the secret inside.
        held: PublicKey,
    },
}

const MAGIC: &str = "tiltyard-key-v1";
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const MEMORY_KIB_MAX: u32 = 262_144;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
const TEXT_BYTES_MAX: usize = 4_096;
const PASSWORD_CHARS_MIN: usize = 8;

/// A key at rest, in the text form that goes to disk.
///
/// Lines: magic, public key, lock (`open` or `argon2id m t p salt nonce`), payload in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keystore {
    text: String,
    public: PublicKey,
}

impl Keystore {
    /// Seals `secret` under `lock`.
    ///
    /// # Errors
    /// [`KeystoreError::PasswordTooShort`] for a password under 8 characters.
    pub fn seal(secret: &SecretKey, lock: Lock<'_>, entropy: &Entropy) -> Result<Self, KeystoreError> {
        let public = secret.public();
        let seed = secret.seed();
        let text = match lock {
            Lock::OpenForTestnet => {
                format!("{MAGIC}\n{public}\nopen\n{}\n", hex::encode(seed.as_slice()))
            }
            Lock::Password(password) => {
                let length = password.chars().count();
                if length < PASSWORD_CHARS_MIN {
                    return Err(KeystoreError::PasswordTooShort { length });
                }
                let locked = LockLine {
                    memory_kib: MEMORY_KIB,
                    passes: PASSES,
                    lanes: LANES,
                    salt: entropy.salt,
                    nonce: entropy.nonce,
                };
                let cipher = locked.cipher(password)?;
                let sealed = cipher
                    .encrypt(
                        &XNonce::from(entropy.nonce),
                        Payload { msg: seed.as_slice(), aad: public.as_bytes() },
                    )
                    .map_err(|_| malformed("encryption failed"))?;
                format!("{MAGIC}\n{public}\n{}\n{}\n", locked.to_line(), hex::encode(sealed))
            }
        };
        Ok(Self { text, public })
    }

    /// Reads the text form; does not decrypt.
    ///
    /// # Errors
    /// [`KeystoreError::Malformed`] when the bytes are no keystore of version 1.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeystoreError> {
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(malformed("larger than 4 KiB"));
        }
        let text = core::str::from_utf8(bytes).map_err(|_| malformed("not text"))?;
        let lines = split(text)?;
        let public: PublicKey = lines.public.parse().map_err(|_| malformed("bad public key"))?;
        if public.to_string() != lines.public {
            return Err(malformed("public key in another form than it is written in"));
        }
        Ok(Self { text: text.to_owned(), public })
    }

    /// Returns the text form, ready for a file of mode 0600.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.text
    }

    /// Returns the public key that the keystore claims to hold.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Says whether a password is needed.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        split(&self.text).is_ok_and(|lines| lines.lock != "open")
    }

    /// Opens the keystore.
    ///
    /// # Errors
    /// [`KeystoreError`] when the password is missing or wrong, or the content is damaged.
    pub fn open(&self, password: Option<&str>) -> Result<SecretKey, KeystoreError> {
        let lines = split(&self.text)?;
        if lines.payload.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err(malformed("payload in another form than it is written in"));
        }
        let payload = Zeroizing::new(hex::decode(lines.payload).map_err(|_| malformed("bad payload"))?);
        let seed = if lines.lock == "open" {
            payload
        } else {
            let password = password.ok_or(KeystoreError::PasswordNeeded { key: self.public })?;
            let locked = LockLine::from_line(lines.lock)?;
            let cipher = locked.cipher(password)?;
            let opened = cipher
                .decrypt(
                    &XNonce::from(locked.nonce),
                    Payload { msg: payload.as_slice(), aad: self.public.as_bytes() },
                )
                .map_err(|_| KeystoreError::WrongPassword { key: self.public })?;
            Zeroizing::new(opened)
        };
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(
            <[u8; 32]>::try_from(seed.as_slice()).map_err(|_| malformed("bad secret length"))?,
        );
        let secret = SecretKey::from_seed(&seed);
        if secret.public() != self.public {
            return Err(KeystoreError::KeyMismatch { claimed: self.public, held: secret.public() });
        }
        Ok(secret)
    }
}

fn malformed(fact: &str) -> KeystoreError {
    KeystoreError::Malformed { fact: fact.to_owned() }
}

struct Lines<'a> {
    public: &'a str,
    lock: &'a str,
    payload: &'a str,
}

fn split(text: &str) -> Result<Lines<'_>, KeystoreError> {
    let mut lines = text.lines();
    let mut next = |what: &str| lines.next().ok_or_else(|| malformed(what));
    if next("empty")? != MAGIC {
        return Err(malformed("unknown first line"));
    }
    let found =
        Lines { public: next("no public key")?, lock: next("no lock line")?, payload: next("no payload")? };
    if lines.next().is_some() {
        return Err(malformed("trailing lines"));
    }
    Ok(found)
}

struct LockLine {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; 16],
    nonce: [u8; 24],
}

impl LockLine {
    fn to_line(&self) -> String {
        format!(
            "argon2id {} {} {} {} {}",
            self.memory_kib,
            self.passes,
            self.lanes,
            hex::encode(self.salt),
            hex::encode(self.nonce)
        )
    }

    fn from_line(line: &str) -> Result<Self, KeystoreError> {
        let mut words = line.split(' ');
        let mut next = || words.next().ok_or_else(|| malformed("short lock line"));
        if next()? != "argon2id" {
            return Err(malformed("unknown lock"));
        }
        let mut number =
            || -> Result<u32, KeystoreError> { next()?.parse().map_err(|_| malformed("bad lock number")) };
        let (memory_kib, passes, lanes) = (number()?, number()?, number()?);
        // A hostile file must not make us hash for an hour or take gigabytes.
        if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
            return Err(malformed("lock cost above 256 MiB, 16 passes or 16 lanes"));
        }
        let mut locked = Self { memory_kib, passes, lanes, salt: [0; 16], nonce: [0; 24] };
        hex::decode_to_slice(next()?, &mut locked.salt).map_err(|_| malformed("bad salt"))?;
        hex::decode_to_slice(next()?, &mut locked.nonce).map_err(|_| malformed("bad nonce"))?;
        if locked.to_line() != line {
            return Err(malformed("lock line in another form than it is written in"));
        }
        Ok(locked)
    }

    fn cipher(&self, password: &str) -> Result<XChaCha20Poly1305, KeystoreError> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|_| malformed("bad lock cost"))?;
        let mut key = Zeroizing::new([0u8; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password.as_bytes(), &self.salt, key.as_mut_slice())
            .map_err(|_| malformed("password hash failed"))?;
        Ok(XChaCha20Poly1305::new(&(*key).into()))
    }
}
