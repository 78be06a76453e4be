//! Pipelines from their folder to the answer, with real models: through `Router::infer` and through the contracts of
//! the HTTP server.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outhaul::types::{
    Classify, ErrorKind, InferRequest, NamedTensor, RequestContext, Strings, Tensor, VersionChoice,
};
use outhaul::{OpenOptions, Place, Router, open};
use outhaul_router::Standing;
use outhaul_server::http::{HttpConfig, serve};
use outhaul_server::{App, AppConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn examples(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(folder)
}

fn options(pipelines: impl Into<PathBuf>) -> OpenOptions {
    let mut options = OpenOptions::path(examples("models"));
    options.places.push(Place::Path(pipelines.into()));
    options
}

fn router() -> Arc<Router> {
    let opened = open(&options(examples("pipelines"))).unwrap();
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    opened.router
}

/// Flowers with their sizes, and the words for them.
fn flowers(rows: &[([f64; 4], [&str; 4])]) -> InferRequest {
    let names = ["sepal_length", "sepal_width", "petal_length", "petal_width"];
    let column = |(index, name): (usize, &&str)| {
        let sizes = rows.iter().map(|(sizes, _)| sizes[index]).collect();
        NamedTensor { name: (*name).into(), tensor: Tensor::from_vec([rows.len()], sizes).unwrap() }
    };
    let words: Strings =
        rows.iter().flat_map(|(_, words)| words).map(|word| word.as_bytes()).collect();
    let words = Tensor::from_strings([rows.len(), 4], words).unwrap();
    let columns = names.iter().enumerate().map(column);
    let words = [NamedTensor { name: "words".into(), tensor: words }];
    InferRequest::new("careful_flowers", columns.chain(words))
}

const SETOSA: ([f64; 4], [&str; 4]) = ([5.1, 3.5, 1.4, 0.2], ["short", "long", "short", "short"]);
/// Its measurements are those of a flower between two kinds, its words those of the first kind.
const DOUBTFUL: ([f64; 4], [&str; 4]) = ([6.1, 2.8, 4.9, 1.6], ["short", "long", "short", "short"]);

#[tokio::test]
async fn the_second_model_is_asked_where_the_first_is_not_sure() {
    let router = router();
    let asked = |model: &str| {
        let statistics = router.statistics(Some(model), &VersionChoice::Latest).unwrap();
        statistics[0].2.success.count
    };
    for (rows, labels, second) in
        [(vec![SETOSA], vec!["setosa"], 0), (vec![SETOSA, DOUBTFUL], vec!["setosa", "setosa"], 1)]
    {
        let answer = router.infer(flowers(&rows), &RequestContext::default()).await.unwrap();
        let label = answer.output("label").unwrap().as_strings().unwrap();
        let label: Vec<_> = label.iter().map(|text| String::from_utf8_lossy(text)).collect();
        assert_eq!(label, labels);
        assert_eq!(answer.output("score").unwrap().len(), rows.len());
        assert_eq!((answer.model.as_str(), answer.version.0), ("careful_flowers", 1));
        assert!(!answer.timings.compute.is_zero());
        assert_eq!(asked("iris_words"), second);
    }
    assert_eq!((asked("careful_flowers"), asked("flowers")), (2, 2));
    let mut wrong = flowers(&[SETOSA]);
    wrong.inputs.pop();
    let error = router.infer(wrong, &RequestContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.client_message(), "missing input 'words' (BYTES [batch,4])");
}

/// Sends a request and returns the status and the body.
async fn ask(address: std::net::SocketAddr, path: &str, body: Option<&Value>) -> (u16, Value) {
    let body = body.map(Value::to_string).unwrap_or_default();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| json!(body)))
}

