//! Whether a core is free for a copy.
//!
//! Requests come in bursts: a client that sends one after the other leaves a gap after each answer, in which a core
//! looks free and is not. So what counts is not how many requests are being answered now but the most that were at
//! once lately, in this window of 50 ms and the one before. A copy runs where that many requests, the copies that
//! run and the copy itself have a core each. On a machine of one core that is so only after a moment of quiet.
//!
//! Other processes, and threads of this one that answer no request, are seen in the machine's run queue, which
//! is read at most once a window: where more threads can run than the machine has processors, twice in a row, no
//! core is free. Once says little, since a client and its server swap places all the time.
//!
//! Not seen: a quota of processor time that is used up although cores idle, and work that comes while a copy runs.
//! Copies are not stopped once they run, so that lasts no longer than one of them.
//!
//! On a machine that is never idle a copy runs now and then all the same, one at a time and so seldom that copies
//! take at most a hundredth of one core: a roll-out that waits for answers to be compared must not wait for ever.
//!
//! The data plane pays for this only where a route has a shadow: two additions to one counter for each request.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the most requests at once are remembered at least, and how seldom the run queue is read.
const WINDOW: Duration = Duration::from_millis(50);

/// The machine, as copies see it: what they may not take from requests.
pub struct Machine {
    cores: NonZeroUsize,
    processors: usize,
    runnable: Box<dyn Fn() -> Option<usize> + Send + Sync>,
}

impl Machine {
    /// Returns the machine that this process runs on. Cores are those that the process may use, by affinity and
    /// control group; the run queue is read on Linux.
    pub fn this() -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online");
        let processors = online.ok().and_then(|list| list_length(&list)).unwrap_or(cores.get());
        let runnable = || runnable(&std::fs::read_to_string("/proc/loadavg").ok()?);
        Machine { cores, processors, runnable: Box::new(runnable) }
    }

    /// Returns a machine with so many cores and nothing on it but this process's requests and copies.
    pub fn alone(cores: NonZeroUsize) -> Self {
        Machine { cores, processors: cores.get(), runnable: Box::new(|| None) }
    }
}

/// The threads that can run now, the reader among them: in `0.62 0.79 0.62 3/150 24246` there are 3.
fn runnable(loadavg: &str) -> Option<usize> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.0.parse().ok()
}

/// The length of a list such as `0-3,8`.
fn list_length(list: &str) -> Option<usize> {
    let length = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then(|| last - first + 1)
    };
    list.trim().split(',').map(length).sum()
}

/// How the cores are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// The cores that this process may use.
    pub(super) cores: usize,
    /// The most requests at once, lately.
    pub(super) requests: usize,
    /// The threads that each of them computes on.
    pub(super) threads: usize,
    /// The cores that copies take which run now.
    pub(super) copies: usize,
    /// Threads that can run, in the whole machine, where that is known.
    pub(super) runnable: Option<usize>,
    /// The processors of the whole machine.
    pub(super) processors: usize,
}

/// Decides whether a copy that takes `needed` cores may run.
pub(super) fn admit(load: &Load, needed: usize) -> bool {
    let taken = load.requests.saturating_mul(load.threads).saturating_add(load.copies);
    let fits = taken.saturating_add(needed) <= load.cores;
    fits && load.runnable.is_none_or(|runnable| runnable <= load.processors)
}

/// The shortest time between two copies that run although no core is free.
const TRICKLE: Duration = Duration::from_millis(100);

/// How much longer than a copy takes none runs after it, where no core is free.
const TRICKLE_SHARE: u32 = 100;

/// Decides whether a copy may run although no core is free, `since_last` after the last one began.
pub(super) fn trickles(since_last: Option<Duration>, last_copy: Duration) -> bool {
    let pause = TRICKLE.max(last_copy.saturating_mul(TRICKLE_SHARE));
    since_last.is_none_or(|since| since >= pause)
}

/// Counts the requests that are being answered.
#[derive(Default)]
pub(super) struct Gauge {
    /// Whether anybody wants to know.
    is_on: AtomicBool,
    answering: AtomicUsize,
    /// The most at once since it was last taken.
    most: AtomicUsize,
}

/// A request that is being answered; dropping it ends that.
pub(crate) struct Answering<'a>(&'a AtomicUsize);

impl Gauge {
    /// Starts or ends counting. What is being answered at that moment is left out.
    pub(super) fn turn(&self, on: bool) {
        self.is_on.store(on, Ordering::Relaxed);
    }

    /// Counts a request, if anybody wants to know.
    pub(super) fn enter(&self) -> Option<Answering<'_>> {
        if !self.is_on.load(Ordering::Relaxed) {
            return None;
        }
        let now = self.answering.fetch_add(1, Ordering::Relaxed) + 1;
        if now > self.most.load(Ordering::Relaxed) {
            self.most.fetch_max(now, Ordering::Relaxed);
        }
        Some(Answering(&self.answering))
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is remembered of the last windows.
pub(super) struct Watch {
    machine: Machine,
    /// When the window began.
    since: Option<Instant>,
    /// The most requests at once in the window before.
    before: usize,
    /// The last readings of the run queue, the newest first.
    runnable: [Option<usize>; 2],
    /// When the last copy began.
    last_copy: Option<Instant>,
}

impl Watch {
    pub(super) fn new(machine: Machine) -> Self {
        Watch { machine, since: None, before: 0, runnable: [None; 2], last_copy: None }
    }

