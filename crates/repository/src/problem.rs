//! What an operator has to mend: one value that says where, what, why and how.

use std::fmt;

use outhaul_types::ModelName;
use serde::{Serialize, Serializer};

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is served all the same; something that was declared has no effect.
    Warning,
    /// It stops what it is about.
    #[default]
    Error,
}

/// Something wrong with a file, a folder, a variable or a flag. An error stops what it is about and nothing
/// else; a warning stops nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether it stops anything.
    pub severity: Severity,
    /// The model that it is about, where there is one.
    #[serde(serialize_with = "model_as_text")]
    pub model: Option<ModelName>,
    /// The file or folder, or the variable or flag that holds the value.
    pub place: String,
    /// The line in the file, counted from 1.
    pub line: Option<usize>,
    /// The key's path, such as `batching.max_rows`.
    pub key: Option<String>,
    /// The value as it was written.
    pub value: Option<String>,
    /// The rule that is broken.
    pub rule: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// Makes a problem of a whole place, such as a folder.
    pub fn of_place(
        place: impl fmt::Display,
        rule: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Problem {
            severity: Severity::Error,
            model: None,
            place: place.to_string(),
            line: None,
            key: None,
            value: None,
            rule: rule.into(),
            remedy: remedy.into(),
        }
    }

    /// Returns the problem as one that stops nothing.
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Returns what is wrong as one line, for who knows where.
    pub(crate) fn without_place(&self) -> String {
        let key = self.key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
        format!("{key}{}; {}", OneLine(&self.rule), OneLine(&self.remedy))
    }

    /// Returns the problem as one about `model`.
    pub fn of_model(mut self, model: &ModelName) -> Self {
        self.model = Some(model.clone());
        self
    }
}

/// A text of which no character starts a line or moves the cursor: names of files may hold any.
struct OneLine<'t>(&'t str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character.is_control() {
                true => write!(f, "{}", character.escape_default())?,
                false => fmt::Write::write_char(f, character)?,
            }
        }
        Ok(())
    }
}

/// One line; the alternate form leaves the severity to whoever writes it, such as a log.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.severity == Severity::Warning && !f.alternate() {
            f.write_str("warning: ")?;
        }
        write!(f, "{}", OneLine(&self.place))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, "{key} = {}: ", OneLine(value))?,
            (Some(key), None) => write!(f, "{key}: ")?,
            (None, Some(value)) => write!(f, "{}: ", OneLine(value))?,
            (None, None) => {}
        }
        write!(f, "{}; {}", OneLine(&self.rule), OneLine(&self.remedy))
    }
}

fn model_as_text<S: Serializer>(
    model: &Option<ModelName>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    model.as_ref().map(ModelName::as_str).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_as_one_line() {
        let mut problem = Problem::of_place("models/a", "there is no model file", "add one");
        assert_eq!(problem.to_string(), "models/a: there is no model file; add one");
        problem.line = Some(3);
        problem.key = Some("queue.capacity".to_owned());
        problem.value = Some("0".to_owned());
        problem.rule = "must be at least 1".to_owned();
        assert_eq!(
            problem.to_string(),
            "models/a:3: queue.capacity = 0: must be at least 1; add one"
        );
    }
}
