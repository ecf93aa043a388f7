//! Parameters of a network and their hard limits.

use serde::{Deserialize, Serialize};

use super::GenesisError;
use crate::hash::{self, context};
use crate::ids::ParamsHash;
use crate::limits::{BLOCK_BYTES_HARD_MAX, ENTRANTS_HARD_MAX};
use crate::units::{Blocks, MicroCredits, Ppm, Stake};

const MILLION: i128 = 1_000_000;
const ANY: i128 = i128::MAX;

/// Parameters of a network (the starred numbers of SPEC.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// Pace of blocks, in milliseconds; 0: each height starts as soon as its parent is durable.
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

/// One rule: name, value, smallest and largest allowed, and what to do.
type Rule = (&'static str, i128, i128, i128, &'static str);

impl Params {
    /// Checks every parameter against its hard limits.
    ///
    /// # Errors
    /// [`GenesisError::Params`] naming the first one outside.
    pub fn check(&self) -> Result<(), GenesisError> {
        let rules = self.pace_rules().into_iter().chain(self.market_rules()).chain(self.stake_rules());
        for (name, value, least, most, remedy) in rules {
            if value < least || value > most {
                return Err(GenesisError::Params { name, value, remedy });
            }
        }
        Ok(())
    }

    fn pace_rules(&self) -> [Rule; 9] {
        let ms = |name, value: u32| (name, i128::from(value), 50, 600_000, "use 50 to 600000");
        let pace = i128::from(self.block_interval_ms);
        [
            ("block_interval_ms", pace, 0, 600_000, "use 0 (no pace) to 600000"),
            ms("propose_timeout_ms", self.propose_timeout_ms),
            ms("prevote_timeout_ms", self.prevote_timeout_ms),
            ms("precommit_timeout_ms", self.precommit_timeout_ms),
            ms("rebroadcast_ms", self.rebroadcast_ms),
            ("epoch", self.epoch.get().into(), 1, ANY, "use at least 1"),
            (
                "block_bytes_max",
                self.block_bytes_max.into(),
                32_768,
                BLOCK_BYTES_HARD_MAX as i128,
                "use 32768 to 1048576",
            ),
            ("block_transactions_max", self.block_transactions_max.into(), 1, ANY, "use at least 1"),
            ("phase_ends_per_block_max", self.phase_ends_per_block_max.into(), 1, ANY, "use at least 1"),
        ]
    }

    fn market_rules(&self) -> [Rule; 12] {
        let share = |name, value: Ppm| (name, i128::from(value.get()), 0, MILLION, "use 0 to 1000000");
        let taken = i128::from(self.burn.get()).saturating_add(self.judges.get().into());
        let first = self.places.first().copied().unwrap_or(0);
        let entrants = i128::from(self.entrants_max);
        [
            (
                "window_min",
                self.window_min.get().into(),
                1,
                self.window_max.get().into(),
                "use 1 to window_max",
            ),
            ("window_max", self.window_max.get().into(), 1, 1 << 40, "use 1 to 2^40"),
            ("entrants_max", entrants, 1, ENTRANTS_HARD_MAX as i128, "use 1 to 64"),
            ("unbonded_max", self.unbonded_max.into(), 0, entrants, "use 0 to entrants_max"),
            ("stamp_bits", self.stamp_bits.into(), 0, 40, "use 0 to 40"),
            share("burn", self.burn),
            share("judges", self.judges),
            ("burn + judges", taken, 0, MILLION, "use 0 to 1000000 together"),
            ("places", first.into(), 1, ANY, "give the first place a weight"),
            share("duplicate_cells", self.duplicate_cells),
            share("judge_cells", self.judge_cells),
            ("faucet_interval", self.faucet_interval.get().into(), 1, ANY, "use at least 1"),
        ]
    }

    fn stake_rules(&self) -> [Rule; 5] {
        // Committee stake must be there for its whole task and as long as evidence against it counts.
        let longest = i128::from(self.window_max.get()).saturating_mul(7);
        let held = longest.saturating_add(self.evidence_age.get().into()).saturating_add(1);
        let share = |name, value: Ppm| (name, i128::from(value.get()), 0, MILLION, "use 0 to 1000000");
        [
            (
                "unbonding",
                self.unbonding.get().into(),
                held,
                ANY,
                "use more than 7 times window_max plus evidence_age",
            ),
            share("slash", self.slash),
            ("stake_min", self.stake_min.get().into(), 1, 1 << 60, "use 1 to 2^60"),
            ("absence_window", self.absence_window.get().into(), 1, ANY, "use at least 1"),
            share("absence_max", self.absence_max),
        ]
    }
}
