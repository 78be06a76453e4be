use bytes::Bytes;
use half::{bf16, f16};
use outhaul_types::{
    Content, Dimension, Field, InferResponse, Interface, ModelName, ModelSignature, ModelVersion,
    Name, NamedTensor, Shape, ShapePattern, Strings, Task, Tensor, TensorSpec, Timings,
};
use proptest::prelude::*;

use super::pb::feature::Kind;
use super::pb::serving::{ExampleList, ExampleListWithContext, Input, input};
use super::pb::tensor_shape_proto::Dim;
use super::pb::{
    BytesList, DataType, Example, Feature, Features, FloatList, Int64List, TensorProto,
    TensorShapeProto,
};
use super::*;
use crate::rows::Inputs;
use crate::{DecodeLimits, Schema};

fn shape(sizes: &[i64]) -> Option<TensorShapeProto> {
    let dim = sizes.iter().map(|&size| Dim { size, name: String::new() }).collect();
    Some(TensorShapeProto { dim, unknown_rank: false })
}

fn read(message: TensorProto) -> Result<Tensor, String> {
    let limits = DecodeLimits::default();
    let tensor = TensorReader::new(&limits).read(&"x".into(), message);
    tensor.map_err(|error| error.to_string())
}

fn of(dtype: DataType, sizes: &[i64]) -> TensorProto {
    TensorProto { dtype: dtype.into(), tensor_shape: shape(sizes), ..TensorProto::default() }
}

#[test]
fn each_type_is_read_from_its_field() {
    let strings = |strings: &[&str]| strings.iter().collect::<Strings>();
    let cases = [
        (
            TensorProto { float_val: vec![1.5, -2.0], ..of(DataType::DtFloat, &[2]) },
            Tensor::from_vec([2], vec![1.5_f32, -2.0]),
        ),
        (
            TensorProto { double_val: vec![1.5], ..of(DataType::DtDouble, &[1, 1]) },
            Tensor::from_vec([1, 1], vec![1.5_f64]),
        ),
        (
            TensorProto { int_val: vec![-128, 127], ..of(DataType::DtInt8, &[2]) },
            Tensor::from_vec([2], vec![-128_i8, 127]),
        ),
        (
            TensorProto { int_val: vec![0, 65535], ..of(DataType::DtUint16, &[2]) },
            Tensor::from_vec([2], vec![0_u16, 65535]),
        ),
        (
            TensorProto { uint64_val: vec![u64::MAX], ..of(DataType::DtUint64, &[]) },
            Tensor::from_vec(Shape::new([]), vec![u64::MAX]),
        ),
        (
            TensorProto { bool_val: vec![true, false], ..of(DataType::DtBool, &[2]) },
            Tensor::from_bools([2], [true, false]),
        ),
        (
            TensorProto { half_val: vec![0x3e00, 0xc000], ..of(DataType::DtHalf, &[2]) },
            Tensor::from_vec([2], vec![f16::from_f32(1.5), f16::from_f32(-2.0)]),
        ),
        (
            TensorProto { half_val: vec![0x3fc0], ..of(DataType::DtBfloat16, &[1]) },
            Tensor::from_vec([1], vec![bf16::from_f32(1.5)]),
        ),
        (
            TensorProto {
                string_val: vec![Bytes::from_static(b"a"), Bytes::new()],
                ..of(DataType::DtString, &[2])
            },
            Tensor::from_strings([2], strings(&["a", ""])),
        ),
        (
            TensorProto {
                tensor_content: vec![0, 0, 0xc0, 0x3f].into(),
                ..of(DataType::DtFloat, &[1])
            },
            Tensor::from_vec([1], vec![1.5_f32]),
        ),
        (of(DataType::DtString, &[0]), Tensor::from_strings([0], strings(&[]))),
        (of(DataType::DtInt64, &[0, 3]), Tensor::from_vec([0, 3], Vec::<i64>::new())),
        (
            TensorProto { tensor_shape: None, int_val: vec![7], ..of(DataType::DtInt32, &[]) },
            Tensor::from_vec(Shape::new([]), vec![7]),
        ),
    ];
    for (message, expected) in cases {
        let shown = format!("{message:?}");
        assert_eq!(read(message), Ok(expected.unwrap()), "{shown}");
    }
}

