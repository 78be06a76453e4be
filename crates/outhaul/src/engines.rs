//! The engines of this process, and the choice between them for one model.

use std::path::Path;
use std::sync::Arc;

use outhaul_engine::embedded::Embedded;
use outhaul_engine::{Engine, LoadError, LoadOptions, LoadedModel};
use outhaul_engine_ort::find_library;
use outhaul_onnx::OnnxModel;
use outhaul_types::{EngineChoice, error_chain};

/// The engines of this process.
#[derive(Clone)]
pub struct Engines {
    onnxruntime: Result<Arc<dyn Engine>, String>,
    embedded: Arc<dyn Engine>,
}

/// An engine's name with the engine, or why it cannot be used.
pub type NamedEngine<'a> = (&'static str, Result<&'a Arc<dyn Engine>, &'a str>);

/// A loaded model, and why its engine was chosen.
pub(crate) struct Chosen {
    pub(crate) model: Arc<dyn LoadedModel>,
    pub(crate) reason: String,
}

/// Why no engine took a model.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoEngine(String);

impl Engines {
    /// Looks for ONNX Runtime's library and makes the engines ready. `library` is the file that the
    /// user named. Call this before threads are started: the library's telemetry can only be turned
    /// off through the process's environment.
    ///
    /// # Errors
    ///
    /// Fails where the user named a library that cannot be used. Where none was named and none is
    /// found, the embedded engine serves alone.
    pub fn find(library: Option<&Path>) -> Result<Self, NoEngine> {
        let found = find_library(library).open().map_err(|error| no(&error))?;
        let onnxruntime = match found {
            Some(engine) => Ok(engine as Arc<dyn Engine>),
            None => Err("no ONNX Runtime library was found (`outhaul doctor` lists where it was \
                         looked for)"
                .to_owned()),
        };
        Ok(Engines { onnxruntime, embedded: Arc::new(Embedded) })
    }

    /// One engine in place of the embedded one, and no ONNX Runtime.
    #[cfg(test)]
    pub(crate) fn of(engine: Arc<dyn Engine>) -> Self {
        Engines { onnxruntime: Err("not looked for".to_owned()), embedded: engine }
    }

    /// Returns every engine with its name, and why it cannot be used where it cannot.
    pub fn all(&self) -> [NamedEngine<'_>; 2] {
        let onnxruntime = self.onnxruntime.as_ref().map_err(String::as_str);
        [("onnxruntime", onnxruntime), ("embedded", Ok(&self.embedded))]
    }

    /// Loads a model in the engine that `choice` asks for.
    pub(crate) fn load(
        &self,
        model: &OnnxModel,
        choice: EngineChoice,
        options: &LoadOptions,
    ) -> Result<Chosen, NoEngine> {
        let declared = |engine: &Arc<dyn Engine>| {
            let reason = "the manifest asks for it".to_owned();
            engine
                .load(model, options)
                .map(|model| Chosen { model, reason })
                .map_err(|error| no(&error))
        };
        match choice {
            EngineChoice::OnnxRuntime => match &self.onnxruntime {
                Ok(engine) => declared(engine),
                Err(reason) => Err(NoEngine(reason.clone())),
            },
            EngineChoice::Embedded => declared(&self.embedded),
            EngineChoice::Auto => self.load_auto(model, options),
        }
    }

    /// ONNX Runtime where its library was found and takes the model, else the embedded engine.
    fn load_auto(&self, model: &OnnxModel, options: &LoadOptions) -> Result<Chosen, NoEngine> {
        let why_not = match &self.onnxruntime {
            Err(reason) => reason.clone(),
            Ok(engine) => match engine.load(model, options) {
                Ok(model) => {
                    let reason = "its library was found".to_owned();
                    return Ok(Chosen { model, reason });
                }
                // Only what ONNX Runtime does not do is worth another try: a damaged file is
                // damaged for every engine.
                Err(error @ LoadError::Unsupported { .. }) => error_chain(&error),
                Err(error) => return Err(no(&error)),
            },
        };
        match self.embedded.load(model, options) {
            Ok(model) => Ok(Chosen { model, reason: why_not }),
            Err(error) => Err(NoEngine(format!("{}; {why_not}", error_chain(&error)))),
        }
    }
}

fn no(error: &LoadError) -> NoEngine {
    NoEngine(error_chain(error))
}
