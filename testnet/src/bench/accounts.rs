//! Accounts that exist from genesis on, and transactions signed ahead of time.

use tiltyard_proto::genesis::{Genesis, Grant};
use tiltyard_proto::keys::{GenesisHash, SecretKey, Signer};
use tiltyard_proto::transaction::{Action, SignedTransaction, Transaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce};

use serde_bytes::ByteBuf;

/// Accounts of a benchmark.
pub(crate) const ACCOUNTS: usize = 10_000;
const CREDITS: u64 = 1_000_000_000_000;

/// What the transactions of a load are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A transfer to another of the accounts: the smallest paying transaction.
    Transfer,
    /// About 1 KiB: `SetValidator` with eight long addresses, from an account that is no validator. It is verified,
    /// gossiped, ordered, and pays its fee like any other; its action then breaks a rule, so that it changes one
    /// account and not two.
    Kibibyte,
}

/// Makes the secret keys of `count` accounts.
pub(crate) fn keys(seed: u64, count: usize) -> Vec<SecretKey> {
    (0..count)
        .map(|at| {
            let mut hasher = blake3::Hasher::new_derive_key("tiltyard testnet bench account v1");
            hasher.update(&seed.to_be_bytes());
            hasher.update(&(at as u64).to_be_bytes());
            SecretKey::from_seed(hasher.finalize().as_bytes())
        })
        .collect()
}

/// Returns the grants of all accounts, as genesis wants them.
pub(crate) fn grants(keys: &[SecretKey]) -> Vec<Grant> {
    keys.iter().map(|key| Grant { account: key.public(), amount: MicroCredits::new(CREDITS) }).collect()
}

/// Signs transactions of accounts in turn, each with its next nonce.
#[derive(Debug)]
pub(crate) struct Purses {
    signers: Vec<(Signer, u64)>,
    genesis: GenesisHash,
    shape: Shape,
    at: usize,
    fee: MicroCredits,
}

impl Purses {
    pub(crate) fn new(keys: &[SecretKey], genesis: &Genesis, shape: Shape) -> Self {
        let hash = genesis.hash();
        let signers = keys.iter().map(|key| (key.signer(hash), 0)).collect();
        Self { signers, genesis: hash, shape, at: 0, fee: genesis.params.fee_min }
    }

    /// Returns the position of the account that signs next.
    pub(crate) const fn turn(&self) -> usize {
        self.at
    }

    /// Signs the next transaction.
    pub(crate) fn next(&mut self, valid_until: Height) -> SignedTransaction {
        let from = self.at;
        let count = self.signers.len();
        self.at = (self.at + 1) % count;
        // Far enough that receivers and senders of one block differ.
        let to = self.signers[(from + count / 2 + 1) % count].0.public();
        let action = match self.shape {
            Shape::Transfer => Action::Transfer { to, amount: MicroCredits::new(1_000_000) },
            Shape::Kibibyte => Action::SetValidator {
                peer: ByteBuf::from(vec![7; 38]),
                addresses: (0..8).map(|n| format!("/dns/{n}{}/tcp/26900", "a".repeat(81))).collect(),
                payout: to,
            },
        };
        let (signer, nonce) = &mut self.signers[from];
        let transaction = Transaction {
            version: Transaction::VERSION,
            genesis: self.genesis,
            sender: signer.public(),
            nonce: Nonce::new(*nonce),
            fee: self.fee,
            valid_until,
            action,
        };
        *nonce += 1;
        transaction.sign(signer).into_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiltyard_proto::genesis::Params;
    use tiltyard_proto::units::UnixMillis;

    #[test]
    fn a_kibibyte_is_a_kibibyte_and_a_transfer_about_a_quarter() {
        let keys = keys(1, 4);
        let genesis = Genesis {
            version: Genesis::VERSION,
            name: "x".to_owned(),
            time: UnixMillis::new(1),
            params: Params::default_for(4),
            validators: Vec::new(),
            grants: Vec::new(),
        };
        let length = |shape| {
            let mut purses = Purses::new(&keys, &genesis, shape);
            purses.next(Height::new(1_000)).encode().len()
        };
        assert!((1_000..=1_100).contains(&length(Shape::Kibibyte)), "{}", length(Shape::Kibibyte));
        assert!((180..=260).contains(&length(Shape::Transfer)), "{}", length(Shape::Transfer));
    }
}
