use std::collections::BTreeMap;
use std::time::Instant;

use outhaul_types::{
    Content, DataType, Dimension, Field, Interface, ModelName, ModelSignature, ModelVersion, Name,
    NamedTensor, ShapePattern, Strings, Task, Tensor, TensorSpec, Timings,
};
use serde_json::{Value, json};

use super::*;
use crate::describe::ServerMetadata;

/// A model of the tests.
struct Model {
    name: &'static str,
    signature: ModelSignature,
    interface: Interface,
}

fn spec(name: &str, data_type: DataType, row: &[Dimension], optional: bool) -> TensorSpec {
    let shape = ShapePattern::ranked([Dimension::Any].into_iter().chain(row.iter().cloned()));
    TensorSpec { name: name.into(), data_type, shape, optional }
}

fn field(content: Content, choices: &[&str]) -> Field {
    let choices: Vec<String> = choices.iter().map(|&choice| choice.to_owned()).collect();
    Field { content, choices: (!choices.is_empty()).then(|| choices.into()), unit: None }
}

/// Columns to a label, with names that are no GraphQL names.
fn flowers() -> Model {
    let (any, three) = (&[][..], [Dimension::Fixed(3)]);
    Model {
        name: "flowers.v2",
        signature: ModelSignature {
            inputs: vec![
                spec("sepal length", DataType::Fp64, any, false),
                spec("colour", DataType::Bytes, any, true),
                spec("wild", DataType::Fp64, any, true),
            ],
            outputs: vec![
                spec("label", DataType::Bytes, any, false),
                spec("score", DataType::Fp32, any, false),
                spec("probabilities", DataType::Fp32, &three, false),
            ],
        },
        interface: Interface {
            task: Task::Classification,
            inputs: vec![
                Field { unit: Some("cm".into()), ..field(Content::Number, &[]) },
                field(Content::Category, &["red", "\"blue\""]),
                field(Content::Boolean, &[]),
            ],
            outputs: vec![
                field(Content::Label, &["a", "b", "c"]),
                field(Content::Score, &[]),
                field(Content::Score, &["a", "b", "c"]),
            ],
            sample: Some(r#"[{"sepal length": 5.5}]"#.into()),
            ..Interface::default()
        },
    }
}

fn tensors(name: &'static str, input: TensorSpec, output: TensorSpec) -> Model {
    let signature = ModelSignature { inputs: vec![input], outputs: vec![output] };
    let interface = Interface::of_tensors(&signature);
    Model { name, signature, interface }
}

fn models() -> Vec<Model> {
    let scalar = TensorSpec {
        name: "x".into(),
        data_type: DataType::Fp32,
        shape: ShapePattern::ranked([]),
        optional: false,
    };
    let (four, open) = ([Dimension::Fixed(4)], [Dimension::Fixed(2), Dimension::Any]);
    vec![
        flowers(),
        tensors(
            "flat",
            spec("X:0", DataType::Fp32, &four, false),
            spec("Y", DataType::Int64, &[], false),
        ),
        tensors(
            "flowers_v2",
            spec("X", DataType::Uint8, &four, false),
            spec("Y", DataType::Bool, &four, false),
        ),
        tensors(
            "nested",
            spec("X", DataType::Fp32, &open, false),
            spec("Y", DataType::Fp32, &open, false),
        ),
        tensors("scalar", scalar.clone(), scalar),
    ]
}

fn schema(model: &Model) -> Schema<'_> {
    let Model { name, signature, interface } = model;
    Schema { name, version: ModelVersion(7), signature, interface }
}

fn api() -> Arc<Api> {
    let models = models();
    Arc::new(Api::of(&models.iter().map(schema).collect::<Vec<_>>()))
}

fn request(query: &str, variables: Value) -> GraphqlRequest {
    let body = json!({ "query": query, "variables": variables }).to_string();
    GraphqlRequest::of_body(body.as_bytes()).unwrap()
}

fn read(query: &str, variables: Value) -> Result<Query, Refusal> {
    api().read(request(query, variables), 5, &Limits::default())
}

