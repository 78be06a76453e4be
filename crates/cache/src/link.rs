//! Whether Redis can be called: a connection, or the time to look for one again.
//!
//! ```text
//! Down { again } --a call, once `again` has come--> Connecting --reached--> Up
//!       ^                                               |                    |
//!       +-----------------not reached-------------------+                    |
//!       +------the connection broke, or three calls in a row failed----------+
//! ```
//!
//! Whoever looks may be dropped with its runtime, so `Connecting` ends by itself after a time.
//!
//! Invariant: nobody waits for a connection. Whoever finds none goes on without; one at a time looks for it
//! beside the requests.

use std::time::{Duration, Instant};

/// How long nobody calls after failures.
pub(crate) const REST: Duration = Duration::from_secs(1);

/// How long looking for Redis may take at most.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// Calls in a row that may fail before nobody calls any more. One may be late because this process was
/// held up.
const FAILURES: u32 = 3;

/// The state of the way to Redis, over connections of type `C`.
#[derive(Debug)]
pub(crate) enum Link<C> {
    /// It can be called.
    Up { connection: C, number: u64, failures: u32 },
    /// Somebody looks for it, and has given up if nothing was heard by then.
    Connecting { until: Instant, number: u64 },
    /// It is left alone until then.
    Down { again: Instant, number: u64 },
}

/// What a caller is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advice<C> {
    /// Call over this connection.
    Call(C, u64),
    /// Look for Redis, beside the requests, and tell [`Link::reached`] or [`Link::missed`]; go on without.
    Connect,
    /// Go on without.
    Rest,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection is of no more use.
    Broken,
    /// It was late, or was refused.
    Unanswered,
}

impl<C: Clone> Link<C> {
    pub(crate) fn new(now: Instant) -> Self {
        Link::Down { again: now, number: 0 }
    }

    fn number(&self) -> u64 {
        match self {
            Link::Up { number, .. }
            | Link::Connecting { number, .. }
            | Link::Down { number, .. } => *number,
        }
    }

    /// Says what to do to call Redis now.
    pub(crate) fn advise(&mut self, now: Instant) -> Advice<C> {
        match self {
            Link::Up { connection, number, .. } => Advice::Call(connection.clone(), *number),
            Link::Down { again: at, number } | Link::Connecting { until: at, number }
                if now >= *at =>
            {
                *self = Link::Connecting { until: now + GIVEN_UP, number: *number };
                Advice::Connect
            }
            Link::Connecting { .. } | Link::Down { .. } => Advice::Rest,
        }
    }

    /// Takes the connection that was found.
    pub(crate) fn reached(&mut self, connection: C) {
        *self = Link::Up { connection, number: self.number() + 1, failures: 0 };
    }

    /// Notes that none was found.
    pub(crate) fn missed(&mut self, now: Instant) {
        *self = Link::Down { again: now + REST, number: self.number() };
    }

    /// Notes how a call over connection `number` ended; returns whether Redis counts as away from now on.
    pub(crate) fn ended(&mut self, number: u64, how: Result<(), Failure>, now: Instant) -> bool {
        let Link::Up { number: current, failures, .. } = self else { return false };
        if *current != number {
            return false;
        }
        match how {
            Ok(()) => *failures = 0,
            Err(Failure::Unanswered) if *failures + 1 < FAILURES => *failures += 1,
            Err(failure) => {
                // A server that has just gone may have been replaced already; one that does not
                // answer is let alone.
                let rest = if failure == Failure::Broken { Duration::ZERO } else { REST };
                *self = Link::Down { again: now + rest, number };
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Failure::{Broken, Unanswered};
    use super::*;

    #[test]
    fn one_looks_while_the_others_go_on_without() {
        let start = Instant::now();
        let mut link = Link::new(start);
        assert_eq!(link.advise(start), Advice::Connect);
        assert_eq!(link.advise(start), Advice::<&str>::Rest);
        assert_eq!(link.advise(start + GIVEN_UP), Advice::Connect, "whoever looked is gone");
        link.missed(start);
        assert_eq!(link.advise(start + REST / 2), Advice::Rest);
        assert_eq!(link.advise(start + REST), Advice::Connect);
        link.reached("first");
        assert_eq!(link.advise(start + REST), Advice::Call("first", 1));
    }

    #[test]
    fn failures_in_a_row_open_the_circuit() {
        let now = Instant::now();
        let mut link = Link::new(now);
        link.reached("first");
        for how in [Err(Unanswered), Err(Unanswered), Ok(()), Err(Unanswered), Err(Unanswered)] {
            assert!(!link.ended(1, how, now));
        }
        assert!(link.ended(1, Err(Unanswered), now), "three in a row");
        assert_eq!(link.advise(now), Advice::Rest);
        assert_eq!(link.advise(now + REST), Advice::Connect);
    }

    #[test]
    fn a_broken_connection_is_replaced_at_once_and_heard_no_more() {
        let now = Instant::now();
        let mut link = Link::new(now);
        link.reached("first");
        assert!(link.ended(1, Err(Broken), now));
        assert_eq!(link.advise(now), Advice::Connect);
        link.reached("second");
        assert!(!link.ended(1, Err(Broken), now), "an old call that ends late");
        assert_eq!(link.advise(now), Advice::Call("second", 2));
    }
}
