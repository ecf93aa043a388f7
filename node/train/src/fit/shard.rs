//! Gradients of one step, computed shard by shard over any number of worker threads.
//!
//! A step's rows are cut into shards by the caller, never by the number of workers.
//! Workers take the next shard each; gradients are added up in shard order, first to
//! last, whoever made them: the same bytes at any worker count. At most one finished
//! shard a worker waits for its turn, so memory does not grow with the shards. All
//! workers read the same weights.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::kernel::math::add_into;
use crate::model::{Batch, Gradients, Model, ModelError, Pass};

/// What the workers share.
struct Sum {
    /// The next shard that nobody took.
    next: usize,
    /// Shards added so far.
    added: usize,
    total: Option<Gradients>,
    failed: Option<ModelError>,
    /// A worker is gone; nobody waits any more.
    over: bool,
}

/// Wakes the others when a worker panics, so that nobody waits for its turn for ever.
struct Leaving<'a>(&'a Mutex<Sum>, &'a Condvar);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).over = true;
            self.1.notify_all();
        }
    }
}

/// Computes the summed gradients of all shards, and every loss in shard order.
///
/// # Errors
/// The error of the first shard, in order, that has one.
///
/// # Panics
/// When a worker panicked: a bug, passed on.
pub fn gradients(
    model: &Model,
    shards: &[Batch],
    pass: Pass,
    workers: usize,
) -> Result<Gradients, ModelError> {
    let sum = Mutex::new(Sum { next: 0, added: 0, total: None, failed: None, over: false });
    let turn = Condvar::new();
    let lock = || sum.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        let _leaving = Leaving(&sum, &turn);
        loop {
            let at = {
                let mut sum = lock();
                let at = sum.next;
                if at >= shards.len() || sum.failed.is_some() || sum.over {
                    return;
                }
                sum.next += 1;
                at
            };
            let part = model.gradients(&shards[at], pass);
            let mut sum = lock();
            while sum.added < at && sum.failed.is_none() && !sum.over {
                sum = turn.wait(sum).unwrap_or_else(PoisonError::into_inner);
            }
            if sum.failed.is_none() && !sum.over {
                match part {
                    Ok(part) => add(&mut sum.total, part),
                    Err(error) => sum.failed = Some(error),
                }
                sum.added += 1;
            }
            turn.notify_all();
        }
    };
    match workers.clamp(1, shards.len().max(1)) {
        1 => work(),
        workers => std::thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            for handle in handles {
                if let Err(panic) = handle.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        }),
    }
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    match sum.failed {
        Some(error) => Err(error),
        None => Ok(sum.total.unwrap_or_default()),
    }
}

fn add(total: &mut Option<Gradients>, part: Gradients) {
    match total {
        None => *total = Some(part),
        Some(total) => {
            total.losses.extend(part.losses);
            total.weights.extend(part.weights);
            for (sum, values) in total.values.iter_mut().zip(&part.values) {
                add_into(sum, values);
            }
        }
    }
}
