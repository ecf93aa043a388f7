//! Measures blocks of transfers, state root included, signatures verified before, state and tree nodes in memory.
//!
//! usage: `cargo run --release -p tiltyard-ledger --example transfers -- [accounts] [transfers a block] [blocks]`
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a measurement needs a clock")]

use std::time::Instant;

use serde_bytes::ByteBuf;
use tiltyard_keys::SecretKey;
use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{BlockContext, execute, genesis};
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::transaction::{Action, Transaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce, Stake, UnixMillis};

fn secret(number: u64) -> SecretKey {
    let mut seed = [0u8; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(&seed)
}

fn argument(at: usize, default: u64) -> u64 {
    std::env::args().nth(at).map_or(default, |text| text.parse().expect("a number"))
}

fn main() {
    let (accounts, transfers, blocks) = (argument(1, 10_000), argument(2, 2_000), argument(3, 10));
    let secrets: Vec<SecretKey> = (0..accounts).map(secret).collect();
    let mut grants: Vec<Grant> = secrets
        .iter()
        .map(|secret| Grant { account: secret.public(), amount: MicroCredits::new(1_000_000_000) })
        .collect();
    grants.sort();
    let key = secret(u64::MAX).public();
    let validators = vec![GenesisValidator {
        key,
        stake: Stake::new(1_000),
        peer: ByteBuf::new(),
        addresses: Vec::new(),
        payout: key,
    }];
    let params = Params { block_transactions_max: 100_000, ..Params::default_for(1) };
    let document = Genesis {
        version: 1,
        name: "transfers".into(),
        time: UnixMillis::new(0),
        params,
        validators,
        grants,
    };
    let mut state = MemoryState::new();
    state.apply(&genesis(&document).expect("sound"));
    let network = document.hash();
    let (mut nonces, mut draw, mut spent) = (vec![0u64; secrets.len()], 7u64, 0.0);
    let mut pick = || {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((draw >> 33) % accounts).expect("small")
    };
    for height in 1..=blocks {
        let block: Vec<_> = (0..transfers)
            .map(|_| {
                let (from, to) = (pick(), pick());
                let nonce = Nonce::new(nonces[from]);
                nonces[from] += 1;
                Transaction {
                    version: 1,
                    genesis: network,
                    sender: secrets[from].public(),
                    nonce,
                    fee: MicroCredits::new(1_000),
                    valid_until: Height::new(height + 10),
                    action: Action::Transfer { to: secrets[to].public(), amount: MicroCredits::new(1) },
                }
                .sign(&secrets[from].signer(network))
            })
            .collect();
        let context = BlockContext {
            height: Height::new(height),
            builder: key,
            genesis: network,
            parent_certificate: None,
        };
        let start = Instant::now();
        let executed = execute(&state, &context, &block).expect("valid");
        state.apply(&executed.changes);
        spent += start.elapsed().as_secs_f64();
        assert!(executed.outcomes.iter().all(|outcome| outcome.result.is_ok()));
    }
    let total = transfers * blocks;
    println!(
        "{accounts} accounts, {blocks} blocks of {transfers} transfers: {:.0} transfers/s, {:.1} ms a block",
        total as f64 / spent,
        spent * 1e3 / blocks as f64
    );
}
