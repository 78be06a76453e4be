//! `outhaul bench`: how much a server answers, and how late.

use std::fs;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use outhaul::load::{
    Answer, GrpcTarget, HttpRequest, HttpTarget, Latencies, LoadPlan, Pace, Report, SampleInput,
    SampleSizes, Target, ask, grpc_message, inputs_over_grpc, inputs_over_http, json_body, run,
};
use serde::Serialize;

use super::{Output, write_json};

/// Sends a server as many requests as it answers, or at a fixed rate, and reports latencies.
///
/// Without --rate, each connection sends its next request when the last one is answered (closed
/// loop). With --rate, requests start at that rate whatever the server does, and each latency counts
/// from when its request should have started (open loop).
///
/// Requests are made up from what the model says it takes, unless they are given.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul bench http://127.0.0.1:8080 --model iris
  outhaul bench http://127.0.0.1:8080 --model iris --rate 2000 --duration 30s
  outhaul bench 127.0.0.1:8081 --grpc --model iris --concurrency 8
  outhaul bench http://127.0.0.1:8080 --model iris --input request.json
  outhaul bench http://127.0.0.1:9000 --path /score --input request.json --output json")]
pub(super) struct Bench {
    /// The server: http://HOST:PORT, or HOST:PORT
    #[arg(value_name = "URL")]
    url: String,

    /// The model
    #[arg(long, value_name = "NAME", required_unless_present = "path")]
    model: Option<String>,

    /// Speak gRPC; the URL is then that of the gRPC listener
    #[arg(long)]
    grpc: bool,

    /// Connections, each with at most one request on its way
    #[arg(long, value_name = "NUMBER", default_value = "32")]
    concurrency: NonZeroUsize,

    /// Requests a second, for an open loop
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,

    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// How long to send before measuring
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    warmup: Duration,

    /// Threads that send [default: half of the cores]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<NonZeroUsize>,

    /// Rows of each request that is made up
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    rows: NonZeroUsize,

    /// The shape of an input of each request that is made up, as in input_ids=1,32
    #[arg(long, value_name = "INPUT=SHAPE", value_parser = shape)]
    shape: Vec<(String, Vec<usize>)>,

    /// A file that holds the JSON body of a request; several are sent in turn
    #[arg(long, value_name = "FILE", conflicts_with_all = ["grpc", "rows", "shape"])]
    input: Vec<PathBuf>,

    /// The path to send to, for a server that is not Outhaul [default: /v2/models/MODEL/infer]
    #[arg(long, value_name = "PATH", requires = "input", conflicts_with = "grpc")]
    path: Option<String>,

