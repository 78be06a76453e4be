//! What one caller notices of another's flood.
//!
//! Caller A asks at a fixed, modest rate; caller B floods the same model from many connections. A is
//! measured alone, beside B, and beside B under one name with it, as it would be without fairness. Once
//! with places for all and B in a closed loop, which shows what A waits, and once with places for half of
//! the flood and B at a fixed rate far above what the model answers, which shows what A is refused. A
//! closed loop of refusals would measure how fast a machine parses what it refuses.
//!
//! The phases alternate in turns on one server, and medians are reported.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::http::{HeaderName, HeaderValue};
use outhaul::load::{HttpRequest, HttpTarget, LoadPlan, Pace, Report, Target, run};

use crate::client::{sample, wait_until};
use crate::process::{Process, Scratch};
use crate::table::{Row, median};

const MODEL: &str = "shared";

/// How long the files are left alone before the server starts: longer than it asks for.
const SETTLING: Duration = Duration::from_millis(1500);

/// Who asks, and for how much.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model's file.
    #[arg(long, default_value = ".outhaul/bench-models/minilm/minilm/1/model.onnx")]
    model: PathBuf,
    /// The size of dimensions that the model leaves open, but for the first, which is 1.
    #[arg(long, default_value_t = 32)]
    length: usize,
    /// Requests a second of caller A.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Connections of caller B.
    #[arg(long, default_value_t = 64)]
    flood: usize,
    /// Requests a second of caller B where places are few.
    #[arg(long, default_value_t = 500.0)]
    flood_rate: f64,
    /// Rows of a batch.
    #[arg(long, default_value_t = 8)]
    max_rows: usize,
    /// Seconds of each phase.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Turns of the phases.
    #[arg(long, default_value_t = 5)]
    turns: usize,
}

/// Returns the rows: what A waits, and what it is refused.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let places_for_all = (2 * arguments.flood, Pace::Closed);
    let few_places = (arguments.flood.div_ceil(2), Pace::Open { rate: arguments.flood_rate });
    let floods = [places_for_all, few_places];
    floods.into_iter().map(|(capacity, pace)| arguments.beside(capacity, pace)).collect()
}

/// One turn: A alone, beside B, and beside B under one name.
struct Turn {
    alone: Report,
    apart: Beside,
    together: Beside,
}

/// A's and B's side of a phase.
struct Beside {
    modest: Report,
    flood: Report,
}

