//! The pipelines that are declared, each held against the models of its steps.
//!
//! Invariant: a table says what follows from one snapshot of the catalog and one table of routes. A pipeline is
//! checked anew when what it is declared as or what one of its models takes and gives is another value than before,
//! and not otherwise; models that sleep are taken to be as they were. While one thread builds a table, requests are
//! answered by the one before: nobody waits but who asks for a pipeline that it lacks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use outhaul_monitor::ModelMetrics;
use outhaul_pipeline::{Fault, Outline, Plan, StepModel};
use outhaul_repository::{PipelineEntry, Problem, Snapshot, Unresolved};
use outhaul_types::{Destination, ModelName, VersionChoice};

use super::VERSION;
use crate::routes::RouteTable;
use crate::{BatchMode, ModelDescription, Router, Served};

/// All pipelines, built when somebody asks and something has changed.
#[derive(Default)]
pub(crate) struct Pipelines {
    table: ArcSwap<Table>,
    /// Held while a table is built, so that what is found is told once.
    building: Mutex<()>,
}

/// The pipelines of one moment.
#[derive(Default)]
pub(crate) struct Table {
    /// The numbers of the snapshot and of the routes that it follows from.
    seen: Option<(u64, u64)>,
    pipelines: BTreeMap<ModelName, Arc<Held>>,
}

/// One pipeline.
pub(crate) struct Held {
    name: ModelName,
    entry: PipelineEntry,
    state: State,
    metrics: Arc<ModelMetrics>,
}

/// Where a pipeline stands.
pub(crate) enum State {
    Ready(Arc<Planned>),
    /// These models are to be loaded before anything is known.
    Asleep(Vec<(ModelName, VersionChoice)>),
    /// A model is on its way.
    Loading(String),
    /// In one line, and all of it.
    Failed(String, Vec<Fault>),
}

/// A pipeline that fits its models.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) description: Arc<ModelDescription>,
    /// What it was held against; `None` for models elsewhere.
    models: Vec<Option<Arc<ModelDescription>>>,
}

impl Table {
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Held>> {
        self.pipelines.get(name)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.pipelines.values()
    }
}

impl Held {
    pub(crate) fn name(&self) -> &ModelName {
        &self.name
    }

    pub(crate) fn entry(&self) -> &PipelineEntry {
        &self.entry
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn metrics(&self) -> &Arc<ModelMetrics> {
        &self.metrics
    }

    /// The models of this server that its steps ask.
    pub(crate) fn models(&self) -> Vec<(&ModelName, &VersionChoice)> {
        fn local(model: &Destination) -> Option<(&ModelName, &VersionChoice)> {
            match model {
                Destination::Model { name, version } => Some((name, version)),
                Destination::Remote(_) => None,
            }
        }
        let outline = self.entry.outline.iter();
        outline.flat_map(|outline| outline.models()).filter_map(local).collect()
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let State::Failed(_, faults) = &self.state else { return Vec::new() };
        let problem = |fault: &Fault| Problem {
            key: Some(fault.key.clone()),
            ..Problem::of_place(&self.entry.place, &fault.rule, &fault.remedy).of_model(&self.name)
        };
        faults.iter().map(problem).collect()
    }
}

impl Pipelines {
    /// Returns the table that follows from what the router knows now, or the one before while another thread
    /// builds that.
    pub(crate) fn table(&self, router: &Router) -> Arc<Table> {
        let table = self.table.load_full();
        if table.seen == Some(seen(router)) {
            return table;
        }
        // A poisoned lock guards no data: the last table is whole.
        let _building = match self.building.try_lock() {
            Ok(building) => building,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return table,
        };
        self.renewed(router)
    }

    /// Returns the table that follows from what the router knows now, and waits for whoever builds it.
    pub(crate) fn newest(&self, router: &Router) -> Arc<Table> {
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        self.renewed(router)
    }

    /// Returns one pipeline. Where there is none of this name, that is known without a table.
    pub(crate) fn get(&self, router: &Router, name: &str) -> Option<Arc<Held>> {
        if !router.has_pipeline(name) {
            return None;
        }
        let known = self.table(router).get(name).map(Arc::clone);
        known.or_else(|| self.newest(router).get(name).map(Arc::clone))
    }

