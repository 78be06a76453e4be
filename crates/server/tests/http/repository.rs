//! The repository extension: loading and unloading by request, and what stands in the index then.

use std::time::Duration;

use outhaul_server::http::HttpConfig;
use serde_json::{Value, json};

use crate::client::{Client, PREDICTION, post};
use crate::fixture::{Server, eventually};
use crate::shelf;

const LOAD_SLOW: &str = "/v2/repository/models/slow/load";

/// Returns the index's line of a version.
async fn indexed(client: &mut Client, name: &str, version: &str) -> Value {
    let index = client.post("/v2/repository/index", "", "{}").await.json();
    let lines = index.as_array().unwrap().iter();
    let mut found = lines.filter(|line| line["name"] == name && line["version"] == version);
    found.next().unwrap_or_else(|| panic!("{name} {version}: {index}")).clone()
}

async fn server() -> Server {
    Server::over(shelf::app, HttpConfig::default()).await
}

#[tokio::test]
async fn a_model_is_loaded_and_unloaded() {
    let server = server().await;
    let mut client = server.connect().await;
    let unloaded = client.predict("echo").await;
    assert!((400..=503).contains(&unloaded.status), "{unloaded:?}");

    let loaded = client.post("/v2/repository/models/echo/load", "", "").await;
    assert_eq!((loaded.status, &*loaded.body), (200, &b""[..]));
    assert_eq!(client.predict("echo").await.status, 200);
    let line = indexed(&mut client, "echo", "2").await;
    let expected = json!({
        "name": "echo", "version": "2", "state": "READY", "reason": "", "standing": "ready",
        "labels": [], "engine": "scripted", "memory_bytes": shelf::MEMORY, "last_error": null,
        "source": "shelf",
    });
    assert_eq!(line, expected);

    let body = r#"{"parameters": {"unload_dependents": true}}"#;
    let unloaded = client.post("/v2/repository/models/echo/unload", "", body).await;
    assert_eq!((unloaded.status, &*unloaded.body), (200, &b""[..]));
    assert_ne!(client.predict("echo").await.status, 200);
    assert_ne!(client.get("/v2/models/echo/ready", "").await.status, 200);
    let line = indexed(&mut client, "echo", "2").await;
    assert_eq!((&line["state"], &line["reason"]), (&json!("UNAVAILABLE"), &json!("unloaded")));
}

#[tokio::test]
async fn a_label_leads_to_its_version() {
    let server = server().await;
    let mut client = server.connect().await;
    assert_eq!(client.post("/v2/repository/models/echo/load", "", "{}").await.status, 200);
    for (version, expected) in [("stable", "1"), ("1", "1"), ("2", "2"), ("0", "2")] {
        let path = format!("/v2/models/echo/versions/{version}/infer");
        let answer = client.post(&path, "", PREDICTION).await;
        assert_eq!(answer.status, 200, "{version}: {answer:?}");
        assert_eq!(answer.json()["model_version"], expected, "{version}");
    }
    let metadata = client.get("/v2/models/echo/versions/stable", "").await.json();
    assert_eq!(metadata["versions"], json!(["1"]));
    for path in ["ready", "config", "stats"] {
        let path = format!("/v2/models/echo/versions/stable/{path}");
        assert_eq!(client.get(&path, "").await.status, 200, "{path}");
    }
    assert_eq!(indexed(&mut client, "echo", "1").await["labels"], json!(["stable"]));
    let unknown = client.post("/v2/models/echo/versions/canary/infer", "", PREDICTION).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.error().contains("'canary'"), "{}", unknown.error());
    let wrong = client.post("/v2/models/echo/versions/1st/infer", "", PREDICTION).await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn one_version_may_be_named() {
    let server = server().await;
    let mut client = server.connect().await;
    for version in [json!(2), json!("2")] {
        let body = json!({ "parameters": { "version": version } }).to_string();
        let loaded = client.post("/v2/repository/models/echo/load", "", body).await;
        assert_eq!(loaded.status, 200, "{loaded:?}");
        assert_eq!(client.predict("echo").await.json()["model_version"], "2");
    }
    let body = r#"{"parameters": {"version": 9}}"#;
    let unknown = client.post("/v2/repository/models/echo/load", "", body).await;
    assert_eq!(unknown.status, 404, "{unknown:?}");
    assert!(unknown.error().contains("version 9"), "{}", unknown.error());
}

