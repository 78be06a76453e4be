//! What is done when a destination gives no answer: the next one is asked, and at last a declared answer is
//! given.
//!
//! What comes next is decided by [`Way`], which is pure; [`fall`] carries it out. The order is:
//!
//! 1. the destination that was chosen, where its circuit lets a request pass;
//! 2. where it is not there at all, the other variants of its route: a caller is not to notice that this
//!    replica has not loaded a candidate yet;
//! 3. where the cause is one that the fallback covers, its destinations, in their order;
//! 4. its default answer.
//!
//! Invariants: what the caller did wrong ends it at once, and gets no default answer where no destination looked
//! at it; no destination is led on to what it declares itself (one list, never a chain); the answer says what gave
//! it and why; where nobody answers, the first error is returned, for it tells most.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outhaul_monitor::Monitor;
use outhaul_monitor::traffic::is_callers;
use outhaul_repository::VersionState;
use outhaul_types::{
    CacheStatus, Classify, Deadline, DefaultValue, Destination, ErrorKind, FallbackCause,
    FallbackSpec, InferRequest, InferResponse, ModelName, ModelVersion, Name, RequestContext,
    Timings, VersionChoice, error_chain,
};

use crate::circuit::{Breaker, Fared, now};
use crate::default_answer::{default_answer, is_misfit};
use crate::infer::{asked_deadline, check};
use crate::routes::{Route, Variant};
use crate::{ModelDescription, Router, RouterError};

/// How often a request may be passed on, by pipelines, fallbacks and servers. Nobody means more.
pub(crate) const MOST_DEPTH: u8 = 8;

/// A request on its way through destinations.
pub(crate) struct Falling<'a> {
    /// Whom it was meant for.
    pub(crate) first: &'a Destination,
    /// The route that chose it, where one did.
    pub(crate) chosen: Option<Chosen<'a>>,
    /// What is declared, where something is.
    pub(crate) spec: Option<&'a FallbackSpec>,
    /// When it came.
    pub(crate) started: Instant,
}

/// A variant of a route.
#[derive(Clone, Copy)]
pub(crate) struct Chosen<'a> {
    pub(crate) route: &'a Route,
    pub(crate) variant: usize,
}

impl<'a> Chosen<'a> {
    pub(crate) fn variant(&self) -> &'a Variant {
        &self.route.variants()[self.variant]
    }

    /// The variants that may answer in its place, by falling share.
    fn others(&self) -> Vec<&'a Variant> {
        let variants = self.route.variants();
        let order = self.route.by_share().into_iter().filter(|index| *index != self.variant);
        order.map(|index| &variants[index]).filter(|variant| variant.share > 0.0).collect()
    }
}

/// Where on its way a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    /// At another variant of the route.
    Other(usize),
    /// At a destination of the fallback.
    To(usize),
    Default,
}

/// What there is to ask.
#[derive(Clone, Copy)]
struct Way<'a> {
    /// Other variants of the route.
    others: usize,
    spec: Option<&'a FallbackSpec>,
}

/// What a destination said in place of an answer.
#[derive(Clone, Copy, Debug)]
struct Failed {
    cause: FallbackCause,
    /// It is not there, so nothing was computed.
    is_absent: bool,
}

impl Failed {
    /// Returns `None` where the caller has to act.
    fn of(error: &RouterError) -> Option<Self> {
        if let RouterError::OpenCircuit { .. } = error {
            return Some(Failed { cause: FallbackCause::OpenCircuit, is_absent: false });
        }
        let kind = error.kind();
        let cause = match kind {
            _ if is_callers(kind) => return None,
            ErrorKind::Overloaded => FallbackCause::Overloaded,
            ErrorKind::DeadlineExceeded => FallbackCause::Deadline,
            _ => FallbackCause::Error,
        };
        let is_absent = matches!(kind, ErrorKind::NotFound | ErrorKind::NotReady);
        Some(Failed { cause, is_absent })
    }
}

