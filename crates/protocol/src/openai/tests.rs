use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outhaul_types::{
    Classify, Content, DataType, Dimension, ErrorKind, Field, InferResponse, Interface, ModelName,
    ModelSignature, ModelVersion, NamedTensor, ShapePattern, Task, Tensor, TensorSpec, Timings,
};
use serde_json::{Value, json};

use super::*;

fn spec(name: &str, data_type: DataType, sizes: &[Option<usize>]) -> TensorSpec {
    let size = |size: &Option<usize>| size.map_or(Dimension::Any, Dimension::Fixed);
    let shape = ShapePattern::ranked(sizes.iter().map(size));
    TensorSpec { name: name.into(), data_type, shape, optional: false }
}

/// A model of texts that does a task.
struct Model {
    signature: ModelSignature,
    interface: Interface,
}

impl Model {
    fn of(task: Task, dimensions: Option<usize>) -> Self {
        let signature = ModelSignature {
            inputs: vec![spec("text", DataType::Bytes, &[None])],
            outputs: vec![spec("embedding", DataType::Fp32, &[None, dimensions])],
        };
        let inner = ModelSignature {
            inputs: vec![spec("input_ids", DataType::Int64, &[None, None])],
            outputs: vec![spec("last_hidden_state", DataType::Fp32, &[None, None, dimensions])],
        };
        let interface = Interface {
            task,
            inputs: vec![Field::of(Content::Text)],
            outputs: vec![Field::of(Content::Embedding)],
            inner: Some(inner),
            sample: None,
        };
        Model { signature, interface }
    }

    fn schema(&self) -> Schema<'_> {
        Schema {
            name: "m",
            version: ModelVersion(1),
            signature: &self.signature,
            interface: &self.interface,
        }
    }

    fn decode(&self, body: &Value) -> Result<DecodedEmbeddings, ProtocolError> {
        decode_embeddings(body.to_string().as_bytes(), &self.schema())
    }

    fn encode(
        &self,
        format: &EmbeddingsFormat,
        responses: &[InferResponse],
    ) -> Result<Value, ProtocolError> {
        let body = encode_embeddings(format, responses, &self.schema())?;
        Ok(serde_json::from_slice(&body).unwrap())
    }
}

fn answer(rows: &[&[f32]], tokens: Option<usize>) -> InferResponse {
    let shape = [rows.len(), rows[0].len()];
    let tensor = Tensor::from_vec(shape, rows.concat()).unwrap();
    InferResponse {
        id: None,
        model: ModelName::new("m").unwrap(),
        version: ModelVersion(1),
        outputs: [NamedTensor { name: "embedding".into(), tensor }].into_iter().collect(),
        timings: Timings::default(),
        tokens,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
    }
}

#[test]
fn one_and_many_texts_are_one_request() {
    let model = Model::of(Task::Embedding, Some(2));
    for (input, expected) in [(json!("a"), vec!["a"]), (json!(["a", "b\n"]), vec!["a", "b\n"])] {
        let decoded = model.decode(&json!({"model": "m", "input": input, "user": "u"})).unwrap();
        let [request] = &decoded.requests[..] else { panic!("one request") };
        assert_eq!(request.inputs[0].name, "text");
        let texts = request.inputs[0].tensor.as_strings().unwrap();
        let texts: Vec<_> = texts.iter().map(|text| std::str::from_utf8(text).unwrap()).collect();
        assert_eq!(texts, expected);
        assert_eq!(request.outputs[0].name, "embedding");
    }
}

