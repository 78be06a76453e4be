//! Names and versions of models.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Name;

/// The name of a model: 1 to 128 characters of letters, digits, `-`, `_` and `.`, not starting with
/// a dot. It is safe as a folder name, a URL segment and a metric label. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// Checks and keeps a name.
    ///
    /// # Errors
    ///
    /// Fails where the name breaks the rule above.
    pub fn new(name: &str) -> Result<Self, InvalidModelName> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let valid = !name.is_empty()
            && name.len() <= 128
            && !name.starts_with('.')
            && name.chars().all(allowed);
        if valid {
            Ok(ModelName(name.into()))
        } else {
            Err(InvalidModelName(name.chars().take(128).collect()))
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ModelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        ModelName::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A name that cannot be a model's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a model name: use 1 to 128 letters, digits, '-', '_' or '.', not starting with \
     a dot"
)]
pub struct InvalidModelName(String);

/// The number of one immutable model artefact. Higher is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelVersion(pub u64);

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of a version that moves, such as `stable` or `canary`: 1 to 64 letters, digits, `-`, `_` or
/// `.`, beginning with a letter. Short ones need no allocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Name);

impl Label {
    /// Checks and keeps a label.
    ///
    /// # Errors
    ///
    /// Fails where the label breaks the rule above.
    pub fn new(text: &str) -> Result<Self, InvalidVersion> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let valid = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.len() <= 64
            && text.chars().all(allowed);
        if valid { Ok(Label(text.into())) } else { Err(InvalidVersion::of(text)) }
    }

    /// Returns the label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The version that a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum VersionChoice {
    /// The newest version that is ready.
    #[default]
    Latest,
    /// Exactly this one.
    Exact(ModelVersion),
    /// The one that carries this label.
    Label(Label),
}

impl FromStr for VersionChoice {
    type Err = InvalidVersion;

    /// Reads what clients put into a path or message: a number, where an empty text and `0` mean
    /// the latest (ovmsclient always asks for `0`), or a label.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text {
            "" => Ok(VersionChoice::Latest),
            _ if digits => match text.parse() {
                Ok(0) => Ok(VersionChoice::Latest),
                Ok(number) => Ok(VersionChoice::Exact(ModelVersion(number))),
                Err(_) => Err(InvalidVersion::of(text)),
            },
            _ => Label::new(text).map(VersionChoice::Label),
        }
    }
}

/// A text that is neither a version number nor a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a model version: expected a whole number or a label")]
pub struct InvalidVersion(String);

impl InvalidVersion {
    fn of(text: &str) -> Self {
        InvalidVersion(text.chars().take(32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_folder() {
        for name in ["iris", "a.b-c_d", "9"] {
            assert!(ModelName::new(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "é", &"x".repeat(129)] {
            assert!(ModelName::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn version_zero_means_the_latest() {
        assert_eq!("".parse(), Ok(VersionChoice::Latest));
        assert_eq!("0".parse(), Ok(VersionChoice::Latest));
        assert_eq!("3".parse(), Ok(VersionChoice::Exact(ModelVersion(3))));
        for text in ["-1", "+1", "1.0", "1a", ".", "_x", "a/b", "99999999999999999999999"] {
            assert!(text.parse::<VersionChoice>().is_err(), "{text}");
        }
        let stable = Label::new("stable").unwrap();
        assert_eq!("stable".parse(), Ok(VersionChoice::Label(stable)));
    }
}
