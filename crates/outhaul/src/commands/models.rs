//! `outhaul models`: which models a running server has, and having them loaded and unloaded.
//!
//! All of it is asked of the server, over the Open Inference Protocol's repository extension. Nothing
//! is decided here.

mod client;
mod list;
mod progress;

use std::io::Write;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use outhaul::types::ModelName;
use serde::Serialize;

use self::client::{Client, Entry, Reply};
use self::list::{Standing, table};
use super::remote_server::{Ask, Form};
use super::{size_text, write_json};

/// Lists, loads and unloads the models of a running server.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul models list                           every version, how it stands, and its last error
  outhaul models load iris                      load it, or look for newer versions of it
  outhaul models unload iris --url http://10.0.0.5:8080")]
pub(super) struct Models {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(List),
    Load(Load),
    Unload(Unload),
}

/// Lists every version that the server knows: how it stands, its labels, engine, memory and last
/// error.
#[derive(Debug, Parser)]
#[command(after_help = "States:
  ready     it answers
  loading   it is on its way
  dormant   the first request for it loads it
  failed    it could not be loaded; the last error says why
  unloaded  it was unloaded, or nobody has asked for it

Examples:
  outhaul models list
  outhaul models list --state failed
  outhaul models list --output json | jq '.[] | select(.memory_bytes > 1e9) | .name'")]
struct List {
    /// Only versions that stand so; several are separated by commas
    #[arg(long, value_name = "STATE", value_enum, value_delimiter = ',')]
    state: Vec<Standing>,

    #[command(flatten)]
    ask: Ask,
}

/// Has a model loaded, and waits until it answers.
///
/// The server looks for versions that are new, and loads those that the model's version policy
/// chooses. What is loaded by command stays so when the server is started again. Ctrl-C ends the
/// waiting, not the load.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul models load iris
  outhaul models load iris --version 3
  OUTHAUL_URL=http://10.0.0.5:8080 outhaul models load iris")]
struct Load {
    /// The model
    #[arg(value_name = "NAME", value_parser = model_name)]
    model: ModelName,

    /// This version, whatever the model's version policy says
    #[arg(long, value_name = "NUMBER")]
    version: Option<NonZeroU64>,

    #[command(flatten)]
    ask: Ask,
}

/// Has models unloaded: requests that are being answered are finished, new ones are refused.
///
/// A model that was unloaded stays so when the server is started again, until it is loaded.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul models unload iris
  outhaul models unload iris reviews --output json")]
struct Unload {
    /// The models
    #[arg(value_name = "NAME", required = true, value_parser = model_name)]
    models: Vec<ModelName>,

    #[command(flatten)]
    ask: Ask,
}

fn model_name(text: &str) -> Result<ModelName, String> {
    ModelName::new(text).map_err(|error| error.to_string())
}

impl Models {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match &self.action {
            Action::List(list) => runtime.block_on(list.run(out)),
            Action::Load(load) => runtime.block_on(load.run(out)),
            Action::Unload(unload) => runtime.block_on(unload.run(out)),
        }
    }
}

impl List {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let mut entries = Client::new(&self.ask.url)?.index().await?;
        entries.retain(|entry| self.wants(entry));
        match self.ask.output {
            Form::Json => write_json(out, &entries),
            Form::Table => Ok(out.write_all(table(&entries, progress::width()).as_bytes())?),
        }
    }

    fn wants(&self, entry: &Entry) -> bool {
        self.state.is_empty() || self.state.iter().any(|state| state.as_str() == entry.state)
    }
}

/// What is told of a model that was loaded.
#[derive(Serialize)]
struct Loaded<'a> {
    model: &'a str,
    seconds: f64,
    versions: Vec<Entry>,
}

impl Load {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let (client, name) = (Client::new(&self.ask.url)?, self.model.as_str());
        let started = Instant::now();
        let asked = client.load(name, self.version);
        let what = match self.version {
            None => format!("loading {name}"),
            Some(version) => format!("loading {name} version {version}"),
        };
        if let Reply::Refused(reason) = progress::watch(&what, asked).await? {
            bail!("'{name}' was not loaded: {reason}");
        }
        let took = started.elapsed();
        let mut versions = client.index().await?;
        versions.retain(|entry| entry.name == name && Standing::Unloaded.as_str() != entry.state);
        match self.ask.output {
            Form::Json => {
                write_json(out, &Loaded { model: name, seconds: took.as_secs_f64(), versions })
            }
            Form::Table => Ok(out.write_all(loaded_text(name, took, &versions).as_bytes())?),
        }
    }
}

fn loaded_text(name: &str, took: Duration, versions: &[Entry]) -> String {
    let mut text = format!("{name} loaded in {:.1} s\n", took.as_secs_f64());
    for entry in versions {
        let engine = entry.engine.as_deref().map(|engine| format!(" on {engine}"));
        let memory = entry.memory_bytes.map(|bytes| format!(", {}", size_text(bytes)));
        let error = entry.last_error.as_deref().map(|error| format!(": {error}"));
        text.push_str(&format!(
            "  version {} {}{}{}{}\n",
            entry.version,
            entry.state,
            engine.unwrap_or_default(),
            memory.unwrap_or_default(),
            error.unwrap_or_default(),
        ));
    }
    text
}

/// What is told of a model that was to be unloaded.
#[derive(Serialize)]
struct Unloaded<'a> {
    model: &'a str,
    unloaded: bool,
    error: Option<String>,
}

impl Unload {
    async fn run(&self, out: &mut impl Write) -> Result<()> {
        let client = Client::new(&self.ask.url)?;
        let mut told = Vec::new();
        for model in &self.models {
            let model = model.as_str();
            let asked = client.unload(model);
            let error = match progress::watch(&format!("unloading {model}"), asked).await? {
                Reply::Done => None,
                Reply::Refused(reason) => Some(reason),
            };
            if error.is_none() && self.ask.output == Form::Table {
                writeln!(out, "{model} unloaded")?;
            }
            told.push(Unloaded { model, unloaded: error.is_none(), error });
        }
        if self.ask.output == Form::Json {
            write_json(out, &told)?;
        }
        refused(&told)
    }
}

/// Fails where a model was not unloaded; the others were all the same.
fn refused(told: &[Unloaded<'_>]) -> Result<()> {
    let refused = told.iter().filter_map(|told| Some((told.model, told.error.as_ref()?)));
    let lines: Vec<_> =
        refused.map(|(model, reason)| format!("'{model}' was not unloaded: {reason}")).collect();
    match &lines[..] {
        [] => Ok(()),
        [one] => bail!("{one}"),
        several => bail!("{} models were not unloaded\n  {}", several.len(), several.join("\n  ")),
    }
}
