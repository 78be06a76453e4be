//! SageMaker's contracts of one model and of many.
//!
//! | Path | |
//! |---|---|
//! | `GET /ping` | 200 when traffic may come, else 503; no body |
//! | `POST /invocations`, `/endpoints/E/invocations` | a prediction; boto3 posts to the second |
//! | `POST /models/M/invoke` | a prediction of one of many |
//! | `GET /models`, `/models/M` | what is served, and from where |
//! | `POST /models`, `DELETE /models/M` | loads and unloads a model |
//!
//! `/invocations` asks the model that the header `X-Amzn-SageMaker-Target-Model` names, else the default
//! one. `output=NAME` in `X-Amzn-SageMaker-Custom-Attributes` asks for that output alone. What bodies mean
//! is told in `protocol::sagemaker`.
//!
//! Invariant: a model that was not loaded leaves nothing behind, so that it can be asked for again.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use outhaul_protocol::oip::Target;
use outhaul_protocol::sagemaker::{
    Accepted, AddModel, ContentType, InvocationFormat, ListedModel, MediaError, decode_add,
    decode_invocation, describe_model, encode_invocation, error_body, list_models,
};
use outhaul_protocol::{DecodeLimits, ProtocolError, Schema};
use outhaul_router::{AddError, Added, AskError, Router, RouterError, Standing};
use outhaul_types::{Classify, InferResponse, ModelName, Name, VersionChoice};

use super::answer::{Answer, Failure, Interrupted, json};
use super::exchange::{Call, Contract, Decoded, Written, default_target, exchange};
use super::infer::failure;
use super::routes::{App, Asked, boxed};
use super::{HttpConfig, Shared, body};

const TARGET_MODEL: HeaderName = HeaderName::from_static("x-amzn-sagemaker-target-model");
const ATTRIBUTES: HeaderName = HeaderName::from_static("x-amzn-sagemaker-custom-attributes");

/// The longest body of `POST /models`.
const LONGEST_ADD: usize = 64 << 10;

/// What logs of models that come and go call this contract.
const CONTRACT: &str = "sagemaker";

/// Returns the paths of this contract.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new()
        .route("/ping", get(ping))
        .route("/invocations", post(invocations))
        .route("/endpoints/{endpoint}/invocations", post(invocations))
        .route("/models", get(list).post(add))
        .route("/models/{model}", get(describe).delete(remove))
        .route("/models/{model}/invoke", post(invoke))
}

