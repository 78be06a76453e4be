//! Folders as Hugging Face's libraries write them: `config.json` beside an ONNX file or
//! `model.safetensors`, with a tokenizer or a processor of pictures.
//!
//! What people call the model's pipeline is spread over a dozen files: which of them says what is told in
//! the modules below ([`sentence`]: pooling and prompts; [`head`]: classes; [`picture`]: pixels). From all
//! of them comes one manifest, as somebody would have written it in `model.toml`. Where a `model.toml`
//! lies beside, it comes first.
//!
//! Invariant: what is written there and would change an answer is either carried out or an error that
//! names the file and the key. The weights are not opened here: whether a graph can be made of them is
//! seen when they are loaded.

mod head;
mod keys;
mod picture;
mod sentence;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use outhaul_types::{InputTransform, ModelManifest, OutputTransform, TextInput};

use super::Foreign;
use keys::{At, Document, Reading};

/// The file that tells such a folder, together with one of [`BESIDE`].
pub(crate) const FILE: &str = "config.json";

/// Of these one is there at least; `config.json` alone may be anybody's.
pub(super) const BESIDE: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "modules.json",
    "onnx",
    "preprocessor_config.json",
    "pytorch_model.bin",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// The folder that ONNX files lie in where PyTorch's lie beside `config.json`.
const ONNX_FOLDER: &str = "onnx";

/// Weights that Outhaul makes a graph of when it loads them, in the order of choice.
pub(crate) const WEIGHTS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// ONNX files in the order of choice: as exported, optimised, and after the weights themselves what
/// answers a little differently.
const EXPORTED: [&str; 5] = [
    "onnx/model.onnx",
    "model.onnx",
    "onnx/model_O3.onnx",
    "onnx/model_O2.onnx",
    "onnx/model_O1.onnx",
];
const NARROWED: [&str; 10] = [
    "onnx/model_fp16.onnx",
    "onnx/model_O4.onnx",
    "onnx/model_quantized.onnx",
    "onnx/model_int8.onnx",
    "onnx/model_uint8.onnx",
    "onnx/model_quint8_avx2.onnx",
    "onnx/model_qint8_avx512.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
    "onnx/model_qint8_arm64.onnx",
    "model_quantized.onnx",
];

/// Forms of the weights that may lie in one folder.
pub(crate) const FORMS: [&str; 7] = [
    "flax_model.msgpack",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "rust_model.ot",
    "tf_model.h5",
];

/// A length beyond this says that there is none: tokenizers write 10^30.
const LONGEST: u64 = 1_000_000;

/// Reads the folder.
pub(super) fn read(folder: &Path) -> Foreign {
    let mut reading = Reading::of(folder);
    let model_file = model_file(&mut reading);
    let config = reading.document(FILE);
    let manifest = config.map(|config| manifest(&config, &mut reading));
    let (problems, is_sound) = reading.finish();
    let manifest = manifest.filter(|_| is_sound);
    Foreign { manifest, model_file, problems, ..Foreign::default() }
}

/// Chooses the model's file, and says so where there was a choice.
fn model_file(reading: &mut Reading) -> Option<String> {
    let onnx = onnx_files(reading.folder());
    let is_there = |name: &&str| reading.folder().join(name).is_file();
    let named = EXPORTED.iter().chain(&WEIGHTS).chain(&NARROWED).copied();
    let chosen = named.clone().find(is_there).map(str::to_owned);
    let Some(chosen) = chosen.or_else(|| onnx.first().cloned()) else {
        no_model_file(reading);
        return None;
    };
    let others: Vec<&str> =
        onnx.iter().map(String::as_str).filter(|name| *name != chosen).collect();
    if !others.is_empty() {
        let rule = format!("{chosen} is served, and not {}", others.join(", "));
        let remedy = "nothing needs doing if that is the one; else remove it, or import the folder and \
                      replace its model.onnx";
        reading.warning(At(ONNX_FOLDER, "", None), rule, remedy);
    }
    Some(chosen)
}

/// Lists the folder's ONNX files in order of their names.
fn onnx_files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (prefix, path) in [("", folder.to_owned()), ("onnx/", folder.join(ONNX_FOLDER))] {
        let entries = path.read_dir().into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let is_model = |name: &String| name.ends_with(".onnx") && !name.starts_with('.');
        found.extend(names.filter(is_model).map(|name| format!("{prefix}{name}")));
    }
    found.sort();
    found
}

