//! The built `outhaul`, run as people run it: in a folder, with arguments, read from outside.
//!
//! Each test has its own folder and an environment without settings. No engine library is found
//! there, so everything runs on the embedded engine, on every machine alike.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

mod answers;
mod golden;
mod import;
mod models;
mod served;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where the repository is.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A folder to run in.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Puts a model of `testdata/models` at a path.
    fn model(&self, name: &str, path: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let model = repository().join(format!("testdata/models/{name}.onnx"));
        fs::copy(&model, path).unwrap_or_else(|error| panic!("{}: {error}", model.display()));
    }

    /// The command, not yet run.
    fn outhaul(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outhaul"));
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.to_string_lossy().starts_with("OUTHAUL_")) {
            command.env_remove(name);
        }
        for name in ["VIRTUAL_ENV", "CONDA_PREFIX", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env("HOME", self.0.path())
            .env("COLUMNS", "100")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::new(self.outhaul(arguments).output().unwrap())
    }
}

/// What a command said.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn new(output: Output) -> Self {
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Returns what was printed by a command that succeeded.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Returns the error of a command that failed.
    #[track_caller]
    fn failed(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.out, "", "an error is not an answer");
        self.err
    }

    #[track_caller]
    fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}
