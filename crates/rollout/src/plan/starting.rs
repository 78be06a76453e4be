//! The start of a roll-out: what can be rolled out, and what it can be rolled back to.

use outhaul_types::{Destination, ModelName, RouteSpec, TargetSpec, VersionChoice};

use super::{Draft, Refusal, What};
use crate::guard::Guard;
use crate::world::{Phase, Rollout, RolloutSpec};

pub(super) fn start(
    draft: &mut Draft<'_>,
    route: &ModelName,
    (spec, in_service): (&RolloutSpec, Option<&Destination>),
) -> Result<(), Refusal> {
    draft.free(route)?;
    let found = draft.world.routes.get(route).map(|record| &record.spec);
    let problems = problems(spec, found);
    if !problems.is_empty() {
        return Err(Refusal::Invalid(problems));
    }
    let before = before(route, found, (spec, in_service))?;
    let shares = before.targets.iter().zip(before.shares());
    let others = shares.filter(|(target, _)| target.to != spec.to);
    let Some((largest, share)) = others.max_by(|left, right| left.1.total_cmp(&right.1)) else {
        return Err(takes_all(route, spec));
    };
    if share == 0.0 {
        return Err(takes_all(route, spec));
    }
    let from = spec.from.clone().filter(|from| before.targets.iter().any(|to| to.to == *from));
    let from = from.unwrap_or_else(|| largest.to.clone());
    let change = draft.put(route, before.clone());
    let reason = format!("'{}' is being loaded; route: {change}", spec.to);
    let rollout = Rollout {
        id: format!("{route}-{}", draft.world.generation + 1),
        spec: RolloutSpec { from: Some(from), ..spec.clone() },
        before,
        phase: Phase::Preparing,
        step: 0,
        step_since: draft.now,
        started_at: draft.now,
        ended_at: None,
        reason: reason.clone(),
    };
    draft.note_rollout(route, rollout, (What::Started, reason));
    Ok(())
}

fn takes_all(route: &ModelName, spec: &RolloutSpec) -> Refusal {
    Refusal::Conflict(format!("'{}' gets all requests for '{route}' already", spec.to))
}

/// Everything that is wrong with what was asked for.
fn problems(spec: &RolloutSpec, route: Option<&RouteSpec>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut problem = |is_wrong: bool, text: String| {
        if is_wrong {
            problems.push(text);
        }
    };
    let steps = &spec.steps;
    problem(steps.is_empty(), "steps must name at least one share".to_owned());
    let is_share = |step: &f64| *step > 0.0 && *step <= 100.0;
    problem(!steps.iter().all(is_share), "steps must be above 0 and at most 100".to_owned());
    let ascend = steps.windows(2).all(|pair| pair[0] < pair[1]);
    problem(!ascend, "steps must ascend".to_owned());
    let is_rate = spec.false_alarm > 0.0 && spec.false_alarm <= 0.5;
    problem(!is_rate, "false_alarm must be above 0 and at most 0.5".to_owned());
    let is_mirror = spec.mirror > 0.0 && spec.mirror <= 1.0;
    problem(!is_mirror, "mirror must be above 0 and at most 1".to_owned());
    let only_all = steps.first() == Some(&100.0);
    for (index, guard) in spec.guards.iter().enumerate() {
        let is_twice = spec.guards[..index].contains(guard);
        problem(is_twice, format!("the guard '{guard}' is there twice"));
        problem(
            only_all && guard.is_relative(),
            format!("'{guard}' compares with the version before: it needs a step below 100"),
        );
        let is_within = is_possible(guard);
        problem(!is_within, format!("the guard '{guard}' can never be breached or never kept"));
    }
    if let Some(from) = &spec.from {
        problem(*from == spec.to, format!("'{from}' cannot replace itself"));
        let may_be = route.is_none_or(|route| {
            route.targets.iter().any(|target| target.to == *from || ties(from, &target.to))
        });
        problem(!may_be, format!("the route does not lead to '{from}'"));
    }
    problems
}

/// Guards read from text are; others may have been made by hand.
fn is_possible(guard: &Guard) -> bool {
    let is_inside = |share: f64| share > 0.0 && share < 1.0;
    match *guard {
        Guard::ErrorRate { below } | Guard::Disagreement { below } => is_inside(below),
        Guard::ErrorRatio { below } => below.is_finite() && below >= 1.0,
        Guard::Latency { quantile, below } => is_inside(quantile) && !below.is_zero(),
        Guard::LatencyRatio { quantile, below } => {
            is_inside(quantile) && below.is_finite() && below >= 1.0
        }
    }
}

/// Finds what the route was, or would have been, with nothing left open that the candidate could become.
fn before(
    route: &ModelName,
    found: Option<&RouteSpec>,
    (spec, in_service): (&RolloutSpec, Option<&Destination>),
) -> Result<RouteSpec, Refusal> {
    let before = match (found, spec.from.as_ref().or(in_service)) {
        (Some(found), _) => found.clone(),
        (None, Some(from)) => RouteSpec::to(from.clone()),
        (None, None) => {
            return Err(Refusal::NotFound(format!(
                "there is no route '{route}' and no model of that name answers: say what to replace (from)"
            )));
        }
    };
    let mut targets: Vec<TargetSpec> = Vec::new();
    for target in &before.targets {
        let to = match moves_with(&spec.to, &target.to) {
            true => tie(&target.to, (spec, in_service))?,
            false => target.to.clone(),
        };
        match targets.iter_mut().find(|earlier| earlier.to == to) {
            Some(earlier) => earlier.weight += target.weight,
            None => targets.push(TargetSpec { to, weight: target.weight }),
        }
    }
    Ok(RouteSpec { targets, ..before })
}

/// Whether a target is the newest version of the candidate's model, which the candidate may become.
fn moves_with(candidate: &Destination, target: &Destination) -> bool {
    candidate != target
        && candidate.model() == target.model()
        && matches!(target, Destination::Model { version: VersionChoice::Latest, .. })
}

/// Whether a destination is an exact version of a model whose newest is a target.
fn ties(exact: &Destination, target: &Destination) -> bool {
    let model = exact.exact().map(|(model, _)| model);
    let is_newest = matches!(target, Destination::Model { version: VersionChoice::Latest, .. });
    is_newest && model.is_some() && model == target.model()
}

fn tie(
    target: &Destination,
    (spec, in_service): (&RolloutSpec, Option<&Destination>),
) -> Result<Destination, Refusal> {
    let exact = spec.from.iter().chain(in_service).find(|exact| ties(exact, target));
    exact.cloned().ok_or_else(|| {
        Refusal::Conflict(format!(
            "the route leads to '{target}', the newest version, which '{}' may become: say which \
             version it is to be compared with and rolled back to (from)",
            spec.to
        ))
    })
}
