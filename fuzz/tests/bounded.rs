//! Every target for a bounded time: `OUTHAUL_FUZZ_SECONDS` each (3 without it), from the seed
//! `OUTHAUL_FUZZ_SEED` (0 without it). An input that breaks a target is kept in a file.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::any::Any;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use outhaul_fuzz::mutate::Mutator;
use outhaul_protocol::grpc::pb;
use outhaul_protocol::tensorflow_grpc::pb as tensorflow;
use prost::Message;
use serde_json::Value;

fn setting<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Calls `target` with the examples as they are, then changed, until the time is up.
fn run(name: &str, target: fn(&[u8]), examples: &[Vec<u8>]) {
    assert!(!examples.is_empty());
    let seconds = setting("OUTHAUL_FUZZ_SECONDS", 3.0_f64);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut mutator = Mutator::new(setting("OUTHAUL_FUZZ_SEED", 0));
    for example in examples {
        call(name, target, example);
    }
    let mut count = 0_u64;
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        let input = mutator.next_input(examples);
        let start = Instant::now();
        call(name, target, &input);
        slowest = slowest.max(start.elapsed());
        count += 1;
    }
    println!("{name}: {count} inputs, slowest {slowest:?}");
    assert!(count > 10, "{name}: only {count} inputs in {seconds} s");
}

fn call(name: &str, target: fn(&[u8]), input: &[u8]) {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| target(input)));
    if let Err(reason) = outcome {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.crash"));
        fs::write(&path, input).unwrap();
        panic!("{name} failed on {}: {}", path.display(), text(reason.as_ref()));
    }
}

fn text(reason: &(dyn Any + Send)) -> &str {
    let owned = reason.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| reason.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

fn testdata(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The bodies of the conformance cases, good and bad, without the few that are huge.
fn rest_examples() -> Vec<Vec<u8>> {
    let files = testdata("conformance/oip_rest", "json");
    let cases = files.iter().flat_map(|file| serde_json::from_slice::<Vec<Value>>(file).unwrap());
    let mut examples = Vec::new();
    for case in cases {
        let parts = match &case["body"] {
            Value::Null => continue,
            Value::Array(parts) => parts.clone(),
            whole => vec![whole.clone()],
        };
        if parts.iter().any(|part| part["repeat"].is_string()) {
            continue;
        }
        let parts: Vec<Vec<u8>> = parts.iter().map(part).collect();
        let has_length = case["headers"]["Inference-Header-Content-Length"].is_string();
        let json_length = has_length.then_some(parts[0].len());
        examples.push(outhaul_fuzz::oip_body(json_length, &parts.concat()));
    }
    examples
}

fn part(part: &Value) -> Vec<u8> {
    match part["hex"].as_str() {
        None => part.as_str().unwrap_or_default().into(),
        Some(hex) => {
            let digits: Vec<u8> =
                hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
            digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        }
    }
}

/// Answers with outputs as JSON and as binary data, made of the tensors of good requests.
fn answer_examples() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"model_name":"m","model_version":"3","id":"7","parameters":{"queue_us":1.5},"outputs":[
            {"name":"y","datatype":"FP32","shape":[1,2],"data":[0.5,-1e3]},
            {"name":"label","shape":[1],"datatype":"BYTES","data":["a\u00e9"]}]}"#,
        r#"{"outputs":[{"name":"b","datatype":"BOOL","shape":[2],"data":[true,false]}],"model_name":null}"#,
    ];
    let binary = r#"{"outputs":[{"name":"y","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}},{"name":"t","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}"#;
    let body = [binary.as_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0], b"\x01\0\0\0a"].concat();
    let mut examples = texts.map(|text| outhaul_fuzz::oip_body(None, text.as_bytes())).to_vec();
    examples.push(outhaul_fuzz::oip_body(Some(binary.len()), &body));
    examples
}

#[test]
fn oip_answer() {
    run("oip_answer", outhaul_fuzz::oip_answer, &answer_examples());
}

