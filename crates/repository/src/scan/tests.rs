use std::fs;

use outhaul_types::{Fill, InputTransform, Labels, OutputTransform};

use super::*;

mod foreign;

/// Makes files (with their folders) below a new folder; a path that ends in `/` is a folder.
pub(super) fn tree(paths: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in paths {
        let full = folder.path().join(path);
        if path.ends_with('/') {
            fs::create_dir_all(full).unwrap();
        } else {
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, "").unwrap();
        }
    }
    folder
}

/// Writes what was found as `name:version=path`, paths relative to `folder`.
fn found(folder: &Path, scan: &Scan) -> Vec<String> {
    let relative = |path: &Path| {
        path.strip_prefix(folder).unwrap_or(path).to_string_lossy().replace('\\', "/")
    };
    scan.models
        .iter()
        .flat_map(|model| {
            let version = |artefact: &VersionArtefact| {
                format!("{}:{}={}", model.name, artefact.version, relative(&artefact.path))
            };
            model.versions.iter().map(version).collect::<Vec<_>>()
        })
        .collect()
}

fn problems(folder: &Path, scan: &Scan) -> Vec<String> {
    let prefix = format!("{}/", folder.display());
    scan.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

struct Case {
    files: &'static [&'static str],
    /// Below the folder.
    path: &'static str,
    found: &'static [&'static str],
    problems: &'static [&'static str],
}

fn check(cases: &[Case]) {
    for case in cases {
        let folder = tree(case.files);
        let scan = scan(&[folder.path().join(case.path)]);
        assert_eq!(found(folder.path(), &scan), case.found, "{:?}", case.files);
        assert_eq!(problems(folder.path(), &scan), case.problems, "{:?}", case.files);
    }
}

#[test]
fn every_layout_is_found() {
    check(&[
        Case {
            files: &[
                "m/b/10/model.onnx",
                "m/b/9/model.onnx",
                "m/b/tokenizer.json",
                "m/b/assets/x.txt",
                "m/a/model.onnx",
                "m/c.onnx",
                "m/README.md",
                "m/.git/config",
                "m/b/.cache/1/model.onnx",
            ],
            path: "m",
            found: &[
                "a:1=m/a/model.onnx",
                "b:9=m/b/9/model.onnx",
                "b:10=m/b/10/model.onnx",
                "c:1=m/c.onnx",
            ],
            problems: &[],
        },
        Case {
            files: &["m/iris/2/model.onnx", "m/iris/model.toml"],
            path: "m/iris",
            found: &["iris:2=m/iris/2/model.onnx"],
            problems: &[],
        },
        Case {
            files: &["m/iris/model.onnx"],
            path: "m/iris/",
            found: &["iris:1=m/iris/model.onnx"],
            problems: &[],
        },
        Case {
            files: &["m/iris/model.onnx", "m/iris/sub/"],
            path: "m/iris/sub/..",
            found: &["iris:1=m/iris/sub/../model.onnx"],
            problems: &[],
        },
        Case {
            files: &["some_name.onnx"],
            path: "some_name.onnx",
            found: &["some_name:1=some_name.onnx"],
            problems: &[],
        },
        Case {
            files: &["m/7/1/model.onnx"],
            path: "m",
            found: &["7:1=m/7/1/model.onnx"],
            problems: &[],
        },
    ]);
}

