//! A manifest as TOML, for people to read and go on from.
//!
//! Invariant: what is written reads back as the same manifest, and what is as by default is not
//! written.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use outhaul_types::{
    Dimension, EngineChoice, Fill, InstanceCount, LevelSpec, ModelManifest, ShapePattern,
    TensorDeclaration, VersionPolicy, WarmupInput, WarmupRequest,
};

use super::tensors::default_name;
use super::{cache, fallback, transform};

/// Writes a manifest as the text of a `model.toml`, with only what differs from the defaults.
pub fn write_manifest(manifest: &ModelManifest) -> String {
    let usual = ModelManifest::default();
    let mut text = Toml::default();
    let top = &mut text.section("");
    top.differing("engine", engine(manifest.engine), engine(usual.engine));
    top.differing("versions", versions(&manifest.versions), versions(&usual.versions));
    if manifest.warmup.as_ref().is_some_and(Vec::is_empty) {
        top.entry("warmup", "[]");
    }
    transform::write_sample(top, manifest.sample.as_deref());

    let labels = &mut text.section("[labels]");
    for (label, version) in &manifest.labels {
        labels.entry(&key(label.as_str()), version);
    }

    let (ours, usually) = (&manifest.batching, &usual.batching);
    let batching = &mut text.section("[batching]");
    batching.differing("max_rows", ours.max_rows, usually.max_rows);
    if let Some(rows) = ours.max_request_rows {
        batching.entry("max_request_rows", rows);
    }
    batching.differing("max_delay", duration(ours.max_delay), duration(usually.max_delay));
    batching.differing("exact", ours.exact, usually.exact);

    let (ours, usually) = (&manifest.instances, &usual.instances);
    let instances = &mut text.section("[instances]");
    instances.differing("count", count(ours.count), count(usually.count));
    instances.differing("threads", ours.threads, usually.threads);

    let (ours, usually) = (&manifest.queue, &usual.queue);
    let queue = &mut text.section("[queue]");
    queue.differing("capacity", ours.capacity, usually.capacity);
    queue.differing("timeout", duration(ours.timeout), duration(usually.timeout));
    if !ours.levels.is_empty() {
        let levels: String = ours.levels.iter().map(|of| format!("    {},\n", level(of))).collect();
        queue.entry("levels", format!("[\n{levels}]"));
    }
    queue.differing("default_level", ours.default_level, usually.default_level);

    let (ours, usually) = (&manifest.loading, &usual.loading);
    let loading = &mut text.section("[loading]");
    loading.differing("pin", ours.pin, usually.pin);
    if let Some(residency) = ours.min_residency {
        loading.entry("min_residency", duration(residency));
    }
    loading.differing("allow_breaking", ours.allow_breaking, usually.allow_breaking);

    for (header, tensors) in [("[inputs]", &manifest.inputs), ("[outputs]", &manifest.outputs)] {
        let section = &mut text.section(header);
        for declaration in tensors {
            section.entry(&key(&declaration.name), tensor(declaration));
        }
    }
    transform::write(&mut text, &manifest.transform);
    cache::write(&mut text, manifest.cache.as_ref());
    fallback::write(&mut text, manifest.fallback.as_ref());
    for (index, request) in manifest.warmup.iter().flatten().enumerate() {
        warmup(&mut text, index, request);
    }
    text.0
}

fn warmup(text: &mut Toml, index: usize, request: &WarmupRequest) {
    // An item of a list is written even where all of it is as usual.
    text.header("[[warmup]]");
    let item = &mut Section { text, header: None };
    let WarmupRequest { name, rows, count, inputs } = request;
    item.differing("name", string(name), string(&default_name(index)));
    item.differing("rows", rows.get(), 1);
    item.differing("count", count.get(), 1);
    for input in inputs {
        item.entry(&format!("inputs.{}", key(&input.name)), warmup_input(input));
    }
}

#[derive(Default)]
pub(super) struct Toml(String);

impl Toml {
    pub(super) fn section<'t>(&'t mut self, header: &'static str) -> Section<'t> {
        Section { text: self, header: Some(header).filter(|header| !header.is_empty()) }
    }

    fn header(&mut self, header: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(header);
        self.0.push('\n');
    }
}

