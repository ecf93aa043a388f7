//! The genesis document: parameters, first validators, first balances. Its hash names the network.

mod params;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::{GenesisHash, PublicKey};

pub use params::Params;

use crate::codec::{self, CodecError};
use crate::hash::{self, context};
use crate::ids::BlockHash;
use crate::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, GENESIS_BYTES_MAX, PEER_BYTES_MAX};
use crate::units::{MicroCredits, Stake, UnixMillis};
use crate::validators::{Validator, ValidatorSet, ValidatorSetError};

/// A validator of the first set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenesisValidator {
    /// Consensus key; also the account that its stake belongs to.
    pub key: PublicKey,
    /// Stake, granted on top of the balances.
    pub stake: Stake,
    /// Peer id, in its multihash bytes.
    pub peer: ByteBuf,
    /// Multiaddresses, as text.
    pub addresses: Vec<String>,
    /// Account that receives the judge's pay.
    pub payout: PublicKey,
}

const NAME_BYTES_MAX: usize = 32;

impl GenesisValidator {
    fn check(&self) -> Result<(), &'static str> {
        if self.peer.len() > PEER_BYTES_MAX {
            return Err("the peer id is longer than 64 bytes; give its multihash bytes");
        }
        if self.addresses.len() > ADDRESSES_MAX {
            return Err("more than 8 addresses; give the best ones");
        }
        if self.addresses.iter().any(|address| address.len() > ADDRESS_BYTES_MAX) {
            return Err("an address is longer than 128 bytes; shorten it");
        }
        self.payout.validate().map_err(|_| "the payout key is unusable; give a generated key")
    }
}

/// A balance granted at genesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant {
    /// The account.
    pub account: PublicKey,
    /// Its first balance.
    pub amount: MicroCredits,
}

/// The document that a network starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// Version of this form: 1.
    pub version: u16,
    /// Name for people, ≤ 32 bytes.
    pub name: String,
    /// When it was made.
    pub time: UnixMillis,
    /// Parameters.
    pub params: Params,
    /// First validators, sorted by key.
    pub validators: Vec<GenesisValidator>,
    /// First balances, sorted by account, each account once.
    pub grants: Vec<Grant>,
}

/// Says why a genesis document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not the canonical bytes of a genesis document.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A version this program does not know.
    #[error("genesis has version {version}, this program knows 1; upgrade it")]
    Version {
        /// The version given.
        version: u16,
    },
    /// Validators that form no set.
    #[error("genesis validators: {0}")]
    Validators(#[from] ValidatorSetError),
    /// A name longer than 32 bytes.
    #[error("genesis name has {bytes} bytes, at most 32 are allowed; shorten it")]
    Name {
        /// Bytes of the name.
        bytes: usize,
    },
    /// A validator whose whereabouts or payout key are refused.
    #[error("genesis validator {key}: {fact}")]
    Whereabouts {
        /// The validator.
        key: PublicKey,
        /// What is wrong, and the remedy.
        fact: &'static str,
    },
    /// Grants out of order or doubled, or a weak key.
    #[error("genesis grants: {account} is out of order, doubled or no usable key")]
    Grants {
        /// The account.
        account: PublicKey,
    },
    /// Parameters outside their hard limits.
    #[error("genesis parameter {name} is {value}; {remedy}")]
    Params {
        /// Name of the parameter.
        name: &'static str,
        /// Its value.
        value: i128,
        /// What would be accepted.
        remedy: &'static str,
    },
    /// Balances and stakes that do not fit 64 bits of micro-credits.
    #[error("genesis grants more than 2^64 micro-credits in all")]
    Supply,
    /// The hash is another than the one trusted.
    #[error("genesis has hash {found}, trusted is {trusted}; get the document of your network")]
    Foreign {
        /// Hash of the document.
        found: GenesisHash,
        /// Hash that was asked for.
        trusted: GenesisHash,
    },
}

impl Genesis {
    /// Version of this form.
    pub const VERSION: u16 = 1;

    /// Reads canonical bytes and checks every rule.
    ///
    /// # Errors
    /// [`GenesisError`] naming the first rule broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, GenesisError> {
        let genesis: Self = codec::decode("genesis", bytes, GENESIS_BYTES_MAX)?;
        genesis.check()?;
        Ok(genesis)
    }

    /// Returns the canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Returns the hash that names the network.
    #[must_use]
    pub fn hash(&self) -> GenesisHash {
        GenesisHash::from_bytes(hash::of(context::GENESIS, self))
    }

    /// Returns what stands as the parent of the block at height 1.
    #[must_use]
    pub fn block_hash(&self) -> BlockHash {
        BlockHash::from_bytes(*self.hash().as_bytes())
    }

    /// Returns the first validator set.
    ///
    /// # Errors
    /// [`ValidatorSetError`] when the list is no set.
    pub fn validator_set(&self) -> Result<ValidatorSet, ValidatorSetError> {
        let members: Vec<Validator> = self
            .validators
            .iter()
            .map(|validator| Validator { key: validator.key, stake: validator.stake })
            .collect();
        ValidatorSet::try_from(members)
    }

    /// Checks the rules that the encoding alone does not hold.
    ///
    /// # Errors
    /// [`GenesisError`] naming the first rule broken.
    pub fn check(&self) -> Result<(), GenesisError> {
        if self.version != Self::VERSION {
            return Err(GenesisError::Version { version: self.version });
        }
        if self.name.len() > NAME_BYTES_MAX {
            return Err(GenesisError::Name { bytes: self.name.len() });
        }
        self.validator_set()?;
        for validator in &self.validators {
            validator.check().map_err(|fact| GenesisError::Whereabouts { key: validator.key, fact })?;
        }
        let mut previous: Option<PublicKey> = None;
        for grant in &self.grants {
            let ordered = previous.is_none_or(|before| before < grant.account);
            if !ordered || grant.account.validate().is_err() {
                return Err(GenesisError::Grants { account: grant.account });
            }
            previous = Some(grant.account);
        }
        self.params.check()?;
        self.supply().map(|_| ())
    }

    /// Returns all micro-credits that exist at genesis: grants and stakes.
    ///
    /// # Errors
    /// [`GenesisError::Supply`] when they do not fit.
    pub fn supply(&self) -> Result<MicroCredits, GenesisError> {
        let stakes = self.validators.iter().map(|validator| validator.stake.to_micro_credits());
        let grants = self.grants.iter().map(|grant| Some(grant.amount));
        stakes
            .chain(grants)
            .try_fold(MicroCredits::ZERO, |sum, amount| sum.checked_add(amount?))
            .ok_or(GenesisError::Supply)
    }
}
