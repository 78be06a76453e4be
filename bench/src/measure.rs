//! The measurements: each row compares a reference and Outhaul, taken in turns within one run.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use outhaul::load::{
    Answer, GrpcTarget, HttpRequest, HttpTarget, LoadPlan, Pace, Report, Target, ask, run,
};
use outhaul_protocol::grpc::pb;

use crate::ceiling::{Loaded, tokens};
use crate::process::{Process, Scratch, until};
use crate::table::{Row, median};

const IRIS: &str =
    r#"{"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}"#;

/// How long and how often to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Turns of reference and subject; the medians are reported.
    pub(crate) turns: usize,
    /// Time of one turn.
    pub(crate) duration: Duration,
}

impl Effort {
    fn plan(&self, target: Target, load: Load) -> anyhow::Result<LoadPlan> {
        let Load { connections, threads } = load;
        let threads = NonZeroUsize::new(threads).context("no threads")?;
        let connections = NonZeroUsize::new(connections).context("no connections")?;
        let (warm_up, duration) = (self.duration / 4, self.duration);
        Ok(LoadPlan { target, pace: Pace::Closed, connections, threads, warm_up, duration })
    }

    pub(crate) fn load(&self, target: &Target, load: Load) -> anyhow::Result<Report> {
        let report = run(&self.plan(target.clone(), load)?)?;
        ensure!(report.failed() == 0, "requests failed: {:?}", report.errors);
        Ok(report)
    }

    /// Loads reference and subject in turns.
    fn in_turns(
        &self,
        reference: &Target,
        subject: &Target,
        load: Load,
    ) -> anyhow::Result<Vec<(Report, Report)>> {
        let turns = 0..self.turns;
        turns.map(|_| Ok((self.load(reference, load)?, self.load(subject, load)?))).collect()
    }
}

/// How hard to press: connections, and the threads of the load generator that drive them. One thread
/// leaves the other cores to the server, but answers that cost less than a request's sending keep it
/// busy, and then it is what is measured; as many threads as cores press the machine to its limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    connections: usize,
    threads: usize,
}

impl Load {
    pub(crate) const fn new(connections: usize, threads: usize) -> Self {
        Load { connections, threads }
    }
}

fn post(address: &str, model: &str, bodies: Vec<String>) -> Target {
    let path = format!("/v2/models/{model}/infer");
    let requests =
        bodies.into_iter().map(|body| HttpRequest::post_json(path.clone(), body)).collect();
    Target::Http(HttpTarget { address: address.to_owned(), requests })
}

fn iris_grpc(address: &str) -> Target {
    let raw: Vec<u8> = [5.1_f32, 3.5, 1.4, 0.2].iter().flat_map(|x| x.to_le_bytes()).collect();
    let input = pb::model_infer_request::InferInputTensor {
        name: "X".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 4],
        ..Default::default()
    };
    let request = pb::ModelInferRequest {
        model_name: "iris".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    };
    Target::Grpc(GrpcTarget { address: address.to_owned(), requests: vec![request] })
}

fn text(length: usize) -> String {
    let inputs = ["input_ids", "attention_mask", "token_type_ids"].map(|name| {
        let data: Vec<String> = tokens(name, length).iter().map(i64::to_string).collect();
        let data = data.join(",");
        format!(r#"{{"name":"{name}","shape":[1,{length}],"datatype":"INT64","data":[{data}]}}"#)
    });
    format!(r#"{{"inputs":[{}]}}"#, inputs.join(","))
}

fn answer(target: &Target) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(ask(target))?)
}

/// Waits for the first right answer and returns it with the time since the process was started.
pub(crate) fn first_answer(
    process: &Process,
    target: &Target,
) -> anyhow::Result<(Answer, Duration)> {
    let mut first = None;
    until(|| {
        first = answer(target).ok().filter(|answer| answer.is_ok);
        Ok(first.is_some())
    })?;
    let since = process.spawned.elapsed();
    Ok((first.context("no answer")?, since))
}

pub(crate) fn worst_ms(reports: impl Iterator<Item = f64>) -> f64 {
    reports.fold(0.0, f64::max) / 1000.0
}

