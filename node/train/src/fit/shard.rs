//! Gradients of one step, computed shard by shard over any number of worker threads.
//!
//! A step's rows are cut into shards by the caller, never by the number of workers,
//! and gradients are added up in shard order: the same bytes at any worker count.

use crate::kernel::math::add_into;
use crate::model::{Batch, Gradients, Model, ModelError, Pass};

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
    let mut total: Option<Gradients> = None;
    for wave in shards.chunks(workers.max(1)) {
        let results: Vec<_> = match wave {
            [only] => vec![model.gradients(only, pass)],
            several => std::thread::scope(|scope| {
                let run = |shard| scope.spawn(move || model.gradients(shard, pass));
                let handles: Vec<_> = several.iter().map(run).collect();
                let join = |handle: std::thread::ScopedJoinHandle<'_, _>| match handle.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                handles.into_iter().map(join).collect()
            }),
        };
        for result in results {
            let part = result?;
            match &mut total {
                None => total = Some(part),
                Some(total) => {
                    total.losses.extend(part.losses);
                    for (sum, values) in total.values.iter_mut().zip(&part.values) {
                        add_into(sum, values);
                    }
                }
            }
        }
    }
    Ok(total.unwrap_or(Gradients { losses: Vec::new(), values: Vec::new() }))
}
