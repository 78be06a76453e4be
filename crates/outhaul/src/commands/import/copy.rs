//! One model that is ONNX already, copied with what was declared of it.

use std::fs;
use std::path::{Path, PathBuf};

use outhaul::types::{Fill, ModelManifest};
use outhaul_repository::{
    MANIFEST_FILE, MODEL_FILE, ModelFolder, Problem, VersionArtefact, artefact_files,
    read_manifest, write_manifest,
};

use super::place::{Place, Staged};
use super::source::{format_of, same};
use super::{Import, Imported, Status};

/// Copies a model, or says what would be copied.
pub(super) fn import(command: &Import, model: ModelFolder) -> Result<Imported, Problem> {
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
        write(&place, &model, &manifest).map_err(fail)?;
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
    if ours.is_file() {
        return fs::read_to_string(&ours).map_err(|error| unreadable(&ours, &error));
    }
    let from = model.path.display().to_string();
    let from = from.replace(char::is_control, "?");
    let declared = write_manifest(&below(&model.path, &model.manifest));
    let separator = if declared.is_empty() { "" } else { "\n" };
    Ok(format!("# Imported from {from}, {format}.\n{separator}{declared}"))
}

fn write(place: &Place, model: &ModelFolder, manifest: &str) -> Result<(), Problem> {
    let staged = place.stage()?;
    for artefact in &model.versions {
        copy_version(&staged, artefact)?;
    }
    for file in warmup_files(&model.manifest) {
        let Ok(below) = file.strip_prefix(&model.path) else {
            let rule = format!("does not lie in {}", model.path.display());
            return Err(Problem::of_place(file.display(), rule, "put the file there"));
        };
        staged.copy(file, below)?;
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

fn warmup_files(manifest: &ModelManifest) -> impl Iterator<Item = &Path> {
    let inputs = manifest.warmup.iter().flatten().flat_map(|request| &request.inputs);
    let mut files: Vec<&Path> = inputs
        .filter_map(|input| match &input.fill {
            Fill::File(path) => Some(path.as_path()),
            Fill::Zeros | Fill::Random => None,
        })
        .collect();
    files.sort();
    files.dedup();
    files.into_iter()
}

/// Returns a manifest whose files are named as a `model.toml` names them, from its folder.
fn below(folder: &Path, manifest: &ModelManifest) -> ModelManifest {
    let mut manifest = manifest.clone();
    let requests = manifest.warmup.iter_mut().flatten();
    for input in requests.flat_map(|request| &mut request.inputs) {
        if let Fill::File(path) = &mut input.fill
            && let Ok(below) = path.strip_prefix(folder)
        {
            *path = below.to_owned();
        }
    }
    manifest
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let remedy = "check that it is there and its permissions";
    Problem::of_place(path.display(), format!("cannot be read: {error}"), remedy)
}
