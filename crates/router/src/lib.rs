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
mod describe;
mod error;
mod served;

use std::sync::Arc;
use std::time::{Duration, Instant};

use outhaul_monitor::{ModelStatistics, Monitor};
use outhaul_repository::{Catalog, Snapshot, VersionState};
pub use outhaul_scheduler::Arriving;
use outhaul_types::{
    Classify, Deadline, InferRequest, InferResponse, ModelName, ModelVersion, NamedTensor,
    Parameter, Parameters, RequestContext, RequestedOutput, Tensors, VersionChoice,
};
use smallvec::SmallVec;

pub use describe::{BatchMode, ModelDescription, VersionStatus};
pub use error::RouterError;
pub use served::{ServedVersion, StartError, VersionPlan};

/// Answers predictions in this process. Share it behind an [`Arc`].
pub struct Router {
    catalog: Arc<Catalog<ServedVersion>>,
    monitor: Arc<Monitor>,
}

impl Router {
    /// Makes a router over the versions that `catalog` publishes.
    pub fn new(catalog: Arc<Catalog<ServedVersion>>, monitor: Arc<Monitor>) -> Self {
        Router { catalog, monitor }
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
        let served = self.resolve(&request.model, request.version)?;
        let result = self.infer_on(&served, request, context, started).await;
        let total = started.elapsed();
        match &result {
            Ok((response, rows)) => {
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
        let signature = served.signature();
        let selected =
            signature.select_outputs(request.outputs.iter().map(|output| &output.name))?;
        let inputs = signature.bind(request.inputs)?;
        let share = served.share(&inputs)?;
        let deadline = deadline(served.timeout(), &request.parameters, context, started)?;
        let answer = served.queue().infer(inputs, share, deadline).await?;
        let outputs = name_outputs(served, &selected, answer.outputs, &request.outputs)?;
        let response = InferResponse {
            id: request.id,
            model: served.description().name.clone(),
            version: served.description().version,
            outputs,
            timings: answer.timings,
        };
        Ok((response, share.rows()))
    }

    /// Announces a request whose body is still being read, so that a batch may wait for it. `None`
    /// where there is nothing to announce it to; reading goes on all the same.
    pub fn announce(&self, model: &str, version: VersionChoice) -> Option<Arriving> {
        let served = self.catalog.resolve(model, version).ok()?;
        served.gains_from_batches().then(|| served.queue().announce())
    }

    /// Describes the version that a request for `version` would reach.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model or version, or it is not ready.
    pub fn describe(
        &self,
        model: &str,
        version: VersionChoice,
    ) -> Result<Arc<ModelDescription>, RouterError> {
        self.resolve(model, version).map(|served| Arc::clone(served.description()))
    }

    /// Returns the state of every version, in order of name and number.
    pub fn models(&self) -> Vec<VersionStatus> {
        let snapshot = self.catalog.snapshot();
        let entries = snapshot.models();
        let versions = entries.iter().flat_map(|entry| {
            entry.versions().iter().map(|(version, state)| (entry.name(), *version, state))
        });
        versions.map(|(name, version, state)| status(name, version, state)).collect()
    }

    /// Returns the numbers of a model's ready versions, ascending.
    ///
    /// # Errors
    ///
    /// Fails where there is no such model.
    pub fn versions(&self, model: &str) -> Result<Vec<ModelVersion>, RouterError> {
        let snapshot = self.catalog.snapshot();
        let entry = snapshot.model(model).ok_or_else(|| unknown(model))?;
        let ready = entry.versions().iter().filter(|(_, state)| is_ready(state));
        Ok(ready.map(|(version, _)| *version).collect())
    }

    /// Returns the statistics of ready versions: of every model, of one model's versions, or of one
    /// version.
    ///
    /// # Errors
    ///
    /// Fails where the named model or version does not exist or is not ready.
    pub fn statistics(
        &self,
        model: Option<&str>,
        version: VersionChoice,
    ) -> Result<Vec<(ModelName, ModelVersion, ModelStatistics)>, RouterError> {
        let snapshot = self.catalog.snapshot();
        let served = match (model, version) {
            (None, _) => ready_versions(&snapshot, None),
            (Some(model), VersionChoice::Latest) => {
                snapshot.model(model).ok_or_else(|| unknown(model))?;
                ready_versions(&snapshot, Some(model))
            }
            (Some(model), VersionChoice::Exact(_)) => vec![self.resolve(model, version)?],
        };
        let numbers = |served: &Arc<ServedVersion>| {
            let description = served.description();
            (description.name.clone(), description.version, served.metrics().statistics())
        };
        Ok(served.iter().map(numbers).collect())
    }

    /// Returns whether traffic may come: nothing is loading any more and something answers. A version
    /// that failed to load does not keep the others from being reached.
    pub fn is_ready(&self) -> bool {
        let snapshot = self.catalog.snapshot();
        let models = snapshot.models();
        let mut states = models.iter().flat_map(|model| model.versions()).map(|(_, state)| state);
        let mut any_ready = false;
        let none_loading = states.all(|state| {
            any_ready |= is_ready(state);
            !matches!(state, VersionState::Loading)
        });
        none_loading && (any_ready || models.is_empty())
    }

    /// Returns the process's metrics.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    fn resolve(
        &self,
        model: &str,
        version: VersionChoice,
    ) -> Result<Arc<ServedVersion>, RouterError> {
        self.catalog
            .resolve(model, version)
            .map_err(|reason| RouterError::unresolved(model, version, reason))
    }
}

fn unknown(model: &str) -> RouterError {
    RouterError::UnknownModel { model: model.into() }
}

fn is_ready(state: &VersionState<ServedVersion>) -> bool {
    matches!(state, VersionState::Ready(_))
}

fn ready_versions(
    snapshot: &Snapshot<ServedVersion>,
    model: Option<&str>,
) -> Vec<Arc<ServedVersion>> {
    let wanted = |name: &ModelName| model.is_none_or(|model| model == name.as_str());
    let entries = snapshot.models().into_iter().filter(|entry| wanted(entry.name()));
    let states = entries.flat_map(|entry| entry.versions());
    let ready = states.filter_map(|(_, state)| match state {
        VersionState::Ready(served) => Some(Arc::clone(served)),
        VersionState::Loading | VersionState::Failed(_) => None,
    });
    ready.collect()
}

fn status(
    name: &ModelName,
    version: ModelVersion,
    state: &VersionState<ServedVersion>,
) -> VersionStatus {
    let (ready, reason) = match state {
        VersionState::Loading => (None, "loading".to_owned()),
        VersionState::Ready(served) => (Some(Arc::clone(served.description())), String::new()),
        VersionState::Failed(reason) => (None, reason.to_string()),
    };
    VersionStatus { name: name.clone(), version, ready, reason }
}

/// The earliest of the model's own time limit, the caller's deadline, and the `timeout` parameter
/// (microseconds, as Triton's clients send it).
fn deadline(
    limit: Duration,
    parameters: &Parameters,
    context: &RequestContext,
    now: Instant,
) -> Result<Option<Deadline>, RouterError> {
    let own = Deadline::after(now, limit);
    let asked = match parameters.get("timeout") {
        None => None,
        Some(Parameter::Int(0)) => None,
        Some(Parameter::Int(micros)) if *micros > 0 => {
            Deadline::after(now, Duration::from_micros(micros.unsigned_abs()))
        }
        Some(_) => return Err(RouterError::BadTimeout),
    };
    Ok(Deadline::earlier(Deadline::earlier(own, context.deadline), asked))
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
            Some(classification) => classify::top_classes(tensor, classification)
                .map_err(|reason| RouterError::NotClassifiable { name: name.clone(), reason })?,
        };
        named.push(NamedTensor { name, tensor });
    }
    Ok(named)
}
