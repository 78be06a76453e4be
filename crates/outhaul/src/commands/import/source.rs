//! What a path holds: models that can be copied, and what has to be converted first.
//!
//! Whether a folder of MLflow or MLServer needs conversion is told here from a few words of its file;
//! the converter reads the file in full.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use outhaul_repository::formats::FORMATS;
use outhaul_repository::{MANIFEST_FILE, ModelFolder, PipelineFolder, Problem, Scan, is_url, scan};

/// Endings that only the converter's libraries have.
const CONVERTIBLE: [&str; 9] =
    ["pkl", "pickle", "joblib", "skops", "ubj", "bst", "lgb", "json", "txt"];

const PYTORCH: [&str; 4] = ["pt", "pth", "pt2", "ckpt"];

/// MLServer's classes, and MLflow's flavours, that the converter knows.
const CLASSES: [&str; 3] = ["mlserver_sklearn", "mlserver_xgboost", "mlserver_lightgbm"];
const FLAVOURS: [&str; 3] = ["sklearn:", "xgboost:", "lightgbm:"];

/// Declarations are small; nobody reads a gigabyte to find a word in it.
const LARGEST_FILE: u64 = 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Found {
    /// What can be copied as it is.
    pub(super) models: Vec<ModelFolder>,
    /// Models that ask other models.
    pub(super) pipelines: Vec<PipelineFolder>,
    /// Files and folders for the converter.
    pub(super) convertible: Vec<PathBuf>,
    pub(super) problems: Vec<Problem>,
}

/// Looks what there is to import.
pub(super) fn find(path: &Path, to: &Path) -> Result<Found, Problem> {
    if path.to_str().is_some_and(is_url) {
        let remedy = "copy it to this machine first, or serve it from where it is";
        return Err(Problem::of_place(path.display(), "is not a path of this machine", remedy));
    }
    if same(path, to) {
        let rule = "models cannot be imported into the folder that they come from";
        return Err(Problem::of_place(path.display(), rule, "give another folder with --to"));
    }
    if path.is_file() {
        if has_ending(path, &PYTORCH) {
            let rule = "holds the weights of a PyTorch module, not the module";
            let remedy = "export it where it is defined: outhaul.export(module, example_inputs, \
                          path) of the Python package in python/";
            return Err(Problem::of_place(path.display(), rule, remedy));
        }
        if has_ending(path, &CONVERTIBLE) || path.extension().is_some_and(|of| of == "model") {
            return Ok(Found { convertible: vec![path.to_owned()], ..Found::default() });
        }
    }
    let Scan { models, pipelines, mut problems, .. } = scan(&[path]);
    let mut convertible = folders(path);
    let is_copied = !(models.is_empty() && pipelines.is_empty());
    if !is_copied && convertible.is_empty() && holds_file(path) {
        convertible.push(path.to_owned());
    }
    // The converter tells what is wrong with its own.
    problems.retain(|problem| {
        !convertible.iter().any(|folder| Path::new(&problem.place).starts_with(folder))
    });
    Ok(Found { models, pipelines, convertible, problems })
}

/// Returns what people call the format of a model that a scan of `path` has found.
pub(super) fn format_of(path: &Path, model: &ModelFolder) -> String {
    if is_ours(model) {
        return format!("Outhaul ({MANIFEST_FILE})");
    }
    if let Some(format) =
        FORMATS.iter().find(|format| format.is_told_by(|name| model.path.join(name).exists()))
    {
        return format!("{} ({})", format.name, format.file);
    }
    let is_list = path.is_file() && path != model.path;
    match is_list || path.join("models.config").is_file() {
        true => "TensorFlow Serving (models.config)".to_owned(),
        false => "ONNX".to_owned(),
    }
}

/// Whether all that is declared of a model stands in its own `model.toml`.
pub(super) fn is_ours(model: &ModelFolder) -> bool {
    let is_there = |name: &str| model.path.join(name).exists();
    let mut formats = FORMATS.iter();
    let is_completed = formats.any(|format| format.is_completed && format.is_told_by(is_there));
    model.path.join(MANIFEST_FILE).is_file() && !is_completed
}

pub(super) fn same(left: &Path, right: &Path) -> bool {
    let paths = left.canonicalize().and_then(|left| Ok((left, right.canonicalize()?)));
    paths.is_ok_and(|(left, right)| left == right)
}

/// Returns the folders of MLflow and MLServer, at a path or in it, that need conversion.
fn folders(path: &Path) -> Vec<PathBuf> {
    if needs_conversion(path) {
        return vec![path.to_owned()];
    }
    let entries = path.read_dir().into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| needs_conversion(path)).collect();
    found.sort();
    found
}

fn needs_conversion(folder: &Path) -> bool {
    if let Some(text) = read(&folder.join("MLmodel")) {
        let is_line = |wanted: &str| text.lines().any(|line| line.trim() == wanted);
        return !is_line("onnx:") && FLAVOURS.iter().any(|flavour| is_line(flavour));
    }
    let Some(text) = read(&folder.join("model-settings.json")) else { return false };
    let settings: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let class = settings["implementation"].as_str().unwrap_or_default();
    let names_onnx =
        settings["parameters"]["uri"].as_str().is_some_and(|uri| uri.ends_with(".onnx"));
    !names_onnx && CLASSES.iter().any(|known| class.split('.').next() == Some(known))
}

/// Whether a folder holds a file that only a library of the converter can have written.
fn holds_file(folder: &Path) -> bool {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let mut files = entries.map(|entry| entry.path()).filter(|path| path.is_file());
    files.any(|file| {
        let says_nothing = has_ending(&file, &["json", "txt"]);
        let is_model = file.file_stem().is_some_and(|stem| stem == "model");
        has_ending(&file, &CONVERTIBLE) && (!says_nothing || is_model)
    })
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known))
}

fn read(path: &Path) -> Option<String> {
    if !path.is_file() {
        return None;
    }
    let mut text = String::new();
    fs::File::open(path).ok()?.take(LARGEST_FILE).read_to_string(&mut text).ok()?;
    Some(text)
}
