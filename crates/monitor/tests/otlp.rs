//! Spans as a collector receives them, over a real connection on loopback.

#![allow(clippy::unwrap_used, reason = "a failing unwrap is a failing test")]

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use outhaul_monitor::Tracer;
use outhaul_monitor::trace::{RequestSpan, SpanStatus, TraceConfig, TraceError};
use outhaul_types::{Timings, TraceParent};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (String, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Collector(sender)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    (endpoint, receiver)
}

fn request(parent: Option<TraceParent>) -> RequestSpan<'static> {
    let timings = Timings {
        transform: Duration::ZERO,
        load: Duration::ZERO,
        queue: Duration::from_millis(2),
        compute: Duration::from_millis(3),
        batch_rows: 4,
        ..Timings::default()
    };
    RequestSpan {
        route: "POST /v2/models/{model}/infer",
        request_id: "r-1",
        model: "iris",
        version: Some(7),
        parent,
        total: Duration::from_millis(6),
        timings: Some(timings),
        status: SpanStatus::Http(200),
    }
}

fn parent(sampled: bool) -> TraceParent {
    TraceParent { trace_id: [1; 16], span_id: [2; 8], sampled }
}

fn attribute(span: &Span, key: &str) -> Option<Value> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    attribute.value.clone()?.value
}

async fn spans(receiver: &mut mpsc::UnboundedReceiver<ExportTraceServiceRequest>) -> Vec<Span> {
    let request = receiver.recv().await.expect("the collector is there");
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_the_span_of_a_request() {
    let (endpoint, mut receiver) = collector().await;
    let tracer = Tracer::start(&TraceConfig::new(endpoint)).unwrap();
    tracer.record_request(&request(Some(parent(true))));
    tracer.record_request(&request(Some(parent(false))));
    let failed = RequestSpan { status: SpanStatus::Http(503), timings: None, ..request(None) };
    tracer.record_request(&failed);
    tracer.shutdown().await.unwrap();
    let spans = spans(&mut receiver).await;
    assert_eq!(spans.len(), 2, "the caller did not record the second: {spans:?}");

    let span = &spans[0];
    assert_eq!(span.name, "POST /v2/models/{model}/infer");
    assert_eq!((&span.trace_id[..], &span.parent_span_id[..]), (&[1; 16][..], &[2; 8][..]));
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 6_000_000);
    assert_eq!(attribute(span, "outhaul.model"), Some(Value::StringValue("iris".to_owned())));
    assert_eq!(attribute(span, "outhaul.version"), Some(Value::IntValue(7)));
    assert_eq!(attribute(span, "outhaul.queue_seconds"), Some(Value::DoubleValue(0.002)));
    assert_eq!(attribute(span, "http.response.status_code"), Some(Value::IntValue(200)));
    assert_eq!(span.status.as_ref().map_or(0, |status| status.code), 0);

    let failed = &spans[1];
    assert!(failed.parent_span_id.is_empty(), "{failed:?}");
    assert_eq!(failed.status.as_ref().map_or(0, |status| status.code), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ratio_of_zero_records_only_what_the_caller_records() {
    let (endpoint, mut receiver) = collector().await;
    let config = TraceConfig { sample_ratio: 0.0, ..TraceConfig::new(endpoint) };
    let tracer = Tracer::start(&config).unwrap();
    tracer.record_request(&request(None));
    tracer.record_request(&request(Some(parent(true))));
    tracer.shutdown().await.unwrap();
    let spans = spans(&mut receiver).await;
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].trace_id, [1; 16]);
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let config = TraceConfig { sample_ratio: 1.5, ..TraceConfig::new("http://127.0.0.1:1") };
    assert!(matches!(Tracer::start(&config), Err(TraceError::BadRatio(_))));
    let config = TraceConfig::new("not an address");
    assert!(matches!(Tracer::start(&config), Err(TraceError::BadEndpoint { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let tracer = Tracer::start(&TraceConfig::new(endpoint)).unwrap();
    tracer.record_request(&request(None));
    assert!(matches!(tracer.shutdown().await, Err(TraceError::Flush(_))));
}
