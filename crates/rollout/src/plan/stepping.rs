//! A roll-out under way: its steps, and its ends.

use outhaul_types::{ModelName, RouteSpec, ShadowSpec, SplitPolicy, TargetSpec};

use super::{Draft, Refusal, What, text};
use crate::guard::Guard;
use crate::judge::{Judgement, Readiness, RolloutObserved, Verdict, judge};
use crate::world::{Phase, Rollout, Timestamp};

/// What becomes of a roll-out now.
enum Move {
    Stay,
    Step(usize, String),
    Promote(String),
    RollBack(String),
}

/// Takes a roll-out where its counts lead it.
pub(super) fn tick(draft: &mut Draft<'_>, route: &ModelName, observed: &RolloutObserved) {
    let Some(rollout) = draft.world.rollouts.get(route).filter(|rollout| rollout.is_open()) else {
        return;
    };
    let rollout = rollout.clone();
    match next(&rollout, observed, draft.now) {
        Move::Stay => {}
        Move::Step(step, reason) => enter(draft, route, (rollout, step, reason)),
        Move::Promote(reason) => {
            end(draft, route, (rollout, What::Promoted, reason));
        }
        Move::RollBack(reason) => {
            end(draft, route, (rollout, What::RolledBack, reason));
        }
    }
}

fn next(rollout: &Rollout, observed: &RolloutObserved, now: Timestamp) -> Move {
    if let Readiness::Failed(reason) = &observed.ready {
        return Move::RollBack(format!("'{}' cannot be loaded: {reason}", rollout.spec.to));
    }
    if rollout.phase == Phase::Preparing {
        return match observed.ready {
            Readiness::Ready => Move::Step(0, "every replica has it in memory".to_owned()),
            _ => Move::Stay,
        };
    }
    let judgements = judge(rollout, observed);
    let breached = texts(&judgements, |judgement| judgement.verdict == Verdict::Breached);
    if !breached.is_empty() {
        return Move::RollBack(format!("breached: {}", breached.join("; ")));
    }
    let holds = rollout.phase == Phase::Paused
        || observed.ready != Readiness::Ready
        || now.since(rollout.step_since) < rollout.spec.every
        || judgements.iter().any(|judgement| judgement.verdict != Verdict::Keeps);
    if holds {
        return Move::Stay;
    }
    let after = humantime::format_duration(now.since(rollout.step_since));
    let mut reason = format!("after {after} at {}", text::percent(rollout.share() / 100.0));
    let kept = texts(&judgements, |_| true);
    if !kept.is_empty() {
        reason = format!("{reason}, kept: {}", kept.join("; "));
    }
    match rollout.step + 1 {
        step if step < rollout.spec.steps.len() => Move::Step(step, reason),
        _ => Move::Promote(reason),
    }
}

fn texts(judgements: &[Judgement], which: impl Fn(&Judgement) -> bool) -> Vec<&str> {
    let chosen = judgements.iter().filter(|judgement| which(judgement));
    chosen.map(|judgement| judgement.text.as_str()).collect()
}

/// Gives the candidate a step's share.
fn enter(draft: &mut Draft<'_>, route: &ModelName, (rollout, step, why): (Rollout, usize, String)) {
    let entered = Rollout {
        phase: Phase::Stepping,
        step,
        step_since: draft.now,
        reason: why.clone(),
        ..rollout
    };
    let change = draft.put(route, route_at_step(&entered));
    draft.note_rollout(route, entered, (What::Stepped, format!("{change}: {why}")));
}

/// The route while the candidate has its step's share.
fn route_at_step(rollout: &Rollout) -> RouteSpec {
    let (spec, before) = (&rollout.spec, &rollout.before);
    let compares = spec.guards.iter().any(|guard| matches!(guard, Guard::Disagreement { .. }));
    let shadow = match compares && !rollout.candidate_is_alone() {
        false => before.shadow.clone(),
        true => {
            // How many at once, and how to compare: as somebody declared it, where somebody did.
            let like = before.shadow.clone().unwrap_or_else(|| ShadowSpec::to(spec.to.clone()));
            Some(ShadowSpec { to: spec.to.clone(), share: spec.mirror, ..like })
        }
    };
    let targets = targets_at(rollout);
    RouteSpec { targets, shadow, policy: SplitPolicy::Weights, ..before.clone() }
}

/// The candidate at its step's share; the others keep their proportions. Weights are percent.
fn targets_at(rollout: &Rollout) -> Vec<TargetSpec> {
    let (to, share, before) = (&rollout.spec.to, rollout.share(), &rollout.before);
    let candidate = TargetSpec { to: to.clone(), weight: share };
    if rollout.candidate_is_alone() {
        return vec![candidate];
    }
    let others: Vec<&TargetSpec> =
        before.targets.iter().filter(|target| target.to != *to).collect();
    let sum: f64 = others.iter().map(|target| target.weight).sum();
    let rest = |target: &TargetSpec| TargetSpec {
        to: target.to.clone(),
        weight: target.weight / sum * (100.0 - share),
    };
    others.into_iter().map(rest).chain([candidate]).collect()
}

/// The route after promotion: what is not about shares is as it was before.
fn route_promoted(rollout: &Rollout) -> RouteSpec {
    let before = &rollout.before;
    // A shadow of what gets all requests would compare it with itself.
    let is_idle =
        |shadow: &ShadowSpec| rollout.candidate_is_alone() && shadow.to == rollout.spec.to;
    let shadow = before.shadow.clone().filter(|shadow| !is_idle(shadow));
    RouteSpec { targets: targets_at(rollout), shadow, ..before.clone() }
}

