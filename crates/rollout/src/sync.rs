//! What a replica does to agree with the others, decided purely: which world it goes by, who of all replicas
//! steps roll-outs, what their counts say together, and which versions have to be in memory.
//!
//! Invariant: a replica goes by the store's newest world that it has seen, and on top of it by what could not
//! wait for the store ([`Pending`]). What is pending is decided again on each newer world, so that nobody
//! else's change is undone, and is journalled once, whatever became of the world meanwhile.
//!
//! Clocks of replicas are never compared: whoever writes a record raises a number in it, and whoever reads it
//! notes by its own clock how long the number has stood still.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use outhaul_router::Standing;
use outhaul_types::{Destination, ModelName, ModelVersion, RouteSpec, SplitPolicy};
use serde::{Deserialize, Serialize};

use crate::plan::{
    BY_PLAN, Command, Decision, Entry, Input, Readiness, Refusal, RolloutObserved, decide,
};
use crate::world::{Phase, Rollout, Timestamp, World};

/// How long a version that a roll-out names may be missing from the repository's listing.
pub(crate) const ABSENT_LIMIT: Duration = Duration::from_secs(10);

/// Something that took effect here before the store knew of it.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// What happened.
    pub(crate) input: Input,
    /// When.
    pub(crate) at: Timestamp,
    /// The route and the roll-out that it was about.
    pub(crate) of: Option<Target>,
    /// What was written down then.
    pub(crate) entries: Vec<Entry>,
    /// The record of the journal that the last try to write it would have made, whose end is not known.
    pub(crate) tried: Option<(String, String)>,
}

/// One stage of one roll-out: what counts belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) route: ModelName,
    pub(crate) id: String,
    pub(crate) stage: String,
}

impl Target {
    /// Names where a route's newest roll-out stands in a world.
    pub(crate) fn in_world(world: &World, route: &ModelName) -> Option<Self> {
        let rollout = world.rollouts.get(route)?;
        Some(Target { route: route.clone(), id: rollout.id.clone(), stage: stage(rollout) })
    }
}

/// Names the stretch of a roll-out whose counts belong together.
pub(crate) fn stage(rollout: &Rollout) -> String {
    match rollout.phase {
        Phase::Preparing => "preparing".to_owned(),
        _ => rollout.step.to_string(),
    }
}

/// Every stage that a roll-out may have had.
pub(crate) fn stages(rollout: &Rollout) -> impl Iterator<Item = String> {
    let steps = (0..rollout.spec.steps.len()).map(|step| step.to_string());
    std::iter::once("preparing".to_owned()).chain(steps)
}

/// Returns whether counts that were taken at `target` still say something about the world.
pub(crate) fn fits(world: &World, target: &Target) -> bool {
    let is_open = world.rollouts.get(&target.route).is_some_and(Rollout::is_open);
    is_open && Target::in_world(world, &target.route).as_ref() == Some(target)
}

/// Decides what a pending change comes to in a newer world. There is always something: at least the entries,
/// since what they tell did happen here.
pub(crate) fn decide_again(world: &World, pending: &Pending) -> Decision {
    let decided = match (&pending.of, &pending.input) {
        (Some(of), Input::Tick(_)) if fits(world, of) => again(world, &pending.input, pending),
        // The roll-out went on elsewhere: the breach was real, whatever the step is now.
        (Some(of), Input::Tick(_)) if is_same_rollout(world, of) => {
            let command = Command::Rollback { route: of.route.clone() };
            let input = Input::Command { command, by: BY_PLAN.to_owned() };
            again(world, &input, pending).map(|decision| with_entries(decision, pending))
        }
        // It was promoted elsewhere: whoever aborted it was told that the route is as before.
        (Some(of), Input::Command { command: Command::Abort { route }, by })
            if is_promoted(world, of) =>
        {
            let command = Command::Rollback { route: route.clone() };
            again(world, &Input::Command { command, by: by.clone() }, pending)
        }
        // A roll-out that began since is not what was meant.
        (Some(of), _) if !is_same_rollout(world, of) => None,
        _ => again(world, &pending.input, pending),
    };
    decided.unwrap_or_else(|| {
        let world = World { generation: world.generation + 1, ..world.clone() };
        with_entries(Decision { world, entries: Vec::new() }, pending)
    })
}

fn again(world: &World, input: &Input, pending: &Pending) -> Option<Decision> {
    decide(world, input, pending.at).ok().flatten()
}

fn with_entries(decision: Decision, pending: &Pending) -> Decision {
    let noted = |entry: &Entry| {
        let text = format!("{} (taken while the state store was away)", entry.text);
        Entry { text, ..entry.clone() }
    };
    Decision { entries: pending.entries.iter().map(noted).collect(), ..decision }
}

