//! Small graphs, each with the one thing that decides.

use std::path::PathBuf;

use outhaul_onnx::{Attribute, AttributeValue, Opset, ValueInfo, ValueType};
use outhaul_types::{Dimension, ModelSignature, ShapePattern, TensorSpec};

use super::*;

const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const INT32: i32 = 6;
const INT64: i32 = 7;
const BOOL: i32 = 9;
const FLOAT16: i32 = 10;
const DOUBLE: i32 = 11;

/// What a node's attribute is set to.
#[derive(Clone)]
enum Set {
    Int(&'static str, i64),
    Text(&'static str, &'static str),
    Body(Graph),
    Branches(Graph, Graph),
}

fn node(op_type: &str, inputs: &[&str], outputs: &[&str], set: &[Set]) -> Node {
    let attribute = |name: &str, value| Attribute { name: name.to_owned(), value };
    let attributes = set.iter().cloned().flat_map(|set| match set {
        Set::Int(name, value) => vec![attribute(name, AttributeValue::Int(value))],
        Set::Text(name, value) => {
            vec![attribute(name, AttributeValue::String(value.to_owned()))]
        }
        Set::Body(graph) => vec![attribute("body", AttributeValue::Graph(graph))],
        Set::Branches(one, other) => vec![
            attribute("then_branch", AttributeValue::Graph(one)),
            attribute("else_branch", AttributeValue::Graph(other)),
        ],
    });
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Node {
        name: format!("the_{op_type}"),
        op_type: op_type.to_owned(),
        inputs: names(inputs),
        outputs: names(outputs),
        attributes: attributes.collect(),
        ..Node::default()
    }
}

fn value(name: &str, element: i32, rank: usize) -> ValueInfo {
    let dimensions = (0..rank).map(|_| Dimension::Any);
    ValueInfo {
        name: name.to_owned(),
        value_type: Some(ValueType::Tensor {
            element: ElementType::from_number(element),
            shape: ShapePattern::ranked(dimensions),
        }),
    }
}

fn constant(name: &str, element: i32, values: Option<Values>) -> Initializer {
    let count = match &values {
        Some(Values::Ints(values)) => values.len() as u64,
        Some(Values::Floats(values)) => values.len() as u64,
        None => 5000,
    };
    Initializer {
        name: name.to_owned(),
        data_type: ElementType::from_number(element),
        dims: vec![count],
        elements: count,
        bytes: 0,
        values,
        external: None,
        sparse: false,
    }
}

fn ints(name: &str, values: &[i64]) -> Initializer {
    constant(name, INT64, Some(Values::Ints(values.to_vec())))
}

fn floats(name: &str, values: &[f32]) -> Initializer {
    constant(name, FLOAT, Some(Values::Floats(values.to_vec())))
}

/// `x` FP32 [?,?], `n` INT64 [?], `m` INT32 [?], `b` BOOL [?] and `t` FP32 [?,?,?] are inputs; `y`
/// is the output.
fn model(opset: i64, nodes: Vec<Node>, initializers: Vec<Initializer>) -> OnnxModel {
    let inputs = vec![
        value("x", FLOAT, 2),
        value("n", INT64, 1),
        value("m", INT32, 1),
        value("b", BOOL, 1),
        value("t", FLOAT, 3),
    ];
    let graph =
        Graph { nodes, initializers, inputs, outputs: vec![untyped("y")], ..Graph::default() };
    OnnxModel {
        path: PathBuf::new(),
        signature: ModelSignature::default(),
        ir_version: 8,
        opsets: vec![Opset { domain: String::new(), version: opset }],
        producer: String::new(),
        metadata: Vec::new(),
        file_bytes: 0,
        graph,
        functions: Vec::new(),
    }
}

fn untyped(name: &str) -> ValueInfo {
    ValueInfo { name: name.to_owned(), value_type: None }
}

/// A graph with constants, and the words of its refusal; empty where it passes.
struct Case(Vec<Node>, Vec<Initializer>, &'static str);

fn check_all(cases: Vec<Case>) {
    let mut failures = Vec::new();
    for (index, Case(nodes, initializers, expected)) in cases.into_iter().enumerate() {
        let said = check(&model(17, nodes, initializers), false, None).err().unwrap_or_default();
        if (expected.is_empty() && !said.is_empty()) || !said.contains(expected) {
            failures.push(format!("case {index}: expected '{expected}', got '{said}'"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn op(op_type: &str, inputs: &[&str], output: &str) -> Node {
    node(op_type, inputs, &[output], &[])
}

fn cast(input: &str, output: &str, to: i32) -> Node {
    node("Cast", &[input], &[output], &[Set::Int("to", to.into())])
}

#[test]
fn int64_is_followed_to_where_it_could_leave_32_bits() {
    let overflow = "on INT64 whose results may not fit";
    check_all(vec![
        Case(vec![op("Add", &["n", "n"], "y")], vec![], overflow),
        Case(vec![op("Add", &["n", "one"], "y")], vec![ints("one", &[1])], overflow),
        Case(vec![op("Mul", &["n", "n"], "y")], vec![], overflow),
        Case(vec![op("ReduceSum", &["n"], "y")], vec![], overflow),
        Case(vec![op("CumSum", &["n", "zero"], "y")], vec![ints("zero", &[0])], overflow),
        // INT32 wraps around everywhere, and these cannot grow.
        Case(vec![op("Mul", &["m", "m"], "y")], vec![], ""),
        Case(vec![op("Neg", &["n"], "y")], vec![], ""),
        Case(vec![op("Abs", &["n"], "y")], vec![], ""),
        Case(vec![op("Max", &["n", "n"], "y")], vec![], ""),
        Case(vec![op("Div", &["n", "two"], "y")], vec![ints("two", &[2])], ""),
        Case(vec![op("Mod", &["n", "two"], "y")], vec![ints("two", &[2])], ""),
        // Dimensions and what is computed of them.
        Case(vec![op("Shape", &["x"], "s"), op("ReduceProd", &["s"], "y")], vec![], ""),
        Case(
            vec![op("Shape", &["x"], "s"), op("Mul", &["s", "k"], "y")],
            vec![ints("k", &[64])],
            "",
        ),
        Case(
            vec![op("Shape", &["x"], "s"), op("Mul", &["s", "k"], "y")],
            vec![ints("k", &[1 << 20])],
            overflow,
        ),
        Case(vec![op("Shape", &["x"], "s"), op("Add", &["s", "n"], "y")], vec![], overflow),
        // Positions counted from a mask.
        Case(
            vec![
                op("Equal", &["n", "n"], "e"),
                cast("e", "i", INT64),
                op("CumSum", &["i", "zero"], "c"),
                op("Add", &["c", "zero"], "y"),
            ],
            vec![ints("zero", &[1])],
            "",
        ),
        // An INT32 may be the number without a counterpart.
        Case(vec![cast("m", "i", INT64), op("Neg", &["i"], "y")], vec![], overflow),
    ]);
}

#[test]
fn constants_beyond_32_bits_pass_only_where_they_mean_the_end() {
    let max = || ints("max", &[i64::MAX]);
    let big = "the constant 'max', which does not fit";
    check_all(vec![
        Case(vec![op("Add", &["n", "max"], "y")], vec![max()], big),
        Case(vec![op("Equal", &["n", "max"], "y")], vec![max()], big),
        Case(vec![op("Identity", &["max"], "y")], vec![max()], "output 'y', a constant that"),
        Case(vec![op("Slice", &["x", "zero", "max"], "y")], vec![max(), ints("zero", &[0])], ""),
        Case(
            vec![op("Unsqueeze", &["max", "zero"], "end"), op("Slice", &["x", "zero", "end"], "y")],
            vec![max(), ints("zero", &[0])],
            "",
        ),
        Case(vec![op("Clip", &["n", "", "max"], "y")], vec![max()], ""),
        Case(vec![op("Clip", &["n", "max"], "y")], vec![max()], "to a bound that does not fit"),
        Case(vec![op("Gather", &["x", "max"], "y")], vec![max()], big),
    ]);
    let long =
        model(17, vec![op("Gather", &["table", "n"], "y")], vec![constant("table", INT64, None)]);
    assert_eq!(check(&long, false, None), Ok(()));
    assert_eq!(unseen_constants(&long), ["table"], "its elements are to be looked at");
}

#[test]
fn casts_pass_where_both_sides_agree() {
    check_all(vec![
        Case(vec![cast("x", "y", DOUBLE)], vec![], "node 'the_Cast' (Cast): to DOUBLE"),
        Case(vec![cast("x", "y", FLOAT16)], vec![], "to FLOAT16"),
        Case(
            vec![cast("x", "y", INT64)],
            vec![],
            "of FP32 to INT64, where this engine has 32 bits",
        ),
        Case(vec![cast("x", "y", UINT8)], vec![], "of FP32 to UINT8"),
        Case(vec![cast("x", "y", BOOL)], vec![], "of FP32 to BOOL"),
        Case(vec![cast("x", "y", INT32)], vec![], ""),
        Case(vec![cast("n", "y", FLOAT)], vec![], ""),
        Case(vec![op("Sigmoid", &["x"], "s"), cast("s", "y", INT64)], vec![], ""),
        Case(
            vec![op("Clip", &["x", "low", "high"], "c"), cast("c", "y", INT64)],
            vec![floats("low", &[-9.0]), floats("high", &[9.0])],
            "",
        ),
        // Half the height of an image.
        Case(
            vec![
                op("Shape", &["x"], "s"),
                cast("s", "f", FLOAT),
                op("Div", &["f", "two"], "h"),
                op("Floor", &["h"], "d"),
                cast("d", "y", INT64),
            ],
            vec![floats("two", &[2.0])],
            "",
        ),
        Case(
            vec![op("Div", &["x", "three"], "h"), op("Floor", &["h"], "y")],
            vec![floats("three", &[3.0])],
            "(Floor): of a quotient that this engine computes as a product",
        ),
        Case(
            vec![op("Div", &["x", "tiny"], "y")],
            vec![floats("tiny", &[1e-40])],
            "(Div): by 1e-40",
        ),
        // FP16 weights that are widened at once are exact.
        Case(vec![cast("half", "y", FLOAT)], vec![constant("half", FLOAT16, None)], ""),
        Case(
            vec![op("Add", &["x", "half"], "y")],
            vec![constant("half", FLOAT16, None)],
            "constant 'half' of FP16",
        ),
    ]);
}

#[test]
fn a_loose_bool_stays_a_bool() {
    let loose = || cast("n", "l", BOOL);
    let refused = "takes a BOOL that was cast from numbers";
    check_all(vec![
        Case(vec![loose(), op("Not", &["l"], "y")], vec![], ""),
        Case(vec![loose(), op("And", &["l", "b"], "y")], vec![], ""),
        Case(vec![loose(), op("Where", &["l", "x", "x"], "y")], vec![], ""),
        Case(vec![loose(), op("Identity", &["l"], "y")], vec![], ""),
        Case(vec![loose(), cast("l", "y", FLOAT)], vec![], refused),
        Case(
            vec![loose(), op("Unsqueeze", &["l", "m"], "u"), op("Equal", &["u", "b"], "y")],
            vec![],
            refused,
        ),
        Case(vec![cast("b", "y", FLOAT)], vec![], ""),
    ]);
}

#[test]
fn operators_that_differ_are_named() {
    let set = |op_type: &str, set: &[Set]| node(op_type, &["x", "x"], &["y"], set);
    check_all(vec![
        Case(vec![op("Frobnicate", &["x"], "y")], vec![], "node 'the_Frobnicate' (Frobnicate)"),
        Case(vec![op("Sign", &["x"], "y")], vec![], "node 'the_Sign' (Sign): of 0"),
        Case(vec![op("Softplus", &["x"], "y")], vec![], "(Softplus): it overflows"),
        Case(vec![op("ArgMax", &["x"], "y")], vec![], ""),
        Case(
            vec![set("ArgMax", &[Set::Int("select_last_index", 1)])],
            vec![],
            "with select_last_index = 1",
        ),
        Case(vec![set("Resize", &[Set::Text("mode", "cubic")])], vec![], "with mode = cubic"),
        Case(
            vec![set("MaxPool", &[Set::Text("auto_pad", "SAME_LOWER")])],
            vec![],
            "with auto_pad = SAME_LOWER",
        ),
        Case(
            vec![node("LSTM", &["t", "t", "t", "", "m"], &["y"], &[])],
            vec![],
            "it does not read sequence_lens",
        ),
        Case(vec![op("Pow", &["m", "x"], "y")], vec![], "(Pow): of INT32 to FP32"),
        Case(vec![op("Pow", &["m", "two"], "y")], vec![ints("two", &[2])], ""),
        Case(vec![op("MatMul", &["x", "bias"], "y")], vec![floats("bias", &[1.0])], ""),
        Case(
            vec![op("MatMul", &["t", "bias"], "y")],
            vec![floats("bias", &[1.0])],
            "of a stack of matrices and a vector",
        ),
        Case(
            vec![node("RandomNormal", &[], &["y"], &[Set::Int("seed", 7)])],
            vec![],
            "with a seed",
        ),
    ]);
}

#[test]
fn old_softmax_passes_on_the_last_axis_alone() {
    let softmax = |input: &str, axis: Option<i64>| {
        let set: Vec<Set> = axis.into_iter().map(|axis| Set::Int("axis", axis)).collect();
        vec![node("Softmax", &[input], &["y"], &set)]
    };
    struct Case(i64, &'static str, Option<i64>, bool);
    let cases = [
        Case(12, "x", None, true),
        Case(12, "x", Some(1), true),
        Case(12, "x", Some(0), false),
        Case(12, "t", None, false),
        Case(12, "t", Some(2), true),
        Case(12, "t", Some(-1), true),
        Case(13, "t", Some(0), true),
    ];
    for Case(opset, input, axis, passes) in cases {
        let said = check(&model(opset, softmax(input, axis), vec![]), false, None);
        assert_eq!(said.is_ok(), passes, "opset {opset}, {input}, axis {axis:?}: {said:?}");
    }
}

#[test]
fn an_unknown_rank_is_refused_once_all_have_been_asked() {
    let nodes = vec![op("Einsum", &["x"], "v"), op("MatMul", &["t", "v"], "y")];
    let model = model(17, nodes, vec![]);
    assert_eq!(check(&model, false, None), Ok(()));
    let said = check(&model, false, Some(&|_| None)).unwrap_err();
    assert!(said.contains("whose second input may be a vector"), "{said}");
    assert_eq!(check(&model, false, Some(&|name| (name == "v").then_some(2))), Ok(()));
}

#[test]
fn bytes_are_multiplied_where_the_processor_can() {
    let nodes = vec![op("MatMulInteger", &["a", "a"], "y")];
    let model = model(17, nodes, vec![constant("a", UINT8, None)]);
    let said = check(&model, true, None).unwrap_err();
    assert!(said.contains("node 'the_MatMulInteger' (MatMulInteger)"), "{said}");
}

#[test]
fn subgraphs_are_followed_too() {
    let graph = |nodes: Vec<Node>, inputs: Vec<ValueInfo>, outputs: &[&str]| Graph {
        nodes,
        inputs,
        outputs: outputs.iter().map(|name| untyped(name)).collect(),
        ..Graph::default()
    };
    let branches = |one: Vec<Node>| {
        let other = graph(vec![op("Identity", &["n"], "o")], vec![], &["o"]);
        node("If", &["b"], &["y"], &[Set::Branches(graph(one, vec![], &["o"]), other)])
    };
    let loops = |body: Vec<Node>| {
        let inputs = vec![untyped("i"), untyped("go"), untyped("state")];
        let body = graph(body, inputs, &["go_on", "next"]);
        node("Loop", &["m", "b", "n"], &["y"], &[Set::Body(body)])
    };
    let go = || op("Identity", &["go"], "go_on");
    check_all(vec![
        Case(vec![branches(vec![op("Neg", &["n"], "o")])], vec![], ""),
        Case(vec![branches(vec![op("Add", &["n", "n"], "o")])], vec![], "node 'the_Add' (Add)"),
        Case(vec![branches(vec![op("Sign", &["x"], "o")])], vec![], "node 'the_Sign' (Sign)"),
        Case(vec![loops(vec![go(), op("Neg", &["state"], "next")])], vec![], ""),
        // A counter may count further than 32 bits.
        Case(
            vec![loops(vec![go(), op("Add", &["state", "i"], "next")])],
            vec![],
            "(Add): on INT64",
        ),
        Case(vec![loops(vec![go(), op("Add", &["i", "i"], "next")])], vec![], ""),
    ]);
}

#[test]
fn inputs_and_outputs_are_of_types_that_the_engine_carries() {
    let spec = |data_type| TensorSpec {
        name: "z".into(),
        data_type,
        shape: ShapePattern::AnyRank,
        optional: false,
    };
    for data_type in DataType::ALL {
        let mut taking = model(17, vec![op("Identity", &["x"], "y")], vec![]);
        let mut giving = taking.clone();
        taking.signature.inputs.push(spec(data_type));
        giving.signature.outputs.push(spec(data_type));
        let (took, gave) = (check(&taking, false, None), check(&giving, false, None));
        if oddities::carried(data_type) {
            assert_eq!((took, gave), (Ok(()), Ok(())));
        } else {
            assert_eq!(took, Err(format!("input 'z' of {data_type}")));
            assert_eq!(gave, Err(format!("output 'z' of {data_type}")));
        }
    }
}

#[test]
fn a_second_zero_point_forbids_packing() {
    let with = |zero: Initializer| {
        let nodes = vec![op("MatMulInteger", &["a", "w", "az", "wz"], "y")];
        model(17, nodes, vec![zero])
    };
    let zero = |value: i64| constant("wz", 3, Some(Values::Ints(vec![value])));
    assert!(may_prepack(&with(zero(0))));
    assert!(!may_prepack(&with(zero(7))));
    assert!(!may_prepack(&with(constant("wz", 3, None))));
    assert!(may_prepack(&model(17, vec![op("MatMulInteger", &["a", "w"], "y")], vec![])));
}
