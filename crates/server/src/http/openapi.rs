//! The OpenAPI document and the page that shows it.

pub(super) mod known;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};

use super::Shared;

/// Returns the paths of this contract.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new()
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
