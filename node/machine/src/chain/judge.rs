//! Judges a proposed or decided block against its parent: every header field, every signature, every effect.
//!
//! No clock is read here: a block's verdict is the same on every node, today and when the log is replayed.

use tiltyard_ledger::{BlockContext, ExecuteError, Executed, StateRead};
use tiltyard_proto::block::{Block, Header};
use tiltyard_proto::certificate::CertificateError;
use tiltyard_proto::codec::CodecError;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::transaction::{TransactionError, VerifiedTransaction};

use super::{Chain, Tip};
use crate::config::MachineError;
use crate::mempool::Mempool;

/// Says why a block may not follow the tip.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// A header field that does not follow from the parent and the body.
    #[error("header field {field} does not fit")]
    Header {
        /// The field.
        field: &'static str,
    },
    /// The parent's certificate is missing, foreign or not valid.
    #[error("the parent's certificate is refused: {fact}")]
    ParentCertificate {
        /// What is wrong.
        fact: String,
    },
    /// A transaction that is refused.
    #[error("transaction at {index}: {source}")]
    Transaction {
        /// Its position.
        index: usize,
        /// Why.
        source: TransactionError,
    },
    /// The ledger refuses the block.
    #[error("{fact}")]
    Ledger {
        /// Why.
        fact: String,
    },
    /// More bytes than allowed.
    #[error("{0}")]
    Bytes(CodecError),
}

/// Decodes a block of at most the network's size.
pub(crate) fn decode(tip: &Tip, bytes: &[u8]) -> Result<Block, CodecError> {
    Block::decode(bytes, tip.block_bytes_max())
}

impl Chain {
    /// Executes a block on the state after the tip and compares what it claims.
    ///
    /// # Errors
    /// The outer error stops the node; the inner one is the verdict.
    pub(crate) fn judge(
        &mut self,
        state: &dyn StateRead,
        mempool: &Mempool,
        block: &Block,
        length: usize,
    ) -> Result<Result<Executed, Unfit>, MachineError> {
        if let Err(unfit) = self.check_form(block, length) {
            return Ok(Err(unfit));
        }
        let transactions = match self.verify_transactions(mempool, block) {
            Ok(transactions) => transactions,
            Err(unfit) => return Ok(Err(unfit)),
        };
        let context = BlockContext {
            height: block.header.height,
            builder: block.header.builder,
            genesis: self.verifier.genesis(),
            parent_certificate: block
                .body
                .parent_certificate
                .as_ref()
                .map(|certificate| (certificate, &self.tip.set)),
        };
        let executed = match tiltyard_ledger::execute(state, &context, &transactions) {
            Ok(executed) => executed,
            Err(ExecuteError::Invalid(error)) => {
                return Ok(Err(Unfit::Ledger { fact: error.to_string() }));
            }
            Err(error @ (ExecuteError::Read(_) | ExecuteError::Broken { .. })) => {
                return Err(error.into());
            }
        };
        let header = &block.header;
        let after = [
            ("state_root", header.state_root == executed.changes.state_root),
            ("next_validators_hash", header.next_validators_hash == executed.next_set.hash()),
        ];
        Ok(first_wrong(&after).map(|()| executed))
    }

    /// Checks everything that needs neither signatures of transactions nor execution.
    fn check_form(&self, block: &Block, length: usize) -> Result<(), Unfit> {
        let max = self.tip.block_bytes_max();
        if length > max {
            return Err(Unfit::Bytes(CodecError::TooLong { what: "block", length, max }));
        }
        let (header, body, tip) = (&block.header, &block.body, &self.tip);
        first_wrong(&[
            ("version", header.version == Header::VERSION),
            ("genesis", header.genesis == self.verifier.genesis()),
            ("height", header.height == self.next_height()),
            ("parent", header.parent == tip.hash),
            ("time", header.time > tip.time),
            ("builder", tip.next_set.find(&header.builder).is_some()),
            ("validators_hash", header.validators_hash == tip.next_set_hash),
            ("params_hash", header.params_hash == tip.params.hash()),
            ("parent_certificate", header.parent_certificate == body.parent_certificate_hash()),
            ("tx_root", header.tx_root == body.tx_root()),
        ])?;
        self.check_parent_certificate(block)
    }

    fn check_parent_certificate(&self, block: &Block) -> Result<(), Unfit> {
        let tip = &self.tip;
        let refused = |fact: String| Unfit::ParentCertificate { fact };
        match (&block.body.parent_certificate, &tip.certificate) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(refused("genesis has none".to_owned())),
            (None, Some(_)) => Err(refused("it is missing".to_owned())),
            // The one this node holds was verified when it came.
            (Some(given), Some(known)) if given == known => Ok(()),
            (Some(given), Some(_)) => {
                if given.height != tip.height || given.block != tip.hash {
                    return Err(refused("it is of another block".to_owned()));
                }
                given
                    .verify(&self.verifier, &tip.set)
                    .map(|_| ())
                    .map_err(|error: CertificateError| refused(error.to_string()))
            }
        }
    }

    /// Verifies signatures; those of transactions that wait in the mempool were verified before.
    fn verify_transactions(
        &mut self,
        mempool: &Mempool,
        block: &Block,
    ) -> Result<Vec<VerifiedTransaction>, Unfit> {
        let mut verified = Vec::with_capacity(block.body.transactions.len());
        for (index, signed) in block.body.transactions.iter().enumerate() {
            let id: TransactionId = signed.transaction.id();
            let known = mempool.get(&id).filter(|known| known.signed() == signed);
            let transaction = match known {
                Some(known) => known.clone(),
                None => {
                    let verified = self.verify(signed.clone());
                    let verified = verified.map_err(|source| Unfit::Transaction { index, source })?;
                    self.verified.keep(&verified);
                    verified
                }
            };
            verified.push(transaction);
        }
        Ok(verified)
    }
}

fn first_wrong(rules: &[(&'static str, bool)]) -> Result<(), Unfit> {
    match rules.iter().find(|(_, holds)| !holds) {
        Some((field, _)) => Err(Unfit::Header { field }),
        None => Ok(()),
    }
}
