//! The loop that keeps what is in memory in step with what ought to be: it notes what has happened,
//! asks the plan, carries out what it says, and publishes the result as one.
//!
//! Invariant: only this thread changes the records, and each round ends with the catalog showing
//! exactly what the records say. A version takes over traffic, and the one it replaces leaves, in one
//! published snapshot.
//!
//! Nothing blocks here but the state store; looking, fetching, loading and freeing have threads of
//! their own.

mod asks;
mod events;
mod pipelines;
mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use outhaul_monitor::LoadMetrics;
use outhaul_types::{ModelName, ModelVersion};
use tokio::runtime::Runtime;

use crate::handle::Request;
use crate::journal::{Journal, Kept, Refusal};
use crate::loading::{self, Ended, Loader, Order, Orders};
use crate::lookout::{self, Kick, Looked, Vigilance};
use crate::plan::{Decision, Id, Policy, Standing, decide};
use crate::record::{Asked, Records};
use crate::{Catalog, Handle, ModelFolder, PipelineFolder, Problem, Resident, Source};
use asks::{Asking, Waiting};

/// How a repository finds out what has changed, and what it loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It looks when the system tells of a change, and at intervals.
    #[default]
    Watch,
    /// It looks at intervals.
    Poll,
    /// It looks when it is asked to load something, and loads only what it is asked for.
    Explicit,
    /// It looks once, and loads what it finds.
    Once,
}

/// How a repository behaves.
#[derive(Clone, Debug)]
pub struct RepositoryConfig {
    /// How it finds out what has changed.
    pub mode: Mode,
    /// How often it looks without any sign of a change. Default: 30 s.
    pub poll_interval: Duration,
    /// Bytes that models may take in memory. Set, models are loaded when they are asked for, and those
    /// used longest ago go. Default: none, everything is loaded.
    pub memory_budget: Option<u64>,
    /// How long a version stays in memory at least before it is evicted. Default: 100 ms.
    pub min_residency: Duration,
    /// How long files must have been left alone before they count as whole. Default: 1 s.
    pub settle: Duration,
    /// How long a version that failed to load is left alone: so long after the first failure, twice as
    /// long after each further one, and no longer than the second. Default: 5 s to 5 min.
    pub backoff: (Duration, Duration),
    /// Loads that run at a time. Default: one for each core.
    pub parallel_loads: NonZeroUsize,
    /// Models to load at the start in explicit mode, beside those that were asked for.
    pub load_at_start: BTreeSet<ModelName>,
}

impl Default for RepositoryConfig {
    fn default() -> Self {
        RepositoryConfig {
            mode: Mode::default(),
            poll_interval: Duration::from_secs(30),
            memory_budget: None,
            min_residency: Duration::from_millis(100),
            settle: Duration::from_secs(1),
            backoff: (Duration::from_secs(5), Duration::from_secs(300)),
            parallel_loads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            load_at_start: BTreeSet::new(),
        }
    }
}

impl RepositoryConfig {
    fn policy(&self) -> Policy {
        Policy {
            explicit: self.mode == Mode::Explicit,
            memory_budget: self.memory_budget,
            min_residency: self.min_residency,
            parallel_loads: self.parallel_loads.get(),
        }
    }

    fn vigilance(&self) -> Vigilance {
        let interval = match self.mode {
            Mode::Watch | Mode::Poll => Some(self.poll_interval),
            Mode::Explicit | Mode::Once => None,
        };
        Vigilance { interval, events: self.mode == Mode::Watch }
    }
}

/// What a repository works with.
pub struct Parts<L: Loader> {
    /// Where models come from; of two models of one name the first source's is taken.
    pub sources: Vec<Arc<dyn Source>>,
    /// Makes versions out of files.
    pub loader: Arc<L>,
    /// Where the versions are published.
    pub catalog: Arc<Catalog<Resident<L::Served>>>,
    /// What must survive a restart.
    pub journal: Journal,
    /// What is counted.
    pub metrics: Arc<LoadMetrics>,
    /// What the sources and the journal do their I/O on, where they do any. It ends with the
    /// repository, and must not be the caller's own.
    pub runtime: Option<Runtime>,
}

