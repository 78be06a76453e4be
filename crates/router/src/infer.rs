//! The way of one request on one model: resolve, wake, bind, queue, name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outhaul_repository::Unresolved;
use outhaul_scheduler::{Admission, Share};
use outhaul_types::{
    BoundInputs, Classify, Deadline, InferRequest, InferResponse, NamedTensor, Parameter,
    Parameters, RequestContext, RequestedOutput, Tensors, VersionChoice,
};
use smallvec::SmallVec;

use crate::cached::Runs;
use crate::callers::asked_level;
use crate::fallback::MOST_DEPTH;
use crate::preparing::Preparing;
use crate::transformed::{answer_transformed, check_transformed};
use crate::{Router, RouterError, Served, ServedVersion, cached, classify};

impl Router {
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
        if context.depth > MOST_DEPTH {
            return Err(RouterError::TooDeep { depth: context.depth });
        }
        // Steps of a pipeline are part of a request that was counted.
        if !context.is_part {
            self.callers.admit(context.caller.as_ref(), started)?;
        }
        let _answering = self.shadows.enter(context);
        if let Some(route) = self.route_of(&request.model, &request.version) {
            // Boxed, as all ways but the plain one: every request would carry their state.
            return Box::pin(self.infer_routed(route, request, context, started)).await;
        }
        if let Some(asked) = context.target.as_deref() {
            let asked_for = asked.model().is_some_and(|name| request.model == name.as_str());
            if !asked_for {
                return Err(RouterError::TargetNotAllowed { target: asked.to_string() });
            }
            return Box::pin(self.infer_at(asked, request, context, started)).await;
        }
        self.infer_or_fall(request, context, started).await
    }

    /// Answers a request on one of this process's models, whatever routes say of its name and whatever is declared
    /// for when it gives no answer.
    pub(crate) async fn infer_model(
        &self,
        request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<InferResponse, RouterError> {
        let mut load = Duration::ZERO;
        let served = match self.catalog.resolve(&request.model, &request.version) {
            Ok(served) => served,
            Err(Unresolved::Asleep(_)) => {
                let limit = asked_deadline(&request.parameters, context, started)?;
                let waking = self.awake(&request.model, &request.version, limit, started);
                let served = Box::pin(waking).await?;
                load = started.elapsed();
                served
            }
            Err(Unresolved::UnknownModel) => {
                return self.infer_pipeline(request, context, started).await;
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
        served: &Arc<Served>,
        request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<(InferResponse, usize), RouterError> {
        let admission = self.admission(served, &request.parameters, context, started)?;
        if served.cache().is_some() && !context.shadow && cached::is_small(&request) {
            return self.infer_cached(served, request, admission, context.no_cache).await;
        }
        answer(&self.preparing, served, request, admission, None).await
    }

    /// Waits until a version that sleeps answers. It is loaded once, however many wait; each waits no
    /// longer than its own deadline and the model's own time limit.
    pub(crate) async fn awake(
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

    /// Under what terms a request waits for an instance.
    pub(crate) fn admission(
        &self,
        served: &ServedVersion,
        parameters: &Parameters,
        context: &RequestContext,
        started: Instant,
    ) -> Result<Admission, RouterError> {
        let levels = served.queue().levels();
        let terms = self.callers.terms(context.caller.as_ref());
        let level = asked_level(levels, parameters, context, terms.priority)?;
        let own = Deadline::after(started, served.timeout());
        let asked = match levels.allows_override(level) {
            true => asked_deadline(parameters, context, started)?,
            false => context.deadline,
        };
        let deadline = Deadline::earlier(own, asked);
        Ok(Admission { deadline, level, caller: terms.key, weight: terms.weight })
    }
}

/// Answers a request on a version, by running the model; also returns the rows answered. `runs` keeps what
/// the model gives, where that is wanted.
pub(crate) async fn answer(
    preparing: &Preparing,
    served: &ServedVersion,
    request: InferRequest,
    admission: Admission,
    runs: Option<&Runs>,
) -> Result<(InferResponse, usize), RouterError> {
    if served.transform().is_some() {
        return Box::pin(answer_transformed(preparing, served, request, admission, runs)).await;
    }
    let signature = served.signature();
    let selected = signature.select_outputs(request.outputs.iter().map(|output| &output.name))?;
    let (inputs, share) = bound(served, request.inputs)?;
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
        cache: outhaul_types::CacheStatus::Off,
        via: None,
    };
    Ok((response, share.rows()))
}

/// Checks a request as [`answer`] does before it costs anything.
pub(crate) fn check(served: &ServedVersion, request: &InferRequest) -> Result<(), RouterError> {
    if let Some(transformed) = served.transform() {
        return check_transformed(served, transformed, request);
    }
    served.signature().select_outputs(request.outputs.iter().map(|output| &output.name))?;
    // A clone shares the elements.
    bound(served, request.inputs.clone()).map(drop)
}

/// Puts inputs into the model's order and shapes; also returns how they share a run.
fn bound(
    served: &ServedVersion,
    inputs: SmallVec<[NamedTensor; 2]>,
) -> Result<(BoundInputs, Share), RouterError> {
    let inputs = served.reshapes().inward(served.signature().bind(inputs)?)?;
    let share = served.share(&inputs)?;
    if share.rows() > served.max_request_rows() {
        let (rows, most) = (share.rows(), served.max_request_rows());
        return Err(RouterError::TooManyRows { rows, most });
    }
    Ok((inputs, share))
}

/// The earlier of the caller's deadline and the `timeout` parameter (microseconds, as Triton's clients
/// send it).
pub(crate) fn asked_deadline(
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
