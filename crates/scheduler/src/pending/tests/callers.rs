//! Turns of callers, levels that wait, and who gives way: by cases and by properties, with scripted time.

use std::collections::HashMap;

use super::*;

/// A request of one row of shape 0 at the usual level.
fn by(caller: u64) -> Fake {
    Fake {
        rows: 1,
        shape: 0,
        enqueued: Instant::now(),
        level: Level::of_index(1),
        caller,
        weight: 1,
    }
}

fn filled(works: impl IntoIterator<Item = Fake>, rule: &Rule) -> Pending<Fake> {
    let mut pending = Pending::new(false);
    works.into_iter().for_each(|work| pending.push(work, rule));
    pending
}

const ALONE: Observed = Observed { idle: 1, announced: None };

/// The next batch of the only instance; nothing where nothing waits.
fn next(pending: &mut Pending<Fake>, rule: &Rule) -> Vec<Fake> {
    match pending.decide(rule, &ALONE, Instant::now()) {
        Decision::Run { group, requests } => pending.take(group, requests),
        Decision::WaitUntil(_) | Decision::Sleep => Vec::new(),
    }
}

fn rule(max_rows: usize) -> Rule {
    Rule { max_rows, ..RULE }
}

fn callers(batch: &[Fake]) -> Vec<u64> {
    batch.iter().map(|work| work.caller).collect()
}

#[test]
fn places_in_a_batch_are_dealt_by_weight() {
    struct Case {
        name: &'static str,
        /// Caller, weight and rows, in order of arrival.
        works: &'static [(u64, u32, usize)],
        max_rows: usize,
        /// The callers of the batches.
        batches: &'static [&'static [u64]],
    }
    let cases = [
        Case {
            name: "one caller",
            works: &[(1, 1, 1), (1, 1, 3), (1, 1, 1)],
            max_rows: 4,
            batches: &[&[1, 1], &[1]],
        },
        Case {
            name: "in turns, although all of one came first",
            works: &[(1, 1, 1), (1, 1, 1), (1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)],
            max_rows: 4,
            batches: &[&[1, 2, 1, 2], &[1, 2]],
        },
        Case {
            name: "three places for one",
            works: &[(1, 1, 1), (1, 1, 1), (2, 3, 1), (2, 3, 1), (2, 3, 1), (2, 3, 1)],
            max_rows: 4,
            batches: &[&[1, 2, 2, 2], &[1, 2]],
        },
        Case {
            name: "rows count, not requests",
            works: &[(1, 1, 4), (1, 1, 4), (2, 1, 2), (2, 1, 2), (2, 1, 2)],
            max_rows: 8,
            batches: &[&[1, 2, 2], &[1, 2]],
        },
        Case {
            name: "without batches too",
            works: &[(1, 1, 1), (1, 1, 1), (1, 1, 1), (2, 1, 1)],
            max_rows: 1,
            batches: &[&[1], &[2], &[1], &[1]],
        },
    ];
    for Case { name, works, max_rows, batches } in cases {
        let rule = rule(max_rows);
        let work = |&(caller, weight, rows): &_| Fake { weight, rows, ..by(caller) };
        let mut pending = filled(works.iter().map(work), &rule);
        for expected in batches {
            assert_eq!(callers(&next(&mut pending, &rule)), *expected, "{name}");
        }
        assert!(pending.is_empty(), "{name}");
    }
}

/// The flood came first, is endless, and fills every batch. With and without batches, and where the modest
/// caller's requests have a shape of their own, they are in the batch after the one that runs.
#[test]
fn a_flood_costs_others_one_batch_of_time() {
    for (max_rows, shape) in [(1, 0), (8, 0), (8, 1)] {
        let rule = rule(max_rows);
        let mut pending = filled((0..100).map(|_| by(1)), &rule);
        for arrival in 0..50 {
            let running = next(&mut pending, &rule);
            assert_eq!(running.len(), max_rows, "the flood fills batch {arrival}");
            pending.push(Fake { shape, ..by(2) }, &rule);
            let batch = next(&mut pending, &rule);
            assert!(callers(&batch).contains(&2), "{max_rows} rows, shape {shape}: {arrival}");
            (0..2 * max_rows).for_each(|_| pending.push(by(1), &rule));
        }
    }
}

/// A newcomer has no claim on what others were served before, nor they on what it did not use.
#[test]
fn nothing_is_saved_up_while_away() {
    let mut pending = filled((0..40).map(|_| by(1)), &rule(1));
    (0..20).for_each(|_| drop(next(&mut pending, &rule(1))));
    (0..20).for_each(|_| pending.push(by(2), &rule(1)));
    let served: Vec<u64> = (0..20).flat_map(|_| callers(&next(&mut pending, &rule(1)))).collect();
    assert_eq!(served.iter().filter(|caller| **caller == 2).count(), 10, "{served:?}");
}