/// Starts a repository. It runs until the last handle is dropped.
///
/// # Errors
///
/// Fails where the operating system refuses a thread, or the state store cannot be read.
pub fn start<L: Loader>(config: RepositoryConfig, mut parts: Parts<L>) -> io::Result<Handle> {
    let (events, inbox) = channel();
    let problems = Arc::new(ArcSwap::from_pointee(Vec::new()));
    let runtime = parts.runtime.take();
    let has_looked = Arc::new(AtomicBool::new(false));
    let shown = Shown { problems: Arc::clone(&problems), has_looked: Arc::clone(&has_looked) };
    let mut keeper = Keeper::new(config, parts, &events, shown)?;
    std::thread::Builder::new().name("repository".to_owned()).spawn(move || {
        keeper.run(&inbox);
        // A look or a fetch under way would hold up the end.
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    })?;
    let send = move |request| {
        // A repository that has stopped drops the request, and with it the channel for its reply.
        let _ = events.send(Event::Asked(request));
    };
    Ok(Handle::new(Box::new(send), problems, has_looked))
}

/// What the loop shows to the holders of its handles.
struct Shown {
    problems: Arc<ArcSwap<Vec<Problem>>>,
    /// Whether every source has been looked at, and what was found is published.
    has_looked: Arc<AtomicBool>,
}

/// Something that has happened.
enum Event<P> {
    Looked(Looked),
    /// What others may have changed in the journal, of this source.
    Kept(usize, Result<Kept, String>),
    Ended(Ended<P>),
    /// A version has left memory for good, and this is what it took.
    Freed(u64),
    Asked(Request),
}

/// Everything the loop holds.
struct Keeper<L: Loader> {
    config: RepositoryConfig,
    policy: Policy,
    sources: Vec<SourceRecord>,
    loader: Arc<L>,
    catalog: Arc<Catalog<Resident<L::Served>>>,
    journal: Journal,
    metrics: Arc<LoadMetrics>,
    records: Records,
    /// Models that something has happened to since the last decision.
    attention: BTreeSet<ModelName>,
    residents: BTreeMap<Id, Arc<Resident<L::Served>>>,
    /// What callers of each model rely on: of the newest version that answers, or that did last.
    contracts: BTreeMap<ModelName, (ModelVersion, Arc<L::Contract>)>,
    published: BTreeMap<ModelName, BTreeMap<ModelVersion, Standing>>,
    orders: Orders<L::Contract>,
    reaper: Sender<(L::Served, u64)>,
    events: Sender<Event<L::Prepared>>,
    /// When a journal that others write to is read again, where no look does it.
    journal_due: Instant,
    /// Asks that wait for the sources to be looked at.
    asking: Vec<Asking>,
    /// Asks that wait for versions to be loaded.
    waiting: Vec<Waiting>,
    settling: Vec<mpsc::Sender<()>>,
    tickets: u64,
    shown: Shown,
    /// Whether something may be wrong, or mended, that is not told yet.
    problems_changed: bool,
    /// Whether a look found pipelines that are not published yet.
    pipelines_changed: bool,
    /// Whether an answer has changed what is asked for.
    decide_again: bool,
    stopped: bool,
}

/// What is known of one source.
struct SourceRecord {
    source: Arc<dyn Source>,
    kick: Arc<Sender<Kick>>,
    /// The newest look that was asked for and done, and why it failed where it did. `None` before
    /// the first look.
    seen: Option<(u64, Option<String>)>,
    /// Whether the journal is being read.
    is_read: bool,
    problems: Vec<Problem>,
    /// What the last look that succeeded found.
    models: BTreeMap<ModelName, ModelFolder>,
    blocked: BTreeMap<ModelName, Vec<ModelVersion>>,
    pipelines: BTreeMap<ModelName, PipelineFolder>,
    /// What was asked for of its models.
    asked: BTreeMap<ModelName, Asked>,
    refused: BTreeMap<Id, Refusal>,
}

impl SourceRecord {
    fn holds(&self, name: &ModelName) -> bool {
        self.models.contains_key(name)
            || self.blocked.contains_key(name)
            || self.pipelines.contains_key(name)
    }
}

