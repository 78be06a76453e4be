//! What all listeners share.

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use compact_str::CompactString;
use outhaul_monitor::{Monitor, ServerMetrics};
use outhaul_protocol::DecodeLimits;
use outhaul_rollout::experiment::Experiments;
use outhaul_rollout::traffic::Traffic;
use outhaul_router::Router;
use outhaul_types::{Classify, Name, error_chain};

/// How all listeners behave.
#[derive(Clone, Debug, Default)]
pub struct AppConfig {
    /// What one request may ask a decoder to hold.
    pub decode_limits: DecodeLimits,
    /// Whether every request is logged at `info`. Default: no. Costs some microseconds a request.
    pub log_requests: bool,
    /// The header that says who asks. Default: `x-outhaul-caller`.
    pub caller_header: CallerHeader,
}

/// A header's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerHeader(pub http::HeaderName);

impl Default for CallerHeader {
    fn default() -> Self {
        CallerHeader(crate::traffic::CALLER)
    }
}

/// What all listeners share: the router, the metrics, and whether the server is leaving.
pub struct App {
    router: Arc<Router>,
    server_metrics: Arc<ServerMetrics>,
    config: AppConfig,
    draining: AtomicBool,
    ids: RequestIds,
    failures: FailureLog,
    traffic: OnceLock<Arc<Traffic>>,
    experiments: OnceLock<Arc<Experiments>>,
}

impl App {
    /// Makes the shared part of a server.
    pub fn new(router: Arc<Router>, config: AppConfig) -> Arc<Self> {
        Arc::new(App {
            server_metrics: router.monitor().server(),
            router,
            config,
            draining: AtomicBool::new(false),
            ids: RequestIds::default(),
            failures: FailureLog::default(),
            traffic: OnceLock::new(),
            experiments: OnceLock::new(),
        })
    }

    /// Returns the door to the models.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Gives the server what decides its traffic. Only the first call counts.
    pub fn manage(&self, traffic: Arc<Traffic>, experiments: Arc<Experiments>) {
        // Whoever comes second finds the first in charge.
        let _ = (self.traffic.set(traffic), self.experiments.set(experiments));
    }

    /// Returns what decides traffic, where something does.
    pub fn traffic(&self) -> Option<&Arc<Traffic>> {
        self.traffic.get()
    }

    /// Returns what joins outcomes to predictions, where something does.
    pub fn experiments(&self) -> Option<&Arc<Experiments>> {
        self.experiments.get()
    }

    /// Returns the process's metrics.
    pub fn monitor(&self) -> &Monitor {
        self.router.monitor()
    }

    /// Returns the metrics of the listeners.
    pub fn server_metrics(&self) -> &ServerMetrics {
        &self.server_metrics
    }

    /// Returns how all listeners behave.
    pub fn config(&self) -> &AppConfig {
        &self.config
    }

    /// Returns whether traffic may come: the models answer and the server is not leaving.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.router.is_ready()
    }

    /// Makes the server unready from now on. Requests that come all the same are answered.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Returns whether the server is leaving.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Makes an id for a request whose caller gave none.
    pub fn next_request_id(&self) -> Name {
        self.ids.next()
    }

    /// Logs a request that failed through no fault of its caller, with all causes. At most ten lines a
    /// second; the next line tells how many were left out.
    pub fn log_failure(&self, contract: &'static str, request_id: &str, error: &impl Classify) {
        if let Some(left_out) = self.failures.admit(Instant::now()) {
            tracing::error!(
                contract,
                request_id,
                kind = error.kind().as_str(),
                error = error_chain(error),
                left_out,
                "request failed"
            );
        }
    }
}

/// Counts a connection while it is open.
pub(crate) struct OpenConnection(Arc<App>);

impl OpenConnection {
    pub(crate) fn new(app: Arc<App>) -> Self {
        app.server_metrics().connection_opened();
        OpenConnection(app)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.server_metrics().connection_closed();
    }
}

/// Ids that are unique in this process and, by their random start, very likely between processes.
struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        RequestIds { process: RandomState::new().hash_one(()), next: AtomicU64::new(0) }
    }
}

impl RequestIds {
    /// Returns an id that is short enough to need no allocation.
    fn next(&self) -> Name {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = CompactString::const_new("");
        write!(id, "{:010x}-{number:x}", self.process & 0xff_ffff_ffff)
            .expect("writing to a string does not fail");
        id
    }
}

/// Lets ten failures a second into the log.
struct FailureLog {
    started: Instant,
    /// The second that is being counted, in the upper half, and its failures in the lower one.
    window: AtomicU64,
    left_out: AtomicU64,
}

const FAILURES_PER_SECOND: u64 = 10;

impl Default for FailureLog {
    fn default() -> Self {
        FailureLog {
            started: Instant::now(),
            window: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }
}

impl FailureLog {
    /// Returns `None` where this failure is not to be logged, else the number left out before it.
    fn admit(&self, now: Instant) -> Option<u64> {
        let second = now.saturating_duration_since(self.started).as_secs() & u64::from(u32::MAX);
        let count = |window: u64| match window >> 32 == second {
            true => window + 1,
            false => second << 32 | 1,
        };
        let ordering = Ordering::Relaxed;
        // The closure always gives a value, so both arms hold the window before this failure.
        let (Ok(before) | Err(before)) =
            self.window.fetch_update(ordering, ordering, |window| Some(count(window)));
        if count(before) & u64::from(u32::MAX) <= FAILURES_PER_SECOND {
            Some(self.left_out.swap(0, Ordering::Relaxed))
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_differ_and_need_no_allocation() {
        let ids = RequestIds::default();
        let (first, second) = (ids.next(), ids.next());
        assert_ne!(first, second);
        assert!(!first.is_heap_allocated());
        assert_ne!(RequestIds::default().next()[..10], first[..10], "another process");
    }

    #[test]
    fn a_flood_of_failures_is_counted_and_not_logged() {
        let log = FailureLog::default();
        let logged = (0..25).filter(|_| log.admit(log.started).is_some()).count();
        assert_eq!(logged, 10);
        let later = log.started + Duration::from_secs(1);
        assert_eq!(log.admit(later), Some(15));
        assert_eq!(log.admit(later), Some(0));
    }
}
