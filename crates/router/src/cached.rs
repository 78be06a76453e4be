//! Answers that are kept: where the cache of a version stands in the way of a request.
//!
//! ```text
//! request --key of all that was sent--> kept? --no--> prepare --part, key of its tensors--> kept? --no--> run
//!                                         |yes                    (texts alone)               |yes
//! answer <--------------------------------+   answer <---- finish <---------------------------+
//! ```
//!
//! A request that was sent before costs no tokenizer and no run; texts that differ and come to the same tokens
//! share a run. Equal requests under way are computed once ([`AnswerCache`]): that computation has the model's
//! own time limit, and each request its own deadline.
//!
//! Invariants: a key holds everything that an answer depends on, the version's content included, and every
//! version has a cache of its own, so an answer never comes from another version or from what a version was
//! before. A request that asks for a fresh answer gets one from the engine, at either place. A copy of a
//! request for a shadow neither uses nor fills a cache.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use outhaul_cache::{AnswerCache, Ask, CacheKey, Found, Kept, KeyBuilder, Missed, SharedStore};
use outhaul_monitor::Monitor;
use outhaul_monitor::traffic::CacheMetrics;
use outhaul_scheduler::{Admission, QueueError};
use outhaul_types::{
    BoundInputs, CacheSpec, CacheStatus, CacheStore, Classify, Deadline, ErrorKind, InferRequest,
    InferResponse, InputTransform, NamedTensor, Parameter, Tensors, Timings,
};

use crate::infer::answer;
use crate::preparing::Preparing;
use crate::served::StartError;
use crate::transformed::run_model;
use crate::{Router, RouterError, Served, ServedVersion, VersionPlan};

/// Inputs of more bytes are not looked up: to sum them up would hold up other requests on this thread.
const LARGEST: usize = 8 << 20;

/// What the cache of a version needs of the process.
#[derive(Clone, Debug, Default)]
pub struct CacheSupport {
    /// The Redis that replicas share.
    pub store: Option<SharedStore>,
    /// A digest of everything beside the request that the version's answers depend on. Versions of equal
    /// digest use each other's answers in Redis. `None`: nobody else's are used.
    pub digest: Option<[u8; 32]>,
}

impl CacheSupport {
    /// Returns whether a declared cache needs Redis, and so a digest.
    ///
    /// # Errors
    ///
    /// Fails where it needs one and the process has none.
    pub fn needs_store(
        spec: Option<&CacheSpec>,
        store: Option<&SharedStore>,
    ) -> Result<bool, StartError> {
        match spec.map(|spec| spec.store) {
            None | Some(CacheStore::Memory) => Ok(false),
            Some(CacheStore::Redis | CacheStore::Both) if store.is_none() => {
                Err(StartError::NoCacheStore)
            }
            Some(CacheStore::Redis | CacheStore::Both) => Ok(true),
        }
    }
}

/// The answers of one version.
pub(crate) struct VersionCache {
    answers: AnswerCache<Arc<RouterError>>,
    /// Stands for the version in every key.
    seed: CacheKey,
    metrics: Arc<CacheMetrics>,
    /// Whether runs of the model are kept beside whole answers.
    keeps_runs: bool,
}

impl VersionCache {
    /// Makes the cache that a version declares.
    pub(crate) fn of(plan: &VersionPlan, monitor: &Monitor) -> Result<Option<Self>, StartError> {
        let Some(spec) = &plan.manifest.cache else { return Ok(None) };
        let CacheSupport { store, digest } = &plan.cache;
        CacheSupport::needs_store(Some(spec), store.as_ref())?;
        let seed = KeyBuilder::new()
            .text(plan.name.as_str())
            .number(plan.version.0)
            .bytes(&digest.unwrap_or_else(unique))
            // What stands around the model may answer otherwise in another release.
            .text(env!("CARGO_PKG_VERSION"))
            .finish();
        let metrics = monitor.traffic().cache(&plan.name);
        let shared = Arc::clone(&metrics);
        let answers = AnswerCache::new(plan.name.clone(), spec, store.clone(), shared);
        let keeps_runs = matches!(plan.manifest.transform.input, Some(InputTransform::Text(_)));
        Ok(Some(VersionCache { answers, seed, metrics, keeps_runs }))
    }