fn refusal(query: &str, variables: Value) -> (String, String) {
    let refusal = read(query, variables).unwrap_err();
    let body: Value = serde_json::from_slice(&refusal.body()).unwrap();
    let errors = body["errors"].as_array().unwrap();
    let code = errors[0]["extensions"]["code"].as_str().unwrap();
    let messages = errors.iter().map(|error| error["message"].as_str().unwrap());
    (code.to_owned(), messages.collect::<Vec<_>>().join("; "))
}

fn facts<'a>(models: Vec<ModelFacts<'a>>) -> Facts<'a> {
    let server = ServerMetadata { name: "outhaul", version: "1.2.3", extensions: &[] };
    Facts { server, ready: true, models }
}

fn response(outputs: Vec<NamedTensor>) -> InferResponse {
    InferResponse {
        id: None,
        model: ModelName::new("flowers.v2").unwrap(),
        version: ModelVersion(7),
        outputs: outputs.into_iter().collect(),
        timings: Timings::default(),
        tokens: None,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
    }
}

fn strings(values: &[&[u8]]) -> Tensor {
    let bytes = values.concat();
    let mut spans = Vec::new();
    let mut start = 0;
    for value in values {
        spans.push(start..start + value.len());
        start += value.len();
    }
    let strings = Strings::from_spans(bytes.into(), spans).unwrap();
    Tensor::from_strings([values.len()], strings).unwrap()
}

fn named(name: &str, tensor: Tensor) -> NamedTensor {
    NamedTensor { name: Name::from(name), tensor }
}

/// Two rows of `flowers.v2`.
fn flower_outputs(score: f32, label: &[u8]) -> Vec<NamedTensor> {
    let probabilities = vec![0.1_f32, 0.2, 0.7, 0.5, 0.25, 0.25];
    vec![
        named("label", strings(&[b"c", label])),
        named("score", Tensor::from_vec([2], vec![0.7, score]).unwrap()),
        named("probabilities", Tensor::from_vec([2, 3], probabilities).unwrap()),
    ]
}

fn answer(query: &Query, outputs: Vec<NamedTensor>) -> Value {
    let model = flowers();
    let predicted = Predicted { response: response(outputs), schema: schema(&model) };
    let predicted = vec![Ok(predicted); query.asked().len()];
    serde_json::from_slice(&query.answer(&predicted, &facts(vec![]))).unwrap()
}

const FLOWERS: &str = "flowers_v2_79b7";

#[test]
fn names_that_meet_are_kept_apart() {
    let api = api();
    let fields: BTreeMap<&str, &str> =
        api.models().iter().map(|model| (model.name.as_str(), model.field.as_str())).collect();
    assert_eq!(fields["flowers_v2"], "flowers_v2");
    assert_eq!(fields["flowers.v2"], FLOWERS);
    assert!(!fields.contains_key("scalar"), "it has no rows");
    assert!(
        api.sdl().contains("input NestedRow {\n  \"FP32 [-1,2,-1]\"\n  X: JSON!\n}"),
        "{}",
        api.sdl()
    );
}

#[test]
fn no_model_is_a_schema_too() {
    let api = Arc::new(Api::of(&[]));
    let query = api.read(
        request("{ server { name } models { name } }", json!(null)),
        0,
        &Limits::default(),
    );
    let body: Value = serde_json::from_slice(&query.unwrap().answer(&[], &facts(vec![]))).unwrap();
    assert_eq!(body, json!({"data": {"server": {"name": "outhaul"}, "models": []}}));
}

