//! A digest of what a version's answers depend on, so that replicas know their answers for equal.
//!
//! It covers contents and no places: replicas may keep equal files in different folders. Only versions whose
//! cache is shared are worth reading twice.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use outhaul_cache::KeyBuilder;
use outhaul_types::{InputTransform, Labels, ModelManifest, OutputTransform, TransformSpec};

/// Sums up a version that runs on `engine`. `external` are the files of its weights, relative to the model
/// file.
///
/// # Errors
///
/// Fails where a file cannot be read.
pub(crate) fn digest(
    model: &Path,
    external: &BTreeSet<PathBuf>,
    manifest: &ModelManifest,
    engine: &str,
) -> io::Result<[u8; 32]> {
    let beside = model.parent().unwrap_or(Path::new(""));
    // Engines do not agree to the last bit.
    let mut key = KeyBuilder::new().text(engine).content(File::open(model)?)?;
    for file in external {
        key = key.text(&file.to_string_lossy()).content(File::open(beside.join(file))?)?;
    }
    let mut transform = manifest.transform.clone();
    for file in files(&mut transform).into_iter().flatten() {
        key = key.content(File::open(&*file)?)?;
        file.clear();
    }
    let ModelManifest { inputs, outputs, batching, .. } = manifest;
    // Whether rows that are run together may change each other is declared with the batching.
    let declared = format!("{transform:?} {inputs:?} {outputs:?} {}", batching.exact);
    Ok(*key.text(&declared).finish().as_bytes())
}

/// Returns the files that a transform reads.
fn files(transform: &mut TransformSpec) -> [Option<&mut PathBuf>; 2] {
    let tokenizer = match &mut transform.input {
        Some(InputTransform::Text(text)) => Some(&mut text.tokenizer),
        Some(InputTransform::Image(_) | InputTransform::Rows(_)) | None => None,
    };
    let labels = match &mut transform.output {
        Some(OutputTransform::Classification(output)) => Some(&mut output.labels),
        Some(OutputTransform::TokenClassification(output)) => Some(&mut output.labels),
        _ => None,
    };
    let labels = match labels {
        Some(Labels::File(file)) => Some(file),
        Some(Labels::Numbers | Labels::List(_)) | None => None,
    };
    [tokenizer, labels]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use outhaul_types::{Name, TensorDeclaration, TextInput, Truncation};

    use super::*;

    struct Folder {
        place: tempfile::TempDir,
        external: BTreeSet<PathBuf>,
        manifest: ModelManifest,
        engine: &'static str,
    }

    impl Folder {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            for (name, content) in
                [("model.onnx", "graph"), ("model.data", "weights"), ("tokenizer.json", "words")]
            {
                fs::write(place.path().join(name), content).unwrap();
            }
            let mut folder = Folder {
                external: [PathBuf::from("model.data")].into(),
                manifest: ModelManifest::default(),
                engine: "embedded",
                place,
            };
            let text = TextInput {
                tokenizer: folder.place.path().join("tokenizer.json"),
                max_tokens: None,
                truncation: Truncation::End,
                pairs: false,
                prefix: String::new(),
            };
            folder.manifest.transform.input = Some(InputTransform::Text(text));
            folder
        }

        fn changed(change: impl FnOnce(&mut Folder)) -> [u8; 32] {
            let mut folder = Folder::new();
            change(&mut folder);
            folder.digest()
        }

        fn write(&self, file: &str) {
            fs::write(self.place.path().join(file), "something else").unwrap();
        }

        fn digest(&self) -> [u8; 32] {
            let model = self.place.path().join("model.onnx");
            digest(&model, &self.external, &self.manifest, self.engine).unwrap()
        }
    }

    #[test]
    fn equal_content_has_one_digest_wherever_it_lies() {
        let (one, other) = (Folder::new(), Folder::new());
        assert_ne!(one.place.path(), other.place.path());
        assert_eq!(one.digest(), other.digest());
        // What changes no answer changes no digest.
        let waits_longer = Folder::changed(|folder| {
            folder.manifest.queue.timeout *= 2;
        });
        assert_eq!(waits_longer, one.digest());
    }

    #[test]
    fn each_part_changes_the_digest() {
        let mut digests = vec![Folder::new().digest()];
        digests.push(Folder::changed(|folder| folder.write("model.onnx")));
        digests.push(Folder::changed(|folder| folder.write("model.data")));
        digests.push(Folder::changed(|folder| folder.write("tokenizer.json")));
        digests.push(Folder::changed(|folder| folder.engine = "onnxruntime"));
        digests.push(Folder::changed(|folder| folder.manifest.batching.exact = false));
        digests.push(Folder::changed(|folder| folder.external.clear()));
        digests.push(Folder::changed(|folder| {
            if let Some(InputTransform::Text(text)) = &mut folder.manifest.transform.input {
                text.prefix = "query: ".to_owned();
            }
        }));
        digests.push(Folder::changed(|folder| {
            let name = Name::from("x");
            let declared = TensorDeclaration { name, data_type: None, shape: None, reshape: None };
            folder.manifest.inputs.push(declared);
        }));
        let distinct: BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
    }
}
