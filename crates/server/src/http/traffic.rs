//! The admin API of traffic: routes, roll-outs, the journal, caches, and feedback.
//!
//! | call | does |
//! |---|---|
//! | `GET /v1/routes`, `GET /v1/routes/{route}` | what routes there are, and how their variants do |
//! | `PUT /v1/routes/{route}`, `DELETE` | makes, changes, removes one |
//! | `GET /v1/routes/{route}/report` | the variants compared by their outcomes |
//! | `GET /v1/rollouts`, `GET /v1/rollouts/{route}` | roll-outs with their guards |
//! | `POST /v1/rollouts/{route}` | starts one |
//! | `POST /v1/rollouts/{route}/{action}` | `promote`, `pause`, `resume`, `abort`, `rollback` |
//! | `GET /v1/journal?route=&limit=` | what was changed, when, by whom and why |
//! | `GET /v1/caches` | what the models' caches saved |
//! | `POST /v1/feedback` | outcomes of predictions |
//!
//! A change answers when it is in force here, with the entries that the journal got.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use outhaul_rollout::experiment::Experiments;
use outhaul_rollout::plan::Command;
use outhaul_rollout::traffic::{Applied, Traffic};
use outhaul_rollout::world::RolloutSpec;
use outhaul_router::{Route, RouteTable};
use outhaul_types::{Destination, ModelName, RouteSpec, VersionChoice};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::Shared;
use super::answer::Failure;
use super::infer::{failure, off_thread};
use super::repository::read;
use super::routes::{App, Asked, Handled, found};

mod shown;

pub(super) use shown::share;
use shown::{caches, rollout, route};

/// The longest declaration of a route or roll-out.
const LONGEST_DECLARATION: usize = 256 << 10;

/// Entries of the journal that are told where nobody says how many, and at most.
const ENTRIES: usize = 20;
const MOST_ENTRIES: usize = 1000;

/// Returns the paths.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new()
        .route("/v1/routes", get(list_routes))
        .route("/v1/routes/{route}", get(show_route).put(set_route).delete(remove_route))
        .route("/v1/routes/{route}/report", get(report))
        .route("/v1/rollouts", get(list_rollouts))
        .route("/v1/rollouts/{route}", get(show_rollout).post(start_rollout))
        .route("/v1/rollouts/{route}/{action}", post(act))
        .route("/v1/journal", get(journal))
        .route("/v1/caches", get(list_caches))
        .route("/v1/feedback", post(feedback))
}

/// The part of the server that decides traffic.
fn traffic(shared: &Shared) -> Result<&Arc<Traffic>, Failure> {
    let none = "this server has no routes: its traffic is not managed";
    shared.app.traffic().ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, none))
}

fn experiments(shared: &Shared) -> Result<&Arc<Experiments>, Failure> {
    let none = "this server joins no outcomes to predictions";
    shared.app.experiments().ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, none))
}

fn name(path: Path<String>) -> Result<ModelName, Failure> {
    ModelName::new(&path.0).map_err(|error| Failure::bad_request(error.to_string()))
}

fn find<'t>(table: &'t RouteTable, name: &ModelName) -> Result<&'t Arc<Route>, Failure> {
    let found = table.routes().into_iter().find(|route| route.name() == name);
    let none = || Failure::new(StatusCode::NOT_FOUND, format!("there is no route '{name}'"));
    found.ok_or_else(none)
}

fn told(json: &Json) -> Handled {
    found(Bytes::from(json.to_string()))
}

async fn list_routes(State(shared): App) -> Handled {
    let table = shared.app.router().routes();
    let routes: Vec<Json> = table.routes().into_iter().map(|one| route(one)).collect();
    told(&json!({ "generation": table.generation(), "routes": routes }))
}

async fn show_route(State(shared): App, path: Path<String>) -> Handled {
    let name = name(path)?;
    let table = shared.app.router().routes();
    told(&route(find(&table, &name)?))
}

async fn set_route(
    State(shared): App,
    path: Path<String>,
    asked: Asked,
    request: Request,
) -> Handled {
    let route = name(path)?;
    let by = by(request.headers(), &shared);
    let spec: RouteSpec = declaration(&shared, &asked, request).await?;
    command(&shared, &asked, Command::SetRoute { route, spec }, &by).await
}

async fn remove_route(
    State(shared): App,
    path: Path<String>,
    asked: Asked,
    headers: HeaderMap,
) -> Handled {
    let route = name(path)?;
    let by = by(&headers, &shared);
    command(&shared, &asked, Command::RemoveRoute { route }, &by).await
}

async fn list_rollouts(State(shared): App) -> Handled {
    let status = traffic(&shared)?.status();
    let rollouts: Vec<Json> = status.iter().map(rollout).collect();
    told(&json!({ "rollouts": rollouts }))
}

async fn show_rollout(State(shared): App, path: Path<String>) -> Handled {
    let name = name(path)?;
    let status = traffic(&shared)?.status();
    let found = status.iter().find(|status| status.route == name);
    let none = || Failure::new(StatusCode::NOT_FOUND, format!("'{name}' has had no roll-out"));
    told(&rollout(found.ok_or_else(none)?))
}