    /// The form of the report
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Reads `NAME=2,3`; a scalar is `NAME=`.
fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let form = || "write it as NAME=2,3".to_owned();
    let (name, sizes) = text.split_once('=').ok_or_else(form)?;
    let sizes = match sizes {
        "" => Vec::new(),
        sizes => sizes
            .split(',')
            .map(|size| size.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(|_| form())?,
    };
    Ok((name.to_owned(), sizes))
}

/// What is reported as JSON.
#[derive(Serialize)]
struct Document<'a> {
    url: &'a str,
    model: Option<&'a str>,
    protocol: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

impl Bench {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let target = runtime.block_on(self.target())?;
        let answer = runtime.block_on(ask(&target))?;
        plausible(&answer, self.path.is_none() && !self.grpc)?;
        drop(runtime);
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let half = NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN);
        let plan = LoadPlan {
            target,
            pace: self.rate.map_or(Pace::Closed, |rate| Pace::Open { rate }),
            connections: self.concurrency,
            threads: self.threads.unwrap_or(half),
            warm_up: self.warmup,
            duration: self.duration,
        };
        ensure!(!self.duration.is_zero(), "a duration of 0s measures nothing");
        let report = run(&plan)?;
        match self.output {
            Output::Text => out.write_all(self.text(&report).as_bytes())?,
            Output::Json => write_json(out, &self.document(&report))?,
        }
        ensure!(report.answers_per_second > 0.0, "no request was answered");
        Ok(())
    }

    fn document<'a>(&'a self, report: &'a Report) -> Document<'a> {
        let protocol = if self.grpc { "grpc" } else { "http" };
        Document { url: &self.url, model: self.model.as_deref(), protocol, report }
    }

    async fn target(&self) -> Result<Target> {
        let (address, prefix) = address(&self.url)?;
        let model = self.model.as_deref().unwrap_or_default();
        let sizes = SampleSizes { rows: self.rows.get(), shapes: self.shape.clone() };
        if self.grpc {
            ensure!(prefix.is_empty(), "the URL of a gRPC listener has no path");
            let inputs = inputs_over_grpc(&address, model).await?;
            let inputs = SampleInput::from_metadata(model, inputs, &sizes)?;
            let requests = vec![grpc_message(model, &inputs)];
            return Ok(Target::Grpc(GrpcTarget { address, requests }));
        }
        let infer = format!("{prefix}/v2/models/{model}/infer");
        let path = self.path.as_ref().map_or(infer, |path| format!("{prefix}{path}"));
        let mut requests = Vec::new();
        for file in &self.input {
            let body = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            requests.push(HttpRequest::post_json(path.clone(), body));
        }
        if requests.is_empty() {
            let inputs = inputs_over_http(&address, &prefix, model).await?;
            let inputs = SampleInput::from_metadata(model, inputs, &sizes)?;
            requests.push(HttpRequest::post_json(path, json_body(&inputs)));
        }
        Ok(Target::Http(HttpTarget { address, requests }))
    }

    fn text(&self, report: &Report) -> String {
        let what = match (&self.model, &self.path) {
            (Some(model), None) => format!("{model} at {}", self.url),
            (_, path) => format!("{}{}", self.url, path.as_deref().unwrap_or_default()),
        };
        let pace = match report.intended_per_second {
            None => "closed loop".to_owned(),
            Some(rate) => format!("open loop of {rate} requests/s"),
        };
        let protocol = if self.grpc { "gRPC" } else { "HTTP" };
        let mut text = format!(
            "{what}: {protocol}, {pace}, {} connections, {} s\n\n",
            report.connections, report.seconds
        );
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_header(["", "mean", "p50", "p90", "p99", "p99.9", "max"]);
        table.add_row(latency_cells("latency", &report.latency_us));
        if let Some(delay) = &report.send_delay_us {
            table.add_row(latency_cells("of it, before sending", delay));
        }
        text.push_str(&format!("answers/s  {:.1}\n", report.answers_per_second));
        text.push_str(&format!("requests   {}\n", report.requests));
        text.push_str(&format!("failed     {}\n", report.failed()));
        for (error, count) in &report.errors {
            text.push_str(&format!("           {count} x {error}\n"));
        }
        if report.unsent > 0 {
            text.push_str(&format!("unsent     {} (no connection was free)\n", report.unsent));
        }
        text.push('\n');
        for line in table.to_string().lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn latency_cells(name: &str, of: &Latencies) -> Vec<String> {
    let mut cells = vec![name.to_owned()];
    cells.extend([of.mean, of.p50, of.p90, of.p99, of.p999, of.max].map(duration_text));
    cells
}

fn duration_text(microseconds: f64) -> String {
    match microseconds {
        us if us < 1_000.0 => format!("{us:.0} us"),
        us if us < 1_000_000.0 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// Returns host and port, and the path before `/v2`.
fn address(url: &str) -> Result<(String, String)> {
    ensure!(!url.starts_with("https://"), "https is not supported; measure behind the proxy");
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (address, prefix) = match rest.split_once('/') {
        Some((address, prefix)) => (address, format!("/{}", prefix.trim_end_matches('/'))),
        None => (rest, String::new()),
    };
    let prefix = if prefix == "/" { String::new() } else { prefix };
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok((address.to_owned(), prefix))
        }
        _ => bail!("'{url}' is not a URL with a port, such as http://127.0.0.1:8080"),
    }
}

/// A server that answers every request with an error is quick, and not worth measuring.
fn plausible(answer: &Answer, has_outputs: bool) -> Result<()> {
    let start: String = answer.body.chars().take(300).collect();
    ensure!(answer.is_ok, "the first request got status {}: {start}", answer.status);
    if has_outputs {
        let body: serde_json::Value = serde_json::from_str(&answer.body)
            .with_context(|| format!("the first answer is not JSON: {start}"))?;
        let outputs = body["outputs"].as_array();
        ensure!(
            outputs.is_some_and(|outputs| !outputs.is_empty()),
            "the first answer has no outputs: {start}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let parts = |url: &str| address(url).unwrap();
        let of = |address: &str, prefix: &str| (address.to_owned(), prefix.to_owned());
        assert_eq!(parts("http://127.0.0.1:8080"), of("127.0.0.1:8080", ""));
        assert_eq!(parts("http://127.0.0.1:8080/"), of("127.0.0.1:8080", ""));
        assert_eq!(parts("[::1]:80/a/b/"), of("[::1]:80", "/a/b"));
        for wrong in ["https://a:1", "a", "http://a", ":80", "a:x", ""] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shapes_are_read() {
        assert_eq!(shape("ids=1, 32"), Ok(("ids".to_owned(), vec![1, 32])));
        assert_eq!(shape("scale="), Ok(("scale".to_owned(), Vec::new())));
        for wrong in ["ids", "ids=-1", "ids=1,", "ids=a"] {
            assert!(shape(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_must_be_worth_measuring() {
        let answer = |status: &str, body: &str| Answer {
            status: status.to_owned(),
            is_ok: status == "200",
            body: body.to_owned(),
        };
        assert!(plausible(&answer("200", r#"{"outputs":[{}]}"#), true).is_ok());
        assert!(plausible(&answer("200", "anything"), false).is_ok());
        for (status, body) in
            [("404", "{}"), ("200", "{}"), ("200", r#"{"outputs":[]}"#), ("200", "")]
        {
            assert!(plausible(&answer(status, body), true).is_err(), "{status} {body}");
        }
    }

    #[test]
    fn a_report_reads_well() {
        let bench = Bench::try_parse_from(["bench", "http://127.0.0.1:8080", "--model", "iris"]);
        let latencies = |scale: f64| Latencies {
            mean: 61.4 * scale,
            p50: 50.0 * scale,
            p90: 80.0 * scale,
            p99: 999.0 * scale,
            p999: 12_500.0 * scale,
            max: 2_000_000.0 * scale,
        };
        let report = Report {
            pace: "open",
            intended_per_second: Some(2000.0),
            connections: 32,
            seconds: 10.0,
            requests: 20_000,
            answers_per_second: 1999.5,
            errors: [("status 429".to_owned(), 3)].into(),
            unsent: 1,
            latency_us: latencies(1.0),
            send_delay_us: Some(latencies(0.1)),
        };
        let expected = "\
iris at http://127.0.0.1:8080: HTTP, open loop of 2000 requests/s, 32 connections, 10 s

answers/s  1999.5
requests   20000
failed     3
           3 x status 429
unsent     1 (no connection was free)

                       mean   p50    p90    p99     p99.9     max
 latency                61 us  50 us  80 us  999 us  12.50 ms  2.00 s
 of it, before sending  6 us   5 us   8 us   100 us  1.25 ms   200.00 ms
";
        let normal = |text: &str| -> Vec<Vec<String>> {
            text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
        };
        assert_eq!(normal(&bench.unwrap().text(&report)), normal(expected));
    }
}
