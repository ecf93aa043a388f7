//! Measures blocks of transfers, state root included, signatures verified before, state and tree nodes in memory.
//!
//! usage: `cargo run --release -p tiltyard-ledger --example transfers -- [--json] [accounts…]`
//!
//! Prints for each number of accounts the median and the best block, and how the cost of a transfer grows from the first
//! number to the last, all in one run.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a measurement needs a clock")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;
use tiltyard_keys::{GenesisHash, PublicKey, SecretKey};
use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{BlockContext, execute, genesis, tree};
use tiltyard_proto::codec;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::hash::plain;
use tiltyard_proto::state::{Account, StateKey};
use tiltyard_proto::transaction::{Action, Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce, Stake, UnixMillis};

const TRANSFERS: u64 = 2_000;
const BLOCKS: u64 = 7;
const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// A linear congruential generator: the same payers and payees in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn secret(number: u64) -> SecretKey {
    SecretKey::from_seed(&plain(&number.to_be_bytes()))
}

/// Accounts of a state: those that pay have a real key, the others' bytes are as evenly spread.
struct Accounts {
    payers: BTreeMap<u64, SecretKey>,
}

impl Accounts {
    fn key(&self, number: u64) -> PublicKey {
        let spread =
            || PublicKey::from_bytes(plain(&[b"account".as_slice(), &number.to_be_bytes()].concat()));
        self.payers.get(&number).map_or_else(spread, SecretKey::public)
    }
}

const BALANCE: MicroCredits = MicroCredits::new(1_000_000_000);

fn document(accounts: &Accounts) -> Genesis {
    let grant = |payer: &SecretKey| Grant { account: payer.public(), amount: BALANCE };
    let mut grants: Vec<Grant> = accounts.payers.values().map(grant).collect();
    grants.sort();
    let key = secret(u64::MAX).public();
    let validator = GenesisValidator {
        key,
        stake: Stake::new(1_000),
        peer: ByteBuf::new(),
        addresses: Vec::new(),
        payout: key,
    };
    Genesis {
        version: 1,
        name: "transfers".into(),
        time: UnixMillis::new(0),
        params: Params { block_transactions_max: 100_000, ..Params::default_for(1) },
        validators: vec![validator],
        grants,
    }
}

fn block(
    accounts: &Accounts,
    pairs: &[(u64, u64)],
    nonces: &mut BTreeMap<u64, u64>,
    network: GenesisHash,
    height: u64,
) -> Vec<VerifiedTransaction> {
    let transfer = |(from, to): &(u64, u64)| {
        let payer = &accounts.payers[from];
        let nonce = nonces.entry(*from).or_default();
        *nonce += 1;
        Transaction {
            version: 1,
            genesis: network,
            sender: payer.public(),
            nonce: Nonce::new(*nonce - 1),
            fee: MicroCredits::new(1_000),
            valid_until: Height::new(height + 10),
            action: Action::Transfer { to: accounts.key(*to), amount: MicroCredits::new(1) },
        }
        .sign(&payer.signer(network))
    };
    pairs.iter().map(transfer).collect()
}

/// Returns how long each block took, sorted.
fn measure(count: u64) -> Vec<Duration> {
    let mut draw = Draw(7);
    let plan: Vec<Vec<(u64, u64)>> = (0..BLOCKS)
        .map(|_| (0..TRANSFERS).map(|_| (draw.below(count), draw.below(count))).collect())
        .collect();
    let payers = plan.iter().flatten().map(|(from, _)| (*from, secret(*from))).collect();
    let accounts = Accounts { payers };
    let document = document(&accounts);
    let mut state = MemoryState::new();
    state.apply(&genesis(&document).expect("sound"));
    // Everyone else is written past genesis, which would check a million keys.
    let other = Account { balance: BALANCE, ..Account::default() };
    let rest = (0..count)
        .filter(|number| !accounts.payers.contains_key(number))
        .map(|number| (StateKey::Account(accounts.key(number)).to_bytes(), Some(codec::encode(&other))));
    let rest = tree::update(&state, rest.collect()).expect("in memory");
    state.apply(&rest);
    let (network, mut nonces) = (document.hash(), BTreeMap::new());
    let mut times = Vec::new();
    for (height, pairs) in (1..).zip(&plan) {
        let transactions = block(&accounts, pairs, &mut nonces, network, height);
        let context = BlockContext {
            height: Height::new(height),
            builder: secret(u64::MAX).public(),
            genesis: network,
            parent_certificate: None,
        };
        let start = Instant::now();
        let executed = execute(&state, &context, &transactions).expect("valid");
        state.apply(&executed.changes);
        times.push(start.elapsed());
        assert!(executed.outcomes.iter().all(|outcome| outcome.result.is_ok()));
    }
    times.sort();
    times
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let given: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if given.is_empty() { SIZES.to_vec() } else { given };
    let mut rows = Vec::new();
    for count in sizes {
        let times = measure(count);
        let each = |time: &Duration| time.as_secs_f64() * 1e6 / TRANSFERS as f64;
        let (best, median) = (each(&times[0]), each(&times[times.len() / 2]));
        if !json {
            println!(
                "{count:>8} accounts: {:>7.0} transfers/s, {median:.2} µs each (best block {best:.2} µs)",
                1e6 / median
            );
        }
        rows.push((count, median, best));
    }
    let growth = |pick: fn(&(u64, f64, f64)) -> f64| pick(&rows[rows.len() - 1]) / pick(&rows[0]);
    let (median, best) = (growth(|row| row.1), growth(|row| row.2));
    if json {
        let list: Vec<String> = rows
            .iter()
            .map(|(count, median, best)| {
                format!(r#"{{"accounts":{count},"median_us":{median:.3},"best_us":{best:.3}}}"#)
            })
            .collect();
        println!(
            r#"{{"transfers":{TRANSFERS},"blocks":{BLOCKS},"growth_median":{median:.2},"growth_best":{best:.2},"sizes":[{}]}}"#,
            list.join(",")
        );
    } else {
        println!("cost grows {median:.1}x from the first to the last (best blocks {best:.1}x)");
    }
}
