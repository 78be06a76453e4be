//! What a path under `/v1/models/` asks for.

use outhaul_types::{InvalidVersion, Label, Name, VersionChoice};

use crate::error::excerpt;
use crate::oip::Target;

/// What is to be done with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Verb {
    Predict,
    Classify,
    Regress,
}

/// What is to be told of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// How its versions stand.
    Status,
    /// What it takes and gives.
    Metadata,
}

/// A path under `/v1/models/`, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path<A> {
    /// The model and the version.
    pub target: Target,
    /// What is asked.
    pub asked: A,
}

/// Why a path asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum PathError {
    #[error("no such path: a model's path ends in :predict, :classify or :regress, got '{0}'")]
    NoVerb(String),
    #[error("no such path: '{0}' is none of a model")]
    NoModel(String),
    #[error(transparent)]
    Version(#[from] InvalidVersion),
}

impl Path<Verb> {
    /// Reads what follows `/v1/models/` in the path of a prediction: `iris:predict`,
    /// `iris/versions/1:predict`, `iris/labels/stable:predict`.
    ///
    /// # Errors
    ///
    /// Fails where there is no verb or no model, or where the version is none.
    pub fn of_prediction(rest: &str) -> Result<Self, PathError> {
        let no_verb = || PathError::NoVerb(excerpt(rest));
        let (model, verb) = rest.rsplit_once(':').ok_or_else(no_verb)?;
        let asked = match verb {
            "predict" => Verb::Predict,
            "classify" => Verb::Classify,
            "regress" => Verb::Regress,
            _ => return Err(no_verb()),
        };
        Ok(Path { target: target(model)?, asked })
    }
}

impl Path<Question> {
    /// Reads what follows `/v1/models/` in the path of a description: `iris`, `iris/metadata`,
    /// `iris/versions/1/metadata`.
    ///
    /// # Errors
    ///
    /// Fails where there is no model or where the version is none.
    pub fn of_description(rest: &str) -> Result<Self, PathError> {
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        match rest.strip_suffix("/metadata") {
            Some(model) => Ok(Path { target: target(model)?, asked: Question::Metadata }),
            None => Ok(Path { target: target(rest)?, asked: Question::Status }),
        }
    }
}

fn target(path: &str) -> Result<Target, PathError> {
    let mut segments = path.split('/');
    let model = segments.next().unwrap_or("");
    let version = match (segments.next(), segments.next(), segments.next()) {
        (None, ..) => VersionChoice::Latest,
        // 0 is the latest one, as ovmsclient asks for it.
        (Some("versions"), Some(version), None) => version.parse()?,
        (Some("labels"), Some(label), None) => VersionChoice::Label(Label::new(label)?),
        _ => return Err(PathError::NoModel(excerpt(path))),
    };
    if model.is_empty() {
        return Err(PathError::NoModel(excerpt(path)));
    }
    Ok(Target { model: Name::from(model), version })
}
