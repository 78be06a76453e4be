//! A thousand registered models, memory for fifty: what does it cost to be among many?
//!
//! Requests choose models by Zipf's law, so that a few are asked for nearly always and most nearly
//! never. A server that holds only fifty models, all of them in memory, says how late a hit may be;
//! the engine itself, without any server, says how long creating a session takes.
//!
//! Two loads: **paced**, at a rate that leaves the machine time, for the latencies; and **flat out**,
//! each client sending its next request when the last one is answered, for what must hold under any
//! load: no error, and the budget. Only there the server is asked all the time what its models take:
//! the metrics of a thousand models are megabytes of text, which would be part of what is measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::ceiling::Loaded;
use crate::client::{Client, Crowd, Record, failures, prediction, sample, wait_until};
use crate::process::{Process, Scratch};
use crate::table::{Latencies, Row, median};
use crate::zipf::Zipf;

/// What a cold answer may take beyond the creation of a session.
const MOST_COLD_MORE_MS: f64 = 10.0;

/// "As with 50 models": what a hit's median and 99th percentile may be of theirs.
const MOST_HIT_GROWTH: f64 = 1.1;
/// Less than this is not told apart from chance.
const LEAST_HIT_GROWTH_MS: f64 = 0.05;

/// How often what the models take is asked for, at most.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// Sessions created to see how long that takes.
const SESSIONS: usize = 300;

/// What to register, and under what load.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model's file, of which copies are registered.
    #[arg(long, default_value = "examples/models/iris/1/model.onnx")]
    model: PathBuf,
    /// The size of dimensions that the model leaves open, but for the first, which is 1.
    #[arg(long, default_value_t = 32)]
    length: usize,
    /// Registered models.
    #[arg(long, default_value_t = 1000)]
    models: usize,
    /// Models that the budget has room for.
    #[arg(long, default_value_t = 50)]
    budget: usize,
    /// Seconds of each load.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Requests a second of the paced load, of all clients together.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// The exponent of Zipf's law.
    #[arg(long, default_value_t = 1.0)]
    exponent: f64,
    /// A tenth of the time: to see whether it works.
    #[arg(long)]
    quick: bool,
}

/// Returns the rows: errors and budget under each load, hits, cold answers.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let tenth = if arguments.quick { 10 } else { 1 };
    let (stage, few) = Stage::set(arguments)?;
    let time = Duration::from_secs(arguments.seconds) / u32::try_from(tenth)?;
    let paced = Some(arguments.rate);

    let reference = stage.load(&few, stage.few, (paced, Watch::Resident), time)?;
    let one = stage.memory_of_one(&few)?;
    drop(few);

    let budget = one * stage.few as u64;
    let flags = ["--memory-budget".to_owned(), budget.to_string()];
    let mut server = Process::outhaul_with(&stage.many.0.0, &flags)?;
    server.until_ready(Duration::from_millis(5))?;
    let all = stage.requests.len();
    let subject = stage.load(&server, all, (paced, Watch::Resident), time)?;
    let sessions = Latencies::of(stage.sessions()?);
    let flat_out = stage.load(&server, all, (None, Watch::Budget), time)?;
    eprintln!("flat out: hits {}", flat_out.latencies(false));
    eprintln!("flat out: answers that waited for a load {}", flat_out.latencies(true));

    let (limits, paced) =
        (Limits { one, budget, models: stage.few }, format!("{:.0}/s", arguments.rate));
    Ok(vec![
        subject.errors(&stage.title(&paced)),
        flat_out.errors(&stage.title("flat out")),
        flat_out.budget(&limits)?,
        subject.hits(&paced, &reference),
        subject.cold(&paced, &sessions),
    ])
}

/// Models and requests.
struct Stage {
    /// All models, and their files.
    many: (Scratch, Vec<PathBuf>),
    /// As many as the budget has room for. Nothing but its end matters.
    _only_few: Scratch,
    few: usize,
    /// A request for each model.
    requests: Vec<Vec<u8>>,
    clients: usize,
    exponent: f64,
}

