//! Every path but the one of a prediction: health, metadata, statistics, metrics, and what is not
//! there.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use outhaul_protocol::describe::ModelMetadata;
use outhaul_protocol::oip::{self, Target};
use outhaul_router::{ModelDescription, RouterError};
use outhaul_types::{Classify, Deadline, ErrorKind, Name, VersionChoice};

use super::answer::{Answer, Failure, json};
use super::infer::{failure, infer, pack};
use super::{
    Shared, azure, coding, graphql, headers, openai, openapi, pages, repository, sagemaker,
    tensorflow, traffic, vertex,
};
use crate::describe::{SERVER, config, platform, properties, statistics, versions};

pub(super) type App = State<Arc<Shared>>;
pub(super) type Handled = Result<Response, Failure>;

/// Makes the router of all paths, predictions included.
pub(super) fn routes(shared: Arc<Shared>) -> axum::Router {
    // A version in the path is optional everywhere; a fourth segment says what is asked.
    let model = axum::Router::new()
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/versions/{version}", get(metadata))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/versions/{version}/ready", get(model_ready))
        .route("/v2/models/{model}/config", get(model_config))
        .route("/v2/models/{model}/versions/{version}/config", get(model_config))
        .route("/v2/models/{model}/stats", get(model_statistics))
        .route("/v2/models/{model}/versions/{version}/stats", get(model_statistics));
    let predictions = axum::Router::new()
        .route("/v2/models/{model}/infer", post(predict))
        .route("/v2/models/{model}/versions/{version}/infer", post(predict));
    let routes = axum::Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/v2", get(server_metadata))
        .route("/v2/", get(server_metadata))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/stats", get(all_statistics))
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route("/v2/repository/models/{model}/unload", post(repository::unload))
        .merge(model)
        .merge(predictions)
        .merge(azure::routes())
        .merge(graphql::routes())
        .merge(openai::routes())
        .merge(openapi::routes())
        .merge(pages::routes())
        .merge(sagemaker::routes())
        .merge(tensorflow::routes())
        .merge(traffic::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method);
    vertex::before(routes, &shared)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), observe))
        .with_state(shared)
}

/// Marks an answer that has been counted, named and compressed.
#[derive(Clone)]
pub(super) struct Told;

/// Counts, names and compresses the answers that are no predictions; those tell of themselves.
async fn observe(State(shared): App, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let app = &*shared.app;
    let (id, id_header) = headers::request_id(request.headers(), app);
    let received = headers::declared_length(request.headers());
    // Descriptions of models are not compressed: tritonclient's asyncio client lets aiohttp accept gzip
    // for every request, and then unpacks predictions alone.
    let coding = match request.method() {
        &Method::HEAD => None,
        _ if request.uri().path().starts_with("/v2") => None,
        _ => coding::of_answer(request.headers()),
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
    let response = next.run(request).await;
    if response.extensions().get::<Told>().is_some() {
        return response;
    }
    let mut response = compressed(&shared, &id, coding, response).await;
    response.headers_mut().insert(headers::REQUEST_ID, id_header);
    let status = response.status().as_u16();
    let sent = response.body().size_hint().exact().unwrap_or(0);
    let total = started.elapsed();
    app.server_metrics().record_call("admin", status, total, received, sent as usize);
    if app.config().log_requests {
        let total_us = total.as_micros() as u64;
        tracing::info!(
            contract = "admin",
            request_id = &*id,
            %method,
            path,
            status,
            total_us,
            "answered"
        );
    }
    response
}

async fn compressed(
    shared: &Shared,
    id: &str,
    coding: Option<coding::Coding>,
    response: Response,
) -> Response {
    let size = response.body().size_hint().exact().unwrap_or(0);
    let Some(coding) = coding.filter(|_| size >= shared.config.min_compressed_bytes as u64) else {
        return response;
    };
    let (mut head, body) = response.into_parts();
    let packed = match body.collect().await {
        Ok(whole) => pack(&shared.app, id, coding, whole.to_bytes()).await,
        Err(_) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")),
    };
    match packed {
        Ok(packed) => {
            head.headers.remove(CONTENT_LENGTH);
            head.headers.insert(CONTENT_ENCODING, coding.header());
            Response::from_parts(head, packed.into())
        }
        Err(failure) => failure.into_response(),
    }
}

/// The id of a request, told to its handler by [`observe`].
#[derive(Clone)]
struct RequestId(Name);

/// Who asks, and until when an answer is of use.
pub(super) struct Asked {
    pub(super) id: Name,
    pub(super) deadline: Option<Deadline>,
}

impl FromRequestParts<Arc<Shared>> for Asked {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        shared: &Arc<Shared>,
    ) -> Result<Self, Failure> {
        let id = parts.extensions.get::<RequestId>().map(|RequestId(id)| id.clone());
        let id = id.unwrap_or_default();
        let context = headers::context(&parts.headers, id, Instant::now(), &shared.config)?;
        Ok(Asked { id: context.id, deadline: context.deadline })
    }
}

