//! Files made to be wrong, and the few things that only a made-up file has.

use std::fs::{self, File};
use std::path::Path;

use bytes::Bytes;
use outhaul_types::{Classify, ErrorKind};
use proptest::prelude::*;

use crate::testing::{field, graph, int, model, read_text, tensor, value_info};
use crate::{ElementType, OnnxError, OnnxModel, Values, parse, read};

const HERE: &str = "test.onnx";

fn parse_graph(graph: &[u8]) -> Result<OnnxModel, OnnxError> {
    parse(Bytes::from(model(graph, 17)), Path::new(HERE))
}

/// A model that passes `x` on and holds one tensor.
fn with_tensor(tensor: &[u8]) -> Vec<u8> {
    let mut bytes = graph("in x [n,4]\n out y [n,4]\n y = Identity(x)");
    bytes.extend(field(5, tensor));
    bytes
}

#[test]
fn tensors_must_have_what_their_dimensions_call_for() {
    let typed = |data_type: i64, dims: &[i64], data: Vec<u8>| {
        let mut bytes: Vec<u8> = dims.iter().flat_map(|&dim| int(1, dim)).collect();
        bytes.extend([int(2, data_type), field(8, "w"), data].concat());
        bytes
    };
    let floats = |count: usize| field(4, vec![0; 4 * count]);
    struct Case(Vec<u8>, Option<&'static str>);
    let cases = [
        Case(tensor("w", 1, &[2, 2], &[0; 16]), None),
        Case(tensor("w", 1, &[2, 2], &[0; 15]), Some("FLOAT [2, 2] needs 16 bytes, it has 15")),
        Case(tensor("w", 1, &[], &[0; 4]), None),
        Case(tensor("w", 1, &[0, 7], &[]), None),
        Case(tensor("w", 22, &[3], &[0; 2]), None),
        Case(tensor("w", 22, &[3], &[0; 3]), Some("INT4 [3] needs 2 bytes")),
        Case(typed(1, &[3], floats(3)), None),
        Case(typed(1, &[3], floats(2)), Some("needs 3 elements, it has 2")),
        Case(typed(1, &[3], floats(3000)), Some("needs 3 elements, it has 3000")),
        Case(typed(1, &[1], field(4, [0; 3])), Some("3 bytes are not a number of floats")),
        Case(typed(15, &[1], field(10, [0; 16])), None),
        Case(typed(1, &[1], int(4, 7)), Some("wrong wire type")),
        Case(typed(6, &[2], field(5, [1, 2])), None),
        Case(typed(6, &[2], [int(5, 1), int(5, -1)].concat()), None),
        Case(typed(8, &[2], [field(6, "a"), field(6, "")].concat()), None),
        Case(typed(8, &[3], field(6, "a")), Some("needs 3 strings, it has 1")),
        Case(typed(1, &[1], [floats(1), field(9, [0; 4])].concat()), Some("elements twice")),
        Case(typed(99, &[1], floats(1)), Some("which ONNX does not define")),
        Case(typed(1, &[1], [floats(1), field(3, [])].concat()), Some("in segments")),
        Case(tensor("w", 1, &[i64::MAX, 3], &[]), Some("more than 64 bits")),
        Case(tensor("w", 16, &[1 << 59], &[]), Some("needs")),
        Case(tensor("w", 15, &[1 << 62], &[]), Some("larger than any memory")),
    ];
    for (index, Case(bytes, expected)) in cases.iter().enumerate() {
        match (parse_graph(&with_tensor(bytes)), expected) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{index}: {error}");
            }
            (result, _) => panic!("{index}: {result:?}"),
        }
    }
}

#[test]
fn small_integers_are_kept_and_weights_are_not() {
    let minus_one = (-1_i64).to_le_bytes();
    let model = parse_graph(&with_tensor(&tensor("w", 7, &[1], &minus_one))).unwrap();
    assert_eq!(model.graph.initializers[0].values, Some(Values::Ints(vec![-1])));
    let large = Bytes::from(super::testing::model(
        &with_tensor(&tensor("w", 1, &[1000, 1000], &vec![1; 4_000_000])),
        17,
    ));
    let model = parse(large.clone(), Path::new(HERE)).unwrap();
    assert_eq!(model.graph.initializers[0].values, None);
    assert_eq!(model.weight_bytes(), 4_000_000);
    assert!(large.is_unique(), "the model holds on to its file");
}

