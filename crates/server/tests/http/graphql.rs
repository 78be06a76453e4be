//! GraphQL over HTTP.

use std::path::Path;
use std::sync::Arc;

use outhaul_server::App;
use outhaul_server::http::HttpConfig;
use outhaul_types::{
    CategoryEncoding, ClassificationOutput, Column, ColumnKind, DataType, InputTransform, Labels,
    Missing, OutputTransform, RowsInput, TransformSpec, UnknownCategory,
};
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::fixture::{Gate, Server};
use crate::models::{self, Model, crash, echo};

/// Four columns to one of four classes: the first number that is the largest.
fn flowers() -> TransformSpec {
    let column =
        |name: &str, kind, missing| Column { name: name.into(), kind, missing, input: None };
    let number = || ColumnKind::Number;
    let colour = ColumnKind::Category {
        values: vec!["red".to_owned(), "blue".to_owned()],
        encoding: CategoryEncoding::Index,
        unknown: UnknownCategory::Refuse,
    };
    let columns = vec![
        column("sepal length", number(), Missing::Refuse),
        column("colour", colour, Missing::Refuse),
        column("wild", ColumnKind::Boolean, Missing::Number(0.0)),
        column("petals", number(), Missing::Number(-1.0)),
    ];
    let labels = ["long", "blue", "wild", "petals"].map(str::to_owned);
    let output = ClassificationOutput {
        labels: Labels::List(labels.to_vec()),
        ..ClassificationOutput::default()
    };
    TransformSpec {
        input: Some(InputTransform::Rows(RowsInput { columns })),
        output: Some(OutputTransform::Classification(output)),
    }
}

/// Returns an application with tensors, columns, a model that crashes, and names that are no GraphQL
/// names.
pub fn app(gate: &Arc<Gate>) -> Arc<App> {
    models::app([
        Model::new("echo", 4, echo),
        Model::new("Iris-flowers.v2", 4, echo).transformed(flowers()),
        Model::new("whole", 2, echo).of(DataType::Int64),
        Model::new("crashing", 4, crash),
        Model::gated(gate, 4, echo),
    ])
}

async fn server() -> Server {
    Server::over(app, HttpConfig::default()).await
}

async fn ask(client: &mut Client, query: &str, variables: Value) -> Answer {
    let body = json!({ "query": query, "variables": variables }).to_string();
    client.post("/graphql", "content-type: application/json\r\n", body).await
}

