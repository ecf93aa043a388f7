//! Reused memory for activations.
//!
//! A training step needs the same hundreds of megabytes again and again; handed back to
//! the system, every page would be faulted in and zeroed anew each time. Buffers go to a
//! common pool when dropped and come back, by length, with whatever they held.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shorter buffers are left to the allocator, in elements.
const POOLED_MIN: usize = 16 << 10;

/// Free buffers, and how much there is, in elements.
struct Pool {
    free: BTreeMap<usize, Vec<Vec<f32>>>,
    free_total: usize,
    in_use: usize,
    /// The most that was ever in use.
    peak: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), free_total: 0, in_use: 0, peak: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn pop(&mut self, capacity: usize) -> Option<Vec<f32>> {
        let list = self.free.get_mut(&capacity)?;
        let found = list.pop();
        if list.is_empty() {
            self.free.remove(&capacity);
        }
        self.free_total -= capacity;
        found
    }

    /// Takes the smallest free buffer of `len` to twice as many elements; `None` when there
    /// is none, after freeing others so that the pool holds an eighth above its peak at most.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        let fit = self.free.range(len..=2 * len).next().map(|(&capacity, _)| capacity);
        let found = fit.and_then(|capacity| self.pop(capacity));
        self.in_use += found.as_ref().map_or(len, Vec::len);
        self.peak = self.peak.max(self.in_use);
        while self.in_use + self.free_total > self.peak + self.peak / 8 {
            let Some((&largest, _)) = self.free.last_key_value() else { break };
            self.pop(largest);
        }
        found
    }

    fn give(&mut self, values: Vec<f32>) {
        self.in_use -= values.len();
        self.free_total += values.len();
        self.free.entry(values.len()).or_default().push(values);
    }
}

/// A slice of the pool's memory.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// At least `len` elements.
    values: Vec<f32>,
    len: usize,
}

impl Buffer {
    /// Takes `len` elements of any value: the caller overwrites them all.
    pub(crate) fn any(len: usize) -> Self {
        let found = if len < POOLED_MIN { None } else { pool().take(len) };
        Self { values: found.unwrap_or_else(|| vec![0.0; len]), len }
    }

    /// Takes `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut buffer = Self::any(len);
        buffer.fill(0.0);
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len >= POOLED_MIN {
            pool().give(std::mem::take(&mut self.values));
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_buffer_comes_back_and_the_pool_stays_near_its_peak() {
        let mut pool = Pool { free: BTreeMap::new(), free_total: 0, in_use: 0, peak: 0 };
        let take = |pool: &mut Pool, len: usize| pool.take(len).unwrap_or_else(|| vec![0.0; len]);
        let (first, second) = (take(&mut pool, 1_000), take(&mut pool, 900));
        let place = first.as_ptr();
        pool.give(first);
        let again = take(&mut pool, 800);
        assert_eq!((again.as_ptr(), again.len()), (place, 1_000));
        pool.give(again);
        pool.give(second);
        for len in 1..2_000 {
            let buffer = take(&mut pool, len);
            pool.give(buffer);
            assert!(pool.in_use == 0 && pool.free_total <= 2_000 + 250, "{} free", pool.free_total);
        }
    }

    #[test]
    fn zeros_are_zeros_whatever_was_there() {
        let len = POOLED_MIN + 7;
        Buffer::any(len).fill(3.0);
        assert!(Buffer::zeros(len).iter().all(|&v| v == 0.0));
        assert_eq!(Buffer::any(len).len(), len);
    }
}