#[test]
fn a_level_that_waits_begins_one_batch_of_seventeen() {
    let urgent = || Fake { level: Level::of_index(0), ..by(1) };
    for shape in [0, 1] {
        let lower = [1, 2].map(|level| Fake { shape, level: Level::of_index(level), ..by(2) });
        let mut pending = filled(lower, &rule(1));
        let mut began = Vec::new();
        for _ in 0..17 {
            pending.push(urgent(), &rule(1));
            began.extend(next(&mut pending, &rule(1)).iter().map(|work| work.level.index()));
        }
        let mut expected = vec![0; 15];
        expected.extend([1, 2]);
        assert_eq!(began, expected, "shape {shape}");
    }
}

#[test]
fn declared_levels_wait_without_end() {
    let mut pending = Pending::new(true);
    pending.push(by(2), &rule(1));
    for _ in 0..100 {
        pending.push(Fake { level: Level::of_index(0), ..by(1) }, &rule(1));
        assert_eq!(callers(&next(&mut pending, &rule(1))), [1]);
    }
}

/// A batch that begins with a lower level's request is filled by the usual order.
#[test]
fn what_is_due_takes_one_place_of_its_batch() {
    let rule = rule(4);
    let urgent = || Fake { level: Level::of_index(0), ..by(1) };
    let mut pending = filled([by(2), by(2)], &rule);
    for _ in 0..15 {
        (0..4).for_each(|_| pending.push(urgent(), &rule));
        assert_eq!(callers(&next(&mut pending, &rule)), [1; 4]);
    }
    (0..4).for_each(|_| pending.push(urgent(), &rule));
    assert_eq!(callers(&next(&mut pending, &rule)), [2, 1, 1, 1]);
}

#[test]
fn who_holds_most_gives_way() {
    struct Case {
        name: &'static str,
        /// Caller, weight and level, in order of arrival.
        works: &'static [(u64, u32, usize)],
        newcomer: (u64, u32, usize),
        /// The place in `works` of what gives way.
        displaced: Option<usize>,
    }
    let cases = [
        Case {
            name: "the newest of a flood",
            works: &[(1, 1, 1), (1, 1, 1), (1, 1, 1)],
            newcomer: (2, 1, 1),
            displaced: Some(2),
        },
        Case {
            name: "not for the flood itself",
            works: &[(1, 1, 1), (1, 1, 1), (2, 1, 1)],
            newcomer: (1, 1, 1),
            displaced: None,
        },
        Case {
            name: "nobody where all hold their shares",
            works: &[(1, 1, 1), (1, 1, 1), (2, 1, 1)],
            newcomer: (2, 1, 1),
            displaced: None,
        },
        Case {
            name: "shares go by weight",
            works: &[(1, 4, 1), (1, 4, 1), (1, 4, 1), (2, 1, 1)],
            newcomer: (2, 1, 1),
            displaced: None,
        },
        Case {
            name: "the heavier caller may hold more",
            works: &[(1, 1, 1), (1, 1, 1), (2, 4, 1), (2, 4, 1)],
            newcomer: (2, 4, 1),
            displaced: Some(1),
        },
        Case {
            name: "the least urgent of a flood",
            works: &[(1, 1, 2), (1, 1, 1), (1, 1, 0)],
            newcomer: (2, 1, 2),
            displaced: Some(0),
        },
        Case {
            name: "a caller's own for something more urgent",
            works: &[(1, 1, 2), (1, 1, 2), (1, 1, 1)],
            newcomer: (1, 1, 1),
            displaced: Some(1),
        },
    ];
    for Case { name, works, newcomer: (caller, weight, level), displaced } in cases {
        let start = Instant::now();
        let arrived = |order: usize| start + Duration::from_micros(order as u64);
        let work = |(order, &(caller, weight, level)): (usize, &(u64, u32, usize))| Fake {
            weight,
            level: Level::of_index(level),
            enqueued: arrived(order),
            ..by(caller)
        };
        let mut pending = filled(works.iter().enumerate().map(work), &RULE);
        let newcomer = Fake { weight, level: Level::of_index(level), ..by(caller) };
        let found = pending.displace(newcomer.claim(), |_| true).map(|work| work.enqueued);
        assert_eq!(found, displaced.map(arrived), "{name}");
        assert_eq!(pending.len(), works.len() - usize::from(displaced.is_some()), "{name}");
    }
}

/// The rows that a caller has waiting.
fn rows_of(pending: &Pending<Fake>, caller: u64) -> usize {
    pending.waiting().filter(|work| work.caller == caller).map(|work| work.rows).sum()
}

