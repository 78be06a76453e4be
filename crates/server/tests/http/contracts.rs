//! TensorFlow Serving's, Vertex AI's and Azure ML's paths. What their bodies mean is tested by the cases
//! of `testdata/conformance`.

use outhaul_server::http::{HttpConfig, VertexRoutes};
use serde_json::{Value, json};

use crate::fixture::Server;

const ROWS: &str = r#"{"instances":[[1,2,3,4],[5,6,7,8]]}"#;

/// Returns a server whose default model is `echo`.
async fn server(vertex: Option<(&str, &str)>) -> Server {
    let routes = |(predict, health): (&str, &str)| VertexRoutes {
        predict: predict.to_owned(),
        health: health.to_owned(),
    };
    Server::with(HttpConfig {
        default_model: Some("echo".into()),
        vertex: vertex.map(routes),
        ..HttpConfig::default()
    })
    .await
}

#[tokio::test]
async fn tensorflow_serving_answers_on_every_path_of_a_model() {
    let server = server(None).await;
    let mut client = server.connect().await;
    for path in [
        "/v1/models/echo:predict",
        "/v1/models/echo/versions/1:predict",
        "/v1/models/echo/versions/0:predict",
        "/v1/models/%65cho:predict",
        "/v1/models/echo%3Apredict",
    ] {
        let answer = client.post(path, "", ROWS).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("x-request-id").is_some());
        let expected = json!({ "predictions": [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]] });
        assert_eq!(answer.json(), expected, "{path}");
    }
    let counted =
        "outhaul_call_duration_seconds_count{contract=\"tensorflow_rest\",outcome=\"ok\"} 5";
    assert!(server.app.monitor().render().lines().any(|line| line == counted), "{counted}");
}

#[tokio::test]
async fn tensorflow_serving_tells_errors_as_text() {
    let server = server(None).await;
    let mut client = server.connect().await;
    for (path, body, status, expected) in [
        ("/v1/models/echo:predict", "{", 400, "malformed JSON"),
        ("/v1/models/echo:predict", r#"{"instances":[[1]]}"#, 400, "row 0: 'X' has 1 value where"),
        ("/v1/models/nobody:predict", ROWS, 404, "Request for unknown model"),
        ("/v1/models/damaged:predict", ROWS, 503, "damaged"),
        ("/v1/models/crashing:predict", ROWS, 500, "the engine crashed"),
        ("/v1/models/echo:explain", ROWS, 404, "no such path"),
        ("/v1/models/echo", ROWS, 404, "no such path"),
        ("/v1/models/echo/versions/x!:predict", ROWS, 400, "x!"),
    ] {
        let answer = client.post(path, "", body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.json());
        assert!(answer.error().contains(expected), "{path}: {}", answer.error());
    }
}

#[tokio::test]
async fn a_models_path_serves_three_kinds_of_client() {
    let server = server(None).await;
    let mut client = server.connect().await;
    let told = client.get("/v1/models/echo", "").await;
    assert_eq!(told.status, 200);
    let told = told.json();
    assert_eq!((&told["ready"], &told["name"]), (&json!(true), &json!("echo")));
    assert_eq!((&told["object"], &told["id"]), (&json!("model"), &json!("echo")));
    assert_eq!(told["model_version_status"][0]["state"], "AVAILABLE");

    let told = client.get("/v1/models/damaged", "").await.json();
    assert_eq!(told["ready"], json!(false));
    let status = &told["model_version_status"][0];
    assert_eq!((&status["state"], &status["version"]), (&json!("END"), &json!("3")));
    assert_eq!(status["status"]["error_message"], "its file is <damaged>");

    let unknown = client.get("/v1/models/nobody", "").await;
    assert_eq!(
        (unknown.status, &unknown.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    let metadata = client.get("/v1/models/nobody/metadata", "").await;
    assert!(metadata.status == 404 && metadata.error().starts_with("Request for unknown model"));
    let metadata = client.get("/v1/models/echo/versions/1/metadata", "").await.json();
    let signature = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
    assert_eq!(signature["inputs"]["X"]["dtype"], "DT_FLOAT");

    let list = client.get("/v1/models", "").await.json();
    let names: Vec<&str> =
        list["models"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
    assert_eq!(names, ["crashing", "echo", "gated", "wide"], "what failed is not listed");
    assert_eq!(list["data"][1]["id"], "echo");
}

#[tokio::test]
async fn vertex_asks_the_paths_that_it_says() {
    let routes = [
        ("/v1/endpoints/7/deployedModels/8:predict", "/v1/endpoints/7/deployedModels/8"),
        ("/predict", "/health"),
        // Paths of our own: what is configured goes first.
        ("/v1/models/nobody:predict", "/v1/models/nobody"),
    ];
    for (predict, health) in routes {
        let server = server(Some((predict, health))).await;
        let mut client = server.connect().await;
        let answer = client.post(predict, "", ROWS).await;
        assert_eq!(answer.status, 200, "{predict}: {}", answer.json());
        let expected = json!({ "predictions": [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]] });
        assert_eq!(answer.json(), expected);
        let refused = client.post(predict, "", r#"{"instances":[]}"#).await;
        let expected =
            json!({ "code": 400, "message": "request has no rows", "status": "INVALID_ARGUMENT" });
        assert_eq!((refused.status, &refused.json()["error"]), (400, &expected));
        let healthy = client.get(health, "").await;
        assert_eq!((healthy.status, healthy.json()), (200, json!({ "status": "ready" })));
        client.send(format!("HEAD {health} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(client.answer_with(false).await.status, 200);
        assert_eq!(client.predict("echo").await.status, 200, "other paths are as they were");
    }
    let server = server(None).await;
    assert_eq!(server.connect().await.post("/predict", "", ROWS).await.status, 404);
}

#[tokio::test]
async fn azure_scores_on_the_default_model() {
    let server = server(None).await;
    let mut client = server.connect().await;
    let table = r#"{"input_data":{"columns":["a","b","c","d"],"index":[0],"data":[[1,2,3,4]]}}"#;
    for body in [table, r#"{"data":[[1,2,3,4]]}"#, "[[1,2,3,4]]"] {
        let answer = client.post("/score", "azureml-model-deployment: blue\r\n", body).await;
        assert_eq!((answer.status, answer.json()), (200, json!([[1.0, 2.0, 3.0, 4.0]])), "{body}");
    }
    let refused = client.post("/score", "", "{}").await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("BadRequest")));
    assert_eq!(client.get("/", "").await.json(), json!({ "status": "alive" }));
}

#[tokio::test]
async fn a_call_that_names_no_model_needs_a_default_one() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let refused = client.post("/score", "", "[[1,2,3,4]]").await;
    assert_eq!(refused.status, 400);
    let message = refused.json()["error"]["message"].clone();
    assert!(message.as_str().unwrap().contains("set default_model"), "{message}");
}
