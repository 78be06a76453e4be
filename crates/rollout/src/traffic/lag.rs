//! Routes that wait here for versions: whoever took the command has waited for its own memory alone.
//!
//! Invariant: the world is always the newest. Only the table may stay behind it, one route at a time, as long as
//! what the route led to before answers here, and no longer than [`warm`](super::TrafficConfig::warm). What takes a
//! roll-out back is never held up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use outhaul_router::{Standing, VersionStatus};
use outhaul_types::{Destination, ModelName, ModelVersion, RouteSpec};

use super::{State, Traffic, instant};
use crate::sync;
use crate::world::World;

/// A version of a model.
type Version = (ModelName, ModelVersion);

/// A route whose table entry is an earlier one.
pub(super) struct Lag {
    /// The versions that the world's route names. While they are the same its time runs on.
    named: BTreeSet<Version>,
    /// When it is waited for no longer.
    until: Instant,
    /// What the earlier entry leads to.
    pub(super) kept: BTreeSet<Version>,
}

impl Traffic {
    /// Returns the routes that requests go by from now on: the world's, but for those that have to wait.
    pub(super) fn routes_here(
        &self,
        state: &mut State,
        world: &World,
    ) -> BTreeMap<ModelName, RouteSpec> {
        let mut routes = sync::routes(world);
        let earlier = std::mem::take(&mut state.lagging);
        if self.router.repository().is_none() {
            return routes;
        }
        let table = self.router.routes();
        for (route, spec) in &mut routes {
            // A route that is new has nothing to go by meanwhile; so it is with all of them at the start.
            let Some(led) = table.route(route.as_str()).map(|led| led.spec()) else { continue };
            if **led == *spec || sync::is_taken_back(world, route, led) || !self.waits(led, spec) {
                continue;
            }
            let named = exact(spec);
            let same = earlier.get(route).filter(|lag| lag.named == named);
            let until = same.map_or_else(|| instant() + self.config.warm, |lag| lag.until);
            if instant() < until {
                let kept = exact(led);
                state.lagging.insert(route.clone(), Lag { named, until, kept });
                *spec = (**led).clone();
            }
        }
        routes
    }

    /// Returns whether requests fare better by the route as it was.
    fn waits(&self, led: &RouteSpec, spec: &RouteSpec) -> bool {
        let models = self.router.models();
        let is_ready = |to: &Destination| is_ready(&models, to);
        let is_named = |to: &&Destination| to.exact().is_some();
        !dealt(spec).filter(is_named).all(is_ready) && dealt(led).all(is_ready)
    }

    /// Lets routes catch up whose versions have come, or that have waited for long enough.
    pub(super) fn catch_up(&self) {
        let mut state = self.state();
        if !state.lagging.is_empty() {
            self.put_in_place(&mut state);
        }
    }
}

/// Where a route sends whoever asks for nothing else.
fn dealt(spec: &RouteSpec) -> impl Iterator<Item = &Destination> {
    spec.targets.iter().map(|target| &target.to).chain(spec.pinned.values())
}

fn exact(spec: &RouteSpec) -> BTreeSet<Version> {
    let exact = spec.destinations().filter_map(Destination::exact);
    exact.map(|(name, version)| (name.clone(), version)).collect()
}

fn is_ready(models: &[VersionStatus], to: &Destination) -> bool {
    let Destination::Model { name, .. } = to else { return true };
    let exact = to.exact().map(|(_, version)| version);
    let answers = |status: &VersionStatus| {
        let is_it = exact.is_none_or(|version| status.version == version);
        status.name == *name && is_it && status.standing == Standing::Ready
    };
    models.iter().any(answers)
}