#[test]
fn names_and_order_are_checked() {
    struct Case(&'static str, Option<&'static str>);
    let cases = [
        Case("in x [n]\n out y [n]\n y = Relu(h)\n h = Relu(x)", None),
        Case("in x [n]\n in x [n]\n out y [n]\n y = Relu(x)", Some("input 'x' twice")),
        Case("in x [n]\n out y [n]\n out y [n]\n y = Relu(x)", Some("output 'y' twice")),
        Case("in x [n]\n out y [n]\n y = Relu(x)\n y = Abs(x)", Some("value 'y' twice")),
        Case("in x [n]\n out y [n]\n x = Relu(x)\n y = Relu(x)", Some("value 'x' twice")),
        Case(
            "in x [n]\n out y [n]\n const w f[1]\n const w f[1]\n y = Relu(x)",
            Some("initializer 'w' twice"),
        ),
        Case("in x [n]\n out y [n]\n z = Relu(x)", Some("an output that needs 'y'")),
        Case("in x [n]\n out y [n]\n y = Add(x, y)", Some("needs its own result 'y'")),
        Case(
            "in x [n]\n out y [n]\n a = Add(x, b)\n b = Relu(a)\n y = Relu(b)",
            Some("needs its own result"),
        ),
    ];
    for Case(text, expected) in cases {
        match (read_text(text, 17), expected) {
            (Ok(model), None) => {
                let made: Vec<&str> =
                    model.graph.nodes.iter().map(|node| node.outputs[0].as_str()).collect();
                assert_eq!(made, ["h", "y"], "put into order");
            }
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            (result, _) => panic!("{result:?}\n{text}"),
        }
    }
}

