//! What all pages share: head, header, footer, and the rules that their browser has to keep.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use maud::{DOCTYPE, Markup, html};

/// Nothing from elsewhere, no script but ours, nowhere inside of another page. Pictures may come from
/// the visitor's own files.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Returns a whole page. `script` is one of our own, by its path.
pub(in crate::http) fn page(title: &str, script: Option<&str>, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " - Outhaul" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/assets/style.css";
                @if let Some(script) = script { script src=(script) defer {} }
            }
            body {
                header {
                    strong { "Outhaul" }
                    span class="faint" { (env!("CARGO_PKG_VERSION")) }
                    nav aria-label="Pages" {
                        a href="/" { "Models" }
                        a href="/traffic" { "Traffic" }
                        a href="/docs" { "API" }
                        a href="/metrics" { "Metrics" }
                    }
                }
                main { (main) }
            }
        }
    }
}

/// Returns a page as an answer.
pub(in crate::http) fn answer(status: StatusCode, page: Markup) -> Response {
    let mut response = Response::new(Body::from(page.into_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HTML);
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns a file of ours as an answer.
pub(in crate::http) fn asset(content_type: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Asked for again at every visit, so that a page never meets another version's script.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