proptest! {
    /// Callers of any weights whose requests of any sizes arrive and leave at any time: while two of them
    /// have requests waiting, what they were served differs by no more than a request of each; nobody's
    /// requests are reordered, and all are served in the end.
    #[test]
    fn shares_follow_weights(
        weights in proptest::collection::vec(1_u32..8, 2..5),
        steps in proptest::collection::vec((0_usize..5, 1_usize..9, any::<bool>()), 1..300),
        max_rows in 1_usize..12,
    ) {
        let rule = rule(max_rows);
        let start = Instant::now();
        let mut pending = Pending::new(false);
        let pairs: Vec<(usize, usize)> = (0..weights.len())
            .flat_map(|left| (0..left).map(move |right| (left, right)))
            .collect();
        // For each pair since both wait without a break: the difference of what they were served, over
        // their weights, and the extremes of it.
        let mut since: HashMap<(usize, usize), (f64, f64, f64)> = HashMap::new();
        let mut last: Vec<Option<Instant>> = vec![None; weights.len()];
        let drain = [(0, 0, true); 300];
        let (submitted, mut served) = (steps.iter().filter(|(.., serve)| !serve).count(), 0);
        for (order, &(caller, rows, serve)) in steps.iter().chain(&drain).enumerate() {
            let batch = match serve {
                true => next(&mut pending, &rule),
                false => {
                    let caller = caller % weights.len();
                    let enqueued = start + Duration::from_micros(order as u64);
                    let weight = weights[caller];
                    let work = Fake { rows, enqueued, weight, ..by(caller as u64) };
                    pending.push(work, &rule);
                    Vec::new()
                }
            };
            served += batch.len();
            for work in batch {
                let caller = work.caller as usize;
                prop_assert!(last[caller].is_none_or(|last| last < work.enqueued));
                last[caller] = Some(work.enqueued);
                let share = work.rows as f64 / f64::from(work.weight);
                for ((left, right), (now, low, high)) in &mut since {
                    let signed = f64::from(u8::from(*left == caller))
                        - f64::from(u8::from(*right == caller));
                    *now += signed * share;
                    (*low, *high) = (low.min(*now), high.max(*now));
                }
            }
            for &(left, right) in &pairs {
                let both = [left, right].iter().all(|&one| rows_of(&pending, one as u64) > 0);
                if !both {
                    since.remove(&(left, right));
                    continue;
                }
                let (_, low, high) = since.entry((left, right)).or_default();
                let most = [left, right].map(|one| 8.0 / f64::from(weights[one]));
                prop_assert!(*high - *low <= most[0] + most[1] + 1e-3, "{left} and {right}");
            }
        }
        prop_assert_eq!(served, submitted);
        prop_assert!(pending.is_empty());
    }

    /// Whoever else waits and however many: a request runs after no more rows than one request's worth of
    /// each other caller for each of its caller's own before it, and itself.
    #[test]
    fn nobody_starves(
        others in proptest::collection::vec(1_usize..30, 1..6),
        own in 1_usize..5,
    ) {
        let rule = rule(1);
        let flood = others.iter().enumerate().flat_map(|(caller, &requests)| {
            std::iter::repeat_n(by(1 + caller as u64), requests)
        });
        let mut pending = filled(flood, &rule);
        (0..own).for_each(|_| pending.push(by(0), &rule));
        let most = own * (others.len() + 1);
        let mut served = 0;
        for turn in 1..=most {
            // The flood goes on.
            (1..=others.len()).for_each(|caller| pending.push(by(caller as u64), &rule));
            served += next(&mut pending, &rule).iter().filter(|work| work.caller == 0).count();
            if served == own {
                prop_assert!(turn <= most);
                return Ok(());
            }
        }
        prop_assert!(false, "{served} of {own} ran in {most} turns");
    }

    /// However requests of levels come: where none are declared, each level that waits begins one of any
    /// 17 batches in a row.
    #[test]
    fn no_level_waits_without_end(
        arrivals in proptest::collection::vec((0_usize..3, 0_u8..3, 0_u64..3), 1..400),
    ) {
        let mut pending = Pending::new(false);
        let mut passed = [0; 3];
        for (level, shape, caller) in arrivals {
            for level in [0, level] {
                pending.push(Fake { shape, level: Level::of_index(level), ..by(caller) }, &rule(4));
            }
            let waiting = [0, 1, 2].map(|level| {
                pending.waiting().any(|work| work.level == Level::of_index(level))
            });
            let batch = next(&mut pending, &rule(2));
            for level in 0..3 {
                let began = batch[0].level == Level::of_index(level);
                passed[level] = if waiting[level] && !began { passed[level] + 1 } else { 0 };
                prop_assert!(passed[level] < 17, "level {level}");
            }
        }
    }
}
