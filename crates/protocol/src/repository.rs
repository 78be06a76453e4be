//! Requests to the repository of models, before any contract reads them: what a load and an unload
//! may be told, alike over HTTP and gRPC.
//!
//! Invariant: a parameter that would change what is loaded is obeyed or refused by its name, never
//! skipped. That a model exists is not known here.

use outhaul_types::ModelVersion;

use crate::error::excerpt;
use crate::{FieldProblem, ProtocolError};

/// The parameter of a load that names one version. Triton has none like it.
pub(crate) const VERSION: &str = "version";

/// The parameter of an unload that lets go of what was loaded for the model alone. No model here
/// depends on another, so it holds either way.
pub(crate) const UNLOAD_DEPENDENTS: &str = "unload_dependents";

/// What a client asks to be loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadRequest {
    /// The version, or none where the model's own policy decides.
    pub version: Option<ModelVersion>,
}

/// Returns the error for a parameter that a load does not take.
pub(crate) fn not_for_load(name: &str) -> ProtocolError {
    let reason = match name {
        "config" => "a model is configured by the model.toml beside it",
        _ if name.starts_with("file:") => {
            "a model is loaded from the server's own repository, so put the file there"
        }
        _ => "a load takes the parameter 'version' alone",
    };
    not_supported("a load", name, reason)
}

/// Returns the error for a parameter that an unload does not take.
pub(crate) fn not_for_unload(name: &str) -> ProtocolError {
    not_supported("an unload", name, "an unload takes the parameter 'unload_dependents' alone")
}

/// Returns the error for a field that stands beside the parameters.
pub(crate) fn not_a_field(request: &'static str, name: &str) -> ProtocolError {
    not_supported(request, name, "beside 'parameters' there is nothing to give")
}

fn not_supported(request: &'static str, name: &str, reason: &'static str) -> ProtocolError {
    ProtocolError::NotTaken { request, name: excerpt(name), reason }
}

/// Reads the number of the version that is to be loaded.
pub(crate) fn version(text: &str) -> Result<ModelVersion, ProtocolError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number > 0 => Ok(ModelVersion(number)),
        _ => {
            let expected = "the number of a version, at least 1".into();
            let received = format!("'{}'", excerpt(text));
            let problem = FieldProblem::OutOfRange { expected, received };
            Err(ProtocolError::field("parameters.version", problem))
        }
    }
}
