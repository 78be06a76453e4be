//! Hedged requests: where an answer is late, the same is asked once more on another connection, and the first
//! good answer counts (Dean and Barroso 2013, "The Tail at Scale").
//!
//! A second request is sent after the time that 95 of 100 answers take, so that about one in twenty needs it;
//! a [`Budget`] sees to it that it is never more, for a remote that slows down as a whole must not get
//! twice the load on top.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};

/// A second request is never sent earlier: below, a late answer is noise of the network.
const EARLIEST: Duration = Duration::from_millis(2);

/// Requests that pay for one hedge: 5 %.
const PRICE: u32 = 20;

/// Hedges that may be saved up.
const SAVED: u32 = 10;

/// What is known of a remote when a request to it is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed {
    /// What 95 of 100 answers did not exceed; `None` where too few are known.
    pub(super) p95: Option<Duration>,
    /// Whether the circuit is closed.
    pub(super) is_closed: bool,
    /// Whether the budget pays for one more.
    pub(super) is_paid: bool,
    /// The time that the request has left.
    pub(super) left: Duration,
}

/// Decides after how long without an answer a second request is sent, if it is.
pub(super) fn decide(observed: Observed) -> Option<Duration> {
    let Observed { p95, is_closed, is_paid, left } = observed;
    let after = p95?.max(EARLIEST);
    // A second request needs about as long as the first should have.
    let is_in_time = after.checked_mul(2).is_some_and(|both| both <= left);
    (is_closed && is_paid && is_in_time).then_some(after)
}

/// What second requests may still be sent: each request pays a twentieth of one.
#[derive(Debug, Default)]
pub(super) struct Budget(u32);

impl Budget {
    /// Takes in that a request was sent.
    pub(super) fn earn(&mut self) {
        self.0 = (self.0 + 1).min(PRICE * SAVED);
    }

    pub(super) fn pays(&self) -> bool {
        self.0 >= PRICE
    }

    /// Takes what a second request costs, if it is there.
    pub(super) fn take(&mut self) -> bool {
        let pays = self.pays();
        if pays {
            self.0 -= PRICE;
        }
        pays
    }
}

/// Which of two requests an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Winner {
    First,
    Second,
}

/// Waits for the first good answer of `first` and, once `after` has passed without any, of what `second`
/// sends, if it sends something. The other one is dropped. Where both fail, the first one's error counts.
pub(super) async fn race<T, E, F: Future<Output = Result<T, E>>>(
    first: impl Future<Output = Result<T, E>>,
    after: Duration,
    second: impl FnOnce() -> Option<F>,
) -> (Result<T, E>, Winner) {
    let mut first = pin!(first);
    let late = pin!(tokio::time::sleep(after));
    match select(first.as_mut(), late).await {
        Either::Left((answer, _)) => return (answer, Winner::First),
        Either::Right(((), _)) => {}
    }
    let Some(second) = second() else { return (first.await, Winner::First) };
    let second = pin!(second);
    match select(first, second).await {
        Either::Left((Ok(answer), _)) => (Ok(answer), Winner::First),
        Either::Right((Ok(answer), _)) => (Ok(answer), Winner::Second),
        Either::Left((Err(error), second)) => match second.await {
            Ok(answer) => (Ok(answer), Winner::Second),
            Err(_) => (Err(error), Winner::First),
        },
        Either::Right((Err(_), first)) => (first.await, Winner::First),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{Instant, sleep};

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_second_request_needs_a_reason_and_the_means() {
        let usual = Observed { p95: Some(ms(20)), is_closed: true, is_paid: true, left: ms(1_000) };
        for (observed, expected, why) in [
            (usual, Some(ms(20)), "after the 95th percentile"),
            (Observed { p95: Some(ms(1)), ..usual }, Some(ms(2)), "never before 2 ms"),
            (Observed { p95: None, ..usual }, None, "too few answers are known"),
            (Observed { is_closed: false, ..usual }, None, "the remote is in trouble"),
            (Observed { is_paid: false, ..usual }, None, "enough were sent"),
            (Observed { left: ms(40), ..usual }, Some(ms(20)), "it is just in time"),
            (Observed { left: ms(39), ..usual }, None, "it would come too late"),
            (Observed { p95: Some(Duration::MAX), ..usual }, None, "there is no end to it"),
        ] {
            assert_eq!(decide(observed), expected, "{why}");
        }
    }

    #[test]
    fn at_most_one_in_twenty_is_sent_twice() {
        let mut budget = Budget::default();
        let mut sent = 0;
        for request in 1..=10_000_u32 {
            budget.earn();
            sent += u32::from(budget.take());
            assert!(sent * 20 <= request, "{sent} of {request}");
        }
        assert_eq!(sent, 500);
        (0..100_000).for_each(|_| budget.earn());
        let saved = (0..100).filter(|_| budget.take()).count();
        assert_eq!(saved, SAVED as usize, "no storm after a quiet time");
    }

    /// Answers after a while with its name, or fails with it.
    async fn answer(name: &str, after: u64, good: bool) -> Result<&str, &str> {
        sleep(ms(after)).await;
        if good { Ok(name) } else { Err(name) }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_good_answer_counts() {
        struct Case {
            /// When the first and the second one answer after being sent, and whether it is good.
            first: (u64, bool),
            second: (u64, bool),
            expected: Result<&'static str, &'static str>,
            at: u64,
            sends: bool,
        }
        let case = |first, second, expected, at| Case { first, second, expected, at, sends: true };
        let cases = [
            Case { sends: false, ..case((9, true), (1, true), Ok("first"), 9) },
            Case { sends: false, ..case((9, false), (1, true), Err("first"), 9) },
            case((30, true), (5, true), Ok("second"), 15),
            case((12, true), (5, true), Ok("first"), 12),
            case((12, false), (5, true), Ok("second"), 15),
            case((30, true), (5, false), Ok("first"), 30),
            case((30, false), (5, false), Err("first"), 30),
            case((12, false), (5, false), Err("first"), 15),
        ];
        for Case { first, second, expected, at, sends } in cases {
            let (start, sent) = (Instant::now(), Cell::new(false));
            let send = || {
                sent.set(true);
                Some(answer("second", second.0, second.1))
            };
            let (got, winner) = race(answer("first", first.0, first.1), ms(10), send).await;
            let which = format!("{first:?} against {second:?}");
            assert_eq!((got, sent.get()), (expected, sends), "{which}");
            assert_eq!(start.elapsed(), ms(at), "{which}");
            assert_eq!(winner == Winner::Second, expected == Ok("second"), "{which}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_paid_is_not_sent() {
        let none = || None::<std::future::Ready<Result<&str, &str>>>;
        let (got, winner) = race(answer("first", 30, true), ms(10), none).await;
        assert_eq!((got, winner), (Ok("first"), Winner::First));
    }
}
