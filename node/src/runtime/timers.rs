//! Timers of the machine: a heap of due times; setting one again replaces it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use tiltyard_machine::io::TimerId;

/// Times are milliseconds of the node's monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(u64, TimerId)>>,
    due: BTreeMap<TimerId, u64>,
}

impl Timers {
    pub(super) fn set(&mut self, id: TimerId, at_ms: u64) {
        self.due.insert(id, at_ms);
        self.heap.push(Reverse((at_ms, id)));
    }

    pub(super) fn cancel(&mut self, id: TimerId) {
        self.due.remove(&id);
    }

    /// Returns when the next timer is due.
    pub(super) fn next_ms(&mut self) -> Option<u64> {
        self.drop_replaced();
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one timer that is due.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<TimerId> {
        self.drop_replaced();
        let Reverse((at, id)) = *self.heap.peek()?;
        if at > now_ms {
            return None;
        }
        self.heap.pop();
        self.due.remove(&id);
        Some(id)
    }

    /// Forgets heap entries whose timer was cancelled or set anew.
    fn drop_replaced(&mut self) {
        while let Some(Reverse((at, id))) = self.heap.peek() {
            if self.due.get(id) == Some(at) {
                return;
            }
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_and_cancelled_timers_do_not_fire() {
        let mut timers = Timers::default();
        timers.set(TimerId(1), 10);
        timers.set(TimerId(2), 20);
        timers.set(TimerId(3), 5);
        timers.set(TimerId(1), 30);
        timers.cancel(TimerId(3));
        assert_eq!(timers.next_ms(), Some(20));
        assert_eq!(timers.take_due(15), None);
        assert_eq!(timers.take_due(25), Some(TimerId(2)));
        assert_eq!(timers.take_due(25), None);
        assert_eq!(timers.take_due(30), Some(TimerId(1)));
        assert_eq!(timers.next_ms(), None);
    }
}
