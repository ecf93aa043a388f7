//! Drops old blocks and what tells where their transactions are, a little with every block.
//!
//! Nothing is dropped before a durable, verified snapshot of the state covers it: state and log after the snapshot can
//! always be made again. What receipts need of old blocks is kept apart ([`crate::changes`]).

use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::units::{Blocks, Height};

use crate::error::StoreError;
use crate::log::BlockLog;
use crate::state::StateIndex;

/// Blocks whose transactions are forgotten with one new block: the work is spread.
const BLOCKS_PER_STEP: u64 = 32;

/// Follows the chain at a distance.
#[derive(Debug)]
pub(crate) struct Pruner {
    /// Blocks that stay; `None` keeps them all.
    keep: Option<Blocks>,
    /// Below it the index knows no transaction any more.
    forgotten: Height,
}

impl Pruner {
    pub(crate) fn new(keep: Option<Blocks>, log: &BlockLog) -> Self {
        Self { keep, forgotten: log.reader().first().unwrap_or(Height::new(1)) }
    }

    /// Goes a step on after block `tip`; every block below `covered` is needed by nothing but its readers.
    pub(crate) fn step(
        &mut self,
        log: &mut BlockLog,
        state: &StateIndex,
        tip: Height,
        covered: Height,
    ) -> Result<(), StoreError> {
        let Some(keep) = self.keep else { return Ok(()) };
        let wanted = Height::new(tip.get().saturating_sub(keep.get()));
        let horizon = wanted.min(covered);
        if self.forgotten >= horizon {
            return Ok(());
        }
        let end = Height::new(self.forgotten.get().saturating_add(BLOCKS_PER_STEP)).min(horizon);
        let mut ids: Vec<TransactionId> = Vec::new();
        let reader = log.reader();
        let mut height = self.forgotten;
        while height < end {
            match reader.block(height) {
                Ok(Some(decided)) => {
                    ids.extend(decided.block.body.transactions.iter().map(|signed| signed.transaction.id()));
                }
                // What a damaged block held is forgotten with it; its entries stay and lead to nothing.
                Ok(None) | Err(StoreError::DamagedBlock { .. }) => {}
                Err(error) => return Err(error),
            }
            height = height.next();
        }
        state.forget_transactions(&ids);
        self.forgotten = end;
        if log.would_prune(end) {
            // The entries must be gone for good before the blocks that name them are, and the log must reach back to
            // what the index has written.
            state.settle()?;
            let first = log.prune(end)?;
            tracing::debug!(first = ?first, "old blocks dropped");
        }
        Ok(())
    }
}
