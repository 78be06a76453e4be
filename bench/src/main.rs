//! The project benchmark: reference and subject in turns, in one run on one machine.
//!
//! `make bench` builds everything in release, makes the models that are too large to commit, and runs
//! this. Reference servers are this same program in processes of their own (`bare-http`,
//! `bare-grpc`); the load generator is the one behind `outhaul bench`.

mod bare_grpc;
mod bare_http;
mod ceiling;
mod client;
mod cycles;
mod fairness;
mod images;
mod measure;
mod on_demand;
mod process;
mod rollouts;
mod routes;
mod shadow;
mod startup;
mod swaps;
mod table;
mod texts;
mod zipf;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::measure::Effort;

/// The allocator of `outhaul` itself, for what is measured in this process and for the references.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures Outhaul against references on this machine.
#[derive(Parser)]
#[command(name = "outhaul-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure and print the table.
    Run {
        /// The folder of the example models.
        #[arg(long, default_value = "examples/models")]
        models: PathBuf,
        /// The folder of the large models (`minilm`, `large`), made by `scripts/bench.sh`.
        #[arg(long, default_value = ".outhaul/bench-models")]
        large: PathBuf,
        /// Seconds of one turn.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Turns of each measurement; medians are reported.
        #[arg(long, default_value_t = 5)]
        turns: usize,
        /// Only these parts: iris, minilm, texts, copies, start.
        #[arg(long)]
        only: Vec<String>,
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Load and unload one model many times in each engine, and print what stays resident.
    Cycles(cycles::Arguments),
    /// Turn a picture into a tensor, and compare with the library calls alone.
    Images(images::Arguments),
    /// Ask at a modest rate while another caller floods the same model, and print what is noticed.
    Fairness(fairness::Arguments),
    /// Copy every request to a second version, and print what callers notice.
    Shadow(shadow::Arguments),
    /// Replace a model again and again under constant load, and print what callers notice.
    Swaps(swaps::Arguments),
    /// Ask for many models with memory for few, and print what it costs.
    OnDemand(on_demand::Arguments),
    /// Start, promote and roll back again and again under load, and print what callers notice.
    Rollouts(rollouts::Arguments),
    /// Ask by a route and from the cache, and compare with asking the model.
    Routes(routes::Arguments),
    /// Start with many small models, and print how long it takes and what they cost when idle.
    Startup(startup::Arguments),
    /// Serve a fixed answer over axum.
    BareHttp {
        /// Where to listen.
        #[arg(long)]
        address: String,
        /// The size of the answer in bytes.
        #[arg(long)]
        bytes: usize,
    },
    /// Serve a fixed answer over tonic.
    BareGrpc {
        /// Where to listen.
        #[arg(long)]
        address: String,
    },
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(rows: &[table::Row]) -> anyhow::Result<()> {
    println!("{}", table::markdown(rows));
    Ok(())
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match command {
        Command::BareHttp { address, bytes } => {
            runtime()?.block_on(bare_http::serve(&address, vec![b' '; bytes].into()))
        }
        Command::Cycles(arguments) => print(&cycles::measure(&arguments)?),
        Command::Images(arguments) => print(&images::measure(&arguments)?),
        Command::Fairness(arguments) => print(&fairness::measure(&arguments)?),
        Command::Shadow(arguments) => print(&shadow::measure(&arguments)?),
        Command::Swaps(arguments) => print(&swaps::measure(&arguments)?),
        Command::OnDemand(arguments) => print(&on_demand::measure(&arguments)?),
        Command::Rollouts(arguments) => print(&rollouts::measure(&arguments)?),
        Command::Routes(arguments) => print(&routes::measure(&arguments)?),
        Command::Startup(arguments) => print(&startup::measure(&arguments)?),
        Command::BareGrpc { address } => runtime()?.block_on(bare_grpc::serve(&address)),
        Command::Run { models, large, seconds, turns, only, json } => {
            let effort = Effort { turns, duration: Duration::from_secs_f64(seconds) };
            let wanted = |part: &str| only.is_empty() || only.iter().any(|name| name == part);
            let mut rows = Vec::new();
            if wanted("iris") {
                rows.extend(measure::iris(effort, &models)?);
            }
            if wanted("minilm") {
                rows.extend(measure::minilm(effort, &large.join("minilm"))?);
            }
            if wanted("texts") {
                rows.extend(texts::measure(effort, &large.join("texts"))?);
            }
            if wanted("copies") {
                rows.push(measure::copies(effort, &large.join("large"))?);
            }
            if wanted("start") {
                rows.push(measure::start(effort, &models)?);
            }
            match json {
                true => println!("{}", serde_json::to_string_pretty(&rows)?),
                false => println!("{}", table::markdown(&rows)),
            }
            Ok(())
        }
    }
}
