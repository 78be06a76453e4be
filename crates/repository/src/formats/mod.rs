//! Model folders as other servers and tools write them, opened as they are.
//!
//! A format reads what is declared beside the model files (never the model files themselves) and says
//! what it means in our words: a [`ModelManifest`], where the model file lies, and a problem for
//! everything that has no meaning here. Nothing that a user declared is dropped in silence: what
//! would change an answer or a limit is an error, what would change only speed is a warning.

pub(crate) mod huggingface;
mod keys;
mod mlflow;
mod mlserver;
pub(crate) mod pipeline;
pub mod tensorflow;
mod textproto;
mod triton;
mod version_policy;

use std::path::Path;
use std::sync::Arc;

use outhaul_pipeline::Outline;
use outhaul_types::{ModelManifest, ModelName};

use crate::Problem;

/// What a foreign folder declares of one model.
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    /// The name that it gives the model; the folder's where `None`.
    pub name: Option<ModelName>,
    /// What is declared, in our words. `None` where something is wrong that forbids to serve it; the
    /// problems tell what.
    pub manifest: Option<ModelManifest>,
    /// The path of the model file: inside each version's folder where there are version folders, else
    /// inside the model's own folder. `model.onnx` where `None`.
    pub model_file: Option<String>,
    /// Set where it is no model but a pipeline of them.
    pub pipeline: Option<Arc<Outline>>,
    /// Errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
}

/// A kind of folder that is told by a file in it.
pub struct Format {
    /// What people call it, such as `Triton`.
    pub name: &'static str,
    /// The file that tells it, such as `config.pbtxt`.
    pub file: &'static str,
    /// Where the file's name may be anybody's: of these files and folders one must be there too.
    pub beside: &'static [&'static str],
    /// Whether a `model.toml` beside only adds to what the files say, which hold the model itself.
    pub is_completed: bool,
    /// Reads the folder that holds the file.
    pub read: fn(folder: &Path) -> Foreign,
}

impl Format {
    const fn of(name: &'static str, file: &'static str, read: fn(&Path) -> Foreign) -> Self {
        Format { name, file, beside: &[], is_completed: false, read }
    }

    /// Returns whether a folder that has the entries for which `has` is true is of this format.
    pub fn is_told_by(&self, has: impl Fn(&str) -> bool) -> bool {
        has(self.file) && (self.beside.is_empty() || self.beside.iter().any(|name| has(name)))
    }
}

/// Every format, in the order in which a folder is asked for them. `model.toml` comes before all.
pub const FORMATS: &[Format] = &[
    Format::of("Triton", triton::FILE, triton::read),
    Format::of("MLflow", mlflow::FILE, mlflow::read),
    Format::of("KServe/MLServer", mlserver::FILE, mlserver::read),
    Format {
        beside: huggingface::BESIDE,
        is_completed: true,
        ..Format::of("Hugging Face", huggingface::FILE, huggingface::read)
    },
];
