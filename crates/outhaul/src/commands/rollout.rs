//! `outhaul rollout`: a new version step by step, watched, promoted or rolled back by itself.
//!
//! All of it is asked of the server's admin API (`/v1/rollouts`); the server decides and goes on when this
//! command has ended.

mod picture;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use hyper::Method;
use outhaul::types::ModelName;
use outhaul_rollout::guard::Guard;
use outhaul_rollout::world::RolloutSpec;
use serde_json::{Value, json};

use super::remote_server::{Ask, Form, Server, columns};
use super::route::{destination, model_name, read_declaration, tell};
use super::write_json;

/// How often `status --watch` asks.
const WATCH: Duration = Duration::from_millis(500);

/// Rolls out a new version step by step, and back.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul rollout start reviews --to 3
  outhaul rollout start reviews --to 3 --steps 1,10,50,100 --every 10m \\
      --guard 'error_rate<1%' --guard 'p99<50ms' --guard 'p99<1.2x' --guard 'disagreement<5%'
  outhaul rollout status reviews --watch
  outhaul rollout rollback reviews                       back to the old version, at once
  outhaul rollout journal reviews                        what was changed, when and why")]
pub(super) struct Rollout {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Start(Start),
    Status(Status),
    /// Gives the candidate the last step's share now and ends the roll-out
    Promote(OfRoute),
    /// Stays at the present step until resumed; guards go on being judged
    Pause(OfRoute),
    /// Goes on after a pause
    Resume(OfRoute),
    /// Ends a roll-out that has not taken over; all requests go where they went before
    Abort(OfRoute),
    /// Sends all requests where they went before, also after the candidate has taken over
    Rollback(OfRoute),
    Journal(Journal),
}

/// Starts a roll-out.
///
/// The candidate is loaded and warmed up first; no request reaches it before. It then gets the shares
/// in turn. A step is left for the next when its time is over and every guard is proven to hold on the
/// requests of that step; with too few requests it stays. A guard that is broken sends all requests back
/// at once. The command returns when the roll-out has begun.
#[derive(Debug, Parser)]
#[command(after_help = "Guards:
  error_rate<1%      at most this share of requests fails
  error_rate<1.5x    at most so many times as often as of the other variant
  p99<50ms           a quantile of the latency
  p99<1.2x           a quantile over that of the other variant
  disagreement<5%    at most this share of answers differs from the other variant's

Examples:
  outhaul rollout start reviews --to 3
  outhaul rollout start reviews --to 3 --from 2 --steps 5,25,100 --every 1m --guard 'error_rate<1%'
  outhaul rollout start reviews --file rollout.toml")]
struct Start {
    /// The route, or the model where there is no route yet
    #[arg(value_name = "NAME", value_parser = model_name)]
    route: ModelName,

    /// The candidate: a version of the model, or a destination such as reviews-small@2
    #[arg(long, value_name = "VERSION", required_unless_present = "file")]
    to: Option<String>,

    /// What it replaces [default: where the route leads now]
    #[arg(long, value_name = "VERSION")]
    from: Option<String>,

    /// The candidate's shares in percent [default: 1,10,50,100]
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    steps: Vec<f64>,

    /// How long each step lasts at least [default: 10m]
    #[arg(long, value_name = "TIME")]
    every: Option<humantime::Duration>,

    /// What must hold; may be given several times [default: error_rate<1% and p99<1.2x]
    #[arg(long = "guard", value_name = "GUARD")]
    guards: Vec<Guard>,

    /// The probability that a candidate which keeps all guards is rolled back [default: 0.01]
    #[arg(long, value_name = "PROBABILITY")]
    false_alarm: Option<f64>,

    /// The share of the other variant's requests that is copied to the candidate to compare answers,
    /// with a guard on disagreement [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    mirror: Option<f64>,

    /// The roll-out as TOML or JSON: to, from, steps, every, guards, false_alarm, mirror
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "from", "steps", "every", "guards"])]
    file: Option<PathBuf>,

    #[command(flatten)]
    ask: Ask,
}

/// Shows the roll-outs: the step, its share, and how each guard stands.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul rollout status
  outhaul rollout status reviews --watch
  outhaul rollout status reviews --output json | jq .guards")]
struct Status {
    /// One route's only
    #[arg(value_name = "NAME", value_parser = model_name)]
    route: Option<ModelName>,

    /// Shows it anew until the roll-out has ended; fails where it was rolled back
    #[arg(long, requires = "route")]
    watch: bool,

    #[command(flatten)]
    ask: Ask,
}

/// A route and the server that has it.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul rollout pause reviews
  outhaul rollout rollback reviews
  outhaul rollout rollback reviews --url http://10.0.0.5:8080")]
struct OfRoute {
    /// The route
    #[arg(value_name = "NAME", value_parser = model_name)]
    route: ModelName,

    #[command(flatten)]
    ask: Ask,
}

/// Lists what was changed of the routes, newest last, with the reason.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul rollout journal
  outhaul rollout journal reviews --last 100 --output json")]
struct Journal {
    /// One route's only
    #[arg(value_name = "NAME", value_parser = model_name)]
    route: Option<ModelName>,

    /// How many entries
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    last: usize,

    #[command(flatten)]
    ask: Ask,
}

impl Rollout {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match &self.action {
                Action::Start(start) => start.run(out).await,
                Action::Status(status) => status.run(out).await,
                Action::Promote(of) => of.command("promote", out).await,
                Action::Pause(of) => of.command("pause", out).await,
                Action::Resume(of) => of.command("resume", out).await,
                Action::Abort(of) => of.command("abort", out).await,
                Action::Rollback(of) => of.command("rollback", out).await,
                Action::Journal(journal) => journal.run(out).await,
            }
        })
    }
}

