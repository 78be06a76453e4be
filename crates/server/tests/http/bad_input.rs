//! Whatever comes in: a precise error, the right status, and a server that goes on.

use tokio::io::AsyncWriteExt;

use crate::client::{PREDICTION, post};
use crate::fixture::Server;

const ECHO: &str = "/v2/models/echo/infer";

fn input(fields: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"X",{fields}}}]}}"#)
}

struct Case {
    name: &'static str,
    request: Vec<u8>,
    status: u16,
    error: &'static str,
}

fn case(name: &'static str, body: impl AsRef<[u8]>, status: u16, error: &'static str) -> Case {
    Case { name, request: post(ECHO, "", body), status, error }
}

fn headers(name: &'static str, headers: &str, status: u16, error: &'static str) -> Case {
    Case { name, request: post(ECHO, headers, PREDICTION), status, error }
}

fn path(name: &'static str, path: &str, status: u16, error: &'static str) -> Case {
    Case { name, request: post(path, "", PREDICTION), status, error }
}

fn cases() -> Vec<Case> {
    let deep = "[".repeat(100_000);
    let four = r#""datatype":"FP32","data":[1,2,3,4]"#;
    let shape = |shape: &str| input(&format!(r#""shape":{shape},{four}"#));
    let binary = |size: i64| {
        input(&format!(
            r#""shape":[1,4],"datatype":"FP32","parameters":{{"binary_data_size":{size}}}"#
        ))
    };
    let with_binary = |name, size, sent, status, error| {
        let json = binary(size);
        let headers = format!("inference-header-content-length: {}\r\n", json.len());
        let body = [json.as_bytes(), &vec![0_u8; sent]].concat();
        Case { name, request: post(ECHO, &headers, body), status, error }
    };
    let mut cases = vec![
        case("no body", "", 400, "malformed JSON"),
        case("not JSON", "hello", 400, "malformed JSON"),
        case("a truncated body", &PREDICTION[..40], 400, "malformed JSON"),
        case("two bodies", format!("{PREDICTION}{PREDICTION}"), 400, "malformed JSON"),
        case("not UTF-8", b"{\"id\":\"\xff\"}", 400, "not UTF-8 at byte 7"),
        case("deep nesting", format!(r#"{{"id":{deep}"#), 400, ""),
        case(
            "deep data",
            input(&format!(r#""shape":[1,4],"datatype":"FP32","data":{deep}"#)),
            400,
            "",
        ),
        case("deep unknown", format!(r#"{{"unknown":{deep}"#), 400, ""),
        case("a list", "[]", 400, ""),
        case("no inputs", "{}", 400, "inputs"),
        case("an unknown input", PREDICTION.replace("\"X\"", "\"Z\""), 400, "unknown input 'Z'"),
        case("a missing input", r#"{"inputs":[]}"#, 400, ""),
        case(
            "a wrong type",
            PREDICTION.replace("FP32", "INT64"),
            400,
            "datatype INT64, expected FP32",
        ),
        case("an unknown type", PREDICTION.replace("FP32", "FP31"), 400, "FP31"),
        case("a wrong shape", shape("[2,2]"), 400, "shape [2,2], expected [-1,4]"),
        case("too few elements", shape("[2,4]"), 400, "needs 8 elements, got 4"),
        case("a negative dimension", shape("[-1,4]"), 400, "negative"),
        case("a huge dimension", shape("[4611686018427387904,4]"), 400, "elements"),
        case("an overflowing shape", shape("[4611686018427387905,4]"), 400, ""),
        case("a dimension beyond 64 bits", shape("[99999999999999999999]"), 400, ""),
        case(
            "text for numbers",
            input(r#""shape":[1,4],"datatype":"FP32","data":["a",2,3,4]"#),
            400,
            "element 0",
        ),
        case(
            "an unknown output",
            PREDICTION.replace("}]}", "}],\"outputs\":[{\"name\":\"Q\"}]}"),
            400,
            "unknown output 'Q'",
        ),
        case("binary without header", binary(16), 400, "Inference-Header-Content-Length"),
        with_binary("binary too short", 16, 12, 400, "12 are left"),
        with_binary("binary too long", 16, 20, 400, "4 bytes left over"),
        with_binary("binary of another size", 12, 12, 400, "needs 16 bytes, got 12"),
        with_binary("a negative binary size", -16, 16, 400, "negative"),
        with_binary("a huge binary size", i64::MAX, 16, 400, "16 are left"),
        headers(
            "a JSON length beyond the body",
            "inference-header-content-length: 9999\r\n",
            400,
            "9999",
        ),
        headers("a negative JSON length", "inference-header-content-length: -1\r\n", 400, "'-1'"),
        headers("a timeout in words", "x-request-timeout-ms: soon\r\n", 400, "'soon'"),
        headers("an unknown coding", "content-encoding: br\r\n", 415, "'br' is not one of gzip"),
        headers("a body that is no gzip", "content-encoding: gzip\r\n", 400, "not valid gzip"),
        headers("a body that is no zstd", "content-encoding: zstd\r\n", 400, "not valid zstd"),
        headers(
            "a body that is no deflate",
            "content-encoding: deflate\r\n",
            400,
            "not valid deflate",
        ),
        path(
            "an unknown model",
            "/v2/models/nobody/infer",
            404,
            "Request for unknown model: 'nobody'",
        ),
        path(
            "an unknown version",
            "/v2/models/echo/versions/9/infer",
            404,
            "Request for unknown model",
        ),
        path(
            "a version that is none",
            "/v2/models/echo/versions/1st/infer",
            400,
            "'1st' is not a model version",
        ),
        path("an escaped name", "/v2/models/no%20body/infer", 404, "'no body'"),
        path("a name that is not UTF-8", "/v2/models/%ff/infer", 400, "not UTF-8"),
        path("a way out of the folder", "/v2/models/..%2f..%2fetc/infer", 404, "unknown model"),
        path(
            "a model that failed to load",
            "/v2/models/damaged/infer",
            503,
            "'damaged' is not ready",
        ),
        path(
            "an unknown path",
            "/v3/models/echo/infer",
            404,
            "no such path: POST /v3/models/echo/infer",
        ),
        path("a wrong method", "/v2/models/echo", 405, "does not take the method POST"),
        path(
            "a crash",
            "/v2/models/crashing/infer",
            500,
            "the engine crashed while running the model",
        ),
    ];
    let get = |name, path: &str, status, error| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into();
        Case { name, request, status, error }
    };
    cases.push(get("another wrong method", ECHO, 405, "does not take the method GET"));
    cases.push(get("metadata of nobody", "/v2/models/nobody", 404, "Request for unknown model"));
    cases.push(get(
        "readiness of nobody",
        "/v2/models/nobody/ready",
        404,
        "Request for unknown model",
    ));
    cases.push(get(
        "statistics of nobody",
        "/v2/models/nobody/stats",
        404,
        "Request for unknown model",
    ));
    cases
}

#[tokio::test]
async fn each_mistake_is_named_and_the_next_request_is_answered() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let mut wrong = Vec::new();
    for Case { name, request, status, error } in cases() {
        client.send(request).await;
        let answer = client.answer().await;
        let said = answer.error();
        if answer.status != status || !said.contains(error) || said.contains("secret") {
            wrong.push(format!("{name}: {} {said}", answer.status));
        }
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
        assert!(answer.header("x-request-id").is_some(), "{name}");
        if answer.header("connection") == Some("close") {
            client = server.connect().await;
        }
        // On the same connection, where the answer left it open.
        assert_eq!(client.predict("echo").await.status, 200, "after {name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn refusals_say_how_to_go_on() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let answer = client.post("/v2/models/damaged/infer", "", PREDICTION).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let answer = client.get(ECHO, "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let answer = client.post("/v2/models/echo", "", "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")));
    let answer = client.post(ECHO, "content-encoding: br\r\n", "").await;
    assert_eq!(answer.header("accept-encoding"), Some("gzip, deflate, zstd"));
}

#[tokio::test]
async fn a_body_that_is_shorter_than_it_declares_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let request = post(ECHO, "", PREDICTION);
    client.send(&request[..request.len() - 10]).await;
    client.stream.shutdown().await.unwrap();
    let answer = client.answer().await;
    assert_eq!(answer.status, 400);
    let (received, declared) = (PREDICTION.len() - 10, PREDICTION.len());
    let expected = format!("the body ended after {received} of the {declared} bytes it declares");
    assert_eq!(answer.error(), expected);
    assert!(client.closed().await.is_empty());
}

#[tokio::test]
async fn what_is_not_http_is_refused_by_http() {
    let server = Server::start().await;
    let lines = "GET / HTTP/1.1\r\n".to_owned() + &"a: b\r\n".repeat(200) + "\r\n";
    let twice = "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx";
    for (name, bytes, expected) in [
        ("nonsense", "\x16\x03\x01\x02\r\n\r\n", "HTTP/1.1 400"),
        ("two lengths", twice, "HTTP/1.1 400"),
        ("a length in words", "POST / HTTP/1.1\r\ncontent-length: ten\r\n\r\n", "HTTP/1.1 400"),
        ("too many headers", &lines, "HTTP/1.1 431"),
    ] {
        let mut client = server.connect().await;
        client.send(bytes).await;
        let said = client.closed().await;
        assert!(said.starts_with(expected.as_bytes()), "{name}: {}", said.escape_ascii());
    }
    assert_eq!(server.connect().await.predict("echo").await.status, 200);
}

#[tokio::test]
async fn a_damaged_chunk_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let head = format!("POST {ECHO} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(format!("{head}5\r\n{{\"inp\r\nnot a length\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.error().as_str()), (400, "the body broke off after 5 bytes"));
}
