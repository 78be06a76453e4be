use outhaul::types::{Dimension, ShapePattern, TensorSpec};

use super::*;

fn signature(data_type: DataType) -> ModelSignature {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        data_type,
        shape: ShapePattern::ranked([Dimension::Any, Dimension::Any]),
        optional: false,
    };
    ModelSignature { inputs: vec![spec("left"), spec("right")], outputs: Vec::new() }
}

fn read(input: &str, data_type: DataType) -> Result<Vec<NamedTensor>, InputError> {
    tensors(input.as_bytes(), &signature(data_type))
}

#[test]
fn every_datatype_goes_in_and_comes_out_again() {
    struct Case(DataType, &'static str);
    let cases = [
        Case(DataType::Bool, "[[true,false]]"),
        Case(DataType::Uint8, "[[0,255]]"),
        Case(DataType::Uint16, "[[0,65535]]"),
        Case(DataType::Uint32, "[[0,4294967295]]"),
        Case(DataType::Uint64, "[[0,18446744073709551615]]"),
        Case(DataType::Int8, "[[-128,127]]"),
        Case(DataType::Int16, "[[-32768,32767]]"),
        Case(DataType::Int32, "[[-2147483648,2147483647]]"),
        Case(DataType::Int64, "[[-9223372036854775808,9223372036854775807]]"),
        Case(DataType::Fp16, "[[0.5,-65504.0,\"NaN\"]]"),
        Case(DataType::Bf16, "[[0.5,\"Infinity\"]]"),
        Case(DataType::Fp32, "[[0.1,-1.5e-30,\"-Infinity\"]]"),
        Case(DataType::Fp64, "[[0.1,1e300]]"),
        Case(DataType::Bytes, "[[\"a\",\"\",\"\u{e9}\"]]"),
        Case(DataType::Fp32, "[]"),
        Case(DataType::Fp32, "[[],[]]"),
        Case(DataType::Int64, "7"),
    ];
    for Case(data_type, text) in cases {
        let tensors = read(&format!("{{\"left\":{text}}}"), data_type).expect(text);
        assert_eq!(tensors[0].tensor.data_type(), data_type);
        let expected: Json = serde_json::from_str(text).unwrap();
        assert_eq!(json(&tensors[0].tensor), expected, "{data_type}");
    }
}

#[test]
fn every_mistake_says_where_it_stands() {
    struct Case(DataType, &'static str, &'static str);
    let fp32 = DataType::Fp32;
    let cases = [
        Case(fp32, "[1]", "the input is not JSON of the form {\"name\": [elements]}"),
        Case(fp32, "{\"left\":[", "the input is not JSON of the form {\"name\": [elements]}"),
        Case(
            fp32,
            r#"{"lefft":[]}"#,
            "unknown input 'lefft'; the model takes 'left' (FP32 [-1,-1]), 'right' (FP32 [-1,-1]); \
             did you mean 'left'?",
        ),
        Case(fp32, r#"{"left":[],"left":[]}"#, "input 'left' is given twice"),
        Case(fp32, r#"{"left":[[1,2],[3]]}"#, "left[1] has 1 element where left[0] has 2 elements"),
        Case(fp32, r#"{"left":[[1],2]}"#, "left[1] has a single value where left[0] has 1 element"),
        Case(fp32, r#"{"left":[1,[2]]}"#, "left[1] has 1 element where left[0] has a single value"),
        Case(fp32, r#"{"left":[[1,"x"]]}"#, "left[0][1] is \"x\", expected a number that FP32"),
        Case(fp32, r#"{"left":[[1e39]]}"#, "left[0][0] is 1e+39, expected a number that FP32"),
        Case(fp32, r#"{"left":[[null]]}"#, "left[0][0] is null, expected a number that FP32"),
        Case(DataType::Fp16, r#"{"left":[[70000]]}"#, "expected a number that FP16 can hold"),
        Case(DataType::Uint8, r#"{"left":[[256]]}"#, "expected a whole number from 0 to 255"),
        Case(DataType::Uint8, r#"{"left":[[-1]]}"#, "expected a whole number from 0 to 255"),
        Case(DataType::Int64, r#"{"left":[[1.5]]}"#, "left[0][0] is 1.5, expected a whole number"),
        Case(DataType::Bool, r#"{"left":[[1]]}"#, "left[0][0] is 1, expected true or false"),
        Case(DataType::Bytes, r#"{"left":[[1]]}"#, "left[0][0] is 1, expected a string"),
    ];
    for Case(data_type, input, expected) in cases {
        let error = read(input, data_type).unwrap_err().to_string();
        assert!(error.contains(expected), "{input}: {error}");
    }
}

#[test]
fn an_element_is_found_again_by_its_position() {
    let input = r#"{"left":[[1,2,3],[4,5,"six"]]}"#;
    let error = read(input, DataType::Int8).unwrap_err().to_string();
    assert!(error.starts_with("left[1][2] is \"six\""), "{error}");
}

#[test]
fn a_row_can_be_wrapped() {
    let wrapped = wrapped(br#"{"left":[1,2]}"#).unwrap();
    assert_eq!(wrapped, br#"{"left":[[1,2]]}"#);
}

#[test]
fn bytes_that_are_no_text_are_base64() {
    let strings: Strings = [&b"\xff"[..], b"\xff\xfe", b"\xff\xfe\xfd", b"ok"].iter().collect();
    let tensor = Tensor::from_strings([4], strings).unwrap();
    let expected =
        serde_json::json!([{ "b64": "/w==" }, { "b64": "//4=" }, { "b64": "//79" }, "ok"]);
    assert_eq!(json(&tensor), expected);
}