impl Stage {
    /// Makes the repositories, and starts the server that has few models: with the settings of the
    /// other, room for all, and all of them in memory.
    fn set(arguments: &Arguments) -> anyhow::Result<(Stage, Process)> {
        let (models, few) = (arguments.models, arguments.budget);
        ensure!(few > 0 && few < models, "the budget must have room for some and not for all");
        let names: Vec<String> = (0..models).map(|number| format!("model-{number:04}")).collect();
        let many = Scratch::copies("many", &arguments.model, &names)?;
        let only_few = Scratch::copies("few", &arguments.model, &names[..few])?.0;
        // Longer than the server wants files to have been left alone.
        wait_until(Instant::now() + Duration::from_millis(1500));
        let flags = ["--memory-budget".to_owned(), "1024GiB".to_owned()];
        let mut server = Process::outhaul_with(&only_few.0, &flags)?;
        server.until_ready(Duration::from_millis(5))?;
        let body = sample(&server.http, &names[0], arguments.length)?;
        let requests: Vec<_> = names.iter().map(|name| prediction(name, &body)).collect();
        let mut client = Client::open(&server.http)?;
        for request in &requests[..few] {
            let (status, body) = client.send(request)?;
            ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(body));
        }
        let (clients, exponent) = (arguments.clients, arguments.exponent);
        Ok((Stage { many, _only_few: only_few, few, requests, clients, exponent }, server))
    }

    /// What one of the models in memory takes: the middle, since the first may bring along what all
    /// share.
    fn memory_of_one(&self, server: &Process) -> anyhow::Result<u64> {
        let index = Client::open(&server.http)?.index()?;
        let loaded = index.iter().filter(|version| version.standing == "ready").count();
        ensure!(loaded == self.few, "{loaded} of {} models are in memory", self.few);
        let memory = index.iter().filter_map(|version| version.memory_bytes);
        let middle = median(memory.map(|bytes| bytes as f64));
        ensure!(middle >= 1.0, "the server does not say what models take");
        Ok(middle as u64)
    }

    /// Creates sessions without any server and returns how long each took.
    fn sessions(&self) -> anyhow::Result<Vec<Duration>> {
        let files = self.many.1.iter().cycle().take(SESSIONS);
        files.map(|file| Ok(Loaded::open(file)?.create()?.1)).collect()
    }

    /// Puts a server under load for `time`, after a quarter of that to warm up.
    fn load(
        &self,
        server: &Process,
        models: usize,
        (rate, watch): (Option<f64>, Watch),
        time: Duration,
    ) -> anyhow::Result<Found> {
        let crowd = Crowd {
            address: &server.http,
            requests: &self.requests[..models],
            clients: self.clients,
            rate,
        };
        let zipf = Zipf::new(models, self.exponent);
        let choose = |index: usize| zipf.draws(index as u64);
        let work = || {
            let started = Instant::now() + time / 4;
            Ok((started, Samples::take(server, watch, started + time)?))
        };
        let ((started, samples), records) = crowd.during(choose, work)?;
        Ok(Found { started, samples, records: records.into_iter().flatten().collect() })
    }

    fn title(&self, load: &str) -> String {
        let (models, few, clients) = (self.requests.len(), self.few, self.clients);
        format!("{models} models, budget for {few}, {clients} clients, {load}")
    }
}

struct Limits {
    /// Bytes that a model takes.
    one: u64,
    budget: u64,
    /// Models that the budget has room for.
    models: usize,
}

/// What is looked at during a load.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// The process's memory, from outside.
    Resident,
    /// That, and what the server says that its models take.
    Budget,
}

/// What was seen of the server's memory.
#[derive(Clone, Copy, Default)]
struct Samples {
    count: usize,
    /// The most that models took together, in bytes.
    most_bytes: u64,
    most_resident_mib: f64,
    /// The longest that a sample took.
    slowest: Duration,
}

impl Samples {
    fn take(server: &Process, watch: Watch, until: Instant) -> anyhow::Result<Samples> {
        let mut client = Client::open(&server.http)?;
        let (mut samples, mut due) = (Samples::default(), Instant::now());
        while due < until {
            wait_until(due);
            let asked = Instant::now();
            if watch == Watch::Budget {
                samples.most_bytes = samples.most_bytes.max(memory_of_models(&mut client)?);
            }
            samples.most_resident_mib = samples.most_resident_mib.max(server.resident_mib()?);
            samples.count += 1;
            samples.slowest = samples.slowest.max(asked.elapsed());
            due = (due + SAMPLE_EVERY).max(Instant::now());
        }
        Ok(samples)
    }
}