/// The model that a path names. Its segments are percent-decoded.
pub(super) struct TargetPath(pub(super) Target);

impl<S: Send + Sync> FromRequestParts<S> for TargetPath {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        state: &S,
    ) -> Result<Self, Failure> {
        let not_text = |_| Failure::bad_request("the path is not UTF-8 once it is decoded");
        let segments = RawPathParams::from_request_parts(parts, state).await.map_err(not_text)?;
        let mut target = Target { model: "".into(), version: VersionChoice::Latest };
        for (name, value) in &segments {
            match name {
                "model" => target.model = value.into(),
                _ => target.version = version(value)?,
            }
        }
        Ok(TargetPath(target))
    }
}

fn version(segment: &str) -> Result<VersionChoice, Failure> {
    segment.parse().map_err(|error| Failure::bad_request(format!("{error}")))
}

/// Returns the model of a prediction whose path needs no decoding; `None` leaves it to the routes.
pub(super) fn infer_target(path: &str) -> Option<Target> {
    let rest = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
    let (model, version) = match rest.split_once('/') {
        None => (rest, VersionChoice::Latest),
        Some((model, rest)) => (model, rest.strip_prefix("versions/")?.parse().ok()?),
    };
    let plain = !model.is_empty() && !model.contains('%') && !rest.ends_with('/');
    plain.then(|| Target { model: model.into(), version })
}

async fn predict(
    State(shared): App,
    target: Result<TargetPath, Failure>,
    request: Request,
) -> Response {
    let target = target.map(|TargetPath(target)| target);
    let mut answer = infer(&shared, target, request).await;
    answer.extensions_mut().insert(Told);
    boxed(answer)
}

pub(super) fn found(body: Bytes) -> Handled {
    Ok(boxed(json(StatusCode::OK, body)))
}

pub(super) fn boxed(answer: Answer) -> Response {
    answer.map(axum::body::Body::new)
}