#[test]
fn the_last_element_fills_the_shape() {
    let one = TensorProto { float_val: vec![2.5], ..of(DataType::DtFloat, &[2, 2]) };
    assert_eq!(read(one), Ok(Tensor::from_vec([2, 2], vec![2.5_f32; 4]).unwrap()));
    let tail = TensorProto { int64_val: vec![1, 2], ..of(DataType::DtInt64, &[4]) };
    assert_eq!(read(tail), Ok(Tensor::from_vec([4], vec![1_i64, 2, 2, 2]).unwrap()));
    let text = Bytes::from_static(b"hello");
    let texts = TensorProto { string_val: vec![text], ..of(DataType::DtString, &[3]) };
    let expected = ["hello"; 3].iter().collect::<Strings>();
    assert_eq!(read(texts), Ok(Tensor::from_strings([3], expected).unwrap()));
}

#[test]
fn what_is_filled_is_bounded_over_all_inputs() {
    let limits = DecodeLimits::default();
    let mut reader = TensorReader::new(&limits);
    let mut fill = |elements| {
        let message = TensorProto { float_val: vec![1.0], ..of(DataType::DtFloat, &[elements]) };
        reader.read(&"x".into(), message).map(|tensor| tensor.len()).map_err(|e| e.to_string())
    };
    let half = 1 << 17;
    assert_eq!(fill(half), Ok(half as usize));
    let refused = "input 'x' has fewer elements than the 131073 of its shape: the last one is \
                   repeated, but for no more than 1048576 bytes in all inputs";
    assert_eq!(fill(half + 1), Ok(half as usize + 1));
    assert_eq!(fill(half + 1), Err(refused.to_owned()));
    assert!(fill(1 << 40).is_err());
}

#[test]
fn what_is_no_tensor_is_explained() {
    let floats =
        |sizes: &[i64]| TensorProto { float_val: vec![1.0, 2.0], ..of(DataType::DtFloat, sizes) };
    let unknown = TensorShapeProto { dim: Vec::new(), unknown_rank: true };
    let cases = [
        (
            TensorProto { dtype: 8, ..floats(&[2]) },
            "input 'x' has the dtype 8, which no model here",
        ),
        (
            TensorProto { dtype: 0, ..floats(&[2]) },
            "input 'x' has the dtype 0, which no model here",
        ),
        (TensorProto { dtype: 101, ..floats(&[2]) }, "input 'x' has the dtype 101"),
        (
            TensorProto { tensor_shape: Some(unknown), ..floats(&[]) },
            "input 'x' has an unknown rank",
        ),
        (floats(&[-1]), "input 'x' has the negative size -1 as dimension 0 of its shape"),
        (floats(&[1; 17]), "input 'x' has more than 16 dimensions"),
        (
            floats(&[1 << 40, 1 << 40]),
            "input 'x' has shape [1099511627776,1099511627776], which has",
        ),
        (floats(&[1]), "input 'x' has shape [1] which needs 1 elements, got 2"),
        (floats(&[0]), "input 'x' has shape [0] which needs 0 elements, got 2"),
        (
            of(DataType::DtFloat, &[2]),
            "input 'x' has no elements: give them in 'tensor_content' or in 'float_val'",
        ),
        (
            TensorProto { dtype: DataType::DtDouble.into(), ..floats(&[2]) },
            "input 'x' has datatype FP64, whose contents belong in double_val, but has float_val",
        ),
        (
            TensorProto { tensor_content: vec![0; 8].into(), ..floats(&[2]) },
            "input 'x' has both 'tensor_content' and 'float_val'",
        ),
        (
            TensorProto { tensor_content: vec![0; 7].into(), ..of(DataType::DtFloat, &[2]) },
            "input 'x' has shape [2] of FP32 which needs 8 bytes, got 7",
        ),
        (
            TensorProto { tensor_content: vec![2].into(), ..of(DataType::DtBool, &[1]) },
            "input 'x' element 0 is 2, expected 0 or 1 for a BOOL",
        ),
        (
            TensorProto { tensor_content: vec![1].into(), ..of(DataType::DtString, &[1]) },
            "input 'x' has datatype BYTES, whose contents belong in string_val, but has \
             tensor_content",
        ),
        (
            TensorProto { int_val: vec![0, 128], ..of(DataType::DtInt8, &[2]) },
            "input 'x' element 1 is 128, which is out of range for INT8",
        ),
        (
            TensorProto { half_val: vec![-1], ..of(DataType::DtHalf, &[1]) },
            "input 'x' element 0 is -1, which is out of range for FP16",
        ),
    ];
    for (message, expected) in cases {
        let shown = format!("{message:?}");
        let problem = read(message).unwrap_err();
        assert!(problem.starts_with(expected), "{shown}: {problem}");
    }
}

