//! The OpenAPI document and the page that shows it.
//!
//! | Path | |
//! |---|---|
//! | `GET /openapi.json` | the document: every path, and what each model takes and gives |
//! | `GET /docs` | the same to read |
//!
//! Both are made by `protocol::openapi` and kept until the models change; no model is woken for them.

mod docs;
pub(super) mod known;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use maud::{Markup, PreEscaped};
use outhaul_protocol::openapi::{Described, document};

use self::known::Kept;
use super::exchange::schema;
use super::routes::{App, Handled, found};
use super::{Shared, pages};

/// The document and its page, both as text.
struct Written {
    json: bytes::Bytes,
    page: String,
}

/// Returns the paths of this contract.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    let kept: Arc<Kept<Written>> = Arc::default();
    axum::Router::new()
        .route("/openapi.json", get(openapi))
        .route("/docs", get(docs))
        .route("/assets/docs.js", get(script))
        .layer(Extension(kept))
}

type Documents = Extension<Arc<Kept<Written>>>;

async fn openapi(State(shared): App, Extension(kept): Documents) -> Handled {
    found(written(&shared, &kept).json.clone())
}

async fn docs(State(shared): App, Extension(kept): Documents) -> Response {
    let page: Markup = PreEscaped(written(&shared, &kept).page.clone());
    pages::answer(StatusCode::OK, page)
}

async fn script() -> Response {
    script_file(include_str!("assets/docs.js"))
}

fn written(shared: &Shared, kept: &Kept<Written>) -> Arc<Written> {
    let vertex = shared.config.vertex.as_ref();
    kept.of(&shared.app.router().models(), |known| {
        let models: Vec<_> = known.iter().map(|model| schema(model)).collect();
        let document = document(&Described {
            version: env!("CARGO_PKG_VERSION"),
            models: &models,
            vertex: vertex.map(|paths| (paths.predict.as_str(), paths.health.as_str())),
        });
        let page = docs::page(&document).into_string();
        Written { json: document.json, page }
    })
}

/// Returns a script of ours as an answer.
pub(super) fn script_file(text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    let script = HeaderValue::from_static("text/javascript; charset=utf-8");
    headers.insert(CONTENT_TYPE, script);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Asked for again at every visit, so that a page never meets another version's script.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
