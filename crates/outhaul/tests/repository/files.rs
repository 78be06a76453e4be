//! Files and folders that are no models, beside one that is: each is told, and stops no other.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use std::{ffi::OsStr, fs, os::unix::fs::symlink};

use crate::model::{chain, marked, of_unknown_operator};
use crate::server::{Folder, Server, until};

fn pipe(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// What is printed of problems when the server is ready is also in the log.
#[track_caller]
fn told(server: &Server, words: &[&str]) {
    let log = server.log();
    let holds = |line: &&str| words.iter().all(|word| line.contains(word));
    assert!(log.lines().any(|line| holds(&line)), "{words:?} in {log}");
}

#[test]
fn files_that_are_no_models_stop_no_other() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    let whole = marked(1);
    folder.write("truncated/1/model.onnx", &whole[..whole.len() / 2]);
    folder.write("empty/1/model.onnx", b"");
    folder.write("operator/1/model.onnx", &of_unknown_operator());
    folder.write("twice/1/model.onnx", &marked(2));
    folder.write("twice/01/model.onnx", &marked(3));
    folder.write("twice_and_once/1/model.onnx", &marked(2));
    folder.write("twice_and_once/001/model.onnx", &marked(3));
    folder.write("twice_and_once/2/model.onnx", &marked(4));
    folder.write("zero/0/model.onnx", &whole);
    folder.write("beyond/99999999999999999999/model.onnx", &whole);
    folder.write("folder/1/model.onnx/model.onnx", &whole);
    pipe(&folder.path("models/pipe/1/model.onnx"));
    folder.write("pipe_declares/1/model.onnx", &whole);
    pipe(&folder.path("models/pipe_declares/model.toml"));

    let server = folder.serve(&[]);
    assert_eq!(server.mark("sound").unwrap(), 7);
    assert_eq!(server.mark("twice_and_once").unwrap(), 4);
    struct Case {
        model: &'static str,
        /// Its state and a word of its reason; `None` where the server knows no such model.
        index: Option<(&'static str, &'static str)>,
        logged: &'static str,
    }
    let failed =
        |model, reason| Case { model, index: Some(("UNAVAILABLE", reason)), logged: reason };
    let unknown = |model, logged| Case { model, index: None, logged };
    let cases = [
        failed("truncated", "is cut off"),
        failed("empty", "is empty"),
        failed("operator", "Frobnicate"),
        Case {
            model: "pipe_declares",
            index: Some(("UNAVAILABLE", "what is declared of it has problems")),
            logged: "is not a file",
        },
        unknown("twice", "version 1 is there twice: 01/model.onnx and 1/model.onnx"),
        unknown("zero", "version numbers go from 1"),
        unknown("beyond", "version numbers go from 1"),
        unknown("folder", "is not a file"),
        unknown("pipe", "is not a file"),
    ];
    for Case { model, index, logged } in cases {
        told(&server, &[model, logged]);
        let answer = server.ask(model);
        match (index, &server.index(model)[..]) {
            (Some((expected, reason)), [(version, state, told)]) => {
                assert_eq!((version.as_str(), state.as_str()), ("1", expected), "{model}");
                assert!(told.contains(reason), "{model}: {told}");
                assert_eq!(answer.status, 503, "{model}: {answer:?}");
                assert!(answer.body.contains(reason), "{model}: {answer:?}");
            }
            (None, []) => assert_eq!(answer.status, 404, "{model}: {answer:?}"),
            (_, listed) => panic!("{model}: {listed:?}"),
        }
    }
    // What is mended is served, without anybody's asking.
    folder.write("truncated/1/model.onnx", &marked(5));
    fs::remove_file(folder.path("models/pipe/1/model.onnx")).unwrap();
    folder.write("pipe/1/model.onnx", &marked(6));
    fs::remove_dir_all(folder.path("models/twice/01")).unwrap();
    for (model, mark) in [("truncated", 5), ("pipe", 6), ("twice", 2)] {
        server.until_marked(model, mark);
    }
    assert_eq!(server.mark("sound").unwrap(), 7);
}