#[test]
fn tokens_of_one_length_share_a_request_and_answers_keep_the_order() {
    let model = Model::of(Task::Embedding, Some(1));
    let decoded = model.decode(&json!({"input": [[1, 2], [3], [4, 5], [6]]})).unwrap();
    let ids: Vec<_> = decoded
        .requests
        .iter()
        .map(|request| {
            let tensor = &request.inputs[0].tensor;
            assert_eq!(request.inputs[0].name, "input_ids");
            (tensor.shape().to_vec(), tensor.elements_of::<i64>().unwrap().to_vec())
        })
        .collect();
    assert_eq!(ids, [(vec![2, 2], vec![1, 2, 4, 5]), (vec![2, 1], vec![3, 6])]);
    let answers = [answer(&[&[1.0], &[4.0]], None), answer(&[&[3.0], &[6.0]], None)];
    let written = model.encode(&decoded.format, &answers).unwrap();
    let of = |index: usize| written["data"][index]["embedding"][0].as_f64().unwrap();
    assert_eq!([0, 1, 2, 3].map(of), [1.0, 3.0, 4.0, 6.0]);
    assert_eq!(written["usage"], json!({"prompt_tokens": 6, "total_tokens": 6}));

    let decoded = model.decode(&json!({"input": [7, 8, 9]})).unwrap();
    assert_eq!(decoded.requests[0].inputs[0].tensor.shape().to_vec(), [1, 3]);
    let many = vec![[1, 2]; 100];
    let decoded = model.decode(&json!({"input": many})).unwrap();
    let rows = decoded.requests.iter().map(|request| request.inputs[0].tensor.shape().rows());
    assert_eq!(rows.collect::<Vec<_>>(), [Some(32), Some(32), Some(32), Some(4)]);
}

#[test]
fn ids_are_of_the_type_that_the_model_takes() {
    let mut model = Model::of(Task::Embedding, Some(1));
    model.interface.inner.as_mut().unwrap().inputs[0].data_type = DataType::Int32;
    let decoded = model.decode(&json!({"input": [1]})).unwrap();
    assert_eq!(decoded.requests[0].inputs[0].tensor.data_type(), DataType::Int32);
    model.interface.inner.as_mut().unwrap().inputs[0].name = "pixels".into();
    let error = model.decode(&json!({"input": [1]})).unwrap_err();
    assert!(error.to_string().contains("takes no token ids"), "{error}");
}

