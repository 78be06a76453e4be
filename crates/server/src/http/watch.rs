//! The time limits of connections.
//!
//! One task looks at all connections a few times per limit and decides for each by [`decide`], which
//! is pure. A request therefore costs two additions to atomics here and no timer, and a connection
//! may stay up to a quarter longer than its limit says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::Version;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::HttpConfig;

/// How long a closing connection may go on reading what nobody wants, so that its client gets to
/// read the answer.
const LINGER: Duration = Duration::from_secs(2);

/// The most bytes of a write that holds only frames such as pings and acknowledgements.
const SIGN_OF_LIFE: usize = 64;

/// What a connection does, told by itself.
#[derive(Default)]
pub(super) struct Activity {
    in_flight: AtomicUsize,
    /// Grows with every request and every write.
    progress: AtomicU64,
    /// Whether bytes came that are no whole head yet.
    head_begun: AtomicBool,
    multiplexed: AtomicBool,
    unread: AtomicBool,
    closing: AtomicBool,
    order: AtomicU8,
    waker: AtomicWaker,
}

/// What a connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub(super) enum Order {
    Stay,
    /// Finish what is in flight, then close.
    Finish,
    /// Close at once.
    Drop,
}

/// A request in flight.
pub(super) struct InFlight<'a>(&'a Activity);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// Notes that the head of a request has been read.
    pub(super) fn begin(&self, version: Version) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.multiplexed.store(true, Ordering::Relaxed);
        }
        InFlight(self)
    }

    /// Notes that bytes came.
    pub(super) fn received(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            self.head_begun.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that `bytes` went. A few over HTTP/2 may be an answer to a ping, which is no progress.
    pub(super) fn sent(&self, bytes: usize) {
        if bytes > SIGN_OF_LIFE || !self.multiplexed.load(Ordering::Relaxed) {
            self.progress.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a request was answered before its body was read.
    pub(super) fn left_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Notes that the connection is being closed, and returns whether it should go on reading, since
    /// its client may still be sending.
    pub(super) fn close(&self) -> bool {
        self.closing.store(true, Ordering::Relaxed);
        self.unread.load(Ordering::Relaxed)
    }

    /// Returns what to do. `waker` is woken when that changes.
    pub(super) fn order(&self, waker: &Waker) -> Order {
        // Registering is cheap while the waker stays the same, as it does for a task.
        self.waker.register(waker);
        match self.order.load(Ordering::Acquire) {
            0 => Order::Stay,
            1 => Order::Finish,
            _ => Order::Drop,
        }
    }

    fn give(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::Release) < order as u8 {
            self.waker.wake();
        }
    }

    fn observe(&self) -> Observed {
        Observed {
            progress: self.progress.load(Ordering::Relaxed),
            busy: self.in_flight.load(Ordering::Relaxed) > 0,
            head_begun: self.head_begun.load(Ordering::Relaxed)
                && !self.multiplexed.load(Ordering::Relaxed),
            closing: self.closing.load(Ordering::Relaxed),
        }
    }
}

/// What a connection did, at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Observed {
    progress: u64,
    busy: bool,
    head_begun: bool,
    closing: bool,
}

/// Decides on a connection that has looked like `now_seen` since `since`; `last_seen` is how it looked
/// the last time. Returns since when it looks like this and what it is to do.
fn decide(
    last_seen: (Observed, Instant),
    now_seen: Observed,
    now: Instant,
    config: &HttpConfig,
) -> (Instant, Order) {
    let (before, since) = last_seen;
    if now_seen.busy || now_seen != before {
        return (now, Order::Stay);
    }
    let waited = now.saturating_duration_since(since);
    let order = match now_seen {
        Observed { closing: true, .. } if waited >= LINGER => Order::Drop,
        Observed { closing: true, .. } => Order::Stay,
        Observed { head_begun: true, .. } if waited >= config.head_timeout => Order::Drop,
        Observed { head_begun: true, .. } => Order::Stay,
        // One that does not even take a goodbye is dropped at the next look.
        _ if waited >= config.idle_timeout + period(config) => Order::Drop,
        _ if waited >= config.idle_timeout => Order::Finish,
        _ => Order::Stay,
    };
    (since, order)
}

