//! A thousand small models at once: how long until all answer, and what does it cost to have them?

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::ceiling::Loaded;
use crate::client::{Client, wait_until};
use crate::process::{Process, Scratch};
use crate::table::{Row, median};

/// What starting may take beyond the sessions.
const MORE: Duration = Duration::from_secs(1);

/// How much of one core an idle server may take.
const MOST_IDLE: f64 = 0.01;

/// How often the server is asked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long the server is left alone before it counts as idle.
const SETTLING: Duration = Duration::from_secs(5);

/// What to load.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model's file, of which copies are loaded.
    #[arg(long, default_value = "examples/models/iris/1/model.onnx")]
    model: PathBuf,
    /// Models.
    #[arg(long, default_value_t = 1000)]
    models: usize,
    /// Starts; medians are reported.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Seconds of idleness looked at.
    #[arg(long, default_value_t = 20)]
    idle: u64,
    /// Fewer models, one turn, little idleness: to see whether it works.
    #[arg(long)]
    quick: bool,
}

/// Returns the rows: start-up, idleness.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let Arguments { models, turns, idle, .. } = *arguments;
    let (models, turns, idle) = match arguments.quick {
        true => (models / 10, 1, idle / 4),
        false => (models, turns, idle),
    };
    let names: Vec<String> = (0..models).map(|number| format!("model-{number:04}")).collect();
    let (repository, files) = Scratch::copies("startup", &arguments.model, &names)?;
    // The files are to be older than the server asks for: it is started on what was there before.
    wait_until(Instant::now() + Duration::from_millis(1500));
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get) as f64;
    let (mut sessions, mut starts, mut last) = (Vec::new(), Vec::new(), None);
    for _ in 0..turns {
        sessions.push(created(&files)?.as_secs_f64());
        drop(last.take());
        let mut server = Process::outhaul(&repository.0)?;
        starts.push(server.until_ready(LOOK_EVERY)?.as_secs_f64());
        let ready = Client::open(&server.http)?.index()?;
        let ready = ready.iter().filter(|version| version.standing == "ready").count();
        ensure!(ready == models, "{ready} of {models} models are ready");
        last = Some(server);
    }
    let server = last.context("no turns")?;
    let worst = starts.iter().copied().fold(0.0, f64::max);
    let allowed: Vec<f64> = sessions.iter().map(|sum| sum / cores + MORE.as_secs_f64()).collect();
    let over = median(starts.iter().zip(&allowed).map(|(start, allowed)| start - allowed));
    let (sum, start) = (median(sessions.into_iter()), median(starts.into_iter()));
    let start_up = Row {
        what: format!("{models} models, process start to all ready"),
        reference: format!("sum of session creations: {sum:.2} s, on {cores} cores"),
        outhaul: format!("{start:.2} s (worst {worst:.2} s)"),
        worst_ms: None,
        result: format!("{:.2} s more than sum / cores", over + MORE.as_secs_f64()),
        goal: format!("at most {} s more", MORE.as_secs()),
        met: over <= 0.0,
    };
    Ok(vec![start_up, idleness(&server, models, Duration::from_secs(idle))?])
}

/// Creates a session of each file, one after the other, and returns how long that took. They are kept
/// until the end, as the server keeps them.
fn created(files: &[PathBuf]) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    let mut kept = Vec::new();
    for file in files {
        let (session, took) = Loaded::open(file)?.create()?;
        kept.push(session);
        total += took;
    }
    Ok(total)
}

fn idleness(server: &Process, models: usize, idle: Duration) -> anyhow::Result<Row> {
    wait_until(Instant::now() + SETTLING);
    let (before, began) = (server.cpu_time()?, Instant::now());
    wait_until(began + idle);
    let share = (server.cpu_time()? - before).as_secs_f64() / began.elapsed().as_secs_f64();
    Ok(Row {
        what: format!("{models} models, idle for {} s", idle.as_secs()),
        reference: String::new(),
        outhaul: format!(
            "{:.0} MiB resident, {} threads",
            server.resident_mib()?,
            server.threads()?
        ),
        worst_ms: None,
        result: format!("{:.2} % of one core", share * 100.0),
        goal: format!("under {:.0} %", MOST_IDLE * 100.0),
        met: share < MOST_IDLE,
    })
}