/// A part of the text. Its header is written before its first entry, so an empty part is nothing.
pub(super) struct Section<'t> {
    text: &'t mut Toml,
    header: Option<&'static str>,
}

impl Section<'_> {
    pub(super) fn entry(&mut self, key: &str, value: impl std::fmt::Display) {
        if let Some(header) = self.header.take() {
            self.text.header(header);
        }
        self.text.0.push_str(&format!("{key} = {value}\n"));
    }

    pub(super) fn differing<T: PartialEq + std::fmt::Display>(
        &mut self,
        key: &str,
        value: T,
        usual: T,
    ) {
        if value != usual {
            self.entry(key, value);
        }
    }

    pub(super) fn given(&mut self, key: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.entry(key, value);
        }
    }
}

fn engine(choice: EngineChoice) -> &'static str {
    match choice {
        EngineChoice::Auto => "\"auto\"",
        EngineChoice::OnnxRuntime => "\"onnxruntime\"",
        EngineChoice::Embedded => "\"embedded\"",
    }
}

fn versions(policy: &VersionPolicy) -> String {
    match policy {
        VersionPolicy::Latest(one) if one.get() == 1 => "\"latest\"".to_owned(),
        VersionPolicy::Latest(count) => format!("{{ latest = {count} }}"),
        VersionPolicy::All => "\"all\"".to_owned(),
        VersionPolicy::Specific(versions) => list(versions.iter().map(ToString::to_string)),
    }
}

fn count(count: InstanceCount) -> String {
    match count {
        InstanceCount::Auto => "\"auto\"".to_owned(),
        InstanceCount::Fixed(count) => count.to_string(),
    }
}

fn level(level: &LevelSpec) -> String {
    let capacity = level.capacity.map(|capacity| format!("capacity = {capacity}"));
    let timeout = level.timeout.map(|timeout| format!("timeout = {}", duration(timeout)));
    let allow = level.allow_override.map(|allow| format!("allow_override = {allow}"));
    table([capacity, timeout, allow])
}

fn tensor(declared: &TensorDeclaration) -> String {
    let data_type = declared.data_type.map(|of| format!("datatype = \"{}\"", of.name()));
    let shape = declared.shape.as_ref().and_then(pattern).map(|of| format!("shape = {of}"));
    let reshape = declared.reshape.as_ref().and_then(pattern).map(|of| format!("reshape = {of}"));
    table([data_type, shape, reshape])
}

/// A shape of any rank is what holds where none is declared.
pub(crate) fn pattern(pattern: &ShapePattern) -> Option<String> {
    match pattern {
        ShapePattern::AnyRank => None,
        ShapePattern::Ranked(dimensions) => Some(list(dimensions.iter().map(|of| match of {
            Dimension::Fixed(size) => size.to_string(),
            Dimension::Named(name) => string(name),
            Dimension::Any => "-1".to_owned(),
        }))),
    }
}

fn warmup_input(input: &WarmupInput) -> String {
    let sizes = |shape: &outhaul_types::Shape| list(shape.iter().map(ToString::to_string));
    let shape = input.shape.as_ref().map(|shape| format!("shape = {}", sizes(shape)));
    let fill = match &input.fill {
        Fill::Zeros => None,
        Fill::Random => Some("fill = \"random\"".to_owned()),
        Fill::File(path) => Some(format!("fill = {}", file(path))),
    };
    table([shape, fill])
}

fn file(file: &Path) -> String {
    let path = path(file);
    match path.as_str() {
        "zeros" | "random" => string(&format!("./{path}")),
        _ => string(&path),
    }
}

/// Returns a path as it is written on every system.
pub(super) fn path(path: &Path) -> String {
    path.to_string_lossy().replace('\\', if cfg!(windows) { "/" } else { "\\" })
}

pub(crate) fn duration(duration: Duration) -> String {
    string(&humantime::format_duration(duration).to_string())
}

pub(crate) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

pub(crate) fn table(entries: impl IntoIterator<Item = Option<String>>) -> String {
    let entries: Vec<String> = entries.into_iter().flatten().collect();
    if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
}

pub(crate) fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { string(name) }
}

pub(crate) fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04X}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
