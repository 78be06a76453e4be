//! GraphQL over HTTP: the models' schema, queries for what they are, and predictions.
//!
//! `protocol::graphql` reads queries and writes answers; here the predictions of a query are made, several
//! at once, and the schema is kept until the models change. As the GraphQL-over-HTTP specification says,
//! whatever is a GraphQL request is answered with 200 and tells of failures in its body, unless the client
//! accepts `application/graphql-response+json`: then a query that is not executed gets 400.

mod facts;
mod page;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query as Parameters, Request, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::header::{ACCEPT, ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use outhaul_monitor::trace::SpanStatus;
use outhaul_protocol::graphql::{
    self, Api, Asked, FieldFailure, GraphqlRequest, Limits, Predicted, Refusal,
};
use outhaul_protocol::rows::{decode_instances, parse_json};
use outhaul_router::ModelDescription;
use outhaul_types::{Classify, ErrorKind, InferRequest, InferResponse, RequestContext};

use super::answer::{Answer, Failure, json};
use super::exchange::schema;
use super::infer::{Seen, Unanswered, off_thread, output_bytes, pack, tell, unpack};
use super::openapi::known::{Kept, Known};
use super::routes::{App, Told, boxed};
use super::{Shared, body, coding, headers};
use crate::traffic::Way;

/// The name under which calls are counted and logged.
const CONTRACT: &str = "graphql";

/// Predictions of one query that are with the router at once.
const AT_ONCE: usize = 8;

const GRAPHQL_RESPONSE: HeaderValue =
    HeaderValue::from_static("application/graphql-response+json; charset=utf-8");

/// Returns the paths of this contract.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    let kept: Arc<Kept<Arc<Api>>> = Arc::default();
    axum::Router::new()
        .route("/graphql", get(by_get).post(by_post))
        .route("/graphql/schema.graphql", get(sdl))
        .route("/assets/graphql.js", get(page::script))
        .layer(Extension(kept))
}

type Schemas = Extension<Arc<Kept<Arc<Api>>>>;

fn api(known: &Known) -> Arc<Api> {
    let models: Vec<_> = known.iter().map(|model| schema(model)).collect();
    Arc::new(Api::of(&models))
}

async fn sdl(State(shared): App, Extension(kept): Schemas) -> Response {
    let api = kept.of(&shared.app.router().models(), api);
    let mut answer = json(StatusCode::OK, api.sdl().to_owned().into());
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, text);
    boxed(answer)
}

async fn by_get(State(shared): App, Extension(kept): Schemas, request: Request) -> Response {
    let wants_page = accepts(request.headers(), "text/html");
    if request.uri().query().is_none_or(|query| query.is_empty()) && wants_page {
        let api = kept.of(&shared.app.router().models(), api);
        return page::page(&api);
    }
    answer(&shared, &kept, request).await
}

async fn by_post(State(shared): App, Extension(kept): Schemas, request: Request) -> Response {
    answer(&shared, &kept, request).await
}

/// Answers one call.
async fn answer(shared: &Shared, kept: &Kept<Arc<Api>>, request: Request) -> Response {
    let app = &*shared.app;
    let (head, body) = request.into_parts();
    let (id, id_header) = headers::request_id(&head.headers, app);
    let mut seen = Seen::new(CONTRACT, "/graphql", id);
    let mut unanswered = Unanswered::new(app, CONTRACT, seen.started);
    let accepted = coding::of_answer(&head.headers);
    let result = match carry_out(shared, kept, &head, body, &mut seen).await {
        Ok(body) => write(shared, &seen, accepted, body).await,
        Err(untold) => Err(untold),
    };
    unanswered.answered = true;
    let modern = accepts(&head.headers, "application/graphql-response+json");
    let mut answer = result.unwrap_or_else(|untold| untold.into_answer(modern));
    if modern {
        answer.headers_mut().insert(CONTENT_TYPE, GRAPHQL_RESPONSE);
    }
    answer.headers_mut().insert(headers::REQUEST_ID, id_header);
    let (status, sent) = (answer.status().as_u16(), answer.body().known_length());
    tell(app, &seen, headers::trace(&head.headers), SpanStatus::Http(status), sent);
    answer.extensions_mut().insert(Told);
    boxed(answer)
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.into_iter().any(|value| value.contains(media_type))
}