/// Any tensor of up to 24 elements.
fn tensors() -> impl Strategy<Value = Tensor> {
    let sizes = prop::collection::vec(0_usize..4, 0..3);
    let types = prop::sample::select(outhaul_types::DataType::ALL.to_vec());
    (sizes, types, prop::collection::vec(any::<u8>(), 9 * 8)).prop_map(|(sizes, of, bytes)| {
        let shape = Shape::new(sizes);
        let count = shape.elements().unwrap();
        match of.size() {
            None => {
                let strings = bytes.chunks(3).take(count).collect::<Strings>();
                Tensor::from_strings(shape, strings).unwrap()
            }
            Some(size) => {
                let mask = if of == outhaul_types::DataType::Bool { 1 } else { 0xff };
                let bytes: Vec<u8> = bytes[..count * size].iter().map(|byte| byte & mask).collect();
                Tensor::from_bytes(of, shape, bytes.into()).unwrap()
            }
        }
    })
}

proptest! {
    #[test]
    fn a_tensor_survives_its_message(tensor in tensors()) {
        let message = encode_tensor(&tensor);
        prop_assert!(message.tensor_content.is_empty(), "clients read the typed fields");
        let bytes = prost::Message::encode_to_vec(&message);
        let message = prost::Message::decode(&*bytes).unwrap();
        prop_assert_eq!(read(message), Ok(tensor.clone()));
        if let Some(bytes) = tensor.as_bytes() {
            let mut content = of(super::tensor::dtype(tensor.data_type()), &[]);
            content.tensor_shape = encode_tensor(&tensor).tensor_shape;
            content.tensor_content = bytes.clone();
            prop_assert_eq!(read(content), Ok(tensor));
        }
    }
}

/// A model of columns and a vector, as a caller sees it.
fn columns() -> (ModelSignature, Interface) {
    use outhaul_types::DataType::{Bool, Bytes, Fp32, Fp64, Int8};
    let spec = |name: &str, data_type, row: &[Dimension], optional| TensorSpec {
        name: name.into(),
        data_type,
        shape: ShapePattern::ranked([Dimension::Any].into_iter().chain(row.iter().cloned())),
        optional,
    };
    let inputs = vec![
        spec("age", Fp64, &[], true),
        spec("job", Bytes, &[], true),
        spec("level", Int8, &[], false),
        spec("vector", Fp32, &[Dimension::Fixed(2), Dimension::Any], false),
        spec("flag", Bool, &[], false),
    ];
    let contents =
        [Content::Number, Content::Category, Content::Tensor, Content::Tensor, Content::Tensor];
    let interface = Interface { inputs: contents.map(Field::of).to_vec(), ..Interface::default() };
    (ModelSignature { inputs, outputs: Vec::new() }, interface)
}

fn floats(values: &[f32]) -> Kind {
    Kind::FloatList(FloatList { value: values.to_vec() })
}

fn integers(values: &[i64]) -> Kind {
    Kind::Int64List(Int64List { value: values.to_vec() })
}

