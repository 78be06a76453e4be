//! Pages for people: the list of models, and for each a page to try it on.
//!
//! They are rendered here, from what the router knows; their scripts only collect what was typed, send
//! it the way any client would, and draw the answer. Nothing comes from another server, and everything
//! that a user or a model's file wrote is escaped by `maud`.

mod layout;
mod list;
mod traffic;
mod try_out;
mod widget;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use maud::html;

use super::answer::Failure;
use super::routes::{App, Asked, TargetPath};
use super::{Shared, routes};

pub(super) use layout::{answer, page};
pub(super) use list::list;

/// Returns the paths of the pages and of what they are made of.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    let style = include_str!("assets/style.css");
    let list = include_str!("assets/list.js");
    let try_out = include_str!("assets/try.js");
    let traffic = include_str!("assets/traffic.js");
    axum::Router::new()
        .route("/try/{model}", get(try_page))
        .route("/try/{model}/versions/{version}", get(try_page))
        .route("/traffic", get(traffic_page))
        .route("/assets/traffic.js", get(move || async move { layout::asset(SCRIPT, traffic) }))
        .route("/assets/style.css", get(move || async move { layout::asset("text/css", style) }))
        .route("/assets/list.js", get(move || async move { layout::asset(SCRIPT, list) }))
        .route("/assets/try.js", get(move || async move { layout::asset(SCRIPT, try_out) }))
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

async fn traffic_page(State(shared): App) -> Response {
    answer(StatusCode::OK, traffic::traffic(&shared.app))
}

async fn try_page(
    State(shared): App,
    target: Result<TargetPath, Failure>,
    asked: Asked,
) -> Response {
    let described = match target {
        Ok(TargetPath(target)) => routes::describe(&shared, &target, &asked).await,
        Err(failure) => Err(failure),
    };
    match described {
        Ok(model) => {
            let versions = shared.app.router().versions(model.name.as_str()).unwrap_or_default();
            answer(StatusCode::OK, try_out::page(&model, &versions))
        }
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> Response {
    let main = html! {
        h1 { (failure.status.canonical_reason().unwrap_or("There is no such page")) }
        p { (failure.message) }
        p { a href="/" { "All models" } }
    };
    answer(failure.status, page("Not there", None, &main))
}