/// Ends a roll-out, one way or another.
fn end(draft: &mut Draft<'_>, route: &ModelName, (rollout, how, why): (Rollout, What, String)) {
    let phase = match how {
        What::Promoted => Phase::Promoted,
        What::Aborted => Phase::Aborted,
        _ => Phase::RolledBack,
    };
    let last = rollout.spec.steps.len() - 1;
    let ended = Rollout {
        phase,
        step: if phase == Phase::Promoted { last } else { rollout.step },
        ended_at: Some(draft.now),
        reason: why.clone(),
        ..rollout
    };
    let spec = match phase {
        Phase::Promoted => route_promoted(&ended),
        _ => ended.before.clone(),
    };
    let change = draft.put(route, spec);
    draft.note_rollout(route, ended, (how, format!("{change}: {why}")));
}

pub(super) fn promote(draft: &mut Draft<'_>, route: &ModelName) -> Result<(), Refusal> {
    let rollout = newest(draft, route)?;
    match rollout.phase {
        Phase::Promoted => Ok(()),
        Phase::Preparing => {
            Err(Refusal::Conflict(format!("'{}' is still being loaded", rollout.spec.to)))
        }
        Phase::RolledBack | Phase::Aborted => Err(over(&rollout)),
        Phase::Stepping | Phase::Paused => {
            let why = by(draft);
            end(draft, route, (rollout, What::Promoted, why));
            Ok(())
        }
    }
}

pub(super) fn pause(draft: &mut Draft<'_>, route: &ModelName) -> Result<(), Refusal> {
    let rollout = newest(draft, route)?;
    match rollout.phase {
        Phase::Paused => Ok(()),
        Phase::Preparing => Err(Refusal::Conflict(format!(
            "'{}' is still being loaded and gets no requests: there is nothing to pause",
            rollout.spec.to
        ))),
        Phase::Promoted | Phase::RolledBack | Phase::Aborted => Err(over(&rollout)),
        Phase::Stepping => {
            let text = format!("stays at {}", text::percent(rollout.share() / 100.0));
            let reason = by(draft);
            let paused = Rollout { phase: Phase::Paused, reason, ..rollout };
            draft.note_rollout(route, paused, (What::Paused, text));
            Ok(())
        }
    }
}

pub(super) fn resume(draft: &mut Draft<'_>, route: &ModelName) -> Result<(), Refusal> {
    let rollout = newest(draft, route)?;
    match rollout.phase {
        Phase::Stepping | Phase::Preparing => Ok(()),
        Phase::Promoted | Phase::RolledBack | Phase::Aborted => Err(over(&rollout)),
        Phase::Paused => {
            let text = format!("goes on from {}", text::percent(rollout.share() / 100.0));
            let reason = by(draft);
            let resumed = Rollout { phase: Phase::Stepping, reason, ..rollout };
            draft.note_rollout(route, resumed, (What::Resumed, text));
            Ok(())
        }
    }
}

pub(super) fn abort(draft: &mut Draft<'_>, route: &ModelName) -> Result<(), Refusal> {
    let rollout = newest(draft, route)?;
    match rollout.phase {
        Phase::Aborted => Ok(()),
        Phase::Promoted => Err(Refusal::Conflict(format!(
            "the roll-out {} has been promoted: roll it back",
            rollout.id
        ))),
        Phase::RolledBack => Err(over(&rollout)),
        Phase::Preparing | Phase::Stepping | Phase::Paused => {
            let why = by(draft);
            end(draft, route, (rollout, What::Aborted, why));
            Ok(())
        }
    }
}

pub(super) fn roll_back(draft: &mut Draft<'_>, route: &ModelName) -> Result<(), Refusal> {
    let rollout = newest(draft, route)?;
    let is_back = draft.world.routes.get(route).is_some_and(|now| now.spec == rollout.before);
    match rollout.phase {
        Phase::RolledBack | Phase::Aborted if is_back => Ok(()),
        // Somebody has changed the route since; that was not this roll-out.
        Phase::RolledBack | Phase::Aborted => Err(over(&rollout)),
        Phase::Promoted if was_changed(draft, route, &rollout) => Err(Refusal::Conflict(format!(
            "'{route}' was changed after {} was promoted: set the route to where it is to lead",
            rollout.id
        ))),
        Phase::Preparing | Phase::Stepping | Phase::Paused | Phase::Promoted => {
            let why = by(draft);
            end(draft, route, (rollout, What::RolledBack, why));
            Ok(())
        }
    }
}

/// Whether somebody has changed the route since the roll-out ended.
fn was_changed(draft: &Draft<'_>, route: &ModelName, rollout: &Rollout) -> bool {
    let changed = draft.world.routes.get(route).map(|record| record.changed_at);
    changed.zip(rollout.ended_at).is_some_and(|(changed, ended)| changed > ended)
}

fn newest(draft: &Draft<'_>, route: &ModelName) -> Result<Rollout, Refusal> {
    let rollout = draft.world.rollouts.get(route).cloned();
    rollout.ok_or_else(|| Refusal::NotFound(format!("there is no roll-out of '{route}'")))
}

fn over(rollout: &Rollout) -> Refusal {
    Refusal::Conflict(format!("the roll-out {} is over: {}", rollout.id, rollout.reason))
}

fn by(draft: &Draft<'_>) -> String {
    format!("asked for by {}", draft.by)
}
