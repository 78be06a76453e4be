//! The ceiling: ONNX Runtime driven in this process, with no server around it.
//!
//! As many threads as there are cores each own a session of their own and run one prepared request
//! after another. Nothing else happens, so no server on the same cores can answer more.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use outhaul_engine::{Engine, LoadOptions, LoadedModel};
use outhaul_engine_ort::{OnnxRuntime, find_library};
use outhaul_types::{BoundInputs, NamedTensor, Tensor};

/// A model with the time that its session took to create.
pub(crate) struct Loaded {
    onnx: outhaul_onnx::OnnxModel,
    engine: Arc<OnnxRuntime>,
}

impl Loaded {
    pub(crate) fn open(model: &Path) -> anyhow::Result<Loaded> {
        let engine = find_library(None).open()?;
        let engine = engine.context("no ONNX Runtime: run `make onnxruntime` first")?;
        Ok(Loaded { onnx: outhaul_onnx::read(model)?, engine })
    }

    /// Creates a session and returns how long that took.
    pub(crate) fn create(&self) -> anyhow::Result<(Arc<dyn LoadedModel>, Duration)> {
        let start = Instant::now();
        let model = self.engine.load(&self.onnx, &LoadOptions::default())?;
        Ok((model, start.elapsed()))
    }

    /// Returns requests per second of `sessions` sessions that run `lengths` round and round.
    pub(crate) fn requests_per_second(
        &self,
        sessions: NonZeroUsize,
        lengths: &[usize],
        duration: Duration,
    ) -> anyhow::Result<f64> {
        let requests: Vec<BoundInputs> =
            lengths.iter().map(|&length| self.tokens(length)).collect::<anyhow::Result<_>>()?;
        let models: Vec<_> =
            (0..sessions.get()).map(|_| self.create()).collect::<anyhow::Result<_>>()?;
        let done = AtomicU64::new(0);
        let warm_up = duration / 4;
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let mut threads = Vec::new();
            for (first, (model, _)) in models.iter().enumerate() {
                let (requests, done) = (&requests, &done);
                threads.push(scope.spawn(move || -> anyhow::Result<()> {
                    let mut session = model.session()?;
                    let start = Instant::now();
                    let mut number = first;
                    while start.elapsed() < warm_up + duration {
                        session.run(&requests[number % requests.len()])?;
                        number += 1;
                        if start.elapsed() >= warm_up {
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Ok(())
                }));
            }
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("a ceiling thread panicked"))??;
            }
            Ok(())
        })?;
        Ok(done.into_inner() as f64 / duration.as_secs_f64())
    }

    /// Returns the median time of one run of `length` tokens, in microseconds.
    pub(crate) fn median_us(&self, length: usize, duration: Duration) -> anyhow::Result<f64> {
        let request = self.tokens(length)?;
        let (model, _) = self.create()?;
        let mut session = model.session()?;
        let start = Instant::now();
        let mut times = Vec::new();
        while start.elapsed() < duration {
            let begun = Instant::now();
            session.run(&request)?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        // The first quarter warms up.
        times.drain(..times.len() / 4);
        Ok(crate::table::median(times.into_iter()))
    }

    fn tokens(&self, length: usize) -> anyhow::Result<BoundInputs> {
        let inputs = self.onnx.signature.inputs.iter().map(|spec| {
            let tensor = Tensor::from_vec([1, length], tokens(&spec.name, length))?;
            Ok(NamedTensor { name: spec.name.clone(), tensor })
        });
        let inputs: Vec<NamedTensor> = inputs.collect::<anyhow::Result<_>>()?;
        Ok(self.onnx.signature.bind(inputs)?)
    }
}

/// The token ids, mask or type ids of a text of `length` tokens, the same everywhere.
pub(crate) fn tokens(input: &str, length: usize) -> Vec<i64> {
    match input {
        "input_ids" => (0..length as i64).map(|position| 1000 + position * 37 % 5000).collect(),
        "attention_mask" => vec![1; length],
        _ => vec![0; length],
    }
}
