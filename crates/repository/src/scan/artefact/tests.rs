use std::fs::File;
use std::time::{Duration, UNIX_EPOCH};

use super::super::tests::tree;
use super::super::{VersionArtefact, scan};
use super::*;

/// The artefact of `model` below `folder`, as a scan finds it and as looking again does.
fn of(folder: &Path, model: &str) -> VersionArtefact {
    let scanned = scan(&[folder]);
    let path = folder.join(model);
    let versions = || scanned.models.iter().flat_map(|model| &model.versions);
    let found = versions().find(|artefact| artefact.path == path);
    let found = found.unwrap_or_else(|| panic!("{model}: {scanned:?}"));
    assert_eq!(artefact(found.version, &path).unwrap(), *found, "{model}");
    found.clone()
}

#[test]
fn a_version_is_its_files_and_no_others() {
    struct Case {
        files: &'static [&'static str],
        model: &'static str,
        part: &'static [&'static str],
        no_part: &'static [&'static str],
    }
    let cases = [
        Case {
            files: &["a/1/model.onnx", "a/2/model.onnx", "b/model.onnx"],
            model: "a/1/model.onnx",
            part: &["a/1/model.onnx", "a/1/x", "a/1/weights/x/y", "a/1/labels.txt"],
            no_part: &["a/2/model.onnx", "a/1/.x", "a/x", "a/model.toml", "b/model.onnx"],
        },
        Case {
            files: &["a/model.onnx", "b/model.onnx"],
            model: "a/model.onnx",
            part: &["a/model.onnx", "a/model.onnx_data", "a/onnx__MatMul_12", "a/weights/w.bin"],
            no_part: &["a/README.md", "a/other.onnx", "a/3/model.onnx", "a/model.toml", "b/x"],
        },
        Case {
            files: &["a.onnx", "a-2.onnx"],
            model: "a.onnx",
            part: &["a.onnx", "a.onnx.data", "a.onnx_data", "a.data", "a_weights.bin"],
            no_part: &["a-2.onnx", "a-2.onnx.data", "ab.data", "a_b.onnx", "x.data", "b.onnx"],
        },
        Case {
            files: &["1/a.onnx", "1/b.onnx"],
            model: "1/a.onnx",
            part: &["1/a.onnx", "1/a.onnx.data"],
            no_part: &["1/b.onnx", "1/b.onnx.data"],
        },
    ];
    for Case { files, model, part, no_part } in cases {
        let folder = tree(files);
        let root = match files.contains(&"1/a.onnx") {
            true => folder.path().join("1"),
            false => folder.path().to_owned(),
        };
        let model = model.strip_prefix("1/").unwrap_or(model);
        let mut before = of(&root, model);
        let write = |file: &str| {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "12345").unwrap();
        };
        for file in part {
            write(file);
            let after = of(&root, model);
            assert_ne!(after.identity, before.identity, "{model}: {file}");
            assert_eq!(after.bytes, before.bytes + 5, "{model}: {file}");
            assert!(after.changed >= before.changed, "{model}: {file}");
            before = after;
        }
        for file in no_part.iter().filter(|file| !file.ends_with(".toml")) {
            write(file);
            assert_eq!(of(&root, model), before, "{model}: {file}");
        }
    }
}

#[cfg(unix)]
#[test]
fn content_of_equal_size_and_time_is_told_apart() {
    let folder = tree(&["a/1/model.onnx", "new"]);
    let path = folder.path().join("a/1/model.onnx");
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000);
    let set_time = |path: &Path| File::options().append(true).open(path)?.set_modified(long_ago);
    set_time(&path).unwrap();
    let before = of(folder.path(), "a/1/model.onnx");
    assert!(before.changed.unwrap() > long_ago, "copied times do not hide when it was copied");
    let new = folder.path().join("new");
    set_time(&new).unwrap();
    fs::rename(new, path).unwrap();
    assert_ne!(of(folder.path(), "a/1/model.onnx").identity, before.identity);
}

#[cfg(unix)]
#[test]
fn links_that_lead_in_circles_end() {
    let folder = tree(&["a/1/model.onnx", "a/1/inner/x"]);
    for link in ["a/1/loop", "a/1/inner/loop"] {
        std::os::unix::fs::symlink("..", folder.path().join(link)).unwrap();
    }
    let path = folder.path().join("a/1/model.onnx");
    assert_eq!(artefact(ModelVersion(1), &path).unwrap().bytes, 0);
}

#[test]
fn what_is_no_file_or_is_gone_is_an_error() {
    let folder = tree(&["a/1/model.onnx/", "a/2/"]);
    let error = |version: u64| {
        let path = folder.path().join(format!("a/{version}/model.onnx"));
        artefact(ModelVersion(version), &path).unwrap_err()
    };
    assert_eq!(error(1).to_string(), NOT_A_FILE);
    assert_eq!(error(2).kind(), io::ErrorKind::NotFound);
    assert_eq!(error(3).kind(), io::ErrorKind::NotFound);
}
