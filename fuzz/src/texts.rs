//! The contracts of embeddings, of reranking, and SageMaker's.

use bytes::Bytes;
use outhaul_protocol::sagemaker::{
    Accepted, ContentType, decode_add, decode_invocation, encode_invocation, list_models,
};
use outhaul_protocol::{DecodeLimits, Schema, openai, rerank, sagemaker};
use outhaul_types::{
    Content, DataType, Dimension, Field, InferResponse, Interface, ModelSignature, ModelVersion,
    Name, NamedTensor, ShapePattern, Task, Tensor, TensorSpec,
};

use super::{answer, check_error, check_request, serde_json_reads};

fn spec(name: &str, data_type: DataType, columns: Option<usize>) -> TensorSpec {
    let columns = columns.map(Dimension::Fixed);
    let shape = ShapePattern::ranked([Dimension::Any].into_iter().chain(columns));
    TensorSpec { name: name.into(), data_type, shape, optional: false }
}

/// A model of texts.
fn with_model(
    task: Task,
    inputs: &[&str],
    (output, content): (TensorSpec, Content),
    run: impl FnOnce(&Schema<'_>),
) {
    let inputs = inputs.iter().map(|input| spec(input, DataType::Bytes, None));
    let signature = ModelSignature { inputs: inputs.collect(), outputs: vec![output] };
    let inner = ModelSignature {
        inputs: vec![spec("input_ids", DataType::Int64, None)],
        outputs: vec![spec("logits", DataType::Fp32, None)],
    };
    let interface = Interface {
        task,
        inputs: vec![Field::of(Content::Text); signature.inputs.len()],
        outputs: vec![Field::of(content)],
        inner: Some(inner),
        sample: None,
    };
    run(&Schema {
        name: "m",
        version: ModelVersion(1),
        signature: &signature,
        interface: &interface,
    });
}

/// An answer of `rows` rows of `columns` numbers.
fn numbers(name: &Name, rows: usize, columns: Option<usize>) -> InferResponse {
    let elements: Vec<f32> = (0..rows * columns.unwrap_or(1)).map(|n| n as f32 / 3.0).collect();
    let tensor = match columns {
        Some(columns) => Tensor::from_vec([rows, columns], elements),
        None => Tensor::from_vec([rows], elements),
    };
    let tensor = tensor.expect("as many as the shape says");
    answer([NamedTensor { name: name.clone(), tensor }].into_iter().collect())
}

/// Reads a call for OpenAI's embeddings.
pub fn openai_embeddings(data: &[u8]) {
    let named = openai::outline(data);
    let output = (spec("embedding", DataType::Fp32, Some(4)), Content::Embedding);
    with_model(Task::Embedding, &["text"], output, |model| {
        match openai::decode_embeddings(data, model) {
            Ok(decoded) => {
                let rows = |input: &NamedTensor| input.tensor.shape().rows().unwrap_or(0);
                let answers: Vec<InferResponse> = decoded
                    .requests
                    .iter()
                    .map(|request| {
                        check_request(request, data.len());
                        let rows = rows(&request.inputs[0]);
                        assert!((1..=openai::MAX_INPUTS).contains(&rows));
                        numbers(&"embedding".into(), rows, Some(4))
                    })
                    .collect();
                let written = openai::encode_embeddings(&decoded.format, &answers, model);
                assert!(serde_json_reads(&written.expect("every input has a vector")));
            }
            Err(error) => {
                check_error(&error);
                assert!(serde_json_reads(&openai::error_body(400, &error.to_string())));
            }
        }
    });
    if let Err(error) = named {
        check_error(&error);
    }
}

/// Reads a call to rerank.
pub fn rerank_body(data: &[u8]) {
    let output = (spec("score", DataType::Fp32, None), Content::Score);
    with_model(Task::Rerank, &["query", "text"], output, |model| {
        match rerank::decode_rerank(data, model, "id".into()) {
            Ok(decoded) => {
                // The query is held once, and stands beside every text.
                let texts = decoded.request.inputs[1].tensor.len();
                assert_eq!(decoded.request.inputs[0].tensor.len(), texts);
                let name = &decoded.request.outputs[0].name;
                let answers = [numbers(name, texts, None)];
                let written = rerank::encode_rerank(&decoded.format, &answers, model);
                assert!(serde_json_reads(&written.expect("every text has a score")));
            }
            Err(error) => {
                check_error(&error);
                assert!(serde_json_reads(&rerank::error_body(400, &error.to_string())));
            }
        }
    });
}

/// What a body of SageMaker's may be, in the order in which [`sagemaker_body`] counts them.
const TYPES: [&str; 8] = [
    "application/json",
    "application/jsonlines",
    "text/csv",
    "application/x-npy",
    "text/plain",
    "application/octet-stream",
    "image/png",
    "application/vnd.sagemaker-triton.binary+json;json-header-size=64",
];
const ACCEPTED: [&str; 5] = [
    "*/*",
    "application/json",
    "application/jsonlines",
    "text/csv;header=present",
    "application/x-npy",
];

/// Reads a body of SageMaker's contract. The first byte says what it is and how it is answered.
pub fn sagemaker_body(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let (kind, wanted) = (usize::from(first % 8), usize::from(first / 8 % 5));
    let read = ContentType::read(Some(TYPES[kind])).expect("one that is read");
    let accepted = Accepted::read(Some(ACCEPTED[wanted])).expect("one that is written");
    let limits = DecodeLimits { max_rows: 1000, ..DecodeLimits::default() };
    let output = (spec("y", DataType::Fp32, None), Content::Tensor);
    let columns = if first & 0x80 == 0 { DataType::Bytes } else { DataType::Fp32 };
    with_model(Task::Tensors, &["x"], output, |model| {
        let mut signature = model.signature.clone();
        signature.inputs[0].data_type = columns;
        let interface = Interface::of_tensors(&signature);
        let model = Schema { signature: &signature, interface: &interface, ..*model };
        let whole = Bytes::copy_from_slice(body);
        match decode_invocation(&whole, (read, accepted), &[], &model, &limits) {
            Ok(decoded) => {
                check_request(&decoded.request, body.len() + NARROWEST);
                let rows = decoded.request.inputs.first();
                let rows = rows.and_then(|input| input.tensor.shape().rows()).unwrap_or(1);
                let answers = [numbers(&"y".into(), rows.min(1000), None)];
                match encode_invocation(&decoded.format, &answers, &model) {
                    Ok(written) => assert!(written.content_type.is_ascii()),
                    Err(error) => check_error(&error),
                }
            }
            Err(error) => {
                check_error(&error);
                assert!(serde_json_reads(&sagemaker::error_body(400, &error.to_string())));
            }
        }
    });
}

/// An empty text still is a text of its own.
const NARROWEST: usize = 1;

/// Reads the headers `Content-Type` and `Accept`, a body that names a model to load, and a token of the
/// list of models.
pub fn sagemaker_rest(data: &[u8]) {
    match decode_add(data) {
        Ok(add) => assert!(!add.name.is_empty() && !add.url.is_empty()),
        Err(error) => check_error(&error),
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let told = [ContentType::read(Some(text)).map(|_| ()), Accepted::read(Some(text)).map(|_| ())];
    for error in told.into_iter().filter_map(Result::err) {
        let message = error.to_string();
        assert!(message.len() <= super::LONGEST_ERROR, "{message}");
    }
    let model = sagemaker::ListedModel { name: text.to_owned(), url: text.to_owned() };
    assert!(serde_json_reads(&list_models(&[model], Some(text))));
}
