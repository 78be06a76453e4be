use half::f16;
use outhaul_types::{Labels, ModelSignature};
use serde_json::Value;

use super::*;

/// How far a probability may be from scipy's, which computes in FP64 where we do in FP32.
const TOLERANCE: f64 = 2e-6;

fn output(name: &str, data_type: DataType, sizes: &[i64]) -> TensorSpec {
    let size = |&size: &i64| usize::try_from(size).map_or(Dimension::Any, Dimension::Fixed);
    let shape = ShapePattern::ranked(sizes.iter().map(size));
    TensorSpec { name: name.into(), data_type, shape, optional: false }
}

fn built(
    spec: &ClassificationOutput,
    outputs: Vec<TensorSpec>,
) -> Result<Built<dyn OutputSide>, String> {
    let inner = ModelSignature { inputs: Vec::new(), outputs };
    let context = Context { inner: &inner, tokenizer: None };
    build(spec, &context).map_err(|error| error.to_string())
}

fn part(rows: usize) -> Part {
    Part { inputs: Default::default(), rows: (0..rows).collect(), encodings: Vec::new() }
}

fn labels(labels: &[&str]) -> Labels {
    Labels::List(labels.iter().map(|&label| label.to_owned()).collect())
}

fn texts(tensor: &Tensor) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    tensor.as_strings().unwrap().iter().map(text).collect()
}

/// Numbers of the reference file.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        Value::Number(number) => vec![number.as_f64().unwrap()],
        Value::String(text) => vec![text.parse().unwrap()],
        Value::Null => vec![f64::NAN],
        Value::Bool(_) | Value::Object(_) => panic!("{value}"),
    }
}

fn reference() -> Value {
    let text = include_str!("../../../../../testdata/transform/rows/answers.json");
    serde_json::from_str::<Value>(text).unwrap()["scores"].take()
}

fn tensor(kind: &str, shape: [usize; 2], numbers: &[f64]) -> Tensor {
    let tensor = match kind {
        "float16" => Tensor::from_vec(shape, numbers.iter().map(|&of| f16::from_f64(of)).collect()),
        "float32" => Tensor::from_vec(shape, numbers.iter().map(|&of| of as f32).collect()),
        "float64" => Tensor::from_vec(shape, numbers.to_vec()),
        _ => panic!("{kind}"),
    };
    tensor.unwrap()
}

fn assert_close(got: &[f32], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (got, expected) in got.iter().zip(expected) {
        assert!((f64::from(*got) - expected).abs() <= TOLERANCE, "{what}: {got}, not {expected}");
    }
}

#[test]
fn probabilities_and_their_order_are_those_of_scipy() {
    let reference = reference();
    let cases = reference["classes"].as_array().unwrap();
    assert!(cases.len() > 12);
    for case in cases {
        let kind = case["kind"].as_str().unwrap();
        let what = format!("{} of {kind}", case["activation"]);
        let rows = case["given"].as_array().unwrap().len();
        let given = numbers(&case["given"]);
        let classes = given.len() / rows;
        let given = tensor(kind, [rows, classes], &given);
        let spec = ClassificationOutput {
            activation: match case["activation"].as_str().unwrap() {
                "softmax" => Activation::Softmax,
                _ => Activation::Sigmoid,
            },
            top_k: NonZeroUsize::new(3),
            ..ClassificationOutput::default()
        };
        let inner = output("logits", given.data_type(), &[-1, -1]);
        let built = built(&spec, vec![inner]).unwrap();
        let answer = built.side.finish(&part(rows), &[given]).unwrap();
        let probabilities = answer[2].as_slice::<f32>().unwrap();
        assert_close(probabilities, &numbers(&case["probabilities"]), &what);
        let first: Vec<usize> = texts(&answer[0]).iter().map(|of| of.parse().unwrap()).collect();
        let expected: Vec<usize> =
            numbers(&case["first_three"]).iter().map(|&of| of as usize).collect();
        assert_eq!(first, expected, "{what}");
        let scores = answer[1].as_slice::<f32>().unwrap();
        for (place, (score, class)) in scores.iter().zip(first).enumerate() {
            assert_eq!(*score, probabilities[place / 3 * classes + class], "{what}");
        }
        let spec = ClassificationOutput { top_k: None, ..spec };
        let built =
            self::built(&spec, vec![output("logits", given_type(kind), &[-1, -1])]).unwrap();
        let given = tensor(kind, [rows, classes], &numbers(&case["given"]));
        let answer = built.side.finish(&part(rows), &[given]).unwrap();
        let best: Vec<String> = expected.chunks(3).map(|first| first[0].to_string()).collect();
        assert_eq!(texts(&answer[0]), best, "{what}");
    }
}

fn given_type(kind: &str) -> DataType {
    tensor(kind, [0, 1], &[]).data_type()
}