/// Why a call is not answered with data.
enum Untold {
    /// HTTP's own failure, or ours.
    Failure(Failure),
    Refusal(Refusal),
    /// The method cannot do what the query asks.
    Method(Refusal),
}

impl From<Failure> for Untold {
    fn from(failure: Failure) -> Self {
        Untold::Failure(failure)
    }
}

impl From<Refusal> for Untold {
    fn from(refusal: Refusal) -> Self {
        Untold::Refusal(refusal)
    }
}

impl Untold {
    fn into_answer(self, modern: bool) -> Answer {
        match self {
            Untold::Failure(failure) => {
                let kind = match failure.status {
                    status if status.is_client_error() => ErrorKind::InvalidInput,
                    _ => ErrorKind::Internal,
                };
                let body = graphql::error_body(&failure.message, kind);
                let mut answer = json(failure.status, body.into());
                failure.put_header(&mut answer);
                answer
            }
            Untold::Refusal(refusal) => {
                let status = match refusal.malformed || modern {
                    true => StatusCode::BAD_REQUEST,
                    false => StatusCode::OK,
                };
                json(status, refusal.body().into())
            }
            Untold::Method(refusal) => {
                let mut answer = json(StatusCode::METHOD_NOT_ALLOWED, refusal.body().into());
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
                answer
            }
        }
    }
}

async fn carry_out(
    shared: &Shared,
    kept: &Kept<Arc<Api>>,
    head: &http::request::Parts,
    body: axum::body::Body,
    seen: &mut Seen,
) -> Result<Bytes, Untold> {
    let app = &*shared.app;
    let context = headers::surroundings(&head.headers, seen.id.clone(), seen.started, shared)?;
    let request = match head.method {
        Method::GET | Method::HEAD => of_uri(&head.uri)?,
        _ => of_body(shared, head, body, seen).await?,
    };
    let versions = app.router().models();
    let api = kept.of(&versions, api);
    let read = api.read(request, versions.len(), &Limits::default());
    let query = read.map_err(|refusal| match (refusal.mutates, &head.method) {
        (true, &(Method::GET | Method::HEAD)) => Untold::Method(refusal),
        _ => Untold::Refusal(refusal),
    })?;
    let predictions = predict_all(shared, query.asked(), &context, seen).await;
    let statistics = match query.is_about_models() {
        true => facts::statistics(app.router()),
        false => Vec::new(),
    };
    let versions = if query.is_about_models() { versions } else { Vec::new() };
    let ready = app.is_ready();
    let work = predictions.iter().flatten().map(|(_, response)| output_bytes(response)).sum();
    let write = move || {
        let predicted: Vec<_> = predictions.iter().map(of_prediction).collect();
        Bytes::from(query.answer(&predicted, &facts::of(&versions, &statistics, ready)))
    };
    Ok(off_thread(app, &seen.id, work, "encoding", write).await?)
}

fn of_uri(uri: &Uri) -> Result<GraphqlRequest, Refusal> {
    let parameters: Parameters<Vec<(String, String)>> = Parameters::try_from_uri(uri)
        .map_err(|_| Refusal::malformed("the parameters of the URL cannot be read"))?;
    let pairs = parameters.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    GraphqlRequest::of_parameters(pairs)
}

