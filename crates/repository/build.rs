//! Compiles the schemas of foreign declarations in Rust, so that building needs no protoc.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo:rerun-if-changed={}", folder.display());

    let names = ["triton_model_config.proto", "tensorflow_model_server.proto"];
    let mut files = protox::compile(names.map(|name| folder.join(name)), [&folder])?;
    for file in &mut files.file {
        file.source_code_info = None;
    }
    let output = PathBuf::from(env::var("OUT_DIR")?).join("formats.bin");
    fs::write(output, files.encode_to_vec())?;
    Ok(())
}
