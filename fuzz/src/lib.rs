//! One function for each decoder of foreign bytes, for any fuzzer to call.
//!
//! Invariant of every target: whatever the bytes are, it returns. Where a decoder accepts them, the
//! target checks what the decoder promises and panics if it does not hold; that panic is the finding.
//!
//! `tests/bounded.rs` runs them all for a bounded time with [`mutate`]; `README.md` tells how to run
//! them under libFuzzer.

pub mod mutate;
mod rows;
mod texts;

use std::path::Path;

use bytes::{Buf, BufMut, Bytes};
use outhaul_protocol::oip::{EncodedInfer, OutputFormat, Target};
use outhaul_protocol::tensorflow_grpc::pb::serving;
use outhaul_protocol::tensorflow_grpc::{TensorFlowError, TensorReader};
use outhaul_protocol::{
    DecodeLimits, ProtocolError, Schema, grpc, http_status, oip, tensorflow_grpc,
};
use outhaul_repository::{Declarations, MANIFEST_KEYS, Rule, Value};
use outhaul_types::{
    Classify, Content, DataType, Dimension, Field, InferRequest, InferResponse, Interface,
    ModelName, ModelSignature, ModelVersion, Name, NamedTensor, ShapePattern, Tensor, TensorData,
    TensorSpec, Timings, TraceParent, VersionChoice,
};
use prost::Message;
use smallvec::SmallVec;

pub use rows::{
    azure_body, csv_rows, json_columns, json_rows, npy_file, tensorflow_path, tensorflow_rest,
    vertex_body,
};
pub use texts::{openai_embeddings, rerank_body, sagemaker_body, sagemaker_rest};

/// The most memory that one byte of a request may turn into: `0,` becomes eight bytes of an FP64, and
/// `"",` a place of 16 bytes in a list of strings.
const GROWTH: usize = 16;

/// The most memory that repeated elements of a TensorFlow Serving request may take beyond that.
const FILLED: usize = 1 << 20;

/// The longest text of an error: it names fields and values of the caller, cut where they are long.
const LONGEST_ERROR: usize = 4096;

/// Reads the body of an inference request over HTTP. The first byte says whether there is a header
/// `Inference-Header-Content-Length`, whose value is then in the next two; [`oip_body`] writes that.
pub fn oip_rest(data: &[u8]) {
    let mut body = Bytes::copy_from_slice(data);
    let json_length = match body.try_get_u8() {
        Ok(flag) if flag & 1 == 1 => body.try_get_u16_le().ok().map(usize::from),
        _ => None,
    };
    let given = body.len();
    let target = Target { model: Name::new("m"), version: VersionChoice::Latest };
    match oip::decode_infer(body, json_length, target, &DecodeLimits::default()) {
        Ok(decoded) => {
            check_request(&decoded.request, given);
            check_rest_round_trip(decoded.request.inputs);
        }
        Err(error) => check_error(&error),
    }
}

/// Writes a body in the form that [`oip_rest`] reads.
pub fn oip_body(json_length: Option<usize>, body: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(3 + body.len());
    match json_length.and_then(|length| u16::try_from(length).ok()) {
        Some(length) => {
            data.put_u8(1);
            data.put_u16_le(length);
        }
        None => data.put_u8(0),
    }
    data.extend_from_slice(body);
    data
}

/// Reads the body of an answer of another server, in the form of [`oip_rest`].
pub fn oip_answer(data: &[u8]) {
    let mut body = Bytes::copy_from_slice(data);
    let json_length = match body.try_get_u8() {
        Ok(flag) if flag & 1 == 1 => body.try_get_u16_le().ok().map(usize::from),
        _ => None,
    };
    let given = body.len();
    match oip::decode_answer(body, json_length, &DecodeLimits::default()) {
        Ok(answer) => {
            check_tensors(&answer.outputs, given);
            check_sent_on(answer.outputs);
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty() && message.len() <= LONGEST_ERROR, "{message}");
        }
    }
}