impl<L: Loader> Keeper<L> {
    fn new(
        config: RepositoryConfig,
        parts: Parts<L>,
        events: &Sender<Event<L::Prepared>>,
        shown: Shown,
    ) -> io::Result<Self> {
        let Parts { sources, loader, catalog, journal, metrics, .. } = parts;
        metrics.set_budget(config.memory_budget);
        let ended = events.clone();
        let orders = loading::spawn(config.parallel_loads.get(), &loader, move |end| {
            let _ = ended.send(Event::Ended(end));
        })?;
        let freed = events.clone();
        let reaper = spawn_reaper(move |memory| {
            let _ = freed.send(Event::Freed(memory));
        })?;
        let mut known = Vec::new();
        for (index, source) in sources.into_iter().enumerate() {
            let kept = journal.read(source.place()).map_err(io::Error::other)?;
            let looked = events.clone();
            let kick =
                lookout::spawn(index, Arc::clone(&source), config.vigilance(), move |seen| {
                    let _ = looked.send(Event::Looked(seen));
                })?;
            known.push(SourceRecord {
                source,
                kick,
                seen: None,
                is_read: false,
                problems: Vec::new(),
                models: BTreeMap::new(),
                blocked: BTreeMap::new(),
                pipelines: BTreeMap::new(),
                asked: kept.asked,
                refused: kept.refused,
            });
        }
        Ok(Keeper {
            policy: config.policy(),
            config,
            sources: known,
            loader,
            catalog,
            journal,
            metrics,
            records: Records::default(),
            contracts: BTreeMap::new(),
            attention: BTreeSet::new(),
            residents: BTreeMap::new(),
            published: BTreeMap::new(),
            orders,
            reaper,
            events: events.clone(),
            journal_due: Instant::now(),
            asking: Vec::new(),
            waiting: Vec::new(),
            settling: Vec::new(),
            tickets: 0,
            shown,
            problems_changed: false,
            pipelines_changed: false,
            decide_again: false,
            stopped: false,
        })
    }

    fn run(&mut self, inbox: &Receiver<Event<L::Prepared>>) {
        let mut wake_at = None;
        while !self.stopped {
            let Some(event) = next(inbox, wake_at) else { return };
            let events = event.into_iter().chain(std::iter::from_fn(|| inbox.try_recv().ok()));
            for event in events {
                self.note(event, Instant::now());
            }
            wake_at = self.round(Instant::now());
            if self.journal.is_shared() && self.config.mode == Mode::Explicit {
                // Nothing else makes this mode look at what other replicas were asked.
                let now = Instant::now();
                if self.journal_due <= now {
                    self.journal_due = now + self.config.poll_interval;
                    (0..self.sources.len()).for_each(|source| self.read_journal_again(source));
                }
                let due = self.journal_due;
                wake_at = Some(wake_at.map_or(due, |wake_at| wake_at.min(due)));
            }
        }
    }

    /// Decides, carries out and publishes. Returns when to do so again if nothing happens.
    fn round(&mut self, now: Instant) -> Option<Instant> {
        self.note_last_uses();
        let touched = std::mem::take(&mut self.attention);
        let decision = decide(&self.policy, &self.records, &touched, now);
        let mut changed = touched;
        let carried_out = [&decision.evict, &decision.retire].into_iter().flatten();
        changed.extend(carried_out.map(|(name, _)| name.clone()));
        let leaving = self.carry_out(&decision, now);
        for (name, _) in &decision.retire {
            self.note_contract(name);
        }
        self.publish(&changed, now);
        // Only now is nobody led to them any more; who is at it finishes.
        drop(leaving);
        self.attention.extend(decision.unsettled);
        // What was taken out may be wanted again.
        self.attention.extend(decision.evict.into_iter().map(|(name, _)| name));
        if self.sources.iter().all(|known| known.seen.is_some()) {
            self.shown.has_looked.store(true, Ordering::Release);
        }
        self.answer(now);
        match std::mem::take(&mut self.decide_again) {
            true => Some(now),
            false => decision.wake_at,
        }
    }

    /// The plan evicts what was used longest ago, so it must know when that was.
    fn note_last_uses(&mut self) {
        if self.policy.memory_budget.is_none() {
            return;
        }
        for ((name, version), resident) in &self.residents {
            let record = self.records.models.get_mut(name);
            let known = record.and_then(|record| record.versions.get_mut(version));
            if let Some(serving) = known.and_then(|known| known.serving.as_mut()) {
                serving.last_used = resident.last_used();
            }
        }
    }

