//! Repository chores that are checks: `cargo xtask layers` fails where a crate imports one that the
//! house does not let it see, or does not take the workspace's lints.
//!
//! The allowed edges are those of ARCHITECTURE.md: a crate imports only from layers below its own.
//! Dev-dependencies are free, since tests may reach everywhere.

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use serde_json::Value;

/// Layers from the bottom up. A crate may import crates of lower layers, never of its own.
const LAYERS: &[(u32, &[&str])] = &[
    (0, &["types"]),
    (1, &["onnx", "transform", "protocol", "features", "monitor", "state"]),
    (2, &["cache", "engine", "pipeline"]),
    (3, &["engine-ort", "engine-python", "scheduler", "repository"]),
    (4, &["router"]),
    (5, &["rollout", "batch", "package", "compress"]),
    (6, &["server"]),
    (7, &["outhaul"]),
];

/// Crates that only these may import, beside tests.
const RESTRICTED: &[(&str, &[&str])] =
    &[("engine-ort", &["outhaul", "bench"]), ("engine-python", &["outhaul"])];

/// Members outside `crates/`: they stand above everything.
const OUTSIDE: &[&str] = &["bench", "fuzz", "example-embed", "xtask"];

/// Crates that must not drag in an async runtime or a logger.
const PURE: &[(&str, &[&str])] = &[("types", &["tokio", "tracing", "axum", "hyper", "tonic"])];

/// Crates with lints of their own. `engine-ort` calls a C library and must allow `unsafe`.
const OWN_LINTS: &[&str] = &["engine-ort"];

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let result = match task.as_deref() {
        Some("layers") => layers(),
        _ => Err(anyhow::anyhow!("usage: cargo xtask layers")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn layers() -> anyhow::Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .output()
        .context("cargo metadata did not start")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let problems = violations(&metadata)?;
    if problems.is_empty() {
        println!("layers: every import runs downward");
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

/// Returns one line for each import that the layers do not allow.
fn violations(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        let Some(name) = package["name"].as_str().map(short_name) else { continue };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| dependency["kind"].as_str() != Some("dev"));
        for import in normal.filter_map(|dependency| dependency["name"].as_str()) {
            problems.extend(check(name, import));
        }
        let manifest = package["manifest_path"].as_str().context("a package without a manifest")?;
        let text = std::fs::read_to_string(manifest).with_context(|| manifest.to_owned())?;
        if !OWN_LINTS.contains(&name) && !text.contains("[lints]\nworkspace = true") {
            problems.push(format!("{name} does not take the workspace's lints"));
        }
    }
    Ok(problems)
}

fn check(name: &str, import: &str) -> Option<String> {
    let forbidden = PURE.iter().find(|(pure, _)| *pure == name);
    if forbidden.is_some_and(|(_, dependencies)| dependencies.contains(&import)) {
        return Some(format!("{name} must stay free of {import}"));
    }
    if !import.starts_with("outhaul") {
        return None;
    }
    let import = short_name(import);
    let allowed = RESTRICTED.iter().find(|(restricted, _)| *restricted == import);
    if allowed.is_some_and(|(_, importers)| !importers.contains(&name)) {
        return Some(format!("{name} imports {import}, which only the binary may name"));
    }
    if OUTSIDE.contains(&name) {
        return None;
    }
    match (layer(name), layer(import)) {
        (None, _) => Some(format!("{name} has no layer: add it to xtask and ARCHITECTURE.md")),
        (_, None) => Some(format!("{name} imports {import}, which has no layer")),
        (Some(own), Some(below)) if below < own => None,
        (Some(own), Some(other)) => {
            Some(format!("{name} (layer {own}) imports {import} (layer {other})"))
        }
    }
}

fn short_name(package: &str) -> &str {
    package.strip_prefix("outhaul-").unwrap_or(package)
}

fn layer(name: &str) -> Option<u32> {
    LAYERS.iter().find(|(_, crates)| crates.contains(&name)).map(|(layer, _)| *layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_run_downward() {
        assert_eq!(check("router", "outhaul-scheduler"), None);
        assert_eq!(check("outhaul", "outhaul-engine-ort"), None);
        assert_eq!(check("router", "serde"), None);
        for (name, import) in [
            ("scheduler", "outhaul-router"),
            ("scheduler", "outhaul-repository"),
            ("server", "outhaul-engine-ort"),
            ("types", "tokio"),
            ("types", "outhaul-onnx"),
            ("unknown", "outhaul-types"),
            ("router", "outhaul-unknown"),
        ] {
            assert!(check(name, import).is_some(), "{name} -> {import}");
        }
    }
}
