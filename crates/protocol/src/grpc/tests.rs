//! Conversions both ways, and what wrong messages are told.

use std::time::Duration;

use bytes::Bytes;
use outhaul_types::{
    Classify, DataType, ErrorKind, InferRequest, InferResponse, Label, ModelName, ModelVersion,
    NamedTensor, Parameter, Shape, Strings, Tensor, Timings, VersionChoice,
};
use prost::Message;
use smallvec::smallvec;

use super::pb::infer_parameter::ParameterChoice;
use super::pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::pb::{InferParameter, InferTensorContents, ModelInferRequest};
use super::*;
use crate::{DecodeLimits, ProtocolError};

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..Default::default()
    }
}

fn typed(datatype: &str, shape: &[i64], contents: InferTensorContents) -> InferInputTensor {
    InferInputTensor { contents: Some(contents), ..input("x", datatype, shape) }
}

fn request(
    inputs: impl IntoIterator<Item = InferInputTensor>,
    raw: impl IntoIterator<Item = Vec<u8>>,
) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "iris".into(),
        inputs: inputs.into_iter().collect(),
        raw_input_contents: raw.into_iter().map(Bytes::from).collect(),
        ..Default::default()
    }
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

fn decode(request: ModelInferRequest) -> Result<InferRequest, ProtocolError> {
    decode_infer(request, &DecodeLimits::default())
}

fn floats(elements: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(elements).to_vec()
}

#[test]
fn raw_bytes_are_shared_with_the_message() {
    let message = request([input("x", "FP32", &[1, 2])], [floats(&[1.0, 2.0])]);
    let bytes = Bytes::from(message.encode_to_vec());
    let message = ModelInferRequest::decode(bytes.clone()).unwrap();
    let decoded = decode(message).unwrap();
    let tensor = decoded.inputs[0].tensor.as_bytes().unwrap();
    assert!(bytes.as_ptr_range().contains(&tensor.as_ptr()), "the tensor was copied");
    assert_eq!(decoded.inputs[0].tensor.elements_of::<f32>().as_deref(), Some(&[1.0, 2.0][..]));
}

#[test]
fn every_datatype_is_read_from_its_contents() {
    let contents = InferTensorContents::default;
    let cases = [
        (
            typed(
                "BOOL",
                &[2],
                InferTensorContents { bool_contents: vec![true, false], ..contents() },
            ),
            Tensor::from_bools([2], [true, false]),
        ),
        (
            typed("UINT8", &[2], InferTensorContents { uint_contents: vec![0, 255], ..contents() }),
            Tensor::from_vec([2], vec![0_u8, 255]),
        ),
        (
            typed(
                "UINT16",
                &[1],
                InferTensorContents { uint_contents: vec![65_535], ..contents() },
            ),
            Tensor::from_vec([1], vec![65_535_u16]),
        ),
        (
            typed(
                "UINT32",
                &[1],
                InferTensorContents { uint_contents: vec![u32::MAX], ..contents() },
            ),
            Tensor::from_vec([1], vec![u32::MAX]),
        ),
        (
            typed(
                "UINT64",
                &[1],
                InferTensorContents { uint64_contents: vec![u64::MAX], ..contents() },
            ),
            Tensor::from_vec([1], vec![u64::MAX]),
        ),
        (
            typed(
                "INT8",
                &[2],
                InferTensorContents { int_contents: vec![-128, 127], ..contents() },
            ),
            Tensor::from_vec([2], vec![-128_i8, 127]),
        ),
        (
            typed("INT16", &[1], InferTensorContents { int_contents: vec![-5], ..contents() }),
            Tensor::from_vec([1], vec![-5_i16]),
        ),
        (
            typed("INT32", &[1, 1], InferTensorContents { int_contents: vec![7], ..contents() }),
            Tensor::from_vec([1, 1], vec![7_i32]),
        ),
        (
            typed(
                "INT64",
                &[],
                InferTensorContents { int64_contents: vec![i64::MIN], ..contents() },
            ),
            Tensor::from_vec(Shape::new([]), vec![i64::MIN]),
        ),
        (
            typed("FP32", &[1], InferTensorContents { fp32_contents: vec![0.5], ..contents() }),
            Tensor::from_vec([1], vec![0.5_f32]),
        ),
        (typed("FP64", &[0, 3], contents()), Tensor::from_vec([0, 3], Vec::<f64>::new())),
        (
            typed(
                "BYTES",
                &[2],
                InferTensorContents {
                    bytes_contents: vec![Bytes::new(), Bytes::from_static(b"\xff")],
                    ..contents()
                },
            ),
            Tensor::from_strings([2], [&b""[..], b"\xff"].iter().collect::<Strings>()),
        ),
        // No contents at all are those of an empty tensor.
        (input("x", "FP16", &[2, 0]), Tensor::from_bytes(DataType::Fp16, [2, 0], Bytes::new())),
    ];
    for (input, expected) in cases {
        let datatype = input.datatype.clone();
        let decoded = decode(request([input], [])).unwrap();
        assert_eq!(decoded.inputs[0].tensor, expected.unwrap(), "{datatype}");
    }
}