#[test]
fn one_number_a_row_is_the_second_of_two_classes() {
    let reference = &reference()["binary"];
    let given = numbers(&reference["given"]);
    let best: Vec<&str> = numbers(&reference["best"])
        .iter()
        .map(|&best| if best == 0.0 { "no" } else { "yes" })
        .collect();
    let spec = ClassificationOutput {
        activation: Activation::Sigmoid,
        labels: labels(&["no", "yes"]),
        ..ClassificationOutput::default()
    };
    let flat = tensor("float32", [given.len(), 1], &given);
    let shapes = [(flat.clone(), &[-1, 1][..]), (flat.reshaped([given.len()]).unwrap(), &[-1])];
    for (given, sizes) in shapes {
        let built = built(&spec, vec![output("y", DataType::Fp32, sizes)]).unwrap();
        assert_eq!(built.specs[2].shape.to_string(), "[-1,2]");
        let rows = given.shape()[0];
        let answer = built.side.finish(&part(rows), &[given]).unwrap();
        assert_eq!(texts(&answer[0]), best);
        let probabilities = answer[2].as_slice::<f32>().unwrap();
        assert_close(probabilities, &numbers(&reference["probabilities"]), "binary");
    }
    // One label: one class, which is there or is not.
    let spec = ClassificationOutput { labels: labels(&["spam"]), threshold: Some(0.5), ..spec };
    let built = built(&spec, vec![output("y", DataType::Fp32, &[-1, 1])]).unwrap();
    let answer = built.side.finish(&part(2), &[tensor("float32", [2, 1], &[2.0, -2.0])]).unwrap();
    assert_eq!(texts(&answer[0]), ["spam", "spam"]);
    assert_eq!(answer[3].as_bytes().unwrap()[..], [1, 0]);
}

#[test]
fn what_callers_see_follows_from_what_is_declared() {
    struct Case {
        spec: ClassificationOutput,
        sizes: &'static [i64],
        outer: &'static str,
    }
    let usual = ClassificationOutput::default;
    let cases = [
        Case {
            spec: usual(),
            sizes: &[-1, 3],
            outer: "label BYTES [-1], score FP32 [-1], probabilities FP32 [-1,3]",
        },
        Case {
            spec: ClassificationOutput { labels: labels(&["a", "b", "c"]), ..usual() },
            sizes: &[-1, -1],
            outer: "label BYTES [-1], score FP32 [-1], probabilities FP32 [-1,3]",
        },
        Case {
            spec: ClassificationOutput { top_k: NonZeroUsize::new(2), ..usual() },
            sizes: &[-1, -1],
            outer: "labels BYTES [-1,2], scores FP32 [-1,2], probabilities FP32 [-1,-1]",
        },
        Case {
            spec: ClassificationOutput {
                activation: Activation::Sigmoid,
                threshold: Some(0.5),
                ..usual()
            },
            sizes: &[-1, 3],
            outer: "label BYTES [-1], score FP32 [-1], probabilities FP32 [-1,3], selected BOOL \
                    [-1,3]",
        },
    ];
    for Case { spec, sizes, outer } in cases {
        let built = built(&spec, vec![output("logits", DataType::Fp32, sizes)]).unwrap();
        let shown = |spec: &TensorSpec| format!("{} {} {}", spec.name, spec.data_type, spec.shape);
        let specs: Vec<String> = built.specs.iter().map(shown).collect();
        assert_eq!(specs.join(", "), outer);
        assert_eq!(built.fields.len(), specs.len());
        assert_eq!(built.fields[0].content, Content::Label);
        assert_eq!(built.fields[2].choices.is_some(), spec.labels != Labels::Numbers);
    }
}

#[test]
fn thresholds_mark_or_take_away() {
    let given = || tensor("float32", [2, 3], &[4.0, 0.0, -4.0, 0.1, 0.0, 0.2]);
    let answer = |spec: &ClassificationOutput| {
        let built = built(spec, vec![output("logits", DataType::Fp32, &[-1, 3])]).unwrap();
        built.side.finish(&part(2), &[given()]).unwrap()
    };
    let spec = ClassificationOutput {
        labels: labels(&["a", "b", "c"]),
        threshold: Some(0.5),
        below: "unsure".to_owned(),
        ..ClassificationOutput::default()
    };
    assert_eq!(texts(&answer(&spec)[0]), ["a", "unsure"]);
    let top = ClassificationOutput { top_k: NonZeroUsize::new(2), ..spec.clone() };
    assert_eq!(texts(&answer(&top)[0]), ["a", "unsure", "unsure", "unsure"]);
    let sigmoid = ClassificationOutput { activation: Activation::Sigmoid, ..spec };
    let marked = answer(&sigmoid);
    assert_eq!(texts(&marked[0]), ["a", "c"]);
    assert_eq!(marked[3].as_bytes().unwrap()[..], [1, 1, 0, 1, 1, 1]);
}