fn texts(values: &[&'static str]) -> Kind {
    Kind::BytesList(BytesList { value: values.iter().map(|&text| text.into()).collect() })
}

fn example(features: Vec<(&str, Kind)>) -> Example {
    let feature = |(name, kind): (&str, Kind)| (name.to_owned(), Feature { kind: Some(kind) });
    Example { features: Some(Features { feature: features.into_iter().map(feature).collect() }) }
}

fn decode(examples: Vec<Example>, context: Option<Example>) -> Result<(Inputs, usize), String> {
    let (signature, interface) = columns();
    let kind = match context {
        None => input::Kind::ExampleList(ExampleList { examples }),
        context => {
            input::Kind::ExampleListWithContext(ExampleListWithContext { examples, context })
        }
    };
    let model = schema(&signature, &interface);
    let input = Some(Input { kind: Some(kind) });
    let limits = DecodeLimits { max_rows: 3, ..DecodeLimits::default() };
    decode_examples(input, &model, &limits).map_err(|error| error.to_string())
}

fn schema<'a>(signature: &'a ModelSignature, interface: &'a Interface) -> Schema<'a> {
    Schema { name: "m", version: ModelVersion(2), signature, interface }
}

fn whole() -> Vec<(&'static str, Kind)> {
    vec![
        ("age", integers(&[41])),
        ("job", texts(&["cook"])),
        ("level", integers(&[-3])),
        ("vector", floats(&[1.0, 2.0, 3.0, 4.0])),
        ("flag", integers(&[1])),
    ]
}

#[test]
fn examples_become_rows() {
    let bare = vec![("vector", integers(&[5, 6, 7, 8])), ("flag", integers(&[0]))];
    let context = example(vec![("level", integers(&[9]))]);
    let (inputs, rows) = decode(vec![example(whole()), example(bare)], Some(context)).unwrap();
    assert_eq!(rows, 2);
    let named = |name: &str| &inputs.iter().find(|input| input.name == name).unwrap().tensor;
    let ages = named("age").elements_of::<f64>().unwrap();
    assert!(ages[0] == 41.0 && ages[1].is_nan(), "{ages:?}");
    let jobs: Vec<_> = named("job").as_strings().unwrap().iter().collect();
    assert_eq!(jobs, [&b"cook"[..], b""]);
    assert_eq!(*named("level"), Tensor::from_vec([2], vec![-3_i8, 9]).unwrap());
    let vectors = vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    assert_eq!(*named("vector"), Tensor::from_vec([2, 2, 2], vectors).unwrap());
    assert_eq!(*named("flag"), Tensor::from_bools([2], [true, false]).unwrap());
}

#[test]
fn optional_inputs_that_no_example_has_are_left_out() {
    let (inputs, _) = decode(vec![example(whole().split_off(2))], None).unwrap();
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["level", "vector", "flag"]);
}

#[test]
fn a_wrong_example_is_named_with_its_feature() {
    let with = |name: &'static str, kind: Kind| {
        let mut features = whole();
        features.retain(|(other, _)| *other != name);
        features.push((name, kind));
        features
    };
    let mut without = whole();
    without.retain(|(name, _)| *name != "level");
    let cases = [
        (without, "example 1: there is no feature 'level' (INT8)"),
        (
            with("wage", floats(&[1.0])),
            "example 1: unknown feature 'wage'; the model takes 'age', 'job', 'level', 'vector', \
             'flag'",
        ),
        (
            with("age", texts(&["old"])),
            "example 1: feature 'age' must be given as float_list or int64_list, got bytes_list",
        ),
        (
            with("level", floats(&[1.0])),
            "example 1: feature 'level' must be given as int64_list, got float_list",
        ),
        (
            with("job", integers(&[1])),
            "example 1: feature 'job' must be given as bytes_list, got int64_list",
        ),
        (
            with("level", integers(&[200])),
            "example 1: feature 'level' is 200, which is out of range for INT8",
        ),
        (
            with("age", integers(&[i64::MAX])),
            "example 1: feature 'age' is 9223372036854775807, which is out of range for FP64",
        ),
        (
            with("flag", integers(&[2])),
            "example 1: feature 'flag' is 2, which is out of range for BOOL",
        ),
        (with("age", floats(&[])), "example 1: feature 'age' has 0 values, expected 1"),
        (with("age", floats(&[1.0, 2.0])), "example 1: feature 'age' has 2 values, expected 1"),
        (
            with("vector", floats(&[1.0; 3])),
            "example 1: feature 'vector' has 3 values, expected a multiple of 2",
        ),
        (
            with("vector", floats(&[1.0; 6])),
            "example 1: feature 'vector' has 6 values where earlier examples have 4",
        ),
    ];
    for (features, expected) in cases {
        let problem = decode(vec![example(whole()), example(features)], None).unwrap_err();
        assert_eq!(problem, expected);
    }
    assert_eq!(decode(Vec::new(), None).unwrap_err(), "'input' holds no examples");
    let many = decode(vec![Example::default(); 4], None).unwrap_err();
    assert!(many.starts_with("request has 4 rows, more than the limit of 3"), "{many}");
    let context = Some(example(vec![("wage", integers(&[1]))]));
    let problem = decode(vec![example(whole())], context).unwrap_err();
    assert!(problem.starts_with("context: unknown feature 'wage'"), "{problem}");
}

