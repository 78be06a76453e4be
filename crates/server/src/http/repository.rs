//! The repository extension: which versions there are, and loading and unloading by request.
//!
//! A load takes as long as it takes: neither [`HttpConfig::request_timeout`] nor the caller's own
//! timeout cuts it, and a caller that leaves does not end it. What is loaded, and what that means for
//! requests in flight, is the repository's business.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use outhaul_protocol::{LoadRequest, oip};

use super::answer::Failure;
use super::infer::{failure, off_thread, unpack};
use super::routes::{App, Asked, Handled, TargetPath, found};
use super::{HttpConfig, Shared, body, coding};
use crate::describe::Index;

/// The longest body of a question. A load may be longer: the files that Triton's clients can put into
/// one are refused by their name.
const LONGEST_QUESTION: usize = 64 << 10;

/// Lists all versions, or those that would answer.
pub(super) async fn index(State(shared): App, asked: Asked, request: Request) -> Handled {
    let body = read(&shared, &asked, request, LONGEST_QUESTION).await?;
    let only_ready = oip::decode_index(&body).map_err(|error| Failure::of(&error))?;
    found(oip::repository_index(Index::of(shared.app.router(), only_ready).entries()))
}

/// Loads a model, and answers when it answers.
pub(super) async fn load(
    State(shared): App,
    TargetPath(target): TargetPath,
    asked: Asked,
    request: Request,
) -> Handled {
    let body = read(&shared, &asked, request, shared.config.max_body_bytes).await?;
    let bytes = body.len();
    let decode = move || oip::decode_load(&body);
    let decoded = off_thread(&shared.app, &asked.id, bytes, "decoding", decode).await?;
    let LoadRequest { version } = decoded.map_err(|error| Failure::of(&error))?;
    let loaded = shared.app.router().load(&target.model, version).await;
    loaded.map_err(|error| failure(&shared.app, "repository", &asked.id, &error))?;
    Ok(done())
}

/// Unloads a model, and answers when requests for it are refused.
pub(super) async fn unload(
    State(shared): App,
    TargetPath(target): TargetPath,
    asked: Asked,
    request: Request,
) -> Handled {
    let body = read(&shared, &asked, request, LONGEST_QUESTION).await?;
    oip::decode_unload(&body).map_err(|error| Failure::of(&error))?;
    let unloaded = shared.app.router().unload(&target.model).await;
    unloaded.map_err(|error| failure(&shared.app, "repository", &asked.id, &error))?;
    Ok(done())
}

/// Reads a whole body of at most `limit` bytes, unpacked too.
pub(super) async fn read(
    shared: &Shared,
    asked: &Asked,
    request: Request,
    limit: usize,
) -> Result<Bytes, Failure> {
    let (head, received) = request.into_parts();
    let coding = coding::of_request(&head.headers)?;
    let limit = shared.config.max_body_bytes.min(limit);
    let config = HttpConfig { max_body_bytes: limit, ..shared.config.clone() };
    let received = body::read(received, &config, || ()).await?;
    match coding {
        None => Ok(received),
        Some(coding) => unpack(&shared.app, &asked.id, coding, received, limit).await,
    }
}

/// The answer that says no more than that it is done.
fn done() -> Response {
    Response::new(axum::body::Body::empty())
}
