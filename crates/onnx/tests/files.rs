//! The committed models: what is read from them, and what is said about those to refuse.

use std::path::{Path, PathBuf};

use outhaul_onnx::{OnnxError, OnnxModel, read};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn test_model(name: &str) -> Result<OnnxModel, OnnxError> {
    read(&root().join(format!("testdata/models/{name}.onnx")))
}

#[test]
fn show() {
    for entry in std::fs::read_dir(root().join("testdata/models")).unwrap() {
        let path = entry.unwrap().path();
        match read(&path) {
            Ok(model) => println!("{:?} {:?}", path.file_name(), model.row_independence()),
            Err(e) => println!("{e}"),
        }
    }
    println!("{:#?}", test_model("optional_input"));
}
#[test]
fn probe() {
    let Ok(list) = std::env::var("PROBE") else { return };
    for path in std::fs::read_to_string(list).unwrap().lines() {
        match read(Path::new(path)) {
            Ok(model) => println!("PROBE\t{path}\t{:?}", model.row_independence()),
            Err(error) => println!("PROBE\t{path}\tERROR {error}"),
        }
    }
}
