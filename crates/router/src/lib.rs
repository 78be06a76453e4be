//! The server without sockets: from a request to the version that answers it.
//!
//! [`Router::infer`] is the one door for every caller: the HTTP and gRPC servers, the commands, batch
//! jobs, tests, and other people's programs. It resolves the version in one immutable snapshot, checks
//! the request against that version's signature, hands it to the version's queue, and selects and
//! names the outputs.
//!
//! Invariant: what the caller did wrong is found here, before anything is queued, and said precisely;
//! a request that was let in is answered by exactly one version, which the answer names.
//!
//! Bytes and sockets are not known here, nor are engines: see `protocol`, `server` and `engine`.

mod classify;
mod declared;
mod describe;
mod error;
mod preparing;
mod served;
mod transformed;
mod warmup;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use outhaul_monitor::{ModelStatistics, Monitor};
use outhaul_repository::{
    Catalog, Handle, ModelEntry, Resident, Snapshot, Unresolved, VersionState,
};
use outhaul_scheduler::{Admission, Arriving};
use outhaul_types::{
    Classify, Deadline, InferRequest, InferResponse, ModelName, ModelVersion, NamedTensor,
    Parameter, Parameters, RequestContext, RequestedOutput, Tensors, VersionChoice,
};
use smallvec::SmallVec;

pub use declared::{Declared, DeclaredError};
pub use describe::{BatchMode, ModelDescription, Standing, VersionStatus};
pub use error::RouterError;
pub use outhaul_repository::{AddError, Added, AskError};
pub use served::{ServedVersion, StartError, VersionPlan};
pub use warmup::{InputError, WarmedUp, WarmupError, warm_up};

/// A version in memory, as the catalog holds it.
pub type Served = Resident<ServedVersion>;

/// A request whose body is still being read; see [`Router::announce`]. Dropping it takes the
/// announcement back.
pub struct Announced {
    arriving: Arriving,
    /// Held until the other is dropped: the queue must not be ended by a connection's thread.
    _served: Arc<Served>,
}

impl Announced {
    /// Tells that the request is about to be submitted.
    pub fn arrived(self) {
        self.arriving.arrived();
    }
}

/// Answers predictions in this process. Share it behind an [`Arc`].
pub struct Router {
    catalog: Arc<Catalog<Served>>,
    monitor: Arc<Monitor>,
    /// Loads and unloads; `None` where the catalog is filled by other means.
    repository: Option<Handle>,
    /// The source that callers may add models to; `None` where they may not.
    added: Option<Arc<Added>>,
    /// Whether everything was loaded once. Models that come later do not take it back.
    was_ready: AtomicBool,
    /// Where texts, pictures and rows become tensors.
    preparing: preparing::Preparing,
}

impl Router {
    /// Makes a router over the versions that `catalog` publishes.
    pub fn new(catalog: Arc<Catalog<Served>>, monitor: Arc<Monitor>) -> Self {
        Router {
            catalog,
            monitor,
            repository: None,
            added: None,
            was_ready: AtomicBool::new(false),
            preparing: preparing::Preparing::default(),
        }
    }

    /// Returns the router with the repository that fills its catalog: it can load what sleeps.
    pub fn with_repository(self, repository: Handle) -> Self {
        Router { repository: Some(repository), ..self }
    }

    /// Returns the router with the source that callers may add models to: one of the repository's.
    pub fn with_added(self, added: Arc<Added>) -> Self {
        Router { added: Some(added), ..self }
    }

    /// Returns the source that callers may add models to.
    pub fn added(&self) -> Option<&Arc<Added>> {
        self.added.as_ref()
    }

    /// Returns the repository that fills the catalog.
    pub fn repository(&self) -> Option<&Handle> {
        self.repository.as_ref()
    }

