use outhaul_types::{
    Classify, Content, DataType, Dimension, ErrorKind, Field, InferResponse, Interface, ModelName,
    ModelSignature, ModelVersion, NamedTensor, ShapePattern, Task, Tensor, TensorSpec, Timings,
};
use serde_json::{Value, json};

use super::*;
use crate::{ProtocolError, Schema};

fn spec(name: &str, data_type: DataType, rank: usize) -> TensorSpec {
    let shape = ShapePattern::ranked(std::iter::repeat_n(Dimension::Any, rank));
    TensorSpec { name: name.into(), data_type, shape, optional: false }
}

struct Model {
    signature: ModelSignature,
    interface: Interface,
}

impl Model {
    fn of(task: Task) -> Self {
        let signature = ModelSignature {
            inputs: vec![spec("query", DataType::Bytes, 1), spec("text", DataType::Bytes, 1)],
            outputs: vec![spec("score", DataType::Fp32, 1)],
        };
        let inner = ModelSignature {
            inputs: vec![spec("input_ids", DataType::Int64, 2)],
            outputs: vec![spec("logits", DataType::Fp32, 2)],
        };
        let interface = Interface {
            task,
            inputs: vec![Field::of(Content::Text); 2],
            outputs: vec![Field::of(Content::Score)],
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

    fn decode(&self, body: &Value) -> Result<DecodedRerank, ProtocolError> {
        decode_rerank(body.to_string().as_bytes(), &self.schema(), "the-id".into())
    }

    /// Reads a call, and writes what comes of these scores.
    fn answer(&self, body: &Value, scores: Vec<f32>) -> Value {
        let DecodedRerank { request, format } = self.decode(body).unwrap();
        let name = request.outputs[0].name.clone();
        let tensor = match &*name {
            "logits" => Tensor::from_vec([scores.len(), 1], scores).unwrap(),
            _ => Tensor::from_vec([scores.len()], scores).unwrap(),
        };
        let response = InferResponse {
            id: None,
            model: ModelName::new("m").unwrap(),
            version: ModelVersion(1),
            outputs: [NamedTensor { name, tensor }].into_iter().collect(),
            timings: Timings::default(),
            tokens: Some(9),
            cache: outhaul_types::CacheStatus::Off,
            via: None,
        };
        serde_json::from_slice(&encode_rerank(&format, &[response], &self.schema()).unwrap())
            .unwrap()
    }
}

fn texts(tensor: &Tensor) -> Vec<&str> {
    let texts = tensor.as_strings().unwrap().iter();
    texts.map(|text| std::str::from_utf8(text).unwrap()).collect()
}

#[test]
fn documents_are_answered_best_first() {
    let model = Model::of(Task::Rerank);
    let body = json!({"model": "m", "query": "q", "documents": ["a", {"text": "b", "x": 1}, "c"]});
    let DecodedRerank { request, .. } = model.decode(&body).unwrap();
    assert_eq!(texts(&request.inputs[0].tensor), ["q", "q", "q"]);
    assert_eq!(texts(&request.inputs[1].tensor), ["a", "b", "c"]);
    assert_eq!([&*request.inputs[0].name, &request.inputs[1].name], ["query", "text"]);
    let expected = json!({
        "id": "the-id",
        "model": "m",
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
        "results": [
            {"index": 1, "relevance_score": 0.75},
            {"index": 0, "relevance_score": 0.5},
            {"index": 2, "relevance_score": 0.5},
        ],
    });
    assert_eq!(model.answer(&body, vec![0.5, 0.75, 0.5]), expected);
}

#[test]
fn the_best_few_and_their_texts() {
    let model = Model::of(Task::Rerank);
    let mut body = json!({"query": "q", "documents": ["a", "b\""], "top_n": 1});
    body["return_documents"] = true.into();
    let written = model.answer(&body, vec![0.25, 0.5]);
    let best = json!([{"index": 1, "relevance_score": 0.5, "document": {"text": "b\""}}]);
    assert_eq!(written["results"], best);
    body["top_n"] = 5.into();
    assert_eq!(model.answer(&body, vec![0.25, 0.5])["results"].as_array().unwrap().len(), 2);
}

#[test]
fn texts_are_answered_as_a_bare_list() {
    let model = Model::of(Task::Rerank);
    let body = json!({"query": "q", "texts": ["a", "b"], "truncate": true});
    let expected = json!([{"index": 1, "score": 0.5}, {"index": 0, "score": 0.25}]);
    assert_eq!(model.answer(&body, vec![0.25, 0.5]), expected);
    let body = json!({"query": "q", "texts": ["a"], "return_text": true, "raw_scores": true});
    assert_eq!(model.decode(&body).unwrap().request.outputs[0].name, "logits");
    assert_eq!(model.answer(&body, vec![-3.5]), json!([{"index": 0, "score": -3.5, "text": "a"}]));
}

#[test]
fn a_score_that_is_no_number_comes_last() {
    let DecodedRerank { format, .. } =
        Model::of(Task::Rerank).decode(&json!({"query": "q", "texts": ["a", "b", "c"]})).unwrap();
    let tensor = Tensor::from_vec([3], vec![f32::NAN, -1.0, 1.0]).unwrap();
    let response = InferResponse {
        id: None,
        model: ModelName::new("m").unwrap(),
        version: ModelVersion(1),
        outputs: [NamedTensor { name: "score".into(), tensor }].into_iter().collect(),
        timings: Timings::default(),
        tokens: None,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
    };
    let model = Model::of(Task::Rerank);
    let body = encode_rerank(&format, &[response], &model.schema()).unwrap();
    let text = std::str::from_utf8(&body).unwrap();
    let expected = "[{\"index\":2,\"score\":1.0},{\"index\":1,\"score\":-1.0},\
                    {\"index\":0,\"score\":NaN}]";
    assert_eq!(text, expected);
    let error = encode_rerank(&format, &[], &model.schema()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineFailed);
}

#[test]
fn every_mistake_is_named() {
    struct Case(Value, &'static str);
    let model = Model::of(Task::Rerank);
    let many = vec!["a"; MAX_TEXTS + 1];
    let cases = [
        Case(json!("a"), "'body' must be an object, got a string"),
        Case(json!({"query": "q"}), "'documents' is missing"),
        Case(json!({"documents": ["a"]}), "'query' is missing"),
        Case(json!({"query": "", "documents": ["a"]}), "'query' must not be empty"),
        Case(json!({"query": 1, "documents": ["a"]}), "'query' must be a string, got a number"),
        Case(json!({"query": "q", "documents": []}), "'documents' must not be empty"),
        Case(json!({"query": "q", "documents": "a"}), "'documents' must be a list, got a string"),
        Case(
            json!({"query": "q", "documents": ["a", 2]}),
            "'documents[1]' must be a string or an object with 'text', got a number",
        ),
        Case(json!({"query": "q", "documents": [{}]}), "'documents[0].text' is missing"),
        Case(
            json!({"query": "q", "documents": [{"text": 1}]}),
            "'documents[0].text' must be a string, got a number",
        ),
        Case(json!({"query": "q", "texts": [{"text": "a"}]}), "'texts[0]' must be a string"),
        Case(json!({"query": "q", "documents": many}), "request has more than 10000 texts"),
        Case(
            json!({"query": "q", "documents": ["a"], "top_n": 0}),
            "'top_n' must be a whole number, at least 1, got 0",
        ),
        Case(
            json!({"query": "q", "documents": ["a"], "return_documents": 1}),
            "'return_documents' must be true or false, got a number",
        ),
    ];
    for Case(body, expected) in cases {
        let error = model.decode(&body).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error} for {expected}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    for (key, expected) in [("texts", "'texts' of a rerank"), ("rank_fields", "'rank_fields' of")] {
        let mut body = json!({"query": "q", "documents": ["a"]});
        body[key] = json!(["a"]);
        let error = model.decode(&body).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn an_embedding_model_does_not_rerank() {
    let body = json!({"query": "q", "documents": ["a"]});
    let error = Model::of(Task::Embedding).decode(&body).unwrap_err();
    let expected = "model 'm' is an embedding model, and /v1/rerank takes a reranking model";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn errors_of_texts_have_tei_s_words() {
    for (status, kind) in [
        (400, "Validation"),
        (404, "Validation"),
        (429, "Overloaded"),
        (503, "Unhealthy"),
        (500, "Backend"),
    ] {
        let body: Value = serde_json::from_slice(&error_body(status, "no")).unwrap();
        assert_eq!(body, json!({"error": "no", "error_type": kind}));
    }
}
