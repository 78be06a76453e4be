//! Azure Machine Learning's scoring path. `GET /`, which the platform asks for signs of life, is
//! answered with the rest of the server.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use outhaul_protocol::oip::Target;
use outhaul_protocol::{DecodeLimits, ProtocolError, Schema, azure};
use outhaul_types::InferResponse;

use super::Shared;
use super::answer::Failure;
use super::exchange::{Call, Contract, Decoded, Written, default_target, exchange};
use super::routes::App;

/// Returns the paths of this contract.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new().route("/score", post(score))
}

async fn score(State(shared): App, request: Request) -> Response {
    exchange(&shared, Score, request).await
}

struct Score;

impl Contract for Score {
    const NAME: &'static str = "azure";
    const ROUTE: &'static str = "POST /score";
    type Format = ();

    fn target(&self, _call: &Call, shared: &Shared) -> Result<Target, Failure> {
        default_target(shared)
    }

    fn decode(
        &self,
        call: &Call,
        model: &Schema<'_>,
        limits: &DecodeLimits,
    ) -> Result<Decoded<()>, ProtocolError> {
        let request = azure::decode(&call.body, model, limits)?;
        Ok(Decoded { requests: vec![request], format: () })
    }

    fn encode(
        &self,
        (): (),
        responses: &[InferResponse],
        model: &Schema<'_>,
    ) -> Result<Written, ProtocolError> {
        azure::encode(responses, model).map(Written::json)
    }

    fn error(&self, failure: &Failure) -> Written {
        Written::json(azure::error_body(failure.status.as_u16(), &failure.message))
    }
}
