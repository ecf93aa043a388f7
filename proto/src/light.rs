//! Light verification: following a chain by certificates, from a genesis document or a recent checkpoint.
//!
//! Pure functions: the caller fetches, keeps time and stores. A header is trusted when more than two thirds of the set
//! that the last trusted header announced signed it, or, skipping ahead, when more than one third of that set and more
//! than two thirds of its own set did (Braithwaite et al., "A Tendermint Light Client", arXiv 2010.07031; SPEC.md §11).
//! Skipping rests on the stake of the trusted set being at risk, so it ends with the trust period.

mod error;
mod witness;

use serde::{Deserialize, Serialize};
use tiltyard_keys::{GenesisHash, Verifier};

pub use error::LightError;
pub use witness::{WitnessOutcome, compare_witness};

use crate::block::Header;
use crate::certificate::{Certificate, CertificateError};
use crate::genesis::{Genesis, GenesisError};
use crate::ids::{BlockHash, StateRoot};
use crate::units::{Height, Stake, UnixMillis};
use crate::validators::{ValidatorSet, more_than_one_third};

/// A header with everything needed to judge it; untrusted until verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LightBlock {
    /// The header.
    pub header: Header,
    /// What decided it.
    pub certificate: Certificate,
    /// The set that decided it.
    pub set: ValidatorSet,
    /// The set that decides the next block.
    pub next_set: ValidatorSet,
}

/// What a light client has come to trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// The network.
    pub genesis: GenesisHash,
    /// Time of the header, or of the genesis document.
    pub time: UnixMillis,
    /// The header; none when trust starts at the genesis document.
    pub header: Option<Header>,
    /// The set that decided it; the first set at genesis.
    pub set: ValidatorSet,
    /// The set that decides the next block.
    pub next_set: ValidatorSet,
}

/// How long and how far a light client trusts; all in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LightOptions {
    /// A trusted header older than this starts nothing any more; less than the unbonding delay.
    pub trust_period_ms: u64,
    /// How far ahead of the own clock a header may be.
    pub clock_drift_ms: u64,
    /// A tip older than this is stale.
    pub stale_after_ms: u64,
}

impl Trusted {
    /// Starts from a genesis document, which must have the hash `trusted`.
    ///
    /// The trust period does not apply to this start: who names a genesis hash names the first set for good, and knows
    /// that keys which left it long ago could sign another history (SPEC.md §11).
    ///
    /// # Errors
    /// [`LightError::Genesis`] when the document has another hash or breaks a rule.
    pub fn from_genesis(genesis: &Genesis, trusted: &GenesisHash) -> Result<Self, LightError> {
        genesis.check()?;
        let found = genesis.hash();
        if found != *trusted {
            return Err(GenesisError::Foreign { found, trusted: *trusted }.into());
        }
        let set = genesis.validator_set()?;
        Ok(Self { genesis: found, time: genesis.time, header: None, next_set: set.clone(), set })
    }

    /// Starts from a block that the user names by its hash, learned from a source of their own.
    ///
    /// # Errors
    /// [`LightError`] when the block is of another network or name, or its certificate and sets do not hold.
    pub fn from_checkpoint(
        genesis: &GenesisHash,
        trusted: &BlockHash,
        block: LightBlock,
    ) -> Result<Self, LightError> {
        let found = block.header.hash();
        if found != *trusted {
            return Err(LightError::OtherBlock {
                at: block.header.height,
                decided: found,
                height: block.header.height,
                header: *trusted,
            });
        }
        block.check(genesis)?;
        block.certificate.verify(&Verifier::new(*genesis), &block.set)?;
        Ok(Self::adopt(block))
    }

    fn adopt(block: LightBlock) -> Self {
        Self {
            genesis: block.header.genesis,
            time: block.header.time,
            header: Some(block.header),
            set: block.set,
            next_set: block.next_set,
        }
    }

    /// Returns the height trusted; 0 at genesis.
    #[must_use]
    pub fn height(&self) -> Height {
        self.header.as_ref().map_or(Height::ZERO, |header| header.height)
    }

    /// Returns the name of the trusted block; the genesis hash at genesis.
    #[must_use]
    pub fn block_hash(&self) -> BlockHash {
        self.header.as_ref().map_or(BlockHash::from_bytes(*self.genesis.as_bytes()), Header::hash)
    }

    /// Returns the state root to verify proofs against; none at genesis.
    #[must_use]
    pub fn state_root(&self) -> Option<StateRoot> {
        self.header.as_ref().map(|header| header.state_root)
    }

    /// Refuses a tip that is too old to answer from.
    ///
    /// # Errors
    /// [`LightError::Stale`].
    pub fn check_fresh(&self, options: &LightOptions, now: UnixMillis) -> Result<(), LightError> {
        if self.time.get().saturating_add(options.stale_after_ms) < now.get() {
            return Err(LightError::Stale { height: self.height(), time: self.time, now });
        }
        Ok(())
    }
}

