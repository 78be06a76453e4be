use outhaul_types::{Content, DataType, Field, Label, ModelVersion, Tensor, VersionChoice};
use serde_json::{Value, json};

use super::*;
use crate::describe::EntryState;
use crate::oip::Target;
use crate::rows::tests::{Model, answer, input, spec};
use crate::tensorflow_grpc::VersionFact;

fn read(model: &Model, verb: Verb, body: &str) -> Result<Decoded, String> {
    let decoded = decode(verb, body.as_bytes(), &model.schema(), &DecodeLimits::default());
    decoded.map_err(|error| error.to_string())
}

fn packed() -> Model {
    Model::of([spec("X", DataType::Fp32, &[-1, 2])])
}

#[test]
fn rows_and_columns_are_answered_in_their_form() {
    let labels = || answer(vec![("y", Tensor::from_vec([2], vec![7_i64, 8]).unwrap())]);
    for (body, expected) in [
        (r#"{"instances":[[1,2],[3,4]]}"#, r#"{"predictions":[7,8]}"#),
        (
            r#"{"signature_name":"serving_default","inputs":[[1,2],[3,4]],"other":1}"#,
            r#"{"outputs":[7,8]}"#,
        ),
        (r#"{"signature_name":"","inputs":{"X":[[1,2],[3,4]]}}"#, r#"{"outputs":[7,8]}"#),
    ] {
        let model = packed();
        let decoded = read(&model, Verb::Predict, body).unwrap();
        let tensor = input(&decoded.request.inputs, "X");
        assert_eq!(tensor.as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
        let written = encode(&decoded.format, &[labels()], &model.schema()).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }
}

#[test]
fn what_is_no_request_is_named() {
    for (verb, body, expected) in [
        (Verb::Predict, "[]", "the request must be an object, got a list"),
        (Verb::Predict, "{}", "the request has neither 'instances' nor 'inputs'"),
        (
            Verb::Predict,
            r#"{"instances":[[1,2]],"inputs":[[1,2]]}"#,
            "the request has both 'instances' and 'inputs': send rows or whole tensors",
        ),
        (
            Verb::Predict,
            r#"{"signature_name":"other","instances":[[1,2]]}"#,
            "'signature_name' is 'other', but models have 'serving_default' alone",
        ),
        (
            Verb::Predict,
            r#"{"signature_name":5,"instances":[[1,2]]}"#,
            "'signature_name' must be a string, got a number",
        ),
        (
            Verb::Classify,
            r#"{"examples":[{"X":[1,2]}]}"#,
            "model 'm' is no classifier (its task is tensors), so it has no classes to answer with",
        ),
        (Verb::Regress, r#"{"examples":[{"X":[1,2]}]}"#, "model 'm' is no regression"),
    ] {
        let error = read(&packed(), verb, body).unwrap_err();
        assert!(error.starts_with(expected), "{body}: {error}");
    }
}

fn classifier() -> Model {
    let mut model = Model::people();
    let choices: std::sync::Arc<[String]> = ["no".to_owned(), "yes".to_owned()].into();
    model.interface.task = outhaul_types::Task::Classification;
    model.signature.outputs = vec![
        spec("label", DataType::Bytes, &[-1]),
        spec("probabilities", DataType::Fp32, &[-1, 2]),
    ];
    model.interface.outputs = vec![
        Field::of(Content::Label),
        Field { choices: Some(choices), ..Field::of(Content::Score) },
    ];
    model
}

#[test]
fn examples_are_classified() {
    let model = classifier();
    let body = r#"{"context":{"city":["Oslo"],"member":1},
        "examples":[{"age":[41]},{"age":7.5,"city":"Bergen","height":[1.2]}]}"#;
    let decoded = read(&model, Verb::Classify, body).unwrap();
    let names: Vec<_> = decoded.request.outputs.iter().map(|output| output.name.clone()).collect();
    assert_eq!(names, ["probabilities"]);
    let inputs = &decoded.request.inputs;
    assert_eq!(input(inputs, "age").as_slice::<f64>().unwrap(), [41.0, 7.5]);
    assert_eq!(crate::rows::tests::strings(input(inputs, "city")), ["Oslo", "Bergen"]);
    let scores = Tensor::from_vec([2, 2], vec![0.25_f32, 0.75, 1.0, 0.0]).unwrap();
    let answers = [answer(vec![("probabilities", scores)])];
    let written = encode(&decoded.format, &answers, &model.schema()).unwrap();
    let written: Value = serde_json::from_slice(&written).unwrap();
    let expected = json!([[["no", 0.25], ["yes", 0.75]], [["no", 1.0], ["yes", 0.0]]]);
    assert_eq!(written, json!({ "results": expected, "result": expected }));
    for (body, expected) in [
        ("{}", "the request has no 'examples'"),
        (r#"{"examples":{}}"#, "'examples' must be a list, got an object"),
        (r#"{"examples":[]}"#, "request has no rows"),
        (r#"{"examples":[5]}"#, "row 0 must be an object, got a number"),
        (r#"{"examples":[{}],"context":[]}"#, "'context' must be an object, got a list"),
        (r#"{"examples":[{"age":[1,2],"city":"a","member":1}]}"#, "row 0: 'age' must be a number"),
        (r#"{"examples":[{"colour":1}]}"#, "row 0: 'colour' is no input of this model"),
    ] {
        let error = read(&model, Verb::Classify, body).unwrap_err();
        assert!(error.starts_with(expected), "{body}: {error}");
    }
}

#[test]
fn examples_get_their_value() {
    let mut model = packed();
    model.interface.task = outhaul_types::Task::Regression;
    model.signature.outputs = vec![spec("value", DataType::Fp32, &[-1])];
    model.interface.outputs = vec![Field::of(Content::Tensor)];
    let decoded = read(&model, Verb::Regress, r#"{"examples":[{"X":[1,2]},{"X":[3,4]}]}"#).unwrap();
    let values = Tensor::from_vec([2], vec![1.5_f32, -2.0]).unwrap();
    let answers = [answer(vec![("value", values)])];
    let written = encode(&decoded.format, &answers, &model.schema()).unwrap();
    assert_eq!(written, br#"{"results":[1.5,-2.0],"result":[1.5,-2.0]}"#);
}

#[test]
fn paths_name_model_version_and_question() {
    let target = |version| Target { model: "iris".into(), version };
    let exact = || VersionChoice::Exact(ModelVersion(3));
    let stable = || VersionChoice::Label(Label::new("stable").unwrap());
    for (rest, version, asked) in [
        ("iris:predict", VersionChoice::Latest, Verb::Predict),
        ("iris/versions/3:classify", exact(), Verb::Classify),
        ("iris/versions/0:predict", VersionChoice::Latest, Verb::Predict),
        ("iris/labels/stable:regress", stable(), Verb::Regress),
    ] {
        let expected = Path { target: target(version), asked };
        assert_eq!(Path::of_prediction(rest), Ok(expected), "{rest}");
    }
    for (rest, version, asked) in [
        ("iris", VersionChoice::Latest, Question::Status),
        ("iris/", VersionChoice::Latest, Question::Status),
        ("iris/metadata", VersionChoice::Latest, Question::Metadata),
        ("iris/versions/3", exact(), Question::Status),
        ("iris/labels/stable/metadata", stable(), Question::Metadata),
    ] {
        let expected = Path { target: target(version), asked };
        assert_eq!(Path::of_description(rest), Ok(expected), "{rest}");
    }
    for rest in ["iris", "iris:explain", ":predict", "iris/versions:predict", "a/b/c/d:predict"] {
        assert!(Path::of_prediction(rest).is_err(), "{rest}");
    }
    for rest in ["", "/metadata", "iris/versions/1st", "iris/labels/", "iris/versions/1/2"] {
        assert!(Path::of_description(rest).is_err(), "{rest}");
    }
}

#[test]
fn one_status_serves_three_kinds_of_client() {
    let fact =
        |version, state, failure| VersionFact { version: ModelVersion(version), state, failure };
    let facts = [
        fact(2, EntryState::Ready, None),
        fact(1, EntryState::Unavailable, Some("its file is damaged")),
    ];
    let status: Value = serde_json::from_slice(&model_status("iris", true, facts)).unwrap();
    assert_eq!(
        status["model_version_status"],
        json!([
            {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
            {"version": "1", "state": "END",
             "status": {"error_code": "UNKNOWN", "error_message": "its file is damaged"}},
        ])
    );
    assert_eq!((&status["ready"], &status["name"]), (&json!(true), &json!("iris")));
    assert_eq!((&status["object"], &status["id"]), (&json!("model"), &json!("iris")));
    let list: Value = serde_json::from_slice(&model_list(["a", "b"])).unwrap();
    assert_eq!((&list["object"], &list["models"]), (&json!("list"), &json!(["a", "b"])));
    assert_eq!(list["data"][1]["id"], "b");
    let metadata: Value = serde_json::from_slice(&model_metadata(&packed().schema())).unwrap();
    let signature = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
    assert_eq!(signature["method_name"], "tensorflow/serving/predict");
    assert_eq!(signature["inputs"]["X"]["dtype"], "DT_FLOAT");
    assert_eq!(signature["inputs"]["X"]["tensor_shape"]["dim"][1]["size"], "2");
}
