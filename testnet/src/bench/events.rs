//! Listens to every node at once: which block became durable where, and when.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};

use super::api::{Api, Decided};

/// What was heard so far. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    nodes: Arc<Vec<Node>>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Node {
    decided: Mutex<BTreeMap<u64, Decided>>,
    transactions: AtomicU64,
}

/// Threads that listen.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) heard: Heard,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Listeners {
    /// Starts to listen.
    pub(crate) fn start(apis: &[Api]) -> Self {
        let nodes = apis.iter().map(|_| Node::default()).collect();
        let heard = Heard { nodes: Arc::new(nodes), stop: Arc::new(AtomicBool::new(false)) };
        let threads = apis
            .iter()
            .cloned()
            .enumerate()
            .map(|(at, api)| {
                let heard = heard.clone();
                std::thread::spawn(move || {
                    api.follow(|decided| {
                        heard.note(at, decided);
                        !heard.stop.load(Ordering::Relaxed)
                    })
                })
            })
            .collect();
        Self { heard, threads }
    }

    /// Ends with the next block of each node, or with the node.
    pub(crate) fn stop(self) -> Result<()> {
        self.heard.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a listening thread broke"))??;
        }
        Ok(())
    }
}

impl Heard {
    fn note(&self, at: usize, decided: Decided) {
        let node = &self.nodes[at];
        node.transactions.fetch_add(decided.transactions, Ordering::Relaxed);
        node.decided.lock().unwrap_or_else(PoisonError::into_inner).insert(decided.height, decided);
    }

    /// Transactions that a node has told of so far.
    pub(crate) fn transactions(&self, node: usize) -> u64 {
        self.nodes[node].transactions.load(Ordering::Relaxed)
    }

    /// Returns what each node told, by height.
    pub(crate) fn all(&self) -> Vec<BTreeMap<u64, Decided>> {
        self.nodes
            .iter()
            .map(|node| node.decided.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .collect()
    }
}