#[test]
fn nothing_outside_of_the_folder_is_served() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    let outside = |path: &str| folder.path("outside").join(path);
    fs::create_dir_all(outside("model/1")).unwrap();
    fs::write(outside("model/1/model.onnx"), marked(9)).unwrap();
    let models = |path: &str| folder.path("models").join(path);
    for path in ["file/1", "version"] {
        fs::create_dir_all(models(path)).unwrap();
    }
    symlink(outside("model/1/model.onnx"), models("file/1/model.onnx")).unwrap();
    symlink(outside("model/1"), models("version/1")).unwrap();
    symlink(outside("model"), models("whole")).unwrap();
    symlink("../outside/model", models("relative")).unwrap();
    symlink(outside("nowhere"), models("dangling")).unwrap();
    symlink("circle", models("circle")).unwrap();
    // What stays inside is welcome.
    symlink("sound", models("alias")).unwrap();

    let server = folder.serve(&[]);
    for model in ["sound", "alias"] {
        assert_eq!(server.mark(model).unwrap(), 7, "{model}");
    }
    for model in ["file", "version", "whole", "relative", "dangling", "circle"] {
        let answer = server.ask(model);
        assert_eq!(answer.status, 404, "{model}: {answer:?}");
        let reason = match model {
            "dangling" | "circle" => "cannot be read",
            _ => "leads out of",
        };
        told(&server, &[&format!("models/{model}"), reason]);
    }
    // A link that is turned outwards while its model is served takes the model out of service, or
    // leaves what is in memory; it never shows what is outside.
    fs::remove_file(models("alias")).unwrap();
    symlink(outside("model"), models("alias")).unwrap();
    until("the link is told", || server.log().contains("models/alias"));
    assert!(server.mark("alias").map_or(true, |mark| mark == 7));
    assert_eq!(server.mark("sound").unwrap(), 7);
}

#[test]
fn a_file_that_may_not_be_read_is_told() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    folder.put_marked("secret", 1, 8);
    let file = folder.path("models/secret/1/model.onnx");
    let set = |mode| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o000);
    if fs::File::open(&file).is_ok() {
        // Whoever runs this may read everything (root): there is nothing to see.
        println!("not tested: this user reads files whatever their permissions say");
        return;
    }
    let server = folder.serve(&[]);
    assert_eq!(server.mark("sound").unwrap(), 7);
    assert_eq!(server.ask("secret").status, 404);
    told(&server, &["models/secret/1/model.onnx", "cannot be read"]);
    set(0o644);
    server.until_marked("secret", 8);
}

#[test]
fn folders_of_odd_names_are_told() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    let long = "n".repeat(200);
    let odd: [&[u8]; 8] = [
        b"two words",
        b"percent%2Fslash",
        b"semi;colon",
        "\u{fc}ml\u{e4}ut".as_bytes(),
        b"line\nbreak",
        b"\xff\xfe",
        b"<script>",
        long.as_bytes(),
    ];
    for name in odd {
        folder.write(PathBuf::from(OsStr::from_bytes(name)).join("1/model.onnx"), &marked(1));
    }
    folder.put_marked(".hidden", 1, 1);
    let server = folder.serve(&[]);
    assert_eq!(server.mark("sound").unwrap(), 7);
    let all = server.send("POST", "/v2/repository/index", "{}").json();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
    assert_eq!(names, ["sound"], "{all}");
    let log = server.log();
    assert_eq!(log.matches("is not a model name").count(), odd.len(), "{log}");
    assert!(!log.contains("hidden"), "{log}");
}

/// Returns kilobytes that a process holds, or held at most.
fn memory(server: &Server, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_graph_of_100_000_nodes_takes_bounded_time_and_memory() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    let server = folder.serve(&[]);
    let before = memory(&server, "VmRSS");
    let began = Instant::now();
    folder.put("giant", 1, &chain(100_000));
    until("the giant ends", || {
        assert_eq!(server.mark("sound").unwrap(), 7);
        server.log().lines().any(|line| line.contains("model=giant"))
    });
    let (took, most) = (began.elapsed(), memory(&server, "VmHWM") - before);
    println!("{:?} in {took:?}, at most {most} kB more", server.index("giant"));
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(most < 2 << 20, "{most} kB");
    assert_eq!(server.mark("giant").unwrap(), 0, "it is sound, only long");
    assert_eq!(server.mark("sound").unwrap(), 7);
}

#[test]
fn a_clock_that_is_ahead_keeps_nobody_waiting() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    let ahead = SystemTime::now() + Duration::from_secs(30 * 24 * 3600);
    let touch = |version: u64| {
        folder.open_in_place("sound", version).set_modified(ahead).unwrap();
    };
    touch(1);
    let server = folder.serve(&[]);
    assert_eq!(server.mark("sound").unwrap(), 7);
    folder.put_marked("sound", 2, 8);
    touch(2);
    server.until_marked("sound", 8);
    // Content of the same size and time is seen all the same.
    fs::write(folder.path("models/sound/2/model.onnx"), marked(9)).unwrap();
    touch(2);
    server.until_marked("sound", 9);
}