#[test]
fn a_typed_prediction_goes_there_and_back() {
    let query = format!(
        "query Q($rows: [FlowersV279b7Row!]!, $no: Boolean!) {{
           predict {{ ...all  left_out: {FLOWERS}(rows: $rows) @include(if: $no) {{ version }} }}
         }}
         fragment all on Predict {{
           first: {FLOWERS}(rows: $rows, version: 7) {{ model version rows {{ label p: probabilities }} }}
           {FLOWERS}(rows: [{{sepal_length: 1, wild: true}}, {{sepal_length: 2.5, colour: null}}], label: \"stable\") {{
             time {{ compute }} rows {{ score }}
           }}
         }}"
    );
    let rows = json!([{"sepal_length": 5, "colour": "red"}, {"sepal_length": 1e-7}]);
    let query = read(&query, json!({"rows": rows, "no": false})).unwrap();
    let [first, second] = query.asked() else { panic!("{:?}", query.asked()) };
    assert_eq!((&*first.model, first.count), ("flowers.v2", 2));
    assert_eq!(first.version, VersionChoice::Exact(ModelVersion(7)));
    let text = |asked: &Asked| serde_json::from_slice::<Value>(&asked.rows).unwrap();
    assert_eq!(text(first), json!([{"sepal length": 5, "colour": "red"}, {"sepal length": 1e-7}]));
    let expected =
        json!([{"sepal length": 1, "wild": true}, {"sepal length": 2.5, "colour": null}]);
    assert_eq!(text(second), expected);

    let body = answer(&query, flower_outputs(0.5, b"a"));
    let expected = json!({"data": {"predict": {
        "first": {"model": "flowers.v2", "version": 7, "rows": [
            {"label": "c", "p": [0.1, 0.2, 0.7]}, {"label": "a", "p": [0.5, 0.25, 0.25]},
        ]},
        FLOWERS: {"time": {"compute": 0.0}, "rows": [{"score": 0.7}, {"score": 0.5}]},
    }}});
    assert_eq!(body, expected);
}

#[test]
fn what_has_no_value_is_null_with_an_error_of_its_own() {
    let query = format!(
        "{{ predict {{ ok: {FLOWERS}(rows: [{{sepal_length: 1}}, {{sepal_length: 1}}]) {{ rows {{ label score }} }}
           no: {FLOWERS}(rows: []) {{ version }}
           both: {FLOWERS}(rows: {{sepal_length: 1}}, version: 1, label: \"x\") {{ version }} }} }}"
    );
    let query = read(&query, json!(null)).unwrap();
    assert_eq!(query.asked().len(), 1, "the others lead nowhere");
    let body = answer(&query, flower_outputs(f32::NAN, b"\xff"));
    let rows = &body["data"]["predict"]["ok"]["rows"];
    assert_eq!(rows, &json!([{"label": "c", "score": 0.7}, {"label": null, "score": null}]));
    assert_eq!(body["data"]["predict"]["no"], Value::Null);
    let errors = body["errors"].as_array().unwrap();
    let told: Vec<_> =
        errors.iter().map(|error| (&error["path"], &error["extensions"]["code"])).collect();
    let (unsupported, invalid) = (json!("UNSUPPORTED"), json!("INVALID_INPUT"));
    assert!(
        told.contains(&(&json!(["predict", "ok", "rows", 1, "label"]), &unsupported)),
        "{told:?}"
    );
    assert!(
        told.contains(&(&json!(["predict", "ok", "rows", 1, "score"]), &unsupported)),
        "{told:?}"
    );
    assert!(told.contains(&(&json!(["predict", "no"]), &invalid)), "{told:?}");
    assert!(told.contains(&(&json!(["predict", "both"]), &invalid)), "{told:?}");
    assert_eq!(errors.len(), 4);
    assert!(errors.iter().all(|error| !error["message"].as_str().unwrap().contains('\u{1}')));
}

#[test]
fn the_generic_field_takes_rows_as_they_are() {
    let query = "query($rows: [JSON!]!) { predict_json(model: \"flowers.v2\", rows: $rows) }";
    let rows = json!([{"sepal length": 5, "b": [1, {"x": null}]}, 7]);
    let query = read(query, json!({"rows": rows})).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&query.asked()[0].rows).unwrap(), rows);
    let body = answer(&query, flower_outputs(0.5, b"\xff"));
    let expected = json!({"model": "flowers.v2", "version": 7, "predictions": [
        {"label": "c", "score": 0.7, "probabilities": [0.1, 0.2, 0.7]},
        {"label": {"b64": "/w=="}, "score": 0.5, "probabilities": [0.5, 0.25, 0.25]},
    ]});
    assert_eq!(body["data"]["predict_json"], expected);
}

