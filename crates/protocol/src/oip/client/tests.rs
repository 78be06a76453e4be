use outhaul_types::{
    CacheStatus, Classification, DataType, Element, InferResponse, ModelName, ModelVersion,
    Strings, Tensor, Timings, VersionChoice,
};
use proptest::prelude::*;

use super::*;
use crate::oip::{OutputFormat, Target, decode_infer, encode_infer};

fn named(name: &str, tensor: Tensor) -> NamedTensor {
    NamedTensor { name: name.into(), tensor }
}

/// One tensor of every type, with an empty one and a scalar among them.
fn all_types() -> Vec<NamedTensor> {
    fn two<T: Element + Send + Default>(name: &str) -> NamedTensor {
        named(name, Tensor::from_vec([2, 1], vec![T::default(), T::default()]).unwrap())
    }
    let halves = vec![half::f16::from_f32(1.5)];
    let texts: Strings = [&b"a"[..], b"\xff\0", b""].into_iter().collect();
    vec![
        two::<u8>("u8"),
        two::<u16>("u16"),
        two::<u32>("u32"),
        two::<u64>("u64"),
        two::<i8>("i8"),
        two::<i16>("i16"),
        two::<i32>("i32"),
        two::<i64>("i64"),
        two::<f32>("f32"),
        two::<f64>("f64"),
        named("f16", Tensor::from_vec([1], halves).unwrap()),
        named("bf16", Tensor::from_vec([], vec![half::bf16::from_f32(-2.0)]).unwrap()),
        named("nan", Tensor::from_vec([1], vec![f32::NAN]).unwrap()),
        named("bool", Tensor::from_bools([3], [true, false, true]).unwrap()),
        named("none", Tensor::from_vec([0, 7], Vec::<f32>::new()).unwrap()),
        named("te\"x\\t", Tensor::from_strings([3, 1], texts).unwrap()),
    ]
}

/// Sends a request to our own decoder.
fn received(request: &InferRequest) -> (InferRequest, OutputFormat) {
    let EncodedRequest { json_length, body } = encode_request(request);
    let target = Target { model: request.model.clone(), version: request.version.clone() };
    let decoded = decode_infer(body, Some(json_length), target, &DecodeLimits::default()).unwrap();
    (decoded.request, decoded.format)
}

#[test]
fn a_server_reads_the_request_that_was_written() {
    let mut request = InferRequest::new("m", all_types());
    assert_eq!(received(&request).0, request, "with nothing but inputs");
    request.id = Some("7\n\"\u{e9}".into());
    request.version = VersionChoice::Exact(ModelVersion(3));
    request.outputs = vec![
        RequestedOutput { name: "y".into(), classification: None },
        RequestedOutput { name: "\u{1}".into(), classification: Some(Classification { count: 3 }) },
    ];
    request.parameters = [
        ("a\"b", Parameter::String("\u{7f}\t".to_owned())),
        ("flag", Parameter::Bool(false)),
        ("float", Parameter::Float(1e300)),
        ("huge", Parameter::Float(f64::NEG_INFINITY)),
        ("int", Parameter::Int(i64::MIN)),
        ("one", Parameter::Float(1.0)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let (back, format) = received(&request);
    assert_eq!(back, request);
    assert!(format.is_binary("y") && format.is_binary("another"));
    request.parameters.insert(BINARY_DATA_OUTPUT.to_owned(), Parameter::Bool(false));
    let (back, format) = received(&request);
    assert!(format.binary_by_default && back.parameters.len() + 1 == request.parameters.len());
}

fn response(outputs: Vec<NamedTensor>) -> InferResponse {
    InferResponse {
        id: Some("7".into()),
        model: ModelName::new("m").unwrap(),
        version: ModelVersion(4),
        outputs: outputs.into(),
        timings: Timings::default(),
        tokens: None,
        cache: CacheStatus::Off,
        via: None,
    }
}

#[test]
fn the_answer_that_a_server_writes_is_read() {
    let sent = response(all_types());
    for binary_by_default in [true, false] {
        // Strings that are not UTF-8 only travel as binary data.
        let named = smallvec::smallvec![("te\"x\\t".into(), true)];
        let format = OutputFormat { binary_by_default, named };
        let encoded = encode_infer(&sent, &format).unwrap();
        let limits = DecodeLimits::default();
        let answer = decode_answer(encoded.body, encoded.json_length, &limits).unwrap();
        assert_eq!((answer.model.as_deref(), answer.version.as_deref()), (Some("m"), Some("4")));
        assert_eq!(answer.outputs, sent.outputs, "binary: {binary_by_default}");
    }
}

fn decode(json: &str, binary: &[u8]) -> Result<DecodedAnswer, String> {
    let body = Bytes::from([json.as_bytes(), binary].concat());
    let limits = DecodeLimits::default();
    let json_length = (!binary.is_empty()).then_some(json.len());
    decode_answer(body, json_length, &limits).map_err(|error| error.to_string())
}

#[test]
fn other_servers_answers_are_read() {
    let json = r#"{"id": "", "outputs": [{"shape": [1], "datatype": "FP32", "name": "y",
        "data": [0.5]}], "parameters": {"sequence": {"id": [0]}}, "model_version": null,
        "model_name": ""}"#;
    let answer = decode(json, b"").unwrap();
    assert_eq!((&answer.model, &answer.version), (&None, &None));
    assert_eq!(answer.outputs[0].tensor.data_type(), DataType::Fp32);
}

