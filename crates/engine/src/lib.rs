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

/// Reads how many bytes the calling thread has allocated and not freed, in whatever the process's
/// allocator is. It is below zero for a thread that frees what others have allocated; the sum over
/// all threads is what the process holds.
pub type ThreadBytes = fn() -> i64;

/// How a model is to be loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Threads that one run is spread over.
    pub threads: NonZeroUsize,
    /// Where it is known what a thread has allocated, the engine says what of a model its own
    /// threads have: see [`LoadedModel::bytes_elsewhere`].
    pub thread_bytes: Option<ThreadBytes>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { threads: NonZeroUsize::MIN, thread_bytes: None }
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

    /// Returns the bytes that loading left beside those that the thread which called
    /// [`Engine::load`] has allocated: what threads of the engine have, and files that stay mapped.
    /// They are counted where [`LoadOptions::thread_bytes`] was set. Below zero where the engine's
    /// threads have freed more than they kept.
    fn bytes_elsewhere(&self) -> i64 {
        0
    }
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