async fn ping(State(shared): App) -> Response {
    let mut answer = Response::new(axum::body::Body::empty());
    if !shared.app.is_ready() {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}

async fn invocations(State(shared): App, request: Request) -> Response {
    exchange(&shared, Invocation { model: None }, request).await
}

async fn invoke(State(shared): App, model: ModelPath, request: Request) -> Response {
    exchange(&shared, Invocation { model: Some(model.0) }, request).await
}

struct Invocation {
    /// The model that the path names.
    model: Option<Name>,
}

impl Contract for Invocation {
    const NAME: &'static str = CONTRACT;
    const ROUTE: &'static str = "POST /invocations";
    type Format = InvocationFormat;

    fn target(&self, call: &Call, shared: &Shared) -> Result<Target, Failure> {
        media(&call.headers)?;
        let named = self.model.clone().or_else(|| target_model(&call.headers));
        match named {
            Some(model) => Ok(Target { model, version: VersionChoice::Latest }),
            None => default_target(shared),
        }
    }

    fn decode(
        &self,
        call: &Call,
        model: &Schema<'_>,
        limits: &DecodeLimits,
    ) -> Result<Decoded<InvocationFormat>, ProtocolError> {
        // They have been looked at before there was a target.
        let forms = forms(&call.headers).unwrap_or((ContentType::Json, Accepted::Any));
        let outputs = outputs(&call.headers);
        let decoded = decode_invocation(&call.body, forms, &outputs, model, limits)?;
        Ok(Decoded { requests: vec![decoded.request], format: decoded.format })
    }

    fn encode(
        &self,
        format: InvocationFormat,
        responses: &[InferResponse],
        model: &Schema<'_>,
    ) -> Result<Written, ProtocolError> {
        let encoded = encode_invocation(&format, responses, model)?;
        let content_type = HeaderValue::try_from(encoded.content_type)
            .expect("media types are made of visible ASCII");
        Ok(Written { content_type, body: encoded.body })
    }

    fn error(&self, failure: &Failure) -> Written {
        Written::json(error_body(failure.status.as_u16(), &failure.message))
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn forms(headers: &HeaderMap) -> Result<(ContentType, Accepted), MediaError> {
    let content_type = ContentType::read(text(headers, &CONTENT_TYPE))?;
    Ok((content_type, Accepted::read(text(headers, &ACCEPT))?))
}

fn media(headers: &HeaderMap) -> Result<(), Failure> {
    let problem = match forms(headers) {
        Ok(_) => return Ok(()),
        Err(problem) => problem,
    };
    let status = match problem {
        MediaError::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        MediaError::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
    };
    Err(Failure::new(status, problem.to_string()))
}

/// Returns the model that a caller of a multi-model endpoint names: its archive without the ending.
fn target_model(headers: &HeaderMap) -> Option<Name> {
    let named = text(headers, &TARGET_MODEL)?;
    let name = named.trim_start_matches('/');
    Some(name.strip_suffix(".tar.gz").unwrap_or(name).into())
}

/// Returns the outputs that a caller names beside the body.
fn outputs(headers: &HeaderMap) -> Vec<Name> {
    let attributes = text(headers, &ATTRIBUTES).unwrap_or_default().split([',', ';']);
    attributes.filter_map(|pair| pair.trim().strip_prefix("output=")).map(Name::from).collect()
}

/// The model that a path names, percent-decoded.
struct ModelPath(Name);

impl<S: Send + Sync> FromRequestParts<S> for ModelPath {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        state: &S,
    ) -> Result<Self, Response> {
        let segments = RawPathParams::from_request_parts(parts, state).await;
        let found = segments.ok().and_then(|segments| {
            segments.iter().find(|(name, _)| *name == "model").map(|(_, value)| value.into())
        });
        let not_text = || Failure::bad_request("the path is not UTF-8 once it is decoded");
        found.map(ModelPath).ok_or_else(|| told(not_text()))
    }
}

/// Writes a failure in this contract's form.
fn told(failure: Failure) -> Response {
    let body = error_body(failure.status.as_u16(), &failure.message);
    let mut answer: Answer = json(failure.status, body);
    failure.put_header(&mut answer);
    boxed(answer)
}

async fn list(State(shared): App, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default().split('&');
    let token = query.filter_map(|pair| pair.strip_prefix("next_page_token=")).next_back();
    boxed(json(StatusCode::OK, list_models(&served(shared.app.router()), token)))
}

async fn describe(State(shared): App, ModelPath(name): ModelPath) -> Response {
    let models = served(shared.app.router());
    match models.iter().find(|model| *model.name == *name) {
        Some(model) => boxed(json(StatusCode::OK, describe_model(model))),
        None => told(not_loaded(&name)),
    }
}

fn not_loaded(name: &str) -> Failure {
    let name: String = name.chars().take(128).collect();
    Failure::new(StatusCode::NOT_FOUND, format!("model '{name}' is not loaded"))
}

/// Returns the models that answer, at once or once they are loaded for a request.
fn served(router: &Router) -> Vec<ListedModel> {
    let added = router.added();
    let mut models: Vec<ListedModel> = Vec::new();
    for status in router.models() {
        let answers = matches!(status.standing, Standing::Ready | Standing::Dormant);
        let name = status.name.as_str();
        if !answers || models.last().is_some_and(|last| last.name == name) {
            continue;
        }
        let folder = added.and_then(|added| added.folder_of(name));
        let source = || status.source.as_deref().unwrap_or_default().to_owned();
        let url = folder.map_or_else(source, |folder| folder.display().to_string());
        models.push(ListedModel { name: name.to_owned(), url });
    }
    models
}

/// Loads a model from a folder, and answers when it answers.
async fn add(State(shared): App, asked: Asked, request: Request) -> Response {
    let wanted = match wanted(&shared, request).await {
        Ok(wanted) => wanted,
        Err(failure) => return told(failure),
    };
    // A caller that leaves must not leave a model on the list that failed to load after that.
    let work = Arc::clone(&shared);
    let id = asked.id.clone();
    let done = tokio::spawn(async move { load(&work, wanted, &id).await }).await;
    match done {
        Ok(Ok(())) => Response::new(axum::body::Body::empty()),
        Ok(Err(failure)) => told(failure),
        Err(source) => {
            let interrupted = Interrupted { what: "loading", source };
            told(failure(&shared.app, CONTRACT, &asked.id, &interrupted))
        }
    }
}

async fn wanted(shared: &Shared, request: Request) -> Result<AddModel, Failure> {
    let limit = shared.config.max_body_bytes.min(LONGEST_ADD);
    let config = HttpConfig { max_body_bytes: limit, ..shared.config.clone() };
    let body = body::read(request.into_body(), &config, || ()).await?;
    decode_add(&body).map_err(|error| Failure::of(&error))
}

async fn load(shared: &Shared, wanted: AddModel, id: &str) -> Result<(), Failure> {
    let router = shared.app.router();
    let added = added(router)?;
    let AddModel { name, url } = wanted;
    let model = ModelName::new(&name).map_err(|error| Failure::bad_request(error.to_string()))?;
    let _adding = shared.adding.lock().await;
    let standings = || {
        let own = router.models().into_iter().filter(|status| status.name == model);
        own.map(|status| status.standing)
    };
    let is_there =
        |standing| matches!(standing, Standing::Ready | Standing::Dormant | Standing::Loading);
    if standings().any(is_there) {
        let message = format!("model '{name}' is there already");
        return Err(Failure::new(StatusCode::CONFLICT, message));
    }
    // What is on the list and does not answer was unloaded by other means.
    let was_added = added.remove(&name).is_some();
    if standings().next().is_some() && !was_added {
        return Err(Failure::bad_request(format!(
            "model '{name}' belongs to this server and is not loaded: load it with POST \
             /v2/repository/models/{name}/load, or choose another name"
        )));
    }
    let folder = Path::new(url.strip_prefix("file://").unwrap_or(&url));
    added.add(model, folder).map_err(|error| refused(&error))?;
    let loaded = router.load(&name, None).await;
    if loaded.is_err() {
        forget(router, &name).await;
    }
    loaded.map_err(|error| not_done(shared, &error, id))
}

/// Takes a model off the list, where it is on it.
async fn forget(router: &Router, name: &str) {
    if router.added().and_then(|added| added.remove(name)).is_some() {
        // Asked for what is on no list any more, the repository looks and lets go of it. That it finds
        // nothing is what is wanted.
        let _ = router.load(name, None).await;
    }
}

fn added(router: &Router) -> Result<&Arc<Added>, Failure> {
    router.added().ok_or_else(|| {
        Failure::bad_request(
            "this server does not take models while it runs: start it with SAGEMAKER_MULTI_MODEL=true",
        )
    })
}

fn refused(error: &AddError) -> Failure {
    let failure = Failure::of(error);
    match error {
        AddError::Unreadable { source, .. } => {
            Failure::new(failure.status, format!("{}: {source}", failure.message))
        }
        AddError::Taken { .. } | AddError::Outside { .. } => failure,
    }
}

/// The failure of a model that was not loaded. SageMaker makes room and comes back after a 507, and
/// takes a 409 for a model that is there.
fn not_done(shared: &Shared, error: &RouterError, id: &str) -> Failure {
    match error {
        RouterError::Asked(asked) if asked.is_for_room() => {
            Failure::new(StatusCode::INSUFFICIENT_STORAGE, asked.client_message())
        }
        RouterError::Asked(asked @ (AskError::Failed { .. } | AskError::UnknownModel(_))) => {
            Failure::bad_request(asked.client_message())
        }
        other => failure(&shared.app, CONTRACT, id, other),
    }
}

/// Unloads a model, and answers when requests for it are refused.
async fn remove(State(shared): App, ModelPath(name): ModelPath, asked: Asked) -> Response {
    let work = Arc::clone(&shared);
    let id = asked.id.clone();
    let done = tokio::spawn(async move { unload(&work, &name, &id).await }).await;
    match done {
        Ok(Ok(())) => Response::new(axum::body::Body::empty()),
        Ok(Err(failure)) => told(failure),
        Err(source) => {
            let interrupted = Interrupted { what: "unloading", source };
            told(failure(&shared.app, CONTRACT, &asked.id, &interrupted))
        }
    }
}

async fn unload(shared: &Shared, name: &str, id: &str) -> Result<(), Failure> {
    let router = shared.app.router();
    let _adding = shared.adding.lock().await;
    let is_added = router.added().is_some_and(|added| added.folder_of(name).is_some());
    if !is_added && !served(router).iter().any(|model| model.name == name) {
        return Err(not_loaded(name));
    }
    let unloaded = router.unload(name).await;
    unloaded.map_err(|error| failure(&shared.app, CONTRACT, id, &error))?;
    forget(router, name).await;
    Ok(())
}
