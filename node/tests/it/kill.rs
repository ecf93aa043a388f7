//! kill -9 of a real node at any moment: nothing that it said was in a block is ever gone.
//!
//! 100 rounds by default; `TILTYARD_KILL_ROUNDS` asks for more (`scripts/kill-loop.sh`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tiltyard_keys::{Keystore, PublicKey, SecretKey};
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::transaction::{Action, Transaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce};

use crate::world::{Member, PATIENCE, World, world_of};

const ROUNDS: u64 = 100;
/// Nodes that are killed side by side, each on a chain of its own.
const LANES: u64 = 2;
/// A round ends so long after the node answered, in milliseconds: it begins to decide after half a second.
const LIFE_MS: std::ops::Range<u64> = 440..760;

/// A fixed sequence of uneven numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

struct Payer {
    key: SecretKey,
    genesis: Genesis,
    to: PublicKey,
}

impl Payer {
    fn of(world: &World) -> Self {
        let path = world.members[1].dir.join("keys/account.key");
        let keystore = Keystore::parse(&std::fs::read(path).expect("a key")).expect("a keystore");
        let genesis = Genesis::decode(&std::fs::read(&world.genesis).expect("genesis")).expect("it is one");
        let to = world.members[0].public["account"].as_str().expect("a key").parse().expect("a key");
        Self { key: keystore.open(None).expect("it is open"), genesis, to }
    }

    fn transfer(&self, nonce: u64, height: u64) -> (TransactionId, String) {
        let transaction = Transaction {
            genesis: self.genesis.hash(),
            version: Transaction::VERSION,
            sender: self.key.public(),
            nonce: Nonce::new(nonce),
            fee: self.genesis.params.fee_min,
            valid_until: Height::new(height + 500),
            action: Action::Transfer { to: self.to, amount: MicroCredits::new(1) },
        };
        let signed = transaction.sign(&self.key.signer(self.genesis.hash()));
        (signed.id(), hex::encode(signed.signed().encode()))
    }
}

fn submit(node: &Member, bytes: &str) -> bool {
    let Ok(token) = std::fs::read_to_string(node.dir.join("api.token")) else { return false };
    ureq::post(format!("{}/v1/transactions", node.url))
        .header("authorization", &format!("Bearer {}", token.trim()))
        .send_json(json!({ "bytes": bytes }))
        .is_ok()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or(0)
}

/// Waits until the node answers.
fn answered(node: &Member) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = node.get("/v1/status") {
            return status;
        }
        assert!(Instant::now() < end, "the node does not come back:\n{}", node.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn nothing_that_was_in_a_block_is_gone_after_a_kill_at_any_moment() {
    let rounds = std::env::var("TILTYARD_KILL_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds: u64 = rounds.unwrap_or(ROUNDS);
    let told: u64 = std::thread::scope(|scope| {
        let lanes: Vec<_> =
            (0..LANES).map(|lane| scope.spawn(move || Lane::new(lane).run(rounds / LANES))).collect();
        lanes.into_iter().map(|lane| lane.join().expect("nothing is lost")).sum()
    });
    println!("{rounds} kills, {told} transfers acknowledged, 0 lost");
    assert!(told > rounds / 2, "only {told} transfers were acknowledged in {rounds} rounds");
}

/// One node, and what it said was in a block.
struct Lane {
    world: World,
    payer: Payer,
    dice: Dice,
    acknowledged: BTreeMap<TransactionId, u64>,
    newest: Vec<TransactionId>,
    tip: u64,
}

impl Lane {
    fn new(lane: u64) -> Self {
        let params = "block_interval_ms = 50\npropose_timeout_ms = 400\nprevote_timeout_ms = 200\nprecommit_timeout_ms = 200\n";
        let world = world_of(1, 1, params);
        let payer = Payer::of(&world);
        let (acknowledged, newest) = (BTreeMap::new(), Vec::new());
        Self { world, payer, dice: Dice(0x5eed + lane), acknowledged, newest, tip: 0 }
    }

    /// Returns how many transfers were acknowledged.
    fn run(mut self, rounds: u64) -> u64 {
        for round in 0..rounds {
            self.world.members[0].start();
            self.check(round);
            self.live();
            self.world.members[0].kill();
        }
        self.world.members[0].start();
        let node = &self.world.members[0];
        answered(node);
        for (id, height) in &self.acknowledged {
            let found = node.get(&format!("/v1/transactions/{id}")).expect("the node answers");
            assert_eq!(number(&found, "height"), *height, "{id}: {found}");
        }
        assert!(!node.log().contains("signs nothing any more"), "{}", node.log());
        self.acknowledged.len() as u64
    }

    /// What was acknowledged before the kill must be there.
    fn check(&mut self, round: u64) {
        let node = &self.world.members[0];
        let height = number(&answered(node), "height");
        let tip = self.tip;
        assert!(
            height >= tip,
            "round {round}: block {tip} was decided, the node is at {height}\n{}",
            node.log()
        );
        for id in self.newest.drain(..) {
            let found = node.get(&format!("/v1/transactions/{id}")).expect("the node answers");
            assert_eq!(Some(&number(&found, "height")), self.acknowledged.get(&id), "round {round}: {found}");
        }
    }

    /// Hands transfers in and notes what the node says of them, until its time is over.
    fn live(&mut self) {
        let node = &self.world.members[0];
        let life_ms = LIFE_MS.start + self.dice.below(LIFE_MS.end - LIFE_MS.start);
        let end = Instant::now() + Duration::from_millis(life_ms);
        let account = node.get(&format!("/v1/accounts/{}", self.payer.key.public()));
        let mut nonce = account.map_or(0, |account| number(&account, "nonce"));
        let mut waiting = Vec::new();
        while Instant::now() < end {
            if waiting.len() < 8 {
                let (id, bytes) = self.payer.transfer(nonce, self.tip);
                if submit(node, &bytes) {
                    waiting.push(id);
                    nonce += 1;
                }
            }
            waiting.retain(|id| {
                let found = node.get(&format!("/v1/transactions/{id}")).unwrap_or_default();
                let included = found["state"] == "included";
                if included {
                    self.acknowledged.insert(*id, number(&found, "height"));
                    self.newest.push(*id);
                    self.tip = self.tip.max(number(&found, "height"));
                }
                !included
            });
            self.tip = self.tip.max(node.height());
        }
    }
}
