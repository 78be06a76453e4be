//! Predictions that go well.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outhaul_server::http::{HttpConfig, router};
use serde_json::json;
use tokio::net::TcpStream;
use tower::ServiceExt;

use crate::client::{PREDICTION, post};
use crate::fixture::{Gate, Server, app};

const ECHO: &str = "/v2/models/echo/infer";

#[tokio::test]
async fn a_prediction_is_answered_by_every_path() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for path in [
        ECHO,
        "/v2/models/echo/versions/1/infer",
        "/v2/models/echo/versions/0/infer",
        "/v2/models/%65cho/infer",
        "/v2/models/echo/infer?unknown=query",
    ] {
        let answer = client.post(path, "", PREDICTION).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let json = answer.json();
        assert_eq!((&json["model_name"], &json["model_version"]), (&json!("echo"), &json!("1")));
        let output = &json["outputs"][0];
        assert_eq!((&output["name"], &output["shape"]), (&json!("Y"), &json!([1, 4])));
        assert_eq!(output["data"], json!([1.0, 2.0, 3.0, 4.0]));
    }
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let ids: Vec<_> = (0..20).map(|number| format!("r{number}")).collect();
    let requests = ids.iter().map(|id| {
        let body = PREDICTION.replacen('{', &format!("{{\"id\":\"{id}\","), 1);
        post(ECHO, "", body)
    });
    client.send(requests.collect::<Vec<_>>().concat()).await;
    for id in ids {
        assert_eq!(client.answer().await.json()["id"], id);
    }
}

#[tokio::test]
async fn binary_data_goes_both_ways() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let body = json!({
        "inputs": [{
            "name": "X", "shape": [1, 4], "datatype": "FP32",
            "parameters": {"binary_data_size": 16},
        }],
        "outputs": [{"name": "Y", "parameters": {"binary_data": true}}],
    })
    .to_string();
    let data: Vec<u8> =
        [1.5_f32, -0.0, f32::MIN, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let header = format!("Inference-Header-Content-Length: {}\r\n", body.len());
    let answer = client.post(ECHO, &header, [body.as_bytes(), &data].concat()).await;
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let length: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let (json, binary) = answer.body.split_at(length);
    assert_eq!(binary, data);
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 16);
}

#[tokio::test]
async fn a_request_has_an_id() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let chosen = client.post(ECHO, "X-Request-Id: a-1.b_2\r\n", PREDICTION).await;
    assert_eq!(chosen.header("x-request-id"), Some("a-1.b_2"));
    let long = "x".repeat(129);
    let mut made = std::collections::BTreeSet::new();
    for bad in ["", "two words", "a\"b", long.as_str()] {
        let header = format!("x-request-id: {bad}\r\n");
        for answer in
            [client.post(ECHO, &header, PREDICTION).await, client.get("/v2", &header).await]
        {
            let id = answer.header("x-request-id").unwrap().to_owned();
            assert_ne!(id, bad);
            assert!(made.insert(id), "ids differ");
        }
    }
}

#[tokio::test]
async fn a_call_is_counted() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let answer = client.predict("echo").await;
    assert_eq!(client.predict("nobody").await.status, 404);
    let text = server.app.monitor().render();
    let (sent, received) = (2 * PREDICTION.len(), answer.body.len());
    for line in [
        "outhaul_call_duration_seconds_count{contract=\"oip_rest\",outcome=\"ok\"} 1".to_owned(),
        "outhaul_call_duration_seconds_count{contract=\"oip_rest\",outcome=\"caller_error\"} 1"
            .to_owned(),
        format!("outhaul_call_request_bytes_sum{{contract=\"oip_rest\"}} {sent}"),
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is missing from\n{text}");
    }
    assert!(!text.contains("nobody"), "no series for what is not there");
    assert!(received > 0);
}

#[tokio::test]
async fn http_2_without_tls_is_spoken_on_the_same_port() {
    let server = Server::start().await;
    let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = |path: &str| {
        http::Request::post(format!("http://x{path}"))
            .body(Full::new(Bytes::from(PREDICTION)))
            .unwrap()
    };
    let answers = [client.send_request(request(ECHO)), client.send_request(request("/v2/nothing"))];
    let [found, missing] = futures_util::future::join_all(answers).await.try_into().unwrap();
    let found = found.unwrap();
    assert_eq!(found.status(), 200);
    let body = found.into_body().collect().await.unwrap().to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["outputs"][0]["data"], json!([1.0, 2.0, 3.0, 4.0]));
    assert_eq!(missing.unwrap().status(), 404);
}

#[tokio::test]
async fn the_router_answers_without_a_socket() {
    let gate = Arc::new(Gate::default());
    let routes = router(app(&gate), HttpConfig::default());
    let request = http::Request::post(ECHO).body(axum::body::Body::from(PREDICTION)).unwrap();
    let answer = routes.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
}
