//! How slowly a body may come.

use std::time::Duration;

use tokio::time::Instant;

/// The time that a client has for a body, over either protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// What every body has.
    pub(crate) timeout: Duration,
    /// The bytes that earn one second more.
    pub(crate) min_rate: u64,
}

impl Pace {
    /// Returns when a body is too late that began at `started` and of which `received` bytes are there.
    pub(crate) fn deadline(self, started: Instant, received: u64) -> Instant {
        started + self.timeout + Duration::from_secs(received / self.min_rate.max(1))
    }
}