async fn index(State(shared): App, headers: HeaderMap) -> Handled {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    // A browser asks for HTML by name; a machine asks for anything.
    if accepted.into_iter().any(|value| value.contains("text/html")) {
        return Ok(pages::answer(StatusCode::OK, pages::list(&shared.app)));
    }
    found(Bytes::from_static(br#"{"status":"alive"}"#))
}

async fn metrics(State(shared): App) -> Handled {
    let mut answer = json(StatusCode::OK, shared.app.monitor().render().into());
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, text);
    Ok(boxed(answer))
}

async fn server_metadata() -> Handled {
    found(oip::server_metadata(&SERVER))
}

async fn live() -> Handled {
    found(oip::live(true))
}

async fn ready(State(shared): App) -> Handled {
    let ready = shared.app.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(boxed(json(status, oip::ready(ready))))
}

/// Describes the version that a path names, which is loaded where that takes a request.
pub(super) async fn describe(
    shared: &Shared,
    target: &Target,
    asked: &Asked,
) -> Result<Arc<ModelDescription>, Failure> {
    let described = shared.app.router().describe(&target.model, &target.version, asked.deadline);
    described.await.map_err(|error| failure(&shared.app, "admin", &asked.id, &error))
}

async fn metadata(State(shared): App, TargetPath(target): TargetPath, asked: Asked) -> Handled {
    let model = describe(&shared, &target, &asked).await?;
    found(oip::model_metadata(&ModelMetadata {
        name: model.name.as_str(),
        versions: &versions(shared.app.router(), &model, &target.version).map_err(refused)?,
        platform: &platform(&model),
        signature: &model.signature,
        properties: &properties(&model),
        interface: &model.interface,
    }))
}

async fn model_ready(State(shared): App, TargetPath(target): TargetPath) -> Handled {
    match shared.app.router().readiness(&target.model, &target.version) {
        Ok(name) => found(oip::model_ready(name.as_str(), true)),
        Err(error) if error.kind() == ErrorKind::NotReady => {
            let body = oip::model_ready(&target.model, false);
            Ok(boxed(json(StatusCode::SERVICE_UNAVAILABLE, body)))
        }
        Err(error) => Err(refused(error)),
    }
}

async fn model_config(State(shared): App, TargetPath(target): TargetPath, asked: Asked) -> Handled {
    let model = describe(&shared, &target, &asked).await?;
    found(oip::model_config(&config(&model, &platform(&model))))
}

async fn model_statistics(State(shared): App, TargetPath(target): TargetPath) -> Handled {
    counted(&shared, Some(&target.model), &target.version)
}

async fn all_statistics(State(shared): App) -> Handled {
    counted(&shared, None, &VersionChoice::Latest)
}

fn counted(shared: &Shared, model: Option<&str>, version: &VersionChoice) -> Handled {
    let counted = shared.app.router().statistics(model, version).map_err(refused)?;
    let written: Vec<_> = counted
        .iter()
        .map(|(name, version, counted)| statistics(name, *version, counted))
        .collect();
    found(oip::statistics(&written))
}

/// A failure to tell of a model what is known: because of what was asked or what is not ready yet, so
/// there is nothing to log.
fn refused(error: RouterError) -> Failure {
    Failure::of(&error)
}

async fn no_such_path(method: Method, uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(256).collect();
    Failure::new(StatusCode::NOT_FOUND, format!("no such path: {method} {path}"))
}

async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(256).collect();
    let message = format!("{path} does not take the method {method}");
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[cfg(test)]
mod tests {
    use outhaul_types::{Label, ModelVersion};

    use super::*;

    #[test]
    fn plain_paths_of_predictions_are_read_by_hand() {
        let latest = || VersionChoice::Latest;
        let exact = VersionChoice::Exact(ModelVersion(3));
        let stable = VersionChoice::Label(Label::new("stable").unwrap());
        for (path, expected) in [
            ("/v2/models/iris/infer", Some(("iris", latest()))),
            ("/v2/models/iris/versions/3/infer", Some(("iris", exact))),
            ("/v2/models/iris/versions/0/infer", Some(("iris", latest()))),
            ("/v2/models//infer", None),
            ("/v2/models/infer", None),
            ("/v2/models/a%20b/infer", None),
            ("/v2/models/iris/versions/stable/infer", Some(("iris", stable))),
            ("/v2/models/iris/versions/1st/infer", None),
            ("/v2/models/iris/versions/infer", None),
            ("/v2/models/iris/versions//infer", None),
            ("/v2/models/iris//infer", None),
            ("/v2/models/iris/other/3/infer", None),
            ("/v2/models/iris/infer/", None),
            ("/v1/models/iris/infer", None),
        ] {
            let target = infer_target(path);
            let found = target.as_ref().map(|target| (&*target.model, target.version.clone()));
            assert_eq!(found, expected, "{path}");
        }
    }
}
