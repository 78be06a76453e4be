//! Traces: one span a request, sent to an OpenTelemetry collector over OTLP/gRPC.
//!
//! A span is made after the answer, from times that were measured anyway, so that nothing is carried
//! through the request for it. The caller's `traceparent` decides whether a request is recorded;
//! without one, a fixed share of requests is. Sending happens in batches on a thread of its own: a
//! collector that is slow or away costs spans, never requests.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use outhaul_types::{Timings, TraceParent};

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceConfig {
    /// The collector, such as `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// The name under which spans appear. Default: `outhaul`.
    pub service_name: String,
    /// The share of requests without a `traceparent` that is recorded, from 0 to 1. Default: 1.
    /// Raising it costs processor time and the collector's storage.
    pub sample_ratio: f64,
    /// The longest that sending one batch of spans may take. Default: 10 s.
    pub timeout: Duration,
}

impl TraceConfig {
    /// Makes the default configuration for a collector.
    pub fn new(endpoint: impl Into<String>) -> Self {
        TraceConfig {
            endpoint: endpoint.into(),
            service_name: "outhaul".to_owned(),
            sample_ratio: 1.0,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Not a share.
    #[error("the sample ratio {0} does not lie between 0 and 1")]
    BadRatio(f64),
    /// Not an address that spans can be sent to.
    #[error("spans cannot be sent to '{endpoint}'")]
    BadEndpoint {
        /// As configured.
        endpoint: String,
        /// Why.
        #[source]
        source: ExporterBuildError,
    },
    /// The last spans did not reach the collector.
    #[error("the last spans could not be sent")]
    Flush(#[source] OTelSdkError),
    /// The thread that waited for them went away.
    #[error("sending the last spans was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// One finished request.
#[derive(Clone, Debug)]
pub struct RequestSpan<'a> {
    /// The route, such as `POST /v2/models/{model}/infer`: the span's name. Never the path itself,
    /// whose values have no bound.
    pub route: &'static str,
    /// The id that answer and logs carry.
    pub request_id: &'a str,
    /// The model asked for.
    pub model: &'a str,
    /// The version that answered.
    pub version: Option<u64>,
    /// The caller's place in its trace.
    pub parent: Option<TraceParent>,
    /// From the arrival of the request to now.
    pub total: Duration,
    /// How the time of an answer was spent.
    pub timings: Option<Timings>,
    /// How it ended.
    pub status: SpanStatus,
}

/// The contract's own status of a finished request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanStatus {
    /// An HTTP status. From 500 on, the span is marked as failed.
    Http(u16),
    /// A gRPC code. `UNKNOWN`, `DEADLINE_EXCEEDED`, `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE` and
    /// `DATA_LOSS` mark the span as failed, as OpenTelemetry asks of servers.
    Grpc(u16),
}

/// Makes spans and sends them.
pub struct Tracer {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Tracer {
    /// Starts a tracer. Must be called inside a tokio runtime, whose threads will do the sending. The
    /// collector need not be there yet.
    ///
    /// # Errors
    ///
    /// Fails where the endpoint or the ratio is not valid.
    pub fn start(config: &TraceConfig) -> Result<Arc<Self>, TraceError> {
        if !(0.0..=1.0).contains(&config.sample_ratio) {
            return Err(TraceError::BadRatio(config.sample_ratio));
        }
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&config.endpoint)
            .with_timeout(config.timeout)
            .build()
            .map_err(|source| TraceError::BadEndpoint {
                endpoint: config.endpoint.clone(),
                source,
            })?;
        let sampler = Sampler::parent_based(Sampler::TraceIdRatioBased(config.sample_ratio));
        let resource = Resource::builder()
            .with_service_name(config.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("outhaul");
        Ok(Arc::new(Tracer { provider, tracer }))
    }

    /// Records one finished request, where its trace is sampled.
    pub fn record_request(&self, request: &RequestSpan<'_>) {
        if request.parent.is_some_and(|parent| !parent.sampled) {
            return;
        }
        let end = SystemTime::now();
        let start = end.checked_sub(request.total).unwrap_or(end);
        let builder = SpanBuilder::from_name(request.route)
            .with_kind(SpanKind::Server)
            .with_start_time(start);
        let context = request.parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(span_context(parent))
        });
        let mut span = self.tracer.build_with_context(builder, &context);
        if span.is_recording() {
            span.set_attributes(attributes(request));
            if request.status.is_failure() {
                span.set_status(Status::error(""));
            }
        }
        span.end_with_timestamp(end);
    }

    /// Sends what is left and stops. Later requests are not recorded.
    ///
    /// # Errors
    ///
    /// Fails where the collector did not take the last spans in time.
    pub async fn shutdown(&self) -> Result<(), TraceError> {
        let provider = self.provider.clone();
        // It blocks until the exporter's thread is done, which needs this runtime to send.
        let stopped = tokio::task::spawn_blocking(move || {
            // The shutdown alone does not tell whether the spans arrived.
            let flushed = provider.force_flush();
            provider.shutdown().and(flushed)
        })
        .await;
        stopped.map_err(TraceError::Interrupted)?.map_err(TraceError::Flush)
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}

impl SpanStatus {
    fn attribute(self) -> KeyValue {
        match self {
            SpanStatus::Http(status) => {
                KeyValue::new("http.response.status_code", i64::from(status))
            }
            SpanStatus::Grpc(code) => KeyValue::new("rpc.grpc.status_code", i64::from(code)),
        }
    }

    fn is_failure(self) -> bool {
        match self {
            SpanStatus::Http(status) => status >= 500,
            SpanStatus::Grpc(code) => matches!(code, 2 | 4 | 12 | 13 | 14 | 15),
        }
    }
}

fn span_context(parent: TraceParent) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(parent.trace_id),
        SpanId::from_bytes(parent.span_id),
        TraceFlags::default().with_sampled(parent.sampled),
        true,
        TraceState::default(),
    )
}

fn attributes(request: &RequestSpan<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("outhaul.model", request.model.to_owned()),
        KeyValue::new("outhaul.request_id", request.request_id.to_owned()),
        request.status.attribute(),
    ];
    if let Some(version) = request.version {
        attributes.push(KeyValue::new("outhaul.version", i64::try_from(version).unwrap_or(-1)));
    }
    if let Some(timings) = request.timings {
        let seconds = |name, duration: Duration| KeyValue::new(name, duration.as_secs_f64());
        attributes.extend([
            seconds("outhaul.transform_seconds", timings.transform),
            seconds("outhaul.queue_seconds", timings.queue),
            seconds("outhaul.assemble_seconds", timings.assemble),
            seconds("outhaul.compute_seconds", timings.compute),
            seconds("outhaul.split_seconds", timings.split),
            KeyValue::new("outhaul.batch_rows", timings.batch_rows as i64),
        ]);
    }
    attributes
}