/// A raw, a typed and a text input; classes, parameters and an id.
fn grpc_examples() -> Vec<Vec<u8>> {
    use pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    let input = |datatype: &str, contents: Option<pb::InferTensorContents>| InferInputTensor {
        name: "x".to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![1, 2],
        contents,
        ..InferInputTensor::default()
    };
    let request = |input, raw: Vec<&'static [u8]>| pb::ModelInferRequest {
        model_name: "m".to_owned(),
        model_version: "1".to_owned(),
        id: "7".to_owned(),
        inputs: vec![input],
        outputs: vec![InferRequestedOutputTensor {
            name: "y".to_owned(),
            ..InferRequestedOutputTensor::default()
        }],
        raw_input_contents: raw.into_iter().map(Into::into).collect(),
        ..pb::ModelInferRequest::default()
    };
    let typed = pb::InferTensorContents {
        fp32_contents: vec![1.5, -2.0],
        ..pb::InferTensorContents::default()
    };
    let whole = pb::InferTensorContents {
        int64_contents: vec![i64::MIN, 5],
        ..pb::InferTensorContents::default()
    };
    let texts = pb::InferTensorContents {
        bytes_contents: vec![b"a".to_vec().into(), b"\xff".to_vec().into()],
        ..pb::InferTensorContents::default()
    };
    [
        request(input("FP32", None), vec![&[0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]]),
        request(input("BYTES", None), vec![b"\x01\0\0\0a\0\0\0\0"]),
        request(input("BOOL", None), vec![&[0, 1]]),
        request(input("FP32", Some(typed)), vec![]),
        request(input("INT64", Some(whole)), vec![]),
        request(input("BYTES", Some(texts)), vec![]),
    ]
    .iter()
    .map(Message::encode_to_vec)
    .collect()
}

/// Tensors in their fields, as bytes, filled, and of strings.
fn tensorflow_tensors() -> Vec<Vec<u8>> {
    use tensorflow::{DataType, TensorProto, TensorShapeProto, serving, tensor_shape_proto::Dim};
    let of = |dtype: DataType| TensorProto {
        dtype: dtype.into(),
        tensor_shape: Some(TensorShapeProto {
            dim: vec![Dim { size: 2, ..Dim::default() }],
            unknown_rank: false,
        }),
        ..TensorProto::default()
    };
    [
        TensorProto { float_val: vec![1.5, -2.0], ..of(DataType::DtFloat) },
        TensorProto { float_val: vec![1.5], ..of(DataType::DtFloat) },
        TensorProto { tensor_content: vec![0; 16].into(), ..of(DataType::DtInt64) },
        TensorProto { half_val: vec![1, 2], ..of(DataType::DtBfloat16) },
        TensorProto { int_val: vec![-1, 1], ..of(DataType::DtInt8) },
        TensorProto { bool_val: vec![true, false], ..of(DataType::DtBool) },
        TensorProto {
            string_val: vec![b"a".to_vec().into(), b"\xff".to_vec().into()],
            ..of(DataType::DtString)
        },
    ]
    .map(|tensor| {
        let message = serving::PredictRequest {
            model_spec: Some(serving::ModelSpec { name: "m".into(), ..Default::default() }),
            inputs: [("x".to_owned(), tensor)].into(),
            output_filter: vec!["y".into()],
        };
        message.encode_to_vec()
    })
    .into()
}

/// Whole examples, one without what may be missing, and a context.
fn tensorflow_examples_of_all() -> Vec<Vec<u8>> {
    use tensorflow::feature::Kind;
    use tensorflow::{BytesList, Example, Feature, Features, FloatList, Int64List, serving};
    let text = || Kind::BytesList(BytesList { value: vec![b"text".to_vec().into()] });
    let floats = |value: &[f32]| Kind::FloatList(FloatList { value: value.to_vec() });
    let flag = || Kind::Int64List(Int64List { value: vec![1] });
    let example = |features: Vec<(&str, Kind)>| {
        let feature = |(name, kind): (&str, _)| (name.to_owned(), Feature { kind: Some(kind) });
        let feature = features.into_iter().map(feature).collect();
        Example { features: Some(Features { feature }) }
    };
    let bare = || example(vec![("t", text()), ("f", flag()), ("v", floats(&[1.0, 2.0]))]);
    let whole = || {
        let vector = floats(&[3.0, 4.0]);
        example(vec![("n", floats(&[0.5])), ("t", text()), ("f", flag()), ("v", vector)])
    };
    let list = serving::ExampleList { examples: vec![whole(), bare()] };
    let with_context = serving::ExampleListWithContext {
        examples: vec![example(vec![("v", floats(&[1.0, 2.0, 3.0, 4.0]))])],
        context: Some(bare()),
    };
    [
        serving::input::Kind::ExampleList(list),
        serving::input::Kind::ExampleListWithContext(with_context),
    ]
    .map(|kind| {
        let input = Some(serving::Input { kind: Some(kind) });
        serving::ClassificationRequest { input, ..Default::default() }.encode_to_vec()
    })
    .into()
}