fn memory_of_models(client: &mut Client) -> anyhow::Result<u64> {
    let metrics = client.get("/metrics")?;
    let value = |line: &str| line.strip_prefix("outhaul_models_memory_bytes ")?.parse().ok();
    let bytes: Option<f64> = metrics.lines().find_map(value);
    Ok(bytes.context("the server does not say what models take")? as u64)
}

/// What one load found.
struct Found {
    /// When the warm-up was over.
    started: Instant,
    samples: Samples,
    records: Vec<Record>,
}

impl Found {
    /// Latencies of answers that did, or did not, have to wait for a load.
    fn latencies(&self, cold: bool) -> Latencies {
        let measured = self.records.iter().filter(|record| record.intended >= self.started);
        let of_kind = measured
            .filter(|record| record.outcome.as_ref().is_ok_and(|good| good.load.is_some() == cold));
        Latencies::of(of_kind.map(|record| record.took))
    }

    fn errors(&self, title: &str) -> Row {
        let failures = failures(self.records.iter());
        for failure in failures.iter().take(5) {
            eprintln!("failed: {failure}");
        }
        let (hits, cold) = (self.latencies(false).count, self.latencies(true).count);
        let hit_share = hits as f64 / (hits + cold) as f64 * 100.0;
        let resident = self.samples.most_resident_mib;
        Row {
            what: title.to_owned(),
            reference: String::new(),
            outhaul: format!(
                "{} requests, {hit_share:.0} % hits, at most {resident:.0} MiB resident",
                self.records.len()
            ),
            worst_ms: None,
            result: format!("{} failed", failures.len()),
            goal: "0 failed".to_owned(),
            met: failures.is_empty(),
        }
    }

    fn budget(&self, limits: &Limits) -> anyhow::Result<Row> {
        let Samples { count, most_bytes, slowest, .. } = self.samples;
        ensure!(most_bytes > 0, "the server never said that models take memory");
        let most = most_bytes as f64 / limits.one as f64;
        let milliseconds = slowest.as_secs_f64() * 1000.0;
        Ok(Row {
            what: "what all models take together, flat out".to_owned(),
            reference: format!(
                "a model takes {:.0} KiB, budget {:.2} MiB",
                limits.one as f64 / 1024.0,
                limits.budget as f64 / f64::from(1 << 20)
            ),
            outhaul: format!("{count} looks at /metrics, the slowest took {milliseconds:.0} ms"),
            worst_ms: None,
            result: format!("at most {most:.2} models"),
            goal: format!("at most {}", limits.models + 1),
            met: most_bytes <= limits.budget + limits.one,
        })
    }

    fn hits(&self, load: &str, reference: &Found) -> Row {
        let (few, many) = (reference.latencies(false), self.latencies(false));
        let is_alike =
            |few: f64, many: f64| many <= (few * MOST_HIT_GROWTH).max(few + LEAST_HIT_GROWTH_MS);
        Row {
            what: format!("hits, {load}"),
            reference: format!("only these models: {few}"),
            outhaul: format!("{many}"),
            worst_ms: Some(many.max),
            result: format!("p50 {:.2}, p99 {:.2} of it", many.p50 / few.p50, many.p99 / few.p99),
            goal: format!("at most {MOST_HIT_GROWTH} or {LEAST_HIT_GROWTH_MS} ms more"),
            met: is_alike(few.p50, many.p50) && is_alike(few.p99, many.p99),
        }
    }

    fn cold(&self, load: &str, sessions: &Latencies) -> Row {
        let cold = self.latencies(true);
        let (p50, p99) = (cold.p50 - sessions.p50, cold.p99 - sessions.p99);
        Row {
            what: format!("answers that waited for a load, {load}"),
            reference: format!("session creation: {sessions}"),
            outhaul: format!("{cold}"),
            worst_ms: Some(cold.max),
            result: format!("p50 {p50:+.2}, p99 {p99:+.2} ms"),
            goal: format!("at most +{MOST_COLD_MORE_MS:.0} ms"),
            met: p50 <= MOST_COLD_MORE_MS && p99 <= MOST_COLD_MORE_MS,
        }
    }
}
