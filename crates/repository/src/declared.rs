//! Reading what people declare in TOML: every key checked, every problem collected.
//!
//! A file is flattened to key paths (`batching.max_rows`) with the line of each, and the paths are
//! checked against the complete list of those that exist. A reader then takes one key after the
//! other. Nothing stops at the first mistake, except that a file that is not TOML has no keys.
//!
//! `model.toml` and `outhaul.toml` are both read this way; neither list of keys is known here.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::Problem;
pub(crate) use nested::{Faults, Fields};

mod nested;

/// The largest file that is read. People write these by hand.
const LARGEST_FILE: u64 = 1024 * 1024;

/// A value as TOML, an environment variable or a flag gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// A number with a fraction.
    Fraction(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name, in the order in which they were written.
    Table(Vec<(String, Value)>),
    /// Anything else, as it was written: a date, a number that does not fit.
    Other(String),
}

impl Value {
    /// Reads the text of a variable or flag, where types are not told apart: what looks like a whole
    /// number or a boolean is one.
    pub fn from_text(text: &str) -> Self {
        match text {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            _ => match text.parse() {
                Ok(number) => Value::Whole(number),
                Err(_) => Value::Text(text.to_owned()),
            },
        }
    }

    fn from_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Whole(number),
                    Err(_) => Value::Other(number.to_string()),
                }
            }
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Value::Fraction(number),
                Err(_) => Value::Other(number.as_str().to_owned()),
            },
            DeValue::Boolean(truth) => Value::Boolean(*truth),
            DeValue::Array(items) => {
                Value::List(items.iter().map(|item| Value::from_toml(item.get_ref())).collect())
            }
            DeValue::Datetime(datetime) => Value::Other(datetime.to_string()),
            DeValue::Table(table) => {
                let mut entries: Vec<_> = table.iter().collect();
                entries.sort_by_key(|(name, _)| name.span().start);
                let value = |(name, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
                    (name.get_ref().to_string(), Value::from_toml(value.get_ref()))
                };
                Value::Table(entries.into_iter().map(value).collect())
            }
        }
    }

    /// Returns the text of a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns a boolean.
    pub fn boolean(&self) -> Option<bool> {
        match self {
            Value::Boolean(truth) => Some(*truth),
            _ => None,
        }
    }

    /// Returns a whole number that fits a `usize`.
    pub fn whole(&self) -> Option<usize> {
        match self {
            Value::Whole(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Returns a duration such as `2ms` or `1m 30s`; a bare number has no unit and is none.
    pub fn duration(&self) -> Option<Duration> {
        self.text().and_then(|text| humantime::parse_duration(text).ok())
    }

    /// Returns a number of bytes, or one with a unit: `64MiB`, `1 GB`.
    pub fn size(&self) -> Option<usize> {
        match self {
            Value::Text(text) => bytes(text),
            value => value.whole(),
        }
    }
}

/// A value as TOML would write it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Whole(number) => write!(f, "{number}"),
            Value::Fraction(number) => write!(f, "{number:?}"),
            Value::Boolean(truth) => write!(f, "{truth}"),
            Value::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let separator = if index > 0 { ", " } else { "" };
                    write!(f, "{separator}{item}")?;
                }
                f.write_str("]")
            }
            Value::Table(entries) => {
                f.write_str("{")?;
                for (index, (name, value)) in entries.iter().enumerate() {
                    let separator = if index > 0 { ", " } else { " " };
                    write!(f, "{separator}{name} = {value}")?;
                }
                f.write_str(if entries.is_empty() { "}" } else { " }" })
            }
            Value::Other(text) => f.write_str(text),
        }
    }
}

/// What a value has to be, and what to do where it isn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The rule, such as `must be at least 1`.
    pub must: String,
    /// The remedy, such as `set 1 to turn batching off`.
    pub remedy: String,
}

impl Rule {
    /// Makes a rule.
    pub fn new(must: impl Into<String>, remedy: impl Into<String>) -> Self {
        Rule { must: must.into(), remedy: remedy.into() }
    }
}

#[derive(Debug)]
struct Entry {
    value: Value,
    line: usize,
}

/// The keys of one TOML file, and what is wrong with them.
#[derive(Debug)]
pub struct Declarations {
    place: String,
    entries: BTreeMap<&'static str, Entry>,
    problems: Vec<Problem>,
}

