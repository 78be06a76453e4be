//! What is particular to ONNX Runtime: its files, its errors, its view of a model.

mod library;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use outhaul_engine::{Engine, LoadError, LoadOptions, RunError};
use outhaul_engine_ort::{ENGINE, OnnxRuntime};
use outhaul_onnx::OnnxModel;
use outhaul_types::{DataType, NamedTensor, Shape, Tensor};

fn load_error(runtime: &OnnxRuntime, model: &OnnxModel) -> LoadError {
    match runtime.load(model, &LoadOptions::default()) {
        Ok(_) => panic!("{} loads", model.path.display()),
        Err(error) => error,
    }
}

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models").join(name)
}

#[test]
fn the_library_is_one_engine_a_process() {
    let runtime = library::open();
    assert_eq!(runtime.name(), ENGINE);
    assert!(runtime.version().starts_with("1."), "{}", runtime.version());
    let again = OnnxRuntime::open(runtime.path()).unwrap();
    assert!(Arc::ptr_eq(&runtime, &again));

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libonnxruntime.so");
    std::fs::write(&copy, b"another").unwrap();
    let error = OnnxRuntime::open(&copy).err().unwrap().to_string();
    assert!(error.contains("this process already uses"), "{error}");
}

#[test]
fn an_unknown_operator_is_named_with_its_node() {
    let runtime = library::open();
    let model = library::read("testdata/models/unknown_operator.onnx");
    let error = load_error(&runtime, &model);
    assert!(matches!(error, LoadError::Unsupported { .. }), "{error}");
    let node = &model.graph.nodes[0];
    let place = if node.name.is_empty() { &node.outputs[0] } else { &node.name };
    for part in ["Frobnicate", "com.example", place] {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn a_signature_that_the_library_does_not_share_is_refused() {
    let runtime = library::open();
    let good = library::read("testdata/models/add_row.onnx");
    type Change = fn(&mut OnnxModel);
    let cases: [(&str, Change, &str); 4] = [
        ("a type", |model| model.signature.inputs[0].data_type = DataType::Int64, "input 'x'"),
        ("a name", |model| model.signature.outputs[0].name = "z".into(), "output"),
        ("one too few", |model| model.signature.outputs.clear(), "output 'y'"),
        ("optional", |model| model.signature.inputs[0].optional = true, "input 'x'"),
    ];
    for (what, change, expected) in cases {
        let mut model = good.clone();
        change(&mut model);
        let error = load_error(&runtime, &model);
        assert!(matches!(error, LoadError::Failed { .. }), "{what}: {error}");
        assert!(error.to_string().contains(expected), "{what}: {error}");
    }
}

#[test]
fn a_division_that_would_end_the_process_is_refused() {
    let runtime = library::open();
    let error = load_error(&runtime, &library::read("testdata/models/int_divide.onnx"));
    assert!(matches!(error, LoadError::Unsupported { instead: None, .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "engine 'onnxruntime' does not run node 'quotient' (Div): a request may make it divide the \
         least INT64 by -1, which has no result and would end the process"
    );

    let model = library::read("testdata/models/int_divide_const.onnx");
    let mut session = runtime.load(&model, &LoadOptions::default()).unwrap().session().unwrap();
    let tensor = Tensor::from_vec([1, 2], vec![i64::MIN, -7]).unwrap();
    let inputs = model.signature.bind([NamedTensor { name: "x".into(), tensor }]).unwrap();
    let outputs = session.run(&inputs).unwrap();
    assert_eq!(outputs[0].as_slice::<i64>(), Some(&[i64::MIN / 3, -2][..]));
}

/// The reader refuses these files first; but a file may change between reading and loading.
#[test]
fn a_damaged_file_that_passed_the_reader_is_still_an_error() {
    let runtime = library::open();
    for name in [
        "truncated",
        "not_onnx",
        "zero_bytes",
        "negative_dim",
        "initializer_lies",
        "initializer_overflow",
        "external_missing",
        "external_escape",
        "external_absolute",
        "cycle",
        "undefined_value",
        "deep_nesting",
        "no_such_file",
    ] {
        let mut model = library::read("testdata/models/add_row.onnx");
        model.path = testdata(&format!("{name}.onnx"));
        let error = load_error(&runtime, &model);
        assert!(matches!(error, LoadError::BadFile { .. }), "{name}: {error:?}");
        assert!(!error.to_string().contains("onnxruntime_src"), "{name}: {error}");
    }
}

#[test]
fn a_bad_value_is_the_callers_mistake_and_is_explained() {
    let runtime = library::open();
    let model = library::read("testdata/models/sequence.onnx");
    let mut session = runtime.load(&model, &LoadOptions::default()).unwrap().session().unwrap();
    let tensor = Tensor::from_vec([1, 2], vec![99_i64, 0]).unwrap();
    let inputs = model.signature.bind([NamedTensor { name: "tokens".into(), tensor }]).unwrap();
    let error = session.run(&inputs).unwrap_err();
    assert!(matches!(error, RunError::BadInput { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("Gather") && text.contains("idx=99"), "{text}");
}

#[test]
fn a_dimension_that_the_library_cannot_say_is_an_error() {
    let runtime = library::open();
    let model = library::read("testdata/models/identity_fp32.onnx");
    let mut session = runtime.load(&model, &LoadOptions::default()).unwrap().session().unwrap();
    for shape in [[0, usize::MAX], [usize::MAX, 0], [0, i64::MAX as usize]] {
        let shape = Shape::from(shape);
        let tensor = Tensor::from_vec(shape.clone(), Vec::<f32>::new()).unwrap();
        let inputs = model.signature.bind([NamedTensor { name: "x".into(), tensor }]).unwrap();
        // Whether the last one runs is the library's to say; none may crash.
        match session.run(&inputs) {
            Ok(outputs) => assert_eq!(outputs[0].shape(), &shape),
            Err(error) => assert!(matches!(error, RunError::BadInput { .. }), "{error:?}"),
        }
    }
}

/// The library hands such an input through by reference. The answer outlives the request, so it
/// must not point into it.
#[test]
fn an_input_that_is_also_an_output_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, negation_that_returns_its_input()).unwrap();
    let model = outhaul_onnx::read(&path).unwrap();
    let runtime = library::open();
    let mut session = runtime.load(&model, &LoadOptions::default()).unwrap().session().unwrap();

    let aligned = Tensor::from_vec([10_000], vec![1.5_f32; 10_000]).unwrap();
    // What the library reads of this one is a copy, which ends with the run.
    let padded = Bytes::from([&[0], aligned.as_bytes().unwrap().as_ref()].concat());
    let unaligned = Tensor::from_bytes(DataType::Fp32, [10_000], padded.slice(1..)).unwrap();
    assert!(unaligned.as_slice::<f32>().is_none());
    for given in [aligned.clone(), unaligned] {
        let input = given.as_bytes().unwrap().as_ptr_range();
        let tensor = given.clone();
        let inputs = model.signature.bind([NamedTensor { name: "x".into(), tensor }]).unwrap();
        let outputs = session.run(&inputs).unwrap();
        // Memory that was given back would be taken for this, and overwritten.
        let others: Vec<_> = (0..8).map(|_| vec![u64::MAX; 5_000]).collect();
        std::hint::black_box(&others);
        assert!(outputs[0] == given, "the input's elements are no longer there");
        assert_eq!(outputs[1].as_slice::<f32>(), Some(&[-1.5; 10_000][..]));
        for output in &outputs {
            let output = output.as_bytes().unwrap().as_ptr_range();
            assert!(output.end <= input.start || input.end <= output.start);
        }
    }
}

/// A graph of `y = -x` with the outputs `x` and `y`, in the protobuf form of onnx.proto.
fn negation_that_returns_its_input() -> Vec<u8> {
    let varint = |field: u8, value: u8| vec![field << 3, value];
    let message = |field: u8, parts: &[Vec<u8>]| {
        let body = parts.concat();
        let length = u8::try_from(body.len()).expect("the parts are short");
        assert!(length < 0x80, "longer ones need a longer length");
        [vec![field << 3 | 2, length], body].concat()
    };
    let text = |field: u8, text: &str| message(field, &[text.as_bytes().to_vec()]);
    let value = |field: u8, name: &str| {
        let shape = message(2, &[message(1, &[text(2, "n")])]);
        let tensor = message(1, &[varint(1, 1), shape]);
        message(field, &[text(1, name), message(2, &[tensor])])
    };
    let node = message(1, &[text(1, "x"), text(2, "y"), text(4, "Neg")]);
    let graph = [node, text(2, "g"), value(11, "x"), value(12, "x"), value(12, "y")];
    [varint(1, 9), message(7, &graph), message(8, &[varint(2, 17)])].concat()
}