impl Way<'_> {
    /// Decides where a request goes that has failed at `place` and has so much time left; `None` where it
    /// ends.
    fn next(self, place: Place, failed: Failed, left: Option<Duration>) -> Option<Place> {
        let is_late = left == Some(Duration::ZERO);
        let other = match place {
            Place::First => Some(0),
            Place::Other(index) => Some(index + 1),
            Place::To(_) | Place::Default => None,
        };
        if let Some(other) = other.filter(|other| *other < self.others)
            && failed.is_absent
            && !is_late
        {
            return Some(Place::Other(other));
        }
        let spec = self.spec.filter(|spec| spec.covers(failed.cause))?;
        let to = match place {
            Place::First | Place::Other(_) => 0,
            Place::To(index) => index + 1,
            Place::Default => return None,
        };
        match to < spec.to.len() && !is_late {
            true => Some(Place::To(to)),
            false => (!spec.default.is_empty()).then_some(Place::Default),
        }
    }

    /// Decides how long the destination at `place` may take of the time that is left, so that others can
    /// be asked after it. `None` where nothing but its own limits holds.
    fn limit(self, place: Place, left: Option<Duration>) -> Option<Duration> {
        let spec = self.spec.filter(|spec| spec.covers(FallbackCause::Deadline))?;
        let asked = match place {
            Place::First | Place::Other(_) => 0,
            Place::To(index) => index + 1,
            Place::Default => return None,
        };
        let is_last = asked == spec.to.len() && spec.default.is_empty();
        match (is_last, spec.after, left) {
            (true, ..) => None,
            (false, Some(after), left) => Some(left.map_or(after, |left| left.min(after))),
            (false, None, left) => left.map(|left| left * 4 / 5),
        }
    }
}

pub(crate) type Answering<'a> =
    Pin<Box<dyn Future<Output = Result<InferResponse, RouterError>> + Send + 'a>>;

/// Whom [`fall`] asks: the router, or a test's script.
pub(crate) trait Destinations: Sync {
    /// Asks one destination, by no route and by no fallback of its own.
    fn ask<'a>(
        &'a self,
        to: &'a Destination,
        request: InferRequest,
        context: &'a RequestContext,
        started: Instant,
    ) -> Answering<'a>;

    /// Returns what a destination takes and gives, where that is known now.
    fn description(&self, of: &Destination) -> Option<Arc<ModelDescription>>;

    /// Whether the model did not load because these very values do not fit it.
    fn has_refused(&self, _of: &Destination, _default: &BTreeMap<Name, DefaultValue>) -> bool {
        false
    }

    /// Checks a request as a destination would before it costs anything, where that can be done now.
    fn check(
        &self,
        at: &Destination,
        request: &InferRequest,
        context: &RequestContext,
    ) -> Result<(), RouterError>;

    fn breaker(&self, of: &Destination) -> Arc<Breaker>;

    fn monitor(&self) -> &Monitor;
}

impl Destinations for Router {
    fn ask<'a>(
        &'a self,
        to: &'a Destination,
        request: InferRequest,
        context: &'a RequestContext,
        started: Instant,
    ) -> Answering<'a> {
        Box::pin(self.infer_alone(to, request, context, started))
    }

    fn description(&self, of: &Destination) -> Option<Arc<ModelDescription>> {
        self.in_memory(of)
    }

    fn has_refused(&self, of: &Destination, default: &BTreeMap<Name, DefaultValue>) -> bool {
        let snapshot = self.catalog.snapshot();
        let model = of.model().and_then(|name| snapshot.model(name.as_str()));
        model.is_some_and(|model| {
            let is_its_own = |own: &Arc<FallbackSpec>| own.default == *default;
            model.facts().fallback.as_ref().is_some_and(is_its_own)
                && model.versions().iter().any(|version| {
                    matches!(&version.state, VersionState::Failed(reason) if is_misfit(reason))
                })
        })
    }

    fn check(
        &self,
        at: &Destination,
        request: &InferRequest,
        context: &RequestContext,
    ) -> Result<(), RouterError> {
        let Destination::Model { name, version } = at else { return Ok(()) };
        if let Ok(served) = self.catalog.resolve(name.as_str(), version) {
            self.admission(&served, &request.parameters, context, now())?;
            return check(&served, request);
        }
        if let Some(description) = self.pipeline_description(name.as_str(), version) {
            let signature = &description.signature;
            signature.select_outputs(request.outputs.iter().map(|output| &output.name))?;
            signature.bind(request.inputs.iter().cloned())?;
        }
        Ok(())
    }

    fn breaker(&self, of: &Destination) -> Arc<Breaker> {
        self.circuits.of(of)
    }

    fn monitor(&self) -> &Monitor {
        self.monitor()
    }
}