#[test]
fn every_mistake_is_named_and_stops_nothing_else() {
    check(&[
        Case {
            files: &["m/bad name/model.onnx", "m/good/model.onnx"],
            path: "m",
            found: &["good:1=m/good/model.onnx"],
            problems: &[
                "m/bad name: 'bad name' is not a model name: use 1 to 128 letters, digits, '-', \
                 '_' or '.', not starting with a dot; rename it",
            ],
        },
        Case {
            files: &["m/a/", "m/b/1/", "m/c/net.onnx", "m/d/1/net.onnx", "m/d/2/model.onnx"],
            path: "m",
            found: &["d:2=m/d/2/model.onnx"],
            problems: &[
                "m/a: there is no model.onnx in this folder; put the model here as model.onnx, or \
                 remove the folder",
                "m/b/1: there is no model.onnx in this folder; put the model here as model.onnx, \
                 or remove the folder",
                "m/c: there is no model.onnx in this folder; rename net.onnx to model.onnx",
                "m/d/1: there is no model.onnx in this folder; rename net.onnx to model.onnx",
            ],
        },
        Case {
            files: &["m/a/v2/model.onnx", "m/a/best/model.onnx", "m/a/1/model.onnx"],
            path: "m",
            found: &["a:1=m/a/1/model.onnx"],
            problems: &[
                "m/a/best: the name of a version's folder must be a whole number; rename it to a \
                 number; the highest is the newest",
                "m/a/v2: the name of a version's folder must be a whole number; rename it to 2",
            ],
        },
        Case {
            files: &["m/a/1/model.onnx", "m/a/01/model.onnx", "m/a/2/model.onnx"],
            path: "m",
            found: &["a:2=m/a/2/model.onnx"],
            problems: &[
                "m/a: version 1 is there twice: 01/model.onnx and 1/model.onnx; remove or \
                 renumber all but one",
            ],
        },
        Case {
            files: &["m/a/model.onnx", "m/a/1/model.onnx"],
            path: "m",
            found: &[],
            problems: &[
                "m/a: version 1 is there twice: 1/model.onnx and model.onnx; remove or renumber \
                 all but one",
            ],
        },
        Case {
            files: &["m/a/0/model.onnx", "m/a/99999999999999999999/model.onnx"],
            path: "m",
            found: &[],
            problems: &[
                "m/a/0: version numbers go from 1 to 18446744073709551615; rename the folder",
                "m/a/99999999999999999999: version numbers go from 1 to 18446744073709551615; \
                 rename the folder",
            ],
        },
        Case {
            files: &["m/model.toml", "m/a/1/model.onnx", "m/a/1/model.toml"],
            path: "m",
            found: &["a:1=m/a/1/model.onnx"],
            problems: &[
                "m/a/1/model.toml: a version has no manifest of its own; move the file one folder \
                 up, where it holds for all versions",
                "m/model.toml: there is no model beside this file; move it into the folder of its \
                 model",
            ],
        },
        Case {
            files: &["m/a/1/model.onnx/", "m/b/1/model.onnx"],
            path: "m",
            found: &["b:1=m/b/1/model.onnx"],
            problems: &["m/a/1/model.onnx: is not a file; put a readable model file here"],
        },
        Case {
            files: &["m/a.onnx", "m/a/model.onnx"],
            path: "m",
            found: &["a:1=m/a/model.onnx"],
            problems: &["m/a.onnx: the model 'a' is taken from m/a already; rename one of the two"],
        },
        Case {
            files: &["m/"],
            path: "m/",
            found: &[],
            problems: &["m/: there are no models in this folder; add NAME/model.onnx or \
                 NAME/VERSION/model.onnx"],
        },
        Case {
            files: &["m/notes.txt"],
            path: "m/notes.txt",
            found: &[],
            problems: &[
                "m/notes.txt: is neither a folder nor an .onnx file; give a folder of models, a \
                 model's folder, an .onnx file or a models.config",
            ],
        },
    ]);
}

#[test]
fn a_path_that_does_not_exist_is_a_problem() {
    let folder = tree(&[]);
    let scan = scan(&[folder.path().join("nowhere")]);
    assert!(scan.models.is_empty());
    assert!(scan.problems[0].rule.starts_with("cannot be read: "), "{:?}", scan.problems);
}

#[test]
fn a_broken_manifest_stops_its_own_model_only() {
    let folder = tree(&["a/model.onnx", "b/model.onnx"]);
    fs::write(folder.path().join("a/model.toml"), "engine = 'x'\n[queue]\ncapacity = 0").unwrap();
    fs::write(folder.path().join("b/model.toml"), "batching.exact = false").unwrap();
    let scan = scan(&[folder.path()]);
    assert_eq!(found(folder.path(), &scan), ["b:1=b/model.onnx"]);
    assert!(!scan.models[0].manifest.batching.exact);
    let refused: Vec<String> =
        scan.refused.iter().map(|(name, at)| format!("{name}:{at}")).collect();
    assert_eq!(refused, ["a:1"], "it is known to exist");
    assert_eq!(scan.problems.len(), 2);
    let of_a = |problem: &Problem| problem.model.as_ref().is_some_and(|name| name.as_str() == "a");
    assert!(scan.problems.iter().all(of_a), "{:?}", scan.problems);
}

#[test]
fn files_for_warm_up_are_named_by_complete_paths() {
    let folder = tree(&["a/1/model.onnx", "a/warmup/x.bin", "b/1/model.onnx", "secret"]);
    let at = |path: &str| folder.path().join(path);
    let write = |model: &str, file: &str| {
        let text = format!("warmup = [{{ inputs.X.fill = '{file}' }}]");
        fs::write(at(model).join("model.toml"), text).unwrap();
    };
    write("a", "warmup/x.bin");
    write("b", "gone.bin");
    let scan_all = || scan(&[folder.path()]);
    let found = scan_all();
    let warmup = found.models[0].manifest.warmup.as_ref().unwrap();
    assert_eq!(warmup[0].inputs[0].fill, Fill::File(at("a/warmup/x.bin")));
    let starts = problems(folder.path(), &found);
    assert!(starts[0].starts_with("b/gone.bin: cannot be read: "), "{starts:?}");
    assert_eq!(found.refused.len(), 1);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../secret", at("b/gone.bin")).unwrap();
        let starts = problems(folder.path(), &scan_all());
        let leads_out = "b/gone.bin: the link leads out of the model's folder; ";
        assert!(starts.iter().any(|start| start.starts_with(leads_out)), "{starts:?}");
    }
}

