//! Validator sets: who votes with how much stake, and who proposes.

use serde::{Deserialize, Serialize};
use tiltyard_keys::{GenesisHash, PublicKey};

use crate::hash::{self, context, derive};
use crate::ids::ValidatorsHash;
use crate::limits::{STAKE_TOTAL_MAX, VALIDATORS_MAX};
use crate::units::{Height, Round, Stake};

/// One member of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Validator {
    /// Consensus key.
    pub key: PublicKey,
    /// Voting weight.
    pub stake: Stake,
}

/// A non-empty set, sorted by key, keys unique and strong, stakes positive, total below 2^61.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Validator>", into = "Vec<Validator>")]
pub struct ValidatorSet {
    members: Vec<Validator>,
    total: Stake,
}

/// Says why a list is no validator set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    /// No member, or too many.
    #[error("validator set has {count} members; 1 to 128 are allowed")]
    Count {
        /// Members given.
        count: usize,
    },
    /// Keys out of order or doubled.
    #[error("validator {key} is out of order or listed twice")]
    Order {
        /// The second of the two keys.
        key: PublicKey,
    },
    /// A member without stake.
    #[error("validator {key} has no stake")]
    NoStake {
        /// The member's key.
        key: PublicKey,
    },
    /// A key that is refused.
    #[error(transparent)]
    Key(#[from] tiltyard_keys::KeyError),
    /// Total stake at or above 2^61.
    #[error("total stake reaches 2^61 credits")]
    TotalStake,
}

impl TryFrom<Vec<Validator>> for ValidatorSet {
    type Error = ValidatorSetError;

    fn try_from(members: Vec<Validator>) -> Result<Self, Self::Error> {
        if members.is_empty() || members.len() > VALIDATORS_MAX {
            return Err(ValidatorSetError::Count { count: members.len() });
        }
        let mut total = Stake::ZERO;
        let mut previous: Option<PublicKey> = None;
        for member in &members {
            if previous.is_some_and(|before| before >= member.key) {
                return Err(ValidatorSetError::Order { key: member.key });
            }
            member.key.validate()?;
            if member.stake == Stake::ZERO {
                return Err(ValidatorSetError::NoStake { key: member.key });
            }
            total = total
                .checked_add(member.stake)
                .filter(|sum| sum.get() < STAKE_TOTAL_MAX)
                .ok_or(ValidatorSetError::TotalStake)?;
            previous = Some(member.key);
        }
        Ok(Self { members, total })
    }
}

impl From<ValidatorSet> for Vec<Validator> {
    fn from(set: ValidatorSet) -> Self {
        set.members
    }
}

impl ValidatorSet {
    /// Returns the members, sorted by key.
    #[must_use]
    pub fn members(&self) -> &[Validator] {
        &self.members
    }

    /// Returns the total stake.
    #[must_use]
    pub fn total(&self) -> Stake {
        self.total
    }

    /// Returns the position and record of `key`.
    #[must_use]
    pub fn find(&self, key: &PublicKey) -> Option<(usize, &Validator)> {
        let at = self.members.binary_search_by(|member| member.key.cmp(key)).ok()?;
        self.members.get(at).map(|member| (at, member))
    }

    /// Says whether `stake` is strictly more than two thirds of the total.
    #[must_use]
    pub fn is_quorum(&self, stake: Stake) -> bool {
        more_than_two_thirds(stake, self.total)
    }

    /// Returns the hash that headers carry.
    #[must_use]
    pub fn hash(&self) -> ValidatorsHash {
        ValidatorsHash::from_bytes(hash::of(context::VALIDATORS, self))
    }

    /// Draws the proposer of a round by stake: a pure function of genesis, epoch, height and round.
    #[must_use]
    pub fn proposer(&self, genesis: &GenesisHash, epoch: u64, height: Height, round: Round) -> &Validator {
        let digest = derive(
            context::PROPOSER,
            &[
                genesis.as_bytes(),
                &epoch.to_be_bytes(),
                &height.get().to_be_bytes(),
                &round.get().to_be_bytes(),
            ],
        );
        let mut wide = [0u8; 16];
        wide.copy_from_slice(digest.split_at(16).0);
        let total = u128::from(self.total.get()).max(1);
        let mut ticket = u128::from_be_bytes(wide).checked_rem(total).unwrap_or(0);
        for member in &self.members {
            let stake = u128::from(member.stake.get());
            if ticket < stake {
                return member;
            }
            ticket = ticket.saturating_sub(stake);
        }
        self.members.first().expect("a set is never empty")
    }
}

/// Says whether `part` is strictly more than two thirds of `whole`.
#[must_use]
pub fn more_than_two_thirds(part: Stake, whole: Stake) -> bool {
    u128::from(part.get()).saturating_mul(3) > u128::from(whole.get()).saturating_mul(2)
}

/// Says whether `part` is strictly more than one third of `whole`.
#[must_use]
pub fn more_than_one_third(part: Stake, whole: Stake) -> bool {
    u128::from(part.get()).saturating_mul(3) > u128::from(whole.get())
}

/// Says whether `part` is strictly more than one half of `whole`.
#[must_use]
pub fn more_than_half(part: Stake, whole: Stake) -> bool {
    u128::from(part.get()).saturating_mul(2) > u128::from(whole.get())
}