#[test]
fn tensorflow_predict() {
    run("tensorflow_predict", outhaul_fuzz::tensorflow_predict, &tensorflow_tensors());
}

#[test]
fn tensorflow_examples() {
    let examples = tensorflow_examples_of_all();
    run("tensorflow_examples", outhaul_fuzz::tensorflow_examples, &examples);
}

#[test]
fn json_rows() {
    let examples = [
        r#"[{"n":1.5,"t":"a\"b","v":[1,-2e3]},{"t":{"b64":"/w=="},"v":[NaN,"Infinity"],"n":null}]"#,
        r#"[[1,"\u00e9",[3,4]],[null,"",[-0.0,1e-40]]]"#,
        r#"[{"v":[1,2],"t":"x"}]"#,
    ];
    run("json_rows", outhaul_fuzz::json_rows, &examples.map(|text| text.into()));
}

#[test]
fn json_columns() {
    let examples = [
        r#"{"n":[1.5,null],"t":["a",{"b64":"YQ=="}],"v":[[1,2],[3,4]]}"#,
        r#"{"t":["x"],"v":[[1,2]]}"#,
    ];
    run("json_columns", outhaul_fuzz::json_columns, &examples.map(|text| text.into()));
}

#[test]
fn csv_rows() {
    let examples = [
        "1.5,\"a, \"\"b\"\"\n\",1,-2e3\r\n,text,NaN,inf\n\n7,\u{e9},0,0",
        "\u{feff}n,t,v\n1,a,2\n",
        ",,1,2\n",
    ];
    run("csv_rows", outhaul_fuzz::csv_rows, &examples.map(|text| text.into()));
}

