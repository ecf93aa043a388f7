//! Makes the index from the log: genesis, then every block executed again and compared with its header.

use tiltyard_keys::Verifier;
use tiltyard_ledger::{BlockContext, Executed, execute, query};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::units::Height;

use super::{Marker, StateIndex};
use crate::error::StoreError;
use crate::log::LogReader;

/// Progress is told every so many blocks.
const BLOCKS_PER_WORD: u64 = 1_000;

/// Writes the state at height 0 into an empty index.
pub(crate) fn write_genesis(index: &StateIndex, genesis: &Genesis) -> Result<(), StoreError> {
    let changes = tiltyard_ledger::genesis(genesis)
        .map_err(|error| StoreError::Replay { height: Height::ZERO, fact: error.to_string() })?;
    let marker = Marker {
        genesis: genesis.hash(),
        height: Height::ZERO,
        block: genesis.block_hash(),
        root: changes.state_root,
        tree_version: changes.tree_version.unwrap_or(0),
    };
    index.write(marker, &changes, &[]);
    index.settle()
}

/// Executes one logged block on the index as it stands; refuses one that leads elsewhere than its header says.
fn execute_logged(
    index: &StateIndex,
    verifier: &Verifier,
    marker: &Marker,
    decided: &DecidedBlock,
) -> Result<Executed, StoreError> {
    let header = &decided.block.header;
    let height = header.height;
    let fail = |fact: String| StoreError::Replay { height, fact };
    let body = &decided.block.body;
    let transactions: Result<Vec<_>, _> =
        body.transactions.iter().map(|signed| signed.clone().verify(verifier)).collect();
    let transactions = transactions.map_err(|error| fail(error.to_string()))?;
    let parent_set = match (&body.parent_certificate, height.previous()) {
        (Some(_), Some(parent)) => {
            Some(query::set_at(index, parent).map_err(|error| fail(error.to_string()))?)
        }
        (None, _) | (_, None) => None,
    };
    let context = BlockContext {
        height,
        builder: header.builder,
        genesis: marker.genesis,
        parent_certificate: body.parent_certificate.as_ref().zip(parent_set.as_ref()),
    };
    let executed = execute(index, &context, &transactions).map_err(|error| fail(error.to_string()))?;
    let found = executed.changes.state_root;
    if found != header.state_root {
        return Err(StoreError::Diverged { height, found, expected: header.state_root });
    }
    Ok(executed)
}

/// Brings the index from where it is to the end of the log; returns the number of blocks executed.
pub(crate) fn replay(index: &StateIndex, log: &LogReader) -> Result<u64, StoreError> {
    let Some(mut marker) = index.marker() else {
        return Err(StoreError::Index { fact: "it holds no state to start from".to_owned() });
    };
    let verifier = Verifier::new(marker.genesis);
    let tip = log.tip().unwrap_or(Height::ZERO);
    let mut count = 0u64;
    while marker.height < tip {
        let height = marker.height.next();
        let Some(decided) = log.block(height)? else {
            return Err(StoreError::Hole { height });
        };
        if decided.block.header.parent != marker.block {
            let fact = "it does not continue the state it is applied to".to_owned();
            return Err(StoreError::Replay { height, fact });
        }
        let executed = execute_logged(index, &verifier, &marker, &decided)?;
        marker = marker.after(&decided, &executed.changes);
        let outcomes: Vec<(TransactionId, bool)> =
            executed.outcomes.iter().map(|outcome| (outcome.id, outcome.result.is_ok())).collect();
        index.write(marker, &executed.changes, &outcomes);
        count = count.saturating_add(1);
        index.flush_here()?;
        if count.is_multiple_of(BLOCKS_PER_WORD) {
            tracing::info!(%height, %tip, "state index catches up with the log");
        }
    }
    if count > 0 {
        index.settle()?;
    }
    Ok(count)
}
