//! Models that tell their content, encoded by hand.
//!
//! A model takes `x` of shape [?,2] and answers `x + [first weight, last weight]`. All weights are the
//! same number, the mark. Invariant: all these files have one length, so one that is written over
//! another is a sound model at every moment, and answers two different numbers until it is whole.

/// Weights of a model: so many that a file takes several writes.
const WEIGHTS: usize = 64 << 10;

/// A model of this mark.
pub(crate) fn marked(mark: u16) -> Vec<u8> {
    let weights = f32::from(mark).to_le_bytes().repeat(WEIGHTS);
    let last = i64::try_from(WEIGHTS - 1).unwrap();
    let ends: Vec<u8> = [0, last].into_iter().flat_map(i64::to_le_bytes).collect();
    let graph = [
        field(1, node("Gather", &["w", "ends"], "e")),
        field(1, node("Add", &["x", "e"], "y")),
        field(2, "marked"),
        field(5, tensor("w", FLOAT, &[last + 1], &weights)),
        field(5, tensor("ends", INT64, &[2], &ends)),
        field(11, rows_of_two("x")),
        field(12, rows_of_two("y")),
    ];
    model(&graph.concat())
}

/// A model of a mark whose weights lie in `model.onnx.data`, and that file.
pub(crate) fn marked_outside(mark: u16) -> (Vec<u8>, Vec<u8>) {
    let weights = f32::from(mark).to_le_bytes().repeat(WEIGHTS);
    let last = i64::try_from(WEIGHTS - 1).unwrap();
    let ends: Vec<u8> = [0, last].into_iter().flat_map(i64::to_le_bytes).collect();
    let location = [field(1, "location"), field(2, "model.onnx.data")].concat();
    let outside = [int(1, last + 1), int(2, FLOAT), field(8, "w"), field(13, location), int(14, 1)];
    let graph = [
        field(1, node("Gather", &["w", "ends"], "e")),
        field(1, node("Add", &["x", "e"], "y")),
        field(2, "outside"),
        field(5, outside.concat()),
        field(5, tensor("ends", INT64, &[2], &ends)),
        field(11, rows_of_two("x")),
        field(12, rows_of_two("y")),
    ];
    (model(&graph.concat()), weights)
}

/// `y = Abs(Abs(...(x)))`, so many times.
pub(crate) fn chain(nodes: usize) -> Vec<u8> {
    let mut graph = field(2, "chain");
    for number in 0..nodes {
        let input = if number == 0 { "x".to_owned() } else { format!("v{number}") };
        let last = number + 1 == nodes;
        let output = if last { "y".to_owned() } else { format!("v{}", number + 1) };
        graph.extend(field(1, node("Abs", &[&input], &output)));
    }
    graph.extend([field(11, rows_of_two("x")), field(12, rows_of_two("y"))].concat());
    model(&graph)
}

/// A model with an operator that nobody has.
pub(crate) fn of_unknown_operator() -> Vec<u8> {
    let graph = [
        field(1, node("Frobnicate", &["x"], "y")),
        field(2, "unknown"),
        field(11, rows_of_two("x")),
        field(12, rows_of_two("y")),
    ];
    model(&graph.concat())
}

const FLOAT: i64 = 1;
const INT64: i64 = 7;

fn model(graph: &[u8]) -> Vec<u8> {
    let opset = [field(1, ""), int(2, 17)].concat();
    [int(1, 8), field(2, "test"), field(7, graph), field(8, opset)].concat()
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|input| field(1, input));
    inputs.chain(field(2, output)).chain(field(4, operator)).collect()
}

fn tensor(name: &str, element: i64, dims: &[i64], raw: &[u8]) -> Vec<u8> {
    let dims = dims.iter().flat_map(|dim| int(1, *dim));
    dims.chain(int(2, element)).chain(field(8, name)).chain(field(9, raw)).collect()
}

/// A `ValueInfoProto` of floats, of shape [?,2].
fn rows_of_two(name: &str) -> Vec<u8> {
    let shape = [field(1, ""), field(1, int(1, 2))].concat();
    let tensor = [int(1, FLOAT), field(2, shape)].concat();
    [field(1, name), field(2, field(1, tensor))].concat()
}

/// Encodes a field that holds bytes.
fn field(number: u64, contents: impl AsRef<[u8]>) -> Vec<u8> {
    let contents = contents.as_ref();
    let length = varint(u64::try_from(contents.len()).unwrap());
    [&varint(number << 3 | 2), &length, contents].concat()
}

/// Encodes a field that holds an integer.
fn int(number: u64, value: i64) -> Vec<u8> {
    [varint(number << 3), varint(value.cast_unsigned())].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
