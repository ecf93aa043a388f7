//! The genesis document: parameters, first validators, first balances. Its hash names the network.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::{GenesisHash, PublicKey};

use crate::codec::{self, CodecError};
use crate::hash::{self, context};
use crate::ids::{BlockHash, ParamsHash};
use crate::limits::GENESIS_BYTES_MAX;
use crate::units::{Blocks, MicroCredits, Ppm, Stake, UnixMillis};
use crate::validators::{Validator, ValidatorSet, ValidatorSetError};

/// Parameters of a network (the starred numbers of SPEC.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// Pace of blocks, in milliseconds.
    pub block_interval_ms: u32,
    /// Propose timeout of round 0, in milliseconds; each later round adds half.
    pub propose_timeout_ms: u32,
    /// Prevote timeout of round 0, in milliseconds.
    pub prevote_timeout_ms: u32,
    /// Precommit timeout of round 0, in milliseconds.
    pub precommit_timeout_ms: u32,
    /// When a silent round re-sends its votes, in milliseconds.
    pub rebroadcast_ms: u32,
    /// Blocks in an epoch.
    pub epoch: Blocks,
    /// Largest block, in bytes.
    pub block_bytes_max: u32,
    /// Most transactions in a block.
    pub block_transactions_max: u32,
    /// Most phase ends handled in one block; the rest is carried over in order.
    pub phase_ends_per_block_max: u32,
    /// Shortest window of a task.
    pub window_min: Blocks,
    /// Longest window of a task.
    pub window_max: Blocks,
    /// Smallest fee of a paying transaction.
    pub fee_min: MicroCredits,
    /// Smallest bond per evaluation example.
    pub fee_per_cell: MicroCredits,
    /// Most entrants of a task (≤ 64).
    pub entrants_max: u8,
    /// Most entrants without bond of a task.
    pub unbonded_max: u8,
    /// Leading zero bits of an unbonded entrant's stamp.
    pub stamp_bits: u8,
    /// Share of the pot burned.
    pub burn: Ppm,
    /// Share of the pot for the judges.
    pub judges: Ppm,
    /// Weights of the three places.
    pub places: [u32; 3],
    /// Two cells this close are the same for copies, in micro-nats.
    pub duplicate_micro_nats: u32,
    /// Share of close cells that makes a copy.
    pub duplicate_cells: Ppm,
    /// A judge's cell this close to the median agrees, in micro-nats.
    pub judge_micro_nats: u32,
    /// Share of agreeing cells that earns the judge's pay.
    pub judge_cells: Ppm,
    /// How long the committee keeps paid entrants' bytes after settlement.
    pub keep: Blocks,
    /// How long stake takes to leave.
    pub unbonding: Blocks,
    /// How old evidence may be.
    pub evidence_age: Blocks,
    /// Share of stake burned for signing two things.
    pub slash: Ppm,
    /// Smallest stake of a validator.
    pub stake_min: Stake,
    /// Blocks over which absence is counted.
    pub absence_window: Blocks,
    /// Share of that window a validator may miss before it is jailed.
    pub absence_max: Ppm,
    /// How long a jailed validator must wait.
    pub jail: Blocks,
    /// Paid to validators per epoch, by stake.
    pub subsidy_per_epoch: MicroCredits,
    /// What one draw from the faucet gives; 0 for no faucet.
    pub faucet: MicroCredits,
    /// Blocks between two draws to one key.
    pub faucet_interval: Blocks,
}

impl Params {
    /// Returns the parameters of a home network of `validators` validators (SPEC.md §9).
    #[must_use]
    pub const fn default_for(validators: u64) -> Self {
        Self {
            block_interval_ms: 1_000,
            propose_timeout_ms: 1_000,
            prevote_timeout_ms: 400,
            precommit_timeout_ms: 400,
            rebroadcast_ms: 1_000,
            epoch: Blocks::new(100),
            block_bytes_max: 512 * 1024,
            block_transactions_max: 4_096,
            phase_ends_per_block_max: 8,
            window_min: Blocks::new(validators.saturating_mul(2)),
            window_max: Blocks::new(604_800),
            fee_min: MicroCredits::new(1_000),
            fee_per_cell: MicroCredits::new(1_000),
            entrants_max: 64,
            unbonded_max: 8,
            stamp_bits: 20,
            burn: Ppm::new(50_000),
            judges: Ppm::new(100_000),
            places: [100, 30, 9],
            duplicate_micro_nats: 20,
            duplicate_cells: Ppm::new(990_000),
            judge_micro_nats: 500,
            judge_cells: Ppm::new(750_000),
            keep: Blocks::new(86_400),
            unbonding: Blocks::new(5_356_800),
            evidence_age: Blocks::new(100_000),
            slash: Ppm::new(100_000),
            stake_min: Stake::new(1_000),
            absence_window: Blocks::new(100),
            absence_max: Ppm::new(500_000),
            jail: Blocks::new(600),
            subsidy_per_epoch: MicroCredits::ZERO,
            faucet: MicroCredits::ZERO,
            faucet_interval: Blocks::new(100),
        }
    }

    /// Returns the hash that headers carry.
    #[must_use]
    pub fn hash(&self) -> ParamsHash {
        ParamsHash::from_bytes(hash::of(context::PARAMS, self))
    }
}

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
        self.validator_set()?;
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

impl Params {
    /// Checks every parameter against its hard limits.
    ///
    /// # Errors
    /// [`GenesisError::Params`] naming the first one outside.
    pub fn check(&self) -> Result<(), GenesisError> {
        let million = 1_000_000;
        let shares = self.burn.get().saturating_add(self.judges.get());
        let rules: [(&'static str, i128, bool, &'static str); 12] = [
            ("block_interval_ms", i128::from(self.block_interval_ms), self.block_interval_ms >= 50, "use at least 50"),
            ("propose_timeout_ms", i128::from(self.propose_timeout_ms), self.propose_timeout_ms >= 50, "use at least 50"),
            ("epoch", i128::from(self.epoch.get()), self.epoch.get() >= 1, "use at least 1"),
            ("block_bytes_max", i128::from(self.block_bytes_max), (16_384..=1_048_576).contains(&self.block_bytes_max), "use 16384 to 1048576"),
            ("phase_ends_per_block_max", i128::from(self.phase_ends_per_block_max), self.phase_ends_per_block_max >= 1, "use at least 1"),
            ("window_min", i128::from(self.window_min.get()), self.window_min >= Blocks::new(1) && self.window_min <= self.window_max, "use 1 to window_max"),
            ("entrants_max", i128::from(self.entrants_max), (1..=64).contains(&self.entrants_max), "use 1 to 64"),
            ("stamp_bits", i128::from(self.stamp_bits), self.stamp_bits <= 40, "use at most 40"),
            ("burn", i128::from(self.burn.get()), self.burn.get() >= 0 && self.judges.get() >= 0 && shares <= million, "burn and judges must be ≥ 0 and at most 1000000 together"),
            ("places", self.places.iter().map(|p| i128::from(*p)).sum(), self.places.first().is_some_and(|p| *p > 0), "the first place needs a weight"),
            ("slash", i128::from(self.slash.get()), (0..=million).contains(&self.slash.get()), "use 0 to 1000000"),
            ("stake_min", i128::from(self.stake_min.get()), self.stake_min.get() >= 1, "use at least 1"),
        ];
        for (name, value, holds, remedy) in rules {
            if !holds {
                return Err(GenesisError::Params { name, value, remedy });
            }
        }
        Ok(())
    }
}