#[test]
fn npy_file() {
    let file = |descr: &str, shape: &str, data: &[u8]| {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
    };
    let examples = [
        file("<f4", "(2, 2)", &[0, 0, 128, 63, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        file("|b1", "(3,)", &[0, 1, 1]),
        file("<i8", "()", &[1; 8]),
        file("|O", "(1,)", &[1; 8]),
    ];
    run("npy_file", outhaul_fuzz::npy_file, &examples);
}

/// The bodies of the conformance cases of a contract, each behind `first`, without the few that are huge.
fn contract_examples(contract: &str, first: &[u8]) -> Vec<Vec<u8>> {
    let files = testdata(&format!("conformance/{contract}"), "json");
    let cases = files.iter().flat_map(|file| serde_json::from_slice::<Vec<Value>>(file).unwrap());
    let mut examples = Vec::new();
    for case in cases {
        let parts = match &case["body"] {
            Value::Null => continue,
            Value::Array(parts) => parts.clone(),
            whole => vec![whole.clone()],
        };
        if parts.iter().all(|part| part["repeat"].is_null()) {
            let body: Vec<u8> = parts.iter().flat_map(part).collect();
            examples.push([first, &body].concat());
        }
    }
    examples
}

#[test]
fn tensorflow_rest() {
    let mut examples = contract_examples("tensorflow_rest", &[0]);
    examples.push(b"\x00{\"instances\":[{\"t\":\"a\",\"v\":[1,2]}]}".to_vec());
    examples.push(b"\x00{\"inputs\":{\"t\":[\"a\"],\"v\":[[1,2]]}}".to_vec());
    examples.push(b"\x01{\"context\":{\"t\":[\"a\"]},\"examples\":[{\"v\":[1,2]}]}".to_vec());
    run("tensorflow_rest", outhaul_fuzz::tensorflow_rest, &examples);
}

#[test]
fn tensorflow_path() {
    let examples = ["iris:predict", "iris/versions/3:classify", "iris/labels/a/metadata", "iris"];
    run("tensorflow_path", outhaul_fuzz::tensorflow_path, &examples.map(|text| text.into()));
}

#[test]
fn vertex_body() {
    let mut examples = contract_examples("vertex", &[]);
    examples.push(b"{\"instances\":[{\"t\":\"a\",\"v\":[1,2]}],\"parameters\":{}}".to_vec());
    run("vertex_body", outhaul_fuzz::vertex_body, &examples);
}

#[test]
fn azure_body() {
    let mut examples = contract_examples("azure", &[]);
    let table = r#"{"input_data":{"columns":["v","t"],"index":[0],"data":[[[1,2],"a"]]}}"#;
    examples.push(table.into());
    examples.push(br#"{"data":{"t":["a"],"v":[[1,2]]}}"#.to_vec());
    run("azure_body", outhaul_fuzz::azure_body, &examples);
}

#[test]
fn openai_embeddings() {
    let examples = contract_examples("openai", &[]);
    run("openai_embeddings", outhaul_fuzz::openai_embeddings, &examples);
}

#[test]
fn rerank_body() {
    run("rerank_body", outhaul_fuzz::rerank_body, &contract_examples("rerank", &[]));
}

#[test]
fn sagemaker_body() {
    // One of each kind, and rows as the target's own model takes them.
    let mut examples: Vec<Vec<u8>> =
        (0..8).flat_map(|kind| contract_examples("sagemaker", &[kind])).collect();
    examples.push(b"\x00{\"instances\":[{\"x\":\"a\"},\"b\"]}".to_vec());
    examples.push(b"\x81[1]\n[2.5]\n".to_vec());
    examples.push(b"\x82x\n1\n2\n".to_vec());
    run("sagemaker_body", outhaul_fuzz::sagemaker_body, &examples);
}

#[test]
fn sagemaker_rest() {
    let examples = [
        r#"{"model_name": "a", "url": "/opt/ml/models/a/model"}"#,
        "application/json; charset=utf-8",
        "text/csv;q=0.5;header=present, application/x-npy;q=0.1, */*;q=0",
        "application/vnd.sagemaker-triton.binary+json;json-header-size=17",
    ];
    run("sagemaker_rest", outhaul_fuzz::sagemaker_rest, &examples.map(|text| text.into()));
}

#[test]
fn oip_rest() {
    run("oip_rest", outhaul_fuzz::oip_rest, &rest_examples());
}

#[test]
fn grpc_infer() {
    run("grpc_infer", outhaul_fuzz::grpc_infer, &grpc_examples());
}

#[test]
fn onnx_file() {
    let mut examples = testdata("models", "onnx");
    // Small files are changed where it matters more often.
    examples.retain(|example| example.len() < 50_000);
    run("onnx_file", outhaul_fuzz::onnx_file, &examples);
}

#[test]
fn safetensors_file() {
    let examples = testdata("huggingface/bert", "safetensors");
    run("safetensors_file", outhaul_fuzz::safetensors_file, &examples);
}

#[test]
fn model_toml() {
    let examples = [
        "engine = 'auto'\n[batching]\nmax_rows = 8\nmax_delay = \"2ms\"\nexact = false\n",
        "instances = { count = 2, threads = 1 }\nqueue.capacity = 0x10\nqueue.timeout = '''1s'''",
        "[[batching]]\n\"max_rows\" = [1, 2.5, 1979-05-27T07:32:00Z, { a.b = nan }]\n# end",
    ];
    run("model_toml", outhaul_fuzz::model_toml, &examples.map(|text| text.into()));
}

#[test]
fn traceparent() {
    let examples = [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-12345678901234567890123456789012-1234567890123456-00-more",
    ];
    run("traceparent", outhaul_fuzz::traceparent, &examples.map(|text| text.into()));
}

#[test]
fn model_path() {
    let examples = ["iris/1", "a.b-c_d", "../etc/0", "x/18446744073709551615", ".hidden"];
    run("model_path", outhaul_fuzz::model_path, &examples.map(|text| text.into()));
}
