//! The thread that copies run on, with an event loop of its own.
//!
//! Requests are answered on the event loops of their connections, and cheap models run there; a copy that did would
//! hold up the connection's next request. So copies have one thread for all routes, started with the first of them and
//! ended with the router: binding, light transforms, models that skip the hop to an instance, and comparing happen
//! there. Models that run on their instances do so as for any request.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use outhaul_types::{
    Content, Deadline, Destination, InferRequest, InferResponse, Name, Priority, RequestContext,
    TraceParent, VersionChoice,
};
use tokio::sync::{Mutex, Notify, mpsc};

use super::cores::{Answering, Gauge, Load, Machine, Watch, admit, trickles};
use super::examples::{ShadowExample, by, text};
use super::{End, Place, compare};
use crate::Router;

/// How long a copy waits for a core.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often a copy that waits looks again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The least time that a copy has to answer.
const LEAST_TIME: Duration = Duration::from_secs(1);

/// What a copy may take of the time that the primary took.
const MOST_OF_PRIMARY: u32 = 4;

/// What copies of all routes share.
pub(crate) struct Shadows {
    gauge: Gauge,
    /// The copy that is next to run looks at the machine; the others wait for it in their order.
    watch: Mutex<Watch>,
    /// Cores that running copies take.
    taken: AtomicUsize,
    /// How long the last copy had its cores, in nanoseconds.
    last_copy: AtomicU64,
    /// Told when a copy has given its cores back.
    freed: Notify,
    /// To the thread, once it was started; `None` where the system refused it.
    jobs: OnceLock<Option<mpsc::UnboundedSender<Job>>>,
}

impl Shadows {
    pub(crate) fn new(machine: Machine) -> Self {
        Shadows {
            gauge: Gauge::default(),
            watch: Mutex::new(Watch::new(machine)),
            taken: AtomicUsize::new(0),
            last_copy: AtomicU64::new(0),
            freed: Notify::new(),
            jobs: OnceLock::new(),
        }
    }

    /// Tells whether any route has a shadow.
    pub(crate) fn expect(&self, copies: bool) {
        self.gauge.turn(copies);
    }

    /// Counts a request for as long as it is being answered. Copies and the steps of a pipeline, whose request is
    /// counted already, are not.
    pub(crate) fn enter(&self, context: &RequestContext) -> Option<Answering<'_>> {
        if context.shadow || context.is_part { None } else { self.gauge.enter() }
    }

    /// Waits for cores until it is too late.
    async fn cores(&self, demand: Demand, until: Instant) -> Option<Cores<'_>> {
        tokio::time::timeout_at(until.into(), self.free_cores(demand)).await.ok()
    }

    async fn free_cores(&self, demand: Demand) -> Cores<'_> {
        let mut watch = self.watch.lock().await;
        loop {
            let now = Instant::now();
            let seen = watch.look(&self.gauge, now);
            let copies = self.taken.load(Ordering::Relaxed);
            let last_copy = Duration::from_nanos(self.last_copy.load(Ordering::Relaxed));
            if admit(&Load { threads: demand.each_request, copies, ..seen }, demand.own)
                || copies == 0 && trickles(watch.since_last(now), last_copy)
            {
                watch.began(now);
                self.taken.fetch_add(demand.own, Ordering::Relaxed);
                return Cores { shadows: self, count: demand.own, since: now };
            }
            // Either way it looks again.
            let _ = tokio::time::timeout(LOOK_EVERY, self.freed.notified()).await;
        }
    }

    /// Gives a copy to the thread, which is started for the first. One that cannot be given is dropped, and so shed.
    fn give(&self, job: Job) {
        let start = || match start() {
            Ok(jobs) => Some(jobs),
            Err(error) => {
                tracing::warn!(%error, "the thread for copies cannot be started: all are shed");
                None
            }
        };
        if let Some(jobs) = self.jobs.get_or_init(start) {
            // It ends with the router, which the job holds.
            let _ = jobs.send(job);
        }
    }
}

fn start() -> std::io::Result<mpsc::UnboundedSender<Job>> {
    let (send, mut jobs) = mpsc::unbounded_channel::<Job>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = async move {
        while let Some(job) = jobs.recv().await {
            // A task of its own, so that a panic ends one copy.
            tokio::spawn(job.run());
        }
    };
    let thread = std::thread::Builder::new().name("shadows".to_owned());
    thread.spawn(move || runtime.block_on(work))?;
    Ok(send)
}

/// How many cores are needed.
#[derive(Clone, Copy)]
struct Demand {
    /// By each request, as far as is known.
    each_request: usize,
    /// By the copy.
    own: usize,
}

/// Cores that a copy has; dropping it gives them back.
struct Cores<'a> {
    shadows: &'a Shadows,
    count: usize,
    since: Instant,
}

