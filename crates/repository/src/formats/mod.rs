//! Model folders as other servers and tools write them, opened as they are.
//!
//! A format reads what is declared beside the model files (never the model files themselves) and says
//! what it means in our words: a [`ModelManifest`], where the model file lies, and a problem for
//! everything that has no meaning here. Nothing that a user declared is dropped in silence: what
//! would change an answer or a limit is an error, what would change only speed is a warning.

mod keys;
mod mlflow;
mod mlserver;
pub mod tensorflow;
mod textproto;
mod triton;
mod version_policy;

use std::path::Path;

use outhaul_types::{ModelManifest, ModelName};

use crate::Problem;

/// What a foreign folder declares of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreign {
    /// The name that it gives the model; the folder's where `None`.
    pub name: Option<ModelName>,
    /// What is declared, in our words. `None` where something is wrong that forbids to serve it; the
    /// problems tell what.
    pub manifest: Option<ModelManifest>,
    /// The path of the model file: inside each version's folder where there are version folders, else
    /// inside the model's own folder. `model.onnx` where `None`.
    pub model_file: Option<String>,
    /// Errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
}

/// A kind of folder that is told by a file in it.
pub struct Format {
    /// What people call it, such as `Triton`.
    pub name: &'static str,
    /// The file that tells it, such as `config.pbtxt`.
    pub file: &'static str,
    /// Reads the folder that holds the file.
    pub read: fn(folder: &Path) -> Foreign,
}

/// Every format, in the order in which a folder is asked for them. `model.toml` comes before all.
pub const FORMATS: &[Format] = &[
    Format { name: "Triton", file: triton::FILE, read: triton::read },
    Format { name: "MLflow", file: mlflow::FILE, read: mlflow::read },
    Format { name: "KServe/MLServer", file: mlserver::FILE, read: mlserver::read },
];