/// iris over JSON and gRPC against handlers that run no model.
pub(crate) fn iris(effort: Effort, models: &Path) -> anyhow::Result<Vec<Row>> {
    let server = Process::outhaul(models)?;
    let json = post(&server.http, "iris", vec![IRIS.to_owned()]);
    let (sample, _) = first_answer(&server, &json)?;
    let bare = Process::bare("bare-http", &["--bytes".to_owned(), sample.body.len().to_string()])?;
    let bare_json = post(&bare.http, "iris", vec![IRIS.to_owned()]);
    let bare_rpc = Process::bare("bare-grpc", &[])?;

    let cores = std::thread::available_parallelism()?.get();
    let mut rows = Vec::new();
    for threads in [1, cores] {
        let load = Load::new(32, threads);
        let json = effort.in_turns(&bare_json, &json, load)?;
        let grpc = effort.in_turns(&iris_grpc(&bare_rpc.grpc), &iris_grpc(&server.grpc), load)?;
        let from = format!("32 connections from {threads} thread(s)");
        rows.push(throughput(&format!("iris, JSON, {from}"), "bare axum handler", &json));
        rows.push(throughput(&format!("iris, gRPC, {from}"), "bare tonic handler", &grpc));
    }
    rows.push(latency(&effort.in_turns(&bare_json, &json, Load::new(1, 1))?));
    Ok(rows)
}

fn throughput(what: &str, reference: &str, turns: &[(Report, Report)]) -> Row {
    let goal = 0.7;
    let rate = |report: &Report| report.answers_per_second;
    let (bare, own) = (
        median(turns.iter().map(|turn| rate(&turn.0))),
        median(turns.iter().map(|turn| rate(&turn.1))),
    );
    // Paired within a turn, so that a slow minute of the machine counts on both sides.
    let ratio = median(turns.iter().map(|turn| rate(&turn.1) / rate(&turn.0)));
    let p99 = median(turns.iter().map(|turn| turn.1.latency_us.p99));
    Row {
        what: what.to_owned(),
        reference: format!("{reference}: {bare:.0}/s"),
        outhaul: format!("{own:.0}/s, p99 {:.2} ms", p99 / 1000.0),
        worst_ms: Some(worst_ms(turns.iter().map(|turn| turn.1.latency_us.max))),
        result: format!("{ratio:.2} of it"),
        goal: format!("at least {goal}"),
        met: ratio >= goal,
    }
}

fn latency(turns: &[(Report, Report)]) -> Row {
    let bare = median(turns.iter().map(|turn| turn.0.latency_us.p50));
    let own = median(turns.iter().map(|turn| turn.1.latency_us.p50));
    let above = median(turns.iter().map(|turn| turn.1.latency_us.p50 - turn.0.latency_us.p50));
    Row {
        what: "iris, JSON, 1 connection, p50".to_owned(),
        reference: format!("bare axum handler: {bare:.0} us"),
        outhaul: format!("{own:.0} us"),
        worst_ms: Some(worst_ms(turns.iter().map(|turn| turn.1.latency_us.max))),
        result: format!("{above:.0} us above"),
        goal: "at most 40 us above".to_owned(),
        met: above <= 40.0,
    }
}

/// A MiniLM-shaped int8 model against the same sessions in this process.
pub(crate) fn minilm(effort: Effort, repository: &Path) -> anyhow::Result<Vec<Row>> {
    let mixed: Vec<usize> = (0..64).map(|step| 8 + step * 53 % 121).collect();
    let cases = [
        ("MiniLM int8, 32 tokens, 8 connections", vec![32], 0.97),
        ("MiniLM int8, 8..128 tokens, 8 connections", mixed, 0.95),
    ];
    let loaded = Loaded::open(&repository.join("minilm/1/model.onnx"))?;
    let sessions = std::thread::available_parallelism()?;
    let server = Process::outhaul(repository)?;
    let mut rows = Vec::new();
    for (what, lengths, goal) in cases {
        let bodies = lengths.iter().map(|&length| text(length)).collect();
        let target = post(&server.http, "minilm", bodies);
        first_answer(&server, &target)?;
        let mut turns = Vec::new();
        for _ in 0..effort.turns {
            let ceiling = loaded.requests_per_second(sessions, &lengths, effort.duration)?;
            turns.push((ceiling, effort.load(&target, Load::new(8, 1))?));
        }
        rows.push(against_ceiling(what, goal, sessions, &turns));
    }
    Ok(rows)
}