#[test]
fn files_that_a_transform_needs_are_named_by_complete_paths_and_belong_to_the_edition() {
    let folder = tree(&["a/1/model.onnx", "a/assets/t.json", "a/labels.txt", "b/model.onnx"]);
    let at = |path: &str| folder.path().join(path);
    let declared = "[transform]\ninput = { kind = 'text', tokenizer = 'assets/t.json' }\noutput = { \
                    kind = 'classification', labels = 'labels.txt' }";
    fs::write(at("a/model.toml"), declared).unwrap();
    let scan_all = || scan(&[folder.path()]);
    let found = scan_all();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let transform = &found.models[0].manifest.transform;
    let Some(InputTransform::Text(text)) = &transform.input else { panic!("{transform:?}") };
    assert_eq!(text.tokenizer, at("a/assets/t.json"));
    let Some(OutputTransform::Classification(output)) = &transform.output else {
        panic!("{transform:?}")
    };
    assert_eq!(output.labels, Labels::File(at("a/labels.txt")));
    assert_eq!(found.models[1].beside, Identity::default(), "b names no files");

    assert_eq!(scan_all().models[0].beside, found.models[0].beside, "nothing has changed");
    let mut before = found.models[0].beside.clone();
    for file in ["a/assets/t.json", "a/labels.txt"] {
        fs::write(at(file), "12345").unwrap();
        let now = scan_all();
        assert_ne!(now.models[0].beside, before, "{file}");
        assert_eq!(now.models[0].versions, found.models[0].versions, "{file}");
        before = now.models[0].beside.clone();
    }
    fs::remove_file(at("a/labels.txt")).unwrap();
    let now = scan_all();
    let starts = problems(folder.path(), &now);
    assert!(starts[0].starts_with("a/labels.txt: cannot be read: "), "{starts:?}");
    assert!(
        starts[0].ends_with("put the file that transform.output needs here, or mend model.toml")
    );
    assert_eq!(now.refused.len(), 1);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../b/model.onnx", at("a/labels.txt")).unwrap();
        let starts = problems(folder.path(), &scan_all());
        let leads_out = "a/labels.txt: the link leads out of the model's folder; ";
        assert!(starts[0].starts_with(leads_out), "{starts:?}");
    }
}

#[test]
fn a_sample_is_found_beside_a_model() {
    struct Case {
        files: &'static [(&'static str, &'static str)],
        sample: Option<&'static str>,
        problems: &'static [&'static str],
    }
    let rows = r#"[{"x": 1}, {"x": 2}]"#;
    let cases = [
        Case { files: &[("sample.json", "[{}]")], sample: Some("sample.json"), problems: &[] },
        Case {
            files: &[("model.toml", ""), ("sample.json", "[{}]"), ("input_example.json", "[{}]")],
            sample: Some("sample.json"),
            problems: &[],
        },
        Case {
            files: &[
                ("model.toml", "sample = 'own.json'"),
                ("own.json", ""),
                ("sample.json", "[{}]"),
            ],
            sample: Some("own.json"),
            problems: &[],
        },
        Case {
            files: &[("input_example.json", "[{}]")],
            sample: Some("input_example.json"),
            problems: &[],
        },
        Case {
            files: &[("input_example.json", r#"{"columns": ["x"], "data": [[1]]}"#)],
            sample: None,
            problems: &[],
        },
        Case {
            files: &[("sample.json", "[1, 2]")],
            sample: None,
            problems: &[
                "warning: m/sample.json: is not a list of rows to try the model with; write a list of \
                         objects by input name, or rename the file",
            ],
        },
        Case {
            files: &[("sample.json", "[{}")],
            sample: None,
            problems: &[
                "warning: m/sample.json: is no JSON: EOF while parsing a list at line 1 column 3; \
                         write a list of objects by input name, or rename the file",
            ],
        },
        Case {
            files: &[("model.toml", "sample = 'gone.json'")],
            sample: None,
            problems: &[
                "m/gone.json: cannot be read: No such file or directory (os error 2); put \
                         the file that sample needs here, or mend model.toml",
            ],
        },
    ];
    for Case { files, sample, problems } in cases {
        let folder = tree(&["m/model.onnx"]);
        for (name, content) in files {
            fs::write(folder.path().join("m").join(name), content).unwrap();
        }
        let found = scan(&[folder.path()]);
        let expected = sample.map(|sample| folder.path().join("m").join(sample));
        let taken = found.models.first().and_then(|model| model.manifest.sample.clone());
        assert_eq!(taken, expected, "{files:?}");
        assert_eq!(self::problems(folder.path(), &found), problems, "{files:?}");
    }
    // A change of it is a new edition, since its rows are kept in memory.
    let folder = tree(&["m/model.onnx"]);
    let sample = folder.path().join("m/sample.json");
    let beside = |content: &str| {
        fs::write(&sample, content).unwrap();
        scan(&[folder.path()]).models[0].beside.clone()
    };
    assert_ne!(beside("[{}]"), beside(rows));
}

#[test]
fn several_paths_are_one_repository() {
    let folder = tree(&["one/a/model.onnx", "two/a/model.onnx", "two/b/model.onnx"]);
    let scan = scan(&[folder.path().join("one"), folder.path().join("two")]);
    assert_eq!(found(folder.path(), &scan), ["a:1=one/a/model.onnx", "b:1=two/b/model.onnx"]);
    assert_eq!(scan.problems.len(), 1);
    assert!(scan.problems[0].rule.contains("is taken from"), "{:?}", scan.problems);
}

#[cfg(unix)]
#[test]
fn a_link_may_not_lead_out() {
    use std::os::unix::fs::symlink;
    let folder = tree(&["m/..data/model.onnx", "m/good/", "m/bad/", "secret/model.onnx"]);
    let at = |path: &str| folder.path().join(path);
    // As Kubernetes mounts a volume: a link to a hidden folder beside it.
    symlink("../..data/model.onnx", at("m/good/model.onnx")).unwrap();
    symlink(at("secret/model.onnx"), at("m/bad/model.onnx")).unwrap();
    symlink("../secret", at("m/away")).unwrap();
    symlink("nowhere", at("m/dangling")).unwrap();
    symlink("m", at("entry")).unwrap();
    let scan = scan(&[at("entry")]);
    assert_eq!(found(folder.path(), &scan), ["good:1=entry/good/model.onnx"]);
    let problems = problems(folder.path(), &scan);
    let starts = [
        "entry/away: the link leads out of ",
        "entry/dangling: cannot be read: ",
        "entry/bad/model.onnx: the link leads out of ",
    ];
    for start in starts {
        assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start}: {problems:?}");
    }
}

