//! OpenAI's embeddings, and reranking in the forms of Cohere and Jina and of text-embeddings-inference.
//!
//! | Path | |
//! |---|---|
//! | `POST /v1/embeddings` | texts or their tokens to vectors |
//! | `POST /v1/rerank`, `/rerank` | how well each text answers a query |
//!
//! The body names the model; without a name it is the default one. What the bodies mean is told in
//! `protocol::openai` and `protocol::rerank`.

use std::sync::{Arc, OnceLock};

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use outhaul_protocol::oip::Target;
use outhaul_protocol::openai::{self, EmbeddingsFormat};
use outhaul_protocol::rerank::{self, Form, RerankFormat};
use outhaul_protocol::{DecodeLimits, ProtocolError, Schema};
use outhaul_types::{InferResponse, Name, VersionChoice};

use super::answer::Failure;
use super::exchange::{Call, Contract, Decoded, Written, default_target, exchange};
use super::routes::App;
use super::{Shared, headers};

/// Returns the paths of this contract.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new()
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/rerank", post(rerank_documents))
        .route("/rerank", post(rerank_texts))
}

async fn embeddings(State(shared): App, request: Request) -> Response {
    exchange(&shared, Embeddings, request).await
}

async fn rerank_documents(State(shared): App, request: Request) -> Response {
    rerank(&shared, Form::Documents, request).await
}

async fn rerank_texts(State(shared): App, request: Request) -> Response {
    rerank(&shared, Form::Texts, request).await
}

async fn rerank(shared: &Shared, usual: Form, mut request: Request) -> Response {
    // The answer's id is the request's, so it must be known before the answer is written.
    let (_, id) = headers::request_id(request.headers(), &shared.app);
    request.headers_mut().insert(headers::REQUEST_ID, id);
    exchange(shared, Rerank { usual, form: OnceLock::new() }, request).await
}

fn target(named: Option<Name>, shared: &Shared) -> Result<Target, Failure> {
    match named {
        Some(model) => Ok(Target { model, version: VersionChoice::Latest }),
        None => default_target(shared),
    }
}

struct Embeddings;

impl Contract for Embeddings {
    const NAME: &'static str = "openai";
    const ROUTE: &'static str = "POST /v1/embeddings";
    type Format = EmbeddingsFormat;

    fn target(&self, call: &Call, shared: &Shared) -> Result<Target, Failure> {
        let outline = openai::outline(&call.body).map_err(|error| Failure::of(&error))?;
        target(outline.model, shared)
    }

    fn decode(
        &self,
        call: &Call,
        model: &Schema<'_>,
        _limits: &DecodeLimits,
    ) -> Result<Decoded<EmbeddingsFormat>, ProtocolError> {
        let decoded = openai::decode_embeddings(&call.body, model)?;
        Ok(Decoded { requests: decoded.requests, format: decoded.format })
    }

    fn encode(
        &self,
        format: EmbeddingsFormat,
        responses: &[InferResponse],
        model: &Schema<'_>,
    ) -> Result<Written, ProtocolError> {
        Ok(Written::json(openai::encode_embeddings(&format, responses, model)?))
    }

    fn error(&self, failure: &Failure) -> Written {
        Written::json(openai::error_body(failure.status.as_u16(), &failure.message))
    }
}

struct Rerank {
    /// The form that callers of this path have, for errors of bodies that have none.
    usual: Form,
    /// That of this call, once its body is there.
    form: OnceLock<Form>,
}

impl Contract for Rerank {
    const NAME: &'static str = "rerank";
    const ROUTE: &'static str = "POST /v1/rerank";
    type Format = RerankFormat;

    fn target(&self, call: &Call, shared: &Shared) -> Result<Target, Failure> {
        let outline = openai::outline(&call.body).map_err(|error| Failure::of(&error))?;
        if let Some(form) = Form::of(&outline) {
            let _ = self.form.set(form);
        }
        target(outline.model, shared)
    }

    fn decode(
        &self,
        call: &Call,
        model: &Schema<'_>,
        _limits: &DecodeLimits,
    ) -> Result<Decoded<RerankFormat>, ProtocolError> {
        let id = call.headers.get(headers::REQUEST_ID).and_then(|id| id.to_str().ok());
        let decoded = rerank::decode_rerank(&call.body, model, id.unwrap_or_default().into())?;
        Ok(Decoded { requests: vec![decoded.request], format: decoded.format })
    }

    fn encode(
        &self,
        format: RerankFormat,
        responses: &[InferResponse],
        model: &Schema<'_>,
    ) -> Result<Written, ProtocolError> {
        Ok(Written::json(rerank::encode_rerank(&format, responses, model)?))
    }

    fn error(&self, failure: &Failure) -> Written {
        let status = failure.status.as_u16();
        Written::json(match self.form.get().unwrap_or(&self.usual) {
            Form::Documents => openai::error_body(status, &failure.message),
            Form::Texts => rerank::error_body(status, &failure.message),
        })
    }
}
