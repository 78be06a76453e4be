//! `ModelInfer`: answers, errors, deadlines, hang-ups, compression.

use std::time::Duration;

use outhaul_protocol::grpc::pb::infer_parameter::ParameterChoice;
use outhaul_protocol::grpc::pb::model_infer_request::InferRequestedOutputTensor;
use outhaul_protocol::grpc::pb::{InferParameter, InferTensorContents, ModelInferRequest};
use outhaul_server::grpc::GrpcConfig;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

use crate::fixture::{Server, eventually, numbers, request, wait_for_queue};

#[tokio::test]
async fn an_answer_holds_the_outputs_and_where_the_time_went() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let asked = ModelInferRequest { id: "7".into(), ..request("double", [1.0, -2.5]) };
    let response = client.model_infer(asked).await.unwrap();
    assert!(response.metadata().get("x-request-id").is_none(), "nobody asked for it");
    let response = response.into_inner();
    assert_eq!(numbers(&response), [2.0, -5.0]);
    assert_eq!((response.model_name.as_str(), response.model_version.as_str()), ("double", "1"));
    assert_eq!(response.id, "7");
    assert_eq!(response.outputs[0].name, "Y");
    assert_eq!(response.outputs[0].shape, [1, 2]);
    for name in ["queue_us", "assemble_us", "compute_us", "split_us", "batch_rows"] {
        let value = response.parameters[name].parameter_choice.clone();
        assert!(matches!(value, Some(ParameterChoice::Int64Param(0..))), "{name}: {value:?}");
    }
    assert_eq!(server.counted("ok"), 1);
}

#[tokio::test]
async fn contents_may_be_typed() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut typed = request("double", [0.0; 2]);
    typed.raw_input_contents.clear();
    typed.inputs[0].contents =
        Some(InferTensorContents { fp32_contents: vec![3.0, 4.0], ..Default::default() });
    let response = client.model_infer(typed).await.unwrap().into_inner();
    assert_eq!(numbers(&response), [6.0, 8.0]);

    let mut words = request("words", [0.0; 2]);
    words.inputs[0].datatype = "BYTES".into();
    words.raw_input_contents = vec![b"\x02\0\0\0hi\0\0\0\0".to_vec().into()];
    let sent = words.raw_input_contents[0].clone();
    let response = client.model_infer(words).await.unwrap().into_inner();
    assert_eq!(response.raw_output_contents[0], sent);
}

#[tokio::test]
async fn classes_come_as_text() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let count = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(1)) };
    let asked = ModelInferRequest {
        outputs: vec![InferRequestedOutputTensor {
            name: "Y".into(),
            parameters: [("classification".to_owned(), count)].into(),
        }],
        ..request("double", [1.0, 3.0])
    };
    let response = client.model_infer(asked).await.unwrap().into_inner();
    assert_eq!(response.outputs[0].datatype, "BYTES");
    assert_eq!(response.outputs[0].shape, [1, 1]);
    let text = std::str::from_utf8(&response.raw_output_contents[0][4..]).unwrap();
    assert!(text.starts_with('6') && text.ends_with(":1"), "{text}");
}

