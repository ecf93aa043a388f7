//! Load: transactions signed ahead of time, handed in at a rate or as fast as they are decided, and accounted for.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use tiltyard_proto::transaction::SignedTransaction;
use tiltyard_proto::units::Height;

use super::accounts::Purses;
use super::api::{Api, now_us};
use super::events::Heard;
use super::network::Network;
use super::report::Report;

/// How often transactions that are due are handed in.
const TICK: Duration = Duration::from_millis(25);
/// Transactions handed in at once at most.
const BATCH_MAX: usize = 100;
/// Heights ahead for which transactions are signed; the ledger allows 1,000.
const VALID_BLOCKS: u64 = 900;
/// A node tells what waits in its mempool from a picture at most 100 ms old.
const STATUS_LAG: Duration = Duration::from_millis(250);

/// A transaction that a node has taken.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) id: String,
    /// The node that took it.
    pub(crate) node: usize,
    /// When it was handed in, by the wall clock: before the call.
    pub(crate) at_us: u64,
}

/// What became of a load.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) taken: Vec<Taken>,
    /// What nodes said to transactions that they did not take.
    pub(crate) refused: Vec<String>,
    /// How far the generator was behind its own schedule at worst, in milliseconds.
    pub(crate) behind_ms_max: f64,
}

impl Outcome {
    fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.taken.extend(part.taken);
            all.refused.extend(part.refused);
            all.behind_ms_max = all.behind_ms_max.max(part.behind_ms_max);
        }
        all
    }

    fn hand_in(&mut self, api: &Api, node: usize, at_us: u64, batch: &[SignedTransaction]) -> Result<()> {
        for answer in api.submit(batch)? {
            if answer.accepted {
                self.taken.push(Taken { id: answer.id, node, at_us });
            } else {
                self.refused.push(answer.fact.unwrap_or_else(|| "no reason given".to_owned()));
            }
        }
        Ok(())
    }
}

/// Signs `count` transactions, valid from height `at` on, and deals them to nodes so that each sender keeps to one.
pub(crate) fn sign(purses: &mut Purses, nodes: usize, count: usize, at: u64) -> Vec<Vec<SignedTransaction>> {
    let mut hands: Vec<Vec<SignedTransaction>> = vec![Vec::new(); nodes];
    for _ in 0..count {
        // An account hands in at one node only, so that its nonces arrive in order.
        let sender = purses.turn();
        hands[sender % nodes].push(purses.next(Height::new(at + VALID_BLOCKS)));
    }
    hands
}