/// Checks that a server reads the request that these tensors are sent on in.
fn check_sent_on(tensors: SmallVec<[NamedTensor; 2]>) {
    let mut request = InferRequest::new("m", tensors);
    request.id = Some(Name::new("\"7\n"));
    let sent = oip::encode_request(&request);
    let target = Target { model: Name::new("m"), version: VersionChoice::Latest };
    let limits = DecodeLimits::default();
    let decoded = oip::decode_infer(sent.body, Some(sent.json_length), target, &limits);
    let decoded = decoded.expect("what was written reads back");
    assert!(bits_of(&decoded.request.inputs).eq(bits_of(&request.inputs)), "{request:?}");
    assert!(decoded.request.id == request.id && decoded.format.binary_by_default);
}

/// Reads a `ModelInferRequest` message.
pub fn grpc_infer(data: &[u8]) {
    if grpc::check_fields::<grpc::pb::ModelInferRequest>(data).is_err() {
        return;
    }
    let Ok(message) = grpc::pb::ModelInferRequest::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    match grpc::decode_infer(message, &DecodeLimits::default()) {
        Ok(request) => {
            check_request(&request, data.len());
            let answer = answer(request.inputs);
            let outputs = answer.outputs.len();
            assert_eq!(grpc::encode_infer(answer).raw_output_contents.len(), outputs);
        }
        Err(error) => check_error(&error),
    }
}

/// Reads a `PredictRequest` message of TensorFlow Serving.
pub fn tensorflow_predict(data: &[u8]) {
    if grpc::check_fields::<serving::PredictRequest>(data).is_err() {
        return;
    }
    let Ok(message) = serving::PredictRequest::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    match tensorflow_grpc::decode_predict(message, &DecodeLimits::default()) {
        Ok(request) => {
            check_tensors(&request.inputs, data.len() + FILLED / GROWTH);
            let limits = DecodeLimits::default();
            let mut reader = TensorReader::new(&limits);
            for NamedTensor { name, tensor } in &request.inputs {
                let written = tensorflow_grpc::encode_tensor(tensor);
                assert_eq!(reader.read(name, written).as_ref(), Ok(tensor));
            }
        }
        Err(error) => check_tensorflow_error(&error),
    }
}

/// Reads a `ClassificationRequest` message of TensorFlow Serving for a model of several kinds of input.
pub fn tensorflow_examples(data: &[u8]) {
    if grpc::check_fields::<serving::ClassificationRequest>(data).is_err() {
        return;
    }
    let Ok(message) = serving::ClassificationRequest::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    let (signature, interface) = of_examples();
    let model = Schema {
        name: "m",
        version: ModelVersion(1),
        signature: &signature,
        interface: &interface,
    };
    match tensorflow_grpc::decode_examples(message.input, &model, &DecodeLimits::default()) {
        Ok((inputs, rows)) => {
            check_tensors(&inputs, data.len());
            let bound = signature.bind(inputs).expect("what was made of examples fits the model");
            assert_eq!(signature.rows(&bound), Ok(Some(rows)));
        }
        Err(error) => check_tensorflow_error(&error),
    }
}

/// A model that takes a number that may be missing, a text, a flag and a vector.
fn of_examples() -> (ModelSignature, Interface) {
    let spec = |name: &str, data_type, row: &[Dimension], optional| TensorSpec {
        name: Name::new(name),
        data_type,
        shape: ShapePattern::ranked([Dimension::Any].into_iter().chain(row.iter().cloned())),
        optional,
    };
    let inputs = vec![
        spec("n", DataType::Fp64, &[], true),
        spec("t", DataType::Bytes, &[], false),
        spec("f", DataType::Bool, &[], false),
        spec("v", DataType::Fp32, &[Dimension::Fixed(2), Dimension::Any], false),
    ];
    let contents = [Content::Number, Content::Text, Content::Boolean, Content::Tensor];
    let interface = Interface { inputs: contents.map(Field::of).into(), ..Interface::default() };
    (ModelSignature { inputs, outputs: Vec::new() }, interface)
}

