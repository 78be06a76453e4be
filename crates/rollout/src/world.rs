//! Everything that is decided of traffic, as one value: the routes and the roll-outs under way.
//!
//! A [`World`] is what replicas share. It changes only by [`decide`](crate::plan::decide), as a whole, and each
//! change raises its generation by one; a store keeps it under one key and refuses a change that was made from an
//! older generation. Its JSON form is what the store holds.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use outhaul_types::{Destination, ModelName, RouteSpec, duration};
use serde::{Deserialize, Serialize};

use crate::guard::Guard;

/// Milliseconds since 1970, by the clock of whoever wrote them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns this moment by the clock of this machine, for whoever passes it on.
    pub fn now() -> Self {
        let since = UNIX_EPOCH.elapsed().unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Returns the time since an earlier moment; zero where it is not earlier.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

/// The routes and the roll-outs of all replicas.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// Raised by each change.
    pub generation: u64,
    /// The routes, by name.
    pub routes: BTreeMap<ModelName, RouteRecord>,
    /// The newest roll-out of each route, by the route's name. One that has ended stays until the next begins.
    pub rollouts: BTreeMap<ModelName, Rollout>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRecord {
    /// What it is now.
    pub spec: RouteSpec,
    /// What `outhaul.toml` said of it when that was last taken over. A file that still says so does not undo
    /// what was changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<RouteSpec>,
    /// When it changed last.
    pub changed_at: Timestamp,
}

/// What somebody asked for: a new version step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// The candidate.
    pub to: Destination,
    /// What it replaces. Default: what the route leads to now; without a route, the version in service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Destination>,
    /// The candidate's shares in percent, ascending. Default: 1, 10, 50, 100. Where the last is below 100 the
    /// roll-out stays there.
    #[serde(default = "default_steps")]
    pub steps: Vec<f64>,
    /// How long each step lasts at least. Default: 10 minutes.
    #[serde(default = "default_every", with = "duration")]
    pub every: Duration,
    /// What must hold. Default: `error_rate<1%` and `p99<1.2x`.
    #[serde(default = "default_guards")]
    pub guards: Vec<Guard>,
    /// The probability that a candidate which keeps all guards is rolled back all the same. Default: 0.01.
    #[serde(default = "default_false_alarm")]
    pub false_alarm: f64,
    /// The share of the other variant's requests that is copied to the candidate to compare answers, where a
    /// guard is about disagreement. Default: 0.1.
    #[serde(default = "default_mirror")]
    pub mirror: f64,
}

fn default_steps() -> Vec<f64> {
    vec![1.0, 10.0, 50.0, 100.0]
}

fn default_every() -> Duration {
    Duration::from_secs(600)
}

fn default_guards() -> Vec<Guard> {
    ["error_rate<1%", "p99<1.2x"].iter().filter_map(|text| text.parse().ok()).collect()
}

fn default_false_alarm() -> f64 {
    0.01
}

fn default_mirror() -> f64 {
    0.1
}

/// A roll-out, under way or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Names it among all: the route and the generation at which it began, as in `reviews-17`.
    pub id: String,
    /// What was asked for; `from` is filled in.
    pub spec: RolloutSpec,
    /// The route as it was before, to go back to.
    pub before: RouteSpec,
    /// Where it stands.
    pub phase: Phase,
    /// The step under way, an index into `spec.steps`; meaningless while preparing.
    pub step: usize,
    /// When the step began.
    pub step_since: Timestamp,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why it stands where it stands, for people.
    pub reason: String,
}

impl Rollout {
    /// Returns whether it still changes the route by itself or on request.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Preparing | Phase::Stepping | Phase::Paused)
    }

    /// Returns the candidate's share of the step under way, in percent.
    pub fn share(&self) -> f64 {
        match self.phase {
            Phase::Stepping | Phase::Paused | Phase::Promoted => {
                self.spec.steps.get(self.step).copied().unwrap_or(0.0)
            }
            Phase::Preparing | Phase::RolledBack | Phase::Aborted => 0.0,
        }
    }

    /// Returns whether the candidate gets all requests, so that there is nothing to compare it with.
    pub fn candidate_is_alone(&self) -> bool {
        self.share() >= 100.0
    }

    /// Returns what the candidate is compared with: all other targets of the route.
    pub fn others(&self) -> impl Iterator<Item = &Destination> {
        let targets = self.before.targets.iter().map(|target| &target.to);
        targets.filter(|to| **to != self.spec.to)
    }
}

/// Where a roll-out stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The candidate is being loaded; no split names it. Becomes `Stepping`, `RolledBack` or `Aborted`.
    Preparing,
    /// It gets the step's share. Becomes `Paused`, `Promoted`, `RolledBack` or `Aborted`.
    Stepping,
    /// It keeps its share until somebody resumes; guards are judged all the same. Becomes `Stepping`, `Promoted`,
    /// `RolledBack` or `Aborted`.
    Paused,
    /// It has taken over, as far as its last step says. Becomes `RolledBack`.
    Promoted,
    /// A guard was breached, or somebody rolled it back: the route is as it was before.
    RolledBack,
    /// Somebody ended it before it had taken over: the route is as it was before.
    Aborted,
}
