//! Roll-outs under load: does anybody notice, and how fast is the way back?
//!
//! Clients send as fast as they are answered. Meanwhile a roll-out is started, promoted and rolled back, again and
//! again. What counts: requests that failed, and the time from sending the roll-back to the last answer of the candidate.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::client::{Client, Crowd, Record, encode, failures, prediction, sample, wait_until};
use crate::process::{Process, Scratch};
use crate::table::{Row, median};

/// How long one command may take to show.
const LONGEST: Duration = Duration::from_secs(10);

/// What to roll out, and how often.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A folder with the model `iris` in versions 1 and 2.
    #[arg(long, default_value = "examples/rollout/models")]
    models: PathBuf,
    /// Roll-outs.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
}

/// Returns the rows: failures, and the time of a roll-back.
pub(crate) fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Row>> {
    let scratch = Scratch::folder("rollouts")?;
    let config = scratch.0.join("outhaul.toml");
    fs::write(&config, "[routes.iris]\ntargets = [{ to = \"iris@1\" }]\n")?;
    let state = scratch.0.join("state.db");
    let flags = ["--config", &config.to_string_lossy(), "--state", &state.to_string_lossy()];
    let mut server = Process::outhaul_with(&arguments.models, &flags.map(str::to_owned))?;
    server.until_ready(Duration::from_millis(5))?;
    let body = sample(&server.http, "iris", 1)?;
    let crowd = Crowd {
        address: &server.http,
        requests: &[prediction("iris", &body)],
        clients: arguments.clients,
        rate: None,
    };
    let work = || {
        let mut admin = Client::open(&server.http)?;
        (0..arguments.rounds).map(|_| round(&mut admin)).collect::<anyhow::Result<Vec<_>>>()
    };
    let (back, records) = crowd.during(|_| || 0, work)?;
    Ok(vec![failed(arguments, &records), way_back(arguments, &records, &back)])
}

/// Starts, promotes, rolls back. Returns when the roll-back was sent.
fn round(admin: &mut Client) -> anyhow::Result<Instant> {
    let start =
        r#"{"to": "iris@2", "steps": [50, 100], "every": "1h", "guards": ["error_rate<50%"]}"#;
    call(admin, "/v1/rollouts/iris", start)?;
    let begun = Instant::now();
    while !admin.get("/v1/rollouts/iris")?.contains(r#""phase":"stepping""#) {
        ensure!(begun.elapsed() < LONGEST, "the roll-out does not begin");
        wait_until(Instant::now() + Duration::from_millis(5));
    }
    wait_until(Instant::now() + Duration::from_millis(50));
    call(admin, "/v1/rollouts/iris/promote", "{}")?;
    wait_until(Instant::now() + Duration::from_millis(50));
    let sent = Instant::now();
    call(admin, "/v1/rollouts/iris/rollback", "{}")?;
    // Long enough to see whether a late answer of the candidate comes.
    wait_until(sent + Duration::from_millis(100));
    Ok(sent)
}

fn call(admin: &mut Client, path: &str, body: &str) -> anyhow::Result<()> {
    let (status, answer) = admin.send(&encode("POST", path, body))?;
    let answer = String::from_utf8_lossy(answer).into_owned();
    ensure!(status == 200, "{path}: status {status}: {answer}");
    Ok(())
}

fn failed(arguments: &Arguments, records: &[Vec<Record>]) -> Row {
    let sent: usize = records.iter().map(Vec::len).sum();
    let failed = failures(records.iter().flatten());
    Row {
        what: format!(
            "roll-outs: started, promoted and rolled back {} times, {} clients",
            arguments.rounds, arguments.clients
        ),
        reference: format!("{sent} requests"),
        outhaul: format!("{} failed", failed.len()),
        worst_ms: None,
        result: failed.first().cloned().unwrap_or_else(|| "none failed".to_owned()),
        goal: "0 failed".to_owned(),
        met: failed.is_empty(),
    }
}

/// The time from each roll-back to the last answer of the candidate before the next round begins.
fn way_back(arguments: &Arguments, records: &[Vec<Record>], back: &[Instant]) -> Row {
    let answers: Vec<(Instant, u64)> = records
        .iter()
        .flatten()
        .filter_map(|record| {
            Some((record.intended + record.took, record.outcome.as_ref().ok()?.version))
        })
        .collect();
    let took = |sent: &Instant| {
        let until = *sent + Duration::from_millis(100);
        let late = answers.iter().filter(|(at, version)| *version == 2 && at > sent && *at < until);
        late.map(|(at, _)| at.duration_since(*sent)).max().unwrap_or_default().as_secs_f64() * 1e3
    };
    let times: Vec<f64> = back.iter().map(took).collect();
    let worst = times.iter().copied().fold(0.0, f64::max);
    let candidate = answers.iter().filter(|(_, version)| *version == 2).count();
    Row {
        what: format!("roll-back: until the candidate's last answer, {} times", arguments.rounds),
        reference: format!("{candidate} of {} answers were the candidate's", answers.len()),
        outhaul: format!("median {:.1} ms, worst {worst:.1} ms", median(times.iter().copied())),
        worst_ms: Some(worst),
        result: format!("{worst:.1} ms"),
        goal: "< 1 s".to_owned(),
        met: worst < 1000.0 && candidate > 0,
    }
}
