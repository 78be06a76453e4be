//! What logs and traces are told of a request once its answer is ready.

use std::time::Duration;

use outhaul_monitor::trace::{RequestSpan, SpanStatus};
use outhaul_types::{Timings, TraceParent};

use crate::App;

/// A request whose answer is ready.
pub(crate) struct Answered<'a> {
    pub(crate) contract: &'static str,
    /// The route, never the path itself.
    pub(crate) route: &'static str,
    pub(crate) request_id: &'a str,
    /// The model as the caller wrote it.
    pub(crate) model: &'a str,
    pub(crate) version: Option<u64>,
    pub(crate) parent: Option<TraceParent>,
    pub(crate) status: SpanStatus,
    pub(crate) request_bytes: usize,
    pub(crate) response_bytes: usize,
    pub(crate) total: Duration,
    pub(crate) timings: Option<Timings>,
}

impl Answered<'_> {
    /// Returns whether anybody wants to hear of requests.
    pub(crate) fn is_wanted(app: &App) -> bool {
        app.config().log_requests || app.monitor().tracer().is_some()
    }

    /// Tells the log and the tracer, where they want to hear of requests.
    pub(crate) fn tell(self, app: &App) {
        if app.config().log_requests {
            self.log();
        }
        if let Some(tracer) = app.monitor().tracer() {
            tracer.record_request(&RequestSpan {
                route: self.route,
                request_id: self.request_id,
                model: self.model,
                version: self.version,
                parent: self.parent,
                total: self.total,
                timings: self.timings,
                status: self.status,
            });
        }
    }

    fn log(&self) {
        let microseconds = |duration: Duration| duration.as_micros() as u64;
        let (SpanStatus::Http(status) | SpanStatus::Grpc(status)) = self.status;
        let timings = self.timings.unwrap_or_default();
        tracing::info!(
            contract = self.contract,
            request_id = self.request_id,
            model = self.model,
            version = self.version,
            status,
            request_bytes = self.request_bytes,
            response_bytes = self.response_bytes,
            total_us = microseconds(self.total),
            queue_us = microseconds(timings.queue),
            compute_us = microseconds(timings.compute),
            "answered"
        );
    }
}