    /// Builds the table of now, unless it is there. Only who holds `building` may call this.
    fn renewed(&self, router: &Router) -> Arc<Table> {
        let before = self.table.load_full();
        if before.seen == Some(seen(router)) {
            return before;
        }
        let table = Arc::new(build(router, &before));
        self.table.store(Arc::clone(&table));
        table
    }
}

/// The numbers of what a table of now follows from.
fn seen(router: &Router) -> (u64, u64) {
    (router.catalog.generation(), router.routes.load().generation())
}

fn build(router: &Router, before: &Table) -> Table {
    let (snapshot, routes) = (router.catalog.snapshot(), router.routes());
    let mut builder = Builder {
        router,
        snapshot: &snapshot,
        routes: &routes,
        before,
        done: BTreeMap::new(),
        path: Vec::new(),
    };
    for name in snapshot.pipelines().keys() {
        builder.hold(name);
    }
    let pipelines = builder.done;
    for (name, held) in &pipelines {
        report(held, before.get(name.as_str()).map(Arc::as_ref));
    }
    for name in before.pipelines.keys().filter(|name| !pipelines.contains_key(*name)) {
        if snapshot.model(name.as_str()).is_none() {
            router.monitor.forget_model(name);
        }
    }
    Table { seen: Some((snapshot.generation(), routes.generation())), pipelines }
}

/// Tells what has become of a pipeline, where that is news.
fn report(held: &Held, before: Option<&Held>) {
    let (name, before) = (&held.name, before.map(|before| &before.state));
    match (&held.state, before) {
        (State::Failed(reason, _), Some(State::Failed(told, _))) if reason == told => {}
        (State::Failed(reason, _), _) => {
            tracing::error!(pipeline = %name, reason, "not served");
        }
        (State::Ready(_), Some(State::Ready(_))) => {}
        (State::Ready(planned), _) => {
            let steps = planned.plan.steps().len();
            tracing::info!(pipeline = %name, steps, "ready");
        }
        (State::Asleep(_) | State::Loading(_), _) => {}
    }
}

/// What is known of the model that a step asks.
enum Look {
    Known(Arc<ModelDescription>),
    Elsewhere,
    Asleep(Vec<(ModelName, VersionChoice)>),
    Loading(String),
    Failed(String),
}

struct Builder<'b> {
    router: &'b Router,
    snapshot: &'b Snapshot<Served>,
    routes: &'b RouteTable,
    before: &'b Table,
    done: BTreeMap<ModelName, Arc<Held>>,
    /// The pipelines that wait for the one at hand.
    path: Vec<ModelName>,
}