fn check_tensorflow_error(error: &TensorFlowError) {
    let message = error.client_message();
    assert!(!message.is_empty() && message.len() <= LONGEST_ERROR, "{message}");
    assert!(!error.kind().is_ours(), "{message}");
}

/// Reads a model file, and what is asked of every model that is loaded.
pub fn onnx_file(data: &[u8]) {
    let path = Path::new("/nonexistent/model.onnx");
    match outhaul_onnx::parse(Bytes::copy_from_slice(data), path) {
        Ok(model) => {
            assert!(model.file_bytes == data.len() as u64);
            let _ = (model.row_independence(), model.operators(), model.external_files());
            let _ = (model.parameters(), model.weight_bytes());
            for specs in [&model.signature.inputs, &model.signature.outputs] {
                for spec in specs {
                    let _ = (spec.shape.to_string(), spec.shape.protocol_dimensions());
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Turns weights into a graph: a tiny BERT's `config.json` as it is, and these bytes as its
/// `model.safetensors`.
pub fn safetensors_file(data: &[u8]) {
    let config = r#"{"architectures": ["BertModel"], "model_type": "bert", "vocab_size": 40,
        "max_position_embeddings": 20, "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 4, "type_vocab_size": 2}"#;
    let folder = tempfile::tempdir().expect("there is room for a few kilobytes");
    let (weights, target) =
        (folder.path().join("model.safetensors"), folder.path().join("model.onnx"));
    let written = std::fs::write(folder.path().join("config.json"), config)
        .and_then(|()| std::fs::write(&weights, data));
    written.expect("there is room for a few kilobytes");
    match outhaul_onnx::huggingface::convert(&weights, &target) {
        Ok(converted) => {
            assert_eq!(converted.family, "BERT");
            let model = outhaul_onnx::read(&target).expect("what was made is a sound graph");
            assert!(model.file_bytes < data.len() as u64 + 100_000);
        }
        Err(error) => assert!(!error.kind().is_ours() && !error.to_string().is_empty(), "{error}"),
    }
}

/// Reads what is declared beside a model; `outhaul.toml` is read alike.
pub fn model_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut declared = Declarations::parse(Path::new("model.toml"), text, MANIFEST_KEYS);
    for key in MANIFEST_KEYS {
        // Every value is refused, so that the problem has to write it.
        let refused = |_: &Value| Err::<(), _>(Rule::new("must be another", "write another"));
        assert_eq!(declared.take(key, refused), None);
    }
    for problem in declared.into_problems() {
        assert!(problem.to_string().starts_with("model.toml"), "{problem}");
    }
}

/// Reads a `traceparent` header.
pub fn traceparent(data: &[u8]) {
    let Ok(header) = std::str::from_utf8(data) else { return };
    let Some(parent) = TraceParent::parse(header) else { return };
    assert_ne!(parent.trace_id, [0; 16]);
    assert_ne!(parent.span_id, [0; 8]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let flags = u8::from(parent.sampled);
    let written = format!("00-{}-{}-{flags:02x}", hex(&parent.trace_id), hex(&parent.span_id));
    assert_eq!(TraceParent::parse(&written), Some(parent));
}

/// Reads the model and the version of a path, separated by the first slash.
pub fn model_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (name, version) = text.split_once('/').unwrap_or((text, ""));
    if let Ok(name) = ModelName::new(name) {
        let folder = Path::new("models").join(name.as_str());
        assert_eq!(folder.components().count(), 2, "a name is one folder: {name}");
        assert_eq!(folder.parent(), Some(Path::new("models")));
    }
    if let Ok(VersionChoice::Exact(version)) = version.parse() {
        assert!(version > ModelVersion(0));
    }
}

/// Checks that tensors hold what their shapes say, and no more than the bytes they came from allow.
fn check_request(request: &InferRequest, given: usize) {
    check_tensors(&request.inputs, given);
}

fn check_tensors(tensors: &[NamedTensor], given: usize) {
    let mut held = 0;
    for NamedTensor { name, tensor } in tensors {
        assert!(!name.is_empty());
        assert_eq!(tensor.shape().elements(), Some(tensor.len()));
        held += match tensor.data() {
            TensorData::Fixed(bytes) => {
                assert_eq!(tensor.data_type().size().map(|size| size * tensor.len()), {
                    Some(bytes.len())
                });
                bytes.len()
            }
            TensorData::Strings(strings) => {
                assert_eq!(strings.len(), tensor.len());
                strings.byte_size() + strings.len() * size_of::<std::ops::Range<usize>>()
            }
        };
    }
    assert!(held <= GROWTH * given, "{given} bytes became {held}");
}

fn check_error(error: &ProtocolError) {
    let message = error.client_message();
    assert!(!message.is_empty() && message.len() <= LONGEST_ERROR, "{message}");
    let status = http_status(error.kind());
    assert!((400..500).contains(&status), "{status}: {message}");
}

fn answer(outputs: SmallVec<[NamedTensor; 2]>) -> InferResponse {
    InferResponse {
        tokens: None,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
        id: None,
        model: ModelName::new("m").expect("a valid name"),
        version: ModelVersion(1),
        outputs,
        timings: Timings::default(),
    }
}

/// Checks that tensors written as an answer, in both forms, read back the same.
fn check_rest_round_trip(tensors: SmallVec<[NamedTensor; 2]>) {
    let answer = answer(tensors);
    let binary = OutputFormat { binary_by_default: true, ..OutputFormat::default() };
    let encoded = oip::encode_infer(&answer, &binary).expect("binary data takes every tensor");
    let back = read_outputs(&encoded);
    assert!(bits_of(&answer.outputs).eq(bits_of(&back)), "{:?} became {back:?}", answer.outputs);
    // A NaN keeps no payload in JSON, so the second writing is compared with the first.
    let json = OutputFormat::default();
    if let Ok(encoded) = oip::encode_infer(&answer, &json) {
        assert!(serde_json_reads(&encoded.body), "no JSON: {:?}", encoded.body);
        let again = InferResponse { outputs: read_outputs(&encoded), ..answer };
        assert_eq!(oip::encode_infer(&again, &json), Ok(encoded));
    }
}

fn bits_of(tensors: &[NamedTensor]) -> impl Iterator<Item = (&Name, &Tensor)> {
    tensors.iter().map(|named| (&named.name, &named.tensor))
}

/// Reads the outputs of an answer, which are written as inputs are.
fn read_outputs(encoded: &EncodedInfer) -> SmallVec<[NamedTensor; 2]> {
    let json_length = encoded.json_length.unwrap_or(encoded.body.len());
    let (json, binary) = encoded.body.split_at(json_length);
    let json = std::str::from_utf8(json).expect("JSON is UTF-8");
    let (_, list) = json.split_once("\"outputs\":").expect("every answer has outputs");
    let json = format!("{{\"inputs\":{list}");
    let body = Bytes::from([json.as_bytes(), binary].concat());
    let target = Target { model: Name::new("m"), version: VersionChoice::Latest };
    let decoded = oip::decode_infer(body, Some(json.len()), target, &DecodeLimits::default());
    decoded.expect("what was written reads back").request.inputs
}

/// Returns whether another parser reads an answer, where it holds only what JSON can say.
fn serde_json_reads(body: &[u8]) -> bool {
    let beyond = |word: &[u8]| body.windows(word.len()).any(|window| window == word);
    beyond(b"NaN")
        || beyond(b"Infinity")
        || serde_json::from_slice::<serde_json::Value>(body).is_ok()
}