impl LightBlock {
    /// Checks what needs no trust: version, network, sets as named, certificate for this header.
    fn check(&self, genesis: &GenesisHash) -> Result<(), LightError> {
        let header = &self.header;
        let height = header.height;
        if header.version != Header::VERSION || header.genesis != *genesis {
            return Err(LightError::Foreign {
                height,
                version: header.version,
                theirs: header.genesis,
                ours: *genesis,
            });
        }
        let sets =
            [(header.validators_hash, self.set.hash()), (header.next_validators_hash, self.next_set.hash())];
        for (named, given) in sets {
            if named != given {
                return Err(LightError::Set { height, named, given });
            }
        }
        decides(&self.certificate, header)
    }
}

pub(crate) fn decides(certificate: &Certificate, header: &Header) -> Result<(), LightError> {
    let hash = header.hash();
    if certificate.block != hash || certificate.height != header.height {
        return Err(LightError::OtherBlock {
            at: certificate.height,
            decided: certificate.block,
            height: header.height,
            header: hash,
        });
    }
    Ok(())
}

fn check_before_signatures(
    trusted: &Trusted,
    block: &LightBlock,
    options: &LightOptions,
    now: UnixMillis,
) -> Result<(), LightError> {
    let header = &block.header;
    let is_header = trusted.header.is_some();
    if is_header && trusted.time.get().saturating_add(options.trust_period_ms) < now.get() {
        return Err(LightError::TrustExpired { time: trusted.time, period_ms: options.trust_period_ms });
    }
    block.check(&trusted.genesis)?;
    if header.height <= trusted.height() || header.time <= trusted.time {
        return Err(LightError::NotNewer { height: header.height, trusted: trusted.height() });
    }
    if header.time.get() > now.get().saturating_add(options.clock_drift_ms) {
        return Err(LightError::FromFuture { height: header.height, time: header.time, now });
    }
    Ok(())
}

/// Verifies the header right after the trusted one and returns it as trusted.
///
/// # Errors
/// [`LightError`] naming the first rule broken; the block may then be dropped and its sender asked no more.
pub fn verify_adjacent(
    trusted: &Trusted,
    block: LightBlock,
    options: &LightOptions,
    now: UnixMillis,
) -> Result<Trusted, LightError> {
    check_before_signatures(trusted, &block, options, now)?;
    let header = &block.header;
    if header.height != trusted.height().next() {
        return Err(LightError::NotNewer { height: header.height, trusted: trusted.height() });
    }
    let parent = trusted.block_hash();
    if header.parent != parent {
        let (height, parent, trusted) = (header.height, header.parent, parent);
        return Err(LightError::Parent { height, parent, trusted });
    }
    let given = trusted.next_set.hash();
    if header.validators_hash != given {
        let (height, named) = (header.height, header.validators_hash);
        return Err(LightError::Set { height, named, given });
    }
    block.certificate.verify(&Verifier::new(trusted.genesis), &trusted.next_set)?;
    Ok(Trusted::adopt(block))
}

/// Verifies a later header, right after the trusted one or further ahead, and returns it as trusted.
///
/// # Errors
/// [`LightError::TooFarAhead`] asks for a header between (see [`halfway`]); every other one condemns the block.
pub fn verify_skipping(
    trusted: &Trusted,
    block: LightBlock,
    options: &LightOptions,
    now: UnixMillis,
) -> Result<Trusted, LightError> {
    if block.header.height == trusted.height().next() {
        // The trusted header names the set of the next height exactly: a third of it must not be enough here.
        return verify_adjacent(trusted, block, options, now);
    }
    check_before_signatures(trusted, &block, options, now)?;
    let shape = CertificateError::Shape { height: block.header.height, members: block.set.members().len() };
    let pairs = block.certificate.signed_by(block.set.members().len()).ok_or(shape)?;
    let signed = pairs
        .iter()
        .filter_map(|(at, _)| block.set.members().get(*at))
        .filter_map(|member| trusted.next_set.find(&member.key))
        .fold(Stake::ZERO, |sum, (_, member)| sum.saturating_add(member.stake));
    let total = trusted.next_set.total();
    if !more_than_one_third(signed, total) {
        return Err(LightError::TooFarAhead { height: block.header.height, signed, total });
    }
    // Every signature counted above is verified here, and so is the block's own quorum.
    block.certificate.verify(&Verifier::new(trusted.genesis), &block.set)?;
    Ok(Trusted::adopt(block))
}

/// Returns the height to verify first when `target` is too far ahead; `None` when nothing lies between.
#[must_use]
pub fn halfway(trusted: Height, target: Height) -> Option<Height> {
    let gap = target.checked_sub(trusted)?.get();
    (gap >= 2).then(|| Height::new(trusted.get().saturating_add(gap / 2)))
}
