//! Swaps under load: does anybody notice that a version is replaced?
//!
//! A version is put in place as a careful publisher does it: a finished folder is renamed into the
//! model's own. The version before the last is taken away. Folders go round, since a file that was
//! renamed counts as whole at once and its copying would disturb the measurement.
//!
//! The load is constant and far from what the server can do: at saturation a latency says how many
//! clients there are.

use std::fs;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use outhaul::load::{HttpRequest, HttpTarget, LoadPlan, Pace, Target, run};

use crate::client::{Client, Crowd, Record, failures, prediction, sample, wait_until};
use crate::process::{Process, Scratch};
use crate::table::{Latencies, Row, median};

/// What the clients' worst latencies may become.
const MOST_P99_GROWTH: f64 = 1.5;

/// How long after a version was put in place a request counts as near to that.
const NEAR: Duration = Duration::from_millis(100);

/// How long the files are left alone before the server starts: longer than it asks for.
const SETTLING: Duration = Duration::from_millis(1500);

/// How long the last version may take to be seen.
const LAST_SWAP: Duration = Duration::from_secs(20);

/// What to swap, and under what load.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model's file.
    #[arg(long, default_value = "examples/models/iris/1/model.onnx")]
    model: PathBuf,
    /// The size of dimensions that the model leaves open, but for the first, which is 1.
    #[arg(long, default_value_t = 32)]
    length: usize,
    /// Swaps.
    #[arg(long, default_value_t = 200)]
    swaps: u64,
    /// Milliseconds from one swap to the next.
    #[arg(long, default_value_t = 500)]
    every: u64,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Requests a second, of all clients together.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Turns, each of them a time without and then a share of the swaps.
    #[arg(long, default_value_t = 5)]
    turns: u64,
    /// Seconds of load without swaps in each turn.
    #[arg(long, default_value_t = 15)]
    before: u64,
    /// One turn: to see whether it works.
    #[arg(long)]
    quick: bool,
}

/// Returns the rows: failures, order, latencies.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let share = arguments.swaps.div_ceil(arguments.turns);
    let turns = if arguments.quick { 1 } else { arguments.turns };
    let swaps = share * turns;
    let before = Duration::from_secs(arguments.before);
    let every = Duration::from_millis(arguments.every);
    let publisher = Publisher::prepare(&arguments.model)?;
    wait_until(Instant::now() + SETTLING);
    let mut server = Process::outhaul(&publisher.models())?;
    server.until_ready(Duration::from_millis(5))?;
    let body = sample(&server.http, MODEL, arguments.length)?;
    let saturated = saturated(&server, &body, arguments.clients)?;
    let crowd = Crowd {
        address: &server.http,
        requests: &[prediction(MODEL, &body)],
        clients: arguments.clients,
        rate: Some(arguments.rate),
    };
    let always_first = |_| || 0;
    let work = || {
        wait_until(Instant::now() + WARM_UP);
        let resident = server.resident_mib()?;
        let mut taken = Vec::new();
        for turn in 0..turns {
            let started = Instant::now();
            wait_until(started + before);
            let first = 2 + turn * share;
            let swapped = publisher.swap(first..first + share, every)?;
            taken.push(Turn { started, swapped, ended: Instant::now() });
        }
        publisher.until_ready(&server, swaps + 1)?;
        Ok((taken, (resident, server.resident_mib()?)))
    };
    let ((turns, resident), records) = crowd.during(always_first, work)?;
    let found = Found { turns, records };
    let load = format!(
        "{swaps} swaps, one each {} ms, {} clients, {:.0}/s of {saturated:.0}/s",
        arguments.every, arguments.clients, arguments.rate
    );
    Ok(vec![found.failures(&load), found.order(swaps, resident), found.latencies()])
}

/// The model's name.
const MODEL: &str = "swapped";

/// Time for the first requests, which find nothing warm.
const WARM_UP: Duration = Duration::from_secs(2);

/// Puts versions in place and takes them away.
struct Publisher(Scratch);