fn is_same_rollout(world: &World, of: &Target) -> bool {
    world.rollouts.get(&of.route).is_some_and(|rollout| rollout.id == of.id)
}

fn is_promoted(world: &World, of: &Target) -> bool {
    let phase = world.rollouts.get(&of.route).map(|rollout| rollout.phase);
    is_same_rollout(world, of) && phase == Some(Phase::Promoted)
}

/// Returns the world that a replica goes by: the store's, and what is pending on top.
pub(crate) fn overlay(world: &World, pending: &[Pending]) -> World {
    let apply = |world: World, pending| decide_again(&world, pending).world;
    pending.iter().fold(world.clone(), apply)
}

/// Returns whether a decision takes a roll-out back, which cannot wait for the store.
pub(crate) fn rolls_back(before: &World, after: &World, route: &ModelName) -> bool {
    let was_open = before.rollouts.get(route).is_some_and(Rollout::is_open);
    let now = after.rollouts.get(route).map(|rollout| rollout.phase);
    was_open && now == Some(Phase::RolledBack)
}

/// Returns the route that a command takes back, where that is what it does: then it cannot wait for the store.
pub(crate) fn takes_back(command: &Command) -> Option<&ModelName> {
    match command {
        Command::Abort { route } | Command::Rollback { route } => Some(route),
        Command::SetRoute { .. }
        | Command::RemoveRoute { .. }
        | Command::Declare { .. }
        | Command::Start { .. }
        | Command::Promote { .. }
        | Command::Pause { .. }
        | Command::Resume { .. }
        | Command::Reweigh { .. } => None,
    }
}

/// Returns whether a route leads to the candidate of a roll-out (`led`) that the world has taken back: that is
/// not put off.
pub(crate) fn is_taken_back(world: &World, route: &ModelName, led: &RouteSpec) -> bool {
    let (Some(record), Some(rollout)) = (world.routes.get(route), world.rollouts.get(route)) else {
        return false;
    };
    let is_back = matches!(rollout.phase, Phase::RolledBack | Phase::Aborted)
        && record.spec == rollout.before
        // Nobody has changed it since.
        && rollout.ended_at.is_some_and(|ended| record.changed_at <= ended);
    is_back && led.destinations().any(|to| *to == rollout.spec.to)
}

/// The most bytes that a command may make of the world. The store keeps 1 MiB of it; what lies between is for
/// steps, and for what they and rollbacks say of themselves.
const WORLD_LIMIT: usize = 768 << 10;

/// Refuses a command that would make the world larger than the store could keep through all that may come.
pub(crate) fn check_size(command: &Command, before: &World, after: &World) -> Result<(), Refusal> {
    let grows = match command {
        Command::SetRoute { .. }
        | Command::Declare { .. }
        | Command::Start { .. }
        | Command::Reweigh { .. } => true,
        Command::RemoveRoute { .. }
        | Command::Promote { .. }
        | Command::Pause { .. }
        | Command::Resume { .. }
        | Command::Abort { .. }
        | Command::Rollback { .. } => false,
    };
    let bytes = size(after);
    if !grows || bytes <= WORLD_LIMIT || bytes <= size(before) {
        return Ok(());
    }
    let (bytes, limit) = (bytes.div_ceil(1 << 10), WORLD_LIMIT >> 10);
    Err(Refusal::Invalid(vec![format!(
        "all routes and roll-outs together would take {bytes} KiB, and the state store has room for {limit} \
         KiB of them: make routes smaller or remove some"
    )]))
}

/// Returns how many bytes a world takes, or would take if everything that can be taken back were.
fn size(world: &World) -> usize {
    let back = |(route, rollout): (&ModelName, &Rollout)| {
        let may_go_back = rollout.is_open() || rollout.phase == Phase::Promoted;
        let record = world.routes.get(route).filter(|_| may_go_back)?;
        Some(bytes(&rollout.before).saturating_sub(bytes(&record.spec)))
    };
    bytes(world) + world.rollouts.iter().filter_map(back).sum::<usize>()
}

fn bytes(value: &impl Serialize) -> usize {
    // What cannot be written at all fails when it is to be.
    serde_json::to_string(value).map_or(0, |text| text.len())
}

/// Returns the routes of a world.
pub(crate) fn routes(world: &World) -> BTreeMap<ModelName, RouteSpec> {
    world.routes.iter().map(|(name, record)| (name.clone(), record.spec.clone())).collect()
}