impl Router {
    /// Answers a request on one of this process's models, or does what is declared beside the model for when
    /// it gives no answer.
    pub(crate) async fn infer_or_fall(
        &self,
        request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<InferResponse, RouterError> {
        let declared = self.declared_fallback(&request.model, &request.version, context);
        let Some((name, spec)) = declared else {
            return self.infer_model(request, context, started).await;
        };
        let first = Destination::Model { name, version: request.version.clone() };
        let falling = Falling { first: &first, chosen: None, spec: Some(&spec), started };
        Box::pin(fall(self, falling, request, context)).await
    }

    /// Answers a request at the variant that a route chose, or does what the route declares for when it gives no
    /// answer, else what is declared beside the variant's model.
    pub(crate) async fn infer_chosen(
        &self,
        chosen: Chosen<'_>,
        request: InferRequest,
        context: &RequestContext,
        started: Instant,
    ) -> Result<InferResponse, RouterError> {
        let variant = &chosen.route.variants()[chosen.variant];
        let beside_model = match (&chosen.route.spec().fallback, &variant.to) {
            (None, Destination::Model { name, version }) => {
                self.declared_fallback(name.as_str(), version, context)
            }
            _ => None,
        };
        let of_route = chosen.route.spec().fallback.as_ref().filter(|_| !context.shadow);
        let spec = of_route.or_else(|| beside_model.as_ref().map(|(_, spec)| &**spec));
        if spec.is_none() && chosen.route.variants().len() == 1 {
            let answer = self.infer_alone(&variant.to, request, context, started).await;
            record((chosen.route, variant), &answer, started, context);
            return answer;
        }
        let falling = Falling { first: &variant.to, chosen: Some(chosen), spec, started };
        Box::pin(fall(self, falling, request, context)).await
    }

    /// Returns what is declared beside a model, and its name. A version that the model does not have is the
    /// caller's mistake, and a copy for comparison is led on to nothing.
    fn declared_fallback(
        &self,
        model: &str,
        version: &VersionChoice,
        context: &RequestContext,
    ) -> Option<(ModelName, Arc<FallbackSpec>)> {
        if context.shadow {
            return None;
        }
        let spec = self.catalog.fallback(model)?;
        let snapshot = self.catalog.snapshot();
        let entry = snapshot.model(model)?;
        let is_there = match version {
            VersionChoice::Latest => true,
            VersionChoice::Exact(version) => entry.version(*version).is_some(),
            VersionChoice::Label(label) => entry.facts().labels.contains_key(label),
        };
        is_there.then(|| (entry.name().clone(), spec))
    }
}

/// One request, and where it may go.
struct Fall<'a, D> {
    destinations: &'a D,
    falling: Falling<'a>,
    others: Vec<&'a Variant>,
    request: InferRequest,
    context: &'a RequestContext,
    /// The caller's, in whatever form it came.
    deadline: Option<Deadline>,
}

/// Asks one destination after the other until one answers.
pub(crate) async fn fall<D: Destinations>(
    destinations: &D,
    falling: Falling<'_>,
    request: InferRequest,
    context: &RequestContext,
) -> Result<InferResponse, RouterError> {
    if context.depth > MOST_DEPTH {
        return Err(RouterError::TooDeep { depth: context.depth });
    }
    let deadline = asked_deadline(&request.parameters, context, falling.started)?;
    let others = Vec::new();
    let mut fall = Fall { destinations, falling, others, request, context, deadline };
    let error = match fall.ask_first().await {
        Ok(response) => return Ok(response),
        Err(error) => error,
    };
    let Some(failed) = Failed::of(&error) else { return Err(error) };
    fall.others = fall.falling.chosen.map(|chosen| chosen.others()).unwrap_or_default();
    fall.go_on(error, failed).await
}

