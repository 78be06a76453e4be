//! Compiles the protocol's .proto files in Rust, so that building needs no protoc.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use tonic_prost_build::FileDescriptorSet;

/// Fields of type `bytes` that keep a slice of the received message in place of a copy.
const SHARED_BYTES: [&str; 6] = [
    ".inference.ModelInferRequest.raw_input_contents",
    ".inference.ModelInferResponse.raw_output_contents",
    ".inference.InferTensorContents.bytes_contents",
    ".tensorflow.TensorProto.tensor_content",
    ".tensorflow.TensorProto.string_val",
    ".tensorflow.BytesList.value",
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", folder.display());

    for contract in ["inference", "tensorflow_serving"] {
        compile(contract, &folder)?;
    }
    Ok(())
}

/// Compiles one contract's file and what it imports: messages and stubs, and the descriptors.
fn compile(contract: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let files = protox::compile([folder.join(contract).with_extension("proto")], [folder])?;
    let output = PathBuf::from(env::var("OUT_DIR")?).join(contract).with_extension("bin");
    fs::write(output, without_comments(&files).encode_to_vec())?;

    let mut builder = tonic_prost_build::configure()
        .codec_path("crate::grpc::Codec")
        // Parameters are few: a tree of one node is cheaper than hashing, and it has an order.
        .btree_map(".");
    for field in SHARED_BYTES {
        builder = builder.bytes(field);
    }
    builder.compile_fds(files)?;
    Ok(())
}

/// Reflection hands the descriptors to clients, who have no use for positions and comments.
fn without_comments(files: &FileDescriptorSet) -> FileDescriptorSet {
    let mut files = files.clone();
    for file in &mut files.file {
        file.source_code_info = None;
    }
    files
}
