//! The library, for tests: found as the server finds it, or a failure that says how to get it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outhaul_engine_ort::{OnnxRuntime, find_library};
use outhaul_onnx::OnnxModel;

/// Opens the library.
pub fn open() -> Arc<OnnxRuntime> {
    let search = find_library(None);
    match search.open() {
        Ok(Some(runtime)) => runtime,
        Ok(None) => panic!(
            "ONNX Runtime was not found; run scripts/fetch_onnxruntime.sh, or set \
             OUTHAUL_ONNXRUNTIME to a libonnxruntime.so. Looked at: {:#?}",
            search.looked
        ),
        Err(error) => panic!("{error}"),
    }
}

/// Reads a model of the repository, by its path there.
#[allow(dead_code, reason = "not every test binary that includes this module reads models")]
pub fn read(path: &str) -> OnnxModel {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    outhaul_onnx::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