    /// Returns how long ago the last copy began.
    pub(super) fn since_last(&self, now: Instant) -> Option<Duration> {
        self.last_copy.map(|last| now.saturating_duration_since(last))
    }

    /// Notes that a copy begins.
    pub(super) fn began(&mut self, now: Instant) {
        self.last_copy = Some(now);
    }

    /// Looks, and returns how the cores are taken; the callers' own knowledge is left to them.
    pub(super) fn look(&mut self, gauge: &Gauge, now: Instant) -> Load {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            let answering = gauge.answering.load(Ordering::Relaxed);
            self.before = gauge.most.swap(answering, Ordering::Relaxed);
            self.runnable = [(self.machine.runnable)(), self.runnable[0]];
            self.since = Some(now);
        }
        Load {
            cores: self.machine.cores.get(),
            requests: self.before.max(gauge.most.load(Ordering::Relaxed)),
            threads: 1,
            copies: 0,
            runnable: self.runnable.into_iter().flatten().min(),
            processors: self.machine.processors,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn copies_trickle_where_no_core_is_ever_free() {
        let ms = Duration::from_millis;
        for (since_last, last_copy, expected) in [
            (None, ms(0), true),
            (Some(ms(99)), ms(0), false),
            (Some(ms(100)), ms(1), true),
            (Some(ms(499)), ms(5), false),
            (Some(ms(500)), ms(5), true),
            (Some(Duration::MAX), Duration::MAX, true),
        ] {
            assert_eq!(trickles(since_last, last_copy), expected, "{since_last:?} {last_copy:?}");
        }
    }

    #[test]
    fn a_copy_needs_a_core_that_nobody_else_needs() {
        let idle =
            Load { cores: 2, requests: 0, threads: 1, copies: 0, runnable: Some(1), processors: 2 };
        let cases = [
            ("nothing is going on", idle, 1, true),
            ("one client", Load { requests: 1, ..idle }, 1, true),
            ("as many clients as cores", Load { requests: 2, ..idle }, 1, false),
            ("a copy runs", Load { requests: 1, copies: 1, ..idle }, 1, false),
            ("only copies", Load { copies: 1, ..idle }, 1, true),
            ("a request takes both cores", Load { requests: 1, threads: 2, ..idle }, 1, false),
            ("the copy takes both cores", Load { requests: 1, ..idle }, 2, false),
            ("one core, a client", Load { cores: 1, requests: 1, ..idle }, 1, false),
            ("one core, quiet", Load { cores: 1, ..idle }, 1, true),
            ("a copy elsewhere", Load { cores: 1, requests: 1, ..idle }, 0, true),
            ("others fill the machine", Load { runnable: Some(3), ..idle }, 1, false),
            ("others leave room", Load { runnable: Some(2), ..idle }, 1, true),
            ("others are not known", Load { runnable: None, ..idle }, 1, true),
            (
                "a machine larger than our part of it",
                Load { runnable: Some(40), processors: 64, ..idle },
                1,
                true,
            ),
            (
                "more than can be counted",
                Load { requests: usize::MAX, threads: 2, ..idle },
                1,
                false,
            ),
        ];
        for (what, load, needed, expected) in cases {
            assert_eq!(admit(&load, needed), expected, "{what}");
        }
    }

    #[test]
    fn the_busiest_moment_is_remembered_for_two_windows() {
        let gauge = Gauge::default();
        let mut watch = Watch::new(Machine::alone(NonZeroUsize::MIN));
        assert!(gauge.enter().is_none(), "nobody wants to know");
        gauge.turn(true);
        let start = Instant::now();
        let mut requests = |after: u32| watch.look(&gauge, start + WINDOW * after / 2).requests;
        assert_eq!(requests(0), 0);
        drop((gauge.enter(), gauge.enter()));
        let third = gauge.enter();
        assert_eq!(requests(1), 2, "in this window");
        assert_eq!(requests(2), 2, "in the one before");
        assert_eq!(requests(4), 1, "what goes on is seen, what ended is forgotten");
        drop(third);
        assert_eq!(requests(5), 1, "it ended in this window");
        assert_eq!(requests(6), 1, "it ended in the one before");
        assert_eq!(requests(8), 0);
    }

    #[test]
    fn the_run_queue_is_read_once_a_window() {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reads);
        let machine = Machine {
            runnable: Box::new(move || Some(counted.fetch_add(1, Ordering::Relaxed))),
            ..Machine::alone(NonZeroUsize::MIN)
        };
        let (gauge, mut watch) = (Gauge::default(), Watch::new(machine));
        let start = Instant::now();
        let mut seen = |after: Duration| watch.look(&gauge, start + after).runnable;
        assert_eq!(seen(Duration::ZERO), Some(0));
        assert_eq!(seen(WINDOW - Duration::from_nanos(1)), Some(0));
        assert_eq!(seen(WINDOW), Some(0), "the smaller of two");
        assert_eq!(seen(2 * WINDOW), Some(1));
        assert_eq!(reads.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn the_systems_files_are_understood() {
        assert_eq!(runnable("0.62 0.79 0.62 3/150 24246\n"), Some(3));
        assert_eq!(runnable(""), None);
        for (list, expected) in [
            ("0-1\n", Some(2)),
            ("0", Some(1)),
            ("0-3,8,10-11", Some(7)),
            ("", None),
            ("3-1", None),
        ] {
            assert_eq!(list_length(list), expected, "{list}");
        }
    }
}
