//! What no gRPC library sends: broken messages, frames that lie, slow bodies, unknown methods.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outhaul_protocol::grpc::pb::model_infer_request::InferInputTensor;
use outhaul_protocol::grpc::pb::{InferTensorContents, ModelInferRequest};
use outhaul_server::grpc::GrpcConfig;
use prost::Message;
use tokio::net::TcpStream;

use crate::fixture::{Server, numbers, request};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Sends bytes as the body of a call and returns the code and the text of its status.
async fn call(server: &Server, path: &str, body: BoxBody<Bytes, Infallible>) -> (String, String) {
    call_within(server, path, "10S", body).await
}

/// The same with a `grpc-timeout` that nothing in this client enforces.
async fn call_within(
    server: &Server,
    path: &str,
    timeout: &str,
    body: BoxBody<Bytes, Infallible>,
) -> (String, String) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let http = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = http.await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{}{path}", server.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(body)
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let (parts, body) = response.into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
    let text = |headers: &HeaderMap, name| {
        headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let find = |name| text(&parts.headers, name).or_else(|| text(&trailers, name));
    (find("grpc-status").unwrap(), find("grpc-message").unwrap_or_default().replace("%20", " "))
}

fn whole(bytes: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(bytes.into()).boxed()
}

fn frame(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

fn message_frame(message: &[u8]) -> Vec<u8> {
    frame(0, u32::try_from(message.len()).unwrap(), message)
}

#[tokio::test]
async fn frames_that_lie_get_a_status() {
    let config = GrpcConfig { max_message_bytes: 3 << 20, ..GrpcConfig::default() };
    let server = Server::with(config).await;
    let sound = request("double", [1.0; 2]).encode_to_vec();
    let not_utf8 = [0x0a, 2, 0xff, 0xfe];
    let many = [0x2a, 0].repeat(70_000);
    let strings = ModelInferRequest {
        inputs: vec![InferInputTensor {
            contents: Some(InferTensorContents {
                bytes_contents: vec![Bytes::new(); 1 << 20],
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let strings = strings.encode_to_vec();
    let cases = [
        (INFER, message_frame(&sound), "0", ""),
        (INFER, message_frame(&sound[..sound.len() - 3]), "3", "failed to decode"),
        (INFER, message_frame(&not_utf8), "3", "not UTF-8"),
        (INFER, message_frame(&many), "3", "message has more than 65536 fields"),
        (
            INFER,
            message_frame(&strings),
            "3",
            "message has more than 1048576 fields in its tensors",
        ),
        (INFER, frame(0, 1 << 22, &sound), "11", "too large"),
        (INFER, frame(0, u32::MAX, &sound), "11", "too large"),
        // gRPC asks for INTERNAL where its own frames are broken.
        (INFER, frame(1, 1, &[0]), "13", "compressed-flag"),
        (INFER, frame(9, 0, &[]), "13", "compression flag"),
        (INFER, vec![0, 0], "13", ""),
        (INFER, vec![], "13", ""),
        ("/inference.GRPCInferenceService/Nothing", vec![], "12", ""),
        ("/nothing.Service/Nothing", vec![], "12", ""),
        ("/", vec![], "12", ""),
    ];
    for (path, body, code, text) in cases {
        let shown = format!("{path} {:?}", &body[..body.len().min(16)]);
        let (status, message) = call(&server, path, whole(body)).await;
        assert_eq!(status, code, "{shown}: {message}");
        assert!(message.contains(text), "{shown}: {message}");
    }
}

#[tokio::test]
async fn a_small_compressed_message_may_not_grow_beyond_the_limit() {
    let config = GrpcConfig { max_message_bytes: 1 << 16, ..GrpcConfig::default() };
    let server = Server::with(config).await;
    let zeros = ModelInferRequest {
        raw_input_contents: vec![vec![0; 1 << 20].into()],
        ..request("double", [1.0; 2])
    };
    let mut client = server.client().await.send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let status = client.model_infer(zeros).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    client.model_infer(request("double", [1.0; 2])).await.unwrap();
}

#[tokio::test]
async fn a_message_that_never_ends_is_given_up() {
    let config = GrpcConfig { body_timeout: Duration::from_millis(200), ..GrpcConfig::default() };
    let server = Server::with(config).await;
    let start = message_frame(&request("double", [1.0; 2]).encode_to_vec());
    let start = http_body::Frame::data(Bytes::from(start[..20].to_vec()));
    let first = tokio_stream::once(Ok::<_, Infallible>(start));
    let endless = tokio_stream::StreamExt::chain(first, tokio_stream::pending());
    let body = BodyExt::boxed(StreamBody::new(SyncStream(Box::pin(endless))));
    let (status, message) = call(&server, INFER, body).await;
    assert_eq!(
        (status.as_str(), message.as_str()),
        ("4", "the message came too slowly: 20 bytes were received in time")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_the_wait_and_drops_the_work() {
    let server = Server::start().await;
    let mut first = server.client().await;
    let held = tokio::spawn(async move { first.model_infer(request("gated", [1.0; 2])).await });
    server.gate.wait_for_runs(1).await;
    let late = message_frame(&request("gated", [2.0; 2]).encode_to_vec());
    let (status, message) = call_within(&server, INFER, "20m", whole(late)).await;
    let expected = ("4", "the deadline passed before there was an answer");
    assert_eq!((status.as_str(), message.as_str()), expected);
    server.gate.open();
    assert_eq!(numbers(held.await.unwrap().unwrap().get_ref()), [2.0; 2]);
    assert_eq!(server.gate.runs(), 1, "the late request was run all the same");
}

#[tokio::test]
async fn a_deadline_that_cannot_be_read_is_refused() {
    let server = Server::start().await;
    let sound = message_frame(&request("double", [2.0; 2]).encode_to_vec());
    let (status, message) = call_within(&server, INFER, "soon", whole(sound)).await;
    assert_eq!(status, "3");
    assert!(message.contains("grpc-timeout"), "{message}");
}

/// A stream that may be shared, as [`BoxBody`] asks.
struct SyncStream<S>(std::pin::Pin<Box<S>>);

impl<S: tokio_stream::Stream> tokio_stream::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(context)
    }
}
