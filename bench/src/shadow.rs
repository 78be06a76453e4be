//! Shadowing under load: what do callers notice of it, while a core is free and while none is?
//!
//! Two servers hold the same two versions behind the same route; one of them sends a copy of every request to the
//! second version. They are asked in turns, so that a slow minute of the machine counts on both sides, and neither
//! does anything while the other is measured.
//!
//! One client leaves a core free on a machine of two: it waits while the server computes. As many clients as take all
//! cores leave none, and then the copies have to go.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use outhaul::load::{HttpRequest, HttpTarget, LoadPlan, Pace, Report, Target, run};

use crate::client::{Client, sample};
use crate::measure::worst_ms;
use crate::process::{Process, Scratch};
use crate::table::{Row, median};

/// What a p99 may become.
const MOST_P99_GROWTH: f64 = 1.05;

/// The share of copies that have to go where no core is free.
const LEAST_SHED: f64 = 0.95;

/// The model's name, and the route's.
const MODEL: &str = "shadowed";

/// What to shadow, and under what load.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model's file, of both versions.
    #[arg(long, default_value = "examples/models/iris/1/model.onnx")]
    model: PathBuf,
    /// The size of dimensions that the model leaves open, but for the first, which is 1.
    #[arg(long, default_value_t = 32)]
    length: usize,
    /// Clients that leave no core free.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Seconds of one turn.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Turns of each measurement; medians are reported.
    #[arg(long, default_value_t = 9)]
    turns: usize,
}

/// Returns the rows: with a core free, and with none.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let repository = repository(&arguments.model)?;
    let plain = Server::start(&repository, "plain", "")?;
    let mirrored = format!("[routes.{MODEL}.shadow]\nto = \"{MODEL}@2\"\nshare = 1.0\n");
    let shadowed = Server::start(&repository, "mirrored", &mirrored)?;
    let body = sample(&plain.process.http, MODEL, arguments.length)?;
    let cores = std::thread::available_parallelism()?;
    let mut rows = Vec::new();
    for (clients, threads) in [(1, NonZeroUsize::MIN), (arguments.clients, cores)] {
        let load = Load {
            clients: NonZeroUsize::new(clients).context("no clients")?,
            threads: threads.min(NonZeroUsize::new(clients).context("no clients")?),
            duration: Duration::from_secs_f64(arguments.seconds),
            body: &body,
        };
        let turns = (0..arguments.turns).map(|turn| Turn::take(turn, &load, &plain, &shadowed));
        let turns: Vec<Turn> = turns.collect::<anyhow::Result<_>>()?;
        rows.push(row(clients, &turns));
    }
    Ok(rows)
}

/// Makes a repository that holds the model in two versions.
fn repository(model: &Path) -> anyhow::Result<Scratch> {
    let folder = Scratch::folder("shadow")?;
    for version in ["1", "2"] {
        let version = folder.0.join("models").join(MODEL).join(version);
        fs::create_dir_all(&version)?;
        let copied = fs::copy(model, version.join("model.onnx"));
        copied.with_context(|| format!("cannot copy {}", model.display()))?;
    }
    fs::write(folder.0.join("models").join(MODEL).join("model.toml"), "versions = \"all\"\n")?;
    Ok(folder)
}

/// A server whose route leads to version 1.
struct Server {
    process: Process,
}

impl Server {
    fn start(repository: &Scratch, name: &str, shadow: &str) -> anyhow::Result<Server> {
        let file = repository.0.join(format!("{name}.toml"));
        let route = format!("[[routes.{MODEL}.targets]]\nto = \"{MODEL}@1\"\n\n{shadow}");
        fs::write(&file, route)?;
        let flags = ["--config".to_owned(), file.display().to_string()];
        let mut process = Process::outhaul_with(&repository.0.join("models"), &flags)?;
        process.until_ready(Duration::from_millis(5))?;
        Ok(Server { process })
    }

