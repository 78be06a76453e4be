//! Questions about the server and its models.

use serde_json::{Value, json};

use crate::client::PREDICTION;
use crate::fixture::Server;

#[tokio::test]
async fn the_server_tells_what_it_is() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for path in ["/v2", "/v2/"] {
        let json = client.get(path, "").await.json();
        assert_eq!(json["name"], "outhaul");
        assert!(json["extensions"].as_array().unwrap().contains(&json!("statistics")));
    }
    assert_eq!(client.get("/v2/health/live", "").await.json(), json!({"live": true}));
    let ready = client.get("/v2/health/ready", "").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true})));
    let root = client.get("/", "accept: */*\r\n").await;
    assert_eq!(root.json(), json!({"status": "alive"}));
}

#[tokio::test]
async fn a_model_tells_what_it_is() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for path in ["/v2/models/echo", "/v2/models/echo/versions/1", "/v2/models/echo/versions/0"] {
        let json = client.get(path, "").await.json();
        assert_eq!((&json["name"], &json["versions"]), (&json!("echo"), &json!(["1"])), "{path}");
        assert_eq!(json["platform"], "scripted_onnx");
        let expected = json!([{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]);
        assert_eq!(json["inputs"], expected);
        assert_eq!(json["properties"]["batching"], "off");
        assert_eq!(json["properties"]["batching_reason"], "it is a <script>");
    }
    let ready = client.get("/v2/models/echo/ready", "").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"name": "echo", "ready": true})));
    let damaged = client.get("/v2/models/damaged/versions/3/ready", "").await;
    let expected = json!({"name": "damaged", "ready": false});
    assert_eq!((damaged.status, damaged.json()), (503, expected));
    let config = client.get("/v2/models/echo/config", "").await.json();
    assert_eq!((&config["name"], &config["max_batch_size"]), (&json!("echo"), &json!(0)));
}

#[tokio::test]
async fn a_model_tells_what_it_did() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        assert_eq!(client.predict("echo").await.status, 200);
    }
    for path in ["/v2/models/echo/stats", "/v2/models/echo/versions/1/stats"] {
        let stats = client.get(path, "").await.json();
        let [echo] = &stats["model_stats"].as_array().unwrap()[..] else { panic!("{stats}") };
        assert_eq!(echo["inference_count"], 3);
        assert_eq!(echo["inference_stats"]["success"]["count"], 3);
    }
    let all = client.get("/v2/models/stats", "").await.json();
    assert_eq!(all["model_stats"].as_array().unwrap().len(), 4, "every model that is ready");
}

#[tokio::test]
async fn the_index_lists_every_version_with_its_state() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let index = "/v2/repository/index";
    let names = |json: Value| -> Vec<String> {
        let entries = json.as_array().unwrap().iter();
        entries.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    let all = client.post(index, "", "").await.json();
    let expected = json!({
        "name": "damaged", "version": "3", "state": "UNAVAILABLE",
        "reason": "its file is <damaged>", "standing": "failed", "labels": [], "engine": null,
        "memory_bytes": null, "last_error": null, "source": null,
    });
    assert_eq!(all[1], expected);
    assert_eq!((&all[2]["state"], &all[2]["engine"]), (&json!("READY"), &json!("scripted")));
    assert_eq!(names(all), ["crashing", "damaged", "echo", "gated", "wide"]);
    let ready = client.post(index, "", r#"{"ready": true}"#).await.json();
    assert_eq!(names(ready), ["crashing", "echo", "gated", "wide"]);
    let bad = client.post(index, "", "{").await;
    assert_eq!(bad.status, 400);
    assert!(bad.error().starts_with("malformed JSON"), "{}", bad.error());
}

#[tokio::test]
async fn a_browser_gets_a_page() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let page = client.get("/", "accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let page = String::from_utf8(page.body).unwrap();
    assert!(page.contains(r#"<a href="/try/echo/versions/1">echo</a>"#), "{page}");
    assert!(page.contains("its file is &lt;damaged&gt;"), "{page}");
    let policy = "default-src 'none'; ";
    let asked = client.get("/try/echo", "").await;
    assert!(asked.header("content-security-policy").unwrap().starts_with(policy));
    let asked = String::from_utf8(asked.body).unwrap();
    assert!(asked.contains("/v1/models/echo/versions/1:predict"), "{asked}");
    for path in ["/assets/style.css", "/assets/list.js", "/assets/try.js"] {
        assert!(page.contains(path) || asked.contains(path), "{path} is used");
        assert_eq!(client.get(path, "").await.status, 200, "{path}");
    }
    let missing = client.get("/try/nothing", "").await;
    assert_eq!(missing.status, 404);
    assert!(String::from_utf8(missing.body).unwrap().contains("nothing"));
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for path in ["/", "/v2/health/ready", "/v2/models/echo", "/metrics"] {
        let headers = "accept-encoding: gzip\r\n";
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).await;
        let answer = client.answer_with(false).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_ne!(answer.header("content-length"), Some("0"), "{path}");
    }
    assert_eq!(client.post("/v2/models/echo/infer", "", PREDICTION).await.status, 200);
}
