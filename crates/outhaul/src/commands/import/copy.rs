//! One model that is ONNX already, copied with what was declared of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use outhaul::types::{Fill, InputTransform, Labels, ModelManifest, OutputTransform, error_chain};
use outhaul::{Engines, describe_conversion, is_weights, try_to_load};
use outhaul_onnx::huggingface::convert;
use outhaul_repository::{
    MANIFEST_FILE, MODEL_FILE, ModelFolder, Problem, VersionArtefact, artefact_files,
    read_manifest, write_manifest,
};

use super::place::{Place, Staged};
use super::source::{format_of, is_ours, same};
use super::{Import, Imported, Status};

/// Copies a model, or says what would be copied.
pub(super) fn import(
    command: &Import,
    model: ModelFolder,
    notes: &mut Vec<String>,
) -> Result<Imported, Problem> {
    let name = command.name.as_ref().unwrap_or(&model.name);
    let fail = |problem: Problem| problem.of_model(name);
    let place = Place::new(&command.to, name);
    if same(&model.path, place.folder()) {
        let rule = "is the folder that the model comes from";
        let remedy = "give another folder with --to, or another name with --name";
        return Err(fail(Problem::of_place(place.folder().display(), rule, remedy)));
    }
    place.check(command.force).map_err(fail)?;
    let format = format_of(&command.path, &model);
    let manifest = manifest(&model, &format).map_err(fail)?;
    if !command.dry_run {
        write(&place, &model, &manifest, notes).map_err(fail)?;
    }
    Ok(Imported {
        name: name.to_string(),
        status: if command.dry_run { Status::WouldImport } else { Status::Imported },
        versions: model.versions.iter().map(|artefact| artefact.version.0).collect(),
        from: model.path.display().to_string(),
        format,
        folder: place.folder().display().to_string(),
        bytes: model.versions.iter().map(|artefact| artefact.bytes).sum(),
        manifest: Some(manifest),
        checked: None,
    })
}

/// Returns the text of the model's `model.toml`. One that is there already keeps its comments.
fn manifest(model: &ModelFolder, format: &str) -> Result<String, Problem> {
    let ours = model.path.join(MANIFEST_FILE);
    if is_ours(model) {
        return fs::read_to_string(&ours).map_err(|error| unreadable(&ours, &error));
    }
    let from = model.path.display().to_string();
    let from = from.replace(char::is_control, "?");
    let declared = write_manifest(&below(&model.path, &model.manifest));
    let separator = if declared.is_empty() { "" } else { "\n" };
    Ok(format!("# Imported from {from}, {format}.\n{separator}{declared}"))
}

fn write(
    place: &Place,
    model: &ModelFolder,
    manifest: &str,
    notes: &mut Vec<String>,
) -> Result<(), Problem> {
    let staged = place.stage()?;
    for artefact in &model.versions {
        let file = PathBuf::from(artefact.version.to_string()).join(MODEL_FILE);
        match is_weights(&artefact.path) {
            true => notes.push(make_version(&staged, artefact, &file)?),
            false => copy_version(&staged, artefact)?,
        }
        // With a transform, more can be wrong than a copy shows.
        if !model.manifest.transform.is_empty() {
            let loaded = try_out(model, artefact, &staged.path(&file))?;
            notes.push(format!("version {} was loaded once, on {loaded}", artefact.version));
        }
    }
    for file in declared_files(&model.manifest) {
        let Ok(below) = file.strip_prefix(&model.path) else {
            let rule = format!("does not lie in {}", model.path.display());
            return Err(Problem::of_place(file.display(), rule, "put the file there"));
        };
        staged.copy(&file, below)?;
    }
    let written = staged.write(Path::new(MANIFEST_FILE), manifest)?;
    // What another format allows may break a rule of ours, and would keep the model from being served.
    if let Err(problems) = read_manifest(&written) {
        let rules: Vec<String> = problems.iter().map(rule_of).collect();
        let rule = format!("what is declared breaks a rule: {}", rules.join("; "));
        let remedy = "mend the declarations where they come from";
        return Err(Problem::of_place(model.path.display(), rule, remedy));
    }
    staged.put()
}

