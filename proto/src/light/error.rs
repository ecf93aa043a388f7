//! Why a header is not trusted.

use tiltyard_keys::GenesisHash;

use crate::certificate::CertificateError;
use crate::genesis::GenesisError;
use crate::ids::{BlockHash, ValidatorsHash};
use crate::units::{Height, Stake, UnixMillis};
use crate::validators::ValidatorSetError;

/// Says why a header is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LightError {
    /// The genesis document is refused.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// What was trusted is too old to start from.
    #[error(
        "trusted header of time {time} ms is older than the trust period of {period_ms} ms; start from a newer checkpoint"
    )]
    TrustExpired {
        /// Time of the trusted header.
        time: UnixMillis,
        /// The trust period.
        period_ms: u64,
    },
    /// The header is ahead of the own clock.
    #[error(
        "header {height} has time {time} ms, ahead of the clock at {now} ms; check the clock or ask another node"
    )]
    FromFuture {
        /// Its height.
        height: Height,
        /// Its time.
        time: UnixMillis,
        /// The own clock.
        now: UnixMillis,
    },
    /// The newest header is too old: the node is behind, or hides the tip.
    #[error("newest header {height} has time {time} ms, too old at {now} ms; ask another node")]
    Stale {
        /// Its height.
        height: Height,
        /// Its time.
        time: UnixMillis,
        /// The own clock.
        now: UnixMillis,
    },
    /// Not above what is trusted, in height and time.
    #[error("header {height} is not above the trusted {trusted} in height and time; ask another node")]
    NotNewer {
        /// Its height.
        height: Height,
        /// Height trusted.
        trusted: Height,
    },
    /// Of another network or version.
    #[error(
        "header {height} is of network {theirs}, version {version}, not of {ours}, version 1; ask a node of this network"
    )]
    Foreign {
        /// Its height.
        height: Height,
        /// Its version.
        version: u16,
        /// Its network.
        theirs: GenesisHash,
        /// The network followed.
        ours: GenesisHash,
    },
    /// A set other than the one a header names.
    #[error("header {height} names the set {named}, given is {given}; ask another node")]
    Set {
        /// Its height.
        height: Height,
        /// Hash in the header.
        named: ValidatorsHash,
        /// Hash of the set given or trusted.
        given: ValidatorsHash,
    },
    /// The next height does not name the trusted header as its parent.
    #[error("header {height} has parent {parent}, trusted is {trusted}; ask another node")]
    Parent {
        /// Its height.
        height: Height,
        /// Parent in the header.
        parent: BlockHash,
        /// Hash of the trusted header.
        trusted: BlockHash,
    },
    /// The certificate decides another header.
    #[error("certificate decides block {decided} at {at}, not header {header} at {height}; ask another node")]
    OtherBlock {
        /// Height of the certificate.
        at: Height,
        /// Block of the certificate.
        decided: BlockHash,
        /// Height of the header.
        height: Height,
        /// Hash of the header.
        header: BlockHash,
    },
    /// The certificate does not hold.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Too little of the trusted set signed to skip this far: verify a header between first.
    #[error(
        "header {height} is signed by {signed} of {total} trusted stake, not more than 1/3; verify a header between first"
    )]
    TooFarAhead {
        /// Its height.
        height: Height,
        /// Trusted stake that signed.
        signed: Stake,
        /// Trusted stake in all.
        total: Stake,
    },
}

impl From<ValidatorSetError> for LightError {
    fn from(error: ValidatorSetError) -> Self {
        Self::Genesis(GenesisError::Validators(error))
    }
}
