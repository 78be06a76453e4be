//! Routes changed by hand, by the file, and by what was learnt.

use std::collections::BTreeMap;

use outhaul_types::{ModelName, RouteSpec, SplitPolicy, TargetSpec};

use super::{Draft, Refusal, What, text};
use crate::world::RouteRecord;

pub(super) fn set(
    draft: &mut Draft<'_>,
    route: &ModelName,
    spec: &RouteSpec,
) -> Result<(), Refusal> {
    spec.check().map_err(|error| Refusal::Invalid(vec![error.to_string()]))?;
    draft.free(route)?;
    if draft.world.routes.get(route).is_some_and(|record| record.spec == *spec) {
        return Ok(());
    }
    let change = draft.put(route, spec.clone());
    draft.note(route, What::RouteSet, change);
    Ok(())
}

/// What is known of an ended roll-out goes with its route: there is nothing to roll back any more.
pub(super) fn remove(draft: &mut Draft<'_>, route: &ModelName) -> Result<(), Refusal> {
    draft.free(route)?;
    let Some(record) = draft.world.routes.remove(route) else {
        return Err(no_route(route));
    };
    draft.world.rollouts.remove(route);
    let text = format!("is gone; it led to {}", text::shares(&record.spec));
    draft.note(route, What::RouteRemoved, text);
    Ok(())
}

pub(super) fn declare(
    draft: &mut Draft<'_>,
    routes: &BTreeMap<ModelName, RouteSpec>,
) -> Result<(), Refusal> {
    let check = |(route, spec): (&ModelName, &RouteSpec)| {
        spec.check().err().map(|error| format!("routes.{route}: {error}"))
    };
    let problems: Vec<String> = routes.iter().filter_map(check).collect();
    if !problems.is_empty() {
        return Err(Refusal::Invalid(problems));
    }
    for (route, spec) in routes {
        declare_one(draft, route, spec);
    }
    let is_left = |(route, record): (&ModelName, &RouteRecord)| {
        let is_unchanged = record.declared.as_ref() == Some(&record.spec);
        let goes = is_unchanged && !routes.contains_key(route) && draft.free(route).is_ok();
        goes.then(|| route.clone())
    };
    let left: Vec<ModelName> = draft.world.routes.iter().filter_map(is_left).collect();
    for route in left {
        draft.world.routes.remove(&route);
        draft.world.rollouts.remove(&route);
        draft.note(&route, What::RouteRemoved, "is no longer in outhaul.toml".to_owned());
    }
    Ok(())
}

fn declare_one(draft: &mut Draft<'_>, route: &ModelName, spec: &RouteSpec) {
    let declared = draft.world.routes.get(route).and_then(|record| record.declared.as_ref());
    if declared == Some(spec) {
        return;
    }
    if draft.free(route).is_err() {
        let text = "outhaul.toml says something else of it, which waits for the first start after \
                    the roll-out";
        draft.note(route, What::DeclarationHeld, text.to_owned());
        return;
    }
    let change = draft.put(route, spec.clone());
    if let Some(record) = draft.world.routes.get_mut(route) {
        record.declared = Some(spec.clone());
    }
    draft.note(route, What::RouteDeclared, change);
}

pub(super) fn reweigh(
    draft: &mut Draft<'_>,
    route: &ModelName,
    (weights, reason): (&[f64], &str),
) -> Result<(), Refusal> {
    draft.free(route)?;
    let Some(record) = draft.world.routes.get(route) else { return Err(no_route(route)) };
    let invalid = |problem: String| Err(Refusal::Invalid(vec![problem]));
    if record.spec.policy == SplitPolicy::Weights {
        return Err(Refusal::Conflict(format!("the weights of '{route}' are not learnt")));
    }
    let targets = &record.spec.targets;
    if targets.len() != weights.len() {
        let (expected, found) = (targets.len(), weights.len());
        return invalid(format!("'{route}' has {expected} targets, there are {found} weights"));
    }
    let reweighed =
        |(target, &weight): (&TargetSpec, &f64)| TargetSpec { weight, ..target.clone() };
    let targets = targets.iter().zip(weights).map(reweighed).collect();
    let spec = RouteSpec { targets, ..record.spec.clone() };
    if let Err(error) = spec.check() {
        return invalid(error.to_string());
    }
    if spec == record.spec {
        return Ok(());
    }
    let change = draft.put(route, spec);
    draft.note(route, What::Reweighed, format!("{change}: {reason}"));
    Ok(())
}

fn no_route(route: &ModelName) -> Refusal {
    Refusal::NotFound(format!("there is no route '{route}'"))
}