#[test]
fn only_tensors_of_wire_types_are_served() {
    let typed = |contents: Vec<u8>| {
        let mut bytes = graph("in x [n]\n out y [n]\n y = Relu(x)");
        bytes.extend(field(11, [field(1, "z"), field(2, contents)].concat()));
        bytes
    };
    struct Case(Vec<u8>, ErrorKind, &'static str);
    let unsupported = ErrorKind::Unsupported;
    let invalid = ErrorKind::InvalidInput;
    let cases = [
        Case(typed(field(4, [])), unsupported, "input 'z', which is a sequence"),
        Case(typed(field(5, [])), unsupported, "which is a map"),
        Case(typed(field(9, [])), unsupported, "which is an optional value"),
        Case(typed(field(8, [])), unsupported, "which is a sparse tensor"),
        Case(typed(field(7, [])), unsupported, "which is an opaque value"),
        Case(typed(field(1, int(1, 17))), unsupported, "'z' of FLOAT8E4M3FN, which no wire"),
        Case(typed(field(1, int(1, 14))), unsupported, "COMPLEX64"),
        Case(typed(field(1, int(1, 22))), unsupported, "INT4"),
        Case(typed(field(1, int(1, 77))), invalid, "element type 77, which ONNX does not"),
        Case(typed(field(1, [])), invalid, "does not declare the type of input 'z'"),
        Case(typed(Vec::new()), invalid, "does not declare the type of input 'z'"),
        Case(
            [graph("in x [n]\n out y [n]\n y = Relu(x)"), field(12, field(1, ""))].concat(),
            invalid,
            "an output without a name",
        ),
    ];
    for Case(bytes, kind, expected) in cases {
        let error = parse_graph(&bytes).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn dimensions_become_patterns() {
    let mut bytes = graph("out y [n]\n y = Relu(x)");
    bytes.extend(field(11, value_info("x", 1, &["n", "3", "-1", "?", "0"])));
    bytes.extend(field(11, [field(1, "any"), field(2, field(1, int(1, 1)))].concat()));
    let model = parse_graph(&bytes).unwrap();
    let shapes: Vec<String> =
        model.signature.inputs.iter().map(|spec| spec.shape.to_string()).collect();
    assert_eq!(shapes, ["[n,3,-1,-1,0]", "[...]"]);
}

#[test]
fn damage_is_placed() {
    struct Case(Vec<u8>, &'static str);
    let nothing = int(1, 8);
    let cases = [
        Case(nothing.clone(), "holds no graph"),
        Case(model(&[], 17), "holds no graph"),
        Case([nothing.clone(), vec![0x3a, 0x80]].concat(), "is cut off: ModelProto at byte 4"),
        Case(
            [nothing.clone(), field(7, [0x0a, 0x05, 0x00]), field(2, "padding")].concat(),
            "is damaged at byte 6 in GraphProto: a field goes on to byte 11",
        ),
        Case([nothing.clone(), field(7, [0x0b])].concat(), "wire type 3 is not in use"),
        Case([nothing, field(7, field(1, field(4, [0xff])))].concat(), "is not UTF-8"),
        Case(b"<!doctype html><html>".to_vec(), "is not an ONNX file"),
        Case(b"PK\x03\x04".to_vec(), "is not an ONNX file"),
        Case(vec![0x08; 40], "holds no graph"),
    ];
    for (index, Case(bytes, expected)) in cases.into_iter().enumerate() {
        let error = parse(Bytes::from(bytes), Path::new(HERE)).unwrap_err();
        assert!(error.to_string().contains(expected), "{index}: {error}");
    }
}

#[test]
fn external_data_stays_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("models");
    fs::create_dir_all(home.join("data")).unwrap();
    fs::write(home.join("weights.bin"), [0; 32]).unwrap();
    fs::write(home.join("data/more.bin"), [0; 16]).unwrap();
    fs::write(folder.path().join("secret"), [0; 32]).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../secret", home.join("link.bin")).unwrap();
    let external = |location: &str, offset: &str, length: &str| {
        let entry = |key: &str, value: &str| field(13, [field(1, key), field(2, value)].concat());
        let entries =
            [entry("location", location), entry("offset", offset), entry("length", length)];
        [int(1, 4), int(2, 1), field(8, "w"), int(14, 1), entries.concat()].concat()
    };
    struct Case(&'static str, &'static str, &'static str, Option<&'static str>);
    let cases = [
        Case("weights.bin", "16", "16", None),
        Case("./data/more.bin", "0", "16", None),
        Case("weights.bin", "17", "16", Some("16 bytes from 17 on, and that file has 32")),
        Case("weights.bin", "18446744073709551615", "16", Some("that file has 32")),
        Case("weights.bin", "0", "32", Some("32 bytes where its dimensions call for 16")),
        Case("weights.bin", "-1", "16", Some("its offset '-1' is not a number")),
        Case("", "0", "16", Some("leaves the model's folder")),
        Case("data/../../secret", "0", "16", Some("leaves the model's folder")),
        Case("data", "0", "16", Some("which is not a file")),
        #[cfg(unix)]
        Case("link.bin", "0", "16", Some("a link that leads out of the model's folder")),
    ];
    for Case(location, offset, length, expected) in cases {
        let bytes = model(&with_tensor(&external(location, offset, length)), 17);
        let path = home.join("model.onnx");
        fs::write(&path, bytes).unwrap();
        match (read(&path), expected) {
            (Ok(model), None) => {
                let files: Vec<_> = model.external_files().into_iter().collect();
                assert_eq!(files, [Path::new(location)]);
                assert_eq!(model.weight_bytes(), 16);
            }
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            (result, _) => panic!("{location}: {result:?}"),
        }
    }
    // What a function's attribute is where its caller says nothing.
    let tensor = external("../secret", "0", "16");
    let default = field(11, [field(1, "value"), field(5, tensor), int(20, 4)].concat());
    let mut bytes = model(&graph("in x [n,4]\n out y [n,4]\n y = Identity(x)"), 17);
    bytes.extend(field(25, [field(1, "F"), field(10, "own"), default].concat()));
    let error = parse(Bytes::from(bytes), &home.join("model.onnx")).unwrap_err();
    assert!(error.to_string().contains("leaves the model's folder"), "{error}");
}

#[test]
fn values_that_decide_the_cost_are_seen() {
    let count = "in n i[]\n out y i[k]\n const z i[] = 0\n const o i[] = 1\n y = Range(z, n, o)";
    for (text, follows) in [("in x [n,4]\n out y [n,4]\n y = Relu(x)", true), (count, false)] {
        assert_eq!(read_text(text, 17).unwrap().cost_follows_size(), follows, "{text}");
    }
}

#[test]
fn files_that_are_none_or_too_large_are_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let error = read(folder.path()).unwrap_err();
    assert!(error.to_string().contains("is not a file"), "{error}");
    let path = folder.path().join("huge.onnx");
    // Sparse: it takes no space.
    File::create(&path).unwrap().set_len(1 << 31).unwrap();
    let error = read(&path).unwrap_err();
    assert!(error.to_string().contains("has 2147483648 bytes"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn weights_are_seeked_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.onnx");
    let payload = 1_u64 << 30;
    let mut head = [int(1, 1 << 28), int(2, 1), field(8, "w")].concat();
    head.extend([9 << 3 | 2]);
    head.extend(super::testing::varint(payload));
    let tensor_length = head.len() as u64 + payload;
    let graph_start = graph("in x [n,4]\n out y [n,4]\n y = Identity(x)");
    let mut in_graph = graph_start;
    in_graph.extend([5 << 3 | 2]);
    in_graph.extend(super::testing::varint(tensor_length));
    in_graph.extend(head);
    let mut bytes = int(1, 8);
    bytes.extend([7 << 3 | 2]);
    bytes.extend(super::testing::varint(in_graph.len() as u64 + payload));
    bytes.extend(in_graph);
    let end = bytes.len() as u64 + payload;
    fs::write(&path, bytes).unwrap();
    // A gibibyte of nothing; reading it would take seconds and as much memory.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(end).unwrap();
    let model = read(&path).unwrap();
    assert_eq!((model.parameters(), model.weight_bytes()), (1 << 28, payload));
    assert_eq!(model.graph.initializers[0].data_type, ElementType::FLOAT);
}

#[test]
fn functions_and_branches_are_followed() {
    use crate::RowIndependence;
    // twice(a) = a + a, in a domain of the file's own; then a branch on something constant.
    let function = [field(1, "Twice"), field(4, "a"), field(5, "b"), graph("b = Add(a, a)")];
    // In a function a node is field 7, where a graph has 1.
    let node = &function[3];
    let mut renumbered = vec![7 << 3 | 2];
    renumbered.extend_from_slice(&node[1..]);
    let function =
        [function[..3].concat(), renumbered, field(9, int(2, 17)), field(10, "own.domain")]
            .concat();
    let branch = |text: &str| graph(text);
    let attribute = |name: &str, graph: Vec<u8>| {
        field(5, [field(1, name), field(6, graph), int(20, 5)].concat())
    };
    let choose = |condition: &str| {
        field(
            1,
            [
                field(1, condition),
                field(2, "y"),
                field(4, "If"),
                attribute("then_branch", branch("out t [n,4]\n t = Relu(h)")),
                attribute("else_branch", branch("out e [n,4]\n e = Neg(h)")),
            ]
            .concat(),
        )
    };
    let text = "in x [n,4]\n out y [n,4]\n const c b[] = 1\n h = own.domain.Twice(x)\n s = ReduceSum(x) keepdims=0\n g = Cast(s) to=9";
    for (condition, exact) in [("c", true), ("g", false)] {
        let mut bytes = model(&[graph(text), choose(condition)].concat(), 12);
        bytes.extend(field(25, &function));
        let model = parse(Bytes::from(bytes), Path::new(HERE)).unwrap();
        assert_eq!(model.row_independence() == RowIndependence::Exact, exact, "{condition}");
        let operators = model.operators();
        assert!(!operators.contains_key(&("own.domain".to_owned(), "Twice".to_owned())));
        assert!(operators.contains_key(&(String::new(), "Add".to_owned())), "the body counts");
    }
}

/// A model with most kinds of parts, to damage.
fn sample() -> Vec<u8> {
    let text = "in x [n,s,8]\n out y [n,?]\n const z i[] = 0\n const a i[1] = 0\n const m i[1] = -1\n \
                d = Shape(x)\n b = Gather(d, z)\n c = Unsqueeze(b, a)\n t = Concat(c, m) axis=0\n \
                r = Reshape(x, t)\n const w f[4]\n q = Relu(r)\n e = Div(t, b)\n y = Softmax(q) axis=1 perm=[1,0]";
    model(&graph(text), 17)
}

proptest! {
    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(model) = parse(Bytes::from(bytes), Path::new(HERE)) {
            model.row_independence();
        }
    }

    #[test]
    fn damaged_models_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = sample();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            let length = cut.index(bytes.len());
            bytes.truncate(length);
        }
        if let Ok(model) = parse(Bytes::from(bytes), Path::new(HERE)) {
            model.row_independence();
            drop(model.divides_safely());
            model.operators();
            model.parameters();
        }
    }

    #[test]
    fn numbers_of_any_size_do_no_harm(
        operator in prop::sample::select(vec![
            "Reshape", "Expand", "Tile", "Slice", "Gather", "Pad", "ReduceSum", "Squeeze",
            "Unsqueeze", "Split", "TopK", "Mul", "Sub", "Mod", "Div", "Clip", "Abs", "Concat", "ConstantOfShape", "Range", "OneHot", "CumSum", "Resize",
        ]),
        values in prop::collection::vec(prop_oneof![any::<i64>(), -3..9_i64], 1..5),
        axis in prop_oneof![any::<i64>(), -3..3_i64],
        opset in 1..25_i64,
    ) {
        let listed: Vec<String> = values.iter().map(i64::to_string).collect();
        let (count, listed) = (values.len(), listed.join(","));
        for inputs in ["x, w", "w, w", "w, x", "w, w, w", "x, w, w, w", "w", ""] {
            let text = format!(
                "in x [n,s,8]\n out y [?]\n out v [?]\n const w i[{count}] = {listed}\n \
                 u = {operator}({inputs}) axis={axis} axes=[{listed}]\n y = Relu(u)\n v = Shape(u)"
            );
            read_text(&text, opset).unwrap().row_independence();
            let text = format!("{text}\n d = Div(w, u)");
            drop(read_text(&text, opset).unwrap().divides_safely());
        }
    }
}
