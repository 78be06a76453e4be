//! What is declared beside a model: by `model.toml`, or by the file of a foreign format.
//!
//! Invariant: one of them is read, and every other that is there is named in a warning. Files that
//! are named by it lie in the model's folder once links are resolved.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use outhaul_pipeline::Outline;
use outhaul_types::{
    Fill, InputTransform, Labels, ModelManifest, ModelName, OutputTransform, TransformSpec,
};
use serde_json::Value;

use super::folder::Entry;
use crate::formats::{FORMATS, Foreign, Format};
use crate::{MANIFEST_FILE, Problem, read_manifest};

/// Rows to try a model with, where none are declared: ours, and MLflow's.
const SAMPLE_FILE: &str = "sample.json";
const MLFLOW_SAMPLE_FILE: &str = "input_example.json";

/// A larger file is no sample that anybody made for trying.
const LARGEST_SAMPLE: u64 = 1024 * 1024;

/// What is declared; all of it has a default.
pub(super) struct Beside {
    /// The folder's name where `None`.
    pub(super) name: Option<ModelName>,
    /// With complete paths of files. `None` where something is wrong that forbids to serve the model.
    pub(super) manifest: Option<ModelManifest>,
    /// Below the version's folder, or the model's; as usual where `None`.
    pub(super) model_file: Option<String>,
    /// Whether another format than ours says so.
    pub(super) is_foreign: bool,
    /// Set where it is a pipeline, and the file that says so.
    pub(super) pipeline: Option<(Arc<Outline>, PathBuf)>,
    pub(super) problems: Vec<Problem>,
}

/// Returns the foreign format that a folder is in.
pub(super) fn format_in(entries: &[Entry]) -> Option<&'static Format> {
    FORMATS.iter().find(|format| is_told(format, entries))
}

fn is_told(format: &Format, entries: &[Entry]) -> bool {
    format.is_told_by(|name| entries.iter().any(|entry| entry.name == name))
}

/// Reads what is declared in a model's folder.
pub(super) fn read_beside(folder: &Path, entries: &[Entry]) -> Beside {
    let is_there = |file: &str| entries.iter().any(|entry| entry.is_file(file));
    let (completed, mut formats): (Vec<_>, Vec<_>) = FORMATS
        .iter()
        .filter(|format| is_told(format, entries))
        .partition(|format| format.is_completed && is_there(MANIFEST_FILE));
    let (mut beside, read) = if is_there(MANIFEST_FILE) {
        let mut beside = ours(folder);
        completed.iter().for_each(|format| beside.complete((format.read)(folder)));
        (beside, MANIFEST_FILE)
    } else if formats.is_empty() {
        (Beside::of_default(), "")
    } else {
        let format = formats.remove(0);
        (foreign(folder, format), format.file)
    };
    find_sample(folder, entries, &mut beside);
    for format in formats {
        let rule = format!("is not read, since {read} is here too");
        let place = folder.join(format.file);
        let problem = Problem::of_place(place.display(), rule, "remove one of the two");
        beside.problems.push(problem.warning());
    }
    beside
}

impl Beside {
    fn of_default() -> Self {
        let manifest = Some(ModelManifest::default());
        let (model_file, pipeline, problems) = (None, None, Vec::new());
        Beside { name: None, manifest, model_file, is_foreign: false, pipeline, problems }
    }

    /// Takes from a folder what `model.toml` leaves open: the model's file, and what stands before and
    /// behind the model. Where it declares one of these, nothing of the folder can be wrong.
    fn complete(&mut self, foreign: Foreign) {
        self.is_foreign = true;
        self.model_file = foreign.model_file;
        let Some(manifest) = &mut self.manifest else { return };
        let transform = &mut manifest.transform;
        let is_declared = !transform.is_empty();
        if let Some(theirs) = &foreign.manifest {
            transform.input = transform.input.take().or_else(|| theirs.transform.input.clone());
            transform.output = transform.output.take().or_else(|| theirs.transform.output.clone());
        }
        if !is_declared {
            self.problems.extend(foreign.problems);
            if foreign.manifest.is_none() {
                self.manifest = None;
            }
        }
    }
}

fn ours(folder: &Path) -> Beside {
    let mut read = read_manifest(&folder.join(MANIFEST_FILE));
    if let Ok(manifest) = &mut read {
        let problems = complete(folder, manifest);
        if !problems.is_empty() {
            read = Err(problems);
        }
    }
    match read {
        Ok(manifest) => Beside { manifest: Some(manifest), ..Beside::of_default() },
        Err(problems) => Beside { manifest: None, problems, ..Beside::of_default() },
    }
}

/// Makes the paths of files complete, which are declared relative to the model's folder.
fn complete(folder: &Path, manifest: &mut ModelManifest) -> Vec<Problem> {
    let mut problems = Vec::new();
    let requests = manifest.warmup.iter_mut().flatten();
    let warmup = requests.flat_map(|request| &mut request.inputs).filter_map(|input| {
        let Fill::File(file) = &mut input.fill else { return None };
        Some((file, "warm-up"))
    });
    let transform = of_transform(&mut manifest.transform).into_iter().flatten();
    let sample = manifest.sample.iter_mut().map(|file| (file, "sample"));
    for (file, what) in warmup.chain(transform).chain(sample) {
        *file = folder.join(&*file);
        let Err(rule) = lies_in(folder, file) else { continue };
        let remedy = format!("put the file that {what} needs here, or mend {MANIFEST_FILE}");
        problems.push(Problem::of_place(file.display(), rule, remedy));
    }
    problems
}

