//! The batching rule by cases and by properties.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
struct Fake {
    rows: usize,
    shape: u8,
    enqueued: Instant,
    level: Level,
    caller: u64,
    weight: u32,
}

impl Queued for Fake {
    fn claim(&self) -> Claim {
        let Fake { rows, level, weight, .. } = *self;
        Claim { level, caller: CallerKey(self.caller), weight, rows }
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
    let equal: Vec<_> = works.iter().map(|&(rows, shape)| (rows, shape, 0)).collect();
    levelled(start, &equal)
}

/// Requests of rows, shape and level, a microsecond apart.
fn levelled(start: Instant, works: &[(usize, u8, usize)]) -> Pending<Fake> {
    let mut pending = Pending::new(true);
    for (order, &(rows, shape, level)) in works.iter().enumerate() {
        let enqueued = start + Duration::from_micros(order as u64);
        let level = Level::of_index(level);
        pending.push(Fake { rows, shape, enqueued, level, caller: 0, weight: 1 }, &RULE);
    }
    pending
}

impl Pending<Fake> {
    fn waiting(&self) -> impl Iterator<Item = &Fake> {
        self.groups.iter().flatten().map(|waiting| &waiting.work)
    }
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
fn the_more_urgent_goes_first() {
    struct Case {
        name: &'static str,
        /// Rows, shape and level, in order of arrival.
        works: &'static [(usize, u8, usize)],
        idle: usize,
        announced: bool,
        /// The places in `works` of the batch, none where nothing is to be run yet.
        batch: &'static [usize],
    }
    let start = Instant::now();
    let now = start + Duration::from_millis(1);
    let cases = [
        Case {
            name: "an older request of a lower level waits",
            works: &[(1, 0, 1), (1, 1, 0)],
            idle: 1,
            announced: false,
            batch: &[1],
        },
        Case {
            name: "what room is left is filled with less urgent ones, the oldest first",
            works: &[(1, 0, 2), (1, 0, 1), (1, 0, 0), (1, 0, 1)],
            idle: 1,
            announced: false,
            batch: &[2, 1, 3, 0],
        },
        Case {
            name: "but not with another shape",
            works: &[(1, 1, 1), (1, 0, 0), (1, 0, 1)],
            idle: 1,
            announced: false,
            batch: &[1, 2],
        },
        Case {
            name: "a full batch has no room",
            works: &[(1, 0, 1), (5, 0, 0), (3, 0, 0)],
            idle: 1,
            announced: false,
            batch: &[1, 2],
        },
        Case {
            name: "a small one does not pass a more urgent one that is too large",
            works: &[(1, 0, 2), (4, 0, 1), (5, 0, 0)],
            idle: 1,
            announced: false,
            batch: &[2],
        },
        Case {
            name: "requests that share with nobody go by level too",
            works: &[(1, LONER, 1), (1, LONER, 0)],
            idle: 1,
            announced: false,
            batch: &[1],
        },
        Case {
            name: "two idle instances share all levels evenly",
            works: &[(1, 0, 1), (1, 0, 1), (1, 0, 0)],
            idle: 2,
            announced: false,
            batch: &[2, 0],
        },
        Case {
            name: "held open where all could be",
            works: &[(1, 0, 1), (1, 1, 0)],
            idle: 1,
            announced: true,
            batch: &[],
        },
        Case {
            name: "not held open while something less urgent could run",
            works: &[(8, 0, 1), (1, 1, 0)],
            idle: 1,
            announced: true,
            batch: &[1],
        },
        Case {
            name: "what is as urgent may run meanwhile",
            works: &[(8, 0, 1), (1, 1, 0), (8, 2, 0)],
            idle: 1,
            announced: true,
            batch: &[2],
        },
    ];
    for case in cases {
        let observed = Observed { idle: case.idle, announced: case.announced.then_some(now) };
        let mut pending = levelled(start, case.works);
        let batch = match pending.decide(&RULE, &observed, now) {
            Decision::Run { group, requests } => pending.take(group, requests),
            Decision::WaitUntil(_) | Decision::Sleep => Vec::new(),
        };
        let places: Vec<u128> =
            batch.iter().map(|work| (work.enqueued - start).as_micros()).collect();
        let expected: Vec<u128> = case.batch.iter().map(|&place| place as u128).collect();
        assert_eq!(places, expected, "{}", case.name);
    }
}

/// Urgent requests that keep coming must not hold a batch open again and again.
#[test]
fn the_delay_counts_from_the_oldest_of_any_level() {
    let start = Instant::now();
    let observed = Observed { idle: 1, announced: Some(start + Duration::from_secs(1)) };
    let mut pending = levelled(start, &[(1, 0, 2), (1, 0, 1), (1, 0, 0)]);
    let decision = pending.decide(&RULE, &observed, start);
    assert_eq!(decision, Decision::WaitUntil(start + RULE.max_delay));
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

    /// Whatever the levels, shapes and announcements: a batch begins with the most urgent that
    /// waits, is in order of level and arrival, leaves nothing behind that it should have taken
    /// first, and idle instances drain the queue.
    #[test]
    fn no_batch_passes_over_what_is_more_urgent(
        works in proptest::collection::vec((0_usize..12, 0_u8..3, 0_usize..4), 0..40),
        idle in 1_usize..5,
        announced in any::<bool>(),
    ) {
        let start = Instant::now();
        let mut now = start + Duration::from_micros(50);
        let mut pending = levelled(start, &works);
        let mut remaining = idle;
        let mut fed = 0;
        let order = |work: &Fake| (work.level, work.enqueued);
        while !pending.is_empty() {
            let observed = Observed { idle: remaining, announced: announced.then_some(start) };
            let (group, requests) = match pending.decide(&RULE, &observed, now) {
                Decision::Run { group, requests } => (group, requests),
                Decision::WaitUntil(until) => {
                    prop_assert!(announced && until > now);
                    now = until;
                    continue;
                }
                Decision::Sleep => panic!("work waits and nothing runs"),
            };
            let most_urgent = pending.waiting().map(|work| work.level).min();
            let batch = pending.take(group, requests);
            prop_assert_eq!(batch.first().map(|work| work.level), most_urgent);
            prop_assert!(batch.is_sorted_by_key(order));
            prop_assert!(batch.iter().all(|work| work.shape == batch[0].shape));
            let rows: usize = batch.iter().map(|work| work.rows.max(1)).sum();
            prop_assert!(rows <= RULE.max_rows || batch.len() == 1);
            let last = batch.last().map(order);
            let same_shape = pending.waiting().filter(|work| work.shape == batch[0].shape);
            prop_assert!(same_shape.map(order).all(|left_behind| Some(left_behind) > last));
            fed += 1;
            remaining = remaining.saturating_sub(1).max(1);
        }
        prop_assert!(fed >= idle.min(works.len()));
    }
}

mod callers;
