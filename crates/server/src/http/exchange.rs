//! One prediction of any contract but the Open Inference Protocol, which has a shorter way of its own.
//!
//! What is the same for all contracts is done here: bounds, compression, deadline, ids, metrics, logs,
//! traces, work off the threads that serve connections. What a contract's bytes mean is told by its
//! [`Contract`], whose bodies are codecs of `protocol`.
//!
//! Invariant: every failure is written in the contract's own form, and a request of several rows is
//! answered as a whole or not at all.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use outhaul_monitor::trace::SpanStatus;
use outhaul_protocol::oip::Target;
use outhaul_protocol::{DecodeLimits, ProtocolError, Schema};
use outhaul_types::{InferRequest, InferResponse, Name, RequestContext, VersionChoice};

pub(super) use crate::describe::schema;

use super::answer::{Answer, Failure, json};
use super::infer::{Seen, Unanswered, failure, off_thread, output_bytes, pack, tell, unpack};
use super::routes::{Told, boxed};
use super::{Shared, body, coding, headers};
use crate::traffic::Way;

/// Requests of one call that are with the router at once, where a contract makes several of it.
const AT_ONCE: usize = 8;

/// How a contract reads a call and writes its answer.
pub(super) trait Contract: Send + Sync + 'static {
    /// What metrics and logs call it: one of `monitor`'s contracts.
    const NAME: &'static str;
    /// The route, for traces.
    const ROUTE: &'static str;
    /// What must be kept of the call to write its answer.
    type Format: Send + 'static;

    /// Returns the model that is asked. Contracts that name it in the body read it there.
    fn target(&self, call: &Call, shared: &Shared) -> Result<Target, Failure>;

    /// Reads the call by what its model takes.
    fn decode(
        &self,
        call: &Call,
        model: &Schema<'_>,
        limits: &DecodeLimits,
    ) -> Result<Decoded<Self::Format>, ProtocolError>;

    /// Writes the answers to all requests that were made of the call, in their order.
    fn encode(
        &self,
        format: Self::Format,
        responses: &[InferResponse],
        model: &Schema<'_>,
    ) -> Result<Written, ProtocolError>;

    /// Writes a failure in the contract's form.
    fn error(&self, failure: &Failure) -> Written;
}

/// A call, whole and decompressed.
pub(super) struct Call {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What a call asks of the router.
pub(super) struct Decoded<F> {
    /// Almost always one; several where a contract's rows have no common shape.
    pub(super) requests: Vec<InferRequest>,
    pub(super) format: F,
}

/// A body and what it is.
pub(super) struct Written {
    pub(super) content_type: HeaderValue,
    pub(super) body: Bytes,
}

impl Written {
    /// Returns a body of JSON.
    pub(super) fn json(body: impl Into<Bytes>) -> Self {
        let content_type = HeaderValue::from_static("application/json");
        Written { content_type, body: body.into() }
    }
}

/// Returns the model of a call that names none: the declared one, else the only one.
pub(super) fn default_target(shared: &Shared) -> Result<Target, Failure> {
    let target = |model: Name| Target { model, version: VersionChoice::Latest };
    if let Some(model) = &shared.config.default_model {
        return Ok(target(model.clone()));
    }
    let mut names: Vec<Name> = Vec::new();
    for status in shared.app.router().models() {
        if names.last().is_none_or(|last| *last != status.name.as_str()) {
            names.push(status.name.as_str().into());
        }
    }
    match &names[..] {
        [only] => Ok(target(only.clone())),
        [] => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "this server has no models yet")),
        _ => Err(Failure::bad_request(format!(
            "this server has {} models and the request names none: set default_model",
            names.len()
        ))),
    }
}

