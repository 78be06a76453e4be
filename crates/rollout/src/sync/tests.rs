//! The decisions of one replica among several, one scene each.

use outhaul_monitor::traffic::VariantCounts;

use super::*;
use crate::plan::{Observed, What};
use crate::world::RolloutSpec;

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

fn to(text: &str) -> Destination {
    text.parse().unwrap()
}

fn command(world: &World, command: Command, at: i64) -> World {
    let input = Input::Command { command, by: "ann".to_owned() };
    decide(world, &input, Timestamp(at)).unwrap().expect("it changes something").world
}

fn start(candidate: &str) -> Command {
    let spec: RolloutSpec = serde_json::from_value(serde_json::json!({
        "to": candidate, "steps": [10.0, 100.0], "every": "1s", "guards": ["error_rate<10%"],
    }))
    .unwrap();
    Command::Start { route: name("a"), spec, in_service: Some(to("a@1")) }
}

fn tick(world: &World, observed: RolloutObserved, at: i64) -> Option<Decision> {
    let input = Input::Tick(Observed { rollouts: [(name("a"), observed)].into() });
    decide(world, &input, Timestamp(at)).unwrap()
}

fn counted(answered: u64, failed: u64) -> RolloutObserved {
    let mut candidate = VariantCounts::default();
    candidate.latency.add(Duration::from_millis(1), answered);
    candidate.failed = failed;
    RolloutObserved { ready: Readiness::Ready, candidate, ..RolloutObserved::default() }
}

/// A roll-out of `a` that has reached its first step.
fn stepping() -> World {
    let preparing = command(&World::default(), start("a@2"), 1);
    tick(&preparing, counted(0, 0), 2).unwrap().world
}

fn pending(world: &World, input: Input, at: i64) -> Pending {
    let decision = decide(world, &input, Timestamp(at)).unwrap().unwrap();
    let of = Target::in_world(world, &name("a"));
    Pending { input, at: Timestamp(at), of, entries: decision.entries, tried: None }
}

fn rollback(world: &World, at: i64) -> Pending {
    let input =
        Input::Command { command: Command::Rollback { route: name("a") }, by: "ann".to_owned() };
    pending(world, input, at)
}

#[test]
fn what_is_pending_is_decided_anew_on_whatever_the_world_has_become() {
    let seen = stepping();
    let breach = Input::Tick(Observed { rollouts: [(name("a"), counted(0, 500))].into() });
    let breach = pending(&seen, breach, 10);
    assert_eq!(breach.entries[0].what, What::RolledBack);
    let asked = rollback(&seen, 10);
    let elsewhere = RouteSpec::to(to("b@1"));
    let set = Command::SetRoute { route: name("b"), spec: elsewhere };
    let stepped = tick(&seen, counted(500, 0), 5_000).unwrap().world;
    let promoted = command(&seen, Command::Promote { route: name("a") }, 5_000);
    let aborted = command(&seen, Command::Abort { route: name("a") }, 5_000);
    let begun_anew = command(&aborted, start("a@3"), 6_000);
    struct Case<'a> {
        what: &'a str,
        world: World,
        phase: Phase,
        noted: bool,
    }
    let cases = [
        Case { what: "as it was", world: seen.clone(), phase: Phase::RolledBack, noted: false },
        Case {
            what: "another route changed",
            world: command(&seen, set, 5),
            phase: Phase::RolledBack,
            noted: false,
        },
        Case { what: "the next step", world: stepped, phase: Phase::RolledBack, noted: false },
        Case { what: "promoted", world: promoted, phase: Phase::RolledBack, noted: false },
        Case { what: "aborted", world: aborted, phase: Phase::Aborted, noted: true },
        Case { what: "another began", world: begun_anew, phase: Phase::Preparing, noted: true },
        Case { what: "emptied", world: World::default(), phase: Phase::Preparing, noted: true },
    ];
    for Case { what, world, phase, noted } in cases {
        for pending in [&breach, &asked] {
            let decision = decide_again(&world, pending);
            assert_eq!(decision.world.generation, world.generation + 1, "{what}");
            assert_eq!(decision.entries.len(), 1, "{what}: it is told once");
            let entry = &decision.entries[0];
            assert_eq!((entry.what, entry.at), (What::RolledBack, Timestamp(10)), "{what}");
            let is_tick = matches!(pending.input, Input::Tick(_));
            let is_noted = entry.text.contains("while the state store was away");
            let later_stage = is_tick && matches!(what, "the next step" | "promoted");
            assert_eq!(is_noted, noted || later_stage, "{what}: {}", entry.text);
            if let Some(rollout) = decision.world.rollouts.get(&name("a")) {
                assert_eq!(rollout.phase, phase, "{what}");
            }
            let other = decision.world.routes.get(&name("b"));
            assert_eq!(other, world.routes.get(&name("b")), "{what}: others' changes stay");
        }
    }
}

#[test]
fn the_world_in_effect_is_the_stores_with_what_is_pending_on_top() {
    let world = stepping();
    assert_eq!(overlay(&world, &[]), world);
    let local = overlay(&world, &[rollback(&world, 10)]);
    assert!(rolls_back(&world, &local, &name("a")));
    assert_eq!(local.routes[&name("a")].spec, world.rollouts[&name("a")].before);
    assert!(!rolls_back(&local, &local, &name("a")));
}

