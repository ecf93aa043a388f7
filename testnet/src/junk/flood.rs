//! Peers that send nothing but junk. One never sends a bad signature, so that nobody can prove it wrong; the other forges,
//! and comes back under a new name every few seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_bytes::ByteBuf;
use tiltyard_net::{Limits, Net, NetConfig, NetHandle, NoBlobs, Target};
use tiltyard_proto::codec;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::keys::{PublicKey, SecretKey, Signature};
use tiltyard_proto::transaction::{Action, SignedTransaction, Transaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce};
use tiltyard_proto::wire::{Topic, TransactionFrame};

use crate::run::layout::{self, Network};

const TICK: Duration = Duration::from_millis(50);
/// Bytes of transactions in one frame.
const FRAME_BYTES: usize = 60_000;
/// The forger gets a new name so often.
const NAME_EVERY: Duration = Duration::from_secs(5);
/// One transaction in so many is forged; the rest is what only the state can refuse.
const FORGED_ONE_IN: u64 = 10;

/// Everything that junk is made of.
#[derive(Debug)]
pub(crate) struct Flood {
    rate: u64,
    genesis: Genesis,
    bootstrap: Vec<Target>,
    /// An account with credits, in whose name junk is sent.
    rich: PublicKey,
    serial: u64,
}

impl Flood {
    pub(crate) fn new(network: &Network, rate: u64) -> Result<Self> {
        let bytes = std::fs::read(&network.genesis_file).context("cannot read the genesis document")?;
        let genesis = Genesis::decode(&bytes)?;
        let bootstrap = genesis
            .validators
            .iter()
            .flat_map(|validator| &validator.addresses)
            .map(|address| Target::parse(address))
            .collect::<Result<_, _>>()?;
        let rich = layout::key(network.seed, &network.observer.place.name, "account").public();
        Ok(Self { rate, genesis, bootstrap, rich, serial: 0 })
    }

    /// Pours until it is stopped.
    pub(crate) fn pour(mut self, stop: &AtomicBool, sent: &Arc<AtomicU64>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let sent = sent.clone();
        runtime.block_on(async move {
            let clever = self.peer(1)?;
            let (mut forger, mut named, mut name) = (self.peer(2)?, Instant::now(), 2u64);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut tick = tokio::time::interval(TICK);
            while !stop.load(Ordering::Relaxed) {
                tick.tick().await;
                if named.elapsed() > NAME_EVERY {
                    name += 1;
                    forger.shutdown();
                    (forger, named) = (self.peer(name)?, Instant::now());
                }
                let due = self.rate / 20;
                let forged = due / FORGED_ONE_IN;
                sent.fetch_add(self.send(&clever, due - forged, false), Ordering::Relaxed);
                sent.fetch_add(self.send(&forger, forged, true), Ordering::Relaxed);
            }
            clever.shutdown();
            forger.shutdown();
            Ok(())
        })
    }

    fn peer(&self, name: u64) -> Result<NetHandle> {
        let mut seed = [0x99; 32];
        seed[..8].copy_from_slice(&name.to_be_bytes());
        let config = NetConfig {
            seed,
            genesis: self.genesis.hash(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            bootstrap: self.bootstrap.clone(),
            topics: vec![Topic::Transactions],
            block_bytes_max: usize::try_from(self.genesis.params.block_bytes_max)?,
            limits: Limits::default(),
        };
        let (handle, mut events) = Net::spawn(config, Arc::new(NoBlobs))?;
        // What the network says is not listened to.
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        Ok(handle)
    }

    /// Sends `count` transactions in as few frames as fit; returns how many were handed to the network.
    fn send(&mut self, peer: &NetHandle, count: u64, forged: bool) -> u64 {
        let (mut sent, mut bytes, mut frame) = (0, 0, Vec::new());
        for _ in 0..count {
            let transaction = ByteBuf::from(self.junk(forged).encode());
            bytes += transaction.len() + 5;
            frame.push(transaction);
            if bytes > FRAME_BYTES {
                sent += publish(peer, core::mem::take(&mut frame));
                bytes = 0;
            }
        }
        sent + publish(peer, frame)
    }

    /// Makes another piece of junk, never the same twice.
    fn junk(&mut self, forged: bool) -> SignedTransaction {
        self.serial += 1;
        let serial = self.serial;
        let fee = self.genesis.params.fee_min;
        let mut transaction = Transaction {
            version: Transaction::VERSION,
            genesis: self.genesis.hash(),
            sender: self.rich,
            nonce: Nonce::new(serial % 200),
            fee,
            valid_until: Height::new(900),
            action: Action::Transfer { to: self.rich, amount: MicroCredits::new(serial) },
        };
        let mut signature = [0u8; 64];
        signature[..8].copy_from_slice(&serial.to_be_bytes());
        let unsigned =
            |transaction| SignedTransaction { transaction, signature: Signature::from_bytes(signature) };
        if forged {
            return unsigned(transaction);
        }
        match serial % 5 {
            // A stranger, well signed.
            0 => {
                let mut seed = [0x55; 32];
                seed[..8].copy_from_slice(&serial.to_be_bytes());
                let stranger = SecretKey::from_seed(&seed);
                transaction.sender = stranger.public();
                return transaction.sign(&stranger.signer(self.genesis.hash())).into_signed();
            }
            1 => transaction.nonce = Nonce::new(1_000_000 + serial),
            2 => transaction.fee = MicroCredits::new(1),
            3 => transaction.fee = MicroCredits::new(u64::MAX - serial),
            _ => transaction.valid_until = Height::new(1),
        }
        unsigned(transaction)
    }
}

fn publish(peer: &NetHandle, transactions: Vec<ByteBuf>) -> u64 {
    let count = transactions.len() as u64;
    if count == 0 {
        return 0;
    }
    let bytes = codec::encode(&TransactionFrame { transactions });
    match peer.publish(Topic::Transactions, bytes) {
        Ok(()) => count,
        // Its own queue is full: this much was not sent.
        Err(_) => 0,
    }
}