impl Arguments {
    fn beside(&self, capacity: usize, pace: Pace) -> anyhow::Result<Row> {
        let repository = self.repository(capacity)?;
        wait_until(Instant::now() + SETTLING);
        let mut server = Process::outhaul(&repository.0)?;
        server.until_ready(Duration::from_millis(5))?;
        let body = sample(&server.http, MODEL, self.length)?;
        let target = |caller: &'static str| {
            let path = format!("/v2/models/{MODEL}/infer");
            let mut request = HttpRequest::post_json(path, body.clone());
            let header = HeaderName::from_static("x-outhaul-caller");
            request.headers.insert(header, HeaderValue::from_static(caller));
            Target::Http(HttpTarget { address: server.http.clone(), requests: vec![request] })
        };
        let mut turns = Vec::new();
        for _ in 0..self.turns {
            turns.push(Turn {
                alone: run(&self.modest(target("a"))?)?,
                apart: self.both(target("a"), (target("b"), pace))?,
                together: self.both(target("a"), (target("a"), pace))?,
            });
        }
        Ok(self.row(capacity, &turns))
    }

    /// A repository with the model, and its limits. One instance leaves a core to everything else.
    fn repository(&self, capacity: usize) -> anyhow::Result<Scratch> {
        let (folder, _) = Scratch::copies("fairness", &self.model, &[MODEL.to_owned()])?;
        let limits = format!(
            "[batching]\nmax_rows = {}\n[queue]\ncapacity = {capacity}\n[instances]\ncount = 1\n",
            self.max_rows
        );
        let file = folder.0.join(MODEL).join("model.toml");
        std::fs::write(&file, limits).with_context(|| format!("writing {}", file.display()))?;
        Ok(folder)
    }

    fn modest(&self, target: Target) -> anyhow::Result<LoadPlan> {
        self.plan(target, Pace::Open { rate: self.rate }, (16, 1.0))
    }

    fn plan(
        &self,
        target: Target,
        pace: Pace,
        (connections, times): (usize, f64),
    ) -> anyhow::Result<LoadPlan> {
        let connections = NonZeroUsize::new(connections).context("no connections")?;
        let seconds = Duration::from_secs_f64(self.seconds);
        let (warm_up, duration) = (seconds / 4, seconds.mul_f64(times));
        Ok(LoadPlan { target, pace, connections, threads: NonZeroUsize::MIN, warm_up, duration })
    }

    /// Measures A within B's flood, which begins before and ends after.
    fn both(&self, modest: Target, (flood, pace): (Target, Pace)) -> anyhow::Result<Beside> {
        let modest = self.modest(modest)?;
        let flood = self.plan(flood, pace, (self.flood, 1.5))?;
        thread::scope(|scope| {
            let flood = scope.spawn(move || run(&flood));
            wait_until(Instant::now() + modest.warm_up);
            let modest = run(&modest)?;
            match flood.join() {
                Ok(flood) => Ok(Beside { modest, flood: flood? }),
                Err(_) => bail!("the flood's thread panicked"),
            }
        })
    }

    fn row(&self, capacity: usize, turns: &[Turn]) -> Row {
        let alone = Found::of(turns.iter().map(|turn| &turn.alone));
        let apart = Found::of(turns.iter().map(|turn| &turn.apart.modest));
        let together = Found::of(turns.iter().map(|turn| &turn.together.modest));
        let rate = median(turns.iter().map(|turn| {
            turn.apart.flood.answers_per_second + turn.apart.modest.answers_per_second
        }));
        let batch_ms = self.max_rows as f64 / rate * 1000.0;
        let more = apart.p99_ms - alone.p99_ms;
        Row {
            what: format!(
                "A at {}/s while B floods from {} connections, {capacity} places",
                self.rate, self.flood
            ),
            reference: format!("alone: {alone}"),
            outhaul: format!("beside B: {apart}; under one name with B: {together}"),
            worst_ms: Some(apart.worst_ms),
            result: format!(
                "p99 {more:+.1} ms, {} failed; a batch: {batch_ms:.1} ms",
                apart.failed
            ),
            goal: "at most the batch that runs and a full one of its own, 0 failed".to_owned(),
            met: more <= 2.0 * batch_ms && apart.failed + apart.unsent == 0,
        }
    }
}

/// What A found, over all turns of a phase.
struct Found {
    p50_ms: f64,
    p99_ms: f64,
    worst_ms: f64,
    failed: u64,
    /// No connection was free for them in time.
    unsent: u64,
    requests: u64,
}

impl Found {
    fn of<'r>(reports: impl Iterator<Item = &'r Report> + Clone) -> Self {
        let ms = |of: fn(&Report) -> f64| reports.clone().map(move |report| of(report) / 1000.0);
        Found {
            p50_ms: median(ms(|report| report.latency_us.p50)),
            p99_ms: median(ms(|report| report.latency_us.p99)),
            worst_ms: ms(|report| report.latency_us.max).fold(0.0, f64::max),
            failed: reports.clone().map(Report::failed).sum(),
            unsent: reports.clone().map(|report| report.unsent).sum(),
            requests: reports.map(|report| report.requests).sum(),
        }
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Found { p50_ms, p99_ms, failed, requests, unsent, .. } = self;
        write!(formatter, "p50 {p50_ms:.1}, p99 {p99_ms:.1} ms, {failed} of {requests} failed")?;
        match unsent {
            0 => Ok(()),
            unsent => write!(formatter, ", {unsent} not sent in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flood_outlasts_what_is_measured_within_it() {
        let arguments = Arguments {
            model: PathBuf::new(),
            length: 1,
            rate: 20.0,
            flood: 64,
            flood_rate: 500.0,
            max_rows: 8,
            seconds: 4.0,
            turns: 1,
        };
        let target = || Target::Http(HttpTarget { address: String::new(), requests: Vec::new() });
        let modest = arguments.modest(target()).unwrap();
        let flood = arguments.plan(target(), Pace::Closed, (64, 1.5)).unwrap();
        let ends = |plan: &LoadPlan| plan.warm_up + plan.duration;
        assert!(ends(&flood) > flood.warm_up + ends(&modest), "A begins when B is warm");
    }
}
