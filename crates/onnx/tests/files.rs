//! The committed models: what is read from them, and what is said about those to refuse.

use std::path::{Path, PathBuf};

use outhaul_onnx::{OnnxError, OnnxModel, RowIndependence, read};
use outhaul_types::{Classify, DataType, ErrorKind};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn test_model(name: &str) -> Result<OnnxModel, OnnxError> {
    read(&root().join(format!("testdata/models/{name}.onnx")))
}

fn example(name: &str) -> OnnxModel {
    read(&root().join(format!("examples/models/{name}/1/model.onnx"))).expect("a committed model")
}

#[test]
fn broken_files_are_refused_by_name() {
    struct Case(&'static str, ErrorKind, &'static str);
    let invalid = ErrorKind::InvalidInput;
    let cases = [
        Case("truncated", invalid, "is cut off"),
        Case("not_onnx", invalid, "is not an ONNX file"),
        Case("zero_bytes", invalid, "is empty"),
        Case("negative_dim", invalid, "tensor 'w': its dimensions [-1, 4] are negative"),
        Case("initializer_lies", invalid, "tensor 'w': FLOAT [4, 4] needs 64 bytes, it has 16"),
        Case("initializer_overflow", invalid, "multiply to more than 64 bits"),
        Case("initializer_huge", invalid, "needs 4398046511104 bytes, it has 0"),
        Case("external_missing", invalid, "'w' in 'missing.bin', which cannot be opened"),
        Case("external_escape", invalid, "a path that leaves the model's folder"),
        Case("external_absolute", invalid, "a path that leaves the model's folder"),
        Case("cycle", invalid, "needs its own result"),
        Case("undefined_value", invalid, "needs 'nowhere', which nothing makes"),
        Case("deep_nesting", ErrorKind::Unsupported, "nests deeper than 100"),
        Case("sequence_output", ErrorKind::Unsupported, "output 'y', which is a sequence"),
        Case("no_such_model", ErrorKind::NotFound, "cannot be read"),
    ];
    for Case(name, kind, expected) in cases {
        let error = test_model(name).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(error.to_string().contains(name), "{error} names the file");
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
}

#[test]
fn rows_of_test_models_are_told_apart() {
    struct Case(&'static str, &'static str);
    let cases = [
        Case("add_row", "Exact"),
        Case("two_inputs", "Exact"),
        Case("sequence", "Exact"),
        Case("deep_graph", "Exact"),
        Case("optional_input", "Exact"),
        Case("identity_bytes", "Exact"),
        Case("int64_arithmetic", "Exact"),
        Case("int8_mlp", "takes one scale over the whole batch"),
        Case("mix_rows", "reduces over axis 0"),
        Case("softmax_axis0", "normalises over axis 0"),
        Case("loop_if", "Mixed"),
        Case("unknown_operator", "com.example.Frobnicate"),
        Case("string_upper", "Mixed"),
        Case("scalar", "NoBatch"),
        Case("no_batch", "NoBatch"),
        Case("fixed_batch", "NoBatch"),
    ];
    for Case(name, expected) in cases {
        let independence = format!("{:?}", test_model(name).unwrap().row_independence());
        assert!(independence.contains(expected), "{name}: {independence}");
    }
}

#[test]
fn example_models_batch_and_tell_what_they_are() {
    for name in ["iris", "digits", "breast_cancer", "iris_words"] {
        assert_eq!(example(name).row_independence(), RowIndependence::Exact, "{name}");
    }
    let iris = example("iris");
    assert_eq!(iris.signature.inputs[0].shape.to_string(), "[batch,4]");
    let outputs: Vec<String> = iris
        .signature
        .outputs
        .iter()
        .map(|spec| format!("{} {} {}", spec.name, spec.data_type, spec.shape))
        .collect();
    assert_eq!(outputs, ["label INT64 [batch]", "probabilities FP32 [batch,3]"]);
    assert_eq!((iris.ir_version, iris.opset("")), (8, Some(17)));
    assert_eq!((iris.parameters(), iris.weight_bytes()), (15, 60));
    assert_eq!(iris.producer, "outhaul/examples/make_models.py");
    let operators: Vec<String> =
        iris.operators().into_iter().map(|((_, name), count)| format!("{count} {name}")).collect();
    assert_eq!(operators, ["1 ArgMax", "1 Gemm", "1 Softmax"]);
    assert_eq!(example("iris_words").signature.inputs[0].data_type, DataType::Bytes);
    assert!(example("breast_cancer").parameters() > 100, "trees keep numbers in attributes");
}

#[test]
fn optional_inputs_and_subgraphs_are_seen() {
    let model = test_model("optional_input").unwrap();
    let optional: Vec<bool> = model.signature.inputs.iter().map(|spec| spec.optional).collect();
    assert_eq!(optional, [false, true]);
    let operators = test_model("loop_if").unwrap().operators();
    let key = |name: &str| (String::new(), name.to_owned());
    assert_eq!(operators.get(&key("Neg")), Some(&1), "inside the If");
    assert_eq!(operators.get(&key("Identity")), Some(&2), "inside the Loop and the If");
}
