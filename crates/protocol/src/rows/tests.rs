use outhaul_types::{
    Content, DataType, Dimension, Field, InferResponse, Interface, ModelName, ModelSignature,
    ModelVersion, NamedTensor, Shape, ShapePattern, Strings, Tensor, TensorSpec, Timings,
};

use super::*;

/// What a model takes and gives, for tests.
pub(crate) struct Model {
    pub(crate) signature: ModelSignature,
    pub(crate) interface: Interface,
}

pub(crate) fn spec(name: &str, data_type: DataType, dimensions: &[i64]) -> TensorSpec {
    let dimension = |&size: &i64| usize::try_from(size).map_or(Dimension::Any, Dimension::Fixed);
    TensorSpec {
        name: name.into(),
        data_type,
        shape: ShapePattern::ranked(dimensions.iter().map(dimension)),
        optional: false,
    }
}

impl Model {
    pub(crate) fn of(inputs: impl IntoIterator<Item = TensorSpec>) -> Self {
        let inputs: Vec<_> = inputs.into_iter().collect();
        let signature = ModelSignature { inputs, outputs: Vec::new() };
        let interface = Interface::of_tensors(&signature);
        Model { signature, interface }
    }

    /// Two numbers, the second of which may be missing, a category and a flag.
    pub(crate) fn people() -> Self {
        let mut model = Model::of([
            spec("age", DataType::Fp64, &[-1]),
            spec("height", DataType::Fp64, &[-1]),
            spec("city", DataType::Bytes, &[-1]),
            spec("member", DataType::Fp64, &[-1]),
        ]);
        model.signature.inputs[1].optional = true;
        let contents = [Content::Number, Content::Number, Content::Category, Content::Boolean];
        model.interface.inputs = contents.map(Field::of).to_vec();
        model
    }

    pub(crate) fn means(mut self, content: Content) -> Self {
        self.interface.inputs[0] = Field::of(content);
        self
    }

    fn optional(mut self, index: usize) -> Self {
        self.signature.inputs[index].optional = true;
        self
    }

    pub(crate) fn schema(&self) -> Schema<'_> {
        Schema {
            name: "m",
            version: ModelVersion(1),
            signature: &self.signature,
            interface: &self.interface,
        }
    }

    fn rows(&self, body: &str) -> Result<Inputs, String> {
        let body = parse_json(body.as_bytes()).map_err(|error| error.to_string())?;
        let inputs = decode_instances(&body, &self.schema(), &DecodeLimits::default());
        let inputs = inputs.map_err(|error| error.to_string())?;
        self.signature.bind(inputs.clone()).map_err(|error| error.to_string())?;
        Ok(inputs)
    }

    fn columns(&self, body: &str) -> Result<Inputs, String> {
        let body = parse_json(body.as_bytes()).map_err(|error| error.to_string())?;
        let inputs = decode_columns(&body, &self.schema(), &DecodeLimits::default());
        let inputs = inputs.map_err(|error| error.to_string())?;
        self.signature.bind(inputs.clone()).map_err(|error| error.to_string())?;
        Ok(inputs)
    }
}

pub(crate) fn input<'a>(inputs: &'a Inputs, name: &str) -> &'a Tensor {
    &inputs.iter().find(|input| input.name == name).expect("the input is given").tensor
}

pub(crate) fn strings(tensor: &Tensor) -> Vec<&str> {
    tensor.as_strings().unwrap().iter().map(|text| std::str::from_utf8(text).unwrap()).collect()
}

fn fp32(dimensions: &[i64]) -> Model {
    Model::of([spec("X", DataType::Fp32, dimensions)])
}

