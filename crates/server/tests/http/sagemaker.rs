//! SageMaker's contracts: predictions by media type, and models that come and go.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outhaul_monitor::Monitor;
use outhaul_repository::{
    Added, Catalog, Journal, LoadFailure, LoadOrder, Loaded, Loader, Mode, Parts, RepositoryConfig,
    Source, start,
};
use outhaul_router::{Router, ServedVersion, VersionPlan};
use outhaul_server::http::HttpConfig;
use outhaul_server::{App, AppConfig};
use outhaul_types::{ModelName, ModelVersion};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, Client};
use crate::fixture::{Server, eventually};
use crate::models::{Model, echo};

const ROWS: &str = r#"{"instances": [[1, 2, 3, 4]]}"#;
const ECHO: &str = "x-amzn-sagemaker-target-model: echo\r\n";

/// What every failure holds.
fn error(answer: &Answer) -> String {
    let json = answer.json();
    assert_eq!(json["error"], json["message"], "{json}");
    assert!(json["code"].is_string(), "{json}");
    json["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_ping_tells_whether_traffic_may_come() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let ping = client.get("/ping", "").await;
    assert_eq!((ping.status, &*ping.body), (200, &b""[..]));
    server.app.start_draining();
    assert_eq!(client.get("/ping", "").await.status, 503);
}

#[tokio::test]
async fn both_paths_answer_in_the_form_that_is_accepted() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for path in ["/invocations", "/endpoints/any-name/invocations"] {
        let answer = client.post(path, ECHO, ROWS).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json(), json!({"predictions": [[1.0, 2.0, 3.0, 4.0]]}));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("x-request-id").is_some());
    }
    struct Case(&'static str, &'static str, &'static str, &'static str);
    let cases = [
        Case("text/csv", "*/*", "1,2,3,4\n", "1.0,2.0,3.0,4.0\n"),
        Case("application/jsonlines", "*/*", "[1,2,3,4]\n", "[1.0,2.0,3.0,4.0]\n"),
        Case("text/csv", "application/jsonlines", "1,2,3,4", "[1.0,2.0,3.0,4.0]\n"),
    ];
    for Case(media, accept, body, expected) in cases {
        let headers = format!("{ECHO}content-type: {media}\r\naccept: {accept}\r\n");
        let answer = client.post("/invocations", &headers, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(String::from_utf8_lossy(&answer.body), expected);
    }
    let answer = client.post("/models/echo/invoke", "", ROWS).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn failures_have_the_form_and_the_status_of_the_contract() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    struct Case(&'static str, &'static str, &'static str, u16, &'static str);
    let lines = "content-type: application/jsonlines\r\n";
    let cases = [
        Case("/invocations", "", ROWS, 400, "the request names none"),
        Case("/models/nobody/invoke", "", ROWS, 404, "Request for unknown model"),
        Case("/models/a%ffb/invoke", "", ROWS, 400, "not UTF-8"),
        Case("/models/echo/invoke", "", "{", 400, "malformed JSON"),
        Case("/models/echo/invoke", "", "[[1, 2, 3, null]]", 400, "row 0: 'X'[3]"),
        Case("/models/echo/invoke", lines, "[1,2,3,4]\n[1]\n", 400, "row 1 (line 2)"),
        Case("/models/echo/invoke", "content-type: text/xml\r\n", "", 415, "'text/xml'"),
        Case("/models/echo/invoke", "accept: image/png\r\n", ROWS, 406, "'image/png'"),
        Case("/models/echo/invoke", "content-type: image/png\r\n", "", 400, "takes numbers"),
        Case("/models/crashing/invoke", "", ROWS, 500, ""),
        Case("/models/damaged/invoke", "", ROWS, 503, ""),
    ];
    for Case(path, headers, body, status, expected) in cases {
        let answer = client.post(path, headers, body).await;
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        let text = error(&answer);
        assert!(text.contains(expected), "{text} without {expected}");
    }
}