/// The outputs of a classifier that tells of the best class, or the best few, and of all.
fn classifier(best: Option<usize>) -> (ModelSignature, Interface) {
    use outhaul_types::DataType::{Bytes, Fp32};
    let spec = |name: &str, data_type, columns: Option<usize>| TensorSpec {
        name: name.into(),
        data_type,
        shape: ShapePattern::ranked(
            [Dimension::Any].into_iter().chain(columns.map(Dimension::Fixed)),
        ),
        optional: false,
    };
    let labels: std::sync::Arc<[String]> = ["no".to_owned(), "yes".to_owned()].into();
    let outputs = vec![
        spec("label", Bytes, best),
        spec("score", Fp32, best),
        spec("probabilities", Fp32, Some(2)),
    ];
    let choices = |content| Field { choices: Some(labels.clone()), ..Field::of(content) };
    let fields = vec![choices(Content::Label), Field::of(Content::Score), choices(Content::Score)];
    let interface =
        Interface { task: Task::Classification, outputs: fields, ..Interface::default() };
    (ModelSignature { inputs: Vec::new(), outputs }, interface)
}

fn response(outputs: Vec<(&str, Tensor)>) -> InferResponse {
    let named = |(name, tensor)| NamedTensor { name: Name::new(name), tensor };
    InferResponse {
        id: None,
        model: ModelName::new("m").unwrap(),
        version: ModelVersion(2),
        outputs: outputs.into_iter().map(named).collect(),
        timings: Timings::default(),
        tokens: None,
        cache: outhaul_types::CacheStatus::Off,
        via: None,
    }
}

#[test]
fn classes_are_all_of_them_or_the_best_few() {
    let (signature, interface) = classifier(None);
    let all = Classes::find(&schema(&signature, &interface)).unwrap();
    assert_eq!(all.outputs(), ["probabilities"]);
    let probabilities = Tensor::from_vec([2, 2], vec![0.25_f32, 0.75, 1.0, 0.0]).unwrap();
    let answer = response(vec![("probabilities", probabilities)]);
    let written = all.write(&answer, 2).unwrap().classifications;
    let texts: Vec<String> =
        written[0].classes.iter().map(|class| format!("{} {}", class.label, class.score)).collect();
    assert_eq!(texts, ["no 0.25", "yes 0.75"]);
    let mut unnamed = interface.clone();
    unnamed.outputs[2].choices = None;
    let numbered = Classes::find(&schema(&signature, &unnamed)).unwrap();
    let written = numbered.write(&answer, 2).unwrap().classifications;
    let labels: Vec<&str> = written[1].classes.iter().map(|class| class.label.as_str()).collect();
    assert_eq!(labels, ["0", "1"]);
    assert_eq!(
        all.write(&answer, 3).unwrap_err(),
        TensorFlowError::WrongRows { expected: 3, received: 2 }
    );

    let (signature, interface) = classifier(Some(1));
    let best = Classes::find(&schema(&signature, &interface)).unwrap();
    assert_eq!(best.outputs(), ["score", "label"]);
    let strings = ["yes", "no"].iter().collect::<Strings>();
    let answer = response(vec![
        ("label", Tensor::from_strings([2, 1], strings).unwrap()),
        ("score", Tensor::from_vec([2, 1], vec![0.75_f32, 1.0]).unwrap()),
    ]);
    let written = best.write(&answer, 2).unwrap().classifications;
    assert_eq!(written.iter().map(|row| row.classes.len()).collect::<Vec<_>>(), [1, 1]);
    assert_eq!((written[1].classes[0].label.as_str(), written[1].classes[0].score), ("no", 1.0));

    let interface = Interface { task: Task::Tensors, ..interface };
    let refused = Classes::find(&schema(&signature, &interface)).unwrap_err();
    assert_eq!(outhaul_types::Classify::kind(&refused), outhaul_types::ErrorKind::Conflict);
}
