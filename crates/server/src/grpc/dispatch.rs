//! From an HTTP/2 request to the service that it names.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use outhaul_protocol::grpc::pb::grpc_inference_service_server::{
    self as inference, GrpcInferenceServiceServer,
};
use outhaul_protocol::tensorflow_grpc::pb::serving::model_service_server::{
    self as models, ModelServiceServer,
};
use outhaul_protocol::tensorflow_grpc::pb::serving::prediction_service_server::{
    self as prediction, PredictionServiceServer,
};
use outhaul_protocol::{grpc, tensorflow_grpc};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::pb::health_server::HealthServer;
use tower::Service as _;

use super::answer::Base;
use super::context::GRPC_TIMEOUT;
use super::health::HealthService;
use super::service::Inference;
use super::tensorflow::TensorFlow;
use super::{GrpcConfig, OPEN_INFERENCE, TENSORFLOW};
use crate::App;
use crate::pace::Pace;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The algorithms that messages may be compressed with, either way.
const COMPRESSIONS: [(&str, CompressionEncoding); 3] = [
    ("gzip", CompressionEncoding::Gzip),
    ("deflate", CompressionEncoding::Deflate),
    ("zstd", CompressionEncoding::Zstd),
];

/// All gRPC services of one server. Cheap to clone; serves any number of connections.
#[derive(Clone)]
pub struct GrpcService {
    inference: GrpcInferenceServiceServer<Inference>,
    prediction: PredictionServiceServer<TensorFlow>,
    models: ModelServiceServer<TensorFlow>,
    /// Health and reflection. Calls to them are rare, so they may cost a search.
    others: Routes,
    app: Arc<App>,
    pace: Pace,
    has_request_timeout: bool,
}

/// When a call arrived, told to its handler where it has a deadline: the handler itself begins only once
/// the message is there.
#[derive(Clone, Copy)]
pub(super) struct Arrived(pub(super) Instant);

/// Makes the services. `drain` is to be cancelled when the server shuts down, after
/// [`App::start_draining`]: streams end then, once what they have received is answered.
pub fn service(app: Arc<App>, config: &GrpcConfig, drain: CancellationToken) -> GrpcService {
    let base = |contract| Base {
        app: Arc::clone(&app),
        contract,
        request_timeout: config.request_timeout,
    };
    let inference = Inference {
        base: base(OPEN_INFERENCE),
        max_stream_requests: config.max_stream_requests.max(1),
        drain: drain.clone(),
    };
    let tensorflow = TensorFlow { base: base(TENSORFLOW) };
    let limit = config.max_message_bytes;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(grpc::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tensorflow_grpc::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let others = Routes::new(HealthServer::new(HealthService { app: Arc::clone(&app), drain }))
        .add_service(reflection().build_v1().expect("descriptors from the build are valid"))
        .add_service(reflection().build_v1alpha().expect("descriptors from the build are valid"))
        .prepare();
    let pace = Pace { timeout: config.body_timeout, min_rate: config.min_body_rate };
    let has_request_timeout = config.request_timeout.is_some();
    GrpcService {
        inference: GrpcInferenceServiceServer::new(inference).accepting(limit),
        prediction: PredictionServiceServer::new(tensorflow.clone()).accepting(limit),
        models: ModelServiceServer::new(tensorflow).accepting(limit),
        others,
        app,
        pace,
        has_request_timeout,
    }
}

/// What tonic generates for every service alike, but under no trait.
trait Generated: Clone {
    /// Sets the most bytes of a message and how it may be compressed.
    fn accepting(self, max_message_bytes: usize) -> Self;

    /// Compresses answers as a request was.
    fn answering(&self, request: &HeaderMap) -> Self;
}

macro_rules! generated {
    ($($server:ty),*) => {
        $(impl Generated for $server {
            fn accepting(self, max_message_bytes: usize) -> Self {
                let server = self.max_decoding_message_size(max_message_bytes);
                let accept = |server: Self, (_, encoding)| server.accept_compressed(encoding);
                COMPRESSIONS.into_iter().fold(server, accept)
            }

            fn answering(&self, request: &HeaderMap) -> Self {
                match compression(request) {
                    Some(encoding) => self.clone().send_compressed(encoding),
                    None => self.clone(),
                }
            }
        })*
    };
}

generated!(
    GrpcInferenceServiceServer<Inference>,
    PredictionServiceServer<TensorFlow>,
    ModelServiceServer<TensorFlow>
);

impl<B> hyper::service::Service<Request<B>> for GrpcService
where
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Call;

    fn call(&self, mut request: Request<B>) -> Call {
        let path = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
        let contract = match path {
            Some((inference::SERVICE_NAME, _)) => OPEN_INFERENCE,
            Some((prediction::SERVICE_NAME | models::SERVICE_NAME, _)) => TENSORFLOW,
            _ => {
                let mut others = self.others.clone();
                return Call { answer: Box::pin(others.call(request)), unfinished: None };
            }
        };
        let (is_stream, is_models) = match path {
            Some((service, method)) => {
                (method == "ModelStreamInfer", service == models::SERVICE_NAME)
            }
            None => (false, false),
        };
        let started = Instant::now();
        if self.has_request_timeout || request.headers().contains_key(GRPC_TIMEOUT) {
            request.extensions_mut().insert(Arrived(started));
        }
        let pace = self.pace;
        let timed = |body| TimedBody { body, pace, received: 0, timer: None };
        let answer = if contract == TENSORFLOW {
            if is_models {
                self.models.answering(request.headers()).call(request.map(timed))
            } else {
                self.prediction.answering(request.headers()).call(request.map(timed))
            }
        } else if is_stream {
            self.inference.answering(request.headers()).call(request)
        } else {
            self.inference.answering(request.headers()).call(request.map(timed))
        };
        let unfinished = Unfinished { started, contract, app: Arc::clone(&self.app) };
        Call { answer, unfinished: Some(unfinished) }
    }
}