#[tokio::test]
async fn the_declared_model_is_the_default() {
    let config = HttpConfig { default_model: Some("echo".into()), ..HttpConfig::default() };
    let server = Server::with(config).await;
    let answer = server.connect().await.post("/invocations", "", ROWS).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_server_that_takes_no_models_says_so() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let answer = client.post("/models", "", r#"{"model_name":"a","url":"/a"}"#).await;
    assert_eq!(answer.status, 400);
    assert!(error(&answer).contains("SAGEMAKER_MULTI_MODEL"));
    let listed = client.get("/models", "").await.json();
    let names = listed["models"].as_array().unwrap().iter().map(|model| &model["modelName"]);
    assert!(names.clone().any(|name| name == "echo"), "{listed}");
    assert!(names.clone().all(|name| name != "damaged"), "what answers is listed: {listed}");
}

/// Loads whatever it is told, but what is called after damage.
struct AsNamed(Arc<Monitor>);

impl Loader for AsNamed {
    type Contract = ();
    type Prepared = VersionPlan;
    type Served = ServedVersion;

    fn load(&self, order: &LoadOrder<()>) -> Result<Loaded<VersionPlan>, LoadFailure> {
        if order.name.as_str().starts_with("damaged") {
            return Err(LoadFailure::Failed("its file is damaged".to_owned()));
        }
        let (name, version) = (order.name.clone(), order.version);
        let prepared = VersionPlan { name, version, ..Model::new("echo", 4, echo).plan() };
        Ok(Loaded { prepared, memory: 1 << 20 })
    }

    fn start(&self, plan: VersionPlan) -> Result<ServedVersion, LoadFailure> {
        ServedVersion::start(plan, &self.0).map_err(|error| LoadFailure::Failed(error.to_string()))
    }

    fn contract(&self, _: &ServedVersion) {}

    fn forget(&self, _: &ModelName, _: ModelVersion) {}
}

/// A server that takes models from a folder of its own, with room for about one and a half.
struct Many {
    server: Server,
    base: TempDir,
}

impl Many {
    async fn start() -> Self {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().to_owned();
        let server = Server::over(|_| many(&folder), HttpConfig::default()).await;
        Many { server, base }
    }

    /// Puts a model of this name below the base, one that cannot be evicted.
    fn put(&self, name: &str) -> PathBuf {
        let folder = self.base.path().join(name).join("model");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("model.onnx"), vec![0; 1 << 20]).unwrap();
        fs::write(folder.join("model.toml"), "[loading]\npin = true\n").unwrap();
        folder
    }

    async fn add(&self, client: &mut Client, name: &str, folder: &Path) -> Answer {
        let body = json!({"model_name": name, "url": folder}).to_string();
        client.post("/models", "content-type: application/json\r\n", body).await
    }
}

fn many(base: &Path) -> Arc<App> {
    let monitor = Arc::new(Monitor::new());
    let catalog = Arc::new(Catalog::new());
    let added = Arc::new(Added::below(base));
    let config = RepositoryConfig {
        mode: Mode::Explicit,
        memory_budget: Some(3 << 19),
        ..RepositoryConfig::default()
    };
    let parts = Parts {
        sources: vec![Arc::clone(&added) as Arc<dyn Source>],
        loader: Arc::new(AsNamed(Arc::clone(&monitor))),
        catalog: Arc::clone(&catalog),
        journal: Journal::forgetful(),
        metrics: monitor.loading(),
        runtime: None,
    };
    let repository = start(config, parts).unwrap();
    let router = Router::new(catalog, monitor).with_repository(repository).with_added(added);
    App::new(Arc::new(router), AppConfig::default())
}

