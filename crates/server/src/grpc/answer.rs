//! What all services share: who calls, what is told of a call, and what a caller is told of an error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outhaul_monitor::trace::SpanStatus;
use outhaul_protocol::grpc::status;
use outhaul_router::ModelDescription;
use outhaul_types::{Classify, ErrorKind, InferResponse, Timings, VersionChoice, error_chain};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status};

use super::context::{Caller, REQUEST_ID};
use super::dispatch::Arrived;
use crate::App;
use crate::answered::Answered;
use crate::traffic::{self, Way};

/// What an overloaded server asks a client to wait. A queue drains in much less; the contract counts
/// in whole seconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What every service has.
#[derive(Clone)]
pub(super) struct Base {
    pub(super) app: Arc<App>,
    /// What metrics, logs and traces call the contract.
    pub(super) contract: &'static str,
    pub(super) request_timeout: Option<Duration>,
}

/// A prediction that was asked for.
pub(super) struct Asked<'a> {
    /// Names the span.
    pub(super) route: &'static str,
    /// The model, as the caller wrote it.
    pub(super) model: &'a str,
    pub(super) request_bytes: usize,
}

/// The message of an answer, and what is told beside it.
pub(super) struct Answer<M> {
    pub(super) message: M,
    version: u64,
    timings: Timings,
    way: Way,
}

impl<M> Answer<M> {
    /// Keeps what is told of a response beside its message.
    pub(super) fn of(response: &InferResponse, message: M) -> Self {
        let (version, timings) = (response.version.0, response.timings);
        Answer { message, version, timings, way: Way::of(response) }
    }

    /// Puts another message in place of this one.
    pub(super) fn with<N>(self, message: N) -> Answer<N> {
        Answer { message, version: self.version, timings: self.timings, way: self.way }
    }
}

impl Base {
    /// Reads what surrounds a call, and when it arrived.
    pub(super) fn caller<T>(&self, request: &Request<T>) -> Result<(Caller, Instant), Status> {
        let arrived = request.extensions().get::<Arrived>();
        let arrived = arrived.map_or_else(Instant::now, |Arrived(instant)| *instant);
        let new_id = || self.app.next_request_id();
        let mut caller = Caller::read(request.metadata(), arrived, new_id)?;
        let (header, router) = (&self.app.config().caller_header.0, self.app.router());
        traffic::read(request.metadata().as_ref(), header, router, &mut caller.context)
            .map_err(|malformed| Status::invalid_argument(malformed.0))?;
        Ok((caller, arrived))
    }

    /// The same, with the server's own limit of time applied.
    pub(super) fn limited_caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let (caller, arrived) = self.caller(request)?;
        Ok(caller.within(self.request_timeout, arrived))
    }

    /// Describes a version, which is loaded where that takes a request.
    pub(super) async fn describe(
        &self,
        name: &str,
        version: &VersionChoice,
        caller: &Caller,
    ) -> Result<Arc<ModelDescription>, Status> {
        let deadline = caller.context.deadline;
        let described = self.app.router().describe(name, version, deadline).await;
        described.map_err(|error| self.refuse(&error, caller))
    }

    /// Waits for a prediction, counts it where it succeeds, and tells logs and traces of it.
    ///
    /// # Errors
    ///
    /// Fails as the prediction does.
    pub(super) async fn tell<M: Message>(
        &self,
        asked: Asked<'_>,
        caller: &Caller,
        prediction: impl Future<Output = Result<Answer<M>, Status>>,
    ) -> Result<Answer<M>, Status> {
        let started = Instant::now();
        let Asked { route, model, request_bytes } = asked;
        let (app, contract) = (&*self.app, self.contract);
        let result = prediction.await;
        let answer = result.as_ref().ok().map(|answer| (answer.version, answer.timings));
        let response_bytes = result.as_ref().map_or(0, |answer| answer.message.encoded_len());
        let code = result.as_ref().err().map_or(Code::Ok, Status::code);
        let total = started.elapsed();
        if result.is_ok() {
            let metrics = app.server_metrics();
            metrics.record_call(contract, code as u16, total, request_bytes, response_bytes);
        }
        if Answered::is_wanted(app) {
            let answered = Answered {
                contract,
                route,
                request_id: &caller.context.id,
                model,
                version: answer.map(|(version, _)| version),
                parent: caller.context.trace,
                status: SpanStatus::Grpc(code as u16),
                request_bytes,
                response_bytes,
                total,
                timings: answer.map(|(_, timings)| timings),
            };
            answered.tell(app);
        }
        result
    }

    /// Tells the log of an error, and returns what the client is told.
    pub(super) fn refuse(&self, error: &impl Classify, caller: &Caller) -> Status {
        let kind = error.kind();
        let request_id = caller.context.id.as_str();
        if kind.is_ours() {
            self.app.log_failure(self.contract, request_id, error);
        } else {
            tracing::debug!(request_id, %kind, error = error_chain(error), "request refused");
        }
        let wait = error.retry_after().unwrap_or(RETRY_AFTER);
        status(error, (kind == ErrorKind::Overloaded).then_some(wait))
    }
}

/// Makes an answer of a message. It names the request where the caller gave it a name, and every failure
/// does.
pub(super) fn named<M>(
    answer: Result<Answer<M>, Status>,
    caller: &Caller,
) -> Result<Response<M>, Status> {
    match answer {
        Ok(Answer { message, way, .. }) => {
            let mut response = Response::new(message);
            way.write(response.metadata_mut().as_mut());
            if caller.gave_id {
                name_request(response.metadata_mut(), caller);
            }
            Ok(response)
        }
        Err(mut status) => {
            name_request(status.metadata_mut(), caller);
            Err(status)
        }
    }
}

fn name_request(metadata: &mut MetadataMap, caller: &Caller) {
    // An id that came as a header is one; those made here are plain text.
    if let Ok(id) = MetadataValue::try_from(caller.context.id.as_str()) {
        metadata.insert(REQUEST_ID, id);
    }
}
