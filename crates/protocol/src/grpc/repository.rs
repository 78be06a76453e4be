//! Messages of the repository extension to what they ask for.

use std::collections::BTreeMap;

use super::pb::model_repository_parameter::ParameterChoice;
use super::pb::{
    ModelRepositoryParameter, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
};
use crate::repository::{
    LoadRequest, UNLOAD_DEPENDENTS, VERSION, not_for_load, not_for_unload, version,
};
use crate::{FieldProblem, ProtocolError};

/// Reads a message that asks for a model to be loaded: its name, and what to load of it.
///
/// # Errors
///
/// Fails where no model is named, and with the first parameter that a load does not take, such as
/// Triton's `config` and `file:...`, which would load something else than the repository holds.
pub fn decode_load(
    message: RepositoryModelLoadRequest,
) -> Result<(String, LoadRequest), ProtocolError> {
    let model = model(message.repository_name, message.model_name)?;
    let mut request = LoadRequest::default();
    for (name, value) in &message.parameters {
        if name != VERSION {
            return Err(not_for_load(name));
        }
        request.version = Some(match &value.parameter_choice {
            Some(ParameterChoice::StringParam(text)) => version(text)?,
            Some(ParameterChoice::Int64Param(number)) => version(&number.to_string())?,
            other => return Err(wrong_type(name, "a number or a string", other.as_ref())),
        });
    }
    Ok((model, request))
}

/// Reads a message that asks for a model to be unloaded: its name.
///
/// # Errors
///
/// Fails where no model is named, and with the first parameter that an unload does not take.
pub fn decode_unload(message: RepositoryModelUnloadRequest) -> Result<String, ProtocolError> {
    let parameters: &BTreeMap<String, ModelRepositoryParameter> = &message.parameters;
    for (name, value) in parameters {
        if name != UNLOAD_DEPENDENTS {
            return Err(not_for_unload(name));
        }
        if !matches!(value.parameter_choice, Some(ParameterChoice::BoolParam(_))) {
            return Err(wrong_type(name, "true or false", value.parameter_choice.as_ref()));
        }
    }
    model(message.repository_name, message.model_name)
}

/// Returns the model that a message names. In KServe's form of the messages its name has the number
/// that Triton gives to the repository's.
fn model(repository: String, model: String) -> Result<String, ProtocolError> {
    match (repository.is_empty(), model.is_empty()) {
        (true, false) => Ok(model),
        (false, true) => Ok(repository),
        (true, true) => Err(ProtocolError::field("model_name", FieldProblem::Empty)),
        (false, false) => Err(one_repository(&repository)),
    }
}

/// Returns the error for a repository that is named: there is one, which has no name.
pub fn one_repository(name: &str) -> ProtocolError {
    let expected = "empty, since there is one repository".into();
    let received = format!("'{}'", crate::error::excerpt(name));
    ProtocolError::field("repository_name", FieldProblem::OutOfRange { expected, received })
}

fn wrong_type(
    name: &str,
    expected: &'static str,
    received: Option<&ParameterChoice>,
) -> ProtocolError {
    let received = match received {
        None => "nothing",
        Some(ParameterChoice::BoolParam(_)) => "a boolean",
        Some(ParameterChoice::Int64Param(_)) => "a number",
        Some(ParameterChoice::StringParam(_)) => "a string",
        Some(ParameterChoice::BytesParam(_)) => "bytes",
    };
    let problem =
        FieldProblem::OutOfRange { expected: expected.into(), received: received.to_owned() };
    ProtocolError::field(format!("parameters.{name}"), problem)
}

#[cfg(test)]
mod tests {
    use outhaul_types::ModelVersion;

    use super::*;

    fn parameters(
        name: &str,
        choice: Option<ParameterChoice>,
    ) -> BTreeMap<String, ModelRepositoryParameter> {
        [(name.to_owned(), ModelRepositoryParameter { parameter_choice: choice })].into()
    }

    #[test]
    fn a_load_obeys_or_refuses_each_parameter() {
        use ParameterChoice::{BoolParam, BytesParam, Int64Param, StringParam};
        let load = |parameters| {
            decode_load(RepositoryModelLoadRequest {
                model_name: "iris".into(),
                parameters,
                ..Default::default()
            })
        };
        assert_eq!(load(BTreeMap::new()), Ok(("iris".into(), LoadRequest::default())));
        for choice in [Int64Param(3), StringParam("3".into())] {
            let expected = LoadRequest { version: Some(ModelVersion(3)) };
            assert_eq!(load(parameters("version", Some(choice))), Ok(("iris".into(), expected)));
        }
        for (name, choice, start) in [
            ("version", Int64Param(0), "'parameters.version' must be the number of a version"),
            ("version", Int64Param(-1), "'parameters.version' must be the number of a version"),
            ("version", BoolParam(true), "'parameters.version' must be a number or a string, got"),
            ("config", StringParam("{}".into()), "'config' of a load request is not supported"),
            ("file:1/a", BytesParam(vec![1]), "'file:1/a' of a load request is not supported"),
            ("colour", Int64Param(1), "'colour' of a load request is not supported"),
        ] {
            let error = load(parameters(name, Some(choice))).unwrap_err().to_string();
            assert!(error.starts_with(start), "{name}: {error}");
        }
        let error = load(parameters("version", None)).unwrap_err().to_string();
        assert!(error.ends_with("got nothing"), "{error}");
    }

    #[test]
    fn the_model_is_named_by_triton_or_by_kserve() {
        let unload = |repository: &str, model: &str| {
            let message = RepositoryModelUnloadRequest {
                repository_name: repository.into(),
                model_name: model.into(),
                parameters: parameters(UNLOAD_DEPENDENTS, Some(ParameterChoice::BoolParam(true))),
            };
            decode_unload(message).map_err(|error| error.to_string())
        };
        assert_eq!(unload("", "iris"), Ok("iris".into()));
        assert_eq!(unload("iris", ""), Ok("iris".into()));
        assert_eq!(unload("", ""), Err("'model_name' must not be empty".into()));
        assert_eq!(
            unload("other", "iris"),
            Err("'repository_name' must be empty, since there is one repository, got 'other'"
                .into())
        );
    }

    #[test]
    fn an_unload_takes_what_triton_sends() {
        for (name, choice) in [
            ("version", ParameterChoice::Int64Param(1)),
            (UNLOAD_DEPENDENTS, ParameterChoice::Int64Param(1)),
        ] {
            let message = RepositoryModelUnloadRequest {
                model_name: "iris".into(),
                parameters: parameters(name, Some(choice)),
                ..Default::default()
            };
            let error = decode_unload(message).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
