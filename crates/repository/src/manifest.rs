//! `model.toml`: what a user declares beside a model, read into a [`ModelManifest`].
//!
//! Each key has one rule, and a broken rule names its remedy. What the keys mean is told by the
//! fields of [`ModelManifest`] and by `docs/guide/model-toml.md`.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use outhaul_types::{EngineChoice, InstanceCount, ModelManifest};

use crate::{Declarations, Problem, Rule, Value};

/// The name of the file.
pub const MANIFEST_FILE: &str = "model.toml";

/// The paths of all keys.
pub const MANIFEST_KEYS: &[&str] = &[
    "engine",
    "batching.max_rows",
    "batching.max_delay",
    "batching.exact",
    "instances.count",
    "instances.threads",
    "queue.capacity",
    "queue.timeout",
];

/// More threads than any machine has cores are a slip of the keyboard.
const MOST_THREADS: usize = 1024;

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

    let batching = &mut manifest.batching;
    let turn_off = "set 1 to turn batching off";
    if let Some(rows) =
        declared.take("batching.max_rows", |value| within(value, 1..=65_536, turn_off))
    {
        batching.max_rows = rows;
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
    if let Some(exact) = declared.take("batching.exact", |value| {
        value.boolean().ok_or_else(|| Rule::new("must be true or false", "write it without quotes"))
    }) {
        batching.exact = exact;
    }

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

    let queue = &mut manifest.queue;
    if let Some(capacity) = declared.take("queue.capacity", |value| {
        within(value, 1..=1_000_000, "leave it out for 1024 waiting requests")
    }) {
        queue.capacity = capacity;
    }
    if let Some(timeout) = declared.take("queue.timeout", |value| {
        let allowed = |timeout: &Duration| !timeout.is_zero() && *timeout <= LONGEST_TIMEOUT;
        value.duration().filter(allowed).ok_or_else(|| {
            Rule::new(
                "must be a duration above zero and of at most 24h",
                "write a number with a unit, as in \"60s\"",
            )
        })
    }) {
        queue.timeout = timeout;
    }

    let problems = declared.into_problems();
    if problems.is_empty() { Ok(manifest) } else { Err(problems) }
}

fn engine(value: &Value) -> Result<EngineChoice, Rule> {
    let choices = [
        ("auto", EngineChoice::Auto),
        ("onnxruntime", EngineChoice::OnnxRuntime),
        ("embedded", EngineChoice::Embedded),
    ];
    let text = value.text().unwrap_or_default();
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let must = "must be \"auto\", \"onnxruntime\" or \"embedded\"";
    Err(match (text, crate::nearest(text, choices.map(|(name, _)| name))) {
        ("python", _) => Rule::new(
            "this version of Outhaul runs no Python models",
            "export the model to ONNX and set \"auto\"",
        ),
        (_, Some(nearest)) => Rule::new(must, format!("did you mean \"{nearest}\"?")),
        (_, None) => Rule::new(must, "leave it out for \"auto\""),
    })
}

fn within(value: &Value, range: RangeInclusive<usize>, remedy: &str) -> Result<NonZeroUsize, Rule> {
    value.whole().filter(|number| range.contains(number)).and_then(NonZeroUsize::new).ok_or_else(
        || {
            let must = format!("must be a whole number from {} to {}", range.start(), range.end());
            Rule::new(must, remedy)
        },
    )
}

#[cfg(test)]
mod tests {
    use outhaul_types::{BatchingSpec, InstancesSpec, LimitsSpec};

    use super::*;

    fn read(text: &str) -> Result<ModelManifest, Vec<Problem>> {
        validate(Declarations::parse(Path::new("model.toml"), text, MANIFEST_KEYS))
    }

    #[test]
    fn no_text_gives_the_defaults() {
        assert_eq!(read(""), Ok(ModelManifest::default()));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            engine = "embedded"
            [batching]
            max_rows = 8
            max_delay = "500us"
            exact = false
            [instances]
            count = 3
            threads = 2
            [queue]
            capacity = 16
            timeout = "1m 30s"
        "#;
        let number = |number| NonZeroUsize::new(number).unwrap();
        let expected = ModelManifest {
            engine: EngineChoice::Embedded,
            batching: BatchingSpec {
                max_rows: number(8),
                max_delay: Duration::from_micros(500),
                exact: false,
            },
            instances: InstancesSpec { count: InstanceCount::Fixed(number(3)), threads: number(2) },
            queue: LimitsSpec { capacity: number(16), timeout: Duration::from_secs(90) },
        };
        assert_eq!(read(text), Ok(expected));
        assert_eq!(read("instances.count = 'auto'").unwrap().instances.count, InstanceCount::Auto);
    }

    #[test]
    fn every_rule_refuses_what_breaks_it() {
        struct Case(&'static str, &'static str);
        let whole = "must be a whole number from 1 to";
        let cases = [
            Case("engine = 'python'", "runs no Python models; export the model to ONNX"),
            Case("engine = 'onnx'", "or \"embedded\"; leave it out"),
            Case("engine = 'onnxruntim'", "did you mean \"onnxruntime\"?"),
            Case("engine = 3", "must be \"auto\""),
            Case("batching.max_rows = 0", whole),
            Case("batching.max_rows = -1", whole),
            Case("batching.max_rows = 1.5", whole),
            Case("batching.max_rows = '8'", whole),
            Case("batching.max_rows = 9999999999999999999999", whole),
            Case(
                "batching.max_delay = 2",
                "must be a duration of at most 10s; write a number with",
            ),
            Case("batching.max_delay = '11s'", "must be a duration of at most 10s"),
            Case("batching.max_delay = '-1s'", "must be a duration of at most 10s"),
            Case("batching.exact = 'no'", "must be true or false"),
            Case("instances.count = 'many'", "or write \"auto\""),
            Case("instances.count = 0", whole),
            Case("instances.threads = 100000", whole),
            Case("queue.capacity = 0", whole),
            Case("queue.timeout = '0s'", "must be a duration above zero"),
            Case("queue.timeout = '25h'", "must be a duration above zero and of at most 24h"),
            Case("queue.timeout = 1979-05-27", "must be a duration above zero"),
        ];
        for Case(text, expected) in cases {
            let problems = read(text).unwrap_err();
            let [problem] = problems.as_slice() else { panic!("{text}: {problems:?}") };
            let line = problem.to_string();
            assert!(line.starts_with("model.toml:1: "), "{line}");
            assert!(line.contains(expected), "{text}: {line}");
        }
    }

    #[test]
    fn all_problems_of_a_file_come_at_once() {
        let problems = read(include_str!("../testdata/wrongkey.toml")).unwrap_err();
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        let expected = include_str!("../testdata/wrongkey.problems.txt");
        assert_eq!(lines.join("\n"), expected.trim_end());
    }

    #[test]
    fn the_guide_mentions_every_key() {
        let guide = include_str!("../../../docs/guide/model-toml.md");
        for key in MANIFEST_KEYS {
            assert!(guide.contains(&format!("### `{key}`")), "docs/guide/model-toml.md: {key}");
        }
    }
}