#[test]
fn a_model_tells_what_it_is_and_a_sleeping_one_what_is_known() {
    let model = flowers();
    let awake = ModelFacts {
        name: "flowers.v2",
        version: ModelVersion(1_700_000_000_000),
        state: "ready",
        in_service: true,
        reason: "",
        labels: vec!["stable"],
        memory: Some(1 << 40),
        loaded: Some(LoadedFacts {
            schema: schema(&model),
            engine: "embedded",
            batching: "exact",
            max_rows: 32,
        }),
        statistics: None,
    };
    let asleep = ModelFacts {
        version: ModelVersion(1_700_000_000_001),
        state: "dormant",
        reason: "loaded on request",
        labels: vec![],
        memory: None,
        loaded: None,
        ..awake.clone()
    };
    let query = read(
        "{ models { name version state reason memoryBytes task field inputs { name field content unit choices optional } sample }
           model(name: \"flowers.v2\", label: \"stable\") { version outputs { name shape } }
           latest: model(name: \"flowers.v2\") { version } none: model(name: \"x\") { version } }",
        json!(null),
    )
    .unwrap();
    assert!(query.is_about_models());
    let body = query.answer(&[], &facts(vec![awake, asleep]));
    let body: Value = serde_json::from_slice(&body).unwrap();
    let (data, models) = (&body["data"], &body["data"]["models"]);
    assert_eq!(body.get("errors"), None, "{body}");
    assert_eq!(models[0]["version"], 1_700_000_000_000_u64);
    assert_eq!(
        (&models[0]["task"], &models[0]["field"]),
        (&json!("classification"), &json!(FLOWERS))
    );
    let first = json!({"name": "sepal length", "field": "sepal_length", "content": "number",
        "unit": "cm", "choices": null, "optional": false});
    assert_eq!(models[0]["inputs"][0], first);
    assert_eq!(models[0]["inputs"][1]["choices"], json!(["red", "\"blue\""]));
    assert_eq!(models[0]["sample"], json!([{"sepal length": 5.5}]));
    assert_eq!(models[1]["inputs"], Value::Null, "nobody woke it");
    assert_eq!(models[1]["reason"], "loaded on request");
    assert_eq!(data["model"]["outputs"][2]["shape"], json!([-1, 3]));
    assert_eq!(data["latest"]["version"], 1_700_000_000_001_u64);
    assert_eq!(data["none"], Value::Null);
}

#[test]
fn what_is_no_request_is_malformed() {
    for body in [
        "",
        "{",
        "[]",
        "3",
        r#"{"query": 3}"#,
        r#"{"variables": {}}"#,
        r#"{"query": "{a}", "variables": []}"#,
    ] {
        let refusal = GraphqlRequest::of_body(body.as_bytes()).unwrap_err();
        assert!(refusal.malformed, "{body}");
    }
    let request =
        GraphqlRequest::of_parameters([("query", "{ a }"), ("variables", r#"{"x":1}"#)]).unwrap();
    assert_eq!(request.variables.len(), 1);
    assert!(GraphqlRequest::of_parameters([("variables", "{}")]).is_err());
    assert!(GraphqlRequest::of_parameters([("query", "{ a }"), ("variables", "[")]).is_err());
}

#[test]
fn a_query_that_does_not_fit_is_refused_with_a_code() {
    let none = json!(null);
    struct Case(&'static str, &'static str, &'static str);
    for Case(query, code, text) in [
        Case("", "GRAPHQL_PARSE_FAILED", "syntax error"),
        Case("{ server {", "GRAPHQL_PARSE_FAILED", "syntax error"),
        Case("{ nothing }", "GRAPHQL_VALIDATION_FAILED", "nothing"),
        Case(
            "{ predict { flat(rows: [{X_0: 1}]) { rows { Z } } } }",
            "GRAPHQL_VALIDATION_FAILED",
            "Z",
        ),
        Case(
            "{ predict { flat(rows: [{X_0: \"a\"}]) { version } } }",
            "GRAPHQL_VALIDATION_FAILED",
            "[Float!]",
        ),
        Case("{ predict { flat(rows: [{}]) { version } } }", "GRAPHQL_VALIDATION_FAILED", "X_0"),
        Case(
            "query A { server { name } } query B { server { name } }",
            "GRAPHQL_VALIDATION_FAILED",
            "operation",
        ),
        Case("mutation { a }", "UNSUPPORTED", "only queries"),
        Case(
            "query($v: Long!) { model(name: \"a\", version: $v) { name } }",
            "GRAPHQL_VALIDATION_FAILED",
            "v",
        ),
        Case(
            "{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }",
            "GRAPHQL_VALIDATION_FAILED",
            "itself",
        ),
    ] {
        let (received, message) = refusal(query, none.clone());
        assert_eq!(received, code, "{query}: {message}");
        assert!(message.contains(text), "{query}: {message}");
    }
}

#[test]
fn what_asks_for_too_much_is_refused_cheaply() {
    let deep = format!("{}{}", "{ a ".repeat(500), "}".repeat(500));
    let lists =
        format!("{{ predict_json(model: \"a\", rows: {}{}) }}", "[".repeat(5000), "]".repeat(5000));
    let mut aliases = String::from("{");
    for number in 0..1000 {
        aliases += &format!("a{number}: server {{ name }} ");
    }
    let aliases = aliases + "}";
    let same = format!("{{ {} }}", "models { name version } ".repeat(1500));
    let mut bomb = String::from("{ ...f0 } ");
    for number in 0..40 {
        let next = number + 1;
        bomb +=
            &format!("fragment f{number} on Query {{ ...f{next} server {{ name }} ...f{next} }} ");
    }
    bomb += "fragment f40 on Query { models { name } }";
    let schema = format!(
        "{{ __schema {{ types {{ fields {{ type {{ {} }} }} }} }} }}",
        "fields { type { ".repeat(8) + "name" + &" } }".repeat(8)
    );
    let reads = format!(
        "{{ {} }}",
        (0..9).map(|n| format!("a{n}: __schema {{ types {{ name }} }} ")).collect::<String>()
    );
    let many = format!(
        "{{ {} }}",
        (0..40)
            .map(|n| format!("a{n}: predict_json(model: \"m\", rows: [1]) "))
            .collect::<String>()
    );
    let long = format!("{{ server {{ name }} }} # {}", "x".repeat(70_000));
    let tokens = format!("{{ {} }}", "server { name } ".repeat(5000)[..60_000].to_owned());
    let rows = json!(vec![json!({"X_0": [1, 2, 3, 4]}); 6000]);
    let huge = "query($r: [FlatRow!]!) { predict { flat(rows: $r) { rows { Y } } } }";
    for (query, variables, text) in [
        (&deep, json!(null), "too deep"),
        (&lists, json!(null), "too deep"),
        (&aliases, json!(null), "1000 aliases"),
        (&same, json!(null), "costs"),
        (&bomb, json!(null), "costs"),
        (&schema, json!(null), "depth"),
        (&reads, json!(null), "questions about the schema"),
        (&many, json!(null), "40 predictions"),
        (&long, json!(null), "bytes"),
        (&tokens, json!(null), "too long"),
        (&huge.to_owned(), json!({ "r": rows }), "costs 18002"),
    ] {
        let started = Instant::now();
        let (code, message) = refusal(query, variables);
        let (took, start) = (started.elapsed(), &query[..query.len().min(60)]);
        assert!(message.contains(text), "{start}: {message}");
        assert_eq!(code, QUERY_LIMIT, "{start}");
        assert!(took.as_millis() < 2_000, "{start} took {took:?}, a debug build included");
    }
}

#[test]
fn the_usual_question_about_the_schema_is_answered() {
    // The query that graphql-core 3 sends, as its clients do before they start.
    let introspection = include_str!("introspection.graphql");
    let query = read(introspection, json!(null)).unwrap();
    let body: Value = serde_json::from_slice(&query.answer(&[], &facts(vec![]))).unwrap();
    assert_eq!(body.get("errors"), None, "{body}");
    let types = body["data"]["__schema"]["types"].as_array().unwrap();
    assert!(types.iter().any(|each| each["name"] == "FlowersV279b7Row"));
}

#[test]
fn a_query_that_spreads_much_stays_within_its_cost() {
    // Each fragment is counted at every place it is spread in, and only once weighed.
    let query =
        "{ ...a ...a } fragment a on Query { ...b ...b } fragment b on Query { server { name } }";
    assert!(read(query, json!(null)).is_ok());
}