/// Returns the algorithm that a request is compressed with; its answer is to be compressed alike.
fn compression(headers: &HeaderMap) -> Option<CompressionEncoding> {
    let name = headers.get("grpc-encoding")?.as_bytes();
    COMPRESSIONS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, encoding)| *encoding)
}

/// A call being answered.
pub struct Call {
    answer: Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>,
    /// Set until the answer is there.
    unfinished: Option<Unfinished>,
}

impl Future for Call {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.answer.as_mut().poll(context));
        if let (Some(unfinished), Ok(response)) = (self.unfinished.take(), &answer) {
            // A status among the headers is that of a failed call: those never reach the point where
            // calls that succeed are counted.
            if let Some(status) = response.headers().get(Status::GRPC_STATUS) {
                unfinished.record(Code::from_bytes(status.as_bytes()));
            }
        }
        Poll::Ready(answer)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(unfinished) = self.unfinished.take() {
            unfinished.record(Code::Cancelled);
        }
    }
}

/// A call that has no answer yet.
struct Unfinished {
    started: Instant,
    contract: &'static str,
    app: Arc<App>,
}

impl Unfinished {
    fn record(self, code: Code) {
        let total = self.started.elapsed();
        self.app.server_metrics().record_call(self.contract, code as u16, total, 0, 0);
    }
}

/// A message being received, which has to be whole in time.
struct TimedBody<B> {
    body: B,
    pace: Pace,
    received: u64,
    /// Started when the body first has to be waited for: most messages are there at once.
    timer: Option<Timer>,
}

struct Timer {
    started: tokio::time::Instant,
    sleep: Pin<Box<Sleep>>,
}

impl<B> http_body::Body for TimedBody<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError> + Send,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let (pace, received) = (self.pace, self.received);
        let timer = self.timer.get_or_insert_with(|| {
            let started = tokio::time::Instant::now();
            let sleep = tokio::time::sleep_until(pace.deadline(started, received));
            Timer { started, sleep: Box::pin(sleep) }
        });
        let deadline = pace.deadline(timer.started, received);
        if timer.sleep.deadline() != deadline {
            timer.sleep.as_mut().reset(deadline);
        }
        ready!(timer.sleep.as_mut().poll(context));
        let late = format!("the message came too slowly: {received} bytes were received in time");
        Poll::Ready(Some(Err(Status::deadline_exceeded(late).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
