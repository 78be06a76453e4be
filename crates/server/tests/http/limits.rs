//! What one client can hold of the server.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::client::{PREDICTION, post};
use crate::fixture::{PATIENCE, Server};
use outhaul_server::http::HttpConfig;

const ECHO: &str = "/v2/models/echo/infer";
/// A time limit that a test waits for, and that a busy machine does not reach by itself.
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let config = HttpConfig { max_body_bytes: 1_000, ..HttpConfig::default() };
    let server = Server::with(config).await;
    let mut client = server.connect().await;
    // The rest never comes.
    client.send(format!("POST {ECHO} HTTP/1.1\r\ncontent-length: 1001\r\n\r\n")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.error(), "the body is longer than the limit of 1000 bytes");
    assert_eq!(answer.header("connection"), Some("close"));

    let mut client = server.connect().await;
    let head = format!("POST {ECHO} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("200\r\n{}\r\n", " ".repeat(0x200));
    client.send(format!("{head}{chunk}{chunk}")).await;
    assert_eq!(client.answer().await.status, 413);
}

#[tokio::test]
async fn a_client_that_sends_on_still_reads_why_it_is_refused() {
    let server =
        Server::with(HttpConfig { max_body_bytes: 1 << 20, ..HttpConfig::default() }).await;
    let mut client = server.connect().await;
    // More than the buffers of both sockets hold.
    let length = 16 << 20;
    client.send(format!("POST {ECHO} HTTP/1.1\r\ncontent-length: {length}\r\n\r\n")).await;
    let piece = vec![b' '; 1 << 20];
    for _ in 0..16 {
        if client.stream.write_all(&piece).await.is_err() {
            panic!("the connection was reset before the answer could be read");
        }
    }
    assert_eq!(client.answer().await.status, 413);
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused() {
    let config = HttpConfig { max_head_bytes: 8 << 10, ..HttpConfig::default() };
    let server = Server::with(config).await;
    let mut client = server.connect().await;
    let long = "x".repeat(10 << 10);
    client.send(format!("GET / HTTP/1.1\r\na: {long}")).await;
    let said = client.closed().await;
    assert!(said.starts_with(b"HTTP/1.1 431"), "{}", said.escape_ascii());
}

#[tokio::test]
async fn a_head_that_trickles_is_given_up() {
    let config = HttpConfig { head_timeout: SHORT, ..HttpConfig::default() };
    let server = Server::with(config).await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/", "").await.status, 200);
    client.send("GET / HT").await;
    let said = client.closed().await;
    assert!(said.is_empty(), "{}", said.escape_ascii());
    server.connections(0).await;
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up() {
    let config = HttpConfig { body_timeout: SHORT, ..HttpConfig::default() };
    let server = Server::with(config).await;
    let mut client = server.connect().await;
    let request = post(ECHO, "", PREDICTION);
    client.send(&request[..request.len() - 10]).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 408);
    let (received, declared) = (PREDICTION.len() - 10, PREDICTION.len());
    let expected =
        format!("the body came too slowly: {received} of {declared} bytes were received in time");
    assert_eq!(answer.error(), expected);
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let config = HttpConfig { idle_timeout: SHORT, ..HttpConfig::default() };
    let server = Server::with(config).await;
    let mut silent = server.connect().await;
    let mut used = server.connect().await;
    assert_eq!(used.predict("echo").await.status, 200);
    assert!(silent.closed().await.is_empty());
    assert!(used.closed().await.is_empty());
    server.connections(0).await;
}

#[tokio::test]
async fn a_request_in_flight_outlasts_the_limit_of_idle_connections() {
    let config = HttpConfig { idle_timeout: SHORT, head_timeout: SHORT, ..HttpConfig::default() };
    let server = Server::with(config).await;
    let mut client = server.connect().await;
    client.send(post("/v2/models/gated/infer", "", PREDICTION)).await;
    let mut idle = server.connect().await;
    // Once the idle one is closed, the limit has passed for both.
    idle.closed().await;
    server.gate.open();
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let config = HttpConfig { max_connections: 1, ..HttpConfig::default() };
    let server = Server::with(config).await;
    let mut first = server.connect().await;
    assert_eq!(first.predict("echo").await.status, 200);
    let mut second = server.connect().await;
    second.send(post(ECHO, "", PREDICTION)).await;
    // The first connection is served on, the second is not even accepted.
    for _ in 0..100 {
        assert_eq!(first.predict("echo").await.status, 200);
    }
    let accepted = server.app.monitor().render();
    assert!(accepted.contains("\nouthaul_connections_total 1\n"), "{accepted}");
    drop(first);
    assert_eq!(second.answer().await.status, 200);
}

#[tokio::test]
async fn a_full_queue_asks_to_come_back() {
    let server = Server::start().await;
    let gated = post("/v2/models/gated/infer", "", PREDICTION);
    let mut running = server.connect().await;
    running.send(&gated).await;
    server.gate.wait_for_runs(1).await;
    let (mut second, mut third) = (server.connect().await, server.connect().await);
    second.send(&gated).await;
    third.send(&gated).await;
    // One of the two found a place; the other is told at once, while the model is still held.
    let refused = tokio::select! {
        answer = second.answer() => answer,
        answer = third.answer() => answer,
    };
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    server.gate.open();
    assert_eq!(running.answer().await.status, 200);
}

#[tokio::test]
async fn a_deadline_that_passes_is_told() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let timeout = "x-request-timeout-ms: 20\r\n";
    let answer = client.post("/v2/models/gated/infer", timeout, PREDICTION).await;
    assert_eq!(answer.status, 504);
    let asked = PREDICTION.replace("{\"inputs\"", "{\"parameters\":{\"timeout\":20000},\"inputs\"");
    let answer = client.post("/v2/models/gated/infer", "", asked).await;
    assert_eq!(answer.status, 504);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_does_not_hold_its_connection() {
    let config = HttpConfig { idle_timeout: SHORT, ..HttpConfig::default() };
    let server = Server::with(config).await;
    let mut client = server.connect().await;
    // More answers than the buffers of both sockets hold, and none is read.
    let many = post("/v2/models/wide/infer", "", PREDICTION).repeat(50);
    let sending = async {
        loop {
            if client.stream.write_all(&many).await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, sending).await.expect("the server gives the connection up");
    server.connections(0).await;
}
