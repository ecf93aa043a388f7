//! Builds a block from the transactions that wait.

use tiltyard_keys::PublicKey;
use tiltyard_ledger::{AdmitError, BlockContext, Executed, StateRead};
use tiltyard_proto::block::{Block, Body, Header};
use tiltyard_proto::codec;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::limits::HEADER_BYTES_MAX;
use tiltyard_proto::units::UnixMillis;

use super::Chain;
use crate::config::MachineError;
use crate::mempool::Mempool;

/// What the encoding adds around header, certificate and transactions, generously.
const FRAME_BYTES: usize = 256;

/// A block made here.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) block: Block,
    pub(crate) executed: Executed,
    /// Transactions that turned out to have no place, and why.
    pub(crate) refused: Vec<(TransactionId, AdmitError)>,
}

impl Chain {
    /// Builds the next block.
    ///
    /// # Errors
    /// [`MachineError`] when the state cannot be read.
    pub(crate) fn build(
        &self,
        state: &dyn StateRead,
        mempool: &Mempool,
        builder: PublicKey,
        clock: UnixMillis,
    ) -> Result<Built, MachineError> {
        let tip = &self.tip;
        let height = self.next_height();
        let certificate_bytes = tip.certificate.as_ref().map_or(0, |c| codec::encode(c).len());
        let taken = HEADER_BYTES_MAX.saturating_add(certificate_bytes).saturating_add(FRAME_BYTES);
        let room = tip.block_bytes_max().saturating_sub(taken);
        let most = usize::try_from(tip.params.block_transactions_max).unwrap_or(usize::MAX);
        let candidates = mempool.select(room, most);
        let context = BlockContext {
            height,
            builder,
            genesis: self.verifier.genesis(),
            parent_certificate: tip.certificate.as_ref().map(|c| (c, &tip.set)),
        };
        let selected = tiltyard_ledger::select(state, &context, &candidates)?;
        let refused = selected
            .refused
            .iter()
            .filter_map(|(at, error)| Some((candidates.get(*at)?.id(), error.clone())))
            .collect();
        let transactions = selected
            .included
            .iter()
            .filter_map(|at| candidates.get(*at))
            .map(|transaction| transaction.signed().clone())
            .collect();
        let body = Body { parent_certificate: tip.certificate.clone(), transactions };
        let header = Header {
            version: Header::VERSION,
            genesis: self.verifier.genesis(),
            height,
            time: clock.max(tip.time.saturating_add(UnixMillis::new(1))),
            parent: tip.hash,
            parent_certificate: body.parent_certificate_hash(),
            builder,
            tx_root: body.tx_root(),
            state_root: selected.executed.changes.state_root,
            validators_hash: tip.next_set_hash,
            next_validators_hash: selected.executed.next_set.hash(),
            params_hash: tip.params.hash(),
        };
        Ok(Built { block: Block { header, body }, executed: selected.executed, refused })
    }
}
