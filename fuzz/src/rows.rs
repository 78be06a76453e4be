//! The decoders of rows: JSON, CSV, NPY, and the contracts that carry them.

use bytes::Bytes;
use outhaul_protocol::tensorflow::{self, Verb};
use outhaul_protocol::{DecodeLimits, ProtocolError, Schema, azure, csv, npy, rows, vertex};
use outhaul_types::{
    Content, DataType, Dimension, Field, InferResponse, Interface, ModelSignature, ModelVersion,
    NamedTensor, ShapePattern, TensorSpec,
};

use super::{answer, check_error, check_request, check_tensors, serde_json_reads};

/// A number that may be missing, a text, and two numbers beside each other.
fn model() -> (ModelSignature, Interface) {
    let spec = |name: &str, data_type, columns: Option<usize>, optional| {
        let columns = columns.map(Dimension::Fixed);
        let shape = ShapePattern::ranked([Dimension::Any].into_iter().chain(columns));
        TensorSpec { name: name.into(), data_type, shape, optional }
    };
    let inputs = vec![
        spec("n", DataType::Fp64, None, true),
        spec("t", DataType::Bytes, None, false),
        spec("v", DataType::Fp32, Some(2), false),
    ];
    let contents = [Content::Number, Content::Tensor, Content::Tensor];
    let interface = Interface { inputs: contents.map(Field::of).into(), ..Interface::default() };
    (ModelSignature { inputs, outputs: Vec::new() }, interface)
}

fn with_schema(run: impl FnOnce(&Schema<'_>)) {
    let (signature, interface) = model();
    run(&Schema {
        name: "m",
        version: ModelVersion(1),
        signature: &signature,
        interface: &interface,
    });
}

fn limits() -> DecodeLimits {
    DecodeLimits { max_rows: 1000, ..DecodeLimits::default() }
}

/// Reads a list of rows, and what was written of them.
pub fn json_rows(data: &[u8]) {
    with_schema(|schema| {
        let read =
            |body: &[u8]| rows::decode_instances(&rows::parse_json(body)?, schema, &limits());
        match read(data) {
            Ok(inputs) => {
                check_tensors(&inputs, data.len());
                let written = predictions(answer(inputs), schema);
                let again = read(&written).expect("what was written reads back");
                assert_eq!(predictions(answer(again), schema), written);
            }
            Err(error) => check_error(&error),
        }
    });
}

/// Reads whole tensors by name.
pub fn json_columns(data: &[u8]) {
    with_schema(|schema| {
        let body = rows::parse_json(data);
        match body.and_then(|body| rows::decode_columns(&body, schema, &limits())) {
            Ok(inputs) => {
                check_tensors(&inputs, data.len());
                let mut out = Vec::new();
                rows::encode_columns(&[answer(inputs)], schema, &mut out).expect("one answer");
                assert!(serde_json_reads(&out), "no JSON: {}", out.escape_ascii());
            }
            Err(error) => check_error(&error),
        }
    });
}

/// Reads lines of CSV, and what was written of them.
pub fn csv_rows(data: &[u8]) {
    with_schema(|schema| match csv::decode(data, schema, &limits()) {
        Ok(inputs) => {
            check_tensors(&inputs, data.len());
            let written = lines(inputs.into_vec(), schema);
            // A text that was read from CSV is UTF-8 and reads back; where the number is left out
            // there is one column less.
            if let Ok(again) = csv::decode(&written, schema, &limits()) {
                assert_eq!(lines(again.into_vec(), schema), written);
            }
        }
        Err(error) => check_error(&error),
    });
}

fn lines(tensors: Vec<NamedTensor>, schema: &Schema<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    csv::encode_lines(&[answer(tensors.into())], schema, &mut out).expect("rows agree");
    out
}

fn predictions(answer: InferResponse, schema: &Schema<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    rows::encode_rows(&[answer], schema, &mut out).expect("rows agree");
    assert!(serde_json_reads(&out), "no JSON: {}", out.escape_ascii());
    out
}

/// Reads a file of NumPy.
pub fn npy_file(data: &[u8]) {
    match npy::decode(&Bytes::copy_from_slice(data), &limits()) {
        Ok(tensor) => {
            assert!(tensor.byte_size() <= data.len());
            let file = Bytes::from(npy::encode(&tensor).expect("numbers are written"));
            assert_eq!(npy::decode(&file, &limits()), Ok(tensor));
        }
        Err(error) => check_error(&error),
    }
}

/// Reads a body of TensorFlow Serving's REST API. The first byte says for which verb.
pub fn tensorflow_rest(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let verb = [Verb::Predict, Verb::Classify, Verb::Regress][usize::from(first % 3)];
    with_schema(|schema| match tensorflow::decode(verb, body, schema, &limits()) {
        Ok(decoded) => {
            check_request(&decoded.request, body.len());
            let answers = [answer(decoded.request.inputs)];
            match tensorflow::encode(&decoded.format, &answers, schema) {
                Ok(written) => assert!(serde_json_reads(&written)),
                Err(error) => check_error(&error),
            }
        }
        Err(error) => check_error(&error),
    });
}

/// Reads what follows `/v1/models/` in a path.
pub fn tensorflow_path(data: &[u8]) {
    let Ok(rest) = std::str::from_utf8(data) else { return };
    let told = [
        tensorflow::Path::of_prediction(rest).map(|path| path.target),
        tensorflow::Path::of_description(rest).map(|path| path.target),
    ];
    for target in told {
        match target {
            Ok(target) => assert!(!target.model.is_empty() && !target.model.contains('/')),
            Err(error) => assert!(error.to_string().len() < 512, "{error}"),
        }
    }
}

/// Reads a body of Vertex AI's contract.
pub fn vertex_body(data: &[u8]) {
    with_schema(|schema| match vertex::decode(data, schema, &limits()) {
        Ok((request, rows)) => {
            check_request(&request, data.len());
            let written = vertex::encode(rows, &[answer(request.inputs)], schema);
            assert!(serde_json_reads(&written.expect("the rows are those of the request")));
        }
        Err(error) => check_written(&error, vertex::error_body),
    });
}

/// Reads a body of Azure ML's contract.
pub fn azure_body(data: &[u8]) {
    with_schema(|schema| match azure::decode(data, schema, &limits()) {
        Ok(request) => {
            check_request(&request, data.len());
            match azure::encode(&[answer(request.inputs)], schema) {
                Ok(written) => assert!(serde_json_reads(&written)),
                // Columns may be of different lengths, which only the model's signature forbids.
                Err(error) => check_error(&error),
            }
        }
        Err(error) => check_written(&error, azure::error_body),
    });
}

fn check_written(error: &ProtocolError, write: fn(u16, &str) -> Vec<u8>) {
    check_error(error);
    let body = write(400, &error.to_string());
    assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok(), "{}", body.escape_ascii());
}
