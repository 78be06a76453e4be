//! Measures what an answer costs that is in memory already: `Router::infer` of four floats, from the resolving of
//! the version to the named output.
//!
//! ```text
//! cargo run --release -p outhaul-router --example cache_hit
//! ```

#![allow(clippy::print_stdout, reason = "it is what the example is for")]

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use outhaul_engine::{LoadError, LoadedModel, RunError, Session};
use outhaul_monitor::Monitor;
use outhaul_onnx::RowIndependence;
use outhaul_repository::{Catalog, Resident, VersionState};
use outhaul_router::{CacheSupport, Declared, Router, ServedVersion, VersionPlan};
use outhaul_types::{
    BoundInputs, CacheSpec, CacheStatus, DataType, Dimension, InferRequest, ModelManifest,
    ModelName, ModelSignature, ModelVersion, NamedTensor, RequestContext, ShapePattern, Tensor,
    TensorSpec, Tensors,
};

/// Gives back what it is given.
#[derive(Clone)]
struct Echo;

impl LoadedModel for Echo {
    fn engine(&self) -> &'static str {
        "echo"
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        Ok(Box::new(Echo))
    }
}

impl Session for Echo {
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError> {
        Ok(inputs.iter().flatten().cloned().collect())
    }
}

fn router() -> Result<Router, Box<dyn Error>> {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: ShapePattern::ranked([Dimension::Any, Dimension::Fixed(4)]),
        optional: false,
    };
    let signature = ModelSignature { inputs: vec![spec("x")], outputs: vec![spec("y")] };
    let manifest = ModelManifest { cache: Some(CacheSpec::default()), ..ModelManifest::default() };
    let (name, version) = (ModelName::new("echo")?, ModelVersion(1));
    let plan = VersionPlan {
        name: name.clone(),
        version,
        declared: Declared::apply(&signature, &manifest)?,
        signature,
        transform: None,
        sample: None,
        rows: RowIndependence::Exact,
        cost_follows_size: true,
        manifest,
        model: Arc::new(Echo),
        engine_reason: String::new(),
        cores: NonZeroUsize::MIN,
        cache: CacheSupport::default(),
    };
    let (catalog, monitor) = (Arc::new(Catalog::new()), Arc::new(Monitor::new()));
    let served = Resident::unattended(ServedVersion::start(plan, &monitor)?);
    catalog.publish([(name, version, Some(VersionState::Ready(Arc::new(served))))]);
    Ok(Router::new(catalog, monitor))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (router, context) = (router()?, RequestContext::default());
    let tensor = Tensor::from_vec([1, 4], vec![5.1_f32, 3.5, 1.4, 0.2])?;
    let request = InferRequest::new("echo", [NamedTensor { name: "x".into(), tensor }]);
    let repeats = if cfg!(debug_assertions) { 50_000 } else { 2_000_000_u32 };
    let mut hits = 0;
    let begun = Instant::now();
    for _ in 0..repeats {
        let answer = router.infer(request.clone(), &context).await?;
        hits += u32::from(answer.cache == CacheStatus::Hit);
    }
    let each = begun.elapsed() / repeats;
    println!("{each:?} for each of {repeats} requests, {hits} of them hits");
    Ok(())
}
