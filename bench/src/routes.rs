//! What a route costs a request, and what a cached answer costs, in this process: no sockets, one thread.
//!
//! Requests with and without take turns, a thousand at a time, so that a change of the machine's pace meets both.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use outhaul::{OpenOptions, Router};
use outhaul_router::RouteTable;
use outhaul_types::{
    CacheStatus, InferRequest, ModelName, NamedTensor, RequestContext, RouteSpec, StickyKey, Tensor,
};

use crate::process::Scratch;
use crate::table::{Row, median};

/// What to measure with.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model's file: one input `X`, `FP32 [batch, 4]`.
    #[arg(long, default_value = "examples/models/iris/1/model.onnx")]
    model: PathBuf,
    /// Turns of a thousand requests each.
    #[arg(long, default_value_t = 200)]
    turns: usize,
}

/// Returns the rows: one route, a sticky split, a cached answer.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let scratch = Scratch::folder("routes")?;
    for name in ["plain", "cached"] {
        let folder = scratch.0.join(name).join("1");
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(&arguments.model, folder.join("model.onnx"))?;
    }
    std::fs::write(scratch.0.join("cached/model.toml"), "[cache]\ncapacity = \"16MiB\"\n")?;
    let opened = outhaul::open(&OpenOptions::path(&scratch.0))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(rows(arguments, &opened.router))
}

async fn rows(arguments: &Arguments, router: &Arc<Router>) -> anyhow::Result<Vec<Row>> {
    let name = |text: &str| ModelName::new(text);
    let one = RouteSpec::to("plain@1".parse()?);
    let mut split = one.clone();
    split.targets.push(outhaul_types::TargetSpec { to: "plain".parse()?, weight: 1.0 });
    split.sticky = Some(StickyKey::Caller);
    let routes = [(name("one")?, one), (name("split")?, split)].into_iter().collect();
    let metrics = Arc::clone(router.monitor().traffic());
    let table = RouteTable::build(1, &routes, &RouteTable::default(), &metrics);
    let (with, without) = (Arc::new(table), Arc::new(RouteTable::default()));
    let mut plain = Vec::new();
    let (mut one, mut split, mut cached) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.turns {
        router.set_routes(Arc::clone(&without));
        plain.push(turn(router, "plain").await?);
        cached.push(turn(router, "cached").await?);
        router.set_routes(Arc::clone(&with));
        one.push(turn(router, "one").await?);
        split.push(turn(router, "split").await?);
    }
    let plain = median(plain.into_iter());
    let routed = |what: &str, times: Vec<f64>| {
        let time = median(times.into_iter());
        let more = time - plain;
        Row {
            what: format!("{what}, in process, one thread"),
            reference: format!("{plain:.2} us without a route"),
            outhaul: format!("{time:.2} us"),
            worst_ms: None,
            result: format!("+{more:.2} us"),
            goal: "< 2 us more".to_owned(),
            met: more < 2.0,
        }
    };
    let hit = median(cached.into_iter());
    let hits = router.monitor().traffic().cache(&name("cached")?).hits.get();
    anyhow::ensure!(hits as usize > arguments.turns * 900, "the cache answered {hits} times only");
    Ok(vec![
        routed("a request by one route", one),
        routed("a request by a split of two, sticky by caller", split),
        Row {
            what: "iris from the cache, in process, one thread".to_owned(),
            reference: format!("{plain:.2} us computed"),
            outhaul: format!("{hit:.2} us from the cache"),
            worst_ms: None,
            result: format!("{:.2} of computing it", hit / plain),
            goal: "at least as fast".to_owned(),
            met: hit <= plain,
        },
    ])
}

/// Sends a thousand requests and returns the microseconds of one.
async fn turn(router: &Router, model: &str) -> anyhow::Result<f64> {
    const REQUESTS: u32 = 1000;
    let context = RequestContext { caller: Some("somebody".into()), ..RequestContext::default() };
    let tensor = Tensor::from_vec([1, 4], vec![5.1_f32, 3.5, 1.4, 0.2])?;
    let begun = Instant::now();
    for _ in 0..REQUESTS {
        let input = NamedTensor { name: "X".into(), tensor: tensor.clone() };
        let answer = router.infer(InferRequest::new(model, [input]), &context).await?;
        std::hint::black_box(answer.cache != CacheStatus::Off);
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(REQUESTS))
}
