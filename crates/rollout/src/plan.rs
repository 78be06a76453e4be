//! The plan: what to change of the routes, as a pure function of what was asked for and counted.
//!
//! The rules, in full:
//!
//! 1. A roll-out **starts** where none of its route is open and the candidate does not have all requests already. The
//!    route it finds, or makes where there is none, is kept as `before`. A target that is left open (`reviews`, the
//!    newest version) is first tied to the version in service: the candidate would become the newest, and rolling
//!    back would lead to it.
//! 2. It is **prepared** until every replica has the candidate in memory; no target and no shadow names it
//!    before. A candidate that cannot be loaded ends it, then and later.
//! 3. At each **step** the candidate gets the step's share, and the others share the rest in the proportions of
//!    `before`. With a guard on disagreement the route's shadow copies requests to the candidate, as long as the candidate does not
//!    have all of them.
//! 4. A step is left for the next when it has lasted `every`, every replica is ready **and** every guard is clearly
//!    kept. Too few samples hold it. The last step is judged likewise; then the candidate is **promoted** and
//!    has the route, as far as the last step says. At 100 % comparisons count as kept: the steps before were left
//!    because they were.
//! 5. One guard that is clearly **breached** rolls back at once, also during a pause: the route is `before`, whole.
//! 6. **Promote**, **abort** and **rollback** act at once. Rollback goes by nothing but `before`.
//! 7. While a roll-out is open its route changes by no other way. What the file says of it waits for the next start.
//! 8. A route is taken over from the **file** when the file's text for it is another than the one taken over last. What was
//!    changed since stays, as long as the file says the same; a route that left the file goes if it was never changed.
//!
//! Invariant: the same world, input and instant give the same decision, and an input that changes nothing gives none.

use std::collections::BTreeMap;

use outhaul_types::{Classify, Destination, ErrorKind, ModelName, RouteSpec};
use serde::{Deserialize, Serialize};

mod routes;
mod starting;
mod stepping;
mod text;

pub use crate::judge::{Judgement, Readiness, RolloutObserved, Verdict, judge};
use crate::world::{Rollout, RolloutSpec, RouteRecord, Timestamp, World};

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Makes or changes a route.
    SetRoute {
        /// Its name.
        route: ModelName,
        /// What it is from now on.
        spec: RouteSpec,
    },
    /// Takes a route away; requests for its name go to the model of that name again.
    RemoveRoute {
        /// Its name.
        route: ModelName,
    },
    /// Takes over what `outhaul.toml` says, at the start.
    Declare {
        /// All routes of the file.
        routes: BTreeMap<ModelName, RouteSpec>,
    },
    /// Starts a roll-out.
    Start {
        /// The route, which need not be there yet.
        route: ModelName,
        /// What to roll out, and how.
        spec: RolloutSpec,
        /// The exact version of the model `route` that answers now, where there is one.
        in_service: Option<Destination>,
    },
    /// Gives the candidate the last step's share at once and ends the roll-out.
    Promote {
        /// The route.
        route: ModelName,
    },
    /// Stays at the step under way until somebody resumes. Guards are judged all the same.
    Pause {
        /// The route.
        route: ModelName,
    },
    /// Goes on after a pause.
    Resume {
        /// The route.
        route: ModelName,
    },
    /// Ends a roll-out that has not been promoted; the route is as it was before.
    Abort {
        /// The route.
        route: ModelName,
    },
    /// Makes the route what it was before, also after promotion.
    Rollback {
        /// The route.
        route: ModelName,
    },
    /// Changes the weights of a route whose policy learns.
    Reweigh {
        /// The route.
        route: ModelName,
        /// One for each target, in their order.
        weights: Vec<f64>,
        /// What was learnt, for people.
        reason: String,
    },
}

/// What happens to the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one at a time; a box would be every caller's"
)]
pub enum Input {
    /// Somebody asks for something.
    Command {
        /// What.
        command: Command,
        /// Who: a caller's name, or what in the server asks.
        by: String,
    },
    /// Time passes.
    Tick(Observed),
}

/// What is known of the roll-outs under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// By route. A roll-out that is missing stays as it is.
    pub rollouts: BTreeMap<ModelName, RolloutObserved>,
}

/// One change, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// The route that changed.
    pub route: ModelName,
    /// The roll-out that changed it, or that changed itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// What happened.
    pub what: What,
    /// What changed and why, for people.
    pub text: String,
    /// Who asked for it; [`BY_PLAN`] where the plan did it by itself.
    pub by: String,
}

/// Who changes a route when nobody asked for it just now.
pub const BY_PLAN: &str = "outhaul";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A route was made or changed by hand.
    RouteSet,
    /// A route was taken away.
    RouteRemoved,
    /// A route was taken over from the file.
    RouteDeclared,
    /// The file says something else of a route, which waits because a roll-out of it is open.
    DeclarationHeld,
    /// A bandit changed the weights.
    Reweighed,
    /// A roll-out began: its candidate is being loaded.
    Started,
    /// A roll-out reached a step.
    Stepped,
    /// A roll-out was paused.
    Paused,
    /// A roll-out goes on.
    Resumed,
    /// The candidate took over.
    Promoted,
    /// The route is as it was before.
    RolledBack,
    /// The route is as it was before, on request.
    Aborted,
}

