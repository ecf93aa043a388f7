//! Numbers with units. No `From<u64>`: a number becomes a quantity by name only.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// The quantity zero.
            pub const ZERO: Self = Self(0);
            /// The largest quantity.
            pub const MAX: Self = Self(<$inner>::MAX);

            /// Wraps a number.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// Returns the number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }

            /// Adds, or `None` on overflow.
            #[must_use]
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// Subtracts, or `None` on underflow.
            #[must_use]
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) {
                    Some(rest) => Some(Self(rest)),
                    None => None,
                }
            }

            /// Adds, staying at the largest quantity on overflow.
            #[must_use]
            pub const fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// Subtracts, staying at the smallest quantity on underflow.
            #[must_use]
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl core::str::FromStr for $name {
            type Err = core::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

unit!(
    /// Block height; the first block has height 1, genesis is height 0.
    Height(u64)
);
unit!(
    /// A span of blocks.
    Blocks(u64)
);
unit!(
    /// Consensus round within a height, from 0.
    Round(u32)
);
unit!(
    /// Micro-credits: one millionth of a credit, the unit of every balance.
    MicroCredits(u64)
);
unit!(
    /// Voting weight in whole credits; the total stays below 2^61.
    Stake(u64)
);
unit!(
    /// Number of a sender's transactions so far.
    Nonce(u64)
);
unit!(
    /// Milliseconds since the Unix epoch; carried for people, read by no ledger rule.
    UnixMillis(u64)
);
unit!(
    /// Millionths; signed because a gain can be a loss.
    Ppm(i64)
);

/// Micro-credits in one credit.
pub const MICRO_PER_CREDIT: u64 = 1_000_000;

impl Height {
    /// Returns the next height, or the last one there is.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the previous height, or `None` at genesis.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(height) => Some(Self(height)),
            None => None,
        }
    }

    /// Returns the height `blocks` later, staying at the last one there is.
    #[must_use]
    pub const fn plus(self, blocks: Blocks) -> Self {
        Self(self.0.saturating_add(blocks.get()))
    }
}

impl Stake {
    /// Returns the micro-credits that this stake locks, or `None` on overflow.
    #[must_use]
    pub const fn to_micro_credits(self) -> Option<MicroCredits> {
        match self.0.checked_mul(MICRO_PER_CREDIT) {
            Some(value) => Some(MicroCredits::new(value)),
            None => None,
        }
    }
}