pub(crate) fn against_ceiling(
    what: &str,
    goal: f64,
    sessions: NonZeroUsize,
    turns: &[(f64, Report)],
) -> Row {
    let ceiling = median(turns.iter().map(|turn| turn.0));
    let own = median(turns.iter().map(|turn| turn.1.answers_per_second));
    let ratio = median(turns.iter().map(|turn| turn.1.answers_per_second / turn.0));
    let p99 = median(turns.iter().map(|turn| turn.1.latency_us.p99));
    Row {
        what: what.to_owned(),
        reference: format!("ONNX Runtime in-process, {sessions} sessions: {ceiling:.0}/s"),
        outhaul: format!("{own:.0}/s, p99 {:.1} ms", p99 / 1000.0),
        worst_ms: Some(worst_ms(turns.iter().map(|turn| turn.1.latency_us.max))),
        result: format!("{ratio:.3} of it"),
        goal: format!("at least {goal}"),
        met: ratio >= goal,
    }
}

/// What a second and a third copy of a large model take.
pub(crate) fn copies(effort: Effort, repository: &Path) -> anyhow::Result<Row> {
    let manifest = Scratch(repository.join("large/model.toml"));
    let mut resident = Vec::new();
    for count in 1..=3 {
        std::fs::write(&manifest.0, format!("[instances]\ncount = {count}\n"))?;
        let server = Process::outhaul(repository)?;
        let target = post(&server.http, "large", vec![text(16)]);
        first_answer(&server, &target)?;
        effort.load(&target, Load::new(8, 1))?;
        resident.push(server.resident_mib()?);
    }
    let added: Vec<f64> =
        resident.windows(2).map(|pair| (pair[1] / pair[0] - 1.0) * 100.0).collect();
    let worst = added.iter().copied().fold(f64::MIN, f64::max);
    Ok(Row {
        what: "copies of a 250 MB model, resident memory".to_owned(),
        reference: format!("1 copy: {:.0} MiB", resident[0]),
        outhaul: format!("2: {:.0} MiB, 3: {:.0} MiB", resident[1], resident[2]),
        worst_ms: None,
        result: format!("{:+.1}%, {:+.1}%", added[0], added[1]),
        goal: "at most 10% each".to_owned(),
        met: worst <= 10.0,
    })
}

/// From process start to the first correct answer, against creating a session.
pub(crate) fn start(effort: Effort, repository: &Path) -> anyhow::Result<Row> {
    let model: PathBuf = repository.join("iris/1/model.onnx");
    let one = tempfile_repository(&model)?;
    let loaded = Loaded::open(&model)?;
    let mut turns = Vec::new();
    for _ in 0..effort.turns * 3 {
        let (_, session) = loaded.create()?;
        let server = Process::outhaul(&one.0)?;
        let (first, total) =
            first_answer(&server, &post(&server.http, "iris", vec![IRIS.to_owned()]))?;
        ensure!(first.body.contains(r#""data":[0]"#), "a wrong first answer: {}", first.body);
        turns.push((session.as_secs_f64() * 1000.0, total.as_secs_f64() * 1000.0));
    }
    let session = median(turns.iter().map(|turn| turn.0));
    let total = median(turns.iter().map(|turn| turn.1));
    Ok(Row {
        what: "process start to first right answer (iris)".to_owned(),
        reference: format!("session creation: {session:.1} ms"),
        outhaul: format!("{total:.1} ms"),
        worst_ms: Some(turns.iter().map(|turn| turn.1).fold(0.0, f64::max)),
        result: format!("{:.1} ms more", total - session),
        goal: "at most 30 ms more".to_owned(),
        met: total - session <= 30.0,
    })
}

/// A repository with one model, so that nothing else is loaded meanwhile.
fn tempfile_repository(model: &Path) -> anyhow::Result<Scratch> {
    let name = format!("outhaul-bench-{}", std::process::id());
    let folder = Scratch(std::env::temp_dir().join(name));
    let version = folder.0.join("iris/1");
    std::fs::create_dir_all(&version)?;
    std::fs::copy(model, version.join("model.onnx"))?;
    // Longer than the server wants files to have been left alone: that wait is no part of a start.
    std::thread::park_timeout(Duration::from_millis(1200));
    Ok(folder)
}
