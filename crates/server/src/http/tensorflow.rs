//! TensorFlow Serving's REST API, with what KServe v1 and OpenAI ask of the same paths.
//!
//! | Path | |
//! |---|---|
//! | `POST /v1/models/M[/versions/V\|/labels/L]:predict` | a prediction, KServe v1's too; `:classify`, `:regress` |
//! | `GET /v1/models/M[/versions/V\|/labels/L]` | how its versions stand |
//! | `GET /v1/models/M[/versions/V\|/labels/L]/metadata` | what it takes and gives |
//! | `GET /v1/models` | all models |
//!
//! A name and its verb share one segment, so one route takes whatever comes behind `/v1/models/` and
//! `protocol::tensorflow::Path` reads it.

use std::sync::Arc;

use axum::extract::{Path as Segments, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use outhaul_protocol::oip::Target;
use outhaul_protocol::tensorflow::{self, Format, Path, PathError, Question, Verb};
use outhaul_protocol::tensorflow_grpc::VersionFact;
use outhaul_protocol::{DecodeLimits, ProtocolError, Schema};
use outhaul_router::{Standing, VersionStatus};
use outhaul_types::InferResponse;

use super::Shared;
use super::answer::{Failure, json};
use super::exchange::{Call, Contract, Decoded, Written, exchange, schema};
use super::routes::{App, Asked, Handled, boxed, describe, found};
use crate::describe::{entry_state, versions_of};

/// Returns the paths of this contract.
pub(super) fn routes() -> axum::Router<Arc<Shared>> {
    axum::Router::new()
        .route("/v1/models", get(list))
        .route("/v1/models/", get(list))
        .route("/v1/models/{*rest}", get(describe_model).post(predict))
}

/// A prediction whose path was read, or could not be.
struct Prediction(Result<Path<Verb>, PathError>);

async fn predict(
    State(shared): App,
    Segments(rest): Segments<String>,
    request: Request,
) -> Response {
    exchange(&shared, Prediction(Path::of_prediction(&rest)), request).await
}

impl Prediction {
    fn path(&self) -> Result<&Path<Verb>, Failure> {
        self.0.as_ref().map_err(refused)
    }
}

impl Contract for Prediction {
    const NAME: &'static str = "tensorflow_rest";
    const ROUTE: &'static str = "POST /v1/models/{model}";
    type Format = Format;

    fn target(&self, _call: &Call, _shared: &Shared) -> Result<Target, Failure> {
        self.path().map(|path| path.target.clone())
    }

    fn decode(
        &self,
        call: &Call,
        model: &Schema<'_>,
        limits: &DecodeLimits,
    ) -> Result<Decoded<Format>, ProtocolError> {
        // Without a path there is no model, and nothing is decoded.
        let verb = self.0.as_ref().map_or(Verb::Predict, |path| path.asked);
        let decoded = tensorflow::decode(verb, &call.body, model, limits)?;
        Ok(Decoded { requests: vec![decoded.request], format: decoded.format })
    }

    fn encode(
        &self,
        format: Format,
        responses: &[InferResponse],
        model: &Schema<'_>,
    ) -> Result<Written, ProtocolError> {
        tensorflow::encode(&format, responses, model).map(Written::json)
    }

    fn error(&self, failure: &Failure) -> Written {
        Written::json(tensorflow::error_body(&failure.message))
    }
}

fn refused(error: &PathError) -> Failure {
    let status = match error {
        PathError::NoVerb(_) | PathError::NoModel(_) => StatusCode::NOT_FOUND,
        PathError::Version(_) => StatusCode::BAD_REQUEST,
    };
    Failure::new(status, error.to_string())
}

async fn describe_model(
    State(shared): App,
    Segments(rest): Segments<String>,
    asked: Asked,
) -> Handled {
    let Path { target, asked: question } =
        Path::of_description(&rest).map_err(|error| refused(&error))?;
    match question {
        Question::Metadata => {
            let model = describe(&shared, &target, &asked).await?;
            found(tensorflow::model_metadata(&schema(&model)).into())
        }
        Question::Status => Ok(status(&shared, &target)),
    }
}

/// Tells how a model stands. OpenAI's clients ask this path too and read an error in their own form.
fn status(shared: &Shared, target: &Target) -> Response {
    let router = shared.app.router();
    let versions = match versions_of(router, target) {
        Ok(versions) => versions,
        Err(error) => {
            let failure = Failure::of(&error);
            if failure.status != StatusCode::NOT_FOUND {
                return failure.into_response();
            }
            let body = tensorflow::model_error_body(&failure.message);
            return boxed(json(failure.status, body.into()));
        }
    };
    let ready = router.readiness(&target.model, &target.version).is_ok();
    let facts = versions.iter().map(|status| VersionFact {
        version: status.version,
        state: entry_state(status.standing),
        failure: (status.standing == Standing::Failed).then_some(&*status.reason),
    });
    boxed(json(StatusCode::OK, tensorflow::model_status(&target.model, ready, facts).into()))
}

/// Lists the models that answer, or would once they are loaded.
async fn list(State(shared): App) -> Handled {
    let mut models = shared.app.router().models();
    models.retain(|status| {
        matches!(status.standing, Standing::Ready | Standing::Loading | Standing::Dormant)
    });
    let name = |status: &VersionStatus| status.name.clone();
    models.dedup_by_key(|status| name(status));
    found(tensorflow::model_list(models.iter().map(|status| status.name.as_str())).into())
}