#[tokio::test]
async fn every_contract_serves_a_pipeline_like_a_model() {
    let app = App::new(router(), AppConfig::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(listener, app, HttpConfig::default(), async {
        let _ = stopped.await;
    }));

    let (status, metadata) = ask(address, "/v2/models/careful_flowers", None).await;
    assert_eq!((status, &metadata["platform"]), (200, &json!("ensemble")), "{metadata}");
    assert_eq!(
        metadata["outputs"][0],
        json!({"name": "label", "datatype": "BYTES", "shape": [-1]})
    );

    let column = |name: &str, size: f64| json!({"name": name, "datatype": "FP64", "shape": [1], "data": [size]});
    let tensors = json!({"inputs": [
        column("sepal_length", 5.1),
        column("sepal_width", 3.5),
        column("petal_length", 1.4),
        column("petal_width", 0.2),
        {"name": "words", "datatype": "BYTES", "shape": [1, 4], "data": SETOSA.1},
    ]});
    let (status, answer) = ask(address, "/v2/models/careful_flowers/infer", Some(&tensors)).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!(["setosa"])), "{answer}");

    let row = json!({"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4,
        "petal_width": 0.2, "words": SETOSA.1});
    let body = json!({"instances": [row]});
    let (status, answer) = ask(address, "/v1/models/careful_flowers:predict", Some(&body)).await;
    assert_eq!((status, &answer["predictions"][0]["label"]), (200, &json!("setosa")), "{answer}");

    let (status, ready) = ask(address, "/v2/models/careful_flowers/ready", None).await;
    assert_eq!(status, 200, "{ready}");
    let (_, statistics) = ask(address, "/v2/models/careful_flowers/stats", None).await;
    let counted = &statistics["model_stats"][0]["inference_stats"]["success"]["count"];
    assert_eq!(counted, &json!(2), "{statistics}");
    let (status, openapi) = ask(address, "/openapi.json", None).await;
    assert!(status == 200 && openapi.to_string().contains("careful_flowers"), "{status}");
    let (status, page) = ask(address, "/try/careful_flowers", None).await;
    assert!(status == 200 && page.to_string().contains("sepal_length"), "{page}");

    drop(stop);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_found_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("pipeline.toml"), text).unwrap();
    };
    let step = |name: &str, model: &str, input: &str| {
        format!("[[steps]]\nname = '{name}'\nmodel = '{model}'\ninputs = {{ X = '{input}' }}\n")
    };
    let outputs = "[outputs]\ny = 's.label'\n";
    write("sound", &(step("s", "iris", "X") + outputs));
    write("shapes", &(step("t", "iris", "X") + &step("s", "iris", "t.probabilities") + outputs));
    write("missing", &(step("s", "nobody", "X") + outputs));
    write("here", &(step("s", "there", "X") + outputs));
    write("there", &(step("s", "here", "X") + outputs));
    write("nested", &(step("s", "sound", "X") + "[outputs]\ny = 's.y'\n"));
    let opened = tokio::task::spawn_blocking({
        let options = options(folder.path());
        move || open(&options).unwrap()
    });
    let opened = opened.await.unwrap();
    let prefix = format!("{}/", folder.path().display());
    let told: Vec<_> =
        opened.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect();
    let circle = "the pipelines ask each other: here -> there -> here";
    assert_eq!(
        told,
        [
            format!(
                "here/pipeline.toml: steps.s.model: pipeline 'there': steps.s.model: {circle}; \
                mend the model, or name another one; mend the model, or name another one"
            ),
            "missing/pipeline.toml: steps.s.model: there is no model 'nobody'; \
                mend the model, or name another one"
                .to_owned(),
            "shapes/pipeline.toml: steps.s.inputs.X: takes [batch,4], and 't.probabilities' is \
                [batch,3]; feed it with a tensor of its shape"
                .to_owned(),
            format!(
                "there/pipeline.toml: steps.s.model: {circle}; \
                mend the model, or name another one"
            ),
        ]
    );
    let router = opened.router;
    let standing: Vec<_> = router
        .models()
        .iter()
        .filter(|status| status.ready.as_ref().is_none_or(|model| model.engine == "pipeline"))
        .map(|status| (status.name.to_string(), status.standing))
        .collect();
    let expected = [
        ("here", Standing::Failed),
        ("missing", Standing::Failed),
        ("nested", Standing::Ready),
        ("shapes", Standing::Failed),
        ("sound", Standing::Ready),
        ("there", Standing::Failed),
    ];
    assert_eq!(standing, expected.map(|(name, standing)| (name.to_owned(), standing)));
    let x = Tensor::from_vec([1, 4], vec![5.1_f32, 3.5, 1.4, 0.2]).unwrap();
    let ask = |model: &str| {
        InferRequest::new(model, [NamedTensor { name: "X".into(), tensor: x.clone() }])
    };
    let context = RequestContext::default();
    let answer = router.infer(ask("nested"), &context).await.unwrap();
    assert_eq!(answer.output("y").unwrap().as_slice::<i64>(), Some(&[0][..]));
    let error = router.infer(ask("missing"), &context).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotReady, "{error}");
}

#[tokio::test]
async fn models_that_sleep_are_woken_by_a_request_to_their_pipeline() {
    let mut options = options(examples("pipelines"));
    options.repository.memory_budget = Some(1 << 40);
    let opened = tokio::task::spawn_blocking(move || open(&options).unwrap()).await.unwrap();
    let router = opened.router;
    let stands = || {
        let models = router.models();
        let found = models.iter().find(|status| status.name.as_str() == "careful_flowers");
        found.unwrap().standing
    };
    assert_eq!(stands(), Standing::Dormant);
    assert!(router.readiness("careful_flowers", &VersionChoice::Latest).is_ok());
    let answer = router.infer(flowers(&[SETOSA]), &RequestContext::default()).await.unwrap();
    assert_eq!(answer.output("label").unwrap().len(), 1);
    assert_eq!(stands(), Standing::Ready);
}

#[tokio::test]
async fn a_broken_file_takes_nothing_away_and_a_sound_one_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain/pipeline.toml");
    std::fs::create_dir(folder.path().join("chain")).unwrap();
    let gives = |output: &str| {
        let text = format!(
            "[[steps]]\nname = 's'\nmodel = 'iris'\ninputs = {{ X = 'X' }}\n[outputs]\no = {output}"
        );
        std::fs::write(&file, text).unwrap();
    };
    gives("'s.label'");
    let options = options(folder.path());
    let opened = tokio::task::spawn_blocking(move || open(&options).unwrap()).await.unwrap();
    let router = opened.router;
    let data_type = || async {
        let described = router.describe("chain", &VersionChoice::Latest, None).await.unwrap();
        described.signature.outputs[0].data_type.name()
    };
    assert_eq!(data_type().await, "INT64");

    gives("'nobody.label'");
    // Asking for it looks at the folder anew.
    router.load("chain", None).await.unwrap();
    assert_eq!(data_type().await, "INT64", "what was right goes on");
    let models = router.models();
    let chain = models.iter().find(|status| status.name.as_str() == "chain").unwrap();
    let reason = "outputs.o: there is no step 'nobody'; the steps are s";
    assert_eq!((chain.standing, chain.last_error.as_deref()), (Standing::Ready, Some(reason)));

    gives("'s.probabilities'");
    router.load("chain", None).await.unwrap();
    assert_eq!(data_type().await, "FP32");
    let error = router.unload("chain").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");

    std::fs::remove_dir_all(folder.path().join("chain")).unwrap();
    let error = router.load("chain", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(router.readiness("chain", &VersionChoice::Latest).is_err());
}