impl<'a, D: Destinations> Fall<'a, D> {
    fn way(&self) -> Way<'a> {
        Way { others: self.others.len(), spec: self.falling.spec }
    }

    fn left(&self) -> Option<Duration> {
        self.deadline.map(|Deadline(at)| at.saturating_duration_since(now()))
    }

    /// Asks whom the request was meant for, unless its circuit is open.
    async fn ask_first(&self) -> Result<InferResponse, RouterError> {
        let Falling { first, chosen, spec, started } = &self.falling;
        // A remote has its own; a destination without a fallback is asked whatever comes of it.
        let has_circuit = spec.is_some() && first.model().is_some();
        let breaker = has_circuit.then(|| self.destinations.breaker(first));
        let passed = breaker.as_ref().map(|breaker| breaker.pass());
        let answer = match passed {
            Some(None) => Err(RouterError::OpenCircuit { destination: first.to_string() }),
            None => self.ask(Place::First, first, *started).await,
            Some(Some(passed)) => {
                let asked = now();
                let answer = self.ask(Place::First, first, *started).await;
                let took = match &answer {
                    // It had all the time that it may have.
                    Err(RouterError::GivenUp { .. }) => Duration::MAX,
                    _ => now().saturating_duration_since(asked),
                };
                passed.ended(Fared::of(answer.as_ref().map(drop).map_err(Classify::kind), took));
                answer
            }
        };
        if let Some(chosen) = chosen {
            record((chosen.route, chosen.variant()), &answer, *started, self.context);
        }
        answer
    }

    /// Asks one destination, no longer than it may take.
    async fn ask(
        &self,
        place: Place,
        to: &Destination,
        started: Instant,
    ) -> Result<InferResponse, RouterError> {
        let limit = self.way().limit(place, self.left());
        if (place, limit) == (Place::First, None) {
            return self.destinations.ask(to, self.request.clone(), self.context, started).await;
        }
        let (mut request, mut context) = (self.request.clone(), self.context.clone());
        if place != Place::First {
            // It counts from when the request came, and has become the deadline.
            request.parameters.remove("timeout");
            context.deadline = self.deadline;
            context.depth = context.depth.saturating_add(1);
            context.target = None;
        }
        let end = limit.and_then(|limit| Deadline::after(now(), limit));
        context.deadline = Deadline::earlier(context.deadline, end);
        let answering = self.destinations.ask(to, request, &context, started);
        match (end, to, limit) {
            // A remote keeps to the deadline itself, and counts that it was late.
            (Some(Deadline(at)), Destination::Model { .. }, Some(limit)) => {
                let late = |_| RouterError::GivenUp { destination: to.to_string(), limit };
                tokio::time::timeout_at(at.into(), answering).await.map_err(late)?
            }
            _ => answering.await,
        }
    }

    /// Goes on from where the first destination failed.
    async fn go_on(
        &self,
        first_error: RouterError,
        first_failed: Failed,
    ) -> Result<InferResponse, RouterError> {
        let first = self.falling.first;
        let (mut place, mut failed, mut tried) = (Place::First, first_failed, 1);
        while let Some(next) = self.way().next(place, failed, self.left()) {
            if place == Place::First {
                let breaker = self.destinations.breaker(first);
                let metrics = breaker.fallback(first, self.destinations.monitor());
                metrics.record(first_failed.cause);
            }
            place = next;
            let (name, answer) = match self.try_at(place).await {
                Some(tried) => tried,
                None => break,
            };
            match answer {
                Ok(response) => return Ok(marked(response, name, first_failed.cause)),
                Err(error) => {
                    let Some(new) = Failed::of(&error) else { return Err(error) };
                    tracing::debug!(%first, at = %name, error = %error_chain(&error), "a fallback failed");
                    (failed, tried) = (new, tried + 1);
                }
            }
        }
        if tried > 1 {
            let error = error_chain(&first_error);
            tracing::warn!(%first, tried, %error, "no fallback gave an answer");
        }
        Err(first_error)
    }

    /// Tries what is at `place`; returns its name too. `None` where the default cannot be given.
    async fn try_at(&self, place: Place) -> Option<(Name, Result<InferResponse, RouterError>)> {
        match place {
            Place::First => None,
            Place::Other(index) => {
                let (variant, started) = (self.others[index], now());
                let answer = self.ask(place, &variant.to, started).await;
                if let Some(chosen) = self.falling.chosen {
                    record((chosen.route, variant), &answer, started, self.context);
                }
                Some((variant.name.clone(), answer))
            }
            Place::To(index) => {
                let to = &self.falling.spec?.to[index];
                let answer = self.ask(place, to, now()).await;
                Some((to.to_string().into(), answer))
            }
            Place::Default => Some((Name::from("default"), self.default()?)),
        }
    }

    /// Gives the declared answer, or tells what the caller did wrong: no model may have looked at the request yet.
    fn default(&self) -> Option<Result<InferResponse, RouterError>> {
        let first = self.falling.first;
        let checked = self.destinations.check(first, &self.request, self.context);
        if let Err(error) = checked
            && is_callers(error.kind())
        {
            return Some(Err(error));
        }
        let description = self.destinations.description(first);
        let signature = description.as_ref().map(|description| &description.signature);
        let values = &self.falling.spec?.default;
        if description.is_none() && self.destinations.has_refused(first, values) {
            return None;
        }
        let model = ModelName::new(&self.request.model).ok()?;
        match default_answer(values, signature, &self.request) {
            Ok(outputs) => Some(Ok(InferResponse {
                id: self.request.id.clone(),
                model,
                // None: versions begin with 1.
                version: ModelVersion(0),
                outputs,
                timings: Timings::default(),
                tokens: None,
                cache: CacheStatus::Off,
                via: None,
            })),
            Err(error) => {
                tracing::error!(%first, error = %error_chain(&error), "the default answer does not fit");
                None
            }
        }
    }
}

