//! The codec against tables of bodies. What a server answers to the same mistakes is in
//! `testdata/conformance/oip_rest`.

use std::time::Duration;

use bytes::Bytes;
use outhaul_types::{
    Classify, DataType, ErrorKind, InferResponse, ModelName, ModelVersion, NamedTensor, Parameter,
    Strings, Tensor, Timings, VersionChoice,
};
use smallvec::smallvec;

use super::*;
use crate::{DecodeLimits, ProtocolError};

fn target() -> Target {
    Target { model: "m".into(), version: VersionChoice::Latest }
}

fn decode(body: impl AsRef<[u8]>) -> Result<DecodedInfer, ProtocolError> {
    let body = Bytes::copy_from_slice(body.as_ref());
    decode_infer(body, None, target(), &DecodeLimits::default())
}

fn decode_binary(json: &str, binary: &[u8]) -> Result<DecodedInfer, ProtocolError> {
    let body = Bytes::from([json.as_bytes(), binary].concat());
    decode_infer(body, Some(json.len()), target(), &DecodeLimits::default())
}

/// Reads one input `x` with this type, shape and data.
fn tensor(data_type: &str, shape: &str, data: &str) -> Result<Tensor, String> {
    let body = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"{data_type}","shape":{shape},"data":{data}}}]}}"#
    );
    match decode(body) {
        Ok(decoded) => Ok(decoded.request.inputs[0].tensor.clone()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            Err(error.to_string())
        }
    }
}

fn response(outputs: Vec<NamedTensor>) -> InferResponse {
    InferResponse {
        id: None,
        model: ModelName::new("m").unwrap(),
        version: ModelVersion(1),
        outputs: outputs.into(),
        tokens: None,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
        timings: Timings::default(),
    }
}

fn named(name: &str, tensor: Tensor) -> NamedTensor {
    NamedTensor { name: name.into(), tensor }
}

/// Writes one output `y` as JSON and returns its data.
fn written(tensor: Tensor) -> String {
    let response = response(vec![named("y", tensor)]);
    let encoded = encode_infer(&response, &OutputFormat::default()).unwrap();
    let text = String::from_utf8(encoded.body.to_vec()).unwrap();
    let (_, data) = text.split_once("\"data\":").unwrap();
    data.strip_suffix("}]}").unwrap().to_owned()
}

#[test]
fn a_request_is_read_whole() {
    let decoded = decode(
        r#" {"id": "a\u00e9", "future": [{"x": [1, {}]}], "parameters": {"timeout": 500, "scale": 0.5,
            "flag": true, "tag": "t", "binary_data_output": true},
            "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}],
            "outputs": [{"name": "y", "parameters": {"binary_data": false, "classification": 3}},
                        {"name": "z"}]} "#,
    )
    .unwrap();
    let request = decoded.request;
    assert_eq!(request.id.as_deref(), Some("aé"));
    assert_eq!(request.inputs[0].tensor, Tensor::from_vec([1, 2], vec![1_f32, 2.5]).unwrap());
    assert_eq!(request.outputs[0].classification.map(|classes| classes.count), Some(3));
    assert_eq!(request.outputs[1].name, "z");
    let parameters: Vec<_> = request.parameters.iter().map(|(k, v)| (k.as_str(), v)).collect();
    assert_eq!(
        parameters,
        [
            ("flag", &Parameter::Bool(true)),
            ("scale", &Parameter::Float(0.5)),
            ("tag", &Parameter::String("t".to_owned())),
            ("timeout", &Parameter::Int(500)),
        ]
    );
    assert!(!decoded.format.is_binary("y"));
    assert!(decoded.format.is_binary("z"));
}

