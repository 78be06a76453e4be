//! Waiting requests in groups of equal shape, and the pure rule that forms batches from them.
//!
//! No clock, no lock and no thread in here: `now` and what the instances are doing are passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the rule needs to know of a waiting request.
pub(crate) trait Queued {
    /// Returns the rows it adds to a batch.
    fn rows(&self) -> usize;

    /// Returns when it was submitted.
    fn enqueued(&self) -> Instant;

    /// Returns whether it may share a batch with `other`: all inputs agree in every dimension but
    /// the rows. One that shares with nobody does not fit itself either.
    fn fits(&self, other: &Self) -> bool;
}

/// The limits of one model's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The most rows of one batch. A single request with more runs alone. 1 turns batching off.
    pub max_rows: usize,
    /// The longest that a batch is held open for requests that are on their way.
    pub max_delay: Duration,
}

/// What the instances and listeners are doing at the time of a decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    /// Instances that run nothing, the deciding one included.
    pub(crate) idle: usize,
    /// When the newest of the requests that are still being read was announced, if there is one.
    pub(crate) announced: Option<Instant>,
}

/// What an idle instance is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Run the first `requests` requests of group `group`.
    Run {
        /// Position of the group.
        group: usize,
        /// How many of its requests, at least one.
        requests: usize,
    },
    /// Look again at this instant, or when something arrives.
    WaitUntil(Instant),
    /// Nothing waits.
    Sleep,
}

/// The requests that wait for an instance, grouped by shape, each group in order of arrival.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    groups: Vec<VecDeque<W>>,
}

impl<W> Default for Pending<W> {
    fn default() -> Self {
        Pending { groups: Vec::new() }
    }
}

impl<W: Queued> Pending<W> {
    /// Adds a request to the group it fits into. With `max_rows` 1 nothing is ever batched, so all
    /// requests share one group and no shapes are compared.
    pub(crate) fn push(&mut self, work: W, rule: &Rule) {
        let fits = |group: &VecDeque<W>| {
            rule.max_rows <= 1 || group.front().is_some_and(|head| head.fits(&work))
        };
        match self.groups.iter_mut().find(|group| fits(group)) {
            Some(group) => group.push_back(work),
            None => self.groups.push(VecDeque::from([work])),
        }
    }

    /// Returns the number of waiting requests.
    pub(crate) fn len(&self) -> usize {
        self.groups.iter().map(VecDeque::len).sum()
    }

    /// Returns whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Decides what the asking idle instance is to do. The rule is stated at the crate's front.
    pub(crate) fn decide(&self, rule: &Rule, observed: &Observed, now: Instant) -> Decision {
        let waiting = self.len();
        let mut wake: Option<Instant> = None;
        for (index, group) in self.by_age() {
            let others_idle = observed.idle.saturating_sub(1);
            let elsewhere = waiting - group.len();
            // Idle instances that could only be fed from this group share it evenly with us.
            let sharers = 1 + others_idle.saturating_sub(elsewhere);
            let share = group.len().div_ceil(sharers);
            let (requests, rows) = prefix(group, share, rule.max_rows);
            let has_room = requests == group.len() && rows < rule.max_rows;
            let open_until =
                hold_open(group, rule, observed).filter(|until| has_room && now < *until);
            match open_until {
                None => return Decision::Run { group: index, requests },
                Some(until) => wake = Some(wake.map_or(until, |earlier| earlier.min(until))),
            }
        }
        wake.map_or(Decision::Sleep, Decision::WaitUntil)
    }

    /// Takes the requests that [`Pending::decide`] chose.
    pub(crate) fn take(&mut self, group: usize, requests: usize) -> Vec<W> {
        let taken = self.groups[group].drain(..requests).collect();
        if self.groups[group].is_empty() {
            self.groups.swap_remove(group);
        }
        taken
    }

    /// Removes the requests for which `dead` says so and hands each to `bury`.
    pub(crate) fn remove(&mut self, mut dead: impl FnMut(&W) -> bool, mut bury: impl FnMut(W)) {
        for group in &mut self.groups {
            if group.iter().any(&mut dead) {
                for work in std::mem::take(group) {
                    if dead(&work) {
                        bury(work);
                    } else {
                        group.push_back(work);
                    }
                }
            }
        }
        self.groups.retain(|group| !group.is_empty());
    }