impl Drop for Cores<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.shadows.last_copy.store(took, Ordering::Relaxed);
        self.shadows.taken.fetch_sub(self.count, Ordering::Relaxed);
        self.shadows.freed.notify_one();
    }
}

/// A copy under way.
pub(super) struct Job {
    pub(super) router: Arc<Router>,
    pub(super) place: Place,
    pub(super) request: InferRequest,
    pub(super) primary: InferResponse,
    pub(super) id: Name,
    pub(super) trace: Option<TraceParent>,
    pub(super) depth: u8,
    /// How long the primary's answer took.
    pub(super) took: Duration,
    /// When it was there.
    pub(super) answered: Instant,
}

impl Job {
    /// Hands the copy over once the caller's event loop has done what it is at: sending the answer. Without an
    /// event loop the copy is dropped, and so shed.
    pub(super) fn spawn(self) {
        if let Ok(here) = tokio::runtime::Handle::try_current() {
            here.spawn(async move {
                tokio::task::yield_now().await;
                let router = Arc::clone(&self.router);
                router.shadows.give(self);
            });
        }
    }

    async fn run(mut self) {
        let router = Arc::clone(&self.router);
        let cores = router.shadows.cores(self.demand(), self.answered + PATIENCE).await;
        let Some(_cores) = cores else { return };
        self.place.end = End::Failed;
        match self.answer().await {
            Ok(shadow) => self.judge(&shadow),
            Err(reason) => {
                tracing::debug!(id = %self.id, to = %self.place.shadowing.spec.to, %reason, "a shadow failed");
                *self.place.shadowing.last_failure() = Some(reason);
            }
        }
    }

    fn demand(&self) -> Demand {
        let primary = VersionChoice::Exact(self.primary.version);
        let own = match &self.place.shadowing.spec.to {
            Destination::Model { name, version } => self.router.threads(name.as_str(), version),
            // Another machine computes.
            Destination::Remote(_) => 0,
        };
        Demand { each_request: self.router.threads(self.primary.model.as_str(), &primary), own }
    }

    /// Asks the shadow.
    async fn answer(&mut self) -> Result<InferResponse, String> {
        let now = Instant::now();
        let time = LEAST_TIME.max(self.took.saturating_mul(MOST_OF_PRIMARY));
        let deadline = Deadline::after(now, time);
        let context = RequestContext {
            id: self.id.clone(),
            trace: self.trace,
            deadline,
            priority: Some(Priority::Background),
            no_cache: true,
            depth: self.depth,
            shadow: true,
            ..RequestContext::default()
        };
        let mut request = self.request.clone();
        request.parameters.remove("priority");
        request.parameters.remove("timeout");
        let answer = self.router.infer_at(&self.place.shadowing.spec.to, request, &context, now);
        // What the destination does without looking at the deadline ends with it too.
        let answer = tokio::time::timeout(time, answer).await;
        let answer = answer.map_err(|_| format!("no answer within {time:?}"))?;
        let answer = answer.map_err(|error| outhaul_types::error_chain(&error))?;
        match answer.via.as_ref().and_then(|via| via.fallback.as_ref()) {
            Some(other) => Err(format!("'{other}' answered in its place")),
            None => Ok(answer),
        }
    }

    /// Compares the answers, and keeps what is worth looking at.
    fn judge(&mut self, shadow: &InferResponse) {
        let shadowing = Arc::clone(&self.place.shadowing);
        let rule = shadowing.spec.compare;
        let scores = if rule.is_none() { self.router.scores(&self.primary) } else { Vec::new() };
        let compared = compare(rule, &scores, &self.primary, shadow);
        self.place.end = End::Compared { agrees: compared.agrees };
        if compared.agrees {
            return;
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        shadowing.examples.offer(compared.distance, || ShadowExample {
            request: self.id.clone(),
            at_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            distance: compared.distance,
            note: compared.note,
            inputs: text(&self.request.inputs),
            primary_by: by(&self.primary),
            primary: text(&self.primary.outputs),
            shadow_by: by(shadow),
            shadow: text(&shadow.outputs),
        });
    }
}

impl Router {
    /// The threads that a run of a model takes; 1 where that is not known.
    fn threads(&self, model: &str, version: &VersionChoice) -> usize {
        let served = self.catalog.resolve(model, version);
        served.map_or(1, |served| served.description().threads)
    }

    /// The outputs that the model which answered calls scores of classes.
    fn scores(&self, answer: &InferResponse) -> Vec<Name> {
        let version = VersionChoice::Exact(answer.version);
        let Ok(served) = self.catalog.resolve(answer.model.as_str(), &version) else {
            return Vec::new();
        };
        let description = served.description();
        let outputs = description.signature.outputs.iter().zip(&description.interface.outputs);
        let scores =
            outputs.filter(|(_, field)| field.content == Content::Score || field.choices.is_some());
        scores.map(|(spec, _)| spec.name.clone()).collect()
    }
}
