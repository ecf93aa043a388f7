//! Transactions that came first with a body for the next height: gossip brings them again, and they are not verified
//! twice.

use std::collections::BTreeMap;

use tiltyard_keys::Verifier;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::transaction::{SignedTransaction, TransactionError, VerifiedTransaction};

/// Most transactions remembered; those beyond are verified again when they come again.
const VERIFIED_MAX: usize = 4_096;

/// Verified transactions by id.
#[derive(Debug, Default)]
pub(crate) struct Verified(BTreeMap<TransactionId, VerifiedTransaction>);

impl Verified {
    /// Verifies a transaction, unless just this one, signature included, is remembered: the id leaves the signature out.
    ///
    /// # Errors
    /// [`TransactionError`]
    pub(crate) fn verify(
        &self,
        verifier: &Verifier,
        signed: SignedTransaction,
    ) -> Result<VerifiedTransaction, TransactionError> {
        match self.0.get(&signed.transaction.id()).filter(|known| *known.signed() == signed) {
            Some(known) => Ok(known.clone()),
            None => signed.verify(verifier),
        }
    }

    /// Remembers a verified transaction while there is room.
    pub(crate) fn keep(&mut self, transaction: &VerifiedTransaction) {
        if self.0.len() < VERIFIED_MAX {
            self.0.insert(transaction.id(), transaction.clone());
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiltyard_keys::{GenesisHash, SecretKey};
    use tiltyard_proto::transaction::{Action, Transaction};
    use tiltyard_proto::units::{Height, MicroCredits, Nonce};

    fn made(nonce: u64) -> VerifiedTransaction {
        let (key, genesis) = (SecretKey::from_seed(&[7; 32]), GenesisHash::from_bytes([0; 32]));
        Transaction {
            version: Transaction::VERSION,
            genesis,
            sender: key.public(),
            nonce: Nonce::new(nonce),
            fee: MicroCredits::new(1_000),
            valid_until: Height::new(10),
            action: Action::Transfer { to: key.public(), amount: MicroCredits::new(1) },
        }
        .sign(&key.signer(genesis))
    }

    #[test]
    fn a_remembered_transaction_lends_its_id_to_no_other_signature() {
        let verifier = Verifier::new(GenesisHash::from_bytes([0; 32]));
        let (known, other) = (made(0), made(1));
        let mut verified = Verified::default();
        verified.keep(&known);
        assert_eq!(verified.verify(&verifier, known.signed().clone()).as_ref(), Ok(&known));
        let mut forged = known.signed().clone();
        forged.signature = other.signed().signature;
        assert_eq!(forged.transaction.id(), known.id());
        assert!(verified.verify(&verifier, forged).is_err());
        // Whether it is asked at all shows on another network: there nothing verifies anew.
        let foreign = Verifier::new(GenesisHash::from_bytes([1; 32]));
        assert!(verified.verify(&foreign, known.signed().clone()).is_ok(), "it is verified again");
        verified.clear();
        assert!(verified.verify(&foreign, known.signed().clone()).is_err(), "it is not forgotten");
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut verified = Verified::default();
        let first = made(0);
        verified.keep(&first);
        for at in 0..u32::try_from(VERIFIED_MAX).unwrap_or(u32::MAX) {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&at.to_be_bytes());
            verified.0.insert(TransactionId::from_bytes(id), first.clone());
        }
        let held = verified.0.len();
        verified.keep(&made(1));
        assert_eq!(verified.0.len(), held);
    }
}