#[test]
fn what_is_no_answer_is_told() {
    struct Case(&'static str, &'static [u8], &'static str);
    for Case(json, binary, expected) in [
        Case("", b"", "malformed JSON"),
        Case("[]", b"", "'answer' must be an object"),
        Case("{}", b"", "'outputs' is missing"),
        Case(r#"{"outputs":3}"#, b"", "'outputs' must be a list"),
        Case(r#"{"outputs":[],"outputs":[]}"#, b"", "'outputs' is given twice"),
        Case(r#"{"outputs":[{}]}"#, b"", "'outputs[0].name' is missing"),
        Case(r#"{"outputs":[]}"#, b"xy", "2 bytes left over after the binary data of its outputs"),
        Case(r#"{"outputs":[],"model_name":7}"#, b"", "'model_name' must be a string"),
        Case(
            r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1]}]}"#,
            b"",
            "output 'y' has shape [2] which needs 2 elements, got 1",
        ),
        Case(
            r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":9}}]}"#,
            b"1234",
            "output 'y' has 9 bytes of binary data",
        ),
    ] {
        let error = decode(json, binary).expect_err(json);
        assert!(error.contains(expected), "{json}: {error}");
    }
    let limits = DecodeLimits { max_tensors: 1, ..DecodeLimits::default() };
    let two = encode_infer(&response(all_types()[..2].to_vec()), &OutputFormat::default()).unwrap();
    let error = decode_answer(two.body.clone(), None, &limits).unwrap_err();
    assert_eq!(error, AnswerError::TooMany { limit: 1 });
    let error = decode_answer(two.body, Some(1 << 40), &limits).unwrap_err();
    assert!(error.to_string().contains("is 1099511627776, but the body has"), "{error}");
}

proptest! {
    #[test]
    fn texts_of_any_kind_arrive(name in "\\PC{1,8}", key in "\\PC{0,8}", text in ".{0,8}") {
        prop_assume!(key != BINARY_DATA_OUTPUT);
        let tensor = Tensor::from_strings([1], [text.as_bytes()].into_iter().collect()).unwrap();
        let mut request = InferRequest::new("m", [named(&name, tensor)]);
        request.parameters.insert(key, Parameter::String(text.clone()));
        request.id = (!text.is_empty()).then(|| text.into());
        prop_assert_eq!(received(&request).0, request);
    }
}
