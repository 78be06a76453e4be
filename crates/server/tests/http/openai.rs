//! Embeddings and reranking: the routes, and failures in each contract's own form. What models of texts
//! answer is tested with real ones, in `python/tests/test_openai.py`.

use serde_json::json;

use crate::fixture::Server;

#[tokio::test]
async fn failures_of_embeddings_are_openai_s() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    struct Case(&'static str, u16, &'static str);
    let cases = [
        Case("{", 400, "malformed JSON"),
        Case("[]", 400, "'body' must be an object, got a list"),
        Case(r#"{"model": 1}"#, 400, "'model' must be a string, got a number"),
        Case(r#"{"input": "a"}"#, 400, "the request names none"),
        Case(r#"{"model": "nobody", "input": "a"}"#, 404, "'nobody'"),
        Case(r#"{"model": "echo", "input": "a"}"#, 400, "is a model of tensors"),
        Case(r#"{"model": "damaged", "input": "a"}"#, 503, "'damaged' is not ready"),
    ];
    for Case(body, status, expected) in cases {
        let answer = client.post("/v1/embeddings", "", body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        let error = &answer.json()["error"];
        assert!(error["message"].as_str().unwrap().contains(expected), "{error}");
        assert!(error["param"].is_null() && error["type"].is_string(), "{error}");
        let code = if status == 404 { json!("model_not_found") } else { json!(null) };
        assert_eq!(error["code"], code);
    }
}

#[tokio::test]
async fn failures_of_reranking_have_the_form_of_the_call() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let documents = r#"{"model": "echo", "query": "q", "documents": ["a"]}"#;
    let texts = r#"{"model": "echo", "query": "q", "texts": ["a"]}"#;
    for path in ["/v1/rerank", "/rerank"] {
        let answer = client.post(path, "", documents).await;
        assert_eq!(answer.status, 400);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("takes a reranking model"), "{message}");
        let answer = client.post(path, "", texts).await;
        assert_eq!(answer.json()["error_type"], "Validation", "{answer:?}");
    }
    // Where the body has no form, the path tells.
    let answer = client.post("/v1/rerank", "", "{").await;
    assert!(answer.json()["error"]["message"].is_string(), "{answer:?}");
    let answer = client.post("/rerank", "", "{").await;
    assert_eq!(answer.json()["error_type"], "Validation", "{answer:?}");
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(client.get("/rerank", "").await.status, 405);
}
