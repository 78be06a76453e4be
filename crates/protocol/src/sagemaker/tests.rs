use bytes::Bytes;
use outhaul_types::{
    Classify, Content, DataType, Dimension, ErrorKind, Field, InferResponse, Interface, ModelName,
    ModelSignature, ModelVersion, Name, NamedTensor, ShapePattern, Strings, Tensor, TensorSpec,
    Timings,
};
use serde_json::{Value, json};

use super::*;
use crate::{DecodeLimits, ProtocolError, Schema, npy};

fn spec(name: &str, data_type: DataType, sizes: &[Option<usize>]) -> TensorSpec {
    let size = |size: &Option<usize>| size.map_or(Dimension::Any, Dimension::Fixed);
    let shape = ShapePattern::ranked(sizes.iter().map(size));
    TensorSpec { name: name.into(), data_type, shape, optional: false }
}

struct Model {
    signature: ModelSignature,
    interface: Interface,
}

impl Model {
    fn of(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Self {
        let signature = ModelSignature { inputs, outputs };
        let interface = Interface::of_tensors(&signature);
        Model { signature, interface }
    }

    /// `x` FP32 `[rows, 2]` to `y` FP32 `[rows]`.
    fn of_pairs() -> Self {
        Model::of(
            vec![spec("x", DataType::Fp32, &[None, Some(2)])],
            vec![spec("y", DataType::Fp32, &[None])],
        )
    }

    /// Two outputs, one of them text.
    fn of_labels() -> Self {
        let mut model = Model::of_pairs();
        model.signature.outputs.push(spec("label", DataType::Bytes, &[None]));
        model.interface = Interface::of_tensors(&model.signature);
        model
    }

    /// One picture or text.
    fn of_bytes(content: Content) -> Self {
        let mut model = Model::of(
            vec![spec("value", DataType::Bytes, &[None])],
            vec![spec("y", DataType::Fp32, &[None])],
        );
        model.interface.inputs = vec![Field::of(content)];
        model
    }

    fn schema(&self) -> Schema<'_> {
        Schema {
            name: "m",
            version: ModelVersion(1),
            signature: &self.signature,
            interface: &self.interface,
        }
    }

    fn decode(
        &self,
        content_type: &str,
        accept: &str,
        body: impl Into<Bytes>,
    ) -> Result<DecodedInvocation, ProtocolError> {
        let forms =
            (ContentType::read(Some(content_type)).unwrap(), Accepted::read(Some(accept)).unwrap());
        decode_invocation(&body.into(), forms, &[], &self.schema(), &DecodeLimits::default())
    }

    /// Reads a call, and writes what comes of these outputs.
    fn answer(&self, (content_type, accept): (&str, &str), body: &str) -> (String, String) {
        let decoded = self.decode(content_type, accept, body.to_owned()).unwrap();
        let rows = decoded.request.inputs[0].tensor.shape().rows().unwrap();
        let encoded =
            encode_invocation(&decoded.format, &[self.response(rows)], &self.schema()).unwrap();
        let body = encoded.body.escape_ascii().to_string();
        (encoded.content_type, body)
    }

    /// An answer of so many rows: 0.5, 1.5, ... and the texts `r0`, `r1`, ...
    fn response(&self, rows: usize) -> InferResponse {
        let outputs = self.signature.outputs.iter().map(|spec| {
            let tensor = match spec.data_type {
                DataType::Bytes => {
                    let texts: Strings = (0..rows).map(|row| format!("r{row}")).collect();
                    Tensor::from_strings([rows], texts)
                }
                _ => Tensor::from_vec([rows], (0..rows).map(|row| row as f32 + 0.5).collect()),
            };
            NamedTensor { name: spec.name.clone(), tensor: tensor.unwrap() }
        });
        InferResponse {
            id: None,
            model: ModelName::new("m").unwrap(),
            version: ModelVersion(1),
            outputs: outputs.collect(),
            timings: Timings::default(),
            tokens: None,
            cache: outhaul_types::CacheStatus::Off,
            via: None,
        }
    }
}

