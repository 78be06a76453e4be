//! One inference, from a message to a message, with everything that is told of it.

use std::time::{Duration, Instant};

use outhaul_monitor::trace::{RequestSpan, SpanStatus};
use outhaul_protocol::grpc::pb::{ModelInferRequest, ModelInferResponse};
use outhaul_protocol::grpc::{code, decode_infer, encode_infer, status};
use outhaul_router::RouterError;
use outhaul_types::{Classify, ErrorKind, InferResponse, error_chain};
use prost::Message;
use tonic::{Code, Status};

use super::CONTRACT;
use super::context::Caller;
use crate::App;

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
    let request = match decode_infer(message, &app.config().decode_limits) {
        Ok(request) => request,
        Err(error) => return Err(refuse(app, &error, caller)),
    };
    // Kept only where it will be told.
    let traced = app.monitor().tracer().map(|_| request.model.clone());
    let result = app.router().infer(request, &caller.context).await;
    if let Some(model) = traced {
        let span = Span { route, model: &model, total: started.elapsed() };
        span.record(app, caller, &result);
    }
    match result {
        Ok(response) => {
            let message = encode_infer(response);
            let (total, response_bytes) = (started.elapsed(), message.encoded_len());
            app.server_metrics().record_call(CONTRACT, 0, total, request_bytes, response_bytes);
            Ok(message)
        }
        Err(error) => Err(refuse(app, &error, caller)),
    }
}

/// Tells the log of an error, and returns what the client is told.
fn refuse(app: &App, error: &impl Classify, caller: &Caller) -> Status {
    let kind = error.kind();
    let request_id = caller.context.id.as_str();
    if kind.is_ours() {
        app.log_failure(CONTRACT, request_id, error);
    } else {
        tracing::debug!(request_id, %kind, error = error_chain(error), "request refused");
    }
    status(error, (kind == ErrorKind::Overloaded).then_some(RETRY_AFTER))
}

/// What the trace is told beside the answer.
struct Span<'a> {
    route: &'static str,
    model: &'a str,
    total: Duration,
}

impl Span<'_> {
    fn record(self, app: &App, caller: &Caller, result: &Result<InferResponse, RouterError>) {
        let Some(tracer) = app.monitor().tracer() else { return };
        let answer = result.as_ref().ok();
        let code = result.as_ref().err().map_or(Code::Ok, |error| code(error.kind()));
        tracer.record_request(&RequestSpan {
            route: self.route,
            request_id: &caller.context.id,
            model: self.model,
            version: answer.map(|response| response.version.0),
            parent: caller.context.trace,
            total: self.total,
            timings: answer.map(|response| response.timings),
            status: SpanStatus::Grpc(code as u16),
        });
    }
}
