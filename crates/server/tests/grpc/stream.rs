//! `ModelStreamInfer`: order, errors within a stream, and its end.

use std::time::Duration;

use outhaul_protocol::grpc::pb::infer_parameter::ParameterChoice;
use outhaul_protocol::grpc::pb::{ModelInferRequest, ModelStreamInferResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::fixture::{PATIENCE, Server, eventually, numbers, request, wait_for_queue};

type Answers = Streaming<ModelStreamInferResponse>;

async fn open(server: &Server) -> (mpsc::Sender<ModelInferRequest>, Answers) {
    let (send, receive) = mpsc::channel(256);
    let mut client = server.client().await;
    let answers = client.model_stream_infer(ReceiverStream::new(receive)).await.unwrap();
    (send, answers.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_keep_the_order_of_the_requests() {
    let server = Server::start().await;
    let (send, mut answers) = open(&server).await;
    // The first answer is the last to be ready.
    send.send(request("gated", [0.0, -1.0])).await.unwrap();
    for index in 1..100_i16 {
        let asked =
            ModelInferRequest { id: index.to_string(), ..request("double", [f32::from(index); 2]) };
        send.send(asked).await.unwrap();
    }
    server.gate.wait_for_runs(1).await;
    // Others are answered meanwhile, as many as may be in flight.
    eventually(|| server.counted("ok") >= 31).await;
    server.gate.open();
    drop(send);
    let first = answers.message().await.unwrap().unwrap().infer_response.unwrap();
    assert_eq!(numbers(&first), [0.0, -2.0]);
    for index in 1..100_i16 {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.error_message, "");
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, index.to_string());
        assert_eq!(numbers(&response), [f32::from(index) * 2.0; 2]);
        let last = response.parameters["triton_final_response"].parameter_choice.clone();
        assert_eq!(last, Some(ParameterChoice::BoolParam(true)));
    }
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_failure_is_an_answer_and_not_the_end() {
    let server = Server::start().await;
    let (send, mut answers) = open(&server).await;
    let unknown = ModelInferRequest { id: "a".into(), ..request("nobody", [1.0; 2]) };
    send.send(unknown).await.unwrap();
    send.send(request("double", [1.0; 2])).await.unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.error_message, "Request for unknown model: 'nobody' is not found");
    let named = answer.infer_response.unwrap();
    assert_eq!((named.id.as_str(), named.model_name.as_str()), ("a", "nobody"));
    assert!(named.outputs.is_empty());
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(numbers(&answer.infer_response.unwrap()), [2.0; 2]);
    assert_eq!((server.counted("ok"), server.counted("caller_error")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_its_stream_is_not_worked_for() {
    let server = Server::start().await;
    let (send, answers) = open(&server).await;
    send.send(request("gated", [1.0; 2])).await.unwrap();
    server.gate.wait_for_runs(1).await;
    send.send(request("gated", [2.0; 2])).await.unwrap();
    wait_for_queue(&server.app, 1).await;
    drop((send, answers));
    // The place in the queue is free again once the server has seen the client go.
    let mut client = server.client().await;
    let free = async {
        loop {
            let mut probe = tonic::Request::new(request("gated", [3.0; 2]));
            // A refusal comes at once; who finds a place waits in vain.
            probe.set_timeout(Duration::from_millis(300));
            let status = client.model_infer(probe).await.unwrap_err();
            if status.code() != Code::ResourceExhausted {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("the place was never given back");
    server.gate.open();
    wait_for_queue(&server.app, 0).await;
    client.model_infer(request("gated", [4.0; 2])).await.unwrap();
    assert!(!server.gate.ran(2.0), "the abandoned request was run all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_a_stream_after_what_it_holds() {
    let mut server = Server::start().await;
    let (send, mut answers) = open(&server).await;
    send.send(request("gated", [1.0; 2])).await.unwrap();
    server.gate.wait_for_runs(1).await;
    server.shut_down();
    eventually(|| server.app.is_draining()).await;
    server.gate.open();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(numbers(&answer.infer_response.unwrap()), [2.0; 2]);
    let status = answers.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the server is shutting down")
    );
    drop(send);
    assert_eq!(server.ended().await, Ok(()));
}
