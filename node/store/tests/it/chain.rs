//! Makes real chains: signed transfers, executed by the ledger, decided by one validator's certificate.

use tiltyard_keys::{PublicKey, SecretKey, Verifier};
use tiltyard_ledger::{BlockContext, ChangeSet, StateRead, execute, query};
use tiltyard_proto::block::{Block, Body, DecidedBlock, Header};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::ids::{BlockHash, TransactionId};
use tiltyard_proto::transaction::{Action, SignedTransaction, Transaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce, Round, Stake, UnixMillis};
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_store::{ChainStore, CommitRef, StoreError};

/// Keys of the validators and of one account that pays.
pub(crate) struct Maker {
    validators: Vec<SecretKey>,
    payer: SecretKey,
    pub(crate) genesis: Genesis,
}

fn member(key: &SecretKey) -> GenesisValidator {
    GenesisValidator {
        key: key.public(),
        stake: Stake::new(10_000),
        peer: b"peer".to_vec().into(),
        addresses: Vec::new(),
        payout: key.public(),
    }
}

/// A block ready to be committed.
pub(crate) struct Made {
    pub(crate) decided: DecidedBlock,
    pub(crate) changes: ChangeSet,
    pub(crate) outcomes: Vec<(TransactionId, bool)>,
}

impl Made {
    pub(crate) fn commit(&self) -> CommitRef<'_> {
        CommitRef { decided: &self.decided, changes: &self.changes, outcomes: &self.outcomes }
    }
}

/// Receiver of the `number`-th transfer.
fn receiver(number: u64) -> PublicKey {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(&seed).public()
}

impl Maker {
    /// One validator; `network` tells networks apart.
    pub(crate) fn new(network: u64) -> Self {
        Self::with_validators(network, 1)
    }

    /// So many validators; all of them sign each block.
    pub(crate) fn with_validators(network: u64, count: u8) -> Self {
        let keys = |at: u8| SecretKey::from_seed(&[if at == 0 { 1 } else { 100 + at }; 32]);
        let validators: Vec<SecretKey> = (0..count).map(keys).collect();
        let payer = SecretKey::from_seed(&[2; 32]);
        let mut members: Vec<GenesisValidator> = validators.iter().map(member).collect();
        members.sort_by_key(|member| member.key);
        let genesis = Genesis {
            version: Genesis::VERSION,
            name: "store test".to_owned(),
            time: UnixMillis::new(network),
            params: Params::default_for(u64::from(count)),
            validators: members,
            grants: vec![Grant { account: payer.public(), amount: MicroCredits::new(1 << 50) }],
        };
        genesis.check().unwrap();
        Self { validators, payer, genesis }
    }

    fn set(&self) -> ValidatorSet {
        self.genesis.validator_set().unwrap()
    }

    fn transfer(&self, nonce: u64, amount: u64, height: Height) -> SignedTransaction {
        Transaction {
            genesis: self.genesis.hash(),
            version: Transaction::VERSION,
            sender: self.payer.public(),
            nonce: Nonce::new(nonce),
            fee: self.genesis.params.fee_min,
            valid_until: Height::new(height.get() + 10),
            action: Action::Transfer { to: receiver(nonce), amount: MicroCredits::new(amount) },
        }
        .sign(&self.payer.signer(self.genesis.hash()))
        .into_signed()
    }

    fn certify(&self, block: &Block) -> Certificate {
        let (height, round) = (block.header.height, Round::new(0));
        let blank = Certificate::build(height, round, block.hash(), &self.set(), &[]);
        let sign = |key: &SecretKey| key.signer(self.genesis.hash()).sign_vote(&blank.payload());
        let precommits: Vec<_> = self.validators.iter().map(|key| (key.public(), sign(key))).collect();
        Certificate::build(height, round, block.hash(), &self.set(), &precommits)
    }