fn rule_of(problem: &Problem) -> String {
    format!("{} {}", problem.key.as_deref().unwrap_or_default(), problem.rule)
}

/// Copies a version's files. Weights are named relative to the model file, so that may get another
/// name, and all of them another folder.
fn copy_version(staged: &Staged<'_>, artefact: &VersionArtefact) -> Result<(), Problem> {
    let files = artefact_files(artefact.version, &artefact.path)
        .map_err(|error| unreadable(&artefact.path, &error))?;
    let folder = artefact.path.parent().unwrap_or(Path::new(""));
    let version = PathBuf::from(artefact.version.to_string());
    for (index, file) in files.iter().enumerate() {
        // The model file comes first.
        let target = if index == 0 { Path::new(MODEL_FILE) } else { file };
        staged.copy(&folder.join(file), &version.join(target))?;
    }
    Ok(())
}

/// Makes a graph of a version's weights, and tells how.
fn make_version(
    staged: &Staged<'_>,
    artefact: &VersionArtefact,
    file: &Path,
) -> Result<String, Problem> {
    let start = Instant::now();
    let target = staged.prepare(file)?;
    let converted = convert(&artefact.path, &target).map_err(|error| {
        let remedy = "export the model to ONNX with the library that wrote it";
        Problem::of_place(artefact.path.display(), error_chain(&error), remedy)
    })?;
    for written in &converted.files {
        staged.make_durable(written)?;
    }
    Ok(format!(
        "version {} is {}",
        artefact.version,
        describe_conversion(&converted, start.elapsed())
    ))
}

/// Loads a version from where it is staged, and returns the engine.
fn try_out(
    model: &ModelFolder,
    artefact: &VersionArtefact,
    path: &Path,
) -> Result<&'static str, Problem> {
    let fail = |reason: String| {
        let remedy = "mend it where it comes from, or declare what is meant in a model.toml there";
        let rule = format!("cannot be served: {reason}");
        Problem::of_place(artefact.path.display(), rule, remedy)
    };
    let engines = Engines::find(None).map_err(|error| fail(error_chain(&error)))?;
    try_to_load(engines, model, artefact.version, path).map_err(|error| fail(error.to_string()))
}

/// Returns the files that a manifest names.
fn files_of(manifest: &mut ModelManifest) -> Vec<&mut PathBuf> {
    let requests = manifest.warmup.iter_mut().flatten().flat_map(|request| &mut request.inputs);
    let warmup = requests.filter_map(|input| match &mut input.fill {
        Fill::File(path) => Some(path),
        Fill::Zeros | Fill::Random => None,
    });
    let tokenizer = match &mut manifest.transform.input {
        Some(InputTransform::Text(text)) => Some(&mut text.tokenizer),
        Some(InputTransform::Image(_) | InputTransform::Rows(_)) | None => None,
    };
    let labels = match &mut manifest.transform.output {
        Some(OutputTransform::Classification(output)) => Some(&mut output.labels),
        Some(OutputTransform::TokenClassification(output)) => Some(&mut output.labels),
        _ => None,
    };
    let labels = match labels {
        Some(Labels::File(path)) => Some(path),
        Some(Labels::Numbers | Labels::List(_)) | None => None,
    };
    warmup.chain(tokenizer).chain(labels).chain(&mut manifest.sample).collect()
}

/// Returns the files that a manifest names, each once.
fn declared_files(manifest: &ModelManifest) -> Vec<PathBuf> {
    let mut manifest = manifest.clone();
    let mut files: Vec<PathBuf> =
        files_of(&mut manifest).into_iter().map(|path| path.clone()).collect();
    files.sort();
    files.dedup();
    files
}

/// Returns a manifest whose files are named as a `model.toml` names them, from its folder.
fn below(folder: &Path, manifest: &ModelManifest) -> ModelManifest {
    let mut manifest = manifest.clone();
    for path in files_of(&mut manifest) {
        if let Ok(below) = path.strip_prefix(folder) {
            *path = below.to_owned();
        }
    }
    manifest
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let remedy = "check that it is there and its permissions";
    Problem::of_place(path.display(), format!("cannot be read: {error}"), remedy)
}
