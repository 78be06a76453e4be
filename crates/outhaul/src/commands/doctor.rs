//! `outhaul doctor`: what this machine has, and what to do about what it lacks.

mod machine;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;
use outhaul::types::error_chain;
use outhaul_engine::Engine;
use outhaul_engine::embedded::Embedded;
use outhaul_engine_ort::{LibrarySearch, find_library};
use serde::Serialize;

use self::machine::Machine;
use super::{Output, size_text, write_json};

/// Tells what was found on this machine: engines, cores, instruction sets, memory and limits.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  outhaul doctor
  outhaul doctor --onnxruntime /opt/onnxruntime/lib --output json")]
pub(super) struct Doctor {
    /// ONNX Runtime's library, or its folder [default: searched for] [variable:
    /// OUTHAUL_ONNXRUNTIME]
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,

    /// The form of what is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Findings {
    version: &'static str,
    optimised: bool,
    machine: Machine,
    onnxruntime: Library,
    embedded: String,
    warnings: Vec<Warning>,
}

/// ONNX Runtime's library.
#[derive(Debug, Default, Serialize)]
struct Library {
    version: Option<String>,
    path: Option<String>,
    found: Option<String>,
    looked: Vec<LookedAt>,
}

#[derive(Debug, Serialize)]
struct LookedAt {
    place: String,
    path: String,
    outcome: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Warning {
    what: String,
    remedy: String,
}

impl Doctor {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<()> {
        let search = find_library(self.onnxruntime.as_deref());
        let machine = Machine::look(Path::new("/"));
        let optimised = !cfg!(debug_assertions);
        let library = library(&search);
        let findings = Findings {
            version: env!("CARGO_PKG_VERSION"),
            optimised,
            warnings: warnings(&machine, &library, optimised),
            machine,
            onnxruntime: library,
            embedded: Embedded.version(),
        };
        match self.output {
            Output::Text => out.write_all(text(&findings).as_bytes())?,
            Output::Json => write_json(out, &findings)?,
        }
        Ok(())
    }
}

fn library(search: &LibrarySearch) -> Library {
    let looked = search.looked.iter().map(|looked| LookedAt {
        place: looked.place.to_string(),
        path: looked.path.display().to_string(),
        outcome: match &looked.outcome {
            Ok(version) => format!("version {version}"),
            Err(error) => error_chain(error),
        },
    });
    let found = search.found.as_ref();
    Library {
        version: found.map(|found| found.version.clone()),
        path: found.map(|found| found.path.display().to_string()),
        found: found.map(|found| found.place.to_string()),
        looked: looked.collect(),
    }
}

/// Decides what an operator should know, from what was found.
fn warnings(machine: &Machine, library: &Library, optimised: bool) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |what: String, remedy: &str| {
        warnings.push(Warning { what, remedy: remedy.to_owned() });
    };
    if library.version.is_none() {
        warn(
            "ONNX Runtime was not found: the embedded engine serves alone, which has no ai.onnx.ml \
             operators (trees, scalers) and no strings"
                .to_owned(),
            "pip install onnxruntime in the active Python environment, or name the library with \
             --onnxruntime",
        );
    }
    if !optimised {
        warn("this is a debug build, many times slower".to_owned(), "build with --release");
    }
    if machine.architecture == "x86_64" && !machine.instruction_sets.contains(&"avx2") {
        warn(
            "this processor has no AVX2, so models run several times slower than they could"
                .to_owned(),
            "serve on a machine of 2014 or later",
        );
    }
    if let Some(limit) = &machine.core_limit
        && limit.cores < 1.0
    {
        warn(
            format!(
                "{} allows {:.2} of a core: requests stall when it is used up",
                limit.source, limit.cores
            ),
            "allow at least one core",
        );
    }
    if let Some(files) = machine.open_files.filter(|files| files.soft < 8192) {
        warn(
            format!(
                "this process may have {} open files, of which each connection takes one",
                files.soft
            ),
            if files.hard > files.soft {
                "raise it with ulimit -n 65536"
            } else {
                "raise it in /etc/security/limits.conf"
            },
        );
    }
    let usable = machine.memory_limit.as_ref().map(|limit| limit.bytes).into_iter();
    if let Some(least) =
        usable.chain(machine.memory_available).min().filter(|least| *least < 512 << 20)
    {
        warn(
            format!("{} of memory are left for models", size_text(least)),
            "raise the limit, or end other programs",
        );
    }
    warnings
}