/// Returns the files that a transform reads, and what each is for.
fn of_transform(transform: &mut TransformSpec) -> [Option<(&mut PathBuf, &'static str)>; 2] {
    let tokenizer = match &mut transform.input {
        Some(InputTransform::Text(text)) => Some((&mut text.tokenizer, "transform.input")),
        Some(InputTransform::Image(_) | InputTransform::Rows(_)) | None => None,
    };
    let labels = match &mut transform.output {
        Some(OutputTransform::Classification(output)) => Some(&mut output.labels),
        Some(OutputTransform::TokenClassification(output)) => Some(&mut output.labels),
        _ => None,
    };
    let labels = match labels {
        Some(Labels::File(file)) => Some((file, "transform.output")),
        Some(Labels::Numbers | Labels::List(_)) | None => None,
    };
    [tokenizer, labels]
}

/// Returns the files that a version answers by, beside its own: a change of one is a new edition.
pub(crate) fn files_of(manifest: &ModelManifest) -> Vec<PathBuf> {
    let TransformSpec { input, output } = &manifest.transform;
    let tokenizer = match input {
        Some(InputTransform::Text(text)) => Some(&text.tokenizer),
        Some(InputTransform::Image(_) | InputTransform::Rows(_)) | None => None,
    };
    let labels = match output {
        Some(OutputTransform::Classification(output)) => Some(&output.labels),
        Some(OutputTransform::TokenClassification(output)) => Some(&output.labels),
        _ => None,
    };
    let labels = match labels {
        Some(Labels::File(file)) => Some(file),
        Some(Labels::Numbers | Labels::List(_)) | None => None,
    };
    [tokenizer, labels, manifest.sample.as_ref()].into_iter().flatten().cloned().collect()
}

/// Fails where a file is not one, or a link leads out of the folder.
fn lies_in(folder: &Path, file: &Path) -> Result<(), String> {
    match file.canonicalize().and_then(|file| Ok((file, folder.canonicalize()?))) {
        Ok((file, folder)) if file.starts_with(&folder) && file.is_file() => Ok(()),
        Ok((file, _)) if !file.is_file() => Err("is not a file".to_owned()),
        Ok(_) => Err("the link leads out of the model's folder".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Takes the rows that lie beside a model, where it declares none. Nobody may have meant them for
/// us, so what is wrong with them keeps no model from being served.
fn find_sample(folder: &Path, entries: &[Entry], beside: &mut Beside) {
    let Some(manifest) = beside.manifest.as_mut().filter(|manifest| manifest.sample.is_none())
    else {
        return;
    };
    let is_there = |file: &str| entries.iter().any(|entry| entry.is_file(file));
    if is_there(SAMPLE_FILE) {
        let path = folder.join(SAMPLE_FILE);
        match lies_in(folder, &path).and_then(|()| holds_rows(&path)) {
            Ok(()) => manifest.sample = Some(path),
            Err(rule) => {
                let remedy = "write a list of objects by input name, or rename the file";
                beside.problems.push(Problem::of_place(path.display(), rule, remedy).warning());
            }
        }
    } else if is_there(MLFLOW_SAMPLE_FILE) {
        // MLflow writes tables and tensors under this name too.
        let path = folder.join(MLFLOW_SAMPLE_FILE);
        if lies_in(folder, &path).and_then(|()| holds_rows(&path)).is_ok() {
            manifest.sample = Some(path);
        }
    }
}

/// Fails where a file is not a JSON list of objects.
fn holds_rows(path: &Path) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    if fs::metadata(path).map_err(unreadable)?.len() > LARGEST_SAMPLE {
        return Err("is larger than 1 MiB, too large for a sample".to_owned());
    }
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST_SAMPLE).read_to_end(&mut content).map_err(unreadable)?;
    let rows = serde_json::from_slice(&content);
    match rows.map_err(|error| format!("is no JSON: {error}"))? {
        Value::Array(rows) if !rows.is_empty() && rows.iter().all(Value::is_object) => Ok(()),
        _ => Err("is not a list of rows to try the model with".to_owned()),
    }
}

fn foreign(folder: &Path, format: &Format) -> Beside {
    of_foreign((format.read)(folder), &folder.join(format.file))
}

/// Reads what is declared in a model's folder that a list names, in `file`. What lies in the folder
/// itself comes before the list, except for the name.
pub(super) fn read_beside_listed(
    folder: &Path,
    entries: &[Entry],
    file: &Path,
    foreign: Foreign,
) -> Beside {
    let is_declared = entries.iter().any(|entry| entry.is_file(MANIFEST_FILE));
    if !is_declared && format_in(entries).is_none() {
        let mut beside = of_foreign(foreign, file);
        find_sample(folder, entries, &mut beside);
        return beside;
    }
    let own = read_beside(folder, entries);
    let rule = "is read for the model's name and folder only, since it has declarations of its own";
    let problem = Problem::of_place(file.display(), rule, "remove one of the two").warning();
    Beside { name: foreign.name, problems: [vec![problem], own.problems].concat(), ..own }
}

fn of_foreign(foreign: Foreign, file: &Path) -> Beside {
    let Foreign { name, mut manifest, mut model_file, pipeline, mut problems } = foreign;
    let pipeline = pipeline.map(|outline| (outline, file.to_owned()));
    if let Some(path) = model_file.take_if(|path| !stays_inside(Path::new(path))) {
        let rule = format!("the model file '{path}' does not lie in the model's folder");
        problems.push(Problem::of_place(file.display(), rule, "put it there and name it here"));
        manifest = None;
    }
    Beside { name, manifest, model_file, is_foreign: true, pipeline, problems }
}

fn stays_inside(path: &Path) -> bool {
    let mut components = path.components().peekable();
    components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)))
}
