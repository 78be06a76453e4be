//! Measures what copies of a model cost in memory: sessions that share one session of the library,
//! against sessions of the library of their own.
//!
//!     cargo run --release -p outhaul-engine-ort --example shared_memory shared|separate COPIES MODEL.onnx
//!
//! Each copy runs once, on a thread of its own, with all others still open.

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::thread;

use outhaul_engine::{Engine, LoadOptions};
use outhaul_engine_ort::find_library;
use outhaul_types::{
    DataType, Dimension, ModelSignature, NamedTensor, Shape, ShapePattern, Tensor,
};

/// Tokens of the one row that each copy runs.
const TOKENS: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [mode, copies, path] = &arguments[..] else {
        return Err("usage: shared_memory shared|separate COPIES MODEL.onnx".into());
    };
    let copies: usize = copies.parse()?;
    let runtime = find_library(None).open()?.ok_or("ONNX Runtime was not found")?;
    let model = outhaul_onnx::read(Path::new(path))?;
    let inputs = model.signature.bind(tokens(&model.signature)?)?;
    let mut loaded = Vec::new();
    let mut sessions = Vec::new();
    println!("before: {} MiB", resident_mib()?);
    for copy in 1..=copies {
        if mode == "separate" || loaded.is_empty() {
            loaded.push(runtime.load(&model, &LoadOptions::default())?);
        }
        let mut session = loaded[loaded.len() - 1].session()?;
        let inputs = &inputs;
        let session = thread::scope(|scope| {
            let run = scope.spawn(move || session.run(inputs).map(|_| session));
            run.join().map_err(|_| "a run panicked")
        })??;
        sessions.push(session);
        println!("{mode}, {copy}: {} MiB", resident_mib()?);
    }
    Ok(())
}

fn tokens(signature: &ModelSignature) -> Result<Vec<NamedTensor>, Box<dyn Error>> {
    signature
        .inputs
        .iter()
        .map(|spec| {
            let ShapePattern::Ranked(dimensions) = &spec.shape else {
                return Err("an input has any rank".into());
            };
            let open = dimensions.iter().enumerate().map(|(axis, dimension)| match dimension {
                Dimension::Fixed(size) => *size,
                Dimension::Named(_) | Dimension::Any if axis == 0 => 1,
                Dimension::Named(_) | Dimension::Any => TOKENS,
            });
            let shape = Shape::new(open);
            let count = shape.elements().ok_or("a shape overflows")?;
            let tensor = match spec.data_type {
                DataType::Fp32 => Tensor::from_vec(shape, vec![1_f32; count])?,
                DataType::Int64 => Tensor::from_vec(shape, vec![1_i64; count])?,
                other => return Err(format!("input '{}' is {other}", spec.name).into()),
            };
            Ok(NamedTensor { name: spec.name.clone(), tensor })
        })
        .collect()
}

/// Returns the resident memory of this process.
fn resident_mib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()? / 1024)
}