    /// Carries out a decision, and returns what it takes out of memory: to be dropped when that is
    /// published.
    fn carry_out(&mut self, decision: &Decision, now: Instant) -> Vec<Arc<Resident<L::Served>>> {
        let mut leaving = Vec::new();
        for id in &decision.evict {
            self.metrics.evicted(&id.0);
            tracing::debug!(model = %id.0, version = %id.1, "evicted");
            leaving.extend(self.take_out(id));
        }
        for id in &decision.retire {
            self.metrics.unloaded(&id.0);
            tracing::info!(model = %id.0, version = %id.1, "no longer in service");
            leaving.extend(self.take_out(id));
        }
        for (id, reason) in &decision.refuse {
            self.note_failure(id, reason.clone(), now);
        }
        for (id, need) in &decision.load {
            self.order(id, *need);
        }
        leaving
    }

    fn take_out(&mut self, id: &Id) -> Option<Arc<Resident<L::Served>>> {
        let resident = self.residents.remove(id)?;
        self.records.leaving += resident.memory();
        let record = self.records.models.get_mut(&id.0);
        if let Some(known) = record.and_then(|record| record.versions.get_mut(&id.1)) {
            known.serving = None;
        }
        Some(resident)
    }

    fn order(&mut self, id: &Id, need: u64) {
        let (name, version) = id;
        let in_service = self.in_service(name, *version);
        let Some(record) = self.records.models.get_mut(name) else { return };
        let Some(found) = &record.found else { return };
        let (Some(edition), Some(version_found)) =
            (found.edition(*version), found.versions.get(version))
        else {
            return;
        };
        let order = Order {
            edition: edition.clone(),
            artefact: version_found.artefact.clone(),
            source: Arc::clone(&self.sources[found.source].source),
            name: name.clone(),
            in_service,
            on_demand: self.policy.is_on_demand(record, *version),
        };
        let known = record.versions.entry(*version).or_default();
        known.loading = Some((edition, need));
        let is_awaited = known.demanded.is_some();
        self.orders.send(order, is_awaited);
    }

    /// What the callers rely on that `version` would take over, unless a newer one answers them.
    fn in_service(&self, name: &ModelName, version: ModelVersion) -> Option<Arc<L::Contract>> {
        let (newest, contract) = self.contracts.get(name)?;
        (*newest <= version).then(|| Arc::clone(contract))
    }

    /// Notes what callers of a model rely on from now on.
    fn note_contract(&mut self, name: &ModelName) {
        let record = self.records.models.get(name);
        let newest = record.and_then(|record| record.serving().last()).map(|(version, _)| version);
        // With none in memory they still rely on the last one.
        let Some(newest) = newest else { return };
        if let Some(resident) = self.residents.get(&(name.clone(), newest)) {
            let contract = Arc::new(self.loader.contract(resident));
            self.contracts.insert(name.clone(), (newest, contract));
        }
    }
}

/// Waits for the next event. `Some(None)` is that `wake_at` has come; `None` that there will be no
/// more.
fn next<S>(inbox: &Receiver<Event<S>>, wake_at: Option<Instant>) -> Option<Option<Event<S>>> {
    let Some(wake_at) = wake_at else { return inbox.recv().ok().map(Some) };
    match inbox.recv_timeout(wake_at.saturating_duration_since(Instant::now())) {
        Ok(event) => Some(Some(event)),
        Err(RecvTimeoutError::Timeout) => Some(None),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

/// Starts what versions end on: a thread each, since one that still computes for a caller who has left
/// would hold up all that come after it.
fn spawn_reaper<S: Send + 'static>(
    freed: impl Fn(u64) + Clone + Send + 'static,
) -> io::Result<Sender<(S, u64)>> {
    let (send, dead) = channel::<(S, u64)>();
    std::thread::Builder::new().name("freeing".to_owned()).spawn(move || {
        while let Ok((contents, memory)) = dead.recv() {
            let freed = freed.clone();
            let end = move || {
                drop(contents);
                freed(memory);
            };
            let ending = std::thread::Builder::new().name("freeing".to_owned()).spawn(end);
            if let Err(error) = ending {
                // The closure, and with it the version, ended where it was refused a thread.
                tracing::warn!(%error, "no thread to free a model on");
            }
        }
    })?;
    Ok(send)
}

#[cfg(test)]
mod tests;