#[test]
fn a_folder_may_hold_a_pipeline_in_place_of_a_model() {
    let sound = "[[steps]]\nname = 's'\nmodel = 'iris'\ninputs = { X = 'X' }\n[outputs]\ny = 's.y'";
    let folder = tree(&[
        "m/iris/model.onnx",
        "m/chain/model.toml",
        "m/broken/",
        "m/both/model.onnx",
        "n/iris/",
        "n/chain/model.onnx",
    ]);
    let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    write("m/chain/pipeline.toml", sound);
    write("m/broken/pipeline.toml", "[[steps]]\nname = 's'\nmodel = 'iris'");
    write("m/both/pipeline.toml", sound);
    write("n/iris/pipeline.toml", sound);
    let scan = scan(&[folder.path().join("m"), folder.path().join("n")]);
    assert_eq!(
        found(folder.path(), &scan),
        ["both:1=m/both/model.onnx", "iris:1=m/iris/model.onnx"]
    );
    let pipelines = scan.pipelines.iter().map(|pipeline| {
        let outline = pipeline.outline.as_ref();
        let said = outline.map(|outline| outline.spec().steps.len()).map_err(|reason| &**reason);
        (pipeline.name.as_str(), said)
    });
    let reason =
        "outputs: a pipeline needs an output; write NAME = \"STEP.OUTPUT\" below [outputs]";
    assert_eq!(pipelines.collect::<Vec<_>>(), [("broken", Err(reason)), ("chain", Ok(1))]);
    let taken = |place: &str| folder.path().join(place).display().to_string();
    assert_eq!(
        problems(folder.path(), &scan),
        [
            "m/both/pipeline.toml: a folder holds a model or a pipeline, and a model is here; \
             move one of the two to a folder of its own"
                .to_owned(),
            format!("m/broken/pipeline.toml: {reason}"),
            "warning: m/chain/model.toml: is not read: a pipeline's steps are models with \
             manifests of their own; remove it"
                .to_owned(),
            format!(
                "n/chain: the model 'chain' is taken from {} already; rename one of the two",
                taken("m/chain/pipeline.toml")
            )
            .replace(&format!("{}/", folder.path().display()), ""),
            format!(
                "n/iris/pipeline.toml: the model 'iris' is taken from {} already; \
                rename one of the two",
                taken("m/iris")
            )
            .replace(&format!("{}/", folder.path().display()), ""),
        ]
    );
    let one = super::scan(&[folder.path().join("m/chain")]);
    assert_eq!(one.pipelines[0].name.as_str(), "chain", "its folder is given alone");
}
