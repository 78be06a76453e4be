//! Leaving: of clients, and of the server.

use std::time::Duration;

use outhaul_server::http::HttpConfig;
use outhaul_types::error_chain;
use tokio::net::TcpStream;

use crate::client::{PREDICTION, post};
use crate::fixture::{Server, wait_for_queue};

const GATED: &str = "/v2/models/gated/infer";

#[tokio::test]
async fn a_client_that_hangs_up_gives_its_request_up() {
    let server = Server::start().await;
    let gated = post(GATED, "", PREDICTION);
    let mut running = server.connect().await;
    running.send(&gated).await;
    server.gate.wait_for_runs(1).await;
    let mut waiting = server.connect().await;
    waiting.send(&gated).await;
    wait_for_queue(&server.app, 1).await;
    drop(waiting);
    server.connections(1).await;
    let gone =
        "outhaul_call_duration_seconds_count{contract=\"oip_rest\",outcome=\"caller_error\"} 1";
    assert!(server.app.monitor().render().lines().any(|line| line == gone), "it is counted");
    server.gate.open();
    assert_eq!(running.answer().await.status, 200);
    // The instance clears the place away once it has run what it held.
    wait_for_queue(&server.app, 0).await;
    // A third request runs after the second would have.
    let mut third = server.connect().await;
    assert_eq!(third.predict("gated").await.status, 200);
    assert_eq!(server.gate.runs(), 2, "the request that was given up never ran");
}

#[tokio::test]
async fn a_server_that_leaves_finishes_what_is_in_flight() {
    let mut server = Server::start().await;
    let mut idle = server.connect().await;
    let mut busy = server.connect().await;
    assert_eq!(idle.predict("echo").await.status, 200);
    busy.send(post(GATED, "", PREDICTION)).await;
    server.gate.wait_for_runs(1).await;
    assert!(server.app.is_ready());

    server.shut_down();
    assert!(idle.closed().await.is_empty(), "what has nothing to do is closed at once");
    assert!(!server.app.is_ready());
    let refused = TcpStream::connect(server.address).await;
    assert!(refused.is_err(), "nobody is let in");
    server.gate.open();
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(busy.closed().await.is_empty());
    server.ended().await.unwrap();
}

#[tokio::test]
async fn half_a_head_does_not_hold_the_end_up() {
    let mut server = Server::start().await;
    let mut half = server.connect().await;
    let mut other = server.connect().await;
    assert_eq!(half.predict("echo").await.status, 200);
    half.send("GET / HT").await;
    // Meanwhile the server reads what was sent.
    assert_eq!(other.predict("echo").await.status, 200);
    server.shut_down();
    let well_before_the_heads_own_limit = HttpConfig::default().head_timeout / 2;
    let ended = tokio::time::timeout(well_before_the_heads_own_limit, server.ended()).await;
    ended.expect("half a head held the end up").unwrap();
    assert!(half.closed().await.is_empty());
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_closed() {
    let drain_timeout = Duration::from_millis(40);
    let mut server = Server::with(HttpConfig { drain_timeout, ..HttpConfig::default() }).await;
    let mut busy = server.connect().await;
    busy.send(post(GATED, "", PREDICTION)).await;
    server.gate.wait_for_runs(1).await;
    server.shut_down();
    assert!(busy.closed().await.is_empty());
    server.ended().await.unwrap();
}

#[tokio::test]
async fn a_server_that_leaves_is_not_ready() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    server.app.start_draining();
    let ready = client.get("/v2/health/ready", "").await;
    assert_eq!((ready.status, ready.json()["ready"].as_bool()), (503, Some(false)));
    assert_eq!(client.get("/v2/health/live", "").await.status, 200);
    assert_eq!(client.predict("echo").await.status, 200, "who comes all the same is answered");
}

#[tokio::test]
async fn limits_that_cannot_be_kept_are_refused() {
    let mut server = Server::with(HttpConfig { max_head_bytes: 1, ..HttpConfig::default() }).await;
    let error = server.ended().await.unwrap_err();
    assert!(error_chain(&error).ends_with("'max_head_bytes' must be at least 8192"), "{error}");
}