impl Declarations {
    /// Reads a file. `keys` are the paths of all keys that exist.
    ///
    /// A file that cannot be read, or is not TOML, gives no keys and at least one problem.
    pub fn read(path: &Path, keys: &[&'static str]) -> Self {
        match read_bounded(path) {
            Ok(text) => Declarations::parse(path, &text, keys),
            Err(rule) => {
                let problem = Problem::of_place(path.display(), rule.must, rule.remedy);
                let place = path.display().to_string();
                Declarations { place, entries: BTreeMap::new(), problems: vec![problem] }
            }
        }
    }

    /// Reads a file's text.
    pub fn parse(path: &Path, text: &str, keys: &[&'static str]) -> Self {
        let mut declarations = Declarations {
            place: path.display().to_string(),
            entries: BTreeMap::new(),
            problems: Vec::new(),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        // What a parser recovers after a syntax error is a guess: its keys would give problems that
        // are none.
        if errors.is_empty() {
            declarations.flatten(table.get_ref(), "", text, keys);
        }
        for error in errors {
            let line = error.span().map(|span| line_of(text, span.start));
            let message = error.message().replace('\n', ", ");
            let remedy = "correct the TOML at this place";
            declarations.problems.push(Problem {
                line,
                ..Problem::of_place(&declarations.place, format!("not TOML: {message}"), remedy)
            });
        }
        declarations
    }

    /// Takes a key's value through `convert`. `None` where the key is not declared, or its value
    /// breaks the rule, which is then one of the problems.
    pub fn take<T>(
        &mut self,
        key: &str,
        convert: impl FnOnce(&Value) -> Result<T, Rule>,
    ) -> Option<T> {
        let entry = self.entries.remove(key)?;
        match convert(&entry.value) {
            Ok(value) => Some(value),
            Err(rule) => {
                self.problems.push(Problem {
                    line: Some(entry.line),
                    key: Some(key.to_owned()),
                    value: Some(entry.value.to_string()),
                    ..Problem::of_place(&self.place, rule.must, rule.remedy)
                });
                None
            }
        }
    }

    /// As [`Declarations::take`], for a key that holds values in values, of which several may be
    /// wrong.
    pub(crate) fn take_nested<T>(
        &mut self,
        key: &str,
        convert: impl FnOnce(&Value, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        let entry = self.entries.remove(key)?;
        let mut faults = Faults::of(key);
        let value = convert(&entry.value, &mut faults);
        for (path, value, rule) in faults.into_iter() {
            self.problems.push(Problem {
                line: Some(entry.line),
                key: Some(path),
                value,
                ..Problem::of_place(&self.place, rule.must, rule.remedy)
            });
        }
        value
    }

    /// Returns the line of a key that is declared and not taken yet, counted from 1.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.entries.get(key).map(|entry| entry.line)
    }

    /// Returns all problems found, in the order of their lines.
    pub fn into_problems(mut self) -> Vec<Problem> {
        debug_assert!(self.entries.is_empty(), "declared but never taken: {:?}", self.entries);
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }

    fn flatten(&mut self, table: &DeTable<'_>, prefix: &str, text: &str, keys: &[&'static str]) {
        for (name, value) in table.iter() {
            let path = match prefix {
                "" => name.get_ref().to_string(),
                _ => format!("{prefix}.{}", name.get_ref()),
            };
            let line = line_of(text, name.span().start);
            let known = keys.iter().find(|&&key| key == path);
            let is_section = keys.iter().any(|key| in_section(key, &path));
            match (value.get_ref(), known) {
                (DeValue::Table(inner), None) if is_section => {
                    self.flatten(inner, &path, text, keys);
                }
                (value, Some(&key)) => {
                    self.entries.insert(key, Entry { value: Value::from_toml(value), line });
                }
                (value, None) => {
                    let is_table = matches!(value, DeValue::Table(_));
                    let rule = unknown(&path, is_table, keys);
                    self.problems.push(Problem {
                        line: Some(line),
                        key: Some(path),
                        value: (!is_table).then(|| Value::from_toml(value).to_string()),
                        ..Problem::of_place(&self.place, rule.must, rule.remedy)
                    });
                }
            }
        }
    }
}

fn bytes(text: &str) -> Option<usize> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let unit: usize = match unit.trim_start() {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// Says what is wrong with a key that is not in the list, and what was probably meant.
fn unknown(path: &str, is_table: bool, keys: &[&'static str]) -> Rule {
    let inside: Vec<&str> = keys.iter().copied().filter(|key| in_section(key, path)).collect();
    if !inside.is_empty() {
        return Rule::new("must be a section", format!("write one of {}", inside.join(", ")));
    }
    let sections = keys.iter().filter_map(|key| key.rsplit_once('.').map(|(section, _)| section));
    let remedy = if is_table {
        let keys = keys.iter().copied().filter(|key| !key.contains('.'));
        nearest(path, sections.chain(keys)).map(|nearest| format!("did you mean [{nearest}]?"))
    } else {
        nearest(path, keys.iter().copied()).map(|nearest| format!("did you mean {nearest}?"))
    };
    Rule::new("unknown key", remedy.unwrap_or_else(|| format!("the keys are {}", keys.join(", "))))
}

fn in_section(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

pub(crate) fn read_bounded(path: &Path) -> Result<String, Rule> {
    let unreadable = |error: std::io::Error| {
        Rule::new(
            format!("cannot be read: {error}"),
            "check that the file exists and its permissions",
        )
    };
    // Opening a pipe would wait for its writer, so what kind it is comes first.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(Rule::new("is not a file", "put a TOML file here"));
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Rule::new("is larger than 1 MiB", "check that this is the right file"));
    }
    String::from_utf8(bytes).map_err(|_| Rule::new("is not UTF-8", "save the file as UTF-8"))
}

/// Returns the candidate that somebody who wrote `wrong` most likely meant: the same last segment in
/// another section, or a few letters' difference.
pub fn nearest<'c>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'c str> + Clone,
) -> Option<&'c str> {
    fn last(path: &str) -> &str {
        path.rsplit('.').next().unwrap_or(path)
    }
    let elsewhere = candidates.clone().into_iter().find(|key| last(key) == last(wrong));
    elsewhere.or_else(|| {
        candidates
            .into_iter()
            .map(|key| {
                let whole = strsim::normalized_damerau_levenshtein(key, wrong);
                let part = strsim::normalized_damerau_levenshtein(last(key), last(wrong));
                (whole.max(part), key)
            })
            .filter(|(likeness, _)| *likeness >= 0.6)
            .max_by(|(left, _), (right, _)| left.total_cmp(right))
            .map(|(_, key)| key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[&str] = &["engine", "batching.max_rows", "batching.exact", "queue.capacity"];

    fn problems(text: &str) -> Vec<String> {
        let mut declarations = Declarations::parse(Path::new("a.toml"), text, KEYS);
        for key in KEYS {
            declarations.take(key, |_| Ok(()));
        }
        declarations.into_problems().iter().map(Problem::to_string).collect()
    }

    #[test]
    fn unknown_keys_are_all_reported_with_the_nearest_right_one() {
        struct Case(&'static str, &'static [&'static str]);
        let cases = [
            Case("engine = 'auto'\n[batching]\nmax_rows = 1\nexact = true", &[]),
            Case("batching = { max_rows = 1 }\nqueue.capacity = 2", &[]),
            Case(
                "\nmax_rows = 8\n[batching]\nmax_row = 4",
                &[
                    "a.toml:2: max_rows = 8: unknown key; did you mean batching.max_rows?",
                    "a.toml:4: batching.max_row = 4: unknown key; did you mean batching.max_rows?",
                ],
            ),
            Case("[batch]", &["a.toml:1: batch: unknown key; did you mean [batching]?"]),
            Case(
                "queue = 5",
                &["a.toml:1: queue = 5: must be a section; write one of queue.capacity"],
            ),
            Case(
                "zzz = [1, 'a', 1.5]",
                &["a.toml:1: zzz = [1, \"a\", 1.5]: unknown key; the keys are engine, \
                   batching.max_rows, batching.exact, queue.capacity"],
            ),
        ];
        for Case(text, expected) in cases {
            assert_eq!(problems(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_toml_says_where() {
        let problems = problems("engine = 'auto'\n[batching\nmax_rows = = 2\n");
        assert!(problems.len() >= 2, "both mistakes are reported: {problems:?}");
        assert!(problems[0].starts_with("a.toml:2: not TOML: "), "{problems:?}");
        assert!(problems[1].starts_with("a.toml:3: not TOML: "), "{problems:?}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_one_problem() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let read = || Declarations::read(&path, KEYS).into_problems()[0].rule.clone();
        assert!(read().starts_with("cannot be read"));
        std::fs::write(&path, b"engine = '\xff'").unwrap();
        assert_eq!(read(), "is not UTF-8");
        std::fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
        assert_eq!(read(), "is larger than 1 MiB");
    }

    #[test]
    fn values_convert_only_where_they_fit() {
        assert_eq!(Value::from_text("true"), Value::Boolean(true));
        assert_eq!(Value::from_text("12").whole(), Some(12));
        assert_eq!(Value::Whole(-1).whole(), None);
        assert_eq!(Value::from_text("2ms").duration(), Some(Duration::from_millis(2)));
        assert_eq!(Value::Whole(2).duration(), None, "a duration needs a unit");
        assert_eq!(Value::from_text("127.0.0.1:1").text(), Some("127.0.0.1:1"));
    }
}