    /// Returns what became of the copies so far: compared, disagreed, failed, shed.
    fn copies(&self) -> anyhow::Result<[f64; 4]> {
        let metrics = Client::open(&self.process.http)?.get("/metrics")?;
        let count = |outcome: &str| {
            let outcome = format!("outcome=\"{outcome}\"}} ");
            let mut lines =
                metrics.lines().filter(|line| line.starts_with("outhaul_shadow_requests_total{"));
            let line = lines.find_map(|line| Some(line.split_once(&outcome)?.1));
            Ok(line.context("/metrics tells nothing of copies")?.trim().parse()?)
        };
        let counts: Vec<f64> = ["compared", "disagreed", "failed", "shed"]
            .into_iter()
            .map(count)
            .collect::<anyhow::Result<_>>()?;
        Ok([counts[0], counts[1], counts[2], counts[3]])
    }
}

/// How hard to press.
struct Load<'a> {
    clients: NonZeroUsize,
    threads: NonZeroUsize,
    duration: Duration,
    body: &'a str,
}

impl Load<'_> {
    fn press(&self, server: &Server) -> anyhow::Result<Report> {
        let path = format!("/v2/models/{MODEL}/infer");
        let requests = vec![HttpRequest::post_json(path, self.body.to_owned())];
        let target = HttpTarget { address: server.process.http.clone(), requests };
        let report = run(&LoadPlan {
            target: Target::Http(target),
            pace: Pace::Closed,
            connections: self.clients,
            threads: self.threads,
            warm_up: self.duration / 4,
            duration: self.duration,
        })?;
        ensure!(report.failed() == 0, "requests failed: {:?}", report.errors);
        Ok(report)
    }
}

/// The two servers, one after the other.
struct Turn {
    without: Report,
    with: Report,
    /// What became of the copies, the warm-up's included.
    copies: [f64; 4],
}

impl Turn {
    /// Measures; every other turn begins with the other server.
    fn take(turn: usize, load: &Load, plain: &Server, shadowed: &Server) -> anyhow::Result<Turn> {
        let before = shadowed.copies()?;
        let (without, with) = match turn % 2 {
            0 => {
                let without = load.press(plain)?;
                (without, load.press(shadowed)?)
            }
            _ => {
                let with = load.press(shadowed)?;
                (load.press(plain)?, with)
            }
        };
        let after = shadowed.copies()?;
        let copies = std::array::from_fn(|index| after[index] - before[index]);
        let [_, disagreed, failed, _] = copies;
        ensure!(disagreed + failed == 0.0, "equal models: {disagreed} disagree, {failed} fail");
        Ok(Turn { without, with, copies })
    }

    fn shed(&self) -> f64 {
        let [compared, _, _, shed] = self.copies;
        shed / (compared + shed)
    }
}

fn row(clients: usize, turns: &[Turn]) -> Row {
    let middle = |of: fn(&Turn) -> f64| median(turns.iter().map(of));
    let p99 = middle(|turn| turn.with.latency_us.p99 / turn.without.latency_us.p99);
    let p50 = middle(|turn| turn.with.latency_us.p50 / turn.without.latency_us.p50);
    let shed = middle(Turn::shed);
    let is_free = clients == 1;
    let goal = match is_free {
        true => format!("p99 at most {MOST_P99_GROWTH}"),
        false => format!("p99 at most {MOST_P99_GROWTH}, at least {LEAST_SHED} shed"),
    };
    Row {
        what: format!("every request shadowed, {clients} client(s), medians of the turns"),
        reference: format!(
            "no shadow: p50 {:.0}, p99 {:.0} us, {:.0}/s",
            middle(|turn| turn.without.latency_us.p50),
            middle(|turn| turn.without.latency_us.p99),
            middle(|turn| turn.without.answers_per_second),
        ),
        outhaul: format!(
            "p50 {:.0}, p99 {:.0} us, {:.0}/s; {:.1}% of the copies compared, {:.1}% shed",
            middle(|turn| turn.with.latency_us.p50),
            middle(|turn| turn.with.latency_us.p99),
            middle(|turn| turn.with.answers_per_second),
            100.0 * (1.0 - shed),
            100.0 * shed,
        ),
        worst_ms: Some(worst_ms(turns.iter().map(|turn| turn.with.latency_us.max))),
        result: format!("p99 {p99:.3} of it, p50 {p50:.3}"),
        goal,
        met: p99 <= MOST_P99_GROWTH && (is_free || shed >= LEAST_SHED),
    }
}