async fn delete(client: &mut Client, path: &str) -> Answer {
    client.send(format!("DELETE {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    client.answer().await
}

async fn listed(client: &mut Client) -> Vec<Value> {
    client.get("/models", "").await.json()["models"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_model_comes_and_goes() {
    let many = Many::start().await;
    let mut client = many.server.connect().await;
    eventually(|| many.server.app.is_ready()).await;
    assert_eq!(client.get("/ping", "").await.status, 200, "an empty server takes traffic");
    assert_eq!(listed(&mut client).await, Vec::<Value>::new());

    let folder = many.put("abc");
    let answer = many.add(&mut client, "first", &folder).await;
    assert_eq!((answer.status, &*answer.body), (200, &b""[..]));
    let expected = json!({"modelName": "first", "modelUrl": folder});
    assert_eq!(listed(&mut client).await, std::slice::from_ref(&expected));
    assert_eq!(client.get("/models/first", "").await.json(), expected);
    let answer = client.post("/models/first/invoke", "", ROWS).await;
    assert_eq!(answer.json(), json!({"predictions": [[1.0, 2.0, 3.0, 4.0]]}));
    let target = "x-amzn-sagemaker-target-model: first.tar.gz\r\n";
    assert_eq!(client.post("/invocations", target, ROWS).await.status, 200);
    assert_eq!(many.add(&mut client, "first", &folder).await.status, 409);

    let answer = delete(&mut client, "/models/first").await;
    assert_eq!((answer.status, &*answer.body), (200, &b""[..]));
    assert_eq!(listed(&mut client).await, Vec::<Value>::new());
    assert_eq!(client.post("/models/first/invoke", "", ROWS).await.status, 404);
    for answer in [
        client.get("/models/first", "").await,
        delete(&mut client, "/models/first").await,
        delete(&mut client, "/models/never").await,
    ] {
        assert_eq!(answer.status, 404, "{answer:?}");
        assert!(error(&answer).contains("is not loaded"));
    }
    assert_eq!(many.add(&mut client, "first", &folder).await.status, 200, "and comes again");
}

#[tokio::test]
async fn a_model_that_does_not_fit_is_told_apart_from_one_that_is_broken() {
    let many = Many::start().await;
    let mut client = many.server.connect().await;
    let (one, two, damaged) = (many.put("one"), many.put("two"), many.put("damaged"));
    assert_eq!(many.add(&mut client, "one", &one).await.status, 200);
    let full = many.add(&mut client, "two", &two).await;
    assert_eq!(full.status, 507, "{full:?}");
    assert_eq!(full.json()["code"], "InsufficientStorage");
    assert_eq!(listed(&mut client).await.len(), 1);
    assert_eq!(delete(&mut client, "/models/one").await.status, 200);

    for _ in 0..2 {
        let broken = many.add(&mut client, "damaged", &damaged).await;
        assert_eq!(broken.status, 400, "{broken:?}");
        assert!(error(&broken).contains("its file is damaged"));
    }
    assert_eq!(many.add(&mut client, "two", &two).await.status, 200, "SageMaker tries again");
    assert_eq!(client.get("/ping", "").await.status, 200);
}

#[tokio::test]
async fn only_folders_below_the_base_are_taken() {
    let many = Many::start().await;
    let mut client = many.server.connect().await;
    let beside = tempfile::tempdir().unwrap();
    fs::write(beside.path().join("model.onnx"), "a model").unwrap();
    let empty = many.base.path().join("empty");
    fs::create_dir(&empty).unwrap();
    struct Case<'c>(&'c str, PathBuf, u16, &'c str);
    let cases = [
        Case("m", beside.path().to_owned(), 403, "does not lie below"),
        Case("m", many.base.path().join("../x"), 403, "does not lie below"),
        Case("m", "https://example.com/m".into(), 403, "does not lie below"),
        Case("m", many.base.path().join("nothing"), 400, "cannot be read"),
        Case("m", empty, 400, "m"),
        Case("../m", many.put("abc"), 400, "'../m'"),
    ];
    for Case(name, folder, status, expected) in cases {
        let answer = many.add(&mut client, name, &folder).await;
        assert_eq!(answer.status, status, "{}: {answer:?}", folder.display());
        let text = error(&answer);
        assert!(text.contains(expected), "{text}");
    }
    for body in ["", "[]", r#"{"model_name": "m"}"#] {
        assert_eq!(client.post("/models", "", body).await.status, 400, "{body}");
    }
    assert_eq!(listed(&mut client).await, Vec::<Value>::new());
}