/// How often connections are looked at.
fn period(config: &HttpConfig) -> Duration {
    let shortest = config.head_timeout.min(config.idle_timeout).min(LINGER);
    (shortest / 4).max(Duration::from_millis(1))
}

/// All connections of a listener.
#[derive(Default)]
pub(super) struct Watch {
    next: AtomicU64,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    open: HashMap<u64, (Arc<Activity>, (Observed, Instant))>,
    /// What newcomers are to do too, once the listener is leaving.
    order: Option<Order>,
}

/// A connection that is being watched, until this is dropped.
pub(super) struct Watched {
    watch: Arc<Watch>,
    key: u64,
    pub(super) activity: Arc<Activity>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.lock().open.remove(&self.key);
    }
}

impl Watch {
    /// Begins to watch a connection.
    pub(super) fn watch(self: &Arc<Self>) -> Watched {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let activity = Arc::new(Activity::default());
        let seen = (Observed::default(), Instant::now());
        let mut connections = self.lock();
        connections.open.insert(key, (Arc::clone(&activity), seen));
        if let Some(order) = connections.order {
            activity.give(order);
        }
        drop(connections);
        Watched { watch: Arc::clone(self), key, activity }
    }

    /// Gives an order to all connections, those that are still to come too.
    pub(super) fn order_all(&self, order: Order) {
        let mut connections = self.lock();
        connections.order = Some(order);
        for (activity, _) in connections.open.values() {
            activity.give(order);
        }
    }

    /// Looks at all connections again and again, for as long as it is polled.
    pub(super) async fn run(&self, config: &HttpConfig) {
        let mut ticks = interval(period(config));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            for (activity, seen) in self.lock().open.values_mut() {
                let observed = activity.observe();
                let (since, order) = decide(*seen, observed, now, config);
                *seen = (observed, since);
                activity.give(order);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_judged_by_what_it_does() {
        let idle = Observed { progress: 3, ..Observed::default() };
        let busy = Observed { busy: true, ..idle };
        let head = Observed { head_begun: true, ..idle };
        let closing = Observed { closing: true, ..idle };
        let moved = Observed { progress: 4, ..idle };
        let config = HttpConfig::default();
        let start = Instant::now();
        for (name, before, after, seconds, expected, restarts) in [
            ("fresh", idle, idle, 1, Order::Stay, false),
            ("idle", idle, idle, 75, Order::Finish, false),
            ("idle and deaf", idle, idle, 76, Order::Drop, false),
            ("writing", idle, moved, 75, Order::Stay, true),
            ("busy for long", busy, busy, 10_000, Order::Stay, true),
            ("head has just begun", idle, head, 74, Order::Stay, true),
            ("head", head, head, 9, Order::Stay, false),
            ("slow head", head, head, 10, Order::Drop, false),
            ("head came", head, busy, 10, Order::Stay, true),
            ("closing", closing, closing, 1, Order::Stay, false),
            ("closing for long", closing, closing, 2, Order::Drop, false),
        ] {
            let now = start + Duration::from_secs(seconds);
            let (since, order) = decide((before, start), after, now, &config);
            assert_eq!((order, since == now), (expected, restarts), "{name}");
        }
    }

    #[test]
    fn signs_of_life_are_no_progress_over_http_2() {
        for (version, bytes, progresses) in [
            (Version::HTTP_11, 17, true),
            (Version::HTTP_2, 17, false),
            (Version::HTTP_2, 1_000, true),
        ] {
            let activity = Activity::default();
            drop(activity.begin(version));
            let before = activity.observe();
            activity.sent(bytes);
            assert_eq!(activity.observe() != before, progresses, "{bytes} bytes over {version:?}");
        }
    }

    #[test]
    fn an_order_is_never_taken_back_and_reaches_newcomers() {
        let watch = Arc::new(Watch::default());
        let early = watch.watch();
        watch.order_all(Order::Finish);
        let late = watch.watch();
        for watched in [&early, &late] {
            assert_eq!(watched.activity.order(Waker::noop()), Order::Finish);
            watched.activity.give(Order::Stay);
            assert_eq!(watched.activity.order(Waker::noop()), Order::Finish);
        }
        drop((early, late));
        assert!(watch.lock().open.is_empty());
    }
}
