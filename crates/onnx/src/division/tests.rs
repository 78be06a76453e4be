//! Which divisions pass, which do not, and what is said of them.

use std::path::Path;

use crate::OnnxModel;
use crate::parse;
use crate::testing::{field, graph, int, model, node, read_text};

/// The part of the message where `Some`; that the model passes where `None`.
struct Case(&'static str, &'static str, Option<&'static str>);

const PAIR: Option<&str> = Some("divide the least INT64 by -1");

fn check(cases: &[Case]) {
    for Case(name, text, expected) in cases {
        let model = read_text(text, 17).unwrap_or_else(|error| panic!("{name}: {error}"));
        verdict(name, &model, *expected);
    }
}

#[track_caller]
fn verdict(name: &str, model: &OnnxModel, expected: Option<&str>) {
    match (model.divides_safely(), expected) {
        (Ok(()), None) => {}
        (Err(said), Some(expected)) => assert!(said.contains(expected), "{name}: {said}"),
        (other, _) => panic!("{name}: {other:?}"),
    }
}

#[test]
fn operands_decide() {
    check(&[
        Case("both given", "in x i[n]\nin d i[n]\nout y i[n]\ny = Div(x, d)", PAIR),
        Case("remainder", "in x i[n]\nin d i[n]\nout y i[n]\ny = Mod(x, d)", PAIR),
        Case("as floats", "in x i[n]\nin d i[n]\nout y i[n]\ny = Mod(x, d) fmod=1", None),
        Case("floats", "in x [n]\nin d [n]\nout y [n]\ny = Div(x, d)", None),
        Case("by 2", "in x i[n]\nout y i[n]\nconst d i[1] = 2\ny = Div(x, d)", None),
        Case("by -1", "in x i[n]\nout y i[n]\nconst d i[1] = -1\ny = Div(x, d)", PAIR),
        Case("around -1", "in x i[n]\nout y i[n]\nconst d i[2] = -2,3\ny = Div(x, d)", None),
        Case("constant", "in d i[n]\nout y i[n]\nconst x i[1] = 9\ny = Div(x, d)", None),
        Case(
            "constant least",
            "in d i[n]\nout y i[n]\nconst x i[1] = -9223372036854775808\ny = Div(x, d)",
            PAIR,
        ),
        Case("too long to see", "in x i[n]\nout y i[n]\nconst d i[2000]\ny = Div(x, d)", PAIR),
        Case(
            "default of an input",
            "in x i[n]\nin d i[1]\nout y i[n]\nconst d i[1] = 2\ny = Div(x, d)",
            PAIR,
        ),
    ]);
}

#[test]
fn what_made_an_operand_decides() {
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("dimensions", "d = Shape(x)", None),
        ("size as dividend", "a = Size(x)\nb = Identity(g)", None),
        ("less than a size", "s = Size(x)\nd = Sub(s, two)", PAIR),
        ("product of dimensions", "s = Shape(x)\nd = Mul(s, s)", PAIR),
        ("position", "d = ArgMax(x)", None),
        ("comparison", "c = Equal(x, two)\nd = Cast(c) to=7", None),
        ("bytes", "c = Cast(x) to=2\nd = Cast(c) to=7", None),
        ("signed bytes", "c = Cast(x) to=3\nd = Cast(c) to=7", PAIR),
        ("at least 2", "d = Max(x, two)", None),
        ("at most 2", "d = Min(x, two)", PAIR),
        ("clipped", "d = Clip(x, two, ten)", None),
        ("clipped above alone", "d = Clip(x, , two)", PAIR),
        ("no divisor of 0", "m = Mod(x, ten)\nd = Add(m, two)", None),
        ("kept in place", "s = Shape(x)\nr = Reshape(s, two)\nd = Gather(r, zero)", None),
        ("joined with a request", "s = Shape(x)\nd = Concat(s, x) axis=0", PAIR),
        ("padded", "s = Shape(x)\nd = Pad(s, two)", None),
        ("chosen", "c = Equal(x, two)\nd = Where(c, two, ten)", None),
        ("narrowed", "c = Cast(x) to=6\nd = Cast(c) to=7", PAIR),
        ("narrowed as dividend", "c = Cast(x) to=6\na = Cast(c) to=7\nb = Identity(x)", None),
        ("largest of none", "s = Shape(x)\nd = ReduceMax(s)", PAIR),
        ("sum", "s = Shape(x)\nd = ReduceSum(s)", PAIR),
        ("absolute", "d = Abs(x)", PAIR),
        ("absolute byte", "c = Cast(x) to=3\nh = Cast(c) to=7\nd = Abs(h)", None),
        ("list", "d = Constant() value_ints=[3,4]", None),
        ("list with -1", "d = Constant() value_ints=[3,-1]", PAIR),
        ("filled", "s = Shape(x)\nd = ConstantOfShape(s)\nb = Cast(d) to=7", PAIR),
    ];
    for (name, made, expected) in cases {
        let operand = |of: &str, default: &'static str| {
            if made.contains(&format!("{of} = ")) { of.to_owned() } else { default.to_owned() }
        };
        let divisor = if made.contains("b = ") { "b".to_owned() } else { operand("d", "x") };
        let dividend = operand("a", "x");
        let text = format!(
            "in x i[n]\nin g i[n]\nout y i[n]\nconst two i[1] = 2\nconst ten i[1] = 10\n\
             const zero i[1] = 0\n{made}\ny = Div({dividend}, {divisor})"
        );
        let model = read_text(&text, 17).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        verdict(name, &model, *expected);
    }
}