    /// Makes the block after `parent` on `state`, with so many transfers; the last one of three or more asks for too
    /// much and is recorded as a failure.
    pub(crate) fn next(&self, state: &dyn StateRead, parent: Option<&DecidedBlock>, transfers: u64) -> Made {
        let height = parent.map_or(Height::new(1), |parent| parent.block.header.height.next());
        let nonce = query::account(state, &self.payer.public()).unwrap().nonce.get();
        let transactions: Vec<SignedTransaction> = (0..transfers)
            .map(|at| {
                let amount = if at > 1 && at + 1 == transfers { u64::MAX / 2 } else { 1_000 + at };
                self.transfer(nonce + at, amount, height)
            })
            .collect();
        let body = Body { parent_certificate: parent.map(|parent| parent.certificate.clone()), transactions };
        let verifier = Verifier::new(self.genesis.hash());
        let verified: Vec<_> =
            body.transactions.iter().map(|signed| signed.clone().verify(&verifier).unwrap()).collect();
        let set = self.set();
        let context = BlockContext {
            height,
            builder: self.validators[0].public(),
            genesis: self.genesis.hash(),
            parent_certificate: body.parent_certificate.as_ref().map(|certificate| (certificate, &set)),
        };
        let executed = execute(state, &context, &verified).unwrap();
        let header = Header {
            version: Header::VERSION,
            genesis: self.genesis.hash(),
            height,
            time: UnixMillis::new(height.get()),
            parent: parent.map_or(self.genesis.block_hash(), |parent| parent.block.hash()),
            parent_certificate: body.parent_certificate_hash(),
            builder: self.validators[0].public(),
            tx_root: body.tx_root(),
            state_root: executed.changes.state_root,
            validators_hash: executed.set.hash(),
            next_validators_hash: executed.next_set.hash(),
            params_hash: executed.params.hash(),
        };
        let block = Block { header, body };
        let certificate = self.certify(&block);
        let outcomes = executed.outcomes.iter().map(|one| (one.id, one.result.is_ok())).collect();
        Made { decided: DecidedBlock { block, certificate }, changes: executed.changes, outcomes }
    }

    /// Makes and commits `count` blocks after `parent`; every third one carries transfers.
    pub(crate) fn grow<S: ChainStore>(
        &self,
        store: &mut S,
        mut parent: Option<DecidedBlock>,
        count: u64,
    ) -> Result<Option<DecidedBlock>, StoreError> {
        for _ in 0..count {
            let at = parent.as_ref().map_or(0, |parent| parent.block.header.height.get());
            let made = self.next(&store.reader(), parent.as_ref(), if at.is_multiple_of(3) { 3 } else { 0 });
            store.commit(made.commit())?;
            parent = Some(made.decided);
        }
        Ok(parent)
    }
}

/// A block for the log alone: chained, but executed by nobody.
pub(crate) fn plain(genesis: &Genesis, height: u64, parent: BlockHash) -> DecidedBlock {
    let maker = Maker::new(genesis.time.get());
    let body = Body { parent_certificate: None, transactions: Vec::new() };
    let header = Header {
        version: Header::VERSION,
        genesis: genesis.hash(),
        height: Height::new(height),
        time: UnixMillis::new(height),
        parent,
        parent_certificate: body.parent_certificate_hash(),
        builder: maker.validators[0].public(),
        tx_root: body.tx_root(),
        state_root: tiltyard_proto::ids::StateRoot::from_bytes([4; 32]),
        validators_hash: tiltyard_proto::ids::ValidatorsHash::from_bytes([5; 32]),
        next_validators_hash: tiltyard_proto::ids::ValidatorsHash::from_bytes([6; 32]),
        params_hash: tiltyard_proto::ids::ParamsHash::from_bytes([7; 32]),
    };
    let block = Block { header, body };
    let certificate = Certificate {
        height: Height::new(height),
        round: Round::new(0),
        block: block.hash(),
        signers: vec![0].into(),
        signatures: Vec::new(),
    };
    DecidedBlock { block, certificate }
}
