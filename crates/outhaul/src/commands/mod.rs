//! The commands, one module each: what they take, and what they do with it.
//!
//! Every command writes what it was asked for to a writer that is given, so that it can be tested
//! without a process, and fails with one error whose chain is printed here, once. Models, engines and
//! servers come from the crates below; there is no logic of theirs here.

mod bench;
mod config;
mod demo;
mod doctor;
mod import;
mod inspect;
mod models;
mod one_model;
mod predict;
mod remote_server;
mod rollout;
mod route;
mod serve;
mod server_flags;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde::Serialize;

/// Turns trained models into a prediction service.
#[derive(Debug, Parser)]
#[command(
    name = "outhaul",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "Examples:
  outhaul demo                         see it work
  outhaul serve models                 serve every model in a folder
  outhaul predict models/iris --json '{\"X\":[[5.1,3.5,1.4,0.2]]}'
  outhaul inspect models/iris          what a model takes, gives and needs
  outhaul models list                  what a running server has, and how it stands
  outhaul rollout start iris --to 2    a new version step by step, back by itself if it is worse

Every command has its own --help."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Predict(predict::Predict),
    Inspect(inspect::Inspect),
    Import(import::Import),
    Models(models::Models),
    Route(route::Route),
    Rollout(rollout::Rollout),
    Bench(bench::Bench),
    Doctor(doctor::Doctor),
    Demo(demo::Demo),
    Config(config::Config),
    Completions(Completions),
}

/// Prints a script that completes commands and flags in a shell.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul completions bash > ~/.local/share/bash-completion/completions/outhaul
  outhaul completions zsh > ~/.zfunc/_outhaul
  outhaul completions fish > ~/.config/fish/completions/outhaul.fish")]
struct Completions {
    /// The shell.
    shell: Shell,
}

/// The form of what a command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON value.
    Json,
}

/// Runs the command line and says how it went.
pub(crate) fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` arrive here too, and are no failure.
            let is_failure = error.use_stderr();
            return match error.print() {
                Ok(()) if !is_failure => ExitCode::SUCCESS,
                Ok(()) | Err(_) => ExitCode::from(2),
            };
        }
    };
    match cli.command.run(&mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, there is nobody left to tell.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the error is that whoever read our output, such as `head`, has had enough.
fn reader_left(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

impl Command {
    fn run(&self, out: &mut impl Write) -> Result<()> {
        match self {
            Command::Serve(serve) => serve.run(out),
            Command::Predict(predict) => predict.run(&mut io::stdin().lock(), out),
            Command::Inspect(inspect) => inspect.run(out),
            Command::Models(models) => models.run(out),
            Command::Route(route) => route.run(out),
            Command::Rollout(rollout) => rollout.run(out),
            Command::Import(import) => import.run(out),
            Command::Bench(bench) => bench.run(out),
            Command::Doctor(doctor) => doctor.run(out),
            Command::Demo(demo) => demo.run(out),
            Command::Config(config) => config.run(out),
            Command::Completions(Completions { shell }) => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Cli::command(), "outhaul", &mut script);
                out.write_all(&script)?;
                Ok(())
            }
        }
    }
}

/// Writes one JSON value.
fn write_json(out: &mut impl Write, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Writes a size in the largest unit that leaves at least one: `482 B`, `1.5 KiB`.
fn size_text(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Several problems as one error, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
struct Problems(Vec<outhaul::Problem>);

fn lines(problems: &[outhaul::Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        all => {
            let lines: Vec<String> = all.iter().map(|problem| format!("\n  {problem}")).collect();
            format!("{} problems:{}", all.len(), lines.concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn completions_name_the_commands() {
        let mut script = Vec::new();
        let command = Command::Completions(Completions { shell: Shell::Bash });
        command.run(&mut script).unwrap();
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("serve") && script.contains("--onnxruntime"), "{script}");
    }

    #[test]
    fn sizes_read_well() {
        let texts = [0, 1023, 1536, 250 << 20].map(size_text);
        assert_eq!(texts, ["0 B", "1023 B", "1.5 KiB", "250.0 MiB"]);
    }
}