impl What {
    /// Returns a stable lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            What::RouteSet => "route_set",
            What::RouteRemoved => "route_removed",
            What::RouteDeclared => "route_declared",
            What::DeclarationHeld => "declaration_held",
            What::Reweighed => "reweighed",
            What::Started => "started",
            What::Stepped => "stepped",
            What::Paused => "paused",
            What::Resumed => "resumed",
            What::Promoted => "promoted",
            What::RolledBack => "rolled_back",
            What::Aborted => "aborted",
        }
    }
}

/// What to make of the world, and what to write down about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The world from now on; its generation is one above the former.
    pub world: World,
    /// At least one.
    pub entries: Vec<Entry>,
}

/// Why something that was asked for is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such route or roll-out.
    #[error("{0}")]
    NotFound(String),
    /// Not as things stand.
    #[error("{0}")]
    Conflict(String),
    /// It can never be; every problem.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl Classify for Refusal {
    fn kind(&self) -> ErrorKind {
        match self {
            Refusal::NotFound(_) => ErrorKind::NotFound,
            Refusal::Conflict(_) => ErrorKind::Conflict,
            Refusal::Invalid(_) => ErrorKind::InvalidInput,
        }
    }
}

/// Decides what changes. `None`: nothing does.
///
/// # Errors
///
/// Refuses a command that cannot be carried out; the world stays as it is.
pub fn decide(world: &World, input: &Input, now: Timestamp) -> Result<Option<Decision>, Refusal> {
    let mut draft = Draft { world: world.clone(), entries: Vec::new(), now, by: BY_PLAN };
    match input {
        Input::Command { command, by } => {
            draft.by = by;
            carry_out(&mut draft, command)?;
        }
        Input::Tick(observed) => {
            for (route, observed) in &observed.rollouts {
                stepping::tick(&mut draft, route, observed);
            }
        }
    }
    Ok(draft.finish())
}

fn carry_out(draft: &mut Draft<'_>, command: &Command) -> Result<(), Refusal> {
    match command {
        Command::SetRoute { route, spec } => routes::set(draft, route, spec),
        Command::RemoveRoute { route } => routes::remove(draft, route),
        Command::Declare { routes } => routes::declare(draft, routes),
        Command::Reweigh { route, weights, reason } => {
            routes::reweigh(draft, route, (weights, reason))
        }
        Command::Start { route, spec, in_service } => {
            starting::start(draft, route, (spec, in_service.as_ref()))
        }
        Command::Promote { route } => stepping::promote(draft, route),
        Command::Pause { route } => stepping::pause(draft, route),
        Command::Resume { route } => stepping::resume(draft, route),
        Command::Abort { route } => stepping::abort(draft, route),
        Command::Rollback { route } => stepping::roll_back(draft, route),
    }
}

/// A world that is being changed. Every change is noted, so that without entries nothing has changed.
struct Draft<'a> {
    world: World,
    entries: Vec<Entry>,
    now: Timestamp,
    by: &'a str,
}

impl Draft<'_> {
    fn note(&mut self, route: &ModelName, what: What, text: String) {
        self.entries.push(Entry {
            at: self.now,
            route: route.clone(),
            rollout: None,
            what,
            text,
            by: self.by.to_owned(),
        });
    }

    /// Puts a changed roll-out in place and says why it stands where it stands.
    fn note_rollout(&mut self, route: &ModelName, rollout: Rollout, (what, text): (What, String)) {
        self.note(route, what, text);
        if let Some(entry) = self.entries.last_mut() {
            entry.rollout = Some(rollout.id.clone());
        }
        self.world.rollouts.insert(route.clone(), rollout);
    }

    /// Makes a route what it is from now on, and returns how its shares change.
    fn put(&mut self, route: &ModelName, spec: RouteSpec) -> String {
        let record = self.world.routes.get(route);
        let change = text::change(record.map(|record| &record.spec), &spec);
        let declared = record.and_then(|record| record.declared.clone());
        let changed_at = match record {
            Some(record) if record.spec == spec => record.changed_at,
            _ => self.now,
        };
        self.world.routes.insert(route.clone(), RouteRecord { spec, declared, changed_at });
        change
    }

    /// Refuses where a roll-out of the route is open.
    fn free(&self, route: &ModelName) -> Result<(), Refusal> {
        match self.world.rollouts.get(route) {
            Some(open) if open.is_open() => Err(Refusal::Conflict(format!(
                "the roll-out {} of '{route}' to '{}' is open: promote, abort or roll it back first",
                open.id, open.spec.to
            ))),
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> Option<Decision> {
        if self.entries.is_empty() {
            return None;
        }
        self.world.generation += 1;
        Some(Decision { world: self.world, entries: self.entries })
    }
}

#[cfg(test)]
mod tests;