#[test]
fn what_a_route_leads_to_might_and_did_is_held() {
    let held = |world: &World| -> Vec<String> {
        held(world).iter().map(|(name, version)| format!("{name}@{version}")).collect()
    };
    let preparing = command(&World::default(), start("a@2"), 1);
    assert_eq!(held(&preparing), ["a@1", "a@2"], "the candidate before any split names it");
    let stepping = stepping();
    assert_eq!(held(&stepping), ["a@1", "a@2"]);
    let promoted = command(&stepping, Command::Promote { route: name("a") }, 10);
    assert_eq!(held(&promoted), ["a@1", "a@2"], "to go back takes no load");
    let set = Command::SetRoute { route: name("a"), spec: RouteSpec::to(to("a@3")) };
    assert_eq!(held(&command(&promoted, set, 20)), ["a@3"], "somebody has moved on");
    let back = command(&stepping, Command::Rollback { route: name("a") }, 10);
    assert_eq!(held(&back), ["a@1"]);
    let open = Command::SetRoute { route: name("b"), spec: RouteSpec::to(to("b")) };
    assert_eq!(held(&command(&World::default(), open, 1)), [""; 0], "the newest is whatever it is");
    assert!(needs_lease(&stepping) && !needs_lease(&promoted));
}

#[test]
fn a_lease_is_taken_where_nobody_lives_who_has_it() {
    let limit = Duration::from_secs(5);
    let by = |replica: &str| Lease { replica: replica.to_owned(), beat: 7 };
    struct Case {
        what: &'static str,
        found: Option<Lease>,
        still: u64,
        taken: Option<u64>,
    }
    let cases = [
        Case { what: "nobody's", found: None, still: 0, taken: Some(1) },
        Case { what: "mine", found: Some(by("me")), still: 0, taken: Some(8) },
        Case { what: "given back", found: Some(by("")), still: 0, taken: Some(8) },
        Case { what: "another's", found: Some(by("other")), still: 4, taken: None },
        Case { what: "a dead one's", found: Some(by("other")), still: 5, taken: Some(8) },
    ];
    for Case { what, found, still, taken } in cases {
        let lease = lease(found.as_ref(), Duration::from_secs(still), limit, "me");
        let expected = taken.map(|beat| Lease { replica: "me".to_owned(), beat });
        assert_eq!(lease, expected, "{what}");
    }
}

#[test]
fn a_number_that_stands_still_tells_that_nobody_raises_it() {
    let (mut pulse, began) = (Pulse::default(), Instant::now());
    let seconds = Duration::from_secs;
    assert_eq!(pulse.note("a", 1, began), Duration::ZERO, "it may have been raised just now");
    assert_eq!(pulse.note("a", 1, began + seconds(3)), seconds(3));
    assert_eq!(pulse.note("b", 1, began + seconds(3)), Duration::ZERO);
    assert_eq!(pulse.note("a", 2, began + seconds(4)), Duration::ZERO);
    assert_eq!(pulse.note("a", 2, began + seconds(9)), seconds(5));
}

#[test]
fn counts_of_the_dead_count_and_only_the_living_have_to_be_ready() {
    let row = |ready: Readiness, answered| RolloutObserved { ready, ..counted(answered, 1) };
    let failed = || Readiness::Failed("no memory".to_owned());
    struct Case {
        what: &'static str,
        rows: Vec<(RolloutObserved, bool)>,
        ready: Readiness,
    }
    let cases = [
        Case { what: "nobody", rows: Vec::new(), ready: Readiness::Loading },
        Case {
            what: "all",
            rows: vec![(row(Readiness::Ready, 1), true), (row(Readiness::Ready, 2), true)],
            ready: Readiness::Ready,
        },
        Case {
            what: "one is not",
            rows: vec![(row(Readiness::Loading, 1), true), (row(Readiness::Ready, 2), true)],
            ready: Readiness::Loading,
        },
        Case {
            what: "one cannot",
            rows: vec![(row(failed(), 1), true), (row(Readiness::Loading, 2), true)],
            ready: failed(),
        },
        Case {
            what: "one that is gone could not",
            rows: vec![(row(Readiness::Ready, 1), true), (row(failed(), 2), false)],
            ready: Readiness::Ready,
        },
    ];
    for Case { what, rows, ready } in cases {
        let total = sum(rows.iter().map(|(row, lives)| (row, *lives)));
        assert_eq!(total.ready, ready, "{what}");
        let judged: u64 = rows.iter().map(|(row, _)| row.candidate.judged()).sum();
        assert_eq!(total.candidate.judged(), judged, "{what}");
    }
}

#[test]
fn a_version_is_waited_for_and_not_for_ever() {
    let soon = Duration::from_secs(1);
    struct Case {
        standing: Option<Standing>,
        soon: bool,
        late: bool,
    }
    // Whether it may still come.
    let cases = [
        Case { standing: None, soon: true, late: false },
        Case { standing: Some(Standing::Unloaded), soon: true, late: false },
        Case { standing: Some(Standing::Loading), soon: true, late: true },
        Case { standing: Some(Standing::Dormant), soon: true, late: true },
        Case { standing: Some(Standing::Failed), soon: false, late: false },
    ];
    for Case { standing, soon: is_soon, late } in cases {
        for (asked_for, may_come) in [(soon, is_soon), (ABSENT_LIMIT, late)] {
            let told = standing.map(|standing| (standing, "bad"));
            let readiness = readiness(&to("a@2"), told, asked_for);
            assert_eq!(readiness == Readiness::Loading, may_come, "{standing:?} {asked_for:?}");
        }
    }
    let ready = readiness(&to("a@2"), Some((Standing::Ready, "")), soon);
    assert_eq!(ready, Readiness::Ready);
}

#[test]
fn a_row_is_read_as_it_was_written() {
    let mut row = Row { beat: 3, observed: counted(5, 1) };
    row.observed.candidate.refused = 2;
    let text = serde_json::to_string(&row).unwrap();
    assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
}
