//! Connections and the end of a server.

use std::time::Duration;

use outhaul_server::grpc::GrpcConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{PATIENCE, Server, eventually, numbers, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_lets_calls_finish_and_accepts_no_more() {
    let mut server = Server::start().await;
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(request("gated", [1.0; 2])).await });
    server.gate.wait_for_runs(1).await;
    server.shut_down();
    eventually(|| server.app.is_draining()).await;
    assert!(!server.app.is_ready());
    let refused = async { while TcpStream::connect(server.address).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("the listener stayed open");
    server.gate.open();
    assert_eq!(numbers(call.await.unwrap().unwrap().get_ref()), [2.0; 2]);
    assert_eq!(server.ended().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlives_the_drain_is_ended_and_reported() {
    let config = GrpcConfig { drain: Duration::from_millis(20), ..GrpcConfig::default() };
    let mut server = Server::with(config).await;
    let mut client = server.client().await;
    let call = tokio::spawn(async move { client.model_infer(request("gated", [1.0; 2])).await });
    server.gate.wait_for_runs(1).await;
    server.shut_down();
    call.await.unwrap().unwrap_err();
    let error = server.ended().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "gRPC calls did not finish within 20ms of the shutdown; connections closed: 1"
    );
}

#[tokio::test]
async fn a_connection_that_does_not_begin_is_closed() {
    let config = GrpcConfig { head_timeout: Duration::from_millis(20), ..GrpcConfig::default() };
    let server = Server::with(config).await;
    for said in ["", "PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        slow.write_all(said.as_bytes()).await.unwrap();
        let read = tokio::time::timeout(PATIENCE, slow.read(&mut [0; 16])).await;
        // A reset is an end as well.
        assert_eq!(read.expect("it stayed open").unwrap_or(0), 0, "{said:?}");
    }
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_its_turn() {
    let config = GrpcConfig { max_connections: 1, ..GrpcConfig::default() };
    let server = Server::with(config).await;
    let mut first = server.client().await;
    first.model_infer(request("double", [1.0; 2])).await.unwrap();
    let address = server.address;
    let mut second = tokio::spawn(async move {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let channel = endpoint.unwrap().connect_lazy();
        let mut client = crate::fixture::Client::new(channel);
        client.model_infer(request("double", [2.0; 2])).await
    });
    let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
    assert!(early.is_err(), "it was let in beside the first");
    drop(first);
    let answer = tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap().unwrap();
    assert_eq!(numbers(answer.get_ref()), [4.0; 2]);
}