impl Builder<'_> {
    /// Finds where a pipeline stands.
    fn hold(&mut self, name: &ModelName) -> Option<Arc<Held>> {
        if let Some(done) = self.done.get(name) {
            return Some(Arc::clone(done));
        }
        let entry = self.snapshot.pipelines().get(name)?;
        let before = self.before.get(name.as_str()).map(Arc::clone);
        self.path.push(name.clone());
        let state = match &entry.outline {
            Err(reason) => State::Failed(reason.to_string(), Vec::new()),
            Ok(outline) => self.state(name, outline, before.as_deref()),
        };
        self.path.pop();
        let metrics = match &before {
            Some(before) => Arc::clone(&before.metrics),
            None => self.router.monitor.model(name, VERSION),
        };
        let held = Arc::new(Held { name: name.clone(), entry: entry.clone(), state, metrics });
        self.done.insert(name.clone(), Arc::clone(&held));
        Some(held)
    }

    fn state(&mut self, name: &ModelName, outline: &Arc<Outline>, before: Option<&Held>) -> State {
        let planned = before.and_then(|before| match &before.state {
            State::Ready(planned) if Arc::ptr_eq(planned.plan.outline(), outline) => Some(planned),
            _ => None,
        });
        let (mut models, mut asleep) = (Vec::new(), Vec::new());
        let (mut loading, mut faults) = (None, Vec::new());
        for (index, step) in outline.spec().steps.iter().enumerate() {
            match self.look(&step.model) {
                Look::Known(description) => models.push(Some(description)),
                Look::Elsewhere => models.push(None),
                Look::Asleep(sleeping) => match planned.and_then(|of| of.models[index].clone()) {
                    Some(as_before) => models.push(Some(as_before)),
                    None => asleep.extend(sleeping),
                },
                Look::Loading(reason) => drop(loading.get_or_insert(reason)),
                Look::Failed(rule) => faults.push(Fault {
                    key: format!("steps.{}.model", step.name),
                    rule,
                    remedy: "mend the model, or name another one".to_owned(),
                }),
            }
        }
        if !faults.is_empty() {
            return failed(faults);
        }
        if let Some(reason) = loading {
            return State::Loading(reason);
        }
        if !asleep.is_empty() {
            return State::Asleep(asleep);
        }
        match planned.filter(|planned| is_same(&planned.models, &models)) {
            Some(planned) => State::Ready(Arc::clone(planned)),
            None => plan(name, outline, models),
        }
    }

    fn look(&mut self, model: &Destination) -> Look {
        let Destination::Model { name, version } = model else { return Look::Elsewhere };
        let route = match version {
            VersionChoice::Latest => self.routes.route(name.as_str()).map(Arc::clone),
            VersionChoice::Exact(_) | VersionChoice::Label(_) => None,
        };
        let Some(route) = route else { return self.look_at(name, version) };
        // As a request is described that is sent to a route: by what has the largest share and is there.
        let mut first = None;
        for index in route.by_share() {
            let look = match &route.variants()[index].to {
                Destination::Model { name, version } => self.look_at(name, version),
                Destination::Remote(_) => Look::Elsewhere,
            };
            match look {
                Look::Failed(_) => drop(first.get_or_insert(look)),
                look => return look,
            }
        }
        first.unwrap_or_else(|| Look::Failed(format!("the route '{name}' leads nowhere")))
    }

    /// Looks at a model or pipeline, whatever routes say of its name.
    fn look_at(&mut self, name: &ModelName, version: &VersionChoice) -> Look {
        let reason = match self.snapshot.resolve(name.as_str(), version) {
            Ok(served) => return Look::Known(Arc::clone(served.description())),
            Err(reason) => reason,
        };
        match reason {
            Unresolved::Asleep(_) => Look::Asleep(vec![(name.clone(), version.clone())]),
            Unresolved::Loading => Look::Loading(format!("model '{name}' is still loading")),
            Unresolved::UnknownModel => self.look_at_pipeline(name, version),
            reason => Look::Failed(format!("model '{name}': {reason}")),
        }
    }

    fn look_at_pipeline(&mut self, name: &ModelName, version: &VersionChoice) -> Look {
        if let Some(begin) = self.path.iter().position(|waiting| waiting == name) {
            let path = self.path[begin..].iter().chain([name]).map(ModelName::as_str);
            let path = path.collect::<Vec<_>>().join(" -> ");
            return Look::Failed(format!("the pipelines ask each other: {path}"));
        }
        let is_there = match version {
            VersionChoice::Latest => true,
            VersionChoice::Exact(version) => *version == VERSION,
            VersionChoice::Label(_) => false,
        };
        let Some(held) = self.hold(name).filter(|_| is_there) else {
            let has_looked = self.router.repository().is_none_or(|of| of.has_looked());
            return match has_looked {
                true => Look::Failed(format!("there is no model '{name}'")),
                false => Look::Loading(format!("model '{name}' is still looked for")),
            };
        };
        match &held.state {
            State::Ready(planned) => Look::Known(Arc::clone(&planned.description)),
            State::Asleep(models) => Look::Asleep(models.clone()),
            State::Loading(reason) => Look::Loading(reason.clone()),
            State::Failed(reason, _) => Look::Failed(format!("pipeline '{name}': {reason}")),
        }
    }
}

fn is_same(
    left: &[Option<Arc<ModelDescription>>],
    right: &[Option<Arc<ModelDescription>>],
) -> bool {
    let same = |(left, right): (&Option<Arc<_>>, &Option<Arc<_>>)| match (left, right) {
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        (None, None) => true,
        _ => false,
    };
    left.len() == right.len() && left.iter().zip(right).all(same)
}

