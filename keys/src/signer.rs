//! Signing and verifying, one method per purpose.
//!
//! Preimage: `tag ‖ 0x00 ‖ genesis hash ‖ payload`. There is no method that signs bare bytes.

use ed25519_dalek::{Signer as _, SigningKey};

use crate::{GenesisHash, KeyError, PublicKey, Signature, known};

/// Says why a signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The key itself is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The signature does not fit key, purpose, network and payload.
    #[error(
        "signature by {key} does not fit this {purpose} on this network; sign it again with the right key and genesis"
    )]
    Mismatch {
        /// The key that was claimed.
        key: PublicKey,
        /// What the signature was supposed to be for.
        purpose: &'static str,
    },
}

/// Holds a secret key; wiped from memory when dropped, never printed.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Makes a key from 32 bytes of entropy (the RFC 8032 seed).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Returns the 32-byte seed, for sealing into a keystore; wiped when dropped.
    #[must_use]
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Binds the key to one network.
    #[must_use]
    pub fn signer(&self, genesis: GenesisHash) -> Signer {
        Signer { key: self.0.clone(), genesis }
    }
}

impl core::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SecretKey(of {})", self.public().short())
    }
}

/// Signs for one key on one network.
pub struct Signer {
    key: SigningKey,
    genesis: GenesisHash,
}

impl core::fmt::Debug for Signer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Signer(of {})", self.public().short())
    }
}

impl Signer {
    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.key.verifying_key().to_bytes())
    }

    /// Returns the network that the signer is bound to.
    #[must_use]
    pub fn genesis(&self) -> GenesisHash {
        self.genesis
    }

    fn sign(&self, tag: &str, payload: &[u8]) -> Signature {
        let message = preimage(tag, &self.genesis, payload);
        Signature::from_bytes(self.key.sign(&message).to_bytes())
    }
}

/// Verifies signatures of one network, always with `verify_strict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verifier {
    genesis: GenesisHash,
}

impl Verifier {
    /// Makes a verifier for the network of `genesis`.
    #[must_use]
    pub const fn new(genesis: GenesisHash) -> Self {
        Self { genesis }
    }

    /// Returns the network that the verifier is bound to.
    #[must_use]
    pub const fn genesis(&self) -> GenesisHash {
        self.genesis
    }

    fn verify(
        &self,
        (tag, purpose): (&str, &'static str),
        key: &PublicKey,
        payload: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        let (point, was_known) = known::point_of(key)?;
        let message = preimage(tag, &self.genesis, payload);
        let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
        point
            .verify_strict(&message, &signature)
            .map_err(|_| SignatureError::Mismatch { key: *key, purpose })?;
        if !was_known {
            known::keep(key, point);
        }
        Ok(())
    }
}

fn preimage(tag: &str, genesis: &GenesisHash, payload: &[u8]) -> Vec<u8> {
    [tag.as_bytes(), &[0], genesis.as_bytes(), payload].concat()
}

macro_rules! purposes {
    ($($what:literal, $tag:literal, $sign:ident, $verify:ident;)*) => {
        impl Signer {
            $(
                #[doc = concat!("Signs a ", $what, " (tag `", $tag, "`).")]
                #[must_use]
                pub fn $sign(&self, payload: &[u8]) -> Signature {
                    self.sign($tag, payload)
                }
            )*
        }

        impl Verifier {
            $(
                #[doc = concat!("Verifies the signature of a ", $what, " (tag `", $tag, "`).")]
                ///
                /// # Errors
                /// [`SignatureError`] when the key is weak or malformed, or the signature does not fit.
                pub fn $verify(
                    &self,
                    key: &PublicKey,
                    payload: &[u8],
                    signature: &Signature,
                ) -> Result<(), SignatureError> {
                    self.verify(($tag, $what), key, payload, signature)
                }
            )*
        }
    };
}

purposes! {
    "transaction", "tiltyard/sign/transaction/v1", sign_transaction, verify_transaction;
    "vote", "tiltyard/sign/vote/v1", sign_vote, verify_vote;
    "proposal", "tiltyard/sign/proposal/v1", sign_proposal, verify_proposal;
    "block body", "tiltyard/sign/body/v1", sign_body, verify_body;
    "peer binding", "tiltyard/sign/peer/v1", sign_peer, verify_peer;
}
