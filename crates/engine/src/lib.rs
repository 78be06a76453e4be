//! Running a model: the [`Engine`], [`LoadedModel`] and [`Session`] traits, the embedded engine, and
//! the behaviour suite that every engine passes.
//!
//! Invariant: an engine answers exactly or not at all. What it cannot do exactly (an operator, an
//! element type, a range of numbers) is a [`LoadError`] that names the node and the operator, or,
//! where only a value tells, a [`RunError`]; never an approximation.
//!
//! Everything here is synchronous. Queues, batches and threads are `scheduler`'s business; finding
//! files is `repository`'s; what the file declares is read by `onnx`.

pub mod embedded;
mod error;
#[cfg(feature = "testsuite")]
pub mod testsuite;

use std::num::NonZeroUsize;
use std::sync::Arc;

pub use error::{LoadError, RunError};
use outhaul_onnx::OnnxModel;
use outhaul_types::{BoundInputs, Tensors};

/// A library that runs models.
pub trait Engine: Send + Sync {
    /// Returns the name that manifests and logs use, such as `onnxruntime`.
    fn name(&self) -> &'static str;

    /// Returns the library's version, such as `1.31.1`.
    fn version(&self) -> String;

    /// Makes a model, whose file `onnx` has read and checked, ready to run.
    ///
    /// # Errors
    ///
    /// Fails where the file is damaged or holds something that this engine does not do exactly.
    fn load(
        &self,
        model: &OnnxModel,
        options: &LoadOptions,
    ) -> Result<Arc<dyn LoadedModel>, LoadError>;
}

/// How a model is to be loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Threads that one run is spread over.
    pub threads: NonZeroUsize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { threads: NonZeroUsize::MIN }
    }
}

/// The weights of one model in an engine, shared by all its sessions.
pub trait LoadedModel: Send + Sync {
    /// Returns the engine that loaded it.
    fn engine(&self) -> &'static str;

    /// Opens a session: the state that one thread needs to run the model. Cheap; the weights are
    /// not copied.
    ///
    /// # Errors
    ///
    /// Fails where the engine cannot allocate what the session needs.
    fn session(&self) -> Result<Box<dyn Session>, LoadError>;
}

/// One thread's way to run a model.
pub trait Session: Send {
    /// Runs the model once and returns all outputs, in the signature's order.
    ///
    /// `inputs` must come from [`outhaul_types::ModelSignature::bind`] with the model's own
    /// signature, so types and ranks are right; `None` leaves an optional input at its default.
    ///
    /// # Errors
    ///
    /// Fails where the model fails on these values. The session remains usable.
    fn run(&mut self, inputs: &BoundInputs) -> Result<Tensors, RunError>;
}