fn no_model_file(reading: &mut Reading) {
    let there = FORMS.iter().find(|name| reading.folder().join(name).is_file());
    match there {
        Some(other) => {
            let remedy = "save the model once more, which writes model.safetensors: in Python, \
                          AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER) with the class that \
                          config.json names";
            let rule = "is the only file of weights here, and such files are not read";
            reading.error(At(other, "", None), rule, remedy);
        }
        None => {
            let rule = "there is neither an ONNX file nor model.safetensors in this folder";
            let remedy = "download the folder with its weights, or export the model to ONNX";
            reading.error(At("", "", None), rule, remedy);
        }
    }
}

fn manifest(config: &Document, reading: &mut Reading) -> ModelManifest {
    let mut manifest = ModelManifest::default();
    if is_of_pictures(reading) {
        if let Some(image) = picture::input(reading) {
            manifest.transform.input = Some(InputTransform::Image(image));
            manifest.transform.output = head::of_pictures(config, reading);
        }
        return manifest;
    }
    let Some(output) = head::of_texts(config, reading) else { return manifest };
    let prefix = match &output {
        OutputTransform::Embedding(_) => sentence::prompt(reading),
        _ => String::new(),
    };
    let Some(tokenizer) = tokenizer(reading) else { return manifest };
    manifest.transform.input = Some(InputTransform::Text(TextInput {
        tokenizer,
        max_tokens: max_tokens(config, reading),
        truncation: truncation(reading),
        pairs: head::takes_pairs(config, &output),
        prefix,
    }));
    manifest.transform.output = Some(output);
    manifest
}

/// Whether what is declared is about pictures. A folder with a tokenizer may have both.
fn is_of_pictures(reading: &Reading) -> bool {
    reading.has("preprocessor_config.json") && !reading.has("tokenizer.json")
}

fn tokenizer(reading: &mut Reading) -> Option<PathBuf> {
    const TOKENIZER: &str = "tokenizer.json";
    if reading.has(TOKENIZER) {
        return Some(reading.folder().join(TOKENIZER));
    }
    let files = ["vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model"];
    let slow = files.iter().find(|file| reading.has(file)).copied();
    let rule = match slow {
        Some(file) => format!("is not here, only {file}, from which it can be made"),
        None => "is not here, and texts cannot be read without it".to_owned(),
    };
    let remedy = "download it from where the model is from; or write it in Python: \
                  AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";
    reading.error(At(TOKENIZER, "", None), rule, remedy);
    None
}

/// The most tokens of a text: what sentence-transformers says, else the tokenizer, and never more than
/// the model has positions.
fn max_tokens(config: &Document, reading: &mut Reading) -> Option<NonZeroUsize> {
    let positions = config.whole("max_position_embeddings").map(|positions| {
        // RoBERTa and its kin count positions from behind the padding token's number.
        let kin = config.text("model_type").unwrap_or_default();
        let is_kin = ["roberta", "xlm-roberta", "camembert", "mpnet"].contains(&kin);
        let padding = config.whole("pad_token_id").unwrap_or(1);
        positions.saturating_sub(if is_kin { padding + 1 } else { 0 })
    });
    let says = |reading: &mut Reading, file: &str, key: &str| {
        let document = reading.has(file).then(|| reading.document(file)).flatten()?;
        document.whole(key).filter(|length| (1..LONGEST).contains(length))
    };
    let declared = says(reading, "sentence_bert_config.json", "max_seq_length")
        .or_else(|| says(reading, "tokenizer_config.json", "model_max_length"));
    let most = match (declared, positions) {
        (Some(declared), Some(positions)) => Some(declared.min(positions)),
        (one, other) => one.or(other),
    };
    NonZeroUsize::new(usize::try_from(most?).ok()?)
}

fn truncation(reading: &mut Reading) -> outhaul_types::Truncation {
    let file = "tokenizer_config.json";
    let config = reading.has(file).then(|| reading.document(file)).flatten();
    match config.as_ref().and_then(|config| config.text("truncation_side")) {
        Some("left") => outhaul_types::Truncation::Beginning,
        _ => outhaul_types::Truncation::End,
    }
}
