//! A circuit for each destination that has a fallback or is elsewhere: after many failures it is left in
//! peace for a while, and its requests go on at once.
//!
//! [`Circuit`] is a pure state machine; `now` is passed in. [`Breaker`] holds one behind a lock that is held for
//! some nanoseconds, and [`Circuits`] finds the breaker of a destination.
//!
//! What counts as a failure: no answer, an error that is not the caller's, a missed deadline. What does
//! not count at all: a caller's mistake, a request that its caller gave up, and a full queue, which turns requests
//! away by itself and at no cost; to leave its destination in peace would take away what it can do.
//!
//! Invariant: while a circuit is open nobody passes, and of those who come afterwards one at a time, until
//! one of them has fared well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use outhaul_monitor::Monitor;
use outhaul_monitor::traffic::{FallbackMetrics, is_callers};
use outhaul_types::{Destination, ErrorKind};

/// Seconds that are looked back on.
const WINDOW: u64 = 10;

/// Fewer requests than these in the window prove nothing.
const FEWEST: u64 = 20;

/// How long it stays open the first time, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The time that a destination must have had for a missed deadline to be held against it.
const A_CHANCE: Duration = Duration::from_millis(100);

/// What a circuit says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may pass. The number is given back with its outcome.
    Pass(u64),
    /// It may not.
    Refused,
}

/// How a request that passed has fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fared {
    Well,
    Badly,
    /// It says nothing of the destination.
    Neither,
}

impl Fared {
    /// Tells how a request has fared that took so long. One that came too late counts only where it had
    /// [`A_CHANCE`]: no caller is to open the circuit of all others by giving no time.
    pub(crate) fn of(outcome: Result<(), ErrorKind>, took: Duration) -> Self {
        match outcome {
            Ok(()) => Fared::Well,
            Err(ErrorKind::Overloaded) => Fared::Neither,
            Err(ErrorKind::DeadlineExceeded) if took < A_CHANCE => Fared::Neither,
            Err(kind) if is_callers(kind) => Fared::Neither,
            Err(_) => Fared::Badly,
        }
    }
}

/// Whether requests pass.
#[derive(Debug)]
pub(crate) struct Circuit {
    state: State,
    /// Goes up with each change of state: what was let in before one says nothing after it.
    epoch: u64,
    /// What seconds are counted from.
    origin: Instant,
}

#[derive(Debug)]
enum State {
    /// All pass. Becomes `Open` when more than half of enough requests failed.
    Closed(Box<Window>),
    /// Nobody passes. Becomes `HalfOpen` with the first request after `until`.
    Open { until: Instant, pause: Duration },
    /// One passes at a time. Becomes `Closed` when it fares well, `Open` for twice as long when it does not.
    HalfOpen { is_probed: bool, pause: Duration },
}

impl Circuit {
    pub(crate) fn new(now: Instant) -> Self {
        Circuit { state: State::Closed(Box::default()), epoch: 0, origin: now }
    }

    /// Asks whether a request may pass. One that passed must end with [`Circuit::ended`].
    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        match &mut self.state {
            State::Closed(_) => Admission::Pass(self.epoch),
            State::Open { until, .. } if now < *until => Admission::Refused,
            State::Open { pause, .. } => {
                let pause = *pause;
                self.become_state(State::HalfOpen { is_probed: true, pause });
                Admission::Pass(self.epoch)
            }
            State::HalfOpen { is_probed: true, .. } => Admission::Refused,
            State::HalfOpen { is_probed, .. } => {
                *is_probed = true;
                Admission::Pass(self.epoch)
            }
        }
    }

    /// Takes in how a request fared that passed with this number.
    pub(crate) fn ended(&mut self, passed: u64, fared: Fared, now: Instant) {
        if passed != self.epoch {
            return;
        }
        let second = now.saturating_duration_since(self.origin).as_secs();
        match (&mut self.state, fared) {
            (State::Closed(window), Fared::Well | Fared::Badly) => {
                window.add(second, fared == Fared::Badly);
                if window.is_bad(second) {
                    self.open(FIRST_PAUSE, now);
                }
            }
            (State::Closed(_), Fared::Neither) | (State::Open { .. }, _) => {}
            (State::HalfOpen { .. }, Fared::Well) => {
                self.become_state(State::Closed(Box::default()));
            }
            (State::HalfOpen { pause, .. }, Fared::Badly) => {
                let longer = (*pause * 2).min(LONGEST_PAUSE);
                self.open(longer, now);
            }
            // The next one tries.
            (State::HalfOpen { is_probed, .. }, Fared::Neither) => *is_probed = false,
        }
    }

    /// Returns whether all pass.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    fn open(&mut self, pause: Duration, now: Instant) {
        self.become_state(State::Open { until: now + pause, pause });
    }

    fn become_state(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

/// What ended in each of the last seconds.
#[derive(Debug, Default)]
struct Window([Second; WINDOW as usize]);

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    ended: u64,
    failed: u64,
}

