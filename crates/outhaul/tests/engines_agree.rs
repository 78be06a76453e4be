//! The two engines answer alike, on every model here that both of them run, and each refusal names
//! the engine that can.
//!
//! Inputs are made up from the signature with a fixed seed: not recorded answers, which the behaviour
//! suite compares, but the same question to both.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outhaul_engine::embedded::Embedded;
use outhaul_engine::{Engine, LoadError, LoadOptions};
use outhaul_onnx::OnnxModel;
use outhaul_types::{BoundInputs, DataType, Dimension, Shape, ShapePattern, Tensor, TensorSpec};

/// Both engines sum in different orders and approximate exp and erf to a few units in the last place;
/// through the few layers of these models that stays below this.
const RELATIVE: f64 = 1e-4;
const ABSOLUTE: f64 = 1e-5;

fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    let mut folders = vec![root.join("testdata/models"), root.join("examples/models")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "onnx") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn onnxruntime() -> Arc<outhaul_engine_ort::OnnxRuntime> {
    let found = outhaul_engine_ort::find_library(None).open().unwrap();
    found.expect("no ONNX Runtime library; run scripts/fetch_onnxruntime.sh")
}

/// A small deterministic stream of numbers (Steele et al., "SplitMix64").
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn tensor(&mut self, spec: &TensorSpec) -> Option<Tensor> {
        let ShapePattern::Ranked(dimensions) = &spec.shape else { return None };
        let shape = Shape::new(dimensions.iter().map(|dimension| match dimension {
            Dimension::Fixed(size) => *size,
            Dimension::Named(_) | Dimension::Any => 3,
        }));
        let count = shape.elements()?;
        let mut small = |limit: u64| (0..count).map(|_| self.next() % limit).collect::<Vec<u64>>();
        let tensor = match spec.data_type {
            DataType::Fp32 => {
                let elements = small(4096).iter().map(|&n| n as f32 / 512.0 - 4.0).collect();
                Tensor::from_vec(shape, elements)
            }
            DataType::Int64 => {
                Tensor::from_vec(shape, small(16).iter().map(|&n| n as i64).collect())
            }
            DataType::Int32 => {
                Tensor::from_vec(shape, small(16).iter().map(|&n| n as i32).collect())
            }
            DataType::Int8 => Tensor::from_vec(shape, small(16).iter().map(|&n| n as i8).collect()),
            DataType::Uint8 => {
                Tensor::from_vec(shape, small(16).iter().map(|&n| n as u8).collect())
            }
            DataType::Bool => Tensor::from_bools(shape, small(2).iter().map(|&n| n == 1)),
            _ => return None,
        };
        Some(tensor.unwrap())
    }
}

fn inputs(model: &OnnxModel) -> Option<BoundInputs> {
    let mut numbers = Numbers(7);
    let given = |spec: &TensorSpec| match spec.optional {
        true => Some(None),
        false => numbers.tensor(spec).map(Some),
    };
    model.signature.inputs.iter().map(given).collect()
}

fn as_numbers(tensor: &Tensor) -> Vec<f64> {
    match tensor.data_type() {
        DataType::Fp32 => tensor.as_slice::<f32>().unwrap().iter().map(|&x| x.into()).collect(),
        DataType::Int32 => tensor.as_slice::<i32>().unwrap().iter().map(|&x| x.into()).collect(),
        DataType::Int64 => tensor.as_slice::<i64>().unwrap().iter().map(|&x| x as f64).collect(),
        _ => tensor.as_bytes().unwrap().iter().map(|&x| x.into()).collect(),
    }
}

fn close(left: f64, right: f64) -> bool {
    left == right
        || (left.is_nan() && right.is_nan())
        || (left - right).abs() <= ABSOLUTE + RELATIVE * left.abs().max(right.abs())
}

/// Compares the engines on one model; `None` where only one of them runs it.
fn compare(path: &Path, engines: [&dyn Engine; 2]) -> Option<Result<(), String>> {
    let model = outhaul_onnx::read(path).ok()?;
    let options = LoadOptions::default();
    let mut answers = Vec::new();
    for engine in engines {
        let loaded = match engine.load(&model, &options) {
            Ok(loaded) => loaded,
            Err(LoadError::Unsupported { instead: None, what, .. })
                if engine.name() == "embedded" && !what.contains("Frobnicate") =>
            {
                return Some(Err(format!("the refusal of {what} names no other engine")));
            }
            Err(_) => return None,
        };
        answers.push(loaded.session().unwrap().run(&inputs(&model)?));
    }
    let differ = |what: String| Some(Err(what));
    match (&answers[0], &answers[1]) {
        (Err(_), Err(_)) => Some(Ok(())),
        (Ok(left), Ok(right)) => {
            for ((left, right), spec) in left.iter().zip(right).zip(&model.signature.outputs) {
                let same_form =
                    left.data_type() == right.data_type() && left.shape() == right.shape();
                let mut pairs = as_numbers(left).into_iter().zip(as_numbers(right));
                if !same_form || !pairs.all(|(left, right)| close(left, right)) {
                    return differ(format!("'{}': {left:?} and {right:?}", spec.name));
                }
            }
            Some(Ok(()))
        }
        (left, right) => differ(format!("{left:?} and {right:?}")),
    }
}

#[test]
fn the_engines_agree_on_every_model_that_both_run() {
    let onnxruntime = onnxruntime();
    let mut compared = Vec::new();
    let mut problems = Vec::new();
    for path in models() {
        let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        match compare(&path, [&*onnxruntime, &Embedded]) {
            None => {}
            Some(Ok(())) => compared.push(name),
            Some(Err(problem)) => problems.push(format!("{name}: {problem}")),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(compared.len() >= 8, "too few models run on both engines: {compared:?}");
    assert!(compared.iter().any(|name| name.contains("digits")), "{compared:?}");
}
