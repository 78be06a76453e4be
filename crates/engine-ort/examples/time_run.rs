//! Times runs of models in this process: what a request costs in the engine, and no more; alone, and
//! on all cores at once with one session each.
//!
//!     cargo run --release -p outhaul-engine-ort --example time_run [MODEL.onnx…]

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use outhaul_engine::{Engine, LoadOptions, LoadedModel, RunError, Session};
use outhaul_engine_ort::find_library;
use outhaul_types::{
    BoundInputs, DataType, Dimension, ModelSignature, NamedTensor, Shape, ShapePattern, Tensor,
};

/// The best of some short rounds is steadier than one long one on a machine that others use too.
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let search = find_library(None);
    println!("library found in {:?}", started.elapsed());
    let runtime = search.open()?.ok_or("ONNX Runtime was not found")?;
    println!("library {} opened in {:?}", runtime.version(), started.elapsed());
    let mut paths: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/models");
        for name in ["iris", "digits", "breast_cancer"] {
            paths.push(models.join(name).join("1/model.onnx"));
        }
    }
    for path in paths {
        let model = outhaul_onnx::read(&path)?;
        let started = Instant::now();
        let loaded = runtime.load(&model, &LoadOptions::default())?;
        let load_time = started.elapsed();
        let inputs = model.signature.bind(ones(&model.signature)?)?;
        println!("{}: loaded in {load_time:?}", path.display());
        for threads in [1, thread::available_parallelism()?.get()] {
            let rounds: Result<Vec<f64>, _> =
                (0..ROUNDS).map(|_| runs_a_second(&*loaded, &inputs, threads)).collect();
            let best = rounds?.into_iter().fold(0.0, f64::max);
            let nanoseconds = 1e9 * threads as f64 / best;
            println!("  {threads} threads: {best:.0} runs/s, {nanoseconds:.0} ns a run");
        }
    }
    Ok(())
}

/// Runs one session on each of `threads` threads for a while.
fn runs_a_second(
    loaded: &dyn LoadedModel,
    inputs: &BoundInputs,
    threads: usize,
) -> Result<f64, Box<dyn Error>> {
    let sessions: Vec<_> = (0..threads).map(|_| loaded.session()).collect::<Result<_, _>>()?;
    let work = |mut session: Box<dyn Session>| {
        let (started, mut runs) = (Instant::now(), 0_u32);
        while started.elapsed() < ROUND {
            // Several between looks at the clock, which costs tens of nanoseconds.
            for _ in 0..8 {
                session.run(inputs)?;
            }
            runs += 8;
        }
        Ok::<_, RunError>(f64::from(runs) / started.elapsed().as_secs_f64())
    };
    let mut total = 0.0;
    thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let work = &work;
        let workers: Vec<_> =
            sessions.into_iter().map(|session| scope.spawn(move || work(session))).collect();
        for worker in workers {
            total += worker.join().map_err(|_| "a run panicked")??;
        }
        Ok(())
    })?;
    Ok(total)
}

/// Makes an input of ones for each required input, with 1 for each open dimension.
fn ones(signature: &ModelSignature) -> Result<Vec<NamedTensor>, Box<dyn Error>> {
    let required = signature.inputs.iter().filter(|spec| !spec.optional);
    required
        .map(|spec| {
            let shape = match &spec.shape {
                ShapePattern::AnyRank => Shape::from([1]),
                ShapePattern::Ranked(dimensions) => {
                    Shape::new(dimensions.iter().map(|dimension| match dimension {
                        Dimension::Fixed(size) => *size,
                        Dimension::Named(_) | Dimension::Any => 1,
                    }))
                }
            };
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