#[test]
fn types_are_followed() {
    check(&[
        Case("through a layer", "in x [n]\nout y [n]\nh = Tanh(x)\ny = Div(h, h)", None),
        Case(
            "of one operand",
            "in x [n]\nout y [n]\nconst w f[1]\nh = com.example.Odd(x)\nk = Div(h, w)\ny = Exp(k)",
            None,
        ),
        Case("of the result", "in x [n]\nout y [n]\nh = com.example.Odd(x)\ny = Div(h, h)", None),
        Case(
            "not at all",
            "in x [n]\nout y [n]\nh = com.example.Odd(x)\nk = Div(h, h)\ny = Exp(k)",
            Some("the node that makes 'k' (Div): the file does not tell the type"),
        ),
        Case(
            "INT32",
            "in x [n]\nout y [n]\nh = Cast(x) to=6\nk = Div(h, h)\ny = Cast(k) to=1",
            Some("divide the least INT32 by -1"),
        ),
        Case(
            "UINT32",
            "in x [n]\nout y [n]\nh = Cast(x) to=12\nk = Div(h, h)\ny = Cast(k) to=1",
            None,
        ),
        Case(
            "INT16",
            "in x [n]\nout y [n]\nh = Cast(x) to=5\nk = Div(h, h)\ny = Cast(k) to=1",
            None,
        ),
        Case(
            "NaN may become anything",
            "in x [n]\nout y i[n]\nf = Sigmoid(x)\nh = Cast(f) to=7\ny = Div(h, h)",
            PAIR,
        ),
        Case(
            "labels",
            "in x [n]\nout y i[n]\nl,s = ai.onnx.ml.LinearClassifier(x)\ny = Mod(l, l)",
            PAIR,
        ),
        Case(
            "scores",
            "in x [n]\nout y [n]\nl,s = ai.onnx.ml.LinearClassifier(x)\ny = Div(s, s)",
            None,
        ),
    ]);
}

/// A model whose graph has these fields.
fn whole(fields: &[Vec<u8>], functions: &[Vec<u8>]) -> OnnxModel {
    let mut bytes = model(&fields.concat(), 17);
    bytes.extend(functions.iter().flat_map(|function| field(25, function)));
    parse(bytes.into(), Path::new("test.onnx")).unwrap_or_else(|error| panic!("{error}"))
}

/// A node of one output that holds graphs.
fn holding(operator: &str, inputs: &[&str], graphs: &[(&str, &str)]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|name| field(1, name));
    let graphs = graphs.iter().flat_map(|(name, text)| {
        field(5, [field(1, name), field(6, graph(text)), int(20, 5)].concat())
    });
    field(1, [inputs.collect(), field(2, "y"), field(4, operator), graphs.collect()].concat())
}

#[test]
fn subgraphs_see_what_is_around_them() {
    let around = graph("in x i[n]\nout y i[n]\nconst two i[1] = 2\nconst c b[] = 1\ns = Shape(x)");
    for (name, divisor, expected) in [("constant", "two", None), ("given", "x", PAIR)] {
        let then = format!("out r i[n]\nr = Div(x, {divisor})");
        let branches = [("then_branch", &*then), ("else_branch", "out r i[n]\nr = Identity(x)")];
        verdict(name, &whole(&[around.clone(), holding("If", &["c"], &branches)], &[]), expected);
    }
    let body = |divided: &str| {
        format!(
            "in i i[]\nin c b[]\nin v i[n]\nout k b[]\nout w i[n]\nk = Identity(c)\nw = {divided}"
        )
    };
    // What goes round is anything, even where it begins as a dimension.
    for (name, divided, expected) in [
        ("the turn", "Div(v, i)", None),
        ("what goes round", "Div(x, v)", PAIR),
        ("by what lies around", "Div(v, two)", None),
    ] {
        let body = body(divided);
        let node = holding("Loop", &["", "c", "s"], &[("body", &body)]);
        verdict(name, &whole(&[around.clone(), node], &[]), expected);
    }
}

#[test]
fn functions_are_judged_by_each_call() {
    let function = |nodes: &[&str]| {
        let mut bytes = [field(1, "F"), field(4, "a"), field(4, "b"), field(5, "r")].concat();
        bytes.extend(nodes.iter().flat_map(|line| field(7, node(line))));
        bytes.extend(field(10, "com.example"));
        bytes.extend(field(9, [field(1, ""), int(2, 17)].concat()));
        bytes
    };
    let divides = function(&["r = Div(a, b)"]);
    let calls = |text: &str| graph(&format!("in x i[n]\nout y i[n]\nconst two i[1] = 2\n{text}"));
    for (name, text, expected) in [
        ("by a constant", "y = com.example.F(x, two)", None),
        ("by a request", "y = com.example.F(x, x)", PAIR),
        ("once of each", "h = com.example.F(x, two)\ny = com.example.F(two, h)", None),
        ("never called", "y = Identity(x)", None),
    ] {
        verdict(name, &whole(&[calls(text)], std::slice::from_ref(&divides)), expected);
    }
    let endless = function(&["h = com.example.F(a, b)", "r = Div(h, b)"]);
    let model = whole(&[calls("y = com.example.F(x, x)")], &[endless]);
    verdict("calls itself", &model, Some("than are followed"));
}