#[test]
fn vectors_are_written_as_numbers_or_base64_and_cut() {
    let model = Model::of(Task::Embedding, Some(3));
    let write = |body: Value| {
        let decoded = model.decode(&body).unwrap();
        model.encode(&decoded.format, &[answer(&[&[0.6, 0.0, 0.8]], Some(4))]).unwrap()
    };
    let written = write(json!({"input": "a"}));
    assert_eq!(written["object"], "list");
    assert_eq!(written["model"], "m");
    assert_eq!(written["usage"]["prompt_tokens"], 4);
    assert_eq!(written["data"][0]["object"], "embedding");
    let numbers: Vec<f32> =
        serde_json::from_value(written["data"][0]["embedding"].clone()).unwrap();
    assert_eq!(numbers, [0.6, 0.0, 0.8]);

    let written = write(json!({"input": "a", "encoding_format": "base64"}));
    let bytes = STANDARD.decode(written["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let expected: Vec<u8> = [0.6_f32, 0.0, 0.8].iter().flat_map(|n| n.to_le_bytes()).collect();
    assert_eq!(bytes, expected);

    let written = write(json!({"input": "a", "dimensions": 2}));
    assert_eq!(written["data"][0]["embedding"], json!([1.0, 0.0]), "its length is 1 again");
    let written = write(json!({"input": "a", "dimensions": null, "encoding_format": null}));
    assert_eq!(written["data"][0]["embedding"].as_array().unwrap().len(), 3);
}

#[test]
fn more_dimensions_than_there_are_is_the_callers_mistake() {
    let open = Model::of(Task::Embedding, None);
    let decoded = open.decode(&json!({"input": "a", "dimensions": 4})).unwrap();
    let error = open.encode(&decoded.format, &[answer(&[&[1.0, 2.0]], None)]).unwrap_err();
    let expected = "'dimensions' must be at most 2, the length of the model's vectors, got 4";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_answer_without_vectors_is_the_models_mistake() {
    let model = Model::of(Task::Embedding, None);
    let decoded = model.decode(&json!({"input": ["a", "b"]})).unwrap();
    for answers in [vec![], vec![answer(&[&[1.0]], None)]] {
        let error = model.encode(&decoded.format, &answers).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EngineFailed, "{error}");
    }
}

#[test]
fn every_mistake_is_named() {
    struct Case(Value, &'static str);
    let model = Model::of(Task::Embedding, Some(4));
    let many = vec!["a"; MAX_INPUTS + 1];
    let cases = [
        Case(json!([]), "'body' must be an object, got a list"),
        Case(json!({}), "'input' is missing"),
        Case(json!({"input": null}), "'input' must be a string, a list of strings"),
        Case(json!({"input": ""}), "'input' must not be empty"),
        Case(json!({"input": []}), "'input' must not be empty"),
        Case(json!({"input": ["a", ""]}), "'input[1]' must not be empty"),
        Case(json!({"input": ["a", 1]}), "'input[1]' must be a string, got a number"),
        Case(json!({"input": [1, "a"]}), "'input[1]' must be a token id, got a string"),
        Case(json!({"input": [1, -2]}), "'input[1]' must be a token id, got -2"),
        Case(json!({"input": [1.5]}), "'input[0]' must be a token id, got 1.5"),
        Case(json!({"input": [3_000_000_000_u64]}), "'input[0]' must be a token id"),
        Case(json!({"input": [[1], []]}), "'input[1]' must not be empty"),
        Case(json!({"input": [[1], [true]]}), "'input[1][0]' must be a token id, got a boolean"),
        Case(json!({"input": [[1], 2]}), "'input[1]' must be a list of token ids, got a number"),
        Case(json!({"input": [{}]}), "'input[0]' must be a string, a list or a number"),
        Case(json!({"input": many}), "request has more than 2048 inputs"),
        Case(json!({"input": "a", "dimensions": 5}), "'dimensions' must be at most 4"),
        Case(json!({"input": "a", "dimensions": 0}), "'dimensions' must be a whole number"),
        Case(json!({"input": "a", "dimensions": "2"}), "'dimensions' must be a whole number"),
        Case(json!({"input": "a", "encoding_format": "hex"}), "'encoding_format' must be 'float'"),
        Case(json!({"input": "a", "encoding_format": 1}), "'encoding_format' must be 'float'"),
    ];
    for Case(body, expected) in cases {
        let error = model.decode(&body).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error} for {expected}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let error = decode_embeddings(b"{\"input\":", &model.schema()).unwrap_err();
    assert!(error.to_string().starts_with("malformed JSON"), "{error}");
}

#[test]
fn a_model_of_another_task_says_what_it_does() {
    let error = Model::of(Task::Classification, None).decode(&json!({"input": "a"})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model 'm' is a classification model, and /v1/embeddings takes an embedding model"
    );
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_outline_names_the_model_and_the_form() {
    let of = |body: &str| outline(body.as_bytes());
    let named = of(r#"{"input": ["\"model\"", {"model": 1}], "model": "a/b", "texts": [1]}"#);
    let expected = Outline { model: Some("a/b".into()), has_documents: false, has_texts: true };
    assert_eq!(named, Ok(expected));
    assert_eq!(of("\u{feff}{\"model\": null, \"documents\": null}"), Ok(Outline::default()));
    for (body, expected) in [
        ("", "malformed JSON: EOF"),
        ("[1]", "'body' must be an object, got a list"),
        ("{\"model\": 1}", "'model' must be a string, got a number"),
        ("{\"model\": \"\"}", "'model' must not be empty"),
        ("{\"model\": \"m\"} 1", "malformed JSON: trailing"),
        ("{\"input\": [1, ]}", "malformed JSON"),
    ] {
        let error = of(body).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error} for {body}");
    }
}

#[test]
fn errors_have_the_words_of_openai() {
    for (status, kind, code) in [
        (400, "invalid_request_error", Value::Null),
        (404, "invalid_request_error", json!("model_not_found")),
        (429, "rate_limit_exceeded", json!("rate_limit_exceeded")),
        (503, "server_error", Value::Null),
    ] {
        let body: Value = serde_json::from_slice(&error_body(status, "no \"x\"")).unwrap();
        let expected = json!({"message": "no \"x\"", "type": kind, "param": null, "code": code});
        assert_eq!(body, json!({ "error": expected }));
    }
}
