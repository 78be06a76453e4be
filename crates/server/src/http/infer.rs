//! One prediction: head, body, decoding, answer, encoding.
//!
//! This is the path that every microsecond counts on. A small request in the form that comes over one
//! connection after the other allocates for its tensors, its answer and the headers, and takes no
//! lock of the listener's. Work that would hold up other connections (decoding, encoding and
//! compressing beyond [`HEAVY`] bytes) goes to a thread of its own.

use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::Body;
use outhaul_monitor::trace::SpanStatus;
use outhaul_protocol::oip::{self, DecodedInfer, EncodedInfer, Target};
use outhaul_types::{Classify, InferResponse, Name, Timings, TraceParent};

use super::Shared;
use super::answer::{Answer, Failure, Interrupted, json};
use super::coding::{self, Coding};
use super::{body, headers};
use crate::App;
use crate::answered::Answered;
use crate::traffic::Way;

/// The name under which calls are counted and logged.
pub(super) const CONTRACT: &str = "oip_rest";

/// Bytes whose decoding or encoding takes so long (half a millisecond and more) that it leaves the
/// threads that serve connections.
pub(super) const HEAVY: usize = 256 << 10;

/// Bytes of binary data that cost as much as one of JSON. Most are shared without being looked at, but
/// lengths of strings have to be walked.
const BINARY_PER_JSON: usize = 8;

/// The status under which a request is counted whose client went away before there was an answer.
const CLIENT_GONE: u16 = 499;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What is known of a request when its answer is ready, for metrics, logs and traces.
pub(super) struct Seen {
    pub(super) contract: &'static str,
    route: &'static str,
    pub(super) started: Instant,
    pub(super) id: Name,
    pub(super) model: Name,
    pub(super) request_bytes: usize,
    pub(super) version: Option<u64>,
    pub(super) timings: Option<Timings>,
    pub(super) way: Way,
}

impl Seen {
    pub(super) fn new(contract: &'static str, route: &'static str, id: Name) -> Self {
        Seen {
            contract,
            route,
            started: Instant::now(),
            id,
            model: Name::default(),
            request_bytes: 0,
            version: None,
            timings: None,
            way: Way::default(),
        }
    }
}

/// Counts a request that was given up, unless it was answered.
pub(super) struct Unanswered<'a> {
    app: &'a App,
    contract: &'static str,
    started: Instant,
    pub(super) answered: bool,
}

impl<'a> Unanswered<'a> {
    pub(super) fn new(app: &'a App, contract: &'static str, started: Instant) -> Self {
        Unanswered { app, contract, started, answered: false }
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let total = self.started.elapsed();
            self.app.server_metrics().record_call(self.contract, CLIENT_GONE, total, 0, 0);
        }
    }
}

/// Answers one prediction. `target` is what its path names.
pub(super) async fn infer<B>(
    shared: &Shared,
    target: Result<Target, Failure>,
    request: Request<B>,
) -> Answer
where
    B: Body<Data = Bytes> + Unpin,
{
    let app = &*shared.app;
    let (head, body) = request.into_parts();
    let (id, id_header) = headers::request_id(&head.headers, app);
    let mut seen = Seen::new(CONTRACT, "POST /v2/models/{model}/infer", id);
    seen.model = target.as_ref().map(|target| target.model.clone()).unwrap_or_default();
    let mut unanswered = Unanswered::new(app, CONTRACT, seen.started);
    let answer = predict(shared, target, &head.headers, body, &mut seen).await;
    unanswered.answered = true;
    let mut answer = answer.unwrap_or_else(Failure::into_answer);
    answer.headers_mut().insert(headers::REQUEST_ID, id_header);
    seen.way.write(answer.headers_mut());
    let status = answer.status().as_u16();
    let sent = answer.body().known_length();
    tell(app, &seen, headers::trace(&head.headers), SpanStatus::Http(status), sent);
    answer
}

