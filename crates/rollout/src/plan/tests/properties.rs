//! What holds after any sequence of inputs.

use std::collections::BTreeSet;

use outhaul_types::TargetSpec;
use proptest::prelude::*;

use super::*;
use crate::world::Phase;

const ROUTES: [&str; 2] = ["reviews", "prices"];

#[derive(Clone, Debug)]
enum Act {
    Set(usize, Vec<(u64, u8)>, bool),
    Remove(usize),
    Declare(Vec<(usize, u64)>),
    Start { route: usize, to: u64, from: Option<u64>, steps: Vec<u8>, disagreement: bool },
    Ask(usize, u8),
    Reweigh(usize, Vec<u8>),
    Tick { route: usize, minutes: u8, ready: u8, bad: bool, many: bool },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let route = || 0..ROUTES.len();
    let version = || 1u64..5;
    let act = prop_oneof![
        1 => (route(), prop::collection::vec((version(), 0u8..4), 0..4), any::<bool>())
            .prop_map(|(route, targets, learns)| Act::Set(route, targets, learns)),
        1 => route().prop_map(Act::Remove),
        1 => prop::collection::vec((route(), version()), 0..3).prop_map(Act::Declare),
        3 => (
            route(),
            version(),
            prop::option::of(version()),
            prop::collection::vec(0u8..=100, 1..4),
            any::<bool>(),
        )
            .prop_map(|(route, to, from, mut steps, disagreement)| {
                steps.sort_unstable();
                Act::Start { route, to, from, steps, disagreement }
            }),
        3 => (route(), 0u8..5).prop_map(|(route, what)| Act::Ask(route, what)),
        1 => (route(), prop::collection::vec(0u8..4, 1..4))
            .prop_map(|(route, weights)| Act::Reweigh(route, weights)),
        8 => (route(), 0u8..20, 0u8..12, 0u8..8, any::<bool>()).prop_map(
            |(route, minutes, ready, bad, many)| {
                Act::Tick { route, minutes, ready, bad: bad == 0, many }
            }
        ),
    ];
    prop::collection::vec(act, 1..40)
}

fn name(route: usize) -> ModelName {
    ModelName::new(ROUTES[route]).unwrap()
}

/// Version 4 is written as the newest one.
fn destination(route: usize, version: u64) -> Destination {
    match version {
        4 => ROUTES[route].parse().unwrap(),
        version => format!("{}@{version}", ROUTES[route]).parse().unwrap(),
    }
}

fn spec_of(route: usize, targets: &[(u64, u8)], learns: bool) -> RouteSpec {
    let target = |&(version, weight): &(u64, u8)| TargetSpec {
        to: destination(route, version),
        weight: f64::from(weight),
    };
    RouteSpec {
        targets: targets.iter().map(target).collect(),
        policy: match learns {
            true => outhaul_types::SplitPolicy::Thompson,
            false => outhaul_types::SplitPolicy::Weights,
        },
        feedback: learns,
        ..RouteSpec::to(destination(route, 1))
    }
}