/// Returns the versions that have to be in memory: those that routes lead to, the candidates of open
/// roll-outs, and what each route would go back to. After a promotion that is held until somebody changes the
/// route, so that going back takes no load.
pub(crate) fn held(world: &World) -> BTreeSet<(ModelName, ModelVersion)> {
    let mut destinations: Vec<&Destination> = Vec::new();
    for record in world.routes.values() {
        destinations.extend(record.spec.destinations());
    }
    for (route, rollout) in &world.rollouts {
        let changed_at = world.routes.get(route).map(|record| record.changed_at);
        let is_newest = changed_at.zip(rollout.ended_at).is_some_and(|(at, ended)| at <= ended);
        if rollout.is_open() || rollout.phase == Phase::Promoted && is_newest {
            destinations.push(&rollout.spec.to);
            destinations.extend(&rollout.spec.from);
            destinations.extend(rollout.before.destinations());
        }
    }
    let exact = destinations.into_iter().filter_map(Destination::exact);
    exact.map(|(name, version)| (name.clone(), version)).collect()
}

/// Returns whether somebody has to step roll-outs or weigh variants.
pub(crate) fn needs_lease(world: &World) -> bool {
    let learns = |spec: &RouteSpec| spec.policy != SplitPolicy::Weights;
    world.rollouts.values().any(Rollout::is_open)
        || world.routes.values().any(|record| learns(&record.spec))
}

/// Who steps roll-outs, as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Who; empty where it was given back.
    pub(crate) replica: String,
    /// Raised by each renewal.
    pub(crate) beat: u64,
}

/// Decides whether to take or renew the lease: `Some` is what to write. `still` is how long what is there has
/// not changed.
pub(crate) fn lease(
    found: Option<&Lease>,
    still: Duration,
    limit: Duration,
    replica: &str,
) -> Option<Lease> {
    let beat = found.map_or(0, |lease| lease.beat) + 1;
    let is_free =
        |lease: &Lease| lease.replica.is_empty() || lease.replica == replica || still >= limit;
    found.is_none_or(is_free).then(|| Lease { replica: replica.to_owned(), beat })
}

/// What one replica has counted, as the store holds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Raised each time it is written.
    pub(crate) beat: u64,
    pub(crate) observed: RolloutObserved,
}

/// How long numbers have stood still, by this process's clock.
#[derive(Debug, Default)]
pub(crate) struct Pulse(BTreeMap<String, (u64, Instant)>);

impl Pulse {
    /// Notes a number, and returns for how long it has not changed.
    pub(crate) fn note(&mut self, who: &str, beat: u64, now: Instant) -> Duration {
        let known = self.0.entry(who.to_owned()).or_insert((beat, now));
        if known.0 != beat {
            *known = (beat, now);
        }
        now.saturating_duration_since(known.1)
    }
}

/// Adds up what the replicas have counted. Those of a replica that is gone still count, but only those that
/// live (`true`) have to be ready.
pub(crate) fn sum<'a>(
    rows: impl IntoIterator<Item = (&'a RolloutObserved, bool)>,
) -> RolloutObserved {
    let mut total = RolloutObserved::default();
    let mut ready: Option<Readiness> = None;
    for (row, lives) in rows {
        total.candidate.merge(&row.candidate);
        total.other.merge(&row.other);
        total.shadow.merge(&row.shadow);
        if lives {
            ready = Some(match (ready, &row.ready) {
                (Some(failed @ Readiness::Failed(_)), _) => failed,
                (_, failed @ Readiness::Failed(_)) => failed.clone(),
                (Some(Readiness::Loading), _) | (_, Readiness::Loading) => Readiness::Loading,
                (None | Some(Readiness::Ready), Readiness::Ready) => Readiness::Ready,
            });
        }
    }
    total.ready = ready.unwrap_or(Readiness::Loading);
    total
}

/// Tells whether this replica has a version in memory, by how it stands in the repository and for how long it
/// has been asked for.
pub(crate) fn readiness(
    destination: &Destination,
    standing: Option<(Standing, &str)>,
    asked_for: Duration,
) -> Readiness {
    match standing {
        Some((Standing::Ready, _)) => Readiness::Ready,
        Some((Standing::Failed, reason)) => Readiness::Failed(reason.to_owned()),
        Some((Standing::Loading | Standing::Dormant, _)) => Readiness::Loading,
        // The repository may not have heard yet that it is to be loaded, or files may still come.
        None | Some((Standing::Unloaded, _)) if asked_for < ABSENT_LIMIT => Readiness::Loading,
        Some((Standing::Unloaded, _)) => Readiness::Failed(format!("'{destination}' is unloaded")),
        None => Readiness::Failed(format!("there is no '{destination}' here")),
    }
}

#[cfg(test)]
mod tests;