#[test]
fn raw_entries_find_their_inputs() {
    let contents = InferTensorContents { fp32_contents: vec![9.0], ..Default::default() };
    let with_contents =
        || InferInputTensor { contents: Some(contents.clone()), ..input("typed", "FP32", &[1]) };
    let values = |message: ModelInferRequest| -> Vec<f32> {
        let decoded = decode(message).unwrap();
        decoded.inputs.iter().map(|i| i.tensor.elements_of::<f32>().unwrap()[0]).collect()
    };
    let both =
        request([with_contents(), input("raw", "FP32", &[1])], [floats(&[1.0]), floats(&[2.0])]);
    assert_eq!(values(both), [1.0, 2.0], "an entry for every input: raw wins");
    let mixed = request([with_contents(), input("raw", "FP32", &[1])], [floats(&[2.0])]);
    assert_eq!(values(mixed), [9.0, 2.0], "an entry for every input without contents");
}

#[test]
fn what_surrounds_the_tensors_is_kept() {
    let mut message = request([input("x", "BYTES", &[1])], [b"\x02\0\0\0hi".to_vec()]);
    message.model_version = "3".into();
    message.id = "a".into();
    message.parameters = [
        ("timeout".to_owned(), parameter(ParameterChoice::Int64Param(5000))),
        ("priority".to_owned(), parameter(ParameterChoice::Uint64Param(1))),
        ("why".to_owned(), parameter(ParameterChoice::StringParam("test".into()))),
        ("half".to_owned(), parameter(ParameterChoice::DoubleParam(0.5))),
        ("yes".to_owned(), parameter(ParameterChoice::BoolParam(true))),
    ]
    .into();
    message.outputs = vec![InferRequestedOutputTensor {
        name: "y".into(),
        parameters: [("classification".to_owned(), parameter(ParameterChoice::Int64Param(3)))]
            .into(),
    }];
    let decoded = decode(message).unwrap();
    assert_eq!(decoded.model, "iris");
    assert_eq!(decoded.version, VersionChoice::Exact(ModelVersion(3)));
    assert_eq!(decoded.id.as_deref(), Some("a"));
    assert_eq!(decoded.inputs[0].tensor.as_strings().unwrap().get(0), Some(&b"hi"[..]));
    assert_eq!(decoded.outputs[0].classification.unwrap().count, 3);
    assert_eq!(decoded.parameters["timeout"], Parameter::Int(5000));
    assert_eq!(decoded.parameters["priority"], Parameter::Int(1));
    assert_eq!(decoded.parameters["why"], Parameter::String("test".into()));
    assert_eq!(decoded.parameters["half"], Parameter::Float(0.5));
    assert_eq!(decoded.parameters["yes"], Parameter::Bool(true));
}

#[test]
fn a_version_may_be_a_number_a_label_or_nothing() {
    let stable = VersionChoice::Label(Label::new("stable").unwrap());
    for (text, expected) in [
        ("", VersionChoice::Latest),
        ("0", VersionChoice::Latest),
        ("12", VersionChoice::Exact(ModelVersion(12))),
        ("stable", stable),
    ] {
        let message = ModelInferRequest { model_version: text.into(), ..request([], []) };
        assert_eq!(decode(message).unwrap().version, expected, "{text}");
    }
}

