//! `predict`, `inspect` and `doctor`: commands that answer and end.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::{Folder, Ran};

/// `y = x + [1, 2, 3]` or the like: whatever `add_row` is, its inputs and outputs are FP32.
fn with_models() -> Folder {
    let folder = Folder::new();
    folder.model("identity_fp32", "models/echo/2/model.onnx");
    folder.model("identity_int64", "models/whole/model.onnx");
    folder.model("identity_bytes", "models/text/model.onnx");
    folder
}

#[test]
fn a_prediction_is_printed_for_people_and_for_programs() {
    let folder = with_models();
    let signature = folder.run(&["inspect", "models/echo", "--output", "json"]).json();
    let (input, output) = (&signature["inputs"][0]["name"], &signature["outputs"][0]["name"]);
    let (input, output) = (input.as_str().unwrap(), output.as_str().unwrap());
    let given = json!({ input: [[0.1, -2.0, 3.0]] }).to_string();
    let text = folder.run(&["predict", "models/echo", "--json", &given]).ok();
    assert!(text.starts_with(&format!("{output}  FP32 [1,3]  [[0.1,-2.0,3.0]]\n")), "{text}");
    assert!(text.contains("\necho version 2 on embedded, "), "{text}");

    folder.write("rows.json", &given);
    let arguments = ["predict", "models/echo", "--file", "rows.json", "--output", "json"];
    let answer = folder.run(&arguments).json();
    assert_eq!(answer["model"], "echo");
    assert_eq!(answer["version"], 2);
    assert_eq!(answer["outputs"][output]["data"], json!([[0.1, -2.0, 3.0]]));
    assert_eq!(answer["outputs"][output]["shape"], json!([1, 3]));

    let mut command = folder.outhaul(&["predict", "models/echo", "--file", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let from_stdin = Ran::new(child.wait_with_output().unwrap()).ok();
    assert_eq!(from_stdin.lines().next(), text.lines().next());
}

/// `add_row` (`y = x + [1, 10, 100, 1000]`), asked by columns and answered with classes.
fn with_columns() -> Folder {
    let folder = Folder::new();
    folder.model("add_row", "models/wards/1/model.onnx");
    folder.write(
        "models/wards/model.toml",
        r#"[transform]
input = { kind = "rows", columns = ["north", "east", "south", "west"] }
output = { kind = "classification", activation = "none", labels = ["n", "e", "s", "w"] }
"#,
    );
    folder
}

#[test]
fn rows_are_answered_in_words() {
    let folder = with_columns();
    let row = r#"{"north": 5000, "east": 1, "south": 2, "west": 3}"#;
    let text = folder.run(&["predict", "models/wards", "--json", row]).ok();
    let expected = "\
label          n
score          5001.0000
probabilities  n 5001.0000, w 1003.0000, s 102.0000, e 11.0000

wards version 1 on embedded, ";
    assert!(text.starts_with(expected), "{text}");

    let rows = format!(r#"[{row}, {{"north": 0, "east": 0, "south": 0, "west": 0}}]"#);
    let text = folder.run(&["predict", "models/wards", "--json", &rows]).ok();
    let labels: Vec<_> = text.lines().take(3).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(labels, ["label", "n", "w"], "{text}");

    folder.write("rows.csv", "west,north,east,south\n0,5000,0,0\n0,0,0,5000\n");
    let arguments = ["predict", "models/wards", "--csv", "rows.csv", "--output", "json"];
    let answer = folder.run(&arguments).json();
    assert_eq!(answer["outputs"]["label"]["data"], json!(["n", "s"]));

    for tensors in
        [r#"{"x": [[0, 5000, 0, 0]]}"#, r#"{"north":[0],"east":[5000],"south":[0],"west":[0]}"#]
    {
        let arguments = ["predict", "models/wards", "--json", tensors, "--output", "json"];
        let answer = folder.run(&arguments).json();
        assert_eq!(answer["outputs"]["label"]["data"], json!(["e"]), "{tensors}");
    }
}

#[test]
fn what_does_not_fit_a_models_rows_is_told() {
    let folder = with_columns();
    struct Case(&'static [&'static str], &'static str);
    let cases = [
        Case(&["--json", r#"{"north": 1}"#], "row 0: "),
        Case(&["--json", "[]"], "request has no rows"),
        Case(&["--json", "{"], "malformed JSON"),
        Case(&["--text", "windy"], "'wards' takes no text in a row; it takes 'north', 'east', "),
        Case(&["--image", "map.png"], "cannot read map.png: "),
        Case(&["--csv", "none.csv"], "cannot read none.csv: "),
    ];
    for Case(flags, expected) in cases {
        let error = folder.run(&[&["predict", "models/wards"], flags].concat()).failed();
        assert!(error.starts_with(&format!("error: {expected}")), "{flags:?}: {error}");
    }
    let twice = folder.run(&["predict", "models/wards", "--json", "{}", "--text", "windy"]);
    assert_eq!(twice.code, Some(2), "{twice:?}");
}

#[test]
fn an_inspection_tells_what_callers_see() {
    let folder = with_columns();
    let text = folder.run(&["inspect", "models/wards"]).ok();
    for line in [
        "task        classification\n",
        "takes       north  number  FP64 [-1]\n",
        "gives       label          label  BYTES [-1]: n, e, s, w\n",
        "inputs      x  FP32 [",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let outer = &folder.run(&["inspect", "models/wards", "--output", "json"]).json()["outer"];
    assert_eq!(outer["task"], "classification");
    assert_eq!(outer["inputs"][3]["name"], "west");
    assert_eq!(outer["outputs"][0]["choices"], json!(["n", "e", "s", "w"]));

    let wrong = "[transform]\ninput = { kind = \"rows\", columns = [\"a\", \"b\"] }\n";
    folder.write("models/wards/model.toml", wrong);
    let text = folder.run(&["inspect", "models/wards"]).ok();
    assert!(text.contains("\ntransform   "), "{text}");
}

#[test]
fn a_prediction_loads_one_version_alone() {
    let folder = with_models();
    folder.model("not_onnx", "models/echo/1/model.onnx");
    folder.model("add_row", "models/echo/3/model.onnx");
    let given = r#"{"x":[[1,2,3,4]]}"#;
    struct Case(&'static [&'static str], u64, serde_json::Value);
    let cases = [
        Case(&[], 3, json!([[2.0, 12.0, 103.0, 1004.0]])),
        Case(&["--model-version", "2"], 2, json!([[1.0, 2.0, 3.0, 4.0]])),
    ];
    for Case(flags, version, expected) in cases {
        let plain = ["predict", "models/echo", "--json", given];
        let ran = folder.run(&[&plain, flags].concat());
        assert_eq!(ran.err, "", "the broken version is not looked at");
        let text = ran.ok();
        assert!(text.contains(&format!("\necho version {version} on embedded, ")), "{text}");
        let answer = folder.run(&[&plain[..], flags, &["--output", "json"]].concat()).json();
        assert_eq!(answer["version"], version);
        assert_eq!(answer["outputs"]["y"]["data"], expected);
    }
    let broken = ["predict", "models/echo", "--json", given, "--model-version", "1"];
    let error = folder.run(&broken).failed();
    assert!(error.contains("models/echo/1/model.onnx"), "{error}");
}

#[test]
fn a_wrong_input_is_told_what_is_wrong() {
    let folder = with_models();
    let input = folder.run(&["inspect", "models/echo", "--output", "json"]).json();
    let input = input["inputs"][0]["name"].as_str().unwrap().to_owned();
    struct Case(serde_json::Value, String);
    let cases = [
        Case(json!({ "zzz": [[1]] }), format!("unknown input 'zzz'; the model takes '{input}'")),
        Case(json!({ &input: [["one"]] }), format!("{input}[0][0] is \"one\", expected a number")),
        Case(json!({ &input: [[1, 2], [3]] }), format!("{input}[1] has 1 element")),
        Case(json!({}), format!("missing input '{input}'")),
        Case(json!([1]), "the input is not JSON of the form".to_owned()),
    ];
    for Case(given, expected) in cases {
        let error = folder.run(&["predict", "models/echo", "--json", &given.to_string()]).failed();
        assert!(error.starts_with(&format!("error: {expected}")), "{given}: {error}");
    }
}

#[test]
fn one_row_too_flat_gets_a_hint() {
    let folder = Folder::new();
    let iris = crate::repository().join("examples/models/iris");
    let iris = iris.to_str().unwrap();
    let ran = folder.run(&["predict", iris, "--json", r#"{"X":[5.1,3.5,1.4,0.2]}"#]);
    if ran.err.contains("does not run") {
        // Without ONNX Runtime's library this model may have no engine; that is told elsewhere.
        return;
    }
    let error = ran.failed();
    assert!(error.contains("input 'X' has shape [4], expected ["), "{error}");
    assert!(error.ends_with("put each list into another pair of brackets\n"), "{error}");
}

#[test]
fn a_path_that_is_no_single_model_is_told() {
    let folder = with_models();
    let error = folder.run(&["inspect", "models"]).failed();
    assert_eq!(
        error,
        "error: models holds 3 models (echo, text, whole); name one of them, as in models/echo\n"
    );
    let error = folder.run(&["inspect", "nowhere"]).failed();
    assert!(error.starts_with("error: nowhere: cannot be read: "), "{error}");
    let error = folder.run(&["inspect", "models/echo", "--model-version", "7"]).failed();
    assert_eq!(error, "error: 'echo' has no such version; it has 2\n");
}

#[test]
fn an_inspection_tells_which_engines_run_a_model() {
    let folder = with_models();
    folder.model("not_onnx", "broken.onnx");
    let text = folder.run(&["inspect", "models/echo"]).ok();
    assert!(text.starts_with("model       echo version 2\nfile        models/echo/2/model.onnx ("));
    assert!(text.contains("\noperators   1 Identity\n"), "{text}");
    assert!(text.contains("\n            embedded 0."), "{text}");
    assert!(text.contains(": runs it\n"), "{text}");
    let inspected = folder.run(&["inspect", "models/text", "--output", "json"]).json();
    let engines = inspected["engines"].as_array().unwrap();
    let embedded = engines.iter().find(|engine| engine["name"] == "embedded").unwrap();
    assert_eq!(embedded["runs"], false, "the embedded engine has no strings");
    assert!(embedded["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    let error = folder.run(&["inspect", "broken.onnx"]).failed();
    assert!(error.starts_with("error: cannot read broken.onnx: "), "{error}");
}

#[test]
fn the_doctor_names_what_it_looked_at() {
    let folder = Folder::new();
    let text = folder.run(&["doctor"]).ok();
    for name in ["outhaul", "system", "cores", "memory", "onnxruntime", "embedded"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}: {text}");
    }
    let json = folder.run(&["doctor", "--onnxruntime", "nowhere.so", "--output", "json"]).json();
    assert_eq!(json["onnxruntime"]["version"], serde_json::Value::Null);
    assert_eq!(json["onnxruntime"]["looked"][0]["path"], "nowhere.so");
    let warnings = json["warnings"].as_array().unwrap();
    let told = |warning: &serde_json::Value| {
        warning["what"].as_str().is_some_and(|what| what.starts_with("ONNX Runtime was not found"))
    };
    assert!(warnings.iter().any(told), "{json}");
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let folder = Folder::new();
    let mut command = folder.outhaul(&["completions", "bash"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::new(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}
