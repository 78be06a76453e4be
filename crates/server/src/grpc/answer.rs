//! One inference, from a message to a message, with everything that is told of it.

use std::time::{Duration, Instant};

use outhaul_monitor::trace::SpanStatus;
use outhaul_protocol::grpc::pb::{ModelInferRequest, ModelInferResponse};
use outhaul_protocol::grpc::{decode_infer, encode_infer, status};
use outhaul_types::{Classify, ErrorKind, InferResponse, error_chain};
use prost::Message;
use tonic::{Code, Status};

use super::CONTRACT;
use super::context::Caller;
use crate::App;
use crate::answered::Answered;

/// What an overloaded server asks a client to wait. A queue drains in much less; the contract counts
/// in whole seconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Answers one message, counting it where it succeeds. `route` names the span.
///
/// # Errors
///
/// Fails with the status for the client; the log has been told.
pub(super) async fn infer(
    app: &App,
    message: ModelInferRequest,
    caller: &Caller,
    route: &'static str,
) -> Result<ModelInferResponse, Status> {
    let started = Instant::now();
    let request_bytes = message.encoded_len();
    // Kept only where it will be told.
    let model = Answered::is_wanted(app).then(|| message.model_name.clone());
    let result = predict(app, message, caller).await;
    let answer = result.as_ref().ok().map(|response| (response.version.0, response.timings));
    let result = result.map(encode_infer);
    let response_bytes = result.as_ref().map_or(0, Message::encoded_len);
    let (code, total) = (result.as_ref().err().map_or(Code::Ok, Status::code), started.elapsed());
    if result.is_ok() {
        let metrics = app.server_metrics();
        metrics.record_call(CONTRACT, code as u16, total, request_bytes, response_bytes);
    }
    if let Some(model) = model {
        let answered = Answered {
            contract: CONTRACT,
            route,
            request_id: &caller.context.id,
            model: &model,
            version: answer.map(|(version, _)| version),
            parent: caller.context.trace,
            status: SpanStatus::Grpc(code as u16),
            request_bytes,
            response_bytes,
            total,
            timings: answer.map(|(_, timings)| timings),
        };
        answered.tell(app);
    }
    result
}

async fn predict(
    app: &App,
    message: ModelInferRequest,
    caller: &Caller,
) -> Result<InferResponse, Status> {
    let request = decode_infer(message, &app.config().decode_limits)
        .map_err(|error| refuse(app, &error, caller))?;
    let response = app.router().infer(request, &caller.context).await;
    response.map_err(|error| refuse(app, &error, caller))
}

/// Tells the log of an error, and returns what the client is told.
pub(super) fn refuse(app: &App, error: &impl Classify, caller: &Caller) -> Status {
    let kind = error.kind();
    let request_id = caller.context.id.as_str();
    if kind.is_ours() {
        app.log_failure(CONTRACT, request_id, error);
    } else {
        tracing::debug!(request_id, %kind, error = error_chain(error), "request refused");
    }
    status(error, (kind == ErrorKind::Overloaded).then_some(RETRY_AFTER))
}