#[test]
fn what_is_no_number_is_never_the_best_and_fails_nobody() {
    let nan = f64::NAN;
    let given = || tensor("float32", [2, 3], &[nan, 1.0, 2.0, nan, nan, nan]);
    let answer = |spec: &ClassificationOutput| {
        let built = built(spec, vec![output("logits", DataType::Fp32, &[-1, 3])]).unwrap();
        built.side.finish(&part(2), &[given()]).unwrap()
    };
    let softmax = ClassificationOutput { below: "?".to_owned(), ..ClassificationOutput::default() };
    let answered = answer(&softmax);
    assert_eq!(texts(&answered[0]), ["?", "?"], "softmax has no probabilities of such a row");
    assert!(answered[1].as_slice::<f32>().unwrap().iter().all(|score| score.is_nan()));
    let each = ClassificationOutput { activation: Activation::None, ..softmax.clone() };
    let answered = answer(&each);
    assert_eq!(texts(&answered[0]), ["2", "?"]);
    let three = ClassificationOutput { top_k: NonZeroUsize::new(3), ..each };
    assert_eq!(texts(&answer(&three)[0]), ["2", "1", "?", "?", "?", "?"]);
    let marking =
        ClassificationOutput { activation: Activation::Sigmoid, threshold: Some(0.0), ..softmax };
    assert_eq!(answer(&marking)[3].as_bytes().unwrap()[..], [0, 1, 1, 0, 0, 0]);
}

#[test]
fn scikit_learns_probabilities_are_found_and_not_spoiled() {
    let outputs = || {
        vec![
            output("output_label", DataType::Int64, &[-1]),
            output("output_probability", DataType::Fp32, &[-1, 3]),
        ]
    };
    let spec = ClassificationOutput { activation: Activation::None, ..Default::default() };
    let built = built(&spec, outputs()).unwrap();
    let label = Tensor::from_vec([1], vec![7_i64]).unwrap();
    let given = tensor("float32", [1, 3], &[0.25, 0.5, 0.25]);
    let answer = built.side.finish(&part(1), &[label, given.clone()]).unwrap();
    assert_eq!((texts(&answer[0]), &answer[2]), (vec!["1".to_owned()], &given));
    let error = self::built(&ClassificationOutput::default(), outputs()).err().unwrap();
    assert!(error.contains("'output_probability'; set activation = \"none\""), "{error}");
    let meant = ClassificationOutput {
        output: Some("output_probability".into()),
        ..ClassificationOutput::default()
    };
    assert!(self::built(&meant, outputs()).is_ok());
}

#[test]
fn what_does_not_fit_is_told_at_load() {
    let usual = ClassificationOutput::default;
    let two = || labels(&["a", "b"]);
    let cases = [
        (
            ClassificationOutput { labels: two(), ..usual() },
            &[-1, 3][..],
            "transform.output.labels names 2 classes, where 'logits' tells 3 apart",
        ),
        (
            ClassificationOutput { top_k: NonZeroUsize::new(5), ..usual() },
            &[-1, 3],
            "transform.output.top_k is 5, where the model tells 3 classes apart",
        ),
        (
            usual(),
            &[-1, 1],
            "transform.output.activation: 'logits' is FP32 [-1,1] in the model's file, which gives \
             one number a row; set activation = \"sigmoid\"",
        ),
        (
            ClassificationOutput { threshold: Some(f32::NAN), ..usual() },
            &[-1, 3],
            "transform.output.threshold must be a number",
        ),
    ];
    for (spec, sizes, expected) in cases {
        let error = built(&spec, vec![output("logits", DataType::Fp32, sizes)]).err().unwrap();
        assert_eq!(error, expected);
    }
}

#[test]
fn what_the_model_gives_is_held_to_what_is_declared() {
    let spec = ClassificationOutput { labels: labels(&["a", "b"]), ..Default::default() };
    let top = ClassificationOutput { top_k: NonZeroUsize::new(4), ..Default::default() };
    let error = |spec: &ClassificationOutput, rows, shape: [usize; 2]| {
        let built = built(spec, vec![output("y", DataType::Fp32, &[-1, -1])]).unwrap();
        let given = tensor("float32", shape, &vec![0.0; shape[0] * shape[1]]);
        built.side.finish(&part(rows), &[given]).unwrap_err().to_string()
    };
    assert_eq!(error(&spec, 1, [1, 3]), "the model's output 'y' tells 3 classes apart, not 2");
    assert_eq!(error(&spec, 2, [1, 2]), "the model's output 'y' has shape [1,2] for 2 rows");
    assert_eq!(error(&spec, 1, [1, 0]), "the model's output 'y' gives no classes");
    assert_eq!(
        error(&top, 1, [1, 3]),
        "the model's output 'y' tells 3 classes apart, fewer than 4"
    );
    assert!(error(&top, 1, [1, 1]).ends_with("gives one number a row, which softmax makes 1"));
}