impl Publisher {
    /// Makes a repository that holds version 1, and folders for the versions to come.
    fn prepare(model: &Path) -> anyhow::Result<Publisher> {
        let publisher = Publisher(Scratch::folder("swaps")?);
        fs::create_dir_all(publisher.models().join(MODEL))?;
        for folder in [publisher.version(1), publisher.waiting(2), publisher.waiting(3)] {
            fs::create_dir_all(&folder)?;
            let copied = fs::copy(model, folder.join("model.onnx"));
            copied.with_context(|| format!("cannot copy {}", model.display()))?;
        }
        Ok(publisher)
    }

    fn models(&self) -> PathBuf {
        self.0.0.join("models")
    }

    fn version(&self, version: u64) -> PathBuf {
        self.models().join(MODEL).join(version.to_string())
    }

    /// Where the folder of a version to come waits: three go round.
    fn waiting(&self, version: u64) -> PathBuf {
        self.0.0.join(format!("waiting-{}", version % 3))
    }

    /// Puts versions in place one after the other, and returns when each was.
    fn swap(&self, versions: Range<u64>, every: Duration) -> anyhow::Result<Vec<(u64, Instant)>> {
        let mut due = Instant::now();
        let mut swapped = Vec::new();
        for version in versions {
            wait_until(due);
            due += every;
            swapped.push((version, Instant::now()));
            fs::rename(self.waiting(version), self.version(version))?;
            if version > 2 {
                fs::rename(self.version(version - 2), self.waiting(version - 2))?;
            }
        }
        wait_until(due);
        Ok(swapped)
    }

    /// Waits until a version answers.
    fn until_ready(&self, server: &Process, last: u64) -> anyhow::Result<()> {
        let mut client = Client::open(&server.http)?;
        let path = format!("/v2/models/{MODEL}/versions/{last}/ready");
        let start = Instant::now();
        while client.get(&path).is_err() {
            ensure!(start.elapsed() < LAST_SWAP, "version {last} is not ready in {LAST_SWAP:?}");
            wait_until(Instant::now() + Duration::from_millis(50));
        }
        Ok(())
    }
}

/// What the server answers when each client sends as fast as it is answered.
fn saturated(server: &Process, body: &str, clients: usize) -> anyhow::Result<f64> {
    let request = HttpRequest::post_json(format!("/v2/models/{MODEL}/infer"), body.to_owned());
    let target = HttpTarget { address: server.http.clone(), requests: vec![request] };
    let plan = LoadPlan {
        target: Target::Http(target),
        pace: Pace::Closed,
        connections: NonZeroUsize::new(clients).context("no clients")?,
        threads: NonZeroUsize::MIN,
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(3),
    };
    let report = run(&plan)?;
    ensure!(report.failed() == 0, "requests failed before any swap: {:?}", report.errors);
    Ok(report.answers_per_second)
}

/// A time without swaps and a time with them.
struct Turn {
    started: Instant,
    /// Versions, and when each was put in place.
    swapped: Vec<(u64, Instant)>,
    ended: Instant,
}

impl Turn {
    fn first_swap(&self) -> Instant {
        self.swapped.first().map_or(self.ended, |first| first.1)
    }
}

/// What was seen.
struct Found {
    turns: Vec<Turn>,
    /// Of each client.
    records: Vec<Vec<Record>>,
}

impl Found {
    fn all(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().flatten()
    }

    fn failures(&self, load: &str) -> Row {
        let failures = failures(self.all());
        for failure in failures.iter().take(5) {
            eprintln!("failed: {failure}");
        }
        Row {
            what: load.to_owned(),
            reference: String::new(),
            outhaul: format!("{} requests", self.all().count()),
            worst_ms: None,
            result: format!("{} failed", failures.len()),
            goal: "0 failed".to_owned(),
            met: failures.is_empty(),
        }
    }

