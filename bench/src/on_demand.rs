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

/// Sessions created in each turn to see how long that takes.
const SESSIONS: usize = 200;

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
    /// Seconds of each load, the paced one in turns with the server that has few models.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Turns; medians are reported.
    #[arg(long, default_value_t = 6)]
    turns: u32,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Requests a second of the paced load, of all clients together.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// The exponent of Zipf's law.
    #[arg(long, default_value_t = 1.0)]
    exponent: f64,
    /// A tenth of the time, in one turn: to see whether it works.
    #[arg(long)]
    quick: bool,
}

/// Returns the rows: errors and budget under each load, hits, cold answers.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let (time, turns) = match (Duration::from_secs(arguments.seconds), arguments.quick) {
        (time, true) => (time / 10, 1),
        (time, false) => (time, arguments.turns),
    };
    let (stage, few) = Stage::set(arguments)?;
    let limits = Limits::of(&stage, &few)?;
    let flags = ["--memory-budget".to_owned(), limits.budget.to_string()];
    let mut server = Process::outhaul_with(&stage.many.0.0, &flags)?;
    server.until_ready(Duration::from_millis(5))?;

    let (all, paced) = (stage.requests.len(), (Some(arguments.rate), Watch::Resident));
    let mut taken = Vec::new();
    for _ in 0..turns {
        let reference = stage.load(&few, stage.few, paced, time / turns)?;
        let subject = stage.load(&server, all, paced, time / turns)?;
        taken.push(Turn { reference, subject, sessions: Latencies::of(stage.sessions()?) });
    }
    let flat_out = [stage.load(&server, all, (None, Watch::Budget), time)?];
    eprintln!("flat out: hits {}", flat_out[0].hits());
    eprintln!("flat out: answers that waited for a load {}", flat_out[0].cold());

    let paced = format!("{:.0}/s", arguments.rate);
    let subjects = || taken.iter().map(|turn| &turn.subject);
    Ok(vec![
        errors(&stage.title(&paced), subjects()),
        errors(&stage.title("flat out"), flat_out.iter()),
        flat_out[0].budget(&limits)?,
        hits(&paced, &taken),
        cold(&paced, &taken),
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

impl Limits {
    /// Makes a budget for as many models as `server` holds in memory. What one takes is the middle,
    /// since the first may bring along what all share.
    fn of(stage: &Stage, server: &Process) -> anyhow::Result<Limits> {
        let (index, models) = (Client::open(&server.http)?.index()?, stage.few);
        let loaded = index.iter().filter(|version| version.standing == "ready").count();
        ensure!(loaded == models, "{loaded} of {models} models are in memory");
        let memory = index.iter().filter_map(|version| version.memory_bytes);
        let one = median(memory.map(|bytes| bytes as f64));
        ensure!(one >= 1.0, "the server does not say what models take");
        Ok(Limits { one: one as u64, budget: one as u64 * models as u64, models })
    }
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

/// The same load on both servers, and what the engine takes at that time.
struct Turn {
    reference: Found,
    subject: Found,
    sessions: Latencies,
}

/// What one load found.
struct Found {
    /// When the warm-up was over.
    started: Instant,
    samples: Samples,
    records: Vec<Record>,
}

impl Found {
    /// Latencies of answers that did not have to wait for a load.
    fn hits(&self) -> Latencies {
        self.latencies(false)
    }

    /// Latencies of answers that had to.
    fn cold(&self) -> Latencies {
        self.latencies(true)
    }

    fn latencies(&self, cold: bool) -> Latencies {
        let measured = self.records.iter().filter(|record| record.intended >= self.started);
        let of_kind = measured
            .filter(|record| record.outcome.as_ref().is_ok_and(|good| good.load.is_some() == cold));
        Latencies::of(of_kind.map(|record| record.took))
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
}

fn errors<'f>(title: &str, loads: impl Iterator<Item = &'f Found> + Clone) -> Row {
    let failures = failures(loads.clone().flat_map(|load| &load.records));
    for failure in failures.iter().take(5) {
        eprintln!("failed: {failure}");
    }
    let requests: usize = loads.clone().map(|load| load.records.len()).sum();
    let hits: usize = loads.clone().map(|load| load.hits().count).sum();
    let cold: usize = loads.clone().map(|load| load.cold().count).sum();
    let share = hits as f64 / (hits + cold) as f64 * 100.0;
    let resident = loads.map(|load| load.samples.most_resident_mib).fold(0.0, f64::max);
    Row {
        what: title.to_owned(),
        reference: String::new(),
        outhaul: format!(
            "{requests} requests, {share:.0} % hits, at most {resident:.0} MiB resident"
        ),
        worst_ms: None,
        result: format!("{} failed", failures.len()),
        goal: "0 failed".to_owned(),
        met: failures.is_empty(),
    }
}

/// Compares within each turn, so that a slow minute of the machine counts on both sides.
fn hits(load: &str, turns: &[Turn]) -> Row {
    let pairs: Vec<_> =
        turns.iter().map(|turn| (turn.reference.hits(), turn.subject.hits())).collect();
    let (few, many) = middles(&pairs);
    let ratio =
        |of: fn(&Latencies) -> f64| median(pairs.iter().map(|(few, many)| of(many) / of(few)));
    let more =
        |of: fn(&Latencies) -> f64| median(pairs.iter().map(|(few, many)| of(many) - of(few)));
    let is_alike =
        |of: fn(&Latencies) -> f64| ratio(of) <= MOST_HIT_GROWTH || more(of) <= LEAST_HIT_GROWTH_MS;
    Row {
        what: format!("hits, {load}"),
        reference: format!("only these models: {few}"),
        outhaul: many.to_string(),
        worst_ms: Some(many.max),
        result: format!("p50 {:.2}, p99 {:.2} of it", ratio(|l| l.p50), ratio(|l| l.p99)),
        goal: format!("at most {MOST_HIT_GROWTH} or {LEAST_HIT_GROWTH_MS} ms more"),
        met: is_alike(|l| l.p50) && is_alike(|l| l.p99),
    }
}

fn cold(load: &str, turns: &[Turn]) -> Row {
    let pairs: Vec<_> = turns.iter().map(|turn| (turn.sessions, turn.subject.cold())).collect();
    let (sessions, cold) = middles(&pairs);
    let more =
        |of: fn(&Latencies) -> f64| median(pairs.iter().map(|(one, cold)| of(cold) - of(one)));
    let (p50, p99) = (more(|l| l.p50), more(|l| l.p99));
    Row {
        what: format!("answers that waited for a load, {load}"),
        reference: format!("session creation: {sessions}"),
        outhaul: cold.to_string(),
        worst_ms: Some(cold.max),
        result: format!("p50 {p50:+.2}, p99 {p99:+.2} ms"),
        goal: format!("at most +{MOST_COLD_MORE_MS:.0} ms"),
        met: p50 <= MOST_COLD_MORE_MS && p99 <= MOST_COLD_MORE_MS,
    }
}

/// The medians of both sides over the turns, and prints each turn.
fn middles(pairs: &[(Latencies, Latencies)]) -> (Latencies, Latencies) {
    for (reference, subject) in pairs {
        eprintln!("{reference} / {subject}");
    }
    let left = Latencies::middle(pairs.iter().map(|pair| pair.0));
    (left, Latencies::middle(pairs.iter().map(|pair| pair.1)))
}
