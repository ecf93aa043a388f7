//! The clocks of this machine. The pure crates are given the time; here is where it is read.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tiltyard_proto::units::UnixMillis;

/// Milliseconds since 1970 by the system's clock; 0 when it stands before.
pub(crate) fn unix() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The system's clock as the machine is shown it: moved by a fixed number of milliseconds, which is 0 outside tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wall {
    offset_ms: i64,
}

impl Wall {
    pub(crate) const fn moved(offset_ms: i64) -> Self {
        Self { offset_ms }
    }

    pub(crate) fn now(&self) -> UnixMillis {
        UnixMillis::new(unix().get().saturating_add_signed(self.offset_ms))
    }
}

/// Counts milliseconds since it was started; never goes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Monotonic(Instant);

impl Monotonic {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the instant `ms` milliseconds after the start.
    pub(crate) fn at(&self, ms: u64) -> Instant {
        self.0 + std::time::Duration::from_millis(ms)
    }
}
