//! Makes a long chain of a single validator through the store: one thread signs what the other executes and writes.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tiltyard_keys::{Entropy, Keystore, Lock, SecretKey};
use tiltyard_ledger::{BlockContext, Executed, execute, query};
use tiltyard_proto::block::{Block, Body, DecidedBlock, Header};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::transaction::{Action, SignedTransaction, Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce, Round, Stake, UnixMillis};
use tiltyard_store::{ChainStore as _, CommitRef, StateOptions, Store, StoreOptions};

/// Accounts that pay, and accounts that receive.
const PAYERS: u64 = 1_000;
const RECEIVERS: u64 = 10_000;
/// Full blocks that are signed ahead.
const AHEAD: usize = 4;
/// Memory for the pages and for the nodes of the state while the chain is made.
const CACHE_BYTES: usize = 512 << 20;
/// How long ago the chain began, in milliseconds: longer than a million blocks of a millisecond.
const AGE_MS: u64 = 10_000_000;

/// What the chain looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) blocks: u64,
    pub(super) full_every: u64,
    pub(super) transfers: u64,
}

/// A chain that is ready.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) tip: u64,
}

fn secret(kind: u8, number: u64) -> SecretKey {
    let mut seed = [kind; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(&seed)
}

struct Builder {
    validator: SecretKey,
    payers: Vec<SecretKey>,
    receivers: Vec<tiltyard_keys::PublicKey>,
    genesis: Genesis,
}

/// Makes the node's folder, or continues one that an earlier run began.
pub(super) fn make(folder: &Path, plan: &Plan) -> Result<Made> {
    let builder = Builder::open(folder)?;
    let state = StateOptions {
        page_cache_bytes: CACHE_BYTES as u64,
        node_cache_bytes: CACHE_BYTES,
        ..StateOptions::default()
    };
    let options = StoreOptions { state, ..StoreOptions::default() };
    let (mut store, recovered) = Store::open(&folder.join("chain"), &builder.genesis, options)?;
    let begun = recovered.tip.as_ref().map_or(0, |tip| tip.block.header.height.get());
    let nonce = query::account(&store.reader(), &builder.payers[0].public())?.nonce.get();
    let (signed, full) = mpsc::sync_channel(AHEAD);
    thread::scope(|scope| {
        let builder = &builder;
        scope.spawn(move || {
            let mut nonce = nonce;
            for height in (begun + 1..=plan.blocks).filter(|height| height.is_multiple_of(plan.full_every)) {
                // The other side has given up: nobody wants what is signed.
                if signed.send(builder.transfers(Height::new(height), plan.transfers, nonce)).is_err() {
                    return;
                }
                nonce += plan.transfers / plan.transfers.clamp(1, PAYERS);
            }
        });
        builder.grow(&mut store, recovered.tip, plan, full)
    })
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

impl Builder {
    fn open(folder: &Path) -> Result<Self> {
        let (validator, node, account) = (secret(1, 0), secret(2, 0), secret(3, 0));
        let payers: Vec<SecretKey> = (0..PAYERS).map(|at| secret(4, at)).collect();
        let receivers = (0..RECEIVERS).map(|at| secret(5, at).public()).collect();
        let path = folder.join("genesis.cbor");
        let genesis = if path.exists() {
            Genesis::decode(&fs::read(&path)?)?
        } else {
            let keys = folder.join("keys");
            fs::create_dir_all(&keys).with_context(|| format!("cannot make {}", keys.display()))?;
            for (name, key) in [("node", &node), ("validator", &validator), ("account", &account)] {
                let entropy = Entropy { salt: [0; 16], nonce: [0; 24] };
                let keystore = Keystore::seal(key, Lock::OpenForTestnet, &entropy)?;
                write_secret(&keys.join(format!("{name}.key")), keystore.as_text())?;
            }
            let genesis = document(&validator, &payers)?;
            fs::write(&path, genesis.encode()).context("cannot write the genesis document")?;
            genesis
        };
        Ok(Self { validator, payers, receivers, genesis })
    }

    fn transfers(&self, height: Height, count: u64, nonce: u64) -> Vec<VerifiedTransaction> {
        let network = self.genesis.hash();
        let payers = count.clamp(1, PAYERS);
        let each = count / payers;
        let sign = |at: u64| {
            let payer = &self.payers[usize::try_from(at / each).unwrap_or(0)];
            let to = self.receivers[usize::try_from((at * 7 + height.get()) % RECEIVERS).unwrap_or(0)];
            Transaction {
                version: Transaction::VERSION,
                genesis: network,
                sender: payer.public(),
                nonce: Nonce::new(nonce + at % each),
                fee: self.genesis.params.fee_min,
                valid_until: Height::new(height.get() + 10),
                action: Action::Transfer { to, amount: MicroCredits::new(1_000) },
            }
            .sign(&payer.signer(network))
        };
        (0..each * payers).map(sign).collect()
    }

    /// Makes blocks until there are enough.
    fn grow(
        &self,
        store: &mut Store,
        mut tip: Option<DecidedBlock>,
        plan: &Plan,
        full: Receiver<Vec<VerifiedTransaction>>,
    ) -> Result<Made> {
        loop {
            let at = tip.as_ref().map_or(0, |tip| tip.block.header.height.get());
            if at >= plan.blocks {
                return Ok(Made { tip: at });
            }
            let transactions = if (at + 1).is_multiple_of(plan.full_every) {
                full.recv().context("the thread that signs has ended early")?
            } else {
                Vec::new()
            };
            tip = Some(self.add(store, tip.as_ref(), transactions)?);
            if (at + 1).is_multiple_of(10_000) {
                eprintln!("{} blocks made", at + 1);
            }
        }
    }

    /// Makes and commits the block after `parent`.
    fn add(
        &self,
        store: &mut Store,
        parent: Option<&DecidedBlock>,
        transactions: Vec<VerifiedTransaction>,
    ) -> Result<DecidedBlock> {
        let height = parent.map_or(Height::new(1), |parent| parent.block.header.height.next());
        let reader = store.reader();
        let set = query::set_at(&reader, height)?;
        let parent_certificate = parent.map(|parent| parent.certificate.clone());
        let context = BlockContext {
            height,
            builder: self.validator.public(),
            genesis: self.genesis.hash(),
            parent_certificate: parent_certificate.as_ref().map(|certificate| (certificate, &set)),
        };
        let executed = execute(&reader, &context, &transactions)?;
        ensure!(executed.outcomes.iter().all(|outcome| outcome.result.is_ok()), "a transfer failed");
        let signed: Vec<SignedTransaction> =
            transactions.into_iter().map(VerifiedTransaction::into_signed).collect();
        let block = self.block(parent, Body { parent_certificate, transactions: signed }, &executed, height);
        let round = Round::new(0);
        let blank = Certificate::build(height, round, block.hash(), &set, &[]);
        let signature = self.validator.signer(self.genesis.hash()).sign_vote(&blank.payload());
        let precommits = [(self.validator.public(), signature)];
        let certificate = Certificate::build(height, round, block.hash(), &set, &precommits);
        let decided = DecidedBlock { block, certificate };
        let outcomes: Vec<(TransactionId, bool)> =
            executed.outcomes.iter().map(|one| (one.id, one.result.is_ok())).collect();
        store.commit(CommitRef { decided: &decided, changes: &executed.changes, outcomes: &outcomes })?;
        Ok(decided)
    }

    fn block(&self, parent: Option<&DecidedBlock>, body: Body, executed: &Executed, height: Height) -> Block {
        let header = Header {
            version: Header::VERSION,
            genesis: self.genesis.hash(),
            height,
            time: UnixMillis::new(self.genesis.time.get() + height.get()),
            parent: parent.map_or(self.genesis.block_hash(), |parent| parent.block.hash()),
            parent_certificate: body.parent_certificate_hash(),
            builder: self.validator.public(),
            tx_root: body.tx_root(),
            state_root: executed.changes.state_root,
            validators_hash: executed.set.hash(),
            next_validators_hash: executed.next_set.hash(),
            params_hash: executed.params.hash(),
        };
        Block { header, body }
    }
}

fn document(validator: &SecretKey, payers: &[SecretKey]) -> Result<Genesis> {
    let now_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_millis();
    let began = u64::try_from(now_ms).unwrap_or(u64::MAX).saturating_sub(AGE_MS);
    let grant = |key: &SecretKey| Grant { account: key.public(), amount: MicroCredits::new(1 << 40) };
    let mut grants: Vec<Grant> = payers.iter().map(grant).collect();
    grants.sort();
    let genesis = Genesis {
        version: Genesis::VERSION,
        name: "restart".to_owned(),
        time: UnixMillis::new(began),
        params: Params::default_for(1),
        validators: vec![GenesisValidator {
            key: validator.public(),
            stake: Stake::new(10_000),
            peer: b"peer".to_vec().into(),
            addresses: Vec::new(),
            payout: validator.public(),
        }],
        grants,
    };
    genesis.check()?;
    Ok(genesis)
}
