//! A pipeline, such as an ensemble of Triton, written as our own `pipeline.toml`.

use std::fs;
use std::path::Path;

use outhaul_repository::formats::FORMATS;
use outhaul_repository::{PIPELINE_FILE, PipelineFolder, Problem, write_pipeline};

use super::place::Place;
use super::source::same;
use super::{Import, Imported, Status};

/// Writes a pipeline, or says what would be written. `None` where something is wrong with it, which the scan told.
pub(super) fn import(
    command: &Import,
    pipeline: PipelineFolder,
) -> Result<Option<Imported>, Problem> {
    let Ok(outline) = &pipeline.outline else { return Ok(None) };
    let name = command.name.as_ref().unwrap_or(&pipeline.name);
    let fail = |problem: Problem| problem.of_model(name);
    let place = Place::new(&command.to, name);
    let from = pipeline.path.parent().unwrap_or(Path::new(""));
    if same(from, place.folder()) {
        let rule = "is the folder that the pipeline comes from";
        let remedy = "give another folder with --to, or another name with --name";
        return Err(fail(Problem::of_place(place.folder().display(), rule, remedy)));
    }
    place.check(command.force).map_err(fail)?;
    let file = pipeline.path.file_name().unwrap_or_default();
    let foreign = FORMATS.iter().find(|format| file == format.file);
    let (format, text) = match foreign {
        // Ours keeps its comments.
        None => {
            let text = fs::read_to_string(&pipeline.path).map_err(|error| {
                let rule = format!("cannot be read: {error}");
                fail(Problem::of_place(pipeline.path.display(), rule, "check its permissions"))
            })?;
            (format!("Outhaul ({PIPELINE_FILE})"), text)
        }
        Some(format) => {
            let shown = from.display().to_string().replace(char::is_control, "?");
            let format = format!("{} ({})", format.name, format.file);
            let text = write_pipeline(outline.spec());
            (format.clone(), format!("# Imported from {shown}, {format}.\n\n{text}"))
        }
    };
    if !command.dry_run {
        let staged = place.stage().map_err(fail)?;
        staged.write(Path::new(PIPELINE_FILE), &text).map_err(fail)?;
        staged.put().map_err(fail)?;
    }
    Ok(Some(Imported {
        name: name.to_string(),
        status: if command.dry_run { Status::WouldImport } else { Status::Imported },
        versions: Vec::new(),
        from: from.display().to_string(),
        format,
        folder: place.folder().display().to_string(),
        bytes: text.len() as u64,
        manifest: Some(text),
        checked: None,
    }))
}