#[test]
fn fields_come_in_any_order() {
    let fields = [
        r#""name":"x""#,
        r#""datatype":"INT8""#,
        r#""shape":[2,1]"#,
        r#""data":[[-1],[2]]"#,
        r#""later":{"shape":[9]}"#,
    ];
    let expected = Tensor::from_vec([2, 1], vec![-1_i8, 2]).unwrap();
    for rotation in 0..fields.len() {
        let mut rotated = fields;
        rotated.rotate_left(rotation);
        for reversed in [false, true] {
            if reversed {
                rotated.reverse();
            }
            let body = format!(r#"{{"outputs":null,"inputs":[{{{}}}]}}"#, rotated.join(","));
            let decoded = decode(&body).unwrap();
            assert_eq!(decoded.request.inputs[0].tensor, expected, "{body}");
        }
    }
}

#[test]
fn elements_keep_their_exact_value() {
    let read = |data_type, data: &str| tensor(data_type, "[2]", data).unwrap();
    assert_eq!(
        read("UINT64", "[18446744073709551615,0]").as_slice::<u64>(),
        Some(&[u64::MAX, 0][..])
    );
    assert_eq!(
        read("INT64", "[-9223372036854775808, 9223372036854775807]").as_slice::<i64>(),
        Some(&[i64::MIN, i64::MAX][..])
    );
    assert_eq!(read("INT16", "[5.0, -1e3]").as_slice::<i16>(), Some(&[5, -1000][..]));
    assert_eq!(read("FP32", "[0.1, 1e-45]").as_slice::<f32>(), Some(&[0.1, 1e-45][..]));
    assert_eq!(read("FP64", "[0.1, -0.0]").as_slice::<f64>(), Some(&[0.1, -0.0][..]));
    assert_eq!(read("BOOL", "[true, 0]").as_bytes().unwrap()[..], [1, 0]);
    for data in ["[NaN, -Infinity]", r#"["NaN", "-Infinity"]"#] {
        for data_type in ["FP16", "BF16", "FP32", "FP64"] {
            let text = written(read(data_type, data));
            assert_eq!(text, "[NaN,-Infinity]", "{data_type}");
        }
    }
    let text = read("BYTES", r#"["", "\u00e9\n\ud83d\ude00"]"#);
    assert_eq!(text.as_strings().unwrap().get(1), Some("é\n😀".as_bytes()));
}

#[test]
fn decimals_are_rounded_once() {
    let bits = |data_type, number: &str| {
        let tensor = tensor(data_type, "[1]", &format!("[{number}]")).unwrap();
        let bytes = tensor.as_bytes().unwrap();
        bytes.iter().rev().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte))
    };
    // Just above and just below the middle of 1 and the next value of each type.
    assert_eq!(bits("FP16", "1.00048828125"), 0x3c00, "a tie goes to even");
    assert_eq!(bits("FP16", "1.000488281250001"), 0x3c01);
    assert_eq!(bits("FP16", "1.001464843749999"), 0x3c01);
    assert_eq!(bits("BF16", "1.00390625"), 0x3f80, "a tie goes to even");
    assert_eq!(bits("BF16", "1.003906250000001"), 0x3f81);
    assert_eq!(bits("FP16", "6.0e-8"), 1, "the smallest above zero");
    assert_eq!(bits("FP16", "65519.99"), 0x7bff, "the largest");
    // FP64 rounds this to the exact middle of two FP32 values.
    assert_eq!(bits("FP32", "1.000000059604644775390626"), 0x3f80_0001);
    assert_eq!(bits("FP32", "1.000000059604644775390624"), 0x3f80_0000);
}

#[test]
fn shapes_and_nesting_agree() {
    let flat = Tensor::from_vec([2, 1, 2], vec![1_i32, 2, 3, 4]).unwrap();
    for data in ["[1,2,3,4]", "[[[1,2]],[[3,4]]]", " [ [[1 , 2] ] , [[3,4]]\n] "] {
        assert_eq!(tensor("INT32", "[2,1,2]", data).as_ref(), Ok(&flat), "{data}");
    }
    for (shape, data) in [
        ("[0]", "[]"),
        ("[0,4]", "[]"),
        ("[2,0]", "[[],[]]"),
        ("[9999999999999,9999999999,0]", "[]"),
    ] {
        assert_eq!(tensor("FP32", shape, data).map(|tensor| tensor.len()), Ok(0), "{shape}");
    }
    for data in ["5", "[5]"] {
        assert_eq!(tensor("INT32", "[]", data).unwrap().as_slice::<i32>(), Some(&[5][..]));
    }
}