#[tokio::test]
async fn what_cannot_be_done_is_told() {
    let server = server().await;
    let mut client = server.connect().await;
    let load = |model: &str| format!("/v2/repository/models/{model}/load");
    let unload = |model: &str| format!("/v2/repository/models/{model}/unload");
    struct Case<'a>(String, &'a str, u16, &'a str);
    let cases = [
        Case(load("nobody"), "", 404, "'nobody' is not found"),
        Case(load("..%2Fecho"), "", 404, "is not found"),
        Case(unload("nobody"), "", 404, "'nobody' is not found"),
        Case(load("damaged"), "", 409, "its file is <damaged>"),
        Case(load("echo"), r#"{"parameters": {"config": "{}"}}"#, 400, "'config' of a load"),
        Case(
            load("echo"),
            r#"{"parameters": {"file:1/model.onnx": "AAAA"}}"#,
            400,
            "'file:1/model.onnx' of a load request is not supported",
        ),
        Case(load("echo"), r#"{"parameters": {"colour": 1}}"#, 400, "'colour' of a load"),
        Case(load("echo"), "[]", 400, "must be an object"),
        Case(unload("echo"), r#"{"parameters": {"version": 1}}"#, 400, "'version' of an unload"),
    ];
    for Case(path, body, status, text) in cases {
        let answer = client.post(&path, "", body).await;
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert!(answer.error().contains(text), "{path} {body}: {}", answer.error());
    }
    assert_eq!(client.get(&load("echo"), "").await.status, 405);
    let line = indexed(&mut client, "damaged", "3").await;
    assert_eq!((&line["state"], &line["standing"]), (&json!("UNAVAILABLE"), &json!("failed")));
    assert_eq!(line["last_error"], "its file is <damaged>");
}

#[tokio::test]
async fn a_load_outlives_the_request_timeout_and_who_asked_for_it() {
    let request_timeout = Some(Duration::from_millis(30));
    let config = HttpConfig { request_timeout, ..HttpConfig::default() };
    let server = Server::over(shelf::app, config).await;
    let mut watching = server.connect().await;
    let mut leaving = server.connect().await;
    leaving.send(post(LOAD_SLOW, "x-request-timeout-ms: 10\r\n", "")).await;
    let is_loading = async |client: &mut Client| {
        let index = client.post("/v2/repository/index", "", "").await.json();
        let mut lines = index.as_array().unwrap().iter();
        lines.any(|line| line["name"] == "slow" && line["state"] == "LOADING")
    };
    while !is_loading(&mut watching).await {}
    drop(leaving);
    server.connections(1).await;
    assert!(is_loading(&mut watching).await, "it goes on");

    let mut waiting = server.connect().await;
    waiting.send(post(LOAD_SLOW, "", "")).await;
    let beyond_the_timeout = Duration::from_millis(90);
    let early = tokio::time::timeout(beyond_the_timeout, waiting.answer()).await;
    assert!(early.is_err(), "{early:?}");
    server.gate.open();
    assert_eq!(waiting.answer().await.status, 200);
    eventually(|| server.app.router().readiness("slow", &Default::default()).is_ok()).await;
}

#[tokio::test]
async fn a_server_without_a_repository_says_so() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let load = client.post("/v2/repository/models/echo/load", "", "").await;
    assert_eq!(load.status, 400);
    assert!(load.error().contains("cannot be loaded or unloaded"), "{}", load.error());
}
