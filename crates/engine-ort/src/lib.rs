//! ONNX Runtime, opened at run time; the only crate with unsafe code.
//!
//! [`find_library`] looks for the shared library, [`OnnxRuntime::open`] opens it, and from there on
//! it is an [`Engine`] like any other. The build needs no ONNX Runtime at all.
//!
//! Invariants: everything the library returns is checked and released; the bytes that it reads stay
//! alive and unchanged while it reads them; a failure of any of its calls is an error with the
//! library's own reason. One model is one session of the library, run from many threads at once
//! (`docs/decisions/003-one-ort-session-per-model.md`).
//!
//! Modules: `search` (where the library lies), `api` (the library and its log), `session` (a model),
//! `value` (tensors in and out), `failure` (what its errors mean),
//! `mapped` (weights that stay in their files).

mod api;
mod failure;
mod mapped;
mod search;
mod session;
mod value;

use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use ort_sys::{OrtAllocator, OrtEnv, OrtMemoryInfo};
use outhaul_engine::{Engine, LoadError, LoadOptions, LoadedModel};
use outhaul_onnx::OnnxModel;
use outhaul_types::error_chain;

use api::Api;
pub use api::LibraryError;
use failure::Failure;
pub use search::{FoundLibrary, LIBRARY_VARIABLE, LibrarySearch, Looked, Place, find_library};

/// The name that manifests and logs use.
pub const ENGINE: &str = "onnxruntime";

/// ONNX Runtime: the library, and the environment that all its sessions share.
pub struct OnnxRuntime {
    process: Process,
    path: PathBuf,
}

/// What the process makes once and never releases, so that copies of the pointers stay good.
#[derive(Clone, Copy)]
struct Process {
    api: Api,
    environment: NonNull<OrtEnv>,
    /// Says "ordinary memory" to the library.
    memory: NonNull<OrtMemoryInfo>,
    /// Makes tensors of strings, and the names that the library returns.
    allocator: NonNull<OrtAllocator>,
}

// SAFETY: none of these is changed or released after it is made, and the library allows all of
// them to be used from any thread.
unsafe impl Send for Process {}
// SAFETY: as above.
unsafe impl Sync for Process {}

/// The library that this process has opened. There can be one: two copies in one process would
/// share some of their C++ statics and not others.
static OPENED: Mutex<Option<Arc<OnnxRuntime>>> = Mutex::new(None);

impl OnnxRuntime {
    /// Opens the library. The same file may be opened many times and is one engine.
    ///
    /// # Errors
    ///
    /// Fails where the file is not ONNX Runtime 1.17 or later, and where this process has opened
    /// another one.
    pub fn open(path: &Path) -> Result<Arc<Self>, LoadError> {
        let unavailable = |reason| LoadError::Unavailable { engine: ENGINE, reason };
        let canonical = path
            .canonicalize()
            .map_err(|error| unavailable(format!("{}: {error}", path.display())))?;
        // A panic while it was locked left no half-made engine behind: it is stored whole.
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = opened.as_ref() {
            if runtime.path == canonical {
                return Ok(Arc::clone(runtime));
            }
            let (new, old) = (canonical.display(), runtime.path.display());
            return Err(unavailable(format!("{new}: this process already uses {old}")));
        }
        let api = Api::open(&canonical).map_err(|error| {
            unavailable(format!("{}: {}", canonical.display(), error_chain(&error)))
        })?;
        let runtime = OnnxRuntime::start(api, canonical)
            .map_err(|failure| LoadError::Failed { engine: ENGINE, reason: failure.to_string() })?;
        tracing::debug!(path = %runtime.path.display(), version = api.version, "library opened");
        Ok(Arc::clone(opened.insert(Arc::new(runtime))))
    }

    /// Returns the library's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn start(api: Api, path: PathBuf) -> Result<Self, Failure> {
        let process = Process {
            api,
            environment: api.create_environment()?,
            memory: api.describe_memory()?,
            allocator: api.default_allocator()?,
        };
        Ok(OnnxRuntime { process, path })
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn version(&self) -> String {
        self.process.api.version.to_owned()
    }

    fn load(
        &self,
        model: &OnnxModel,
        options: &LoadOptions,
    ) -> Result<Arc<dyn LoadedModel>, LoadError> {
        Ok(Arc::new(session::OrtModel::load(self.process, model, options)?))
    }
}