#[test]
fn every_bad_tensor_is_named() {
    let long = "9".repeat(400);
    let cases: &[(&str, &str, &str, &str)] = &[
        ("FP32", "[1,4]", "[1,2,3]", "has shape [1,4] which needs 4 elements, got 3"),
        ("FP32", "[2]", "[1,2,3,[4],{}]", "has shape [2] which needs 2 elements, got 5"),
        ("FP32", "[2]", "[]", "has shape [2] which needs 2 elements, got 0"),
        ("FP32", "[1,-4]", "[1]", "has the negative size -4 as dimension 1 of its shape"),
        (
            "FP32",
            "[4294967296,4294967296]",
            "[1]",
            "has shape [4294967296,4294967296], which has more elements than can be addressed",
        ),
        ("FP32", "[100000000000]", "[1]", "takes more than the limit of 1073741824 bytes"),
        ("BYTES", "[1000000000]", "[1]", "takes more than the limit of 1073741824 bytes"),
        ("FP32", "[1]", "1", "has shape [1], but its data is a number, not a list"),
        ("FP32", "[1]", "null", "has shape [1], but its data is null, not a list"),
        (
            "FP32",
            "[2,2]",
            "[[1,2],[3]]",
            "has shape [2,2], but a list at depth 2 of its data has 1 items where the shape says 2",
        ),
        (
            "FP32",
            "[2,2]",
            "[[1,2],[3,4],[5,6],[7,8]]",
            "has shape [2,2], but a list at depth 1 of its data has 4 items where the shape says 2",
        ),
        (
            "FP32",
            "[2,2]",
            "[[1,2],3,4]",
            "has shape [2,2], but its data holds an element at depth 1: give one flat list, or \
             lists nested as the shape says",
        ),
        (
            "FP32",
            "[1,1]",
            "[[[1]]]",
            "has shape [1,1], but its data holds a list at depth 2: give one flat list, or lists \
             nested as the shape says",
        ),
        ("FP32", "[2]", "[1,[2]]", "element 1 is a list, expected a number"),
        ("FP32", "[2]", "[1,null]", "element 1 is null, expected a number"),
        ("FP32", "[2]", "[1,true]", "element 1 is a boolean, expected a number"),
        ("FP32", "[2]", r#"[1,"2"]"#, r#"element 1 is the string "2", expected a number"#),
        ("FP32", "[1]", "[1e39]", "element 0 is 1e39, which is out of range for FP32"),
        ("FP64", "[1]", "[1e999]", "element 0 is 1e999, which is out of range for FP64"),
        ("FP16", "[1]", "[-65520]", "element 0 is -65520, which is out of range for FP16"),
        ("BF16", "[1]", "[3.4e38]", "element 0 is 3.4e38, which is out of range for BF16"),
        ("INT8", "[2]", "[0,128]", "element 1 is 128, which is out of range for INT8"),
        ("UINT8", "[1]", "[-1]", "element 0 is -1, which is out of range for UINT8"),
        ("INT8", "[1]", "[1e3]", "element 0 is 1e3, which is out of range for INT8"),
        ("INT32", "[1]", "[1.5]", "element 0 is 1.5, expected a whole number"),
        ("INT32", "[1]", "[NaN]", "element 0 is NaN, expected a whole number"),
        ("INT32", "[1]", r#"["1"]"#, "element 0 is a string, expected a whole number"),
        (
            "UINT64",
            "[1]",
            "[18446744073709551616]",
            "element 0 is 18446744073709551616, which is out of range for UINT64",
        ),
        ("BOOL", "[2]", "[true,2]", "element 1 is 2, expected true, false, 1 or 0"),
        ("BOOL", "[1]", r#"["true"]"#, "element 0 is a string, expected true, false, 1 or 0"),
        ("BYTES", "[1]", "[1]", "element 0 is a number, expected a string"),
    ];
    for (data_type, shape, data, expected) in cases {
        let received = tensor(data_type, shape, data).unwrap_err();
        assert_eq!(received, format!("input 'x' {expected}"), "{data_type} {shape} {data}");
    }
    let received = tensor("INT64", "[1]", &format!("[{long}]")).unwrap_err();
    assert!(received.len() < 200, "long values are cut: {received}");
    assert!(tensor("FLOAT", "[1]", "[1]").unwrap_err().starts_with("input 'x' has an unknown"));
    let deep = "[1,".repeat(20);
    assert!(tensor("FP32", &deep, "[1]").unwrap_err().contains("must be a whole number"));
    let ranks = format!("[{}1]", "1,".repeat(99));
    assert!(tensor("FP32", &ranks, "[1]").unwrap_err().contains("at most 16 dimensions"));
}

#[test]
fn every_bad_body_is_explained() {
    let input = r#"{"name":"x","datatype":"FP32","shape":[1],"data":[1]}"#;
    let cases: &[(String, &str)] = &[
        (String::new(), "malformed JSON: EOF while parsing a value at line 1 column 0"),
        ("{\n \"inputs\": [x]}".into(), "'inputs[0]' must be"),
        ("[]".into(), "'request' must be an object, got a list at line 1 column 1"),
        ("{}".into(), "'inputs' is missing"),
        (r#"{"inputs":{}}"#.into(), "'inputs' must be a list, got an object at line 1 column 11"),
        (r#"{"inputs":[1]}"#.into(), "'inputs[0]' must be an object, got a number"),
        (r#"{"inputs":[{}]}"#.into(), "'inputs[0].name' is missing"),
        (r#"{"inputs":[{"name":""}]}"#.into(), "'inputs[0].name' must not be empty"),
        (r#"{"inputs":[{"name":"x"}]}"#.into(), "'inputs[0].datatype' is missing"),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","data":[1]}]}"#.into(),
            "'inputs[0].shape' is missing",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1.5],"data":[1]}]}"#.into(),
            "'inputs[0].shape' must be a whole number, got 1.5",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}"#.into(),
            "input 'x' has no data: give 'data', or the parameter 'binary_data_size'",
        ),
        (format!(r#"{{"inputs":[{input}],"inputs":[]}}"#), "'inputs' is given twice"),
        (format!(r#"{{"inputs":[{input}],"id":"a","id":"a"}}"#), "'id' is given twice"),
        (format!(r#"{{"inputs":[{input}],"id":7}}"#), "'id' must be a string, got a number"),
        (
            r#"{"inputs":[{"name":"x","name":"x"}]}"#.into(),
            "'inputs[0].name' is given twice",
        ),
        (
            r#"{"inputs":[{"data":[1],"data":[1]}]}"#.into(),
            "'inputs[0].data' is given twice",
        ),
        (
            format!(r#"{{"inputs":[{input}],"parameters":{{"a":1,"\u0061":2}}}}"#),
            "'parameters.a' is given twice",
        ),
        (
            format!(r#"{{"inputs":[{input}],"parameters":{{"a":[1]}}}}"#),
            "'parameters.a' must be a boolean, a number or a string, got a list",
        ),
        (
            format!(r#"{{"inputs":[{input}],"parameters":{{"a":9223372036854775808}}}}"#),
            "'parameters.a' must be a number that fits 64 bits, got 9223372036854775808",
        ),
        (
            format!(r#"{{"inputs":[{input}],"outputs":[{{}}]}}"#),
            "'outputs[0].name' is missing",
        ),
        (
            format!(
                r#"{{"inputs":[{input}],"outputs":[{{"name":"y","parameters":{{"classification":0}}}}]}}"#
            ),
            "'outputs[0].parameters.classification' must be a number of classes of at least 1, got 0",
        ),
        (format!(r#"{{"inputs":[{input}]}} x"#), "malformed JSON: trailing characters at line 1"),
        (format!(r#"{{"inputs":[{input},]}}"#), "malformed JSON: trailing comma at line 1"),
        (format!(r#"{{"inputs":[{input}"#), "malformed JSON: EOF while parsing a list at line 1"),
        (
            format!("{{\"inputs\":[{input}],\n\"z\":{}", "[".repeat(100_000)),
            "malformed JSON: recursion limit exceeded at line 2",
        ),
        (format!("{{\"inputs\":{}", "[".repeat(100_000)), "'inputs[0]' must be an object"),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[01]}]}"#.into(),
            "malformed JSON: invalid number at line 1 column",
        ),
        (
            "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"\n\"]}]}"
                .into(),
            "malformed JSON: control character",
        ),
        (
            r#"{"inputs":[{"data":["\ud800"],"name":"x","datatype":"BYTES","shape":[1]}]}"#.into(),
            "malformed JSON: ",
        ),
        (
            r#"{"inputs":[{"name":"x","parameters":{"binary_data_size":4}}]}"#.into(),
            "'inputs[0].datatype' is missing",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],
                "parameters":{"binary_data_size":4}}]}"#.into(),
            "input 'x' has a 'binary_data_size', but the request has no header \
             Inference-Header-Content-Length",
        ),
    ];
    for (body, expected) in cases {
        let error = decode(body).expect_err(body);
        let message = error.to_string();
        if *expected == "'inputs[0]' must be" {
            assert_eq!(message, "malformed JSON: expected value at line 2 column 13");
        } else {
            assert!(message.starts_with(expected), "{message}\nis not\n{expected}");
        }
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{message}");
    }
    let error = decode(b"{\"inputs\":[],\"\xff\":1}").unwrap_err();
    assert_eq!(error.to_string(), "request is not UTF-8 at byte 14");
    for body in [
        r#"{"inputs":[{"name":"x","parameters":{"shared_memory_region":"r"}}]}"#,
        r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"shared_memory_byte_size":1}}]}"#,
    ] {
        assert_eq!(decode(body).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn tensors_are_counted_before_they_are_read() {
    let limits = DecodeLimits { max_tensors: 1, max_rank: 1, max_tensor_bytes: 8, max_rows: 1 };
    let decode = |inputs: &str, outputs: &str| {
        let body = format!(r#"{{"inputs":[{inputs}],"outputs":[{outputs}]}}"#).into();
        decode_infer(body, None, target(), &limits).map(drop).map_err(|error| error.to_string())
    };
    let input = r#"{"name":"x","datatype":"FP32","shape":[2],"data":[1,2]}"#;
    let output = r#"{"name":"y"}"#;
    assert_eq!(decode(input, output), Ok(()));
    let twice = |item: &str| format!("{item},{item}");
    assert_eq!(decode(&twice(input), ""), Err("request has more than 1 inputs".to_owned()));
    assert_eq!(decode(input, &twice(output)), Err("request has more than 1 outputs".to_owned()));
    let large = r#"{"name":"x","datatype":"FP32","shape":[3],"data":[1,2,3]}"#;
    assert!(decode(large, output).unwrap_err().contains("limit of 8 bytes"));
}

#[test]
fn binary_data_is_shared_and_mixes_with_json() {
    let json = r#"{"inputs":[
        {"name":"a","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}},
        {"name":"b","datatype":"INT8","shape":[1],"data":[7]},
        {"name":"c","parameters":{"binary_data_size":11},"shape":[2],"datatype":"BYTES"}]}"#;
    let mut binary = Vec::new();
    binary.extend_from_slice(&1.5_f32.to_le_bytes());
    binary.extend_from_slice(&f32::NAN.to_le_bytes());
    binary.extend_from_slice(b"\x03\0\0\0\xffyz\0\0\0\0");
    let body = Bytes::from([json.as_bytes(), &binary].concat());
    let decoded =
        decode_infer(body.clone(), Some(json.len()), target(), &DecodeLimits::default()).unwrap();
    let inputs = decoded.request.inputs;
    let first = inputs[0].tensor.as_bytes().unwrap();
    assert_eq!(first[..4], 1.5_f32.to_le_bytes());
    assert_eq!(first.as_ptr(), body[json.len()..].as_ptr(), "shared, not copied");
    assert_eq!(inputs[1].tensor.as_slice::<i8>(), Some(&[7][..]));
    let texts: Vec<&[u8]> = inputs[2].tensor.as_strings().unwrap().iter().collect();
    assert_eq!(texts, [&b"\xffyz"[..], b""]);
}

#[test]
fn binary_lengths_that_lie_are_named() {
    let input = |data_type: &str, shape: &str, size: &str| {
        format!(
            r#"{{"inputs":[{{"name":"x","datatype":"{data_type}","shape":{shape},"parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    let cases: &[(String, &[u8], &str)] = &[
        (
            input("FP32", "[2]", "8"),
            &[0; 7],
            "input 'x' has 8 bytes of binary data by its 'binary_data_size', but 7 are left",
        ),
        (
            input("FP32", "[2]", "8"),
            &[0; 9],
            "body has 1 bytes left over after the binary data of its inputs",
        ),
        (input("FP32", "[2]", "-1"), &[], "input 'x' has the negative 'binary_data_size' -1"),
        (
            input("FP32", "[2]", "4"),
            &[0; 4],
            "input 'x' has shape [2] of FP32 which needs 8 bytes, got 4",
        ),
        (
            input("FP32", "[2]", "\"8\""),
            &[0; 8],
            "'inputs[0].parameters.binary_data_size' must be a whole number, got a string",
        ),
        (input("BOOL", "[2]", "2"), &[1, 2], "input 'x' element 1 is 2, expected 0 or 1"),
        (
            input("BYTES", "[1]", "6"),
            b"\x03\0\0\0ab",
            "input 'x' element 0 says it has 3 bytes, but 2 are left",
        ),
        (
            input("BYTES", "[2]", "6"),
            b"\x01\0\0\0a\0",
            "input 'x' ends within the four length bytes of element 1",
        ),
        (
            input("BYTES", "[2]", "4"),
            &[0; 4],
            "input 'x' has shape [2] which needs 2 elements, got 1",
        ),
        (
            input("BYTES", "[1]", "8"),
            &[0; 8],
            "input 'x' has 4 bytes left over after its 1 elements",
        ),
        (
            input("FP32", "[4611686018427387904,2]", "4"),
            &[0; 4],
            "input 'x' has shape [4611686018427387904,2], which has more elements",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1],"parameters":{"binary_data_size":1}}]}"#
                .into(),
            &[0],
            "input 'x' has both 'data' and the parameter 'binary_data_size'",
        ),
    ];
    for (json, binary, expected) in cases {
        let message = decode_binary(json, binary).expect_err(json).to_string();
        assert!(message.starts_with(expected), "{message}\nis not\n{expected}");
    }
    let error = decode_infer(Bytes::from("{}"), Some(3), target(), &DecodeLimits::default());
    assert_eq!(
        error.unwrap_err().to_string(),
        "header Inference-Header-Content-Length is 3, but the body has 2 bytes"
    );
}

#[test]
fn an_answer_is_written_in_the_forms_asked_for() {
    let outputs = vec![
        named("p", Tensor::from_vec([1, 2], vec![0.1_f32, 1.0]).unwrap()),
        named("s", Tensor::from_strings([2], ["\"\u{1}\u{e9}\\", ""].iter().collect()).unwrap()),
        named("b", Tensor::from_bools([2], [true, false]).unwrap()),
    ];
    let mut response = response(outputs);
    response.id = Some("7\n".into());
    response.timings = Timings {
        load: Duration::ZERO,
        transform: Duration::ZERO,
        queue: Duration::from_nanos(1_250),
        assemble: Duration::ZERO,
        compute: Duration::from_millis(2),
        split: Duration::from_nanos(99),
        batch_rows: 3,
    };
    let head = concat!(
        r#"{"model_name":"m","model_version":"1","id":"7\n","parameters":{"queue_us":1.2,"#,
        r#""assemble_us":0.0,"compute_us":2000.0,"split_us":0.0,"batch_rows":3},"outputs":["#
    );
    let encoded = encode_infer(&response, &OutputFormat::default()).unwrap();
    let tail = concat!(
        r#"{"name":"p","datatype":"FP32","shape":[1,2],"data":[0.1,1.0]},"#,
        r#"{"name":"s","datatype":"BYTES","shape":[2],"data":["\"\u0001é\\",""]},"#,
        r#"{"name":"b","datatype":"BOOL","shape":[2],"data":[true,false]}]}"#
    );
    assert_eq!(std::str::from_utf8(&encoded.body).unwrap(), format!("{head}{tail}"));
    assert_eq!(encoded.json_length, None);

    let format = OutputFormat { binary_by_default: true, named: smallvec![("b".into(), false)] };
    let encoded = encode_infer(&response, &format).unwrap();
    let (json, binary) = encoded.body.split_at(encoded.json_length.unwrap());
    let tail = concat!(
        r#"{"name":"p","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}},"#,
        r#"{"name":"s","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":13}},"#,
        r#"{"name":"b","datatype":"BOOL","shape":[2],"data":[true,false]}]}"#
    );
    assert_eq!(std::str::from_utf8(json).unwrap(), format!("{head}{tail}"));
    let expected =
        [&0.1_f32.to_le_bytes()[..], &1_f32.to_le_bytes(), b"\x05\0\0\0\"\x01\xc3\xa9\\\0\0\0\0"];
    assert_eq!(binary, expected.concat());
}

#[test]
fn numbers_are_written_to_read_back() {
    let floats = [0.0, -0.0, 1e-45, f32::MAX, f32::MIN_POSITIVE, 16_777_217.0, 0.3, 1e20, 123.456];
    let tensor = Tensor::from_vec([floats.len()], floats.to_vec()).unwrap();
    let text = written(tensor.clone());
    assert!(text.starts_with("[0.0,-0.0,1e-45,"), "{text}");
    let shape = format!("[{}]", floats.len());
    assert_eq!(super::tests::tensor("FP32", &shape, &text), Ok(tensor));
    assert!(serde_json::from_str::<Vec<f64>>(&text).is_ok(), "strict JSON reads it too: {text}");

    let halves: Vec<half::f16> = (0..0x7c00).map(half::f16::from_bits).collect();
    let tensor = Tensor::from_vec([halves.len()], halves).unwrap();
    let text = written(tensor.clone());
    assert_eq!(super::tests::tensor("FP16", "[31744]", &text), Ok(tensor));

    let largest = Tensor::from_vec([1], vec![u64::MAX]).unwrap();
    assert_eq!(written(largest), "[18446744073709551615]");
    let infinite = Tensor::from_vec([3], vec![f64::NAN, f64::INFINITY, -f64::INFINITY]).unwrap();
    assert_eq!(written(infinite), "[NaN,Infinity,-Infinity]");
    assert_eq!(written(Tensor::from_vec([0, 2], Vec::<i32>::new()).unwrap()), "[]");
}

#[test]
fn bytes_that_are_no_text_are_only_written_as_binary() {
    let strings: Strings = [&b"fine"[..], b"\xff"].into_iter().collect();
    let response = response(vec![named("s", Tensor::from_strings([2], strings).unwrap())]);
    let error = encode_infer(&response, &OutputFormat::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().starts_with("output 's' element 1 is not UTF-8"), "{error}");
    assert!(error.to_string().contains("binary_data"));
    let format = OutputFormat { binary_by_default: true, ..OutputFormat::default() };
    assert!(encode_infer(&response, &format).is_ok());
}

#[test]
fn every_data_type_survives_both_forms() {
    for data_type in DataType::ALL {
        let data = match data_type {
            DataType::Bool => "[true,false]",
            DataType::Bytes => r#"["a","\u0000"]"#,
            _ => "[0,1]",
        };
        let tensor = tensor(data_type.name(), "[2]", data).unwrap();
        let answer = response(vec![named("y", tensor.clone())]);
        for binary_by_default in [false, true] {
            let format = OutputFormat { binary_by_default, ..OutputFormat::default() };
            let encoded = encode_infer(&answer, &format).unwrap();
            // An answer's outputs are written as a request's inputs are.
            let json_length = encoded.json_length.unwrap_or(encoded.body.len());
            let json = std::str::from_utf8(&encoded.body[..json_length]).unwrap();
            let (_, outputs) = json.split_once(r#""outputs":"#).unwrap();
            let json = format!(r#"{{"inputs":{outputs}"#);
            let decoded = decode_binary(&json, &encoded.body[json_length..]).unwrap();
            assert_eq!(decoded.request.inputs[0].tensor, tensor, "{data_type}");
        }
    }
}
