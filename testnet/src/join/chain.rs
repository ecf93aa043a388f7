//! Makes a chain with many accounts through the ledger's own rules: blocks of signed transfers, each to a new account.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tiltyard_ledger::{BlockContext, StateRead, execute, query};
use tiltyard_proto::block::{Block, Body, DecidedBlock, Header};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::keys::SecretKey;
use tiltyard_proto::transaction::{Action, Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Blocks, Height, MicroCredits, Nonce, Round, Stake, UnixMillis};
use tiltyard_store::{ChainRead, ChainStore, CommitRef, StateOptions, Store, StoreOptions, admin};

/// Transfers of a block: as many as fit a megabyte.
const TRANSFERS: u64 = 3_600;
/// A state index larger than this is compacted before it is copied.
const COMPACT_BYTES: u64 = 1 << 30;
/// The chain's blocks lie a second apart, from this moment on.
const BEGAN_MS: u64 = 1_767_225_600_000;

/// What was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) genesis: Genesis,
    /// Height of the snapshot, and of the chain.
    pub(super) height: u64,
    pub(super) snapshot_bytes: u64,
}

/// The key that decides every block.
pub(super) fn validator() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

fn payer() -> SecretKey {
    SecretKey::from_seed(&[2; 32])
}

fn genesis() -> Result<Genesis> {
    let key = validator().public();
    let params = Params { block_bytes_max: 1 << 20, ..Params::default_for(1) };
    let genesis = Genesis {
        version: Genesis::VERSION,
        name: "join".to_owned(),
        time: UnixMillis::new(BEGAN_MS),
        params,
        validators: vec![GenesisValidator {
            key,
            stake: Stake::new(10_000),
            peer: b"unknown".to_vec().into(),
            addresses: Vec::new(),
            payout: key,
        }],
        grants: vec![Grant { account: payer().public(), amount: MicroCredits::new(1 << 60) }],
    };
    genesis.check().context("the genesis document breaks a rule")?;
    Ok(genesis)
}

fn transfer(
    genesis: &Genesis,
    signer: &tiltyard_proto::keys::Signer,
    nonce: u64,
    height: Height,
) -> VerifiedTransaction {
    let to = SecretKey::from_seed(blake3::hash(&nonce.to_be_bytes()).as_bytes()).public();
    Transaction {
        version: Transaction::VERSION,
        genesis: genesis.hash(),
        sender: payer().public(),
        nonce: Nonce::new(nonce),
        fee: genesis.params.fee_min,
        valid_until: height.plus(Blocks::new(10)),
        action: Action::Transfer { to, amount: MicroCredits::new(1_000_000 + nonce) },
    }
    .sign(signer)
}

/// Makes the chain in `folder`, or finds it there from an earlier run.
pub(super) fn make(folder: &Path, accounts: u64) -> Result<Made> {
    let genesis = genesis()?;
    let state = StateOptions {
        prune_after: Blocks::new(2),
        node_cache_bytes: 512 << 20,
        page_cache_bytes: 512 << 20,
        scrub_on_open: false,
    };
    let options = StoreOptions { snapshot_every: Blocks::new(0), state, ..StoreOptions::default() };
    let (mut store, recovered) = Store::open(folder, &genesis, options).context("the chain's folder")?;
    let mut tip = recovered.tip;
    let mut made = query::account(&store.reader(), &payer().public())?.nonce.get();
    while made < accounts {
        let count = TRANSFERS.min(accounts - made);
        tip = Some(grow(&mut store, &genesis, tip.as_ref(), made, count)?);
        made += count;
        if made.is_multiple_of(TRANSFERS * 20) || made == accounts {
            eprintln!("{made} of {accounts} accounts");
        }
    }
    let reader = store.reader();
    let tip = reader.tip();
    if reader.snapshots().heights().last() != Some(&tip) {
        store.make_snapshot()?;
        store.wait_for_snapshot();
    }
    ensure!(reader.snapshots().heights().last() == Some(&tip), "the snapshot was not made; see the log");
    drop((reader, store));
    // Hundreds of large blocks in a row leave the database many times larger than what it holds.
    if admin::folder_bytes(&folder.join("state")) > COMPACT_BYTES {
        admin::compact(folder, &genesis).context("the chain's state index")?;
    }
    let path = folder.join("snapshots").join(format!("{:020}.snap", tip.get()));
    let snapshot_bytes = std::fs::metadata(&path).with_context(|| format!("{}", path.display()))?.len();
    Ok(Made { genesis, height: tip.get(), snapshot_bytes })
}

fn grow(
    store: &mut Store,
    genesis: &Genesis,
    parent: Option<&DecidedBlock>,
    nonce: u64,
    count: u64,
) -> Result<DecidedBlock> {
    let height = parent.map_or(Height::new(1), |parent| parent.block.header.height.next());
    let signer = payer().signer(genesis.hash());
    let verified: Vec<VerifiedTransaction> =
        (nonce..nonce + count).map(|nonce| transfer(genesis, &signer, nonce, height)).collect();
    let body = Body {
        parent_certificate: parent.map(|parent| parent.certificate.clone()),
        transactions: verified.iter().map(|transaction| transaction.signed().clone()).collect(),
    };
    let set = genesis.validator_set()?;
    let context = BlockContext {
        height,
        builder: validator().public(),
        genesis: genesis.hash(),
        parent_certificate: body.parent_certificate.as_ref().map(|certificate| (certificate, &set)),
    };
    let reader = store.reader();
    let executed = execute(&reader as &dyn StateRead, &context, &verified)?;
    let header = Header {
        version: Header::VERSION,
        genesis: genesis.hash(),
        height,
        time: UnixMillis::new(BEGAN_MS + height.get() * 1_000),
        parent: parent.map_or(genesis.block_hash(), |parent| parent.block.hash()),
        parent_certificate: body.parent_certificate_hash(),
        builder: validator().public(),
        tx_root: body.tx_root(),
        state_root: executed.changes.state_root,
        validators_hash: executed.set.hash(),
        next_validators_hash: executed.next_set.hash(),
        params_hash: executed.params.hash(),
    };
    let block = Block { header, body };
    let round = Round::new(0);
    let blank = Certificate::build(height, round, block.hash(), &set, &[]);
    let signature = validator().signer(genesis.hash()).sign_vote(&blank.payload());
    let precommits = [(validator().public(), signature)];
    let certificate = Certificate::build(height, round, block.hash(), &set, &precommits);
    let decided = DecidedBlock { block, certificate };
    let outcomes: Vec<_> = executed.outcomes.iter().map(|one| (one.id, one.result.is_ok())).collect();
    store.commit(CommitRef { decided: &decided, changes: &executed.changes, outcomes: &outcomes })?;
    Ok(decided)
}
