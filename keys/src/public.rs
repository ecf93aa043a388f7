//! Public halves: keys, signatures, and the hash that names a network.

use ed25519_dalek::VerifyingKey;

use crate::bytes_newtype;

bytes_newtype!(
    /// Ed25519 public key (RFC 8032); names an account, a miner or a validator.
    PublicKey,
    32
);

bytes_newtype!(
    /// Ed25519 signature (RFC 8032).
    Signature,
    64
);

bytes_newtype!(
    /// BLAKE3 hash of a network's genesis document; part of everything that is signed.
    GenesisHash,
    32
);

/// Says why 32 bytes are refused as a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are no point of the curve.
    #[error("public key {key} is not a point of the curve; check that it was copied whole")]
    NotAPoint {
        /// The key as given.
        key: PublicKey,
    },
    /// The point has small order: anyone could sign for it.
    #[error("public key {key} has small order and would verify forged signatures; use a generated key")]
    Weak {
        /// The key as given.
        key: PublicKey,
    },
}

impl PublicKey {
    /// Checks that the bytes are a usable key.
    ///
    /// # Errors
    /// [`KeyError`] when the bytes are no point of the curve or a point of small order.
    pub fn validate(&self) -> Result<(), KeyError> {
        crate::known::point_of(self).map(|_| ())
    }

    pub(crate) fn to_verifying(self) -> Result<VerifyingKey, KeyError> {
        let key = VerifyingKey::from_bytes(self.as_bytes()).map_err(|_| KeyError::NotAPoint { key: self })?;
        if key.is_weak() {
            return Err(KeyError::Weak { key: self });
        }
        Ok(key)
    }
}