fn text(findings: &Findings) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<16}{value}\n"));
    let build = if findings.optimised { "optimised" } else { "debug build" };
    line("outhaul", format!("{} ({build})", findings.version));
    let machine = &findings.machine;
    line("system", format!("{} {}", machine.system, machine.architecture));
    if let Some(processor) = &machine.processor {
        line("processor", processor.clone());
    }
    line("instructions", machine.instruction_sets.join(" "));
    line("cores", cores(machine));
    line("memory", memory(machine));
    if let Some(files) = machine.open_files {
        line("open files", format!("{} (at most {})", files.soft, files.hard));
    }
    match (&findings.onnxruntime.version, &findings.onnxruntime.path) {
        (Some(version), Some(path)) => {
            let found = findings.onnxruntime.found.as_deref().unwrap_or_default();
            line("onnxruntime", format!("{version}, {path} ({found})"));
        }
        _ => line("onnxruntime", "not found".to_owned()),
    }
    for looked in &findings.onnxruntime.looked {
        line("", format!("{}: {}: {}", looked.place, looked.path, looked.outcome));
    }
    line("embedded", findings.embedded.clone());
    text.push('\n');
    if findings.warnings.is_empty() {
        text.push_str("Nothing to mend.\n");
    }
    for warning in &findings.warnings {
        text.push_str(&format!("warning: {}\n  remedy: {}\n", warning.what, warning.remedy));
    }
    text
}

fn cores(machine: &Machine) -> String {
    let mut text = format!("{} used", machine.usable_cores);
    if let Some(allowed) = machine.allowed_cores {
        text.push_str(&format!(", {allowed} allowed to this process"));
    }
    if let Some(online) = machine.online_cores {
        text.push_str(&format!(", {online} in the machine"));
    }
    if let Some(limit) = &machine.core_limit {
        text.push_str(&format!(", limited to {:.2} by {}", limit.cores, limit.source));
    }
    text
}

fn memory(machine: &Machine) -> String {
    let mut parts = Vec::new();
    if let Some(available) = machine.memory_available {
        parts.push(format!("{} available", size_text(available)));
    }
    if let Some(total) = machine.memory_total {
        parts.push(format!("{} in the machine", size_text(total)));
    }
    if let Some(limit) = &machine.memory_limit {
        parts.push(format!("limited to {} by {}", size_text(limit.bytes), limit.source));
    }
    if parts.is_empty() { "unknown on this system".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::machine::{CoreLimit, MemoryLimit, OpenFiles};
    use super::*;

    fn sound() -> (Machine, Library) {
        let machine = Machine {
            system: "linux".to_owned(),
            architecture: "x86_64",
            instruction_sets: vec!["avx2"],
            usable_cores: 2,
            open_files: Some(OpenFiles { soft: 65536, hard: 65536 }),
            memory_available: Some(8 << 30),
            ..Machine::default()
        };
        let library = Library { version: Some("1.23.0".to_owned()), ..Library::default() };
        (machine, library)
    }

    #[test]
    fn a_sound_machine_gets_no_warning() {
        let (machine, library) = sound();
        assert_eq!(warnings(&machine, &library, true), []);
    }

    #[test]
    fn every_lack_is_told_with_its_remedy() {
        struct Case(fn(&mut Machine, &mut Library), &'static str);
        let cases = [
            Case(|_, library| library.version = None, "ONNX Runtime was not found"),
            Case(|machine, _| machine.instruction_sets.clear(), "no AVX2"),
            Case(
                |machine, _| {
                    machine.core_limit =
                        Some(CoreLimit { cores: 0.5, source: "cpu.max".to_owned() });
                },
                "cpu.max allows 0.50 of a core",
            ),
            Case(
                |machine, _| machine.open_files = Some(OpenFiles { soft: 1024, hard: 4096 }),
                "1024 open files",
            ),
            Case(
                |machine, _| {
                    let source = "memory.max".to_owned();
                    machine.memory_limit = Some(MemoryLimit { bytes: 256 << 20, source });
                },
                "256.0 MiB of memory",
            ),
        ];
        for Case(spoil, expected) in cases {
            let (mut machine, mut library) = sound();
            spoil(&mut machine, &mut library);
            let warnings = warnings(&machine, &library, true);
            let [warning] = warnings.as_slice() else { panic!("{expected}: {warnings:?}") };
            assert!(warning.what.contains(expected), "{warning:?}");
            assert!(!warning.remedy.is_empty());
        }
        let (machine, library) = sound();
        assert_eq!(warnings(&machine, &library, false).len(), 1, "a debug build is told");
    }
}
