//! The decisions of one replica among several, one scene each.

use outhaul_monitor::traffic::VariantCounts;
use outhaul_types::TargetSpec;

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
fn a_pending_abort_takes_back_what_was_promoted_meanwhile() {
    let seen = stepping();
    let abort = Command::Abort { route: name("a") };
    let input = Input::Command { command: abort.clone(), by: "ann".to_owned() };
    let asked = pending(&seen, input, 10);
    let before = seen.rollouts[&name("a")].before.clone();
    let stepped = tick(&seen, counted(500, 0), 5_000).unwrap().world;
    let promoted = command(&seen, Command::Promote { route: name("a") }, 5_000);
    let anew = command(&command(&seen, abort, 5_000), start("a@3"), 6_000);
    let anew = tick(&anew, counted(0, 0), 7_000).unwrap().world;
    let anew = command(&anew, Command::Promote { route: name("a") }, 8_000);
    struct Case<'a> {
        what: &'a str,
        world: World,
        entry: What,
        phase: Phase,
        is_before: bool,
    }
    let cases = [
        Case {
            what: "the next step",
            world: stepped,
            entry: What::Aborted,
            phase: Phase::Aborted,
            is_before: true,
        },
        Case {
            what: "promoted",
            world: promoted,
            entry: What::RolledBack,
            phase: Phase::RolledBack,
            is_before: true,
        },
        Case {
            what: "another was promoted",
            world: anew,
            entry: What::Aborted,
            phase: Phase::Promoted,
            is_before: false,
        },
    ];
    for Case { what, world, entry, phase, is_before } in cases {
        let decision = decide_again(&world, &asked);
        let told: Vec<_> = decision.entries.iter().map(|e| (e.what, e.by.as_str())).collect();
        assert_eq!(told, [(entry, "ann")], "{what}");
        assert_eq!(decision.world.rollouts[&name("a")].phase, phase, "{what}");
        assert_eq!(decision.world.routes[&name("a")].spec == before, is_before, "{what}");
    }
}

#[test]
fn what_takes_a_candidate_away_is_not_put_off_and_all_else_is() {
    let stepping = stepping();
    let at_step = stepping.routes[&name("a")].spec.clone();
    let (one, two) = (RouteSpec::to(to("a@1")), RouteSpec::to(to("a@2")));
    let set = |world: &World, spec: &RouteSpec, at| {
        command(world, Command::SetRoute { route: name("a"), spec: spec.clone() }, at)
    };
    let promoted = command(&stepping, Command::Promote { route: name("a") }, 10);
    let back = command(&stepping, Command::Rollback { route: name("a") }, 10);
    let aborted = command(&stepping, Command::Abort { route: name("a") }, 10);
    let there_and_back = set(&set(&back, &two, 20), &one, 30);
    let cases = [
        ("a step", &stepping, &one, false),
        ("promoted", &promoted, &at_step, false),
        ("rolled back", &back, &at_step, true),
        ("aborted", &aborted, &at_step, true),
        ("rolled back before the step was seen", &back, &RouteSpec::to(to("a@9")), false),
        ("set by hand since", &there_and_back, &two, false),
        ("no such route", &World::default(), &two, false),
    ];
    for (what, world, led, is_back) in cases {
        assert_eq!(is_taken_back(world, &name("a"), led), is_back, "{what}");
    }
}

/// A route that takes about so many KiB.
fn wide(kib: usize) -> RouteSpec {
    let caller = |number: usize| (format!("{number:01000}").into(), to("b@1"));
    RouteSpec { pinned: (0..kib).map(caller).collect(), ..RouteSpec::to(to("b@1")) }
}

#[test]
fn no_command_makes_the_world_larger_than_the_store_can_keep() {
    let set = |route: &str, kib| Command::SetRoute { route: name(route), spec: wide(kib) };
    let decided = |world: &World, command: Command| {
        let input = Input::Command { command: command.clone(), by: "ann".to_owned() };
        let after = decide(world, &input, Timestamp(9)).unwrap().unwrap().world;
        check_size(&command, world, &after).map(|()| after)
    };
    let large = decided(&World::default(), set("a", 240)).unwrap();
    let large = decided(&large, set("b", 240)).unwrap();
    let refusal = decided(&large, set("c", 400)).unwrap_err();
    assert!(refusal.to_string().contains("KiB"), "{refusal}");
    assert!(matches!(refusal, Refusal::Invalid(_)), "{refusal:?}");
    let large = decided(&large, set("c", 200)).unwrap();
    let refused = decided(&large, start("a@2"));
    assert!(refused.is_err(), "what it would go back to is kept a second time");
    // From another release, as it were.
    let too_large = command(&large, set("d", 200), 10);
    assert!(decided(&too_large, set("d", 201)).is_err());
    assert!(decided(&too_large, set("d", 100)).is_ok(), "the way out stays open");
    assert!(decided(&too_large, Command::RemoveRoute { route: name("d") }).is_ok());
}

#[test]
fn there_is_room_to_take_everything_back() {
    let target = |number: usize| TargetSpec { to: to(&format!("b@{number}")), weight: 1.0 };
    let many = RouteSpec { targets: (1..500).map(target).collect(), ..RouteSpec::to(to("b@1")) };
    let set = Command::SetRoute { route: name("a"), spec: many };
    let world = command(&World::default(), set, 1);
    let stepping = tick(&command(&world, start("a@2"), 2), counted(0, 0), 3).unwrap().world;
    let promoted = command(&stepping, Command::Promote { route: name("a") }, 4);
    let back = command(&promoted, Command::Rollback { route: name("a") }, 5);
    assert!(bytes(&promoted) + 5_000 < bytes(&back), "it takes much less as it is");
    assert!(size(&promoted) + 200 >= bytes(&back), "what is said of it apart");
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