    fn count(&self, status: CacheStatus, is_shared: bool, saved: Duration) {
        let metrics = &self.metrics;
        match status {
            CacheStatus::Off => return,
            CacheStatus::Bypassed => metrics.bypassed.increment(),
            CacheStatus::Miss => metrics.misses.increment(),
            CacheStatus::Hit => metrics.hits.increment(),
            CacheStatus::Joined => metrics.joined.increment(),
        }
        if status == CacheStatus::Hit && is_shared {
            metrics.shared_hits.increment();
        }
        metrics.saved_ns.add(u64::try_from(saved.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// A digest that no other version has.
fn unique() -> [u8; 32] {
    let mut unique = [0; 32];
    for bytes in unique.chunks_exact_mut(8) {
        bytes.copy_from_slice(&RandomState::new().hash_one(0).to_le_bytes());
    }
    unique
}

/// Sums up everything that the answer to a request depends on.
fn request_key(seed: &CacheKey, request: &InferRequest) -> CacheKey {
    let mut key = KeyBuilder::new().bytes(seed.as_bytes()).text("request");
    key = key.number(request.inputs.len() as u64);
    for NamedTensor { name, tensor } in &request.inputs {
        key = key.text(name).tensor(tensor);
    }
    key = key.number(request.outputs.len() as u64);
    for output in &request.outputs {
        let classes = output.classification.map_or(0, |of| of.count as u64);
        key = key.text(&output.name).number(classes);
    }
    for (name, value) in &request.parameters {
        // They say how urgent it is, and change no answer.
        if matches!(name.as_str(), "priority" | "timeout") {
            continue;
        }
        key = key.text(name);
        key = match value {
            Parameter::Bool(value) => key.text("bool").number(u64::from(*value)),
            Parameter::Int(value) => key.text("int").number(value.cast_unsigned()),
            Parameter::Float(value) => key.text("float").number(value.to_bits()),
            Parameter::String(value) => key.text("string").text(value),
        };
    }
    key.finish()
}

/// Sums up what a run of the model depends on.
fn run_key(seed: &CacheKey, inputs: &BoundInputs) -> CacheKey {
    let key = KeyBuilder::new().bytes(seed.as_bytes()).text("run");
    inputs.iter().fold(key, |key, input| key.optional(input.as_ref())).finish()
}

/// Whether a request is looked up at all.
pub(crate) fn is_small(request: &InferRequest) -> bool {
    request.inputs.iter().map(|input| input.tensor.byte_size()).sum::<usize>() <= LARGEST
}

/// The engine's time that went into one request of a batch.
fn cost_of(timings: &Timings, rows: usize) -> Duration {
    match timings.batch_rows {
        all if all > rows => timings.compute.mul_f64(rows as f64 / all as f64),
        _ => timings.compute,
    }
}

fn unanswered(missed: Missed<Arc<RouterError>>) -> RouterError {
    match missed {
        Missed::Late => RouterError::Queue(QueueError::DeadlineExceeded),
        // Whoever waits alone gets the error itself.
        Missed::Failed(error) => Arc::try_unwrap(error).unwrap_or_else(RouterError::Joined),
    }
}

fn respond(
    served: &ServedVersion,
    kept: &Kept,
    status: CacheStatus,
    timings: Timings,
) -> InferResponse {
    InferResponse {
        id: None,
        model: served.description().name.clone(),
        version: served.description().version,
        outputs: kept.outputs.clone(),
        timings,
        tokens: kept.tokens,
        cache: status,
        via: None,
    }
}

/// How a computation went, for the request that waited for all of it.
#[derive(Clone, Copy, Default)]
struct Noted {
    timings: Timings,
    runs: Tally,
}

impl Router {
    /// Answers on a version that keeps answers; also returns the rows answered.
    pub(crate) async fn infer_cached(
        &self,
        served: &Arc<Served>,
        mut request: InferRequest,
        admission: Admission,
        bypass: bool,
    ) -> Result<(InferResponse, usize), RouterError> {
        let Some(cache) = served.cache() else {
            return answer(&self.preparing, served, request, admission, None).await;
        };
        let id = request.id.take();
        let key = request_key(&cache.seed, &request);
        let (response, rows) = match cache.answers.peek(&key).filter(|_| !bypass) {
            Some(kept) => {
                cache.count(CacheStatus::Hit, false, kept.cost);
                (respond(served, &kept, CacheStatus::Hit, Timings::default()), kept.rows)
            }
            // Boxed, so that a hit does not carry it.
            None => {
                let lane = admission.level.place();
                let ask = Ask { key, bypass, deadline: admission.deadline, lane };
                Box::pin(self.infer_missed(served, cache, request, (ask, admission))).await?
            }
        };
        Ok((InferResponse { id, ..response }, rows))
    }

    async fn infer_missed(
        &self,
        served: &Arc<Served>,
        cache: &VersionCache,
        request: InferRequest,
        (ask, admission): (Ask, Admission),
    ) -> Result<(InferResponse, usize), RouterError> {
        let noted = Arc::new(OnceLock::new());
        let work = Work {
            preparing: Arc::clone(&self.preparing),
            served: Arc::clone(served),
            noted: Arc::clone(&noted),
            admission: match ask.bypass {
                true => admission,
                // Others may come to wait for it, who have more time.
                false => Admission {
                    deadline: Deadline::after(Instant::now(), served.timeout()),
                    ..admission
                },
            },
            bypass: ask.bypass,
        };
        let (own, again) = (AtomicBool::new(false), request.clone());
        let compute = || {
            own.store(true, Ordering::Relaxed);
            work.answer(request).boxed()
        };
        let found = match cache.answers.get_or_compute(ask, compute).await {
            // Whoever it was that began, there was no place for them. There may be one for this caller.
            Err(Missed::Failed(error))
                if error.kind() == ErrorKind::Overloaded && !own.load(Ordering::Relaxed) =>
            {
                return answer(&self.preparing, served, again, admission, None).await;
            }
            found => found,
        };
        let Found { kept, status, is_shared } = found.map_err(unanswered)?;
        let noted = noted.get().copied().unwrap_or_default();
        let Noted { timings, runs } = noted;
        let (status, is_shared, timings, saved) = match status {
            CacheStatus::Miss => (runs.status(), runs.are_shared, timings, runs.saved),
            CacheStatus::Bypassed => (status, false, timings, Duration::ZERO),
            _ => (status, is_shared, Timings::default(), kept.cost),
        };
        cache.count(status, is_shared, saved);
        Ok((respond(served, &kept, status, timings), kept.rows))
    }
}

/// The computation of an answer, which belongs to no request.
struct Work {
    preparing: Arc<Preparing>,
    served: Arc<Served>,
    noted: Arc<OnceLock<Noted>>,
    admission: Admission,
    bypass: bool,
}

impl Work {
    async fn answer(self, request: InferRequest) -> Result<Kept, Arc<RouterError>> {
        let Work { preparing, served, noted, admission, bypass } = self;
        let runs = served.cache().filter(|cache| cache.keeps_runs).map(|_| Runs {
            served: Arc::clone(&served),
            bypass,
            tally: Mutex::default(),
        });
        let answered = answer(&preparing, &served, request, admission, runs.as_ref()).await;
        let (response, rows) = answered.map_err(Arc::new)?;
        let timings = response.timings;
        let cost = match &runs {
            Some(runs) => runs.tally().cost,
            None => cost_of(&timings, rows),
        };
        let runs = runs.map_or_else(Tally::default, |runs| *runs.tally());
        // Nobody else has this place.
        let _ = noted.set(Noted { timings, runs });
        Ok(Kept { outputs: response.outputs, rows, tokens: response.tokens, cost })
    }
}

/// The runs of one request's parts, through the cache.
pub(crate) struct Runs {
    served: Arc<Served>,
    bypass: bool,
    tally: Mutex<Tally>,
}

/// How the runs of a request were come by.
#[derive(Clone, Copy, Default)]
struct Tally {
    hits: usize,
    joined: usize,
    computed: usize,
    are_shared: bool,
    cost: Duration,
    saved: Duration,
}

impl Tally {
    /// What the cache had to do with the request as a whole.
    fn status(&self) -> CacheStatus {
        match self {
            Tally { computed: 0, joined: 0, hits: 1.., .. } => CacheStatus::Hit,
            Tally { computed: 0, joined: 1.., .. } => CacheStatus::Joined,
            Tally { .. } => CacheStatus::Miss,
        }
    }

    fn add(&mut self, found: &Found) {
        self.cost += found.kept.cost;
        match found.status {
            CacheStatus::Hit => self.hits += 1,
            CacheStatus::Joined => self.joined += 1,
            CacheStatus::Off | CacheStatus::Bypassed | CacheStatus::Miss => {
                self.computed += 1;
                return;
            }
        }
        self.are_shared |= found.is_shared;
        self.saved += found.kept.cost;
    }
}

impl Runs {
    /// Runs the model on one part, or returns what an equal run gave.
    pub(crate) async fn run(
        &self,
        inputs: BoundInputs,
        admission: Admission,
    ) -> Result<(Tensors, Timings), RouterError> {
        let Some(cache) = self.served.cache() else {
            return run_model(&self.served, inputs, admission)
                .await
                .map(|(own, timings, _)| (own, timings));
        };
        let key = run_key(&cache.seed, &inputs);
        let lane = admission.level.place();
        let ask = Ask { key, bypass: self.bypass, deadline: admission.deadline, lane };
        let noted = Arc::new(OnceLock::new());
        let (served, note) = (Arc::clone(&self.served), Arc::clone(&noted));
        let compute = move || {
            async move {
                let run = run_model(&served, inputs, admission).await;
                let (outputs, timings, rows) = run.map_err(Arc::new)?;
                let _ = note.set(timings);
                let named = |tensor| NamedTensor { name: Default::default(), tensor };
                let outputs = outputs.into_iter().map(named).collect();
                Ok(Kept { outputs, rows, tokens: None, cost: cost_of(&timings, rows) })
            }
            .boxed()
        };
        let found = cache.answers.get_or_compute(ask, compute).await.map_err(unanswered)?;
        self.tally().add(&found);
        let outputs = found.kept.outputs.iter().map(|output| output.tensor.clone()).collect();
        Ok((outputs, noted.get().copied().unwrap_or_default()))
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use outhaul_types::{Classification, Name, RequestedOutput, Tensor, VersionChoice};

    use super::*;

    #[test]
    fn each_part_of_a_request_changes_its_key() {
        let tensor = |values: &[f32]| Tensor::from_vec([values.len()], values.to_vec()).unwrap();
        let input =
            |name: &str, values: &[f32]| NamedTensor { name: name.into(), tensor: tensor(values) };
        let request = || InferRequest::new("iris", [input("x", &[1.0, 2.0])]);
        let output = |name: &str, count: Option<usize>| RequestedOutput {
            name: name.into(),
            classification: count.map(|count| Classification { count }),
        };
        let with = |change: &dyn Fn(&mut InferRequest)| {
            let mut request = request();
            change(&mut request);
            request
        };
        let parameter = |name: &str, value: Parameter| {
            with(&|request| drop(request.parameters.insert(name.to_owned(), value.clone())))
        };
        let seed = KeyBuilder::new().finish();
        let base = request_key(&seed, &request());
        let alike = [
            ("the id", with(&|request| request.id = Some(Name::from("7")))),
            (
                "how the version was asked for",
                with(&|request| {
                    request.version = VersionChoice::Exact(outhaul_types::ModelVersion(3));
                }),
            ),
            ("the time limit", parameter("timeout", Parameter::Int(5))),
            ("the priority", parameter("priority", Parameter::Int(1))),
        ];
        for (what, request) in &alike {
            assert_eq!(request_key(&seed, request), base, "{what} changes no answer");
        }
        let others = [
            ("an element", with(&|request| request.inputs[0] = input("x", &[1.0, 3.0]))),
            ("the name of an input", with(&|request| request.inputs[0].name = "y".into())),
            (
                "the shape",
                with(&|request| {
                    let flat = tensor(&[1.0, 2.0]).reshaped([1, 2]).unwrap();
                    request.inputs[0].tensor = flat;
                }),
            ),
            ("another input", with(&|request| request.inputs.push(input("b", &[1.0])))),
            ("no input", with(&|request| request.inputs.clear())),
            ("a named output", with(&|request| request.outputs.push(output("y", None)))),
            ("another output", with(&|request| request.outputs.push(output("z", None)))),
            ("classes", with(&|request| request.outputs.push(output("y", Some(2))))),
            ("more classes", with(&|request| request.outputs.push(output("y", Some(3))))),
            ("a parameter", parameter("mode", Parameter::Int(1))),
            ("its value", parameter("mode", Parameter::Int(0))),
            ("its name", parameter("more", Parameter::Int(1))),
            ("its type", parameter("mode", Parameter::Bool(true))),
            ("of a number", parameter("mode", Parameter::Float(f64::from_bits(1)))),
            ("of a text", parameter("mode", Parameter::String("1".to_owned()))),
        ];
        let mut seen = HashMap::from([(base, "the request")]);
        for (what, request) in &others {
            if let Some(other) = seen.insert(request_key(&seed, request), what) {
                panic!("{what} has the key of {other}");
            }
        }
        let other_version = KeyBuilder::new().number(2).finish();
        assert_ne!(request_key(&other_version, &request()), base);
        let bound: BoundInputs = [Some(tensor(&[1.0])), None].into_iter().collect();
        let turned: BoundInputs = [None, Some(tensor(&[1.0]))].into_iter().collect();
        assert_ne!(run_key(&seed, &bound), run_key(&seed, &turned));
        assert_ne!(run_key(&seed, &bound), run_key(&other_version, &bound));
    }

    #[test]
    fn a_request_pays_for_its_rows_of_a_batch() {
        let timings = |batch_rows| Timings {
            compute: Duration::from_micros(80),
            batch_rows,
            ..Timings::default()
        };
        for (rows, batch_rows, micros) in [(1, 8, 10), (8, 8, 80), (3, 0, 80), (4, 1, 80)] {
            let cost = cost_of(&timings(batch_rows), rows);
            assert_eq!(cost, Duration::from_micros(micros), "{rows} of {batch_rows}");
        }
    }

    #[test]
    fn versions_without_a_digest_share_nothing() {
        assert_ne!(unique(), unique());
    }
}
