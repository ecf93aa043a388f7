//! Commit certificates: signatures of more than two thirds of the stake on one block.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::{PublicKey, Signature, SignatureError, Verifier};

use crate::hash::{self, context};
use crate::ids::{BlockHash, CertificateHash};
use crate::units::{Height, Round, Stake};
use crate::validators::ValidatorSet;
use crate::vote::{Vote, VoteKind};

/// Proves that a block was decided. Signers are positions in the height's validator set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Height decided.
    pub height: Height,
    /// Round decided in.
    pub round: Round,
    /// The block.
    pub block: BlockHash,
    /// Bit `i % 8` (from the lowest) of byte `i / 8` is set when member `i` signed; ⌈members / 8⌉ bytes.
    pub signers: ByteBuf,
    /// Precommit signatures, in the order of the members.
    pub signatures: Vec<Signature>,
}

/// Says why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Bit field or signature count of the wrong size.
    #[error("certificate of height {height} does not fit a set of {members} validators")]
    Shape {
        /// Height claimed.
        height: Height,
        /// Members of the set it was checked against.
        members: usize,
    },
    /// A signature that does not fit.
    #[error("certificate of height {height}: {source}")]
    Signature {
        /// Height claimed.
        height: Height,
        /// What is wrong with it.
        source: SignatureError,
    },
    /// Not more than two thirds of the stake.
    #[error("certificate of height {height} carries {signed} of {total} stake, not more than 2/3")]
    NoQuorum {
        /// Height claimed.
        height: Height,
        /// Stake that signed.
        signed: Stake,
        /// Stake of the set.
        total: Stake,
    },
}

impl Certificate {
    /// Builds a certificate from precommits, leaving out keys that are no members.
    #[must_use]
    pub fn build(
        height: Height,
        round: Round,
        block: BlockHash,
        set: &ValidatorSet,
        precommits: &[(PublicKey, Signature)],
    ) -> Self {
        let mut signers = vec![0u8; set.members().len().div_ceil(8)];
        let mut signatures = Vec::new();
        for (at, member) in set.members().iter().enumerate() {
            let Some((_, signature)) = precommits.iter().find(|(key, _)| *key == member.key) else {
                continue;
            };
            if let Some(byte) = signers.get_mut(at / 8) {
                *byte |= 1 << (at % 8);
            }
            signatures.push(*signature);
        }
        Self { height, round, block, signers: ByteBuf::from(signers), signatures }
    }

    /// Returns the hash that the next header carries.
    #[must_use]
    pub fn hash(&self) -> CertificateHash {
        CertificateHash::from_bytes(hash::of(context::CERTIFICATE, self))
    }

    /// Pairs each signer's position with its signature; `None` when the shape does not fit `members`.
    #[must_use]
    pub fn signed_by(&self, members: usize) -> Option<Vec<(usize, Signature)>> {
        if self.signers.len() != members.div_ceil(8) {
            return None;
        }
        let positions: Vec<usize> = (0..self.signers.len().saturating_mul(8))
            .filter(|at| self.signers.get(at / 8).is_some_and(|byte| (byte >> (at % 8)) & 1 == 1))
            .collect();
        let fits =
            positions.len() == self.signatures.len() && positions.last().is_none_or(|last| *last < members);
        fits.then(|| positions.into_iter().zip(self.signatures.iter().copied()).collect())
    }

    /// Returns the payload that every signature is over.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        Vote {
            kind: VoteKind::Precommit,
            height: self.height,
            round: self.round,
            block: Some(self.block),
            validator: PublicKey::from_bytes([0; 32]),
        }
        .payload()
    }

    /// Checks shape, every signature, and that more than two thirds of the stake signed; returns the stake that did.
    ///
    /// # Errors
    /// [`CertificateError`] naming what does not fit.
    pub fn verify(&self, verifier: &Verifier, set: &ValidatorSet) -> Result<Stake, CertificateError> {
        let members = set.members();
        let pairs = self
            .signed_by(members.len())
            .ok_or(CertificateError::Shape { height: self.height, members: members.len() })?;
        let payload = self.payload();
        let mut signed = Stake::ZERO;
        for (at, signature) in pairs {
            let member = members
                .get(at)
                .ok_or(CertificateError::Shape { height: self.height, members: members.len() })?;
            verifier
                .verify_vote(&member.key, &payload, &signature)
                .map_err(|source| CertificateError::Signature { height: self.height, source })?;
            signed = signed.saturating_add(member.stake);
        }
        if set.is_quorum(signed) {
            Ok(signed)
        } else {
            Err(CertificateError::NoQuorum { height: self.height, signed, total: set.total() })
        }
    }
}