#[test]
fn wrong_messages_are_told_what_is_wrong() {
    let contents = InferTensorContents::default;
    let int64 = InferTensorContents { int64_contents: vec![1], ..contents() };
    let two = InferTensorContents { fp32_contents: vec![1.0, 2.0], ..contents() };
    let large = InferTensorContents { int_contents: vec![1, 300], ..contents() };
    let x = |datatype, shape: &[i64]| input("x", datatype, shape);
    let shared = InferInputTensor {
        parameters: [(
            "shared_memory_region".to_owned(),
            parameter(ParameterChoice::StringParam("region".into())),
        )]
        .into(),
        ..x("FP32", &[1])
    };
    let cases = [
        (
            request([x("FP32", &[1, 4])], [vec![0; 15]]),
            "input 'x' has shape [1,4] of FP32 which needs 16 bytes, got 15",
        ),
        (
            request([x("FP32", &[])], [vec![0; 16]]),
            "input 'x' has shape [] of FP32 which needs 4 bytes, got 16",
        ),
        (
            request([x("FP32", &[1, -4])], [vec![0; 16]]),
            "input 'x' has the negative size -4 as dimension 1 of its shape",
        ),
        (
            request([x("FP32", &[i64::MAX, 4])], [vec![0; 16]]),
            "input 'x' has shape [9223372036854775807,4], which has more elements than can be \
             addressed",
        ),
        (request([x("FP32", &[1; 17])], [vec![0; 4]]), "input 'x' has more than 16 dimensions"),
        (
            request([x("FLOAT", &[1])], [vec![0; 4]]),
            "input 'x' has an unknown datatype 'FLOAT', expected one of BOOL, UINT8, UINT16, \
             UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES",
        ),
        (
            request([x("BOOL", &[2])], [vec![1, 2]]),
            "input 'x' element 1 is 2, expected 0 or 1 for a BOOL",
        ),
        (
            request([x("BYTES", &[1])], [b"\x09\0\0\0hi".to_vec()]),
            "input 'x' element 0 says it has 9 bytes, but 2 are left",
        ),
        (
            request([x("BYTES", &[2])], [b"\x02\0\0\0hi\0".to_vec()]),
            "input 'x' ends within the four length bytes of element 1",
        ),
        (
            request([x("BYTES", &[i64::MAX])], [b"\x02\0\0\0hi".to_vec()]),
            "input 'x' has shape [9223372036854775807] which needs 9223372036854775807 elements, \
             got 1",
        ),
        (
            request([x("FP32", &[1])], []),
            "input 'x' has no data: give it in raw_input_contents, or in contents",
        ),
        (
            request([x("FP32", &[1])], [vec![0; 4], vec![0; 4]]),
            "'raw_input_contents' must be one entry for each of the 1 inputs, got 2 entries",
        ),
        (
            request([], [vec![0; 4]]),
            "'raw_input_contents' must be one entry for each of the 0 inputs, got 1 entries",
        ),
        (
            request([typed("FP32", &[2], two.clone()), x("FP32", &[1]), x("FP32", &[1])], [vec![]]),
            "'raw_input_contents' must be one entry for each of the 3 inputs, or for each of the 2 \
             without contents, got 1 entries",
        ),
        (
            request([typed("FP32", &[3], two)], []),
            "input 'x' has shape [3] which needs 3 elements, got 2",
        ),
        (
            request([typed("INT32", &[1], int64.clone())], []),
            "input 'x' has datatype INT32, whose contents belong in int_contents, but has \
             int64_contents",
        ),
        (
            request([typed("FP16", &[1], int64)], []),
            "input 'x' has datatype FP16, which contents cannot hold: send it in \
             raw_input_contents",
        ),
        (
            request([typed("INT8", &[2], large)], []),
            "input 'x' element 1 is 300, which is out of range for INT8",
        ),
        (request([input("", "FP32", &[1])], [vec![0; 4]]), "'name of an input' must not be empty"),
        (
            ModelInferRequest { model_name: String::new(), ..request([], []) },
            "'model_name' must not be empty",
        ),
        (
            ModelInferRequest { model_version: "1st".into(), ..request([], []) },
            "'model_version' must be a whole number, a label, or empty for the latest, got 1st",
        ),
        (
            request([shared], []),
            "input 'x' asks for shared memory, which is not supported: send the data in the request",
        ),
    ];
    for (message, expected) in cases {
        let error = decode(message).unwrap_err();
        assert_eq!(error.to_string(), expected);
        let unsupported = matches!(error, ProtocolError::SharedMemory { .. });
        let kind = if unsupported { ErrorKind::Unsupported } else { ErrorKind::InvalidInput };
        assert_eq!(error.kind(), kind, "{expected}");
    }
}

