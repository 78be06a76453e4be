//! The keys of an object that some tool wrote as JSON or YAML, each taken once.
//!
//! Invariant: whatever nobody has taken when an object is closed becomes a warning that names it, so
//! that no declaration is dropped in silence. `null` declares nothing.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::Problem;

/// Tools write these files; a signature of a wide table is the longest part.
const LARGEST_FILE: u64 = 4 * 1024 * 1024;

/// Values longer than this are cut in problems.
const LONGEST_VALUE: usize = 80;

/// What is wrong with one file.
pub(super) struct Findings {
    place: String,
    problems: Vec<Problem>,
    errors: bool,
}

impl Findings {
    pub(super) fn of(path: &Path) -> Self {
        Findings { place: path.display().to_string(), problems: Vec::new(), errors: false }
    }

    /// Notes what forbids to serve the model.
    pub(super) fn error(&mut self, key: &str, value: Option<&Value>, rule: String, remedy: &str) {
        self.errors = true;
        let problem = self.problem(key, value, rule, remedy);
        self.problems.push(problem);
    }

    /// Notes what has no effect.
    pub(super) fn warning(&mut self, key: &str, value: Option<&Value>, rule: String, remedy: &str) {
        let problem = self.problem(key, value, rule, remedy).warning();
        self.problems.push(problem);
    }

    /// Whether anything forbids to serve the model.
    pub(super) fn has_errors(&self) -> bool {
        self.errors
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn problem(&self, key: &str, value: Option<&Value>, rule: String, remedy: &str) -> Problem {
        Problem {
            key: (!key.is_empty()).then(|| key.to_owned()),
            value: value.map(brief),
            ..Problem::of_place(&self.place, rule, remedy)
        }
    }
}

/// One object of the file. [`Keys::close`] ends it.
pub(super) struct Keys {
    prefix: String,
    entries: Map<String, Value>,
}

impl Keys {
    /// Opens the object that a key holds. Anything but an object is an error, and empty.
    pub(super) fn of(key: &str, value: Value, findings: &mut Findings) -> Self {
        let prefix = if key.is_empty() { String::new() } else { format!("{key}.") };
        let entries = match value {
            Value::Object(entries) => entries,
            Value::Null => Map::new(),
            other => {
                let remedy = "correct it, or remove the key";
                findings.error(key, Some(&other), "must hold keys of its own".to_owned(), remedy);
                Map::new()
            }
        };
        Keys { prefix, entries }
    }

    /// The whole path of one of its keys.
    pub(super) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The names of the keys that nobody has taken.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Takes a key's value; `None` where it is missing or `null`.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.entries.remove(key).filter(|value| !value.is_null())
    }

    /// Takes a key's value through `convert`, which gives `None` where it breaks the rule.
    pub(super) fn take_as<T>(
        &mut self,
        key: &str,
        findings: &mut Findings,
        rule: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let converted = convert(&value);
        if converted.is_none() {
            let remedy = "correct it, or remove the key";
            findings.error(&self.path(key), Some(&value), rule.to_owned(), remedy);
        }
        converted
    }

    /// Takes a text. An empty one is as good as none.
    pub(super) fn take_text(&mut self, key: &str, findings: &mut Findings) -> Option<String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        self.take_as(key, findings, "must be a text", text).filter(|text| !text.is_empty())
    }

    /// Takes keys that tell where a model comes from and nothing of how it is served.
    pub(super) fn pass_over(&mut self, keys: &[&str]) {
        for key in keys {
            self.entries.remove(*key);
        }
    }

    /// Warns of every key that is left.
    pub(super) fn close(self, findings: &mut Findings) {
        for (key, value) in &self.entries {
            let empty = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(entries) => entries.is_empty(),
                Value::String(text) => text.is_empty(),
                Value::Bool(true) | Value::Number(_) => false,
            };
            if !empty {
                let rule = "this key has no effect here".to_owned();
                let remedy = "nothing needs doing if the model answers as it should";
                findings.warning(&self.path(key), Some(value), rule, remedy);
            }
        }
    }
}

/// Reads a file's text.
///
/// # Errors
///
/// Fails with the rule that the file breaks.
pub(super) fn read_bounded(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    // Opening a pipe would wait for its writer, so what kind it is comes first.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err("is larger than 4 MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// Returns a path inside the model's folder in one form, with `/` and without `./`; `None` where it is
/// absolute, climbs with `..`, or is a URL.
pub(super) fn inside(path: &str) -> Option<String> {
    let climbs = path.split(['/', '\\']).any(|part| part == "..");
    let drive = path.as_bytes().get(1) == Some(&b':');
    if path.starts_with(['/', '\\']) || climbs || drive || path.contains("://") {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Some(parts.join("/"))
}

fn brief(value: &Value) -> String {
    let whole = value.to_string();
    match whole.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}...", &whole[..end]),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside() {
        struct Case(&'static str, Option<&'static str>);
        let cases = [
            Case("model.onnx", Some("model.onnx")),
            Case("./a//b/./model.onnx", Some("a/b/model.onnx")),
            Case(".", Some("")),
            Case("a..b/model.onnx", Some("a..b/model.onnx")),
            Case("../model.onnx", None),
            Case("a/../../model.onnx", None),
            Case("a\\..\\..\\model.onnx", None),
            Case("/etc/passwd", None),
            Case("C:/model.onnx", None),
            Case("s3://bucket/model.onnx", None),
        ];
        for Case(path, expected) in cases {
            assert_eq!(inside(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(brief(&Value::from("é".repeat(100))).chars().count(), LONGEST_VALUE + 3);
    }
}