async fn start_rollout(
    State(shared): App,
    path: Path<String>,
    asked: Asked,
    request: Request,
) -> Handled {
    let route = name(path)?;
    let by = by(request.headers(), &shared);
    let spec: RolloutSpec = declaration(&shared, &asked, request).await?;
    let in_service = in_service(&shared, &route, &asked, &spec).await;
    command(&shared, &asked, Command::Start { route, spec, in_service }, &by).await
}

/// The exact version of the model `route` that answers now. The candidate itself is none: where it has taken
/// over already, the next older version that answers is what it would replace.
async fn in_service(
    shared: &Shared,
    route: &ModelName,
    asked: &Asked,
    spec: &RolloutSpec,
) -> Option<Destination> {
    let router = shared.app.router();
    let described = router.describe(route.as_str(), &VersionChoice::Latest, asked.deadline).await;
    let exact = |version| Destination::Model {
        name: route.clone(),
        version: VersionChoice::Exact(version),
    };
    let newest = described.ok().map(|model| exact(model.version));
    if newest.as_ref().is_some_and(|newest| *newest != spec.to) {
        return newest;
    }
    let versions = router.versions(route.as_str()).unwrap_or_default();
    versions.into_iter().rev().map(exact).find(|version| *version != spec.to)
}

async fn act(
    State(shared): App,
    Path((route, action)): Path<(String, String)>,
    asked: Asked,
    headers: HeaderMap,
) -> Handled {
    let route = name(Path(route))?;
    let command_of = match action.as_str() {
        "promote" => Command::Promote { route },
        "pause" => Command::Pause { route },
        "resume" => Command::Resume { route },
        "abort" => Command::Abort { route },
        "rollback" => Command::Rollback { route },
        other => {
            let other: String = other.chars().take(64).collect();
            let known = "promote, pause, resume, abort and rollback";
            let message = format!("'{other}' is nothing a roll-out does: there are {known}");
            return Err(Failure::new(StatusCode::NOT_FOUND, message));
        }
    };
    let by = by(&headers, &shared);
    command(&shared, &asked, command_of, &by).await
}

/// Who asks, for the journal.
fn by(headers: &HeaderMap, shared: &Shared) -> String {
    let header = &shared.app.config().caller_header.0;
    let caller = headers.get(header).and_then(|value| value.to_str().ok());
    caller.filter(|name| !name.is_empty()).unwrap_or("admin").chars().take(128).collect()
}

async fn command(shared: &Shared, asked: &Asked, command: Command, by: &str) -> Handled {
    let applied = traffic(shared)?.command(command, by).await;
    let Applied { world, entries, kept } =
        applied.map_err(|error| failure(&shared.app, "admin", &asked.id, &error))?;
    told(&json!({ "generation": world.generation, "entries": entries, "kept": kept }))
}

#[derive(serde::Deserialize)]
struct Which {
    route: Option<String>,
    limit: Option<usize>,
}

async fn journal(
    State(shared): App,
    which: Result<Query<Which>, QueryRejection>,
    asked: Asked,
) -> Handled {
    let Query(Which { route, limit }) =
        which.map_err(|error| Failure::bad_request(error.body_text()))?;
    let limit = limit.unwrap_or(ENTRIES).clamp(1, MOST_ENTRIES);
    let entries = traffic(&shared)?.journal(route.as_deref(), limit).await;
    let entries = entries.map_err(|error| failure(&shared.app, "admin", &asked.id, &error))?;
    told(&json!({ "entries": entries }))
}

async fn list_caches(State(shared): App) -> Handled {
    told(&json!({ "caches": caches(&shared.app) }))
}

async fn report(State(shared): App, path: Path<String>, asked: Asked) -> Handled {
    let name = name(path)?;
    let table = shared.app.router().routes();
    let spec = find(&table, &name)?.spec().clone();
    let report = experiments(&shared)?.report(&name, &spec).await;
    let report = report.map_err(|error| failure(&shared.app, "admin", &asked.id, &error))?;
    told(&json!(report))
}

async fn feedback(State(shared): App, asked: Asked, request: Request) -> Handled {
    let body = read(&shared, &asked, request, shared.config.max_body_bytes).await?;
    let work = body.len();
    let decode = move || outhaul_protocol::feedback::decode(&body);
    let decoded = off_thread(&shared.app, &asked.id, work, "decoding", decode).await?;
    let feedback = decoded.map_err(|error| Failure::of(&error))?;
    let answer = experiments(&shared)?.feedback(feedback).await;
    let answer = answer.map_err(|error| failure(&shared.app, "feedback", &asked.id, &error))?;
    found(outhaul_protocol::feedback::encode(&answer).into())
}

/// Reads a declaration in JSON.
async fn declaration<T: DeserializeOwned>(
    shared: &Shared,
    asked: &Asked,
    request: Request,
) -> Result<T, Failure> {
    let body = read(shared, asked, request, LONGEST_DECLARATION).await?;
    serde_json::from_slice(&body).map_err(|error| Failure::bad_request(error.to_string()))
}