async fn predict<B>(
    shared: &Shared,
    target: Result<Target, Failure>,
    head: &HeaderMap,
    body: B,
    seen: &mut Seen,
) -> Result<Answer, Failure>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (app, config) = (&*shared.app, &shared.config);
    let target = target?;
    let context = headers::surroundings(head, seen.id.clone(), seen.started, shared)?;
    let json_length = headers::json_length(head)?;
    let packed = coding::of_request(head)?;
    let mut arriving = None;
    let announce = || arriving = app.router().announce(&target.model, &target.version);
    let body = body::read(body, config, announce).await?;
    seen.request_bytes = body.len();
    let body = match packed {
        None => body,
        Some(coding) => unpack(app, &seen.id, coding, body, config.max_body_bytes).await?,
    };

    let version = target.version.clone();
    let limits = app.config().decode_limits.clone();
    let json = json_length.unwrap_or(body.len()).min(body.len());
    let work = json + (body.len() - json) / BINARY_PER_JSON;
    let decode = move || oip::decode_infer(body, json_length, target, &limits);
    let decoded = off_thread(app, &seen.id, work, "decoding", decode).await?;
    let DecodedInfer { request, format } = decoded.map_err(|error| {
        // That there is no such model is the better thing to hear of.
        let known = app.router().readiness(&seen.model, &version);
        known.map_or_else(|unknown| Failure::of(&unknown), |_| Failure::of(&error))
    })?;

    if let Some(arriving) = arriving {
        arriving.arrived();
    }
    let response = app
        .router()
        .infer(request, &context)
        .await
        .map_err(|error| failure(app, CONTRACT, &seen.id, &error))?;
    seen.version = Some(response.version.0);
    seen.timings = Some(response.timings);
    seen.way = Way::of(&response);

    let work = output_bytes(&response);
    let encode = move || oip::encode_infer(&response, &format);
    let encoded = off_thread(app, &seen.id, work, "encoding", encode).await?;
    let encoded = encoded.map_err(|error| Failure::of(&error))?;
    write(shared, &seen.id, head, encoded).await
}

/// Returns the failure for the client, having logged it where the caller is not to blame.
pub(super) fn failure(
    app: &App,
    contract: &'static str,
    id: &str,
    error: &impl Classify,
) -> Failure {
    if error.kind().is_ours() {
        app.log_failure(contract, id, error);
    }
    Failure::of(error)
}

async fn write(
    shared: &Shared,
    id: &Name,
    head: &HeaderMap,
    encoded: EncodedInfer,
) -> Result<Answer, Failure> {
    let EncodedInfer { json_length, body } = encoded;
    let coding = match body.len() >= shared.config.min_compressed_bytes {
        true => coding::of_answer(head),
        false => None,
    };
    let body = match coding {
        None => body,
        Some(coding) => pack(&shared.app, id, coding, body).await?,
    };
    let mut answer = json(StatusCode::OK, body);
    let headers = answer.headers_mut();
    if let Some(length) = json_length {
        headers.insert(headers::JSON_LENGTH, length.into());
        headers.insert(CONTENT_TYPE, OCTETS);
    }
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, coding.header());
    }
    Ok(answer)
}

/// Decompresses a body. A small one is tried at once as long as what comes of it stays small, since its
/// packed size says nothing of what it holds.
pub(super) async fn unpack(
    app: &App,
    id: &str,
    coding: Coding,
    body: Bytes,
    limit: usize,
) -> Result<Bytes, Failure> {
    if body.len() < HEAVY {
        let at_once = coding::decompress(coding, &body, limit.min(HEAVY));
        let too_long = |failure: &Failure| failure.status == StatusCode::PAYLOAD_TOO_LARGE;
        if limit <= HEAVY || !at_once.as_ref().is_err_and(too_long) {
            return at_once;
        }
    }
    let work = move || coding::decompress(coding, &body, limit);
    off_thread(app, id, usize::MAX, "decompressing", work).await?
}

/// Compresses a body.
pub(super) async fn pack(
    app: &App,
    id: &str,
    coding: Coding,
    body: Bytes,
) -> Result<Bytes, Failure> {
    let bytes = body.len();
    let work = move || coding::compress(coding, &body);
    let packed = off_thread(app, id, bytes, "compressing", work).await?;
    packed.map_err(|_| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))
}

/// Does work here where it handles few bytes, else on a thread that may block.
pub(super) async fn off_thread<T: Send + 'static>(
    app: &App,
    id: &str,
    bytes: usize,
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if bytes < HEAVY {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| failure(app, CONTRACT, id, &Interrupted { what, source }))
}

pub(super) fn output_bytes(response: &InferResponse) -> usize {
    response.outputs.iter().map(|output| output.tensor.byte_size()).sum()
}

/// Tells metrics, logs and traces of an answer.
pub(super) fn tell(
    app: &App,
    seen: &Seen,
    parent: Option<TraceParent>,
    status: SpanStatus,
    sent: usize,
) {
    let total = seen.started.elapsed();
    let (SpanStatus::Http(code) | SpanStatus::Grpc(code)) = status;
    app.server_metrics().record_call(seen.contract, code, total, seen.request_bytes, sent);
    if Answered::is_wanted(app) {
        let answered = Answered {
            contract: seen.contract,
            route: seen.route,
            request_id: &seen.id,
            model: &seen.model,
            version: seen.version,
            parent,
            status,
            request_bytes: seen.request_bytes,
            response_bytes: sent,
            total,
            timings: seen.timings,
        };
        answered.tell(app);
    }
}