#[test]
fn wrong_outputs_and_parameters_are_told_what_is_wrong() {
    let with_output = |name: &str, key: &str, choice| ModelInferRequest {
        outputs: vec![InferRequestedOutputTensor {
            name: name.into(),
            parameters: [(key.to_owned(), InferParameter { parameter_choice: choice })].into(),
        }],
        ..request([], [])
    };
    let with_parameter = |choice| ModelInferRequest {
        parameters: [("p".to_owned(), InferParameter { parameter_choice: choice })].into(),
        ..request([], [])
    };
    let cases = [
        (
            with_output("y", "classification", Some(ParameterChoice::Int64Param(0))),
            "'classification' must be a whole number of at least 1, got 0",
        ),
        (
            with_output("y", "classification", Some(ParameterChoice::StringParam("3".into()))),
            "'classification' must be a whole number of at least 1, got \"3\"",
        ),
        (
            with_output("y", "shared_memory_region", None),
            "output 'y' asks for shared memory, which is not supported: send the data in the \
             request",
        ),
        (with_output("", "", None), "'name of an output' must not be empty"),
        (with_parameter(None), "'value of parameter p' is missing"),
        (
            with_parameter(Some(ParameterChoice::Uint64Param(u64::MAX))),
            "'p' must be a whole number below 2^63, got 18446744073709551615",
        ),
        (
            request((0..1025).map(|_| input("x", "FP32", &[0])), []),
            "request has more than 1024 inputs",
        ),
    ];
    for (message, expected) in cases {
        assert_eq!(decode(message).unwrap_err().to_string(), expected);
    }
}

#[test]
fn an_answer_is_written_as_raw_contents() {
    let strings = ["ab", ""].iter().collect::<Strings>();
    let named = |name: &str, tensor: Tensor| NamedTensor { name: name.into(), tensor };
    let scores = Tensor::from_vec([1, 2], vec![0.25_f32, 0.75]).unwrap();
    let buffer = scores.as_bytes().unwrap().as_ptr();
    let message = encode_infer(InferResponse {
        id: Some("7".into()),
        model: ModelName::new("iris").unwrap(),
        version: ModelVersion(2),
        outputs: smallvec![
            named("scores", scores),
            named("words", Tensor::from_strings([2], strings).unwrap()),
        ],
        tokens: None,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
        timings: Timings {
            load: Duration::ZERO,
            queue: Duration::from_micros(10),
            compute: Duration::from_micros(20),
            batch_rows: 4,
            ..Default::default()
        },
    });
    assert_eq!(message.raw_output_contents[0].as_ptr(), buffer, "the output was copied");
    let message = pb::ModelInferResponse::decode(&*message.encode_to_vec()).unwrap();
    assert_eq!((message.model_name.as_str(), message.model_version.as_str()), ("iris", "2"));
    assert_eq!(message.id, "7");
    assert_eq!(message.outputs[0].shape, [1, 2]);
    assert_eq!(message.outputs[1].datatype, "BYTES");
    assert_eq!(message.raw_output_contents[0], floats(&[0.25, 0.75]));
    assert_eq!(&message.raw_output_contents[1][..], b"\x02\0\0\0ab\0\0\0\0");
    let split: Vec<_> = message
        .parameters
        .iter()
        .map(|(name, value)| match value {
            InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(number)) } => {
                (name.as_str(), *number)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("assemble_us", 0),
        ("batch_rows", 4),
        ("compute_us", 20),
        ("queue_us", 10),
        ("split_us", 0),
    ];
    assert_eq!(split, expected);
}