/// Counts what became of a request at a variant.
fn record(
    (route, variant): (&Route, &Variant),
    answer: &Result<InferResponse, RouterError>,
    started: Instant,
    context: &RequestContext,
) {
    if context.shadow {
        return;
    }
    let metrics = &variant.metrics;
    let elapsed = now().saturating_duration_since(started);
    match answer {
        // A new version's cache is empty: what it computes is compared with what others compute.
        Ok(response) if matches!(response.cache, CacheStatus::Hit | CacheStatus::Joined) => {
            metrics.record_cached();
        }
        Ok(_) => metrics.record(Ok(()), elapsed),
        Err(error) => match error.kind() {
            // Whether it is there is looked after elsewhere: a server that starts loads it first.
            ErrorKind::NotFound | ErrorKind::NotReady => metrics.excuse(),
            ErrorKind::DeadlineExceeded if !is_ours(error) && !had_a_chance(route, elapsed) => {
                metrics.excuse();
            }
            kind => metrics.record(Err(kind), elapsed),
        },
    }
}

/// Whether it was this server that found it too late, and not the caller.
fn is_ours(error: &RouterError) -> bool {
    matches!(error, RouterError::GivenUp { .. })
}

/// Whether a request that came too late had time enough, by how long the route's answers usually take. Else any
/// caller could make a variant look ill by giving it no time.
fn had_a_chance(route: &Route, elapsed: Duration) -> bool {
    let medians = route.variants().iter().filter_map(|variant| variant.metrics.median());
    medians.min().is_none_or(|usual| elapsed >= usual.saturating_mul(2))
}

/// Notes on an answer who gave it in whose place, and why.
fn marked(mut response: InferResponse, name: Name, cause: FallbackCause) -> InferResponse {
    let via = response.via.get_or_insert_default();
    via.fallback = Some(name);
    via.cause = Some(cause);
    response
}

#[cfg(test)]
mod tests;