fn floats(decoded: &DecodedInvocation) -> Vec<f32> {
    decoded.request.inputs[0].tensor.elements_of::<f32>().unwrap().to_vec()
}

#[test]
fn every_form_of_rows_is_read_alike() {
    let model = Model::of_pairs();
    let oip = r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}]}"#;
    for (content_type, body) in [
        ("application/json", r#"{"instances": [[1, 2], [3, 4]]}"#),
        ("application/json; charset=utf-8", r#"{"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}"#),
        ("Application/JSON", "[[1, 2], [3, 4]]"),
        ("application/json", r#"{"inputs": [[1, 2], [3, 4]]}"#),
        ("application/json", r#"{"inputs": {"x": [[1, 2], [3, 4]]}}"#),
        ("application/json", oip),
        ("application/jsonlines", "[1, 2]\n[3, 4]"),
        ("application/x-jsonlines", "{\"x\": [1, 2]}\r\n\n{\"x\": [3, 4]}\n"),
        ("application/jsonl", "[1, 2]\n[3, 4]\n\n"),
        ("text/csv", "1,2\n3,4\n"),
        ("text/csv; header=absent", "1,2\r\n3,4"),
    ] {
        let decoded = model.decode(content_type, "*/*", body).unwrap();
        assert_eq!(floats(&decoded), [1.0, 2.0, 3.0, 4.0], "{content_type} {body}");
    }
}

#[test]
fn answers_come_as_the_request_did_or_as_is_accepted() {
    let (one, two) = (Model::of_pairs(), Model::of_labels());
    let (rows, lines, csv) = (r#"{"instances": [[1, 2], [3, 4]]}"#, "[1, 2]\n[3, 4]", "1,2\n3,4");
    let columns = r#"{"inputs": [[1, 2], [3, 4]]}"#;
    struct Case<'c>(&'c Model, (&'c str, &'c str), &'c str, (&'c str, &'c str));
    let (j, l) = ("application/json", "application/jsonlines");
    let cases = [
        Case(&one, (j, ""), rows, (j, r#"{"predictions":[0.5,1.5]}"#)),
        Case(&one, (j, "*/*"), columns, (j, r#"{"outputs":[0.5,1.5]}"#)),
        Case(&one, (l, "*/*"), lines, (l, "0.5\n1.5\n")),
        Case(&one, ("text/csv", "*/*"), csv, ("text/csv", "0.5\n1.5\n")),
        Case(&one, ("text/csv", j), csv, (j, r#"{"predictions":[0.5,1.5]}"#)),
        Case(&one, (j, "text/csv"), rows, ("text/csv", "0.5\n1.5\n")),
        Case(&one, (j, l), columns, (l, "0.5\n1.5\n")),
        Case(
            &two,
            (l, "*/*"),
            lines,
            (l, "{\"y\":0.5,\"label\":\"r0\"}\n{\"y\":1.5,\"label\":\"r1\"}\n"),
        ),
        Case(&two, (j, "text/csv"), rows, ("text/csv", "0.5,r0\n1.5,r1\n")),
        Case(&two, (j, "text/csv;header=present"), rows, ("text/csv", "y,label\n0.5,r0\n1.5,r1\n")),
        Case(
            &two,
            (l, j),
            lines,
            (j, r#"{"predictions":[{"y":0.5,"label":"r0"},{"y":1.5,"label":"r1"}]}"#),
        ),
        Case(
            &one,
            ("application/jsonl", "text/html, application/x-jsonlines"),
            lines,
            ("application/x-jsonlines", "0.5\n1.5\n"),
        ),
        Case(&one, (j, "text/csv;q=0.2, application/jsonlines;q=0.9"), rows, (l, "0.5\n1.5\n")),
    ];
    for Case(model, media, body, (content_type, expected)) in cases {
        let (written_as, written) = model.answer(media, body);
        let expected = expected.as_bytes().escape_ascii().to_string();
        assert_eq!((&*written_as, written), (content_type, expected), "{media:?} {body}");
    }
}

#[test]
fn the_open_inference_protocol_is_answered_by_its_own() {
    let model = Model::of_pairs();
    let body = r#"{"id":"7","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
    let (media, written) = model.answer(("application/json", "*/*"), body);
    assert_eq!(media, "application/json");
    assert!(written.contains("outputs") && written.contains("datatype"), "{written}");

    let json = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}"#;
    let mut whole = json.as_bytes().to_vec();
    whole.extend([1.0_f32, 2.0].iter().flat_map(|number| number.to_le_bytes()));
    let media =
        format!("application/vnd.sagemaker-triton.binary+json;json-header-size={}", json.len());
    let decoded = model.decode(&media, "*/*", whole).unwrap();
    assert_eq!(floats(&decoded), [1.0, 2.0]);
    let encoded =
        encode_invocation(&decoded.format, &[model.response(1)], &model.schema()).unwrap();
    let (media, length) = encoded.content_type.rsplit_once('=').unwrap();
    assert_eq!(media, "application/vnd.sagemaker-triton.binary+json;json-header-size");
    assert_eq!(encoded.body[length.parse().unwrap()..], 0.5_f32.to_le_bytes());
}

#[test]
fn arrays_become_the_models_type_and_come_back() {
    let model = Model::of_pairs();
    let array = |tensor: Tensor| npy::encode(&tensor).unwrap();
    let doubles = Tensor::from_vec([1, 2], vec![1.5_f64, 2.0]).unwrap();
    let whole = Tensor::from_vec([1, 2], vec![-3_i64, 4]).unwrap();
    let bytes = Tensor::from_vec([1, 2], vec![5_u8, 6]).unwrap();
    for (tensor, expected) in [(doubles, [1.5, 2.0]), (whole, [-3.0, 4.0]), (bytes, [5.0, 6.0])] {
        let decoded = model.decode("application/x-npy", "*/*", array(tensor)).unwrap();
        assert_eq!(floats(&decoded), expected);
        let encoded =
            encode_invocation(&decoded.format, &[model.response(1)], &model.schema()).unwrap();
        assert_eq!(encoded.content_type, "application/x-npy");
        let back = npy::decode(&encoded.body, &DecodeLimits::default()).unwrap();
        assert_eq!(back, Tensor::from_vec([1], vec![0.5_f32]).unwrap());
    }
    let huge = array(Tensor::from_vec([1, 2], vec![1.0, 1e300]).unwrap());
    let error = model.decode("application/x-npy", "*/*", huge).unwrap_err();
    assert!(error.to_string().contains("element 1 is 1"), "{error}");

    let mut tokens = Model::of_pairs();
    tokens.signature.inputs = vec![spec("ids", DataType::Int32, &[None])];
    let ids = |ids: Vec<i64>| array(Tensor::from_vec([ids.len()], ids).unwrap());
    let decoded = tokens.decode("application/x-npy", "*/*", ids(vec![1, 2])).unwrap();
    assert_eq!(*decoded.request.inputs[0].tensor.elements_of::<i32>().unwrap(), [1, 2]);
    assert!(tokens.decode("application/x-npy", "*/*", ids(vec![1 << 40])).is_err());
    // A float is no token; the signature says what was expected.
    let float = array(Tensor::from_vec([1], vec![1.5_f64]).unwrap());
    let decoded = tokens.decode("application/x-npy", "*/*", float).unwrap();
    assert_eq!(decoded.request.inputs[0].tensor.data_type(), DataType::Fp64);
}

#[test]
fn the_columns_of_an_array_are_the_columns_of_a_model() {
    let column = |name| spec(name, DataType::Fp64, &[None]);
    let outputs = || vec![spec("y", DataType::Fp32, &[None])];
    let model = Model::of(vec![column("a"), column("b")], outputs());
    let array = Tensor::from_vec([2, 2], vec![1.0_f32, 2.0, 3.0, 4.0]).unwrap();
    let array = npy::encode(&array).unwrap();
    let decoded = model.decode("application/x-npy", "*/*", array.clone()).unwrap();
    let of = |index: usize| {
        let input = &decoded.request.inputs[index];
        (&*input.name, input.tensor.elements_of::<f64>().unwrap().to_vec())
    };
    assert_eq!([of(0), of(1)], [("a", vec![1.0, 3.0]), ("b", vec![2.0, 4.0])]);
    let model = Model::of(vec![column("a"), column("b"), column("c")], outputs());
    let error = model.decode("application/x-npy", "*/*", array).unwrap_err();
    assert!(error.to_string().contains("as many columns"), "{error}");
}

#[test]
fn an_array_holds_one_output_of_numbers() {
    let model = Model::of_labels();
    let body = || r#"{"instances": [[1, 2]]}"#.to_owned();
    let error = model.decode("application/json", "application/x-npy", body()).unwrap_err();
    assert!(error.to_string().contains("several outputs"), "{error}");
    let named = |name: &str| {
        let forms = (ContentType::Json, Accepted::Npy);
        let limits = DecodeLimits::default();
        let names = [Name::from(name)];
        decode_invocation(&body().into(), forms, &names, &model.schema(), &limits)
    };
    assert_eq!(named("y").unwrap().request.outputs[0].name, "y");
    assert!(named("label").unwrap_err().to_string().contains("is text"));
    // Left open, an answer that is no array is JSON.
    let array = npy::encode(&Tensor::from_vec([1, 2], vec![1.0_f32, 2.0]).unwrap()).unwrap();
    let decoded = model.decode("application/x-npy", "*/*", array).unwrap();
    let encoded =
        encode_invocation(&decoded.format, &[model.response(1)], &model.schema()).unwrap();
    assert_eq!(encoded.content_type, "application/json");
}

#[test]
fn a_body_may_be_the_one_value() {
    let (picture, text) = (Model::of_bytes(Content::Image), Model::of_bytes(Content::Text));
    for (model, media, body) in [
        (&picture, "image/jpeg", &b"\xff\xd8"[..]),
        (&picture, "application/x-image", b"\x89PNG"),
        (&picture, "application/octet-stream", b"\0"),
        (&text, "text/plain; charset=utf-8", "grüße".as_bytes()),
        (&text, "application/octet-stream", b""),
    ] {
        let decoded = model.decode(media, "*/*", body).unwrap();
        let tensor = &decoded.request.inputs[0].tensor;
        assert_eq!(tensor.shape().to_vec(), [1]);
        assert_eq!(tensor.as_strings().unwrap().get(0), Some(body), "{media}");
    }
    let (_, written) = text.answer(("text/plain", "*/*"), "a");
    assert_eq!(written, r#"{\"predictions\":[0.5]}"#);
    for (model, media, expected) in [
        (&picture, "text/plain", "takes a picture"),
        (&text, "image/png", "takes a text"),
        (&Model::of_pairs(), "text/plain", "takes numbers"),
        (&text, "text/plain", "request is not UTF-8 at byte 1"),
    ] {
        let error = model.decode(media, "*/*", &b"a\xff"[..]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn every_mistake_is_named() {
    struct Case(&'static str, &'static str, &'static str);
    let (j, l) = ("application/json", "application/jsonlines");
    let cases = [
        Case(j, "", "malformed JSON"),
        Case(j, "1", "the body must be a list of rows, or an object with 'instances' or 'inputs'"),
        Case(j, "{}", "'instances' is missing"),
        Case(j, r#"{"instances": [], "inputs": []}"#, "'inputs' of this request is not supported"),
        Case(j, r#"{"instances": []}"#, "request has no rows"),
        Case(j, "[[1, 2], [1, \"b\"]]", "row 1: 'x'[1] must be a number, got a string"),
        Case(l, "", "request has no rows"),
        Case(l, "[1, 2]\n\n[3, x]", "malformed JSON: expected value at line 3 column 5"),
        Case(l, "[1, 2]\n\n[3, null]", "row 1 (line 3): 'x'[1]"),
        Case(l, "[1, 2]\n[1]", "row 1 (line 2): 'x'"),
        Case(l, "[1, 2] [3, 4]", "malformed JSON: trailing"),
        Case("text/csv", "1,2\n3,b", "row 1 (line 2): 'x'[1]"),
        Case("application/x-npy", "no", "malformed NPY"),
    ];
    let model = Model::of_pairs();
    for Case(media, body, expected) in cases {
        let error = model.decode(media, "*/*", body).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error} for {body}");
        assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported));
    }
    let error = model.decode(l, "*/*", &b"[1, 2]\n\xff"[..]).unwrap_err();
    assert_eq!(error.to_string(), "request is not UTF-8 at byte 7");
}

#[test]
fn a_model_that_answers_with_other_rows_is_found_out() {
    let model = Model::of_pairs();
    let decoded = model.decode("text/csv", "*/*", "1,2\n3,4").unwrap();
    let encoded = encode_invocation(&decoded.format, &[model.response(1)], &model.schema());
    assert!(encoded.unwrap_err().to_string().contains("2 rows"));
}

#[test]
fn forms_that_nothing_reads_or_writes_are_refused() {
    let error = ContentType::read(Some("application/xml")).unwrap_err();
    assert_eq!(error, MediaError::Unsupported("application/xml".to_owned()));
    assert!(error.to_string().starts_with("content type 'application/xml' is not read here"));
    assert!(ContentType::read(Some("application/vnd.sagemaker-triton.binary+json")).is_err());
    assert_eq!(ContentType::read(None), Ok(ContentType::Json));
    for (accept, expected) in [
        ("", Ok(Accepted::Any)),
        ("text/*", Ok(Accepted::Csv { header: false })),
        ("application/json;q=0, text/csv;q=0.1", Ok(Accepted::Csv { header: false })),
        ("application/xml, application/x-npy", Ok(Accepted::Npy)),
        ("image/png", Err(MediaError::NotAcceptable("image/png".to_owned()))),
        ("application/json;q=0", Err(MediaError::NotAcceptable("application/json;q=0".to_owned()))),
    ] {
        assert_eq!(Accepted::read(Some(accept)), expected, "{accept}");
    }
}

#[test]
fn models_are_listed_by_the_page() {
    let models: Vec<ListedModel> = (0..1100)
        .map(|index| ListedModel { name: format!("m{index:04}"), url: "/opt/ml/\"x\"".to_owned() })
        .collect();
    let mut seen = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let page: Value = serde_json::from_slice(&list_models(&models, token.as_deref())).unwrap();
        let names = page["models"].as_array().unwrap().iter();
        seen.extend(names.map(|model| model["modelName"].as_str().unwrap().to_owned()));
        match page["nextPageToken"].as_str() {
            Some(next) => token = Some(next.to_owned()),
            None => break,
        }
    }
    assert!(seen.iter().eq(models.iter().map(|model| &model.name)));
    let one: Value = serde_json::from_slice(&describe_model(&models[0])).unwrap();
    assert_eq!(one, json!({"modelName": "m0000", "modelUrl": "/opt/ml/\"x\""}));
}

#[test]
fn a_model_to_load_has_a_name_and_a_folder() {
    let add = decode_add(br#"{"model_name": "a", "url": "/opt/ml/models/a/model"}"#).unwrap();
    assert_eq!((&*add.name, &*add.url), ("a", "/opt/ml/models/a/model"));
    for (body, expected) in [
        ("[]", "'body' must be an object, got a list"),
        (r#"{"url": "/x"}"#, "'model_name' is missing"),
        (r#"{"model_name": 1, "url": "/x"}"#, "'model_name' must be a string, got a number"),
        (r#"{"model_name": "a", "url": ""}"#, "'url' must not be empty"),
    ] {
        assert_eq!(decode_add(body.as_bytes()).unwrap_err().to_string(), expected);
    }
}

#[test]
fn errors_have_what_boto3_looks_for() {
    for (status, code) in [
        (400, "ValidationError"),
        (415, "ValidationError"),
        (429, "ThrottlingException"),
        (500, "ModelError"),
        (503, "ServiceUnavailable"),
        (507, "InsufficientStorage"),
    ] {
        let body: Value = serde_json::from_slice(&error_body(status, "no")).unwrap();
        assert_eq!(body, json!({"error": "no", "message": "no", "code": code}));
    }
}
