//! Blocks made and executed ahead of time, so that a bare loop orders real bytes and writes what the node would write.

use anyhow::{Context, Result};
use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{BlockContext, ChangeSet};
use tiltyard_proto::block::{Block, Body, Header};
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{BlockHash, TransactionId};
use tiltyard_proto::keys::Verifier;
use tiltyard_proto::units::{Height, UnixMillis};

use super::accounts::Purses;

/// A block with what it does.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) block: Block,
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: BlockHash,
    pub(crate) changes: ChangeSet,
    pub(crate) outcomes: Vec<(TransactionId, bool)>,
}

/// Makes the blocks of heights 1 to `heights`, each full of transfers.
pub(crate) fn chain(
    genesis: &Genesis,
    purses: &mut Purses,
    heights: u64,
    each: u32,
) -> Result<Vec<Prepared>> {
    let mut state = MemoryState::new();
    state.apply(&tiltyard_ledger::genesis(genesis).context("genesis has no state")?);
    let verifier = Verifier::new(genesis.hash());
    let set = genesis.validator_set().context("genesis has no set")?;
    let builder = set.members().first().context("the set is empty")?.key;
    let (mut parent, mut chain) = (genesis.block_hash(), Vec::new());
    for height in (1..=heights).map(Height::new) {
        let list = (0..each)
            .map(|_| purses.next(height).verify(&verifier).context("an own transaction does not verify"))
            .collect::<Result<Vec<_>>>()?;
        let context = BlockContext { height, builder, genesis: genesis.hash(), parent_certificate: None };
        let executed =
            tiltyard_ledger::execute(&state, &context, &list).context("a prepared block is refused")?;
        state.apply(&executed.changes);
        let transactions = list.into_iter().map(|transaction| transaction.into_signed()).collect();
        let body = Body { parent_certificate: None, transactions };
        let header = Header {
            version: Header::VERSION,
            genesis: genesis.hash(),
            height,
            time: UnixMillis::new(genesis.time.get() + height.get()),
            parent,
            parent_certificate: body.parent_certificate_hash(),
            builder,
            tx_root: body.tx_root(),
            state_root: executed.changes.state_root,
            validators_hash: set.hash(),
            next_validators_hash: executed.next_set.hash(),
            params_hash: genesis.params.hash(),
        };
        let block = Block { header, body };
        let hash = block.hash();
        parent = hash;
        chain.push(Prepared {
            bytes: block.encode(),
            hash,
            changes: executed.changes,
            outcomes: executed.outcomes.iter().map(|o| (o.id, o.result.is_ok())).collect(),
            block,
        });
    }
    Ok(chain)
}
