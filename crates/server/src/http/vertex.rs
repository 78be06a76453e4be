//! Vertex AI's contract of custom containers. The paths are the platform's to say (`AIP_PREDICT_ROUTE`
//! and `AIP_HEALTH_ROUTE`) and may be any, our own too: they are looked at before all others.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use outhaul_protocol::oip::Target;
use outhaul_protocol::{DecodeLimits, ProtocolError, Schema, vertex};
use outhaul_types::InferResponse;

use super::Shared;
use super::answer::{Failure, json};
use super::exchange::{Call, Contract, Decoded, Written, default_target, exchange};
use super::routes::{App, boxed};

/// Puts the paths of this contract, where some are configured, before those of a router.
pub(super) fn before(
    routes: axum::Router<Arc<Shared>>,
    shared: &Arc<Shared>,
) -> axum::Router<Arc<Shared>> {
    match shared.config.vertex {
        Some(_) => routes.layer(middleware::from_fn_with_state(Arc::clone(shared), choose)),
        None => routes,
    }
}

async fn choose(State(shared): App, request: Request, next: Next) -> Response {
    let Some(routes) = &shared.config.vertex else {
        return next.run(request).await;
    };
    let (method, path) = (request.method(), request.uri().path());
    if method == Method::POST && path == routes.predict {
        return exchange(&shared, Prediction, request).await;
    }
    if matches!(*method, Method::GET | Method::HEAD) && path == routes.health {
        return health(&shared);
    }
    next.run(request).await
}

fn health(shared: &Shared) -> Response {
    match shared.app.is_ready() {
        true => boxed(json(StatusCode::OK, Bytes::from_static(b"{\"status\":\"ready\"}"))),
        false => {
            let body = vertex::error_body(503, "the models are not ready");
            boxed(json(StatusCode::SERVICE_UNAVAILABLE, body.into()))
        }
    }
}

struct Prediction;

impl Contract for Prediction {
    const NAME: &'static str = "vertex";
    const ROUTE: &'static str = "POST AIP_PREDICT_ROUTE";
    /// The rows of the request.
    type Format = usize;

    fn target(&self, _call: &Call, shared: &Shared) -> Result<Target, Failure> {
        default_target(shared)
    }

    fn decode(
        &self,
        call: &Call,
        model: &Schema<'_>,
        limits: &DecodeLimits,
    ) -> Result<Decoded<usize>, ProtocolError> {
        let (request, rows) = vertex::decode(&call.body, model, limits)?;
        Ok(Decoded { requests: vec![request], format: rows })
    }

    fn encode(
        &self,
        rows: usize,
        responses: &[InferResponse],
        model: &Schema<'_>,
    ) -> Result<Written, ProtocolError> {
        vertex::encode(rows, responses, model).map(Written::json)
    }

    fn error(&self, failure: &Failure) -> Written {
        Written::json(vertex::error_body(failure.status.as_u16(), &failure.message))
    }
}