    /// Whether each client saw versions only go up, how many of them were seen, and how soon.
    fn order(&self, swaps: u64, (before, after): (f64, f64)) -> Row {
        let versions = |records: &[Record]| -> Vec<u64> {
            records
                .iter()
                .filter_map(|record| Some(record.outcome.as_ref().ok()?.version))
                .collect()
        };
        let backward: usize = self
            .records
            .iter()
            .map(|records| versions(records).windows(2).filter(|pair| pair[0] > pair[1]).count())
            .sum();
        let mut delays = Vec::new();
        for (version, placed) in self.turns.iter().flat_map(|turn| &turn.swapped) {
            let of_version = self.all().filter(|record| {
                record.outcome.as_ref().is_ok_and(|good| good.version == *version)
            });
            let first = of_version.map(|record| record.intended + record.took).min();
            delays.extend(first.map(|first| (first - *placed).as_secs_f64() * 1000.0));
        }
        let (seen, worst) = (delays.len(), delays.iter().copied().fold(0.0, f64::max));
        let middle = median(delays.into_iter());
        Row {
            what: "order of the versions that answered".to_owned(),
            reference: format!("{swaps} new versions; {before:.0} MiB resident"),
            outhaul: format!(
                "{seen} seen, first answer {middle:.0} ms after the rename (worst {worst:.0}); \
                 {after:.0} MiB resident"
            ),
            worst_ms: None,
            result: format!("{backward} times backwards"),
            goal: "0, and all seen".to_owned(),
            met: backward == 0 && seen as u64 == swaps,
        }
    }

    fn latencies(&self) -> Row {
        // Paired within a turn, so that a slow minute of the machine counts on both sides.
        let of_turn = |turn: &Turn| {
            let first = turn.first_swap();
            (self.within(turn.started, first), self.within(first, turn.ended))
        };
        let turns: Vec<_> = self.turns.iter().map(of_turn).collect();
        let near = self.near_swaps();
        for (before, during) in &turns {
            eprintln!("before: {} / during: {}", before.took, during.took);
            eprintln!("  of which the clients: {} / {}", before.sent, during.sent);
        }
        let ratio = median(turns.iter().map(|(before, during)| during.took.p99 / before.took.p99));
        let before = Latencies::middle(turns.iter().map(|turn| turn.0.took));
        let during = Latencies::middle(turns.iter().map(|turn| turn.1.took));
        Row {
            what: "latency before and during the swaps, medians of the turns".to_owned(),
            reference: format!("before: {before}"),
            outhaul: format!(
                "during: {during}; p99 {:.2} ms within {} ms of a rename",
                near.p99,
                NEAR.as_millis()
            ),
            worst_ms: Some(during.max),
            result: format!("p99 {ratio:.2} of it"),
            goal: format!("p99 at most {MOST_P99_GROWTH}"),
            met: ratio <= MOST_P99_GROWTH,
        }
    }

    /// Latencies of what was asked shortly after a version was put in place: while it was found,
    /// loaded and put in service.
    fn near_swaps(&self) -> Latencies {
        let swaps = self.turns.iter().flat_map(|turn| &turn.swapped);
        let placed: Vec<Instant> = swaps.map(|(_, placed)| *placed).collect();
        let is_near = |record: &&Record| {
            let last = placed.partition_point(|placed| *placed <= record.intended).checked_sub(1);
            last.is_some_and(|last| record.intended - placed[last] < NEAR)
        };
        let near = self.all().filter(is_near).filter(|record| record.outcome.is_ok());
        Latencies::of(near.map(|record| record.took))
    }

    /// What was seen between two instants.
    fn within(&self, from: Instant, to: Instant) -> Seen {
        let within = |record: &&Record| (from..to).contains(&record.intended);
        let answered = |record: &&Record| record.outcome.is_ok();
        let records: Vec<&Record> = self.all().filter(within).filter(answered).collect();
        Seen {
            took: Latencies::of(records.iter().map(|record| record.took)),
            sent: Latencies::of(records.iter().map(|record| record.sent)),
        }
    }
}

/// What was seen in some time.
struct Seen {
    took: Latencies,
    /// How late the clients themselves were.
    sent: Latencies,
}
