//! The OpenAPI document and the page that shows it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use outhaul_protocol::openapi::ROUTES;
use outhaul_server::http::HttpConfig;
use serde_json::Value;

use crate::fixture::Server;
use crate::graphql::app;

async fn server() -> Server {
    Server::over(app, HttpConfig::default()).await
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => {
                found.push(path)
            }
            false => {}
        }
    }
}

/// Returns the paths that the router's source gives to `.route`.
fn served() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http"), &mut files);
    let mut paths = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for call in text.split(".route(").skip(1) {
            let literal =
                call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            let path = literal.unwrap_or_else(|| {
                panic!("{}: a path that is no literal cannot be found here", file.display())
            });
            paths.insert(path.to_owned());
        }
    }
    paths
}

#[test]
fn every_path_of_the_router_is_in_the_document() {
    let served = served();
    assert!(served.len() > 30, "{served:?}");
    let told: BTreeSet<&str> = ROUTES.iter().map(|route| route.served_by).collect();
    // Files that pages are made of are no interface.
    let missing: Vec<_> = served
        .iter()
        .filter(|path| !path.starts_with("/assets/") && !told.contains(path.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in protocol::openapi::ROUTES: {missing:?}");
    let gone: Vec<_> = told.iter().filter(|path| !served.contains(**path)).collect();
    assert!(gone.is_empty(), "in ROUTES, but no path of the router: {gone:?}");
}

#[tokio::test]
async fn every_operation_of_the_document_is_answered() {
    let server = server().await;
    let mut client = server.connect().await;
    for route in ROUTES {
        let item = client.get("/openapi.json", "").await.json();
        let operations = item["paths"][route.path].as_object().unwrap();
        let path = route.path.replace("{model}", "echo").replace("{version}", "1");
        let path = path.replace("{label}", "stable").replace("{endpoint}", "any");
        for method in operations.keys() {
            let method = method.to_uppercase();
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}");
            client.send(request).await;
            let answer = client.answer().await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert_ne!(answer.status, 405, "{method} {path}");
            assert!(!text.contains("no such path"), "{method} {path}: {text}");
            // Without a repository, nothing can be loaded; the rest of the server is there.
            assert!(
                answer.status < 500 || path.contains("unload"),
                "{method} {path}: {} {text}",
                answer.status
            );
        }
    }
}

#[tokio::test]
async fn the_document_holds_the_models_that_are_there() {
    let server = server().await;
    let mut client = server.connect().await;
    let answer = client.get("/openapi.json", "").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let api = answer.json();
    let row = &api["components"]["schemas"]["Iris-flowers.v2_Row"]["properties"];
    assert_eq!(row["colour"]["enum"], serde_json::json!(["red", "blue"]));
    assert!(api["paths"].get("/v1/models/Iris-flowers.v2:predict").is_some());
    assert!(api["paths"].get("/v2/models/damaged/infer").is_none(), "nothing is known of it");
}

#[tokio::test]
async fn the_examples_of_the_document_are_answered() {
    let server = server().await;
    let mut client = server.connect().await;
    let api = client.get("/openapi.json", "").await.json();
    let mut answered = 0;
    for (path, item) in api["paths"].as_object().unwrap() {
        let models = ["crashing", "gated"];
        if item["post"]["tags"][0] != "Models" || models.iter().any(|model| path.contains(model)) {
            continue;
        }
        let example = &item["post"]["requestBody"]["content"]["application/json"]["example"];
        let answer =
            client.post(path, "content-type: application/json\r\n", example.to_string()).await;
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 200, "{path} {example}: {text}");
        answered += 1;
    }
    assert_eq!(answered, 6, "three models by two contracts");
}

/// `OUTHAUL_BLESS=1` writes the file anew; the diff is reviewed.
#[tokio::test]
async fn the_document_is_what_people_reviewed() {
    let server = server().await;
    let api: Value = server.connect().await.get("/openapi.json", "").await.json();
    let mut text = serde_json::to_string_pretty(&api).unwrap();
    text.push('\n');
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/openapi.json");
    if std::env::var_os("OUTHAUL_BLESS").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    let reviewed = std::fs::read_to_string(golden).unwrap_or_default();
    let first = text.lines().zip(reviewed.lines()).find(|(new, old)| new != old);
    assert!(text == reviewed, "the first line that differs: {first:?}");
}

#[tokio::test]
async fn the_page_shows_every_operation_and_loads_nothing_from_elsewhere() {
    let server = server().await;
    let mut client = server.connect().await;
    let page = client.get("/docs", "accept: text/html\r\n").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let html = String::from_utf8(page.body).unwrap();
    for route in ROUTES {
        assert!(html.contains(&format!("<code>{}</code>", route.path)), "{}", route.path);
        assert!(html.contains(&format!("id=\"{}\"", route.id)), "{}", route.id);
    }
    assert!(html.contains("id=\"schema-Iris-flowers.v2_Row\""));
    assert!(html.contains("<input id=\"search\" type=\"search\""));
    assert!(html.contains("<meta name=\"viewport\""));
    // Every address that a browser would follow by itself is ours; calls to copy are text.
    for attribute in ["src=\"", "href=\""] {
        for address in html.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            let ours = address.starts_with(['/', '#']) || address == "data:,";
            assert!(ours && !address.starts_with("//"), "{address}");
        }
    }
    // Links within the page lead somewhere.
    for name in html.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(html.contains(&format!("id=\"{name}\"")), "{name}");
    }
    assert!(!html.contains(" style=") && !html.contains("<script>"), "the policy forbids it");
    let script = client.get("/assets/docs.js", "").await;
    assert_eq!((script.status, script.header("x-content-type-options")), (200, Some("nosniff")));
}
