//! A queue without batches for work that is not a run of the model, with the same order: levels, shares of
//! callers, arrival.

use std::time::{Duration, Instant};

use crate::Admission;
use crate::fair::Claim;
use crate::pending::{Decision, Observed, Pending, Queued, Rule};

/// Work that waits.
struct Item<T> {
    claim: Claim,
    entered: Instant,
    item: T,
}

impl<T> Queued for Item<T> {
    fn claim(&self) -> Claim {
        self.claim
    }

    fn enqueued(&self) -> Instant {
        self.entered
    }

    fn fits(&self, _: &Self) -> bool {
        false
    }
}

/// One item at a time, and nothing to wait for.
const RULE: Rule = Rule { max_rows: 1, max_delay: Duration::ZERO };
const IDLE: Observed = Observed { idle: 1, announced: None };

/// Work that waits, in order of levels and shares. As with requests without declared levels, no level waits
/// without end.
pub struct Line<T> {
    pending: Pending<Item<T>>,
    epoch: Instant,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line { pending: Pending::new(false), epoch: Instant::now() }
    }
}

impl<T> Line<T> {
    /// Adds an item, which counts as so many rows.
    pub fn push(&mut self, admission: &Admission, rows: usize, item: T) {
        let claim = admission.claim(rows);
        self.pending.push(Item { claim, entered: self.epoch, item }, &RULE);
    }

    /// Takes the item whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        match self.pending.decide(&RULE, &IDLE, self.epoch) {
            Decision::Run { group, requests } => {
                self.pending.take(group, requests).pop().map(|taken| taken.item)
            }
            Decision::WaitUntil(_) | Decision::Sleep => None,
        }
    }

    /// Takes out the item that is to give its place to a newcomer, if there is one: the newest of the caller
    /// that holds more than its share. Only what `may` give way counts.
    pub fn displace(&mut self, newcomer: &Admission, may: impl Fn(&T) -> bool) -> Option<T> {
        let displaced = self.pending.displace(newcomer.claim(1), |item| may(&item.item));
        displaced.map(|displaced| displaced.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CallerKey, Level};

    fn by(caller: u64, level: usize) -> Admission {
        let level = Level::of_index(level);
        Admission { caller: CallerKey(caller), level, ..Admission::default() }
    }

    #[test]
    fn callers_take_turns_and_urgent_ones_go_first() {
        let mut line = Line::default();
        (0..3).for_each(|number| line.push(&by(1, 1), 1, number));
        line.push(&by(2, 1), 1, 10);
        line.push(&by(1, 0), 1, 20);
        let order: Vec<i32> = std::iter::from_fn(|| line.pop()).collect();
        assert_eq!(order, [20, 0, 10, 1, 2]);
    }

    #[test]
    fn the_newest_of_who_holds_most_gives_way() {
        let mut line = Line::default();
        (0..3).for_each(|number| line.push(&by(1, 1), 1, number));
        assert_eq!(line.displace(&by(1, 1), |_| true), None, "nobody holds more than the newcomer");
        assert_eq!(line.displace(&by(2, 1), |number| *number < 2), Some(1));
        assert_eq!(line.displace(&by(1, 0), |_| true), Some(2), "what is less urgent");
    }
}
