//! Times the row codec: lines of CSV and JSON of 30 numbers a row.
//!
//! `cargo run --profile release-lite -p outhaul-protocol --example csv_speed`

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use outhaul_protocol::{DecodeLimits, Schema, csv, rows};
use outhaul_types::{
    Content, DataType, Dimension, Field, Interface, ModelSignature, ModelVersion, ShapePattern,
    TensorSpec,
};

const ROWS: u32 = 1000;
const COLUMNS: usize = 30;

fn main() {
    let packed = signature([spec("X", DataType::Fp32, Some(COLUMNS))]);
    let columns: Vec<String> = (0..COLUMNS).map(|column| format!("column_{column}")).collect();
    let named = signature(columns.iter().map(|name| spec(name, DataType::Fp64, None)));
    let tensors = Interface::of_tensors(&packed);
    let numbers = Interface {
        inputs: vec![Field::of(Content::Number); COLUMNS],
        ..Interface::of_tensors(&named)
    };
    let packed = schema(&packed, &tensors);
    let named = schema(&named, &numbers);
    let limits = DecodeLimits::default();

    for (kind, write) in [("6 digits", short as fn(usize) -> String), ("17 digits", long)] {
        let lines = lines(write);
        let csv = lines.join("\n");
        report(&format!("CSV, {kind}, one input"), || {
            drop(black_box(csv::decode(black_box(csv.as_bytes()), &packed, &limits)));
        });
        let header = format!("{}\n{csv}", columns.join(","));
        report(&format!("CSV, {kind}, 30 columns"), || {
            drop(black_box(csv::decode(black_box(header.as_bytes()), &named, &limits)));
        });
        let json = format!("[[{}]]", lines.join("],["));
        report(&format!("JSON, {kind}, lists"), || {
            let body = rows::parse_json(black_box(json.as_bytes())).expect("valid JSON");
            drop(black_box(rows::decode_instances(&body, &packed, &limits)));
        });
        let object = |line: &String| {
            let values = columns.iter().zip(line.split(','));
            let members: Vec<_> =
                values.map(|(name, value)| format!("\"{name}\":{value}")).collect();
            format!("{{{}}}", members.join(","))
        };
        let json = format!("[{}]", lines.iter().map(object).collect::<Vec<_>>().join(","));
        report(&format!("JSON, {kind}, objects"), || {
            let body = rows::parse_json(black_box(json.as_bytes())).expect("valid JSON");
            drop(black_box(rows::decode_instances(&body, &named, &limits)));
        });
    }
}

fn spec(name: &str, data_type: DataType, columns: Option<usize>) -> TensorSpec {
    let columns = columns.map(Dimension::Fixed);
    let shape = ShapePattern::ranked([Dimension::Any].into_iter().chain(columns));
    TensorSpec { name: name.into(), data_type, shape, optional: false }
}

fn signature(inputs: impl IntoIterator<Item = TensorSpec>) -> ModelSignature {
    ModelSignature { inputs: inputs.into_iter().collect(), outputs: Vec::new() }
}

fn schema<'a>(signature: &'a ModelSignature, interface: &'a Interface) -> Schema<'a> {
    Schema { name: "m", version: ModelVersion(1), signature, interface }
}

fn lines(write: fn(usize) -> String) -> Vec<String> {
    let line = |row: usize| {
        let mut line = String::new();
        for column in 0..COLUMNS {
            let separator = if column == 0 { "" } else { "," };
            write!(line, "{separator}{}", write(row * COLUMNS + column)).expect("memory");
        }
        line
    };
    (0..ROWS as usize).map(line).collect()
}

/// Numbers as sensors and prices have them: `1234.56`.
fn short(seed: usize) -> String {
    format!("{:.2}", (seed * 7919 % 999_983) as f64 / 100.0)
}

/// Numbers as they come out of computations: `0.6180339887498949`.
fn long(seed: usize) -> String {
    format!("{}", (seed as f64 * 0.618_033_988_749_894_9).fract() * 100.0)
}

/// Prints the best of several runs, a row: what the code costs where nothing else wants the core.
fn report(what: &str, run: impl Fn()) {
    let mut best = Duration::MAX;
    for _ in 0..40 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
    }
    println!("{what:28} {:>10.1?} a row", best / ROWS);
}
