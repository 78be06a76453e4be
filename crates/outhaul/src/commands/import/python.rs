//! Models of Python libraries, handed to the converter in `python/`.
//!
//! Nothing of a model is decided here: the converter loads it, converts it, compares the answers and
//! writes the folder, or says why not.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use outhaul_repository::Problem;
use serde::{Deserialize, Serialize};

use super::{Import, Imported, Status};

/// Names the interpreter to use.
const VARIABLE: &str = "OUTHAUL_PYTHON";

/// How a converted model compares to the original.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Checked {
    pub(super) rows_checked: u64,
    pub(super) rows_different: u64,
    pub(super) largest_difference: f64,
}

/// The line that the converter prints when it is done.
#[derive(Debug, Deserialize)]
struct Written {
    name: String,
    version: u64,
    folder: PathBuf,
    kind: String,
    rows_checked: u64,
    largest_difference: f64,
    rows_different: u64,
}

/// Converts a model, or says what would be converted.
pub(super) fn convert(
    command: &Import,
    source: &Path,
    notes: &mut Vec<String>,
) -> Result<Imported, Problem> {
    let problem = |rule: String, remedy: &str| Problem::of_place(source.display(), rule, remedy);
    let arguments = arguments(command, source);
    if command.dry_run {
        return Ok(planned(command, source));
    }
    let python = interpreter(&|name| std::env::var_os(name).filter(|value| !value.is_empty()))
        .ok_or_else(|| {
            let rule = "converting it takes Python, and none was found".to_owned();
            problem(rule, "install Python, or name it in OUTHAUL_PYTHON")
        })?;
    let unusable = |rule: String| problem(rule, "name another Python in OUTHAUL_PYTHON");
    let mut run = python_command(&python);
    let ran = run.args(&arguments).output();
    let ran =
        ran.map_err(|error| unusable(format!("{} cannot be run: {error}", python.display())))?;
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    if !ran.status.success() {
        let lacks_package = !has_package(&python);
        return Err(match lacks_package {
            true => problem(
                format!("{} does not have the converter", python.display()),
                "install it with: pip install ./python, or name another Python in OUTHAUL_PYTHON",
            ),
            false => problem(failure(&said, &ran), "mend what it says and import again"),
        });
    }
    notes.extend(said.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
    let printed = String::from_utf8_lossy(&ran.stdout);
    let last = printed.lines().last().unwrap_or_default();
    let written: Written = serde_json::from_str(last).map_err(|error| {
        let rule = format!("the converter's answer is not understood: {error}");
        problem(rule, "install the converter of this version of Outhaul: pip install ./python")
    })?;
    Ok(imported(source, written))
}

fn planned(command: &Import, source: &Path) -> Imported {
    let name = command.name.as_ref().map(ToString::to_string);
    let stem = || source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Imported {
        name: name.unwrap_or_else(stem),
        status: Status::WouldConvert,
        versions: Vec::new(),
        from: source.display().to_string(),
        format: "a Python library".to_owned(),
        folder: command.to.display().to_string(),
        bytes: 0,
        manifest: None,
        checked: None,
    }
}

fn imported(source: &Path, written: Written) -> Imported {
    let format = match written.kind.as_str() {
        "sklearn" => "scikit-learn",
        "xgboost" => "XGBoost",
        "lightgbm" => "LightGBM",
        other => other,
    };
    Imported {
        name: written.name,
        status: Status::Converted,
        versions: vec![written.version],
        from: source.display().to_string(),
        format: format.to_owned(),
        bytes: written.folder.join("model.onnx").metadata().map_or(0, |metadata| metadata.len()),
        folder: written.folder.display().to_string(),
        manifest: None,
        checked: Some(Checked {
            rows_checked: written.rows_checked,
            rows_different: written.rows_different,
            largest_difference: written.largest_difference,
        }),
    }
}

fn arguments(command: &Import, source: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["-m", "outhaul", "convert"].map(OsString::from).into();
    let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
    add("--to", command.to.clone().into());
    if let Some(name) = &command.name {
        add("--name", name.as_str().into());
    }
    if let Some(sample) = &command.sample {
        add("--sample", sample.clone().into());
    }
    let switches = [("--force", command.force), ("--trust", command.trust)];
    arguments.extend(switches.iter().filter(|(_, on)| *on).map(|(flag, _)| OsString::from(flag)));
    arguments.extend(command.converter.iter().map(OsString::from));
    // A file may begin with a dash.
    arguments.extend(["--".into(), source.into()]);
    arguments
}

/// Returns the interpreter that was named, else that of the active environment, else what the system
/// has.
fn interpreter(environment: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(named) = environment(VARIABLE) {
        return Some(named.into());
    }
    let names: &[&str] = if cfg!(windows) { &["python.exe"] } else { &["python3", "python"] };
    let folder = if cfg!(windows) { "Scripts" } else { "bin" };
    let roots = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(environment);
    let environments = roots.map(|root| PathBuf::from(root).join(folder)).collect::<Vec<_>>();
    let system = environment("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let folders = environments.into_iter().chain(system.unwrap_or_default());
    let mut found = folders.flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    found.find(|path| path.is_file())
}

/// What lies in the working folder is not taken for a package.
fn python_command(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.env("PYTHONSAFEPATH", "1").stdin(Stdio::null());
    command
}

fn has_package(python: &Path) -> bool {
    let find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('outhaul') is None)";
    let status = python_command(python).args(["-c", find]).output().map(|ran| ran.status);
    status.is_ok_and(|status| status.success())
}

/// Returns what the converter said on its way out.
fn failure(said: &str, ran: &Output) -> String {
    let said = said.trim();
    match said.rsplit_once("error: ") {
        Some((_, error)) => error.trim().replace('\n', "; "),
        None => {
            let last = said.lines().last().unwrap_or("it said nothing");
            format!("the converter failed ({}): {last}", ran.status)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_interpreter_is_the_nearest_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let names = if cfg!(windows) {
            ["env/Scripts/python.exe", "system/python.exe"]
        } else {
            ["env/bin/python3", "system/python"]
        };
        for name in names {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "").unwrap();
        }
        let mut variables = vec![
            ("PATH", std::env::join_paths([at("none"), at("system")]).unwrap()),
            ("CONDA_PREFIX", at("env").into_os_string()),
            (VARIABLE, "named".into()),
        ];
        for expected in [PathBuf::from("named"), at(names[0]), at(names[1])] {
            let find = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
            };
            assert_eq!(interpreter(&find), Some(expected));
            variables.pop();
        }
        assert_eq!(interpreter(&|_| None), None);
    }
}