impl Start {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let spec = serde_json::to_value(self.spec()?)?;
        let path = format!("/v1/rollouts/{}", self.route);
        let started = Server::new(&self.ask.url)?.json(Method::POST, &path, Some(&spec)).await?;
        tell(out, &self.ask, &started)
    }

    fn spec(&self) -> Result<RolloutSpec> {
        if let Some(file) = &self.file {
            return read_declaration(file);
        }
        let to = self.to.as_deref().context("--to names the candidate")?;
        let mut spec = json!({ "to": destination(&self.route, to)? });
        if let Some(from) = &self.from {
            spec["from"] = json!(destination(&self.route, from)?);
        }
        if !self.steps.is_empty() {
            spec["steps"] = json!(self.steps);
        }
        if let Some(every) = &self.every {
            spec["every"] = json!(every.to_string());
        }
        if !self.guards.is_empty() {
            spec["guards"] = json!(self.guards);
        }
        if let Some(false_alarm) = self.false_alarm {
            spec["false_alarm"] = json!(false_alarm);
        }
        if let Some(mirror) = self.mirror {
            spec["mirror"] = json!(mirror);
        }
        Ok(serde_json::from_value(spec)?)
    }
}

impl Status {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let server = Server::new(&self.ask.url)?;
        let path = match &self.route {
            Some(route) => format!("/v1/rollouts/{route}"),
            None => "/v1/rollouts".to_owned(),
        };
        loop {
            let status = server.json(Method::GET, &path, None).await?;
            let ended = status["ended_at"].is_number();
            match self.ask.output {
                Form::Json => write_json(out, &status)?,
                Form::Table => {
                    let text = match status["rollouts"].as_array() {
                        None => picture::picture(&status),
                        Some(all) if all.is_empty() => "no roll-outs\n".to_owned(),
                        Some(all) => {
                            all.iter().map(picture::picture).collect::<Vec<_>>().join("\n")
                        }
                    };
                    if self.watch && std::io::stdout().is_terminal() {
                        // Home, and what is below it gone: the picture stays in its place.
                        write!(out, "\x1b[H\x1b[J")?;
                    }
                    out.write_all(text.as_bytes())?;
                }
            }
            out.flush()?;
            if !self.watch || ended {
                return match status["phase"].as_str() {
                    Some("rolled_back" | "aborted") if self.watch => bail!(
                        "the roll-out was not completed: {}",
                        status["reason"].as_str().unwrap_or_default()
                    ),
                    _ => Ok(()),
                };
            }
            tokio::time::sleep(WATCH).await;
        }
    }
}

impl OfRoute {
    async fn command(&self, action: &str, out: &mut impl Write) -> Result<()> {
        let path = format!("/v1/rollouts/{}/{action}", self.route);
        let server = Server::new(&self.ask.url)?;
        let done = server.json(Method::POST, &path, Some(&json!({}))).await?;
        tell(out, &self.ask, &done)
    }
}

impl Journal {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let mut path = format!("/v1/journal?limit={}", self.last);
        if let Some(route) = &self.route {
            path.push_str(&format!("&route={route}"));
        }
        let journal = Server::new(&self.ask.url)?.json(Method::GET, &path, None).await?;
        if self.ask.output == Form::Json {
            return write_json(out, &journal);
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = |entry: &Value| {
            let at = entry["at"].as_i64().map(picture::time).unwrap_or_default();
            let what = text(&entry["what"]).replace('_', " ");
            vec![at, text(&entry["route"]), what, text(&entry["by"]), text(&entry["text"])]
        };
        // The server tells the newest first; people read downwards.
        let entries = journal["entries"].as_array().into_iter().flatten().rev();
        let rows: Vec<_> = entries.map(row).collect();
        match rows.is_empty() {
            true => writeln!(out, "nothing was changed yet")?,
            false => out.write_all(columns(&rows).as_bytes())?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_a_version_or_a_destination() {
        let reviews = ModelName::new("reviews").unwrap();
        for (text, expected) in [
            ("3", "reviews@3"),
            ("reviews@stable", "reviews@stable"),
            ("reviews-small", "reviews-small"),
            ("http://a/v2/models/b", "http://a/v2/models/b"),
        ] {
            assert_eq!(destination(&reviews, text).unwrap().to_string(), expected);
        }
        assert!(destination(&reviews, "a b").is_err());
    }

    #[test]
    fn flags_and_files_say_the_same() {
        let parse = |arguments: &[&str]| {
            let all = ["start", "reviews"].iter().chain(arguments);
            Start::try_parse_from(all).map_err(|error| error.to_string())
        };
        let flags =
            parse(&["--to", "3", "--steps", "5,100", "--every", "1m", "--guard", "p99<50ms"]);
        let flags = flags.unwrap().spec().unwrap();
        assert_eq!(flags.steps, [5.0, 100.0]);
        assert_eq!(flags.every, Duration::from_secs(60));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rollout.toml");
        let text = "to = 'reviews@3'\nsteps = [5, 100]\nevery = '1m'\nguards = ['p99<50ms']\n";
        std::fs::write(&file, text).unwrap();
        let read = parse(&["--file", file.to_str().unwrap()]).unwrap().spec().unwrap();
        assert_eq!(read, flags);
        assert!(parse(&[]).is_err(), "the candidate must be named");
        assert!(parse(&["--to", "3", "--guard", "latency<1"]).unwrap_err().contains("is no guard"));
    }
}