    /// Answers one request. Dropping the future gives the request up: if it still waits, it is never
    /// run.
    ///
    /// # Errors
    ///
    /// See [`RouterError`].
    ///
    /// # Panics
    ///
    /// Panics outside of a Tokio runtime with its timers on.
    pub async fn infer(
        &self,
        request: InferRequest,
        context: &RequestContext,
    ) -> Result<InferResponse, RouterError> {
        let started = Instant::now();
        let mut load = Duration::ZERO;
        let served = match self.catalog.resolve(&request.model, &request.version) {
            Ok(served) => served,
            Err(Unresolved::Asleep(_)) => {
                let limit = asked_deadline(&request.parameters, context, started)?;
                let served = self.awake(&request.model, &request.version, limit, started).await?;
                load = started.elapsed();
                served
            }
            Err(reason) => return Err(RouterError::unresolved(&request.model, reason)),
        };
        served.touch(started);
        let mut result = self.infer_on(&served, request, context, started).await;
        let total = started.elapsed();
        match &mut result {
            Ok((response, rows)) => {
                response.timings.load = load;
                served.metrics().record_request(Ok(()), total, &response.timings, *rows);
            }
            Err(error) => {
                let timings = outhaul_types::Timings::default();
                served.metrics().record_request(Err(error.kind()), total, &timings, 0);
            }
        }
        result.map(|(response, _)| response)
    }