fn failed(faults: Vec<Fault>) -> State {
    let told: Vec<String> = faults.iter().map(Fault::to_string).collect();
    State::Failed(told.join(" | "), faults)
}

fn plan(
    name: &ModelName,
    outline: &Arc<Outline>,
    models: Vec<Option<Arc<ModelDescription>>>,
) -> State {
    let known = models.iter().map(|model| {
        model.as_ref().map(|of| StepModel { signature: &of.signature, interface: &of.interface })
    });
    match outline.check(&known.collect::<Vec<_>>()) {
        Err(faults) => failed(faults),
        Ok(plan) => {
            let description = Arc::new(describe(name, &plan));
            State::Ready(Arc::new(Planned { plan, description, models }))
        }
    }
}

fn describe(name: &ModelName, plan: &Plan) -> ModelDescription {
    let steps = plan.steps().iter().map(|step| format!("{} ({})", step.name, step.model));
    let steps = steps.collect::<Vec<_>>().join(", ");
    ModelDescription {
        name: name.clone(),
        version: VERSION,
        signature: plan.signature().clone(),
        interface: plan.interface().clone(),
        engine: "pipeline",
        engine_reason: format!("it asks other models: {steps}"),
        batching: BatchMode::Off("requests share runs of the models that its steps ask".to_owned()),
        max_rows: 1,
        max_delay: Duration::ZERO,
        instances: 0,
        threads: 1,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use outhaul_monitor::Monitor;
    use outhaul_pipeline::{OutputSpec, PipelineSpec, Reference, StepSpec};
    use outhaul_repository::{Catalog, PipelineEntries};

    use super::*;

    /// A pipeline whose model is nowhere.
    fn entry() -> PipelineEntry {
        let step = StepSpec {
            name: "a".into(),
            model: "nowhere".parse().unwrap(),
            when: None,
            eager: false,
            inputs: vec![("x".into(), vec![Reference::parse("x", &[])])],
            outputs: Vec::new(),
        };
        let output = OutputSpec { name: "o".into(), from: vec![Reference::parse("a.y", &[])] };
        let (steps, outputs) = (vec![step], vec![output]);
        let outline = Outline::of(PipelineSpec { steps, outputs, ..PipelineSpec::default() });
        PipelineEntry {
            outline: Ok(Arc::new(outline.unwrap())),
            last_error: None,
            source: "test".into(),
            place: "p/pipeline.toml".into(),
        }
    }

    fn declare(router: &Router, names: &[&str]) {
        let entries = names.iter().map(|name| (ModelName::new(name).unwrap(), entry()));
        let entries: PipelineEntries = entries.collect();
        router.catalog.update(|draft| draft.set_pipelines(Arc::new(entries)));
    }

    #[test]
    fn while_a_table_is_built_only_a_pipeline_that_is_new_waits() {
        let router = Router::new(Arc::new(Catalog::new()), Arc::new(Monitor::new()));
        let router = Arc::new(router);
        declare(&router, &["old", "gone"]);
        let before = router.pipelines.table(&router);
        let building = router.pipelines.building.lock().unwrap();
        declare(&router, &["new", "old"]);
        let (tell, told) = mpsc::channel();
        let asking = std::thread::spawn({
            let router = Arc::clone(&router);
            move || {
                let has = |name: &str| router.pipelines.get(&router, name).is_some();
                tell.send(("old", has("old"))).unwrap();
                tell.send(("gone", has("gone"))).unwrap();
                tell.send(("unknown", has("unknown"))).unwrap();
                tell.send(("ready", router.is_ready())).unwrap();
                tell.send(("new", has("new"))).unwrap();
            }
        });
        let patience = Duration::from_secs(20);
        for expected in [("old", true), ("gone", false), ("unknown", false), ("ready", true)] {
            assert_eq!(told.recv_timeout(patience), Ok(expected), "nobody waits for the table");
        }
        assert!(Arc::ptr_eq(&router.pipelines.table.load_full(), &before), "nothing was built");
        drop(building);
        assert_eq!(told.recv_timeout(patience), Ok(("new", true)));
        asking.join().unwrap();
        assert!(router.pipelines.table(&router).get("gone").is_none());
    }
}