#[tokio::test]
async fn several_predictions_are_made_by_one_query() {
    let server = server().await;
    let mut client = server.connect().await;
    let query = "query($rows: [IrisFlowersV2Row!]!, $any: [JSON!]!) {
        predict {
            flowers: Iris_flowers_v2(rows: $rows) { model version rows { label score probabilities } time { compute } }
            echo(rows: [{X: [1, 2, 3, 4.5]}, {X: [0, 0, 0, 0]}], version: 1) { rows { Y } }
            whole(rows: {X: [1, 9007199254740993]}) { rows { Y } }
        }
        predict_json(model: \"Iris-flowers.v2\", rows: $any)
    }";
    let rows = json!([
        {"sepal_length": 7.5, "colour": "red", "wild": false},
        {"sepal_length": 0, "colour": "blue", "wild": null, "petals": 3},
    ]);
    let any = json!([{"sepal length": 7.5, "colour": "red"}]);
    let answer = ask(&mut client, query, json!({"rows": rows, "any": any})).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(body.get("errors"), None, "{body}");
    let predict = &body["data"]["predict"];
    let flowers = &predict["flowers"];
    assert_eq!((&flowers["model"], &flowers["version"]), (&json!("Iris-flowers.v2"), &json!(1)));
    assert_eq!(
        (&flowers["rows"][0]["label"], &flowers["rows"][1]["label"]),
        (&json!("long"), &json!("petals"))
    );
    let sum: f64 = flowers["rows"][0]["probabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_f64().unwrap())
        .sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    assert_eq!(
        predict["echo"],
        json!({"rows": [{"Y": [1.0, 2.0, 3.0, 4.5]}, {"Y": [0.0, 0.0, 0.0, 0.0]}]})
    );
    assert_eq!(predict["whole"], json!({"rows": [{"Y": [1, 9_007_199_254_740_993_u64]}]}));
    let generic = &body["data"]["predict_json"];
    assert_eq!(generic["predictions"][0]["label"], "long");
    let counted = server.app.monitor().render();
    assert!(counted.contains("contract=\"graphql\""), "{counted}");
}

#[tokio::test]
async fn a_failed_prediction_leaves_the_others_alone() {
    let server = server().await;
    let mut client = server.connect().await;
    let query = "query($bad: [IrisFlowersV2Row!]!) {
        server { ready }
        predict {
            ok: echo(rows: {X: [1, 2, 3, 4]}) { rows { Y } }
            old: echo(rows: {X: [1, 2, 3, 4]}, version: 9) { version }
            short: echo(rows: [{X: [1, 2, 3, 4]}, {X: [1]}]) { version }
            colour: Iris_flowers_v2(rows: $bad) { version }
            crashing(rows: {X: [1, 2, 3, 4]}) { version }
        }
        none: predict_json(model: \"nowhere\", rows: [1])
        broken: predict_json(model: \"damaged\", rows: [1])
        columns: predict_json(model: \"Iris-flowers.v2\", rows: [{length: 1}])
    }";
    let bad = json!([{"sepal_length": 1, "colour": "red"}, {"sepal_length": 1, "colour": "green"}]);
    let answer = ask(&mut client, query, json!({ "bad": bad })).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    let data = &body["data"];
    assert_eq!(data["predict"]["ok"], json!({"rows": [{"Y": [1.0, 2.0, 3.0, 4.0]}]}));
    assert_eq!(data["server"]["ready"], true);
    let errors = body["errors"].as_array().unwrap();
    let of = |path: Value| {
        let error = errors.iter().find(|error| error["path"] == path);
        let error = error.unwrap_or_else(|| panic!("{path} in {body}"));
        let code = error["extensions"]["code"].as_str().unwrap().to_owned();
        (code, error["message"].as_str().unwrap().to_owned())
    };
    for (path, code, text) in [
        (json!(["predict", "old"]), "NOT_FOUND", "version 9"),
        (json!(["predict", "short"]), "INVALID_INPUT", "row 1"),
        (json!(["predict", "colour"]), "INVALID_INPUT", "green"),
        (json!(["predict", "crashing"]), "ENGINE_FAILED", ""),
        (json!(["none"]), "NOT_FOUND", "nowhere"),
        (json!(["broken"]), "NOT_READY", "damaged"),
        (json!(["columns"]), "INVALID_INPUT", "length"),
    ] {
        let (received, message) = of(path.clone());
        assert_eq!(received, code, "{path}: {message}");
        assert!(message.contains(text), "{path}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
    assert_eq!(errors.len(), 7, "{body}");
}

#[tokio::test]
async fn a_model_tells_what_it_is() {
    let server = server().await;
    let mut client = server.connect().await;
    let query = "{ models { name version state reason field statistics { rows } }
        model(name: \"Iris-flowers.v2\") { task inputs { name field dataType shape content choices optional } outputs { name choices } } }";
    let body = ask(&mut client, query, json!(null)).await.json();
    let models = body["data"]["models"].as_array().unwrap();
    let names: Vec<_> = models.iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Iris-flowers.v2", "crashing", "damaged", "echo", "gated", "whole"]);
    assert_eq!(models[0]["field"], "Iris_flowers_v2");
    assert_eq!(
        (&models[2]["state"], &models[2]["reason"]),
        (&json!("failed"), &json!("its file is <damaged>"))
    );
    assert_eq!(models[3]["statistics"]["rows"], 0);
    let model = &body["data"]["model"];
    assert_eq!(model["task"], "classification");
    let colour = json!({"name": "colour", "field": "colour", "dataType": "BYTES", "shape": [-1],
        "content": "category", "choices": ["red", "blue"], "optional": false});
    assert_eq!(model["inputs"][1], colour, "{body}");
}

#[tokio::test]
async fn the_status_says_whether_it_was_a_request_at_all() {
    let server = server().await;
    let mut client = server.connect().await;
    let modern = "accept: application/graphql-response+json\r\n";
    let code = |answer: &Answer| answer.json()["errors"][0]["extensions"]["code"].clone();
    for (body, headers, status, expected) in [
        ("{", "", 400, "INVALID_INPUT"),
        ("", "", 400, "INVALID_INPUT"),
        ("[]", "", 400, "INVALID_INPUT"),
        (r#"{"query": "{ nothing }"}"#, "", 200, "GRAPHQL_VALIDATION_FAILED"),
        (r#"{"query": "{ nothing }"}"#, modern, 400, "GRAPHQL_VALIDATION_FAILED"),
        (r#"{"query": "{"}"#, "", 200, "GRAPHQL_PARSE_FAILED"),
        (r#"{"query": "mutation { load }"}"#, "", 200, "UNSUPPORTED"),
        ("a=b", "content-type: application/x-www-form-urlencoded\r\n", 400, "INVALID_INPUT"),
        ("{ server }", "content-type: application/graphql\r\n", 415, "INVALID_INPUT"),
        ("--x", "content-type: multipart/form-data; boundary=x\r\n", 415, "INVALID_INPUT"),
        (
            r#"{"query": "{ server { name } }"}"#,
            "x-request-timeout-ms: soon\r\n",
            400,
            "INVALID_INPUT",
        ),
    ] {
        let answer = client.post("/graphql", headers, body).await;
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(code(&answer), expected, "{body}");
    }
    let answer = client.post("/graphql", modern, r#"{"query": "{ server { name } }"}"#).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"data": {"server": {"name": "outhaul"}}}))
    );
    let media_type = Some("application/graphql-response+json; charset=utf-8");
    assert_eq!(answer.header("content-type"), media_type);
}

#[tokio::test]
async fn a_query_may_come_in_the_url() {
    let server = server().await;
    let mut client = server.connect().await;
    let query = "query%20A(%24n:String!)%7Bmodel(name:%24n)%7Bversion%7D%7D";
    let path = format!("/graphql?query={query}&variables=%7B%22n%22:%22echo%22%7D&operationName=A");
    let answer = client.get(&path, "").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"data": {"model": {"version": 1}}})));
    let answer = client.get("/graphql?query=mutation%7Bload%7D", "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(client.get("/graphql", "").await.status, 400);
    let sdl = client.get("/graphql/schema.graphql", "").await;
    assert!(String::from_utf8(sdl.body).unwrap().starts_with("type Query {"));
}

#[tokio::test]
async fn a_browser_gets_a_page_of_its_own() {
    let server = server().await;
    let mut client = server.connect().await;
    let page = client.get("/graphql", "accept: text/html,*/*;q=0.8\r\n").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    let html = String::from_utf8(page.body).unwrap();
    assert!(html.contains("<textarea") && html.contains("Iris_flowers_v2"), "{html}");
    assert!(!html.contains("https://") && !html.contains("http://"), "nothing from elsewhere");
    let script = client.get("/assets/graphql.js", "").await;
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
}

#[tokio::test]
async fn what_asks_for_too_much_is_refused_before_a_model_runs() {
    let server = server().await;
    let mut client = server.connect().await;
    let rows = vec![json!({"X": [1, 2, 3, 4]}); 6_000];
    let query = "query($rows: [GatedRow!]!) { predict { gated(rows: $rows) { rows { Y } } } }";
    let answer = ask(&mut client, query, json!({ "rows": rows })).await;
    assert_eq!(answer.status, 200);
    let error = &answer.json()["errors"][0];
    assert_eq!(error["extensions"]["code"], "QUERY_LIMIT");
    assert_eq!(server.gate.runs(), 0);
}

#[tokio::test]
async fn a_deadline_holds_for_each_prediction() {
    let server = server().await;
    let mut client = server.connect().await;
    let body = json!({"query": "{ predict { gated(rows: {X: [1, 2, 3, 4]}) { version } echo(rows: {X: [1, 2, 3, 4]}) { version } } }"});
    let answer = client.post("/graphql", "x-request-timeout-ms: 1500\r\n", body.to_string()).await;
    let body = answer.json();
    assert_eq!(body["errors"][0]["extensions"]["code"], "DEADLINE_EXCEEDED", "{body}");
    assert_eq!(body["data"]["predict"]["echo"]["version"], 1);
}

/// `OUTHAUL_BLESS=1` writes the file anew; the diff is reviewed.
#[tokio::test]
async fn the_schema_is_what_people_reviewed() {
    let server = server().await;
    let sdl = server.connect().await.get("/graphql/schema.graphql", "").await;
    let sdl = String::from_utf8(sdl.body).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schema.graphql");
    if std::env::var_os("OUTHAUL_BLESS").is_some() {
        std::fs::write(&golden, &sdl).unwrap();
    }
    assert_eq!(sdl, std::fs::read_to_string(golden).unwrap_or_default());
}
