//! The file, the environment and the flags, from which settings are taken one after the other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use outhaul_repository::{Declarations, Problem, Rule, Value, nearest};

use super::settings::{ALL, Setting};
use super::{CONFIG_FILE, OTHER_VARIABLES, Origin, Sourced, platform};

/// Everything that may set a setting.
pub(crate) struct Sources {
    file: Option<(PathBuf, Declarations)>,
    /// What a managed platform tells, by the key that it sets: its variable and the value.
    platform: BTreeMap<&'static str, (&'static str, Value)>,
    /// Variables by name.
    environment: BTreeMap<String, OsString>,
    /// Flags by the key that they set. Only flags that were given.
    flags: BTreeMap<&'static str, Vec<String>>,
    problems: Vec<Problem>,
}

impl Sources {
    /// Collects the sources. `environment` may hold other variables: those are left alone.
    pub(crate) fn new(
        file: Option<(PathBuf, Declarations)>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: BTreeMap<&'static str, Vec<String>>,
    ) -> Self {
        let environment = environment
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with("OUTHAUL_") || platform::is_told(name))
            .collect();
        let platform = platform::read(&environment);
        Sources { file, platform, environment, flags, problems: Vec::new() }
    }

    /// Takes one setting from the strongest source that has it. A wrong value in a weaker source is
    /// a problem all the same: it would surface later, when nobody remembers it.
    pub(super) fn take<T>(
        &mut self,
        setting: &Setting,
        default: T,
        convert: impl Fn(&Value) -> Result<T, Rule>,
    ) -> Sourced<T> {
        let mut taken = Sourced { value: default, origin: Origin::Default };
        if let Some((file, declarations)) = &mut self.file
            && let Some(line) = declarations.line(setting.key)
            && let Some(value) = declarations.take(setting.key, &convert)
        {
            taken = Sourced { value, origin: Origin::File { file: file.clone(), line } };
        }
        if let Some((variable, value)) = self.platform.get(setting.key) {
            match convert(value) {
                Ok(value) => taken = Sourced { value, origin: Origin::Environment(variable) },
                Err(rule) => {
                    let place = format!("environment variable {variable}");
                    self.problems.push(problem(place, &value.to_string(), rule));
                }
            }
        }
        if let Some(text) = self.environment.get(setting.variable) {
            let place = format!("environment variable {}", setting.variable);
            match from_variable(setting, text).and_then(|value| convert(&value)) {
                Ok(value) => {
                    taken = Sourced { value, origin: Origin::Environment(setting.variable) };
                }
                Err(rule) => self.problems.push(problem(place, &text.to_string_lossy(), rule)),
            }
        }
        if let Some(texts) = self.flags.get(setting.key) {
            let values: Vec<Value> = texts.iter().map(|text| from_text(setting, text)).collect();
            let value = match <[Value; 1]>::try_from(values) {
                Ok([value]) => value,
                Err(values) => Value::List(values),
            };
            match convert(&value) {
                Ok(value) => taken = Sourced { value, origin: Origin::Flag(setting.flag) },
                Err(rule) => {
                    self.problems.push(problem(setting.flag.to_owned(), &texts.join(" "), rule));
                }
            }
        }
        taken
    }

    /// Returns the problems of all sources: file, environment, flags.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        let mut problems = self.file.map(|(_, file)| file.into_problems()).unwrap_or_default();
        problems.append(&mut self.problems);
        problems
    }

    /// Returns a note on every variable that looks like a misspelt one of ours.
    ///
    /// They are no problems: beside a Kubernetes service called `outhaul`, every container gets
    /// variables such as `OUTHAUL_SERVICE_HOST`.
    pub(crate) fn suspicious_variables(&self) -> Vec<String> {
        let known: Vec<&str> =
            ALL.iter().map(|setting| setting.variable).chain(OTHER_VARIABLES).collect();
        let unknown = self.environment.keys().filter(|name| !known.contains(&name.as_str()));
        let close = |name: &&String| {
            name.starts_with("OUTHAUL_")
                && !name.starts_with("OUTHAUL_SERVICE_")
                && !name.starts_with("OUTHAUL_PORT")
        };
        unknown
            .filter(close)
            .filter_map(|name| {
                let nearest = nearest(name, known.iter().copied())?;
                Some(format!(
                    "the environment variable {name} is not read; did you mean {nearest}?"
                ))
            })
            .collect()
    }
}

fn from_text(setting: &Setting, text: &str) -> Value {
    if setting.typed { Value::from_text(text) } else { Value::Text(text.to_owned()) }
}

fn from_variable(setting: &Setting, text: &OsString) -> Result<Value, Rule> {
    if setting.key == "models" {
        // A URL has the separator of paths in it.
        if let Some(text) = text.to_str().filter(|text| text.contains("://")) {
            let places = text.split(',').map(|place| Value::Text(place.trim().to_owned()));
            return Ok(Value::List(places.collect()));
        }
        let paths = std::env::split_paths(text).map(|path| path.into_os_string().into_string());
        let paths: Result<Vec<_>, _> = paths.collect();
        if let Ok(paths) = paths {
            return Ok(Value::List(paths.into_iter().map(Value::Text).collect()));
        }
    }
    let text = text.to_str().ok_or_else(|| Rule::new("is not UTF-8", "set another value"))?;
    Ok(from_text(setting, text))
}

fn problem(place: String, value: &str, rule: Rule) -> Problem {
    Problem { value: Some(value.to_owned()), ..Problem::of_place(place, rule.must, rule.remedy) }
}

/// Reads the file that was named, or `outhaul.toml` in the working folder where there is one.
pub(crate) fn read_file(named: Option<&Path>) -> Option<(PathBuf, Declarations)> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => {
            let path = PathBuf::from(CONFIG_FILE);
            // Whatever is there but cannot be read is told by reading it.
            path.symlink_metadata().ok()?;
            path
        }
    };
    let keys: Vec<&'static str> = ALL.iter().map(|setting| setting.key).collect();
    let declarations = Declarations::read(&path, &keys);
    Some((path, declarations))
}
