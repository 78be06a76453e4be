//! Measures how long a text takes to become token ids.
//!
//!     cargo run --profile release-lite -p outhaul-transform --example tokenize -- TOKENIZER.json
//!
//! prints microseconds a text for short and long texts, on one thread and on two, and the time of the
//! worst texts that are accepted.

use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use outhaul_transform::{Grouping, Transform};
use outhaul_types::{
    BoundInputs, DataType, Dimension, InputTransform, ModelSignature, NamedTensor, ShapePattern,
    Strings, Tensor, TensorSpec, TextInput, TransformSpec, Truncation,
};

/// Few enough to end before the system gives the core to somebody else.
const TEXTS_A_RUN: u32 = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tokenizer = std::env::args_os().nth(1).ok_or("usage: tokenize TOKENIZER.json")?;
    let start = Instant::now();
    let transform = transform(PathBuf::from(tokenizer))?;
    println!("reading the tokenizer: {:?}", start.elapsed());

    let sentence = "The harbour master said that the small boats would have to leave before noon, \
                    because the wind was rising and the tide was already going out";
    for (name, repeats, runs) in [("short", 1, 1_000), ("long", 20, 100)] {
        let bound = bind(&transform, &[sentence.repeat(repeats)])?;
        let tokens = transform.prepare(&bound, Grouping::Alone)?.tokens.unwrap_or(0);
        for threads in [1, 2] {
            let micros = measure(&transform, &bound, runs, threads);
            println!("{name} text, {tokens} tokens, {threads} threads: {micros:.1} us a text");
        }
    }

    let bytes = 256 << 10;
    let worst = [
        ("one word", "a".repeat(bytes)),
        (
            "letters that repeat seldom",
            (0..bytes).map(|i| char::from(b'a' + (i * i / 7 % 26) as u8)).collect(),
        ),
        ("spaces", " ".repeat(bytes)),
        ("punctuation", "!?".repeat(bytes / 2)),
        ("characters that normalise to 18", "\u{fdfa}".repeat(bytes / 3)),
        ("sentences", sentence.repeat(bytes / sentence.len())),
    ];
    for (name, text) in worst {
        for (kind, inputs) in
            [("text", vec![text.clone()]), ("pair", vec![text.clone(), text.clone()])]
        {
            let bound = bind(&transform, &inputs)?;
            let start = Instant::now();
            let tokens = transform.prepare(&bound, Grouping::Alone)?.tokens.unwrap_or(0);
            println!("256 KiB of {name}, {kind}: {tokens} tokens in {:?}", start.elapsed());
        }
    }
    Ok(())
}

fn transform(tokenizer: PathBuf) -> Result<Transform, Box<dyn std::error::Error>> {
    let names = ["input_ids", "attention_mask", "token_type_ids"];
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        data_type: DataType::Int64,
        shape: ShapePattern::ranked([Dimension::Any, Dimension::Any]),
        optional: false,
    };
    let inner = ModelSignature { inputs: names.map(spec).into(), outputs: Vec::new() };
    let input = TextInput {
        tokenizer,
        max_tokens: None,
        truncation: Truncation::End,
        pairs: true,
        prefix: String::new(),
    };
    let spec = TransformSpec { input: Some(InputTransform::Text(input)), output: None };
    Ok(Transform::build(&spec, &inner)?.ok_or("something is declared")?)
}

/// One row of a text and, where there are two, its pair.
fn bind(
    transform: &Transform,
    texts: &[String],
) -> Result<BoundInputs, Box<dyn std::error::Error>> {
    let mut named = Vec::new();
    for (name, text) in ["text", "text_pair"].into_iter().zip(texts) {
        let strings: Strings = [text].into_iter().collect();
        named.push(NamedTensor { name: name.into(), tensor: Tensor::from_strings([1], strings)? });
    }
    Ok(transform.outer().bind(named)?)
}

/// Microseconds a text while so many threads prepare it. Of many short runs the fastest counts, which
/// nothing else on the machine interrupted.
fn measure(transform: &Transform, bound: &BoundInputs, runs: u32, threads: u32) -> f64 {
    let one_thread = || {
        let run = |_| {
            let start = Instant::now();
            for _ in 0..TEXTS_A_RUN {
                transform.prepare(bound, Grouping::Alone).expect("it was prepared before");
            }
            start.elapsed()
        };
        (0..runs).map(run).min().unwrap_or_default()
    };
    let fastest = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one_thread)).collect();
        // The slowest thread tells whether they wait for each other.
        threads.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or_default()
    });
    fastest.as_secs_f64() * 1e6 / f64::from(TEXTS_A_RUN)
}