#[tokio::test]
async fn every_failure_has_its_code_and_says_why() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let wrong_shape = {
        let mut wrong = request("double", [0.0; 2]);
        wrong.inputs[0].shape = vec![2, 2];
        wrong
    };
    let wrong_input = {
        let mut wrong = request("double", [0.0; 2]);
        wrong.inputs[0].name = "Z".into();
        wrong
    };
    let version = |version: &str| ModelInferRequest {
        model_version: version.into(),
        ..request("double", [0.0; 2])
    };
    let timeout = |value| ModelInferRequest {
        parameters: [(
            "timeout".to_owned(),
            InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(value)) },
        )]
        .into(),
        ..request("double", [0.0; 2])
    };
    let cases = [
        (
            request("nobody", [0.0; 2]),
            Code::NotFound,
            "Request for unknown model: 'nobody' is not found",
        ),
        (
            version("9"),
            Code::NotFound,
            "Request for unknown model: 'double' version 9 is not found",
        ),
        (
            version("1st"),
            Code::InvalidArgument,
            "'model_version' must be a whole number, a label, or empty for the latest, got 1st",
        ),
        (
            request("damaged", [0.0; 2]),
            Code::Unavailable,
            "model 'damaged' is not ready: failed to load: its file is <damaged>",
        ),
        (
            wrong_shape,
            Code::InvalidArgument,
            "input 'X' has shape [2,2] of FP32 which needs 16 bytes, got 8",
        ),
        (wrong_input, Code::InvalidArgument, "unknown input 'Z'; the model takes 'X'"),
        (
            timeout(-1),
            Code::InvalidArgument,
            "parameter 'timeout' must be a whole number of microseconds, at least 0",
        ),
        (
            request("failing", [0.0; 2]),
            Code::Internal,
            "engine 'scripted' failed to run the model: it broke",
        ),
        (
            request("crashing", [0.0; 2]),
            Code::Internal,
            "the engine crashed while running the model",
        ),
    ];
    let total = cases.len();
    for (message, code, text) in cases {
        let status = client.model_infer(message).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, text));
        assert!(status.metadata().get("x-request-id").is_some(), "{text}");
    }
    assert_eq!(server.counted("caller_error") + server.counted("server_error"), total);
    let after = client.model_infer(request("double", [1.0, 1.0])).await.unwrap();
    assert_eq!(numbers(after.get_ref()), [2.0, 2.0], "the server goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_own_limit_counts_where_the_caller_has_none() {
    let request_timeout = Some(Duration::from_millis(20));
    let server = Server::with(GrpcConfig { request_timeout, ..GrpcConfig::default() }).await;
    let mut client = server.client().await;
    let status = client.model_infer(request("gated", [1.0; 2])).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let mut generous = Request::new(request("gated", [1.0; 2]));
    generous.set_timeout(Duration::from_secs(60));
    let status = client.model_infer(generous).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn an_id_that_the_caller_gave_comes_back() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for model in ["double", "nobody"] {
        let mut asked = Request::new(request(model, [0.0; 2]));
        asked.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
        let metadata = match client.model_infer(asked).await {
            Ok(response) => response.metadata().clone(),
            Err(status) => status.metadata().clone(),
        };
        assert_eq!(metadata.get("x-request-id").unwrap(), "mine", "{model}");
    }
}

#[tokio::test]
async fn an_answer_is_compressed_where_its_request_was() {
    let server = Server::start().await;
    let encodings = [
        (CompressionEncoding::Gzip, "gzip"),
        (CompressionEncoding::Deflate, "deflate"),
        (CompressionEncoding::Zstd, "zstd"),
    ];
    for (encoding, name) in encodings {
        let accepting = encodings
            .iter()
            .fold(server.client().await, |client, (known, _)| client.accept_compressed(*known));
        let mut plain = accepting.clone();
        let response = plain.model_infer(request("double", [1.0, 2.0])).await.unwrap();
        assert!(response.metadata().get("grpc-encoding").is_none(), "{name}");
        let mut compressing = accepting.send_compressed(encoding);
        let response = compressing.model_infer(request("double", [1.0, 2.0])).await.unwrap();
        assert_eq!(response.metadata().get("grpc-encoding").unwrap(), name);
        assert_eq!(numbers(response.get_ref()), [2.0, 4.0], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_gives_its_place_back() {
    let server = Server::start().await;
    let mut first = server.client().await;
    let held = tokio::spawn(async move { first.model_infer(request("gated", [1.0; 2])).await });
    server.gate.wait_for_runs(1).await;
    let mut client = server.client().await;
    let mut waiting = client.clone();
    let waits = tokio::spawn(async move { waiting.model_infer(request("gated", [2.0; 2])).await });
    // The queue has one place: once it is taken, a further request is refused.
    wait_for_queue(&server.app, 1).await;
    let status = client.model_infer(request("gated", [3.0; 2])).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "the queue is full: 1 requests are waiting");
    assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    assert!(!status.details().is_empty(), "google.rpc.RetryInfo");

    let cancelled_before = server.counted("caller_error");
    waits.abort();
    eventually(|| server.counted("caller_error") > cancelled_before).await;
    server.gate.open();
    held.await.unwrap().unwrap();
    // The instance clears the place away once it has run what it held.
    wait_for_queue(&server.app, 0).await;
    let again = client.model_infer(request("gated", [4.0; 2])).await.unwrap();
    assert_eq!(numbers(again.get_ref()), [8.0; 2]);
    assert_eq!(server.gate.runs(), 2, "the abandoned request was run all the same");
}
