//! `model.toml`: what a user declares beside a model, read into a [`ModelManifest`].
//!
//! Each key has one rule, and a broken rule names its remedy. What the keys mean is told by the
//! fields of [`ModelManifest`] and by `docs/guide/model-toml.md`. [`write_manifest`] is the way back.

mod cache;
mod fallback;
mod loading;
mod rules;
mod tensors;
mod transform;
mod write;

use std::path::Path;
use std::time::Duration;

use outhaul_types::{InstanceCount, LevelSpec, LimitsSpec, ModelManifest};

use crate::declared::{Faults, Fields};
use crate::{Declarations, Problem, Rule, Value};
pub(crate) use rules::{boolean as truth, duration_within as limited};
use rules::{boolean, duration_within, engine, within};
pub(crate) use tensors::{data_type, pattern};
pub use write::write_manifest;
pub(crate) use write::{duration as duration_text, key, list, pattern as sizes, string, table};

/// The name of the file.
pub const MANIFEST_FILE: &str = "model.toml";

/// The paths of all keys.
pub const MANIFEST_KEYS: &[&str] = &[
    "engine",
    "versions",
    "labels",
    "batching.max_rows",
    "batching.max_request_rows",
    "batching.max_delay",
    "batching.exact",
    "instances.count",
    "instances.threads",
    "queue.capacity",
    "queue.timeout",
    "queue.levels",
    "queue.default_level",
    "loading.pin",
    "loading.min_residency",
    "loading.allow_breaking",
    "inputs",
    "outputs",
    "warmup",
    "transform.input",
    "transform.output",
    "sample",
    "cache",
    "fallback.to",
    "fallback.default",
    "fallback.on",
    "fallback.after",
];

/// More threads than any machine has cores are a slip of the keyboard.
const MOST_THREADS: usize = 1024;

const MOST_ROWS: usize = 65_536;

const MOST_WAITING: usize = 1_000_000;

/// Holding a batch open for longer would make every answer late.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a manifest. Keys that are missing or wrong have their default.
///
/// # Errors
///
/// Fails with every problem of the file.
pub fn read_manifest(path: &Path) -> Result<ModelManifest, Vec<Problem>> {
    validate(Declarations::read(path, MANIFEST_KEYS))
}

fn validate(mut declared: Declarations) -> Result<ModelManifest, Vec<Problem>> {
    let mut manifest = ModelManifest::default();
    if let Some(engine) = declared.take("engine", engine) {
        manifest.engine = engine;
    }

    loading::take(&mut declared, &mut manifest);
    batching(&mut declared, &mut manifest);
    instances(&mut declared, &mut manifest);
    queue(&mut declared, &mut manifest.queue);
    tensors::take(&mut declared, &mut manifest);
    transform::take(&mut declared, &mut manifest);
    cache::take(&mut declared, &mut manifest);
    fallback::take(&mut declared, &mut manifest);
    let problems = declared.into_problems();
    if problems.is_empty() { Ok(manifest) } else { Err(problems) }
}

fn batching(declared: &mut Declarations, manifest: &mut ModelManifest) {
    let batching = &mut manifest.batching;
    let turn_off = "set 1 to turn batching off";
    if let Some(rows) =
        declared.take("batching.max_rows", |value| within(value, 1..=MOST_ROWS, turn_off))
    {
        batching.max_rows = rows;
    }
    let no_limit = "leave it out for no limit";
    if let Some(rows) =
        declared.take("batching.max_request_rows", |value| within(value, 1..=MOST_ROWS, no_limit))
    {
        batching.max_request_rows = Some(rows);
    }
    if let Some(delay) = declared.take("batching.max_delay", |value| {
        value.duration().filter(|delay| *delay <= LONGEST_DELAY).ok_or_else(|| {
            Rule::new(
                "must be a duration of at most 10s",
                "write a number with a unit, as in \"2ms\"",
            )
        })
    }) {
        batching.max_delay = delay;
    }
    if let Some(exact) = declared.take("batching.exact", boolean) {
        batching.exact = exact;
    }
}

fn instances(declared: &mut Declarations, manifest: &mut ModelManifest) {
    let instances = &mut manifest.instances;
    if let Some(count) = declared.take("instances.count", |value| match value.text() {
        Some("auto") => Ok(InstanceCount::Auto),
        _ => within(value, 1..=MOST_THREADS, "or write \"auto\" for what suits the machine")
            .map(InstanceCount::Fixed),
    }) {
        instances.count = count;
    }
    if let Some(threads) = declared.take("instances.threads", |value| {
        within(value, 1..=MOST_THREADS, "leave it out for 1 thread an instance")
    }) {
        instances.threads = threads;
    }
}

fn queue(declared: &mut Declarations, queue: &mut LimitsSpec) {
    if let Some(capacity) = declared.take("queue.capacity", |value| {
        within(value, 1..=MOST_WAITING, "leave it out for 1024 waiting requests")
    }) {
        queue.capacity = capacity;
    }
    if let Some(timeout) = declared.take("queue.timeout", timeout) {
        queue.timeout = timeout;
    }
    let levels_are_declared = declared.line("queue.levels").is_some();
    let levels = declared.take_nested("queue.levels", |value, faults| {
        let rule = Rule::new("must be a list of tables", "write as in [{ capacity = 10 }, {}]");
        faults.items(value, rule, |_, level, faults| self::level(level, faults))
    });
    if let Some(levels) = levels {
        queue.levels = levels;
    }
    let most = queue.levels.len();
    if let Some(default) = declared.take("queue.default_level", |value| match most {
        0 if !levels_are_declared => {
            Err(Rule::new("there are no levels", "declare queue.levels, or leave it out"))
        }
        // What is wrong with the levels is told already.
        0 => within(value, 1..=usize::MAX, "level 1 is the most urgent"),
        _ => within(value, 1..=most, "level 1 is the most urgent"),
    }) {
        queue.default_level = default;
    }
}

fn level(value: &Value, faults: &mut Faults) -> Option<LevelSpec> {
    let fields = Fields::open(value, &["capacity", "timeout", "allow_override"], faults)?;
    Some(LevelSpec {
        capacity: fields.take("capacity", faults, |value| {
            within(value, 1..=MOST_WAITING, "leave it out for what the whole queue may hold")
        }),
        timeout: fields.take("timeout", faults, timeout),
        allow_override: fields.take("allow_override", faults, boolean),
    })
}

fn timeout(value: &Value) -> Result<Duration, Rule> {
    duration_within(value, LONGEST_TIMEOUT, "24h", "60s")
}

#[cfg(test)]
mod tests;