/// Hands every node its transactions at a rate, whatever becomes of them (an open loop).
pub(crate) fn at_rate(
    apis: &[Api],
    hands: Vec<Vec<SignedTransaction>>,
    per_node_and_s: f64,
) -> Result<Outcome> {
    let begun = Instant::now();
    let parts = on_threads(apis, hands, move |api, node, hand| {
        let mut outcome = Outcome::default();
        let (mut sent, mut tick) = (0, 1u32);
        while sent < hand.len() {
            let due = TICK * tick;
            let now = begun.elapsed();
            thread::sleep(due.saturating_sub(now));
            outcome.behind_ms_max =
                outcome.behind_ms_max.max(begun.elapsed().saturating_sub(due).as_secs_f64() * 1e3);
            let until = hand.len().min((due.as_secs_f64() * per_node_and_s) as usize);
            // Counted from when it was due, so that a slow node cannot slow its own measurement down.
            let late = begun.elapsed().saturating_sub(due);
            let at_us = now_us().saturating_sub(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
            for batch in hand[sent.min(until)..until].chunks(BATCH_MAX) {
                outcome.hand_in(&api, node, at_us, batch)?;
            }
            sent = sent.max(until);
            tick += 1;
        }
        Ok(outcome)
    })?;
    Ok(Outcome::join(parts))
}

/// Keeps every node's share of `waiting` transactions in the mempools until `stop` (a closed loop).
pub(crate) fn keep_waiting(
    apis: &[Api],
    hands: Vec<Vec<SignedTransaction>>,
    heard: &Heard,
    waiting: u64,
    stop: &Arc<AtomicBool>,
) -> Result<Outcome> {
    let (heard, stop) = (heard.clone(), Arc::clone(stop));
    let handed = Arc::new(AtomicU64::new(0));
    let before: u64 = heard.transactions(0);
    let parts = on_threads(apis, hands, move |api, node, hand| {
        let mut outcome = Outcome::default();
        let mut batches = hand.chunks(BATCH_MAX);
        while !stop.load(Ordering::Relaxed) {
            let decided = heard.transactions(node).saturating_sub(before);
            if handed.load(Ordering::Relaxed) >= decided + waiting {
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            let Some(batch) = batches.next() else { break };
            handed.fetch_add(batch.len() as u64, Ordering::Relaxed);
            outcome.hand_in(&api, node, now_us(), batch)?;
        }
        Ok(outcome)
    })?;
    Ok(Outcome::join(parts))
}

fn on_threads(
    apis: &[Api],
    hands: Vec<Vec<SignedTransaction>>,
    work: impl Fn(Api, usize, Vec<SignedTransaction>) -> Result<Outcome> + Clone + Send + 'static,
) -> Result<Vec<Outcome>> {
    let threads: Vec<_> = apis
        .iter()
        .cloned()
        .zip(hands)
        .enumerate()
        .map(|(node, (api, hand))| {
            let work = work.clone();
            thread::spawn(move || work(api, node, hand))
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| anyhow!("a thread of the load generator broke"))?)
        .collect()
}

/// Blocks as every node has them, and where each transaction is.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Height by transaction id.
    pub(crate) places: HashMap<String, u64>,
    /// Transactions by height.
    pub(crate) counts: HashMap<u64, usize>,
    /// Blocks that needed more than one round.
    pub(crate) later_rounds: usize,
}

/// Waits until nothing waits any more, then reads every block of `heights` from every node and compares.
pub(crate) fn settle(
    network: &mut Network,
    from: u64,
    outcome: &Outcome,
    report: &mut Report,
) -> Result<Ledger> {
    thread::sleep(STATUS_LAG);
    network.wait_until("nothing waits for a block any more", |network| {
        network.apis.iter().all(|api| api.status().is_ok_and(|status| status.pending_transactions == 0))
    })?;
    let to = network.heights()?.into_iter().max().unwrap_or(0);
    network.wait_until("every node is where the first one was", |network| {
        network.heights().is_ok_and(|heights| heights.iter().all(|height| *height >= to))
    })?;
    ensure!(to >= from, "the chain stands at height {to}, below {from}");
    let mut ledger = Ledger::default();
    let mut differing = 0;
    for height in from..=to {
        let mut first = None;
        for api in &network.apis {
            let block = api.block(height)?;
            match &first {
                None => first = Some(block),
                Some(first) => {
                    let same = first.hash == block.hash
                        && first.state_root == block.state_root
                        && first.transaction_ids == block.transaction_ids;
                    differing += usize::from(!same);
                }
            }
        }
        let Some(block) = first else { continue };
        ledger.later_rounds += usize::from(block.round > 0);
        ledger.counts.insert(height, block.transaction_ids.len());
        for id in block.transaction_ids {
            if ledger.places.insert(id, height).is_some() {
                report
                    .failures
                    .push(format!("a transaction is in two blocks, the second at height {height}"));
            }
        }
    }
    report.must(differing == 0, || format!("{differing} blocks differ between nodes"));
    let lost = outcome.taken.iter().filter(|taken| !ledger.places.contains_key(&taken.id)).count();
    report.must(lost == 0, || {
        format!("{lost} of {} acknowledged transactions are in no block", outcome.taken.len())
    });
    report.must(!outcome.taken.is_empty(), || "no transaction was taken".to_owned());
    report.fact("transactions acknowledged", outcome.taken.len() as f64, "");
    report.fact("of them in no block on some node", lost as f64, "");
    report.fact("transactions refused", outcome.refused.len() as f64, "");
    if let Some(why) = outcome.refused.first() {
        report.note(format!("the first refusal: {why}"));
    }
    report.fact("load generator behind its schedule, at worst", outcome.behind_ms_max, "ms");
    Ok(ledger)
}

/// Returns how long each acknowledged transaction took until its block was durable on the node that took it.
pub(crate) fn waits_ms(
    outcome: &Outcome,
    ledger: &Ledger,
    heard: &[std::collections::BTreeMap<u64, super::api::Decided>],
) -> Vec<f64> {
    outcome
        .taken
        .iter()
        .filter_map(|taken| {
            let height = ledger.places.get(&taken.id)?;
            let decided = heard.get(taken.node)?.get(height)?;
            Some((decided.heard_us as f64 - taken.at_us as f64) / 1e3)
        })
        .collect()
}

/// Returns the largest resident memory of any node, in MB.
pub(crate) fn peak_mb(usage: &[super::network::Usage]) -> f64 {
    usage.iter().map(|usage| usage.peak_mb).fold(0.0, f64::max)
}