    /// Groups by the age of their heads, oldest first, so that no shape starves another.
    fn by_age(&self) -> impl Iterator<Item = (usize, &VecDeque<W>)> {
        let mut order: Vec<(usize, &VecDeque<W>)> = self.groups.iter().enumerate().collect();
        order.sort_by_key(|(_, group)| group.front().map(Queued::enqueued));
        order.into_iter()
    }
}

/// The most requests from the head of a group that keep to `share` requests and `max_rows` rows,
/// at least one, with their rows. A request without rows still takes a place.
fn prefix<W: Queued>(group: &VecDeque<W>, share: usize, max_rows: usize) -> (usize, usize) {
    let mut requests = 0;
    let mut rows = 0_usize;
    for work in group.iter().take(share) {
        let with_this = work.rows().max(1).saturating_add(rows);
        if requests > 0 && with_this > max_rows {
            break;
        }
        requests += 1;
        rows = with_this;
    }
    (requests, rows)
}

/// Until when a batch from this group may be held open, if a request is on its way.
fn hold_open<W: Queued>(group: &VecDeque<W>, rule: &Rule, observed: &Observed) -> Option<Instant> {
    let head = group.front().filter(|head| head.fits(head))?;
    // An announcement that leads to nothing (a client that stalls) holds batches open only once.
    observed.announced.map(|announced| head.enqueued().min(announced) + rule.max_delay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Fake {
        rows: usize,
        shape: u8,
        enqueued: Instant,
    }

    impl Queued for Fake {
        fn rows(&self) -> usize {
            self.rows
        }

        fn enqueued(&self) -> Instant {
            self.enqueued
        }

        fn fits(&self, other: &Self) -> bool {
            self.shape == other.shape && self.shape != LONER
        }
    }

    /// The shape of requests that share with nobody.
    const LONER: u8 = 9;

    const RULE: Rule = Rule { max_rows: 8, max_delay: Duration::from_millis(2) };

    fn pending(start: Instant, works: &[(usize, u8)]) -> Pending<Fake> {
        let mut pending = Pending::default();
        for (order, &(rows, shape)) in works.iter().enumerate() {
            let enqueued = start + Duration::from_micros(order as u64);
            pending.push(Fake { rows, shape, enqueued }, &RULE);
        }
        pending
    }

    #[test]
    fn the_rule_by_cases() {
        struct Case {
            name: &'static str,
            works: &'static [(usize, u8)],
            idle: usize,
            announced_ago_ms: Option<u64>,
            expected: Decision,
        }
        let start = Instant::now();
        let now = start + Duration::from_millis(1);
        let run = |group, requests| Decision::Run { group, requests };
        let cases = [
            Case {
                name: "nothing waits",
                works: &[],
                idle: 1,
                announced_ago_ms: None,
                expected: Decision::Sleep,
            },
            Case {
                name: "one request runs at once",
                works: &[(1, 0)],
                idle: 1,
                announced_ago_ms: None,
                expected: run(0, 1),
            },
            Case {
                name: "all that wait run together",
                works: &[(1, 0); 5],
                idle: 1,
                announced_ago_ms: None,
                expected: run(0, 5),
            },
            Case {
                name: "rows are limited",
                works: &[(3, 0); 5],
                idle: 1,
                announced_ago_ms: None,
                expected: run(0, 2),
            },
            Case {
                name: "a large request runs alone",
                works: &[(100, 0), (1, 0)],
                idle: 1,
                announced_ago_ms: None,
                expected: run(0, 1),
            },
            Case {
                name: "two idle instances share",
                works: &[(1, 0); 5],
                idle: 2,
                announced_ago_ms: None,
                expected: run(0, 3),
            },
            Case {
                name: "the last one is not shared",
                works: &[(1, 0)],
                idle: 4,
                announced_ago_ms: None,
                expected: run(0, 1),
            },
            Case {
                name: "another shape feeds the other instance",
                works: &[(1, 0), (1, 1), (1, 0)],
                idle: 2,
                announced_ago_ms: None,
                expected: run(0, 2),
            },
            Case {
                name: "the oldest head goes first",
                works: &[(1, 7), (1, 3), (1, 3)],
                idle: 1,
                announced_ago_ms: None,
                expected: run(0, 1),
            },
            Case {
                name: "held open for one on its way",
                works: &[(1, 0)],
                idle: 1,
                announced_ago_ms: Some(0),
                expected: Decision::WaitUntil(start + RULE.max_delay),
            },
            Case {
                name: "not held open by a stalled client",
                works: &[(1, 0)],
                idle: 1,
                announced_ago_ms: Some(5),
                expected: run(0, 1),
            },
            Case {
                name: "requests that share with nobody run one by one",
                works: &[(1, LONER), (1, LONER)],
                idle: 1,
                announced_ago_ms: None,
                expected: run(0, 1),
            },
            Case {
                name: "and are not held open",
                works: &[(1, LONER)],
                idle: 1,
                announced_ago_ms: Some(0),
                expected: run(0, 1),
            },
            Case {
                name: "rows beyond counting run alone",
                works: &[(usize::MAX, 0), (1, 0)],
                idle: 1,
                announced_ago_ms: None,
                expected: run(0, 1),
            },
            Case {
                name: "a full batch is not held open",
                works: &[(8, 0)],
                idle: 1,
                announced_ago_ms: Some(0),
                expected: run(0, 1),
            },
            Case {
                name: "a full younger group goes before an open one",
                works: &[(1, 0), (8, 1)],
                idle: 1,
                announced_ago_ms: Some(0),
                expected: run(1, 1),
            },
        ];
        for case in cases {
            let observed = Observed {
                idle: case.idle,
                announced: case.announced_ago_ms.map(|ms| now - Duration::from_millis(ms)),
            };
            let decision = pending(start, case.works).decide(&RULE, &observed, now);
            assert_eq!(decision, case.expected, "{}", case.name);
        }
    }

    #[test]
    fn the_delay_ends() {
        let start = Instant::now();
        let observed = Observed { idle: 1, announced: Some(start) };
        let decide = |now| pending(start, &[(1, 0)]).decide(&RULE, &observed, now);
        assert_eq!(decide(start), Decision::WaitUntil(start + RULE.max_delay));
        assert_eq!(decide(start + RULE.max_delay), Decision::Run { group: 0, requests: 1 });
    }

    #[test]
    fn the_dead_are_removed_and_buried() {
        let mut pending = pending(Instant::now(), &[(1, 0), (2, 1), (3, 0)]);
        let mut buried = Vec::new();
        pending.remove(|work| work.rows < 3, |work| buried.push(work.rows));
        assert_eq!((pending.len(), buried), (1, vec![1, 2]));
    }

    proptest! {
        /// Idle instances that take turns deciding drain everything, in order within a shape, never
        /// mix shapes, keep to the limit, and never leave one of them without work while work waits.
        #[test]
        fn idle_instances_drain_the_queue(
            works in proptest::collection::vec((0_usize..12, 0_u8..3), 0..40),
            idle in 1_usize..5,
        ) {
            let start = Instant::now();
            let now = start + Duration::from_secs(1);
            let mut pending = pending(start, &works);
            let mut last_seen: Vec<Option<Instant>> = vec![None; 3];
            let mut remaining = idle;
            let mut fed = 0;
            while !pending.is_empty() {
                let observed = Observed { idle: remaining, announced: None };
                let Decision::Run { group, requests } = pending.decide(&RULE, &observed, now) else {
                    panic!("work waits and nothing runs");
                };
                let batch = pending.take(group, requests);
                prop_assert!(!batch.is_empty());
                let rows: usize = batch.iter().map(|work| work.rows.max(1)).sum();
                prop_assert!(rows <= RULE.max_rows || batch.len() == 1);
                for work in &batch {
                    prop_assert_eq!(work.shape, batch[0].shape);
                    let last = &mut last_seen[usize::from(work.shape)];
                    prop_assert!(last.is_none_or(|last| last < work.enqueued));
                    *last = Some(work.enqueued);
                }
                fed += 1;
                remaining = remaining.saturating_sub(1).max(1);
            }
            prop_assert!(fed >= idle.min(works.len()));
        }
    }
}
