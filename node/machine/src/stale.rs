//! The alarm of a node that has heard of no new block for too long: cut off, eclipsed, or in a network that stands still.
//!
//! Certificates make every lie about blocks detectable; silence is not a lie, so it is told instead. The alarm changes
//! nothing: the node goes on asking every peer it has, and the first new block ends it.

use tiltyard_ledger::StateRead;

use crate::event::Event;
use crate::machine::Machine;

/// How long without a block is too long, in milliseconds, where blocks come faster than one in two seconds.
const STALE_MS: u64 = 20_000;
/// How many blocks must be missing, where they come slower.
const STALE_BLOCKS: u64 = 10;

/// Whether the alarm is on.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    is_on: bool,
}

impl Alarm {
    pub(crate) const fn is_on(&self) -> bool {
        self.is_on
    }
}

impl<S: StateRead> Machine<S> {
    /// Looks at how long ago the last block came; called on every sync timer.
    pub(crate) fn watch_for_silence(&mut self) {
        let interval_ms = u64::from(self.chain.tip.params.block_interval_ms);
        let allowed_ms = interval_ms.saturating_mul(STALE_BLOCKS).max(STALE_MS);
        let silent_ms = self.now.mono_ms.saturating_sub(self.sync.progressed_ms());
        let (height, peers) = (self.chain.tip.height, self.sync.peer_count());
        if silent_ms > allowed_ms && !self.alarm.is_on {
            self.alarm.is_on = true;
            self.notify(Event::Stale { height, silent_ms, peers });
        } else if silent_ms <= allowed_ms && self.alarm.is_on {
            self.alarm.is_on = false;
            self.notify(Event::Fresh { height });
        }
    }
}