#[test]
fn rows_of_a_packed_input_become_its_tensor() {
    let inputs = fp32(&[-1, 3]).rows("[[1,2.5,-3e2],[0,NaN,\"Infinity\"]]").unwrap();
    let tensor = input(&inputs, "X");
    assert_eq!(tensor.shape(), &Shape::from([2, 3]));
    let elements = tensor.as_slice::<f32>().unwrap();
    assert_eq!(elements[..4], [1.0, 2.5, -300.0, 0.0]);
    assert!(elements[4].is_nan() && elements[5] == f32::INFINITY);
    for body in ["[{\"X\":[1,2,3]}]", "[[1,2,3]]"] {
        let inputs = fp32(&[-1, 3]).rows(body).unwrap();
        assert_eq!(input(&inputs, "X").as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    }
}

#[test]
fn nested_lists_may_be_of_any_rank() {
    let body = "[[[[1],[2]],[[3],[4]]], [[[5],[6]],[[7],[8]]]]";
    for model in [fp32(&[-1, 2, 2, 1]), fp32(&[-1, -1, -1, -1])] {
        let inputs = model.rows(body).unwrap();
        assert_eq!(input(&inputs, "X").shape(), &Shape::from([2, 2, 2, 1]));
        assert_eq!(input(&inputs, "X").as_slice::<f32>().unwrap()[7], 8.0);
    }
    let mut any = fp32(&[]);
    any.signature.inputs[0].shape = ShapePattern::AnyRank;
    assert_eq!(input(&any.rows(body).unwrap(), "X").shape(), &Shape::from([2, 2, 2, 1]));
    assert_eq!(input(&any.rows("[1,2]").unwrap(), "X").shape(), &Shape::from([2]));
    assert_eq!(input(&any.columns("3").unwrap(), "X").shape(), &Shape::new([]));
    let empty = fp32(&[-1, -1, 4]).rows("[[],[]]").unwrap();
    assert_eq!(input(&empty, "X").shape(), &Shape::from([2, 0, 4]));
}

#[test]
fn each_type_takes_its_numbers() {
    struct Case(DataType, &'static str, Result<Tensor, &'static str>);
    let whole = |values: &[i64]| Tensor::from_vec([values.len()], values.to_vec()).unwrap();
    let cases = [
        Case(DataType::Int64, "[1, -2, 3.0, 1e3, 9223372036854775807]", {
            Ok(whole(&[1, -2, 3, 1000, i64::MAX]))
        }),
        Case(DataType::Uint64, "[18446744073709551615]", {
            Ok(Tensor::from_vec([1], vec![u64::MAX]).unwrap())
        }),
        Case(
            DataType::Uint8,
            "[0, 256]",
            Err("row 1: 'x' is 256, which is out of range for UINT8"),
        ),
        Case(DataType::Int8, "[-129]", Err("row 0: 'x' is -129, which is out of range for INT8")),
        Case(DataType::Int32, "[1.5]", Err("row 0: 'x' must be a whole number, got 1.5")),
        Case(DataType::Int32, "[true]", Err("row 0: 'x' must be a whole number, got a boolean")),
        Case(DataType::Fp32, "[1e39]", Err("row 0: 'x' is 1e39, which is out of range for FP32")),
        Case(DataType::Fp32, "[\"1\"]", Err("row 0: 'x' must be a number, got a string")),
        Case(DataType::Fp64, "[null]", Err("row 0: 'x' must not be null")),
        Case(DataType::Bool, "[true, 0]", Ok(Tensor::from_bools([2], [true, false]).unwrap())),
        Case(DataType::Bool, "[2]", Err("row 0: 'x' must be true, false, 1 or 0, got 2")),
        Case(DataType::Bytes, "[{\"b64\": \"_w\"}, {\"b64\": \"/w\"}]", {
            Ok(Tensor::from_strings([2], Strings::from_iter([b"\xff", b"\xff"])).unwrap())
        }),
        Case(DataType::Bytes, "[\"a\", {\"b64\": \"/w==\"}]", {
            let strings = Strings::from_iter([&b"a"[..], &b"\xff"[..]]);
            Ok(Tensor::from_strings([2], strings).unwrap())
        }),
        Case(DataType::Bytes, "[3]", {
            Err("row 0: 'x' must be a string or {\"b64\": \"...\"}, got 3")
        }),
        Case(DataType::Bytes, "[{\"b64\": \"*\"}]", {
            Err("row 0: 'x' is not Base64: invalid symbol 42, offset 0")
        }),
    ];
    for Case(data_type, body, expected) in cases {
        let decoded = Model::of([spec("x", data_type, &[-1])]).rows(body);
        let decoded = decoded.map(|inputs| input(&inputs, "x").clone());
        assert_eq!(decoded, expected.map_err(str::to_owned), "{data_type} {body}");
    }
    let half = Model::of([spec("x", DataType::Fp16, &[-1])]).rows("[65519, 0.1]").unwrap();
    let bits = input(&half, "x").as_bytes().unwrap().to_vec();
    assert_eq!(bits, [0xff, 0x7b, 0x66, 0x2e], "65504 and the nearest to 0.1");
}

#[test]
fn columns_are_named_or_in_order() {
    let model = Model::people();
    for body in [
        r#"[{"age":41,"height":1.7,"city":"Oslo","member":true},{"member":0,"city":"Bergen","age":7}]"#,
        r#"[[41,1.7,"Oslo",true],[7,null,"Bergen",false]]"#,
    ] {
        let inputs = model.rows(body).unwrap();
        assert_eq!(input(&inputs, "age").as_slice::<f64>().unwrap(), [41.0, 7.0]);
        let heights = input(&inputs, "height").as_slice::<f64>().unwrap();
        assert!(heights[0] == 1.7 && heights[1].is_nan());
        assert_eq!(strings(input(&inputs, "city")), ["Oslo", "Bergen"]);
        assert_eq!(input(&inputs, "member").as_slice::<f64>().unwrap(), [1.0, 0.0]);
    }
    let columns =
        r#"{"age":[41,7],"height":[1.7,null],"city":["Oslo","Bergen"],"member":[true,0]}"#;
    assert_eq!(model.columns(columns).unwrap().len(), 4);
    let none = r#"[{"age":41,"city":"Oslo","member":true}]"#;
    assert!(input(&model.rows(none).unwrap(), "height").as_slice::<f64>().unwrap()[0].is_nan());
}

#[test]
fn what_is_wrong_with_a_row_is_named() {
    struct Case(Model, &'static str, &'static str);
    let flat = || fp32(&[-1, 2]);
    let cases = [
        Case(flat(), "[]", "request has no rows"),
        Case(flat(), "5", "the rows must be a list, got a number"),
        Case(flat(), "[[1,2],[3]]", "row 1: 'X' has 1 value where the model takes 2"),
        Case(flat(), "[[1,2],[3,4,5]]", "row 1: 'X' has 3 values where the model takes 2"),
        Case(flat(), "[[1,2],3]", "row 1: 'X' must be a list of 2, got a number"),
        Case(flat(), "[[1,[2]]]", "row 0: 'X'[1] must be a number, got a list"),
        Case(flat(), "[[1,2],[3,\"a\"]]", "row 1: 'X'[1] must be a number, got a string"),
        Case(flat(), "[{\"Y\":[1,2]}]", "row 0: 'Y' is no input of this model, which takes 'X'"),
        Case(flat(), "[{}]", "row 0: 'X' is missing"),
        Case(fp32(&[-1, -1]), "[[1,2],[3]]", "row 1: 'X' has 1 value where the first has 2"),
        Case(
            fp32(&[-1, -1, 2]),
            "[[[1,2],[3,4]],[[1,2],[3,4,5]]]",
            "row 1: 'X'[1] has 3 values where the model takes 2",
        ),
        Case(
            fp32(&[]),
            "[1]",
            "'X' is one value for the whole request and has no rows: send the whole tensors by input \
             name in place of a list of rows",
        ),
        Case(
            Model::people(),
            "[[1,2,\"Oslo\"]]",
            "row 0 has 3 values where the model takes 4: 'age', 'height', 'city', 'member'",
        ),
        Case(
            Model::people(),
            "[7]",
            "row 0 must be an object with 'age', 'height', 'city', 'member', got a number",
        ),
        Case(
            Model::people(),
            "[{\"age\":1,\"city\":\"Oslo\",\"member\":1},{\"age\":1,\"member\":1}]",
            "row 1: 'city' is missing",
        ),
        Case(
            Model::people(),
            "[{\"age\":1,\"city\":5,\"member\":1}]",
            "row 0: 'city' must be a string, got 5",
        ),
        Case(
            Model::people(),
            "[{\"age\":1,\"city\":{\"b64\":\"/w==\"},\"member\":1}]",
            "row 0: 'city' is not UTF-8 once its Base64 is decoded",
        ),
    ];
    for Case(model, body, expected) in cases {
        assert_eq!(model.rows(body).unwrap_err(), expected, "{body}");
    }
}

#[test]
fn a_request_of_too_many_rows_is_refused_with_the_limit() {
    let body = format!("[{}0]", "0,".repeat(99_999));
    let error = fp32(&[-1]).rows(&body).unwrap_err();
    assert!(error.starts_with("request has 100000 rows, more than the limit of 65536"), "{error}");
    let body = parse_json(b"[[1,2,3]]").unwrap();
    let limits = DecodeLimits { max_tensor_bytes: 8, ..DecodeLimits::default() };
    let error = decode_instances(&body, &fp32(&[-1, 3]).schema(), &limits).unwrap_err();
    assert_eq!(error.to_string(), "input 'X' takes more than the limit of 8 bytes");
}

#[test]
fn a_bare_value_goes_where_only_one_input_waits() {
    let text = || {
        let texts = Model::of(["text", "text_pair"].map(|name| spec(name, DataType::Bytes, &[-1])));
        texts.means(Content::Text).optional(1)
    };
    let inputs = text().rows("[\"a\", {\"b64\": \"Yg==\"}]").unwrap();
    assert_eq!(inputs.len(), 1, "the other input is left out");
    assert_eq!(strings(input(&inputs, "text")), ["a", "b"]);
    let inputs = text().rows("[[\"a\", \"b\"]]").unwrap();
    assert_eq!(strings(input(&inputs, "text_pair")), ["b"]);
    let one = fp32(&[-1, 1]).rows("[1, [2]]").unwrap();
    assert_eq!(input(&one, "X").shape(), &Shape::from([2, 1]));
    let image = Model::of([spec("image", DataType::Bytes, &[-1])]).means(Content::Image);
    for body in ["[\"aGk=\"]", "[{\"b64\":\"aGk=\"}]", "[\"data:image/png;base64,aGk=\"]"] {
        assert_eq!(strings(input(&image.rows(body).unwrap(), "image")), ["hi"], "{body}");
    }
}

#[test]
fn an_optional_tensor_is_given_by_all_rows_or_by_none() {
    let model = || {
        let specs = ["x", "scale"].map(|name| spec(name, DataType::Fp32, &[-1]));
        Model::of(specs).optional(1)
    };
    assert_eq!(model().rows("[{\"x\":1},{\"x\":2,\"scale\":null}]").unwrap().len(), 1);
    assert_eq!(
        model().rows("[{\"x\":1,\"scale\":2},{\"x\":2}]").unwrap_err(),
        "row 1: 'scale' is missing, but row 0 has it"
    );
    assert_eq!(
        model().rows("[{\"x\":1},{\"x\":2,\"scale\":2}]").unwrap_err(),
        "row 1: 'scale' is given, but row 0 has none"
    );
}

#[test]
fn names_of_the_models_own_inputs_make_a_request_of_tensors() {
    let mut model = Model::of([spec("text", DataType::Bytes, &[-1])]).means(Content::Text);
    let ids = ["input_ids", "attention_mask"].map(|name| spec(name, DataType::Int64, &[-1, -1]));
    let inner = ModelSignature { inputs: ids.to_vec(), outputs: Vec::new() };
    model.interface.inner = Some(inner);
    let body = parse_json(b"[{\"input_ids\":[1,2],\"attention_mask\":[1,1]}]").unwrap();
    let inputs = decode_instances(&body, &model.schema(), &DecodeLimits::default()).unwrap();
    assert_eq!(input(&inputs, "input_ids").shape(), &Shape::from([1, 2]));
    assert_eq!(
        model.rows("[{\"ids\":[1,2]}]").unwrap_err(),
        "row 0: 'ids' is no input of this model, which takes 'text'"
    );
}

#[test]
fn whole_tensors_are_read_by_name_or_alone() {
    let model =
        || Model::of([spec("a", DataType::Fp32, &[-1, 2]), spec("b", DataType::Int64, &[])]);
    let inputs = model().columns("{\"a\":[[1,2],[3,4]],\"b\":7}").unwrap();
    assert_eq!(input(&inputs, "a").shape(), &Shape::from([2, 2]));
    assert_eq!(input(&inputs, "b").as_slice::<i64>().unwrap(), [7]);
    for (body, expected) in [
        ("{\"a\":[[1,2]]}", "'b' is missing; the model takes 'a', 'b'"),
        ("{\"a\":[[1,2]],\"b\":7,\"c\":1}", "'c' is no input of this model, which takes 'a', 'b'"),
        ("{\"a\":[[1,2],[3]],\"b\":7}", "row 1: 'a' has 1 value where the model takes 2"),
        ("{\"a\":3,\"b\":7}", "'a' must be a list, got a number"),
        ("{\"a\":[],\"b\":7}", "'a' has no rows"),
        ("[[1,2]]", "the inputs must be an object with 'a', 'b', got a list"),
    ] {
        assert_eq!(model().columns(body).unwrap_err(), expected, "{body}");
    }
    let alone = fp32(&[-1, 2]).columns("[[1,2]]").unwrap();
    assert_eq!(input(&alone, "X").shape(), &Shape::from([1, 2]));
}

/// Returns the answer of a model whose outputs mean something.
pub(crate) fn answer(outputs: Vec<(&str, Tensor)>) -> InferResponse {
    let named = |(name, tensor): (&str, Tensor)| NamedTensor { name: name.into(), tensor };
    InferResponse {
        id: None,
        model: ModelName::new("m").unwrap(),
        version: ModelVersion(1),
        outputs: outputs.into_iter().map(named).collect(),
        timings: Timings::default(),
        tokens: None,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
    }
}

fn texts(shape: impl Into<Shape>, texts: &[&[u8]]) -> Tensor {
    Tensor::from_strings(shape, texts.iter().collect::<Strings>()).unwrap()
}

#[test]
fn answers_are_told_row_by_row() {
    let floats = || Tensor::from_vec([2, 2], vec![0.5_f32, f32::NAN, 1.0, -2.5]).unwrap();
    let labels = || texts([2], &[b"a\"b", b"\xff"]);
    let model = fp32(&[-1]);
    let write = |answers: &[InferResponse]| {
        let mut out = Vec::new();
        encode_rows(answers, &model.schema(), &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    assert_eq!(write(&[answer(vec![("y", floats())])]).unwrap(), "[[0.5,NaN],[1.0,-2.5]]");
    assert_eq!(
        write(&[answer(vec![("label", labels()), ("y", floats())])]).unwrap(),
        r#"[{"label":"a\"b","y":[0.5,NaN]},{"label":{"b64":"/w=="},"y":[1.0,-2.5]}]"#
    );
    let two = [answer(vec![("y", floats())]), answer(vec![("y", floats().slice_rows(0..1))])];
    assert_eq!(write(&two).unwrap(), "[[0.5,NaN],[1.0,-2.5],[0.5,NaN]]");
    let scalar = Tensor::from_vec(Shape::new([]), vec![1_i64]).unwrap();
    assert_eq!(
        write(&[answer(vec![("y", scalar)])]).unwrap_err().to_string(),
        "output 'y' has shape [] where the answer has 1 rows, so it cannot be told row by row: ask for \
         whole tensors"
    );
    assert_eq!(
        write(&[answer(vec![("a_bytes", texts([1], &[b"hi"]))])]).unwrap(),
        r#"[{"b64":"aGk="}]"#
    );
    let empty = Tensor::from_vec([2, usize::MAX, 0], Vec::<f32>::new()).unwrap();
    assert_eq!(write(&[answer(vec![("y", empty)])]).unwrap(), "[[],[]]");
}

#[test]
fn answers_are_told_as_whole_tensors() {
    let model = fp32(&[-1]);
    let write = |answers: &[InferResponse]| {
        let mut out = Vec::new();
        encode_columns(answers, &model.schema(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let flags = Tensor::from_bools([2], [true, false]).unwrap();
    let whole = Tensor::from_vec(Shape::new([]), vec![7_u8]).unwrap();
    assert_eq!(write(&[answer(vec![("y", flags.clone())])]), "[true,false]");
    let both = vec![("y", flags), ("n", whole)];
    assert_eq!(write(&[answer(both)]), r#"{"y":[true,false],"n":7}"#);
}

#[test]
fn outputs_that_hold_json_are_written_as_json() {
    let mut model = fp32(&[-1]);
    let specs = ["entities", "image"].map(|name| spec(name, DataType::Bytes, &[-1]));
    model.signature.outputs = specs.to_vec();
    model.interface.outputs = [Content::Json, Content::Image].map(Field::of).to_vec();
    let answers = [answer(vec![
        ("entities", texts([1], &[b"[{\"a\":1}]"])),
        ("image", texts([1], &[b"hi"])),
    ])];
    let mut out = Vec::new();
    encode_rows(&answers, &model.schema(), &mut out).unwrap();
    assert_eq!(out, br#"[{"entities":[{"a":1}],"image":{"b64":"aGk="}}]"#);
}
