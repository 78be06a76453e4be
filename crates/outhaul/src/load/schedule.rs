//! When the requests of an open loop should start.
//!
//! A thread of its own announces each intended instant when it comes; whichever connection is free
//! takes it. The instants, not the announcements, are what latencies count from, so an announcement
//! that comes late (the system's timers are good to some 60 microseconds) hides nothing.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Schedule {
    state: Mutex<State>,
    announced: Notify,
}

#[derive(Default)]
struct State {
    due: VecDeque<Instant>,
    over: bool,
    /// Requests that were due within the measured time and that no connection was free for.
    unsent: u64,
}

impl Schedule {
    /// Announces `rate` instants a second from `start` to `end`, sleeping in between.
    pub(super) fn announce(&self, rate: f64, start: Instant, measured: Instant, end: Instant) {
        for number in 0_u64.. {
            let due = start + Duration::from_secs_f64(number as f64 / rate);
            if due >= end {
                break;
            }
            while let Some(early) = due.checked_duration_since(Instant::now())
                && !early.is_zero()
            {
                // Nobody unparks this thread: this is a sleep, which may end early.
                thread::park_timeout(early);
            }
            self.locked(|state| state.due.push_back(due));
            self.announced.notify_one();
        }
        while let Some(early) = end.checked_duration_since(Instant::now())
            && !early.is_zero()
        {
            thread::park_timeout(early);
        }
        self.locked(|state| {
            let unsent = state.due.drain(..).filter(|due| *due >= measured).count();
            state.unsent = unsent as u64;
            state.over = true;
        });
        self.announced.notify_waiters();
    }

    /// Returns the next intended instant when it has come, or `None` at the end.
    pub(super) async fn next(&self) -> Option<Instant> {
        loop {
            let announced = self.announced.notified();
            tokio::pin!(announced);
            // From here on no announcement is missed, the last one included.
            announced.as_mut().enable();
            let (due, over) = self.locked(|state| (state.due.pop_front(), state.over));
            match (due, over) {
                (Some(due), _) => return Some(due),
                (None, true) => return None,
                (None, false) => announced.await,
            }
        }
    }

    pub(super) fn unsent(&self) -> u64 {
        self.locked(|state| state.unsent)
    }

    fn locked<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