fn input(act: &Act) -> Input {
    let command = match act {
        Act::Tick { route, ready, bad, many, .. } => {
            let n = if *many { 1_000_000 } else { 30 };
            let seen = RolloutObserved {
                ready: match ready {
                    0 => Readiness::Failed("no memory".to_owned()),
                    1 | 2 => Readiness::Loading,
                    _ => Readiness::Ready,
                },
                candidate: counts(n, Duration::from_millis(20), if *bad { n } else { 0 }),
                shadow: ShadowCounts { compared: n, ..ShadowCounts::default() },
                ..RolloutObserved::default()
            };
            return Input::Tick(Observed { rollouts: [(name(*route), seen)].into() });
        }
        Act::Set(route, targets, learns) => {
            Command::SetRoute { route: name(*route), spec: spec_of(*route, targets, *learns) }
        }
        Act::Remove(route) => Command::RemoveRoute { route: name(*route) },
        Act::Declare(routes) => {
            let routes = routes.iter().map(|&(r, v)| (name(r), RouteSpec::to(destination(r, v))));
            Command::Declare { routes: routes.collect() }
        }
        Act::Start { route, to, from, steps, disagreement } => {
            let guards = ["error_rate<1%", "disagreement<5%"];
            let guards = &guards[..if *disagreement { 2 } else { 1 }];
            let steps: Vec<f64> = steps.iter().copied().map(f64::from).collect();
            let from = from.map(|from| destination(*route, from));
            let spec = json!({
                "to": destination(*route, *to), "from": from, "steps": steps, "guards": guards,
            });
            Command::Start {
                route: name(*route),
                spec: serde_json::from_value(spec).unwrap(),
                in_service: Some(destination(*route, 3)),
            }
        }
        Act::Ask(route, what) => {
            let route = name(*route);
            match what {
                0 => Command::Promote { route },
                1 => Command::Pause { route },
                2 => Command::Resume { route },
                3 => Command::Abort { route },
                _ => Command::Rollback { route },
            }
        }
        Act::Reweigh(route, weights) => Command::Reweigh {
            route: name(*route),
            weights: weights.iter().copied().map(f64::from).collect(),
            reason: "rewards".to_owned(),
        },
    };
    Input::Command { command, by: "anna".to_owned() }
}

/// What holds of a world at any time. `ready` are the roll-outs whose candidate has been ready.
fn check(world: &World, ready: &BTreeSet<String>) {
    for (name, record) in &world.routes {
        record.spec.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        let sum: f64 = record.spec.shares().iter().sum();
        assert!((sum - 1.0).abs() < 1e-9, "{name}: {sum}");
    }
    for (name, rollout) in &world.rollouts {
        let record = world.routes.get(name);
        let spec = &record.unwrap_or_else(|| panic!("{name}: a roll-out without a route")).spec;
        let to = &rollout.spec.to;
        let share = spec.targets.iter().zip(spec.shares()).find(|(target, _)| target.to == *to);
        let share = share.map_or(0.0, |(_, share)| share * 100.0);
        assert_eq!(rollout.is_open(), rollout.ended_at.is_none(), "{name}");
        match rollout.phase {
            Phase::Preparing => assert_eq!(*spec, rollout.before, "{name}"),
            Phase::Stepping | Phase::Paused => {
                assert!(ready.contains(&rollout.id), "{name}: a split names it before it is ready");
                assert!((share - rollout.share()).abs() < 1e-9, "{name}: {share}");
                let held = crate::sync::held(world);
                let exact = rollout.before.destinations().filter_map(Destination::exact);
                let mut exact = exact.map(|(name, version)| (name.clone(), version));
                assert!(exact.all(|version| held.contains(&version)), "{name}");
            }
            Phase::Promoted | Phase::RolledBack | Phase::Aborted => {}
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_of_inputs_keeps_what_is_promised(acts in acts()) {
        let (mut world, mut now) = (World::default(), Timestamp(0));
        let mut ready = BTreeSet::new();
        for act in acts {
            if let Act::Tick { minutes, .. } = &act {
                now.0 += i64::from(*minutes) * 60_000;
            }
            if let Act::Tick { route, ready: 3.., .. } = &act
                && let Some(rollout) = world.rollouts.get(&name(*route))
            {
                ready.insert(rollout.id.clone());
            }
            let input = input(&act);
            let Ok(Some(decision)) = decide(&world, &input, now) else { continue };
            assert_eq!(decision.world.generation, world.generation + 1);
            assert!(!decision.entries.is_empty());
            for entry in &decision.entries {
                let back = matches!(entry.what, What::RolledBack | What::Aborted);
                if back {
                    let before = &world.rollouts[&entry.route].before;
                    assert_eq!(decision.world.routes[&entry.route].spec, *before, "{act:?}");
                }
            }
            world = decision.world;
            check(&world, &ready);
            // What was asked for has been done: asking again changes nothing, or is refused.
            if let Input::Command { command, .. } = &input
                && !matches!(command, Command::Declare { .. })
            {
                assert_eq!(decide(&world, &input, now).unwrap_or(None), None, "{act:?}");
            }
        }
    }
}