async fn of_body(
    shared: &Shared,
    head: &http::request::Parts,
    body: axum::body::Body,
    seen: &mut Seen,
) -> Result<GraphqlRequest, Untold> {
    let (app, config) = (&*shared.app, &shared.config);
    let media_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or("").trim();
    // The body decides, as everywhere else here, but what says that it is no JSON is believed.
    let files = media_type.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/"));
    if files || media_type.eq_ignore_ascii_case("application/graphql") {
        let shown: String = media_type.chars().take(64).collect();
        let message = format!("a body of '{shown}' is not taken: send application/json");
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into());
    }
    let packed = coding::of_request(&head.headers)?;
    let body = body::read(body, config, || ()).await?;
    seen.request_bytes = body.len();
    let body = match packed {
        None => body,
        Some(coding) => unpack(app, &seen.id, coding, body, config.max_body_bytes).await?,
    };
    let work = body.len();
    let decode = move || GraphqlRequest::of_body(&body);
    Ok(off_thread(app, &seen.id, work, "decoding", decode).await??)
}

type Prediction = Result<(Arc<ModelDescription>, InferResponse), FieldFailure>;

fn of_prediction(prediction: &Prediction) -> Result<Predicted<'_>, FieldFailure> {
    let (model, response) = prediction.as_ref().map_err(FieldFailure::clone)?;
    Ok(Predicted { response: response.clone(), schema: schema(model) })
}

async fn predict_all(
    shared: &Shared,
    asked: &[Asked],
    context: &RequestContext,
    seen: &mut Seen,
) -> Vec<Prediction> {
    // All of them before the first is polled: a closure in the stream would have to outlive it.
    let futures: Vec<_> = asked.iter().map(|asked| predict(shared, asked, context)).collect();
    let predictions: Vec<Prediction> = stream::iter(futures).buffered(AT_ONCE).collect().await;
    // Logs and traces have room for one model.
    if let ([asked], [prediction]) = (asked, &predictions[..]) {
        seen.model = asked.model.as_str().into();
        if let Ok((_, response)) = prediction {
            seen.version = Some(response.version.0);
            seen.timings = Some(response.timings);
            seen.way = Way::of(response);
        }
    }
    predictions
}

async fn predict(shared: &Shared, asked: &Asked, context: &RequestContext) -> Prediction {
    let app = &*shared.app;
    let Asked { model, version, .. } = asked;
    let described = app.router().describe(model, version, context.deadline).await;
    let described = described.map_err(|error| failure(app, context, &error))?;
    let (rows, of) = (asked.rows.clone(), Arc::clone(&described));
    let limits = app.config().decode_limits.clone();
    let decode = move || decode_instances(&parse_json(&rows)?, &schema(&of), &limits);
    let decoded = off_thread(app, &context.id, asked.rows.len(), "decoding", decode).await;
    let decoded = decoded
        .map_err(|failure| FieldFailure::new(ErrorKind::Internal, failure.message.into_owned()))?;
    let inputs = decoded.map_err(|error| FieldFailure::of(&error))?;
    let mut request = InferRequest::new(model.as_str(), inputs);
    request.version = version.clone();
    let response = app.router().infer(request, context).await;
    let response = response.map_err(|error| failure(app, context, &error))?;
    Ok((described, response))
}

/// Returns the failure for the client, having logged it where the caller is not to blame.
fn failure(app: &crate::App, context: &RequestContext, error: &impl Classify) -> FieldFailure {
    if error.kind().is_ours() {
        app.log_failure(CONTRACT, &context.id, error);
    }
    FieldFailure::of(error)
}

async fn write(
    shared: &Shared,
    seen: &Seen,
    accepted: Option<coding::Coding>,
    body: Bytes,
) -> Result<Answer, Untold> {
    let coding = accepted.filter(|_| body.len() >= shared.config.min_compressed_bytes);
    let body = match coding {
        None => body,
        Some(coding) => pack(&shared.app, &seen.id, coding, body).await?,
    };
    let mut answer = json(StatusCode::OK, body);
    if let Some(coding) = coding {
        answer.headers_mut().insert(CONTENT_ENCODING, coding.header());
    }
    Ok(answer)
}