    /// Answers on a version that has been resolved; also returns the rows answered.
    async fn infer_on(
        &self,
        served: &ServedVersion,
        request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<(InferResponse, usize), RouterError> {
        if served.transform().is_some() {
            return self.infer_transformed(served, request, context, started).await;
        }
        let signature = served.signature();
        let selected =
            signature.select_outputs(request.outputs.iter().map(|output| &output.name))?;
        let inputs = served.reshapes().inward(signature.bind(request.inputs)?)?;
        let share = served.share(&inputs)?;
        if share.rows() > served.max_request_rows() {
            let (rows, most) = (share.rows(), served.max_request_rows());
            return Err(RouterError::TooManyRows { rows, most });
        }
        let admission = admission(served, &request.parameters, context, started)?;
        let answer = served.queue().infer(inputs, share, admission).await?;
        let outputs = served.reshapes().outward(answer.outputs)?;
        let outputs = name_outputs(served, &selected, outputs, &request.outputs)?;
        let response = InferResponse {
            id: request.id,
            model: served.description().name.clone(),
            version: served.description().version,
            outputs,
            timings: answer.timings,
            tokens: None,
        };
        Ok((response, share.rows()))
    }

    /// Waits until a version that sleeps answers. It is loaded once, however many wait; each waits no
    /// longer than its own deadline and the model's own time limit.
    async fn awake(
        &self,
        model: &str,
        choice: &VersionChoice,
        limit: Option<Deadline>,
        started: Instant,
    ) -> Result<Arc<Served>, RouterError> {
        loop {
            let (changed, patience) = match self.catalog.snapshot().model(model) {
                Some(entry) => (Arc::clone(entry.changed()), entry.facts().patience),
                None => return Err(RouterError::UnknownModel { model: model.into() }),
            };
            let mut change = std::pin::pin!(changed.notified());
            // From here on no change is missed: it is looked once more before waiting.
            change.as_mut().enable();
            let snapshot = self.catalog.snapshot();
            match (snapshot.resolve(model, choice), &self.repository) {
                (Ok(served), _) => return Ok(Arc::clone(served)),
                (Err(Unresolved::Asleep(version)), Some(repository)) => {
                    if let Some(entry) = snapshot.model(model) {
                        repository.wake(entry.name(), version);
                    }
                }
                (Err(reason), _) => return Err(RouterError::unresolved(model, reason)),
            }
            // Held on, it would keep every version of this moment in memory.
            drop(snapshot);
            let late = || RouterError::NotInTime { model: model.into() };
            match Deadline::earlier(limit, Deadline::after(started, patience)) {
                None => change.await,
                Some(Deadline(at)) => {
                    tokio::time::timeout_at(at.into(), change).await.map_err(|_| late())?;
                }
            }
        }
    }

    /// Announces a request whose body is still being read, so that a batch may wait for it. `None`
    /// where there is nothing to announce it to; reading goes on all the same.
    pub fn announce(&self, model: &str, version: &VersionChoice) -> Option<Announced> {
        let served = self.catalog.resolve(model, version).ok()?;
        let arriving = served.gains_from_batches().then(|| served.queue().announce())?;
        Some(Announced { arriving, _served: served })
    }

    /// Describes the version that a request for `version` would reach. One that sleeps is loaded,
    /// since what it takes and gives stands in its file.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model or version, or it does not answer before `deadline`.
    pub async fn describe(
        &self,
        model: &str,
        version: &VersionChoice,
        deadline: Option<Deadline>,
    ) -> Result<Arc<ModelDescription>, RouterError> {
        let served = match self.catalog.resolve(model, version) {
            Err(Unresolved::Asleep(_)) => {
                self.awake(model, version, deadline, Instant::now()).await?
            }
            resolved => resolved.map_err(|reason| RouterError::unresolved(model, reason))?,
        };
        Ok(Arc::clone(served.description()))
    }

    /// Returns the name of a model that would answer a request for `version`, at once or once it is
    /// loaded for it.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model or version, or it does not answer now.
    pub fn readiness(
        &self,
        model: &str,
        version: &VersionChoice,
    ) -> Result<ModelName, RouterError> {
        let snapshot = self.catalog.snapshot();
        match (snapshot.resolve(model, version), snapshot.model(model)) {
            (Ok(_) | Err(Unresolved::Asleep(_)), Some(entry)) => Ok(entry.name().clone()),
            (Err(reason), _) => Err(RouterError::unresolved(model, reason)),
            (_, None) => Err(unknown(model)),
        }
    }

    /// Loads a model, or one version of it, and returns when it answers: see [`Handle::load`].
    ///
    /// # Errors
    ///
    /// Fails where it cannot be loaded, or there is no repository to ask.
    pub async fn load(
        &self,
        model: &str,
        version: Option<ModelVersion>,
    ) -> Result<(), RouterError> {
        let repository = self.repository.as_ref().ok_or(RouterError::NoRepository)?;
        Ok(repository.load(model, version).await?)
    }

    /// Unloads a model: see [`Handle::unload`].
    ///
    /// # Errors
    ///
    /// Fails where there is no such model, or no repository to ask.
    pub async fn unload(&self, model: &str) -> Result<(), RouterError> {
        let repository = self.repository.as_ref().ok_or(RouterError::NoRepository)?;
        Ok(repository.unload(model).await?)
    }

    /// Returns the state of every version, in order of name and number.
    pub fn models(&self) -> Vec<VersionStatus> {
        let snapshot = self.catalog.snapshot();
        let status = |entry| {
            let versions = ModelEntry::versions(entry).iter();
            versions.map(move |version| VersionStatus::of(entry, version))
        };
        snapshot.models().into_iter().flat_map(status).collect()
    }

    /// Returns the numbers of a model's versions that answer, at once or once they are loaded,
    /// ascending.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model.
    pub fn versions(&self, model: &str) -> Result<Vec<ModelVersion>, RouterError> {
        let snapshot = self.catalog.snapshot();
        let entry = snapshot.model(model).ok_or_else(|| unknown(model))?;
        let answering = entry.versions().iter().filter(|entry| answers(&entry.state));
        Ok(answering.map(|entry| entry.version).collect())
    }

    /// Returns the statistics of versions in memory: of every model, of one model's versions, or of
    /// one version.
    ///
    /// # Errors
    ///
    /// Fails where the named model or version does not exist or is not in memory.
    pub fn statistics(
        &self,
        model: Option<&str>,
        version: &VersionChoice,
    ) -> Result<Vec<(ModelName, ModelVersion, ModelStatistics)>, RouterError> {
        let snapshot = self.catalog.snapshot();
        let served = match (model, version) {
            (None, _) => ready_versions(&snapshot, None),
            (Some(model), VersionChoice::Latest) => {
                snapshot.model(model).ok_or_else(|| unknown(model))?;
                ready_versions(&snapshot, Some(model))
            }
            (Some(model), VersionChoice::Exact(_) | VersionChoice::Label(_)) => {
                let served = snapshot.resolve(model, version);
                vec![Arc::clone(served.map_err(|reason| RouterError::unresolved(model, reason))?)]
            }
        };
        let numbers = |served: &Arc<Served>| {
            let description = served.description();
            (description.name.clone(), description.version, served.metrics().statistics())
        };
        Ok(served.iter().map(numbers).collect())
    }

    /// Returns whether traffic may come: everything that was there at the start has been loaded or has
    /// failed, and something answers. A version that failed to load does not keep the others from
    /// being reached, nor does one that is loaded later.
    pub fn is_ready(&self) -> bool {
        if self.repository.as_ref().is_some_and(|repository| !repository.has_looked()) {
            return false;
        }
        let snapshot = self.catalog.snapshot();
        let models = snapshot.models();
        let states = || models.iter().flat_map(|model| model.versions()).map(|entry| &entry.state);
        if !states().any(answers) && !models.is_empty() {
            return false;
        }
        let loading = states().any(|state| matches!(state, VersionState::Loading));
        if !loading {
            self.was_ready.store(true, Ordering::Relaxed);
        }
        !loading || self.was_ready.load(Ordering::Relaxed)
    }

    /// Returns the process's metrics.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }
}

/// Under what terms a request waits for an instance.
fn admission(
    served: &ServedVersion,
    parameters: &Parameters,
    context: &RequestContext,
    started: Instant,
) -> Result<Admission, RouterError> {
    let levels = served.queue().levels();
    let level = levels.level(asked_priority(parameters)?)?;
    let own = Deadline::after(started, served.timeout());
    let asked = match levels.allows_override(level) {
        true => asked_deadline(parameters, context, started)?,
        false => context.deadline,
    };
    Ok(Admission { deadline: Deadline::earlier(own, asked), level })
}

fn unknown(model: &str) -> RouterError {
    RouterError::UnknownModel { model: model.into() }
}

/// Whether a request for this version is answered, at once or once it is loaded for it.
fn answers(state: &VersionState<Served>) -> bool {
    match state {
        VersionState::Ready(_) | VersionState::Dormant | VersionState::Waking => true,
        VersionState::Loading | VersionState::Failed(_) | VersionState::Unloaded => false,
    }
}

fn ready_versions(snapshot: &Snapshot<Served>, model: Option<&str>) -> Vec<Arc<Served>> {
    let wanted = |name: &ModelName| model.is_none_or(|model| model == name.as_str());
    let entries = snapshot.models().into_iter().filter(|entry| wanted(entry.name()));
    let states = entries.flat_map(|entry| entry.versions()).map(|entry| &entry.state);
    let ready = states.filter_map(|state| match state {
        VersionState::Ready(served) => Some(Arc::clone(served)),
        _ => None,
    });
    ready.collect()
}

/// The `priority` parameter, as Triton's clients send it: 1 is the most urgent, 0 leaves it to the
/// model.
fn asked_priority(parameters: &Parameters) -> Result<Option<u64>, RouterError> {
    match parameters.get("priority") {
        None => Ok(None),
        Some(Parameter::Int(level)) if *level >= 0 => Ok(Some(level.unsigned_abs())),
        Some(_) => Err(RouterError::NoPriority),
    }
}

/// The earlier of the caller's deadline and the `timeout` parameter (microseconds, as Triton's clients
/// send it).
fn asked_deadline(
    parameters: &Parameters,
    context: &RequestContext,
    now: Instant,
) -> Result<Option<Deadline>, RouterError> {
    let asked = match parameters.get("timeout") {
        None => None,
        Some(Parameter::Int(0)) => None,
        Some(Parameter::Int(micros)) if *micros > 0 => {
            Deadline::after(now, Duration::from_micros(micros.unsigned_abs()))
        }
        Some(_) => return Err(RouterError::BadTimeout),
    };
    Ok(Deadline::earlier(context.deadline, asked))
}

/// Puts names to the selected outputs and applies what the request wants done to them.
fn name_outputs(
    served: &ServedVersion,
    selected: &[usize],
    mut outputs: Tensors,
    requested: &[RequestedOutput],
) -> Result<SmallVec<[NamedTensor; 2]>, RouterError> {
    let specs = &served.signature().outputs;
    // All outputs in their own order, the common case, are moved; others are cloned, which shares.
    let in_order = selected.len() == outputs.len() && selected.iter().copied().eq(0..outputs.len());
    if in_order && requested.iter().all(|output| output.classification.is_none()) {
        let named = specs.iter().zip(outputs.drain(..));
        return Ok(named
            .map(|(spec, tensor)| NamedTensor { name: spec.name.clone(), tensor })
            .collect());
    }
    let mut named = SmallVec::new();
    for (position, &index) in selected.iter().enumerate() {
        let name = specs[index].name.clone();
        let tensor = &outputs[index];
        let tensor = match requested.get(position).and_then(|output| output.classification) {
            None => tensor.clone(),
            Some(classification) => classify::top_classes(tensor, classification, None)
                .map_err(|reason| RouterError::NotClassifiable { name: name.clone(), reason })?,
        };
        named.push(NamedTensor { name, tensor });
    }
    Ok(named)
}
