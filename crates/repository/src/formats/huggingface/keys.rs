//! The JSON files of a folder, and what is wrong with them.
//!
//! These files hold far more keys than concern serving, so, unlike with other formats, keys that
//! nobody takes are passed over.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::Problem;
use crate::formats::keys::read_bounded;

/// Values longer than this are cut in problems.
const LONGEST_VALUE: usize = 80;

/// What a problem is about: a file relative to the folder (empty for the folder itself), a key in it (empty for all of
/// it), and its value.
pub(super) struct At<'a>(pub(super) &'a str, pub(super) &'a str, pub(super) Option<&'a Value>);

/// One folder while it is being read.
pub(super) struct Reading {
    folder: PathBuf,
    problems: Vec<Problem>,
    is_sound: bool,
}

impl Reading {
    pub(super) fn of(folder: &Path) -> Self {
        Reading { folder: folder.to_owned(), problems: Vec::new(), is_sound: true }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.folder.join(file).is_file()
    }

    /// Reads a file that is an object. Anything else is an error.
    pub(super) fn document(&mut self, file: &str) -> Option<Document> {
        match self.json(file)? {
            Value::Object(entries) => Some(Document { entries }),
            _ => {
                self.error(
                    At(file, "", None),
                    "must hold an object",
                    "download the file once more",
                );
                None
            }
        }
    }

    /// Reads a file of JSON.
    pub(super) fn json(&mut self, file: &str) -> Option<Value> {
        let read = read_bounded(&self.folder.join(file));
        let parsed = read.and_then(|text| {
            serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"))
        });
        parsed
            .map_err(|rule| self.error(At(file, "", None), rule, "download the file once more"))
            .ok()
    }

    /// Notes what forbids to serve the model.
    pub(super) fn error(&mut self, at: At<'_>, rule: impl Into<String>, remedy: &str) {
        self.is_sound = false;
        let problem = self.problem(at, rule.into(), remedy);
        // Some files are read more than once.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Notes what somebody may want to know.
    pub(super) fn warning(&mut self, at: At<'_>, rule: impl Into<String>, remedy: &str) {
        let problem = self.problem(at, rule.into(), remedy).warning();
        self.problems.push(problem);
    }

    fn problem(&self, At(file, key, value): At<'_>, rule: String, remedy: &str) -> Problem {
        let place = if file.is_empty() { self.folder.clone() } else { self.folder.join(file) };
        Problem {
            key: (!key.is_empty()).then(|| key.to_owned()),
            value: value.map(brief),
            ..Problem::of_place(place.display(), rule, remedy)
        }
    }

    /// Returns the problems, and whether the model can be served.
    pub(super) fn finish(self) -> (Vec<Problem>, bool) {
        (self.problems, self.is_sound)
    }
}

fn brief(value: &Value) -> String {
    let whole = value.to_string();
    match whole.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}...", &whole[..end]),
        None => whole,
    }
}

/// The keys of one file.
pub(super) struct Document {
    entries: Map<String, Value>,
}

impl Document {
    /// Returns a key's value; `None` where it is missing or `null`.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Returns a whole number that is not negative; Python writes large ones as floats.
    pub(super) fn whole(&self, key: &str) -> Option<u64> {
        let value = self.get(key)?;
        let float = || value.as_f64().filter(|number| *number >= 0.0 && number.fract() == 0.0);
        value.as_u64().or_else(|| float().map(|number| number as u64))
    }

    pub(super) fn is_true(&self, key: &str, usual: bool) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(usual)
    }

    /// Returns the keys that begin so, with their values.
    pub(super) fn beginning<'d>(
        &'d self,
        prefix: &'d str,
    ) -> impl Iterator<Item = (&'d str, &'d Value)> {
        let entries = self.entries.iter().map(|(key, value)| (key.as_str(), value));
        entries.filter(move |(key, _)| key.starts_with(prefix))
    }
}