/// Answers one call.
pub(super) async fn exchange<C: Contract>(
    shared: &Shared,
    contract: C,
    request: Request,
) -> Response {
    let app = &*shared.app;
    let (head, body) = request.into_parts();
    let (id, id_header) = headers::request_id(&head.headers, app);
    let mut seen = Seen::new(C::NAME, C::ROUTE, id);
    let mut unanswered = Unanswered::new(app, C::NAME, seen.started);
    let contract = Arc::new(contract);
    let call = Call { headers: head.headers, body: Bytes::new() };
    let trace = headers::trace(&call.headers);
    let accepted = coding::of_answer(&call.headers);
    let answer = match predict(shared, &contract, call, body, &mut seen).await {
        Ok(written) => write(shared, &seen, accepted, written).await,
        Err(failure) => Err(failure),
    };
    unanswered.answered = true;
    let mut answer = answer.unwrap_or_else(|failure| {
        let Written { content_type, body } = contract.error(&failure);
        let mut answer = json(failure.status, body);
        answer.headers_mut().insert(CONTENT_TYPE, content_type);
        failure.put_header(&mut answer);
        answer
    });
    answer.headers_mut().insert(headers::REQUEST_ID, id_header);
    seen.way.write(answer.headers_mut());
    let (status, sent) = (answer.status().as_u16(), answer.body().known_length());
    tell(app, &seen, trace, SpanStatus::Http(status), sent);
    answer.extensions_mut().insert(Told);
    boxed(answer)
}

async fn predict<C: Contract>(
    shared: &Shared,
    contract: &Arc<C>,
    mut call: Call,
    body: axum::body::Body,
    seen: &mut Seen,
) -> Result<Written, Failure> {
    let (app, config) = (&*shared.app, &shared.config);
    let context = headers::surroundings(&call.headers, seen.id.clone(), seen.started, shared)?;
    let packed = coding::of_request(&call.headers)?;
    let body = body::read(body, config, || ()).await?;
    seen.request_bytes = body.len();
    call.body = match packed {
        None => body,
        Some(coding) => unpack(app, &seen.id, coding, body, config.max_body_bytes).await?,
    };
    let target = contract.target(&call, shared)?;
    seen.model = target.model.clone();
    let described = app.router().describe(&target.model, &target.version, context.deadline).await;
    let model = described.map_err(|error| failure(app, C::NAME, &seen.id, &error))?;

    let work = call.body.len();
    let (codec, described) = (Arc::clone(contract), Arc::clone(&model));
    let limits = app.config().decode_limits.clone();
    let decode = move || codec.decode(&call, &schema(&described), &limits);
    let decoded = off_thread(app, &seen.id, work, "decoding", decode).await?;
    let Decoded { mut requests, format } = decoded.map_err(|error| Failure::of(&error))?;
    for request in &mut requests {
        request.model = target.model.clone();
        request.version = target.version.clone();
    }
    let responses = infer_all(shared, requests, &context, seen).await?;

    let work = responses.iter().map(output_bytes).sum();
    let codec = Arc::clone(contract);
    let encode = move || codec.encode(format, &responses, &schema(&model));
    let encoded = off_thread(app, &seen.id, work, "encoding", encode).await?;
    encoded.map_err(|error| failure(app, C::NAME, &seen.id, &error))
}

async fn infer_all(
    shared: &Shared,
    requests: Vec<InferRequest>,
    context: &RequestContext,
    seen: &mut Seen,
) -> Result<Vec<InferResponse>, Failure> {
    let app = &*shared.app;
    let infer = |request| app.router().infer(request, context);
    let all = stream::iter(requests).map(infer).buffered(AT_ONCE).try_collect::<Vec<_>>().await;
    let responses = all.map_err(|error| failure(app, seen.contract, &seen.id, &error))?;
    if let Some(last) = responses.last() {
        seen.version = Some(last.version.0);
        seen.timings = Some(last.timings);
        seen.way = Way::of(last);
    }
    Ok(responses)
}

async fn write(
    shared: &Shared,
    seen: &Seen,
    accepted: Option<coding::Coding>,
    written: Written,
) -> Result<Answer, Failure> {
    let Written { content_type, body } = written;
    let coding = accepted.filter(|_| body.len() >= shared.config.min_compressed_bytes);
    let body = match coding {
        None => body,
        Some(coding) => pack(&shared.app, &seen.id, coding, body).await?,
    };
    let mut answer = json(StatusCode::OK, body);
    let fields = answer.headers_mut();
    fields.insert(CONTENT_TYPE, content_type);
    if let Some(timings) = seen.timings.and_then(|timings| headers::server_timing(&timings)) {
        fields.insert(headers::SERVER_TIMING, timings);
    }
    if let Some(coding) = coding {
        fields.insert(CONTENT_ENCODING, coding.header());
    }
    Ok(answer)
}