impl Window {
    fn add(&mut self, number: u64, failed: bool) {
        let second = &mut self.0[(number % WINDOW) as usize];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second.ended += 1;
        second.failed += u64::from(failed);
    }

    fn is_bad(&self, now: u64) -> bool {
        let recent = self.0.iter().filter(|second| second.number + WINDOW > now);
        let (ended, failed) = recent
            .fold((0, 0), |(ended, failed), second| (ended + second.ended, failed + second.failed));
        ended >= FEWEST && failed * 2 > ended
    }
}

/// The time that circuits and fallbacks go by: the clock that Tokio's timers go by, which tests can hold.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The circuit of one destination, for all threads.
#[derive(Debug)]
pub(crate) struct Breaker {
    circuit: Mutex<Circuit>,
    fallback: OnceLock<Arc<FallbackMetrics>>,
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Breaker { circuit: Mutex::new(Circuit::new(now())), fallback: OnceLock::new() }
    }

    /// Lets a request pass, where the circuit does.
    pub(crate) fn pass(self: &Arc<Self>) -> Option<Passed> {
        match self.with(|circuit| circuit.admit(now())) {
            Admission::Pass(number) => Some(Passed { breaker: Some(Arc::clone(self)), number }),
            Admission::Refused => None,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.with(|circuit| circuit.is_closed())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Circuit) -> T) -> T {
        // No step of the state machine can end halfway.
        act(&mut self.circuit.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A request that passed a circuit. Dropping it says that it was given up.
#[must_use]
pub(crate) struct Passed {
    breaker: Option<Arc<Breaker>>,
    number: u64,
}

impl Passed {
    pub(crate) fn ended(mut self, fared: Fared) {
        if let Some(breaker) = self.breaker.take() {
            breaker.with(|circuit| circuit.ended(self.number, fared, now()));
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.take() {
            breaker.with(|circuit| circuit.ended(self.number, Fared::Neither, now()));
        }
    }
}

/// As many as are kept before those that nobody needs are forgotten.
const MANY: usize = 1024;

/// The breakers of all destinations that have a fallback.
#[derive(Debug, Default)]
pub(crate) struct Circuits(RwLock<HashMap<Destination, Arc<Breaker>>>);

impl Circuits {
    /// Returns the breaker of a destination. Callers must not be able to make destinations up.
    pub(crate) fn of(&self, destination: &Destination) -> Arc<Breaker> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(breaker) = known.get(destination) {
            return Arc::clone(breaker);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MANY {
            known.retain(|_, breaker| Arc::strong_count(breaker) > 1 || !breaker.is_closed());
        }
        let breaker = known.entry(destination.clone());
        Arc::clone(breaker.or_insert_with(|| Arc::new(Breaker::new())))
    }
}

impl Breaker {
    /// Returns where it is counted that requests to `destination`, which this is the breaker of, went on.
    pub(crate) fn fallback(
        &self,
        destination: &Destination,
        monitor: &Monitor,
    ) -> &FallbackMetrics {
        self.fallback.get_or_init(|| monitor.traffic().fallback(&destination.to_string()))
    }
}

#[cfg(test)]
mod tests;
