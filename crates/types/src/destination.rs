//! Where a request may be sent, and how people write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ModelName, ModelVersion, Name, VersionChoice};

/// Where a request may be sent: a model or pipeline of this server, or a model of another one. Written
/// as `reviews` (the newest version), `reviews@3`, `reviews@stable`, or as the URL of a model that speaks the
/// Open Inference Protocol: `http://host:8080/v2/models/reviews`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A model or pipeline here.
    Model {
        /// Its name.
        name: ModelName,
        /// Its version.
        version: VersionChoice,
    },
    /// A model elsewhere.
    Remote(Name),
}

impl Destination {
    /// Returns the model of this server that it names, where it names one.
    pub fn model(&self) -> Option<&ModelName> {
        match self {
            Destination::Model { name, .. } => Some(name),
            Destination::Remote(_) => None,
        }
    }

    /// Returns the exact version that it names, where it names one.
    pub fn exact(&self) -> Option<(&ModelName, ModelVersion)> {
        match self {
            Destination::Model { name, version: VersionChoice::Exact(version) } => {
                Some((name, *version))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Remote(url) => f.write_str(url),
            Destination::Model { name, version: VersionChoice::Latest } => write!(f, "{name}"),
            Destination::Model { name, version: VersionChoice::Exact(version) } => {
                write!(f, "{name}@{version}")
            }
            Destination::Model { name, version: VersionChoice::Label(label) } => {
                write!(f, "{name}@{label}")
            }
        }
    }
}

impl FromStr for Destination {
    type Err = InvalidDestination;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDestination(text.chars().take(200).collect());
        if text.starts_with("http://") || text.starts_with("https://") {
            let (_, rest) = text.split_once("://").ok_or_else(invalid)?;
            let named = rest.split_once("/v2/models/").is_some_and(|(host, model)| {
                !host.is_empty() && !model.is_empty() && !model.contains(['?', '#', ' '])
            });
            return if named { Ok(Destination::Remote(text.into())) } else { Err(invalid()) };
        }
        let (name, version) = text.split_once('@').unwrap_or((text, ""));
        let name = ModelName::new(name).map_err(|_| invalid())?;
        let version = match (text.contains('@'), version.parse()) {
            (false, _) => VersionChoice::Latest,
            (true, Ok(version)) if !version_is_open(&version) => version,
            _ => return Err(invalid()),
        };
        Ok(Destination::Model { name, version })
    }
}

/// `reviews@` and `reviews@0` would read as the newest version, which is written without `@`.
fn version_is_open(version: &VersionChoice) -> bool {
    matches!(version, VersionChoice::Latest)
}

/// A text that names no destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' names no model: write NAME, NAME@VERSION, NAME@LABEL, or the URL http://HOST/v2/models/NAME"
)]
pub struct InvalidDestination(String);

impl Serialize for Destination {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
