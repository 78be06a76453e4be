//! What happens to files while their models are served: nothing half is ever loaded, what answers goes
//! on answering, and what is whole again is taken up without anybody's asking.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::model::{marked, marked_outside};
use crate::server::{Folder, QUESTION, Server, Stop, mark_of, pause, send, until};

/// Asks a model again and again while something is done; every answer must be one of these marks.
fn while_answering(server: &Server, model: &str, marks: &[u16], act: impl FnOnce()) {
    let (address, stop) = (server.address(), Stop::default());
    let path = format!("/v2/models/{model}/infer");
    let ask = || {
        let mut answers = 0;
        while !stop.is_told() {
            let answer = send(address, "POST", &path, QUESTION).unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(marks.contains(&mark_of(&answer)), "{answer:?}");
            answers += 1;
            pause(Duration::from_millis(2));
        }
        answers
    };
    thread::scope(|scope| {
        let asking = scope.spawn(ask);
        let stopping = stop.at_end();
        act();
        drop(stopping);
        assert!(asking.join().unwrap() > 0);
    });
}

#[test]
fn a_version_that_is_slowly_written_over_is_never_half_loaded() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    let server = folder.serve(&[]);
    while_answering(&server, "sound", &[7, 8], || {
        let mut file = folder.open_in_place("sound", 1);
        let content = marked(8);
        // Over two seconds, in pieces that come faster than files count as settled.
        for piece in content.chunks(content.len() / 20) {
            file.write_all(piece).unwrap();
            pause(Duration::from_millis(100));
        }
        server.until_marked("sound", 8);
    });
    // Cut off first, as `cp` does: what answers does not depend on the file.
    while_answering(&server, "sound", &[8, 9], || {
        let path = folder.path("models/sound/1/model.onnx");
        let mut file = fs::File::create(path).unwrap();
        let content = marked(9);
        for piece in content.chunks(content.len() / 8) {
            file.write_all(piece).unwrap();
            pause(Duration::from_millis(100));
        }
        server.until_marked("sound", 9);
    });
}

#[test]
fn weights_in_a_file_of_their_own_may_be_cut_off_while_they_serve() {
    let folder = Folder::new();
    let (model, weights) = marked_outside(7);
    folder.write("sound/1/model.onnx.data", &weights);
    folder.write("sound/1/model.onnx", &model);
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.outhaul/onnxruntime");
    let library = library.to_str().unwrap().to_owned();
    // Where the library was not fetched the embedded engine is tested, which reads and does not map.
    let engine =
        if Path::new(&library).exists() { vec!["--onnxruntime", &library] } else { vec![] };
    let server = folder.serve(&engine);
    assert_eq!(server.mark("sound").ok(), Some(7));
    // As `cp` begins: the file is there, and empty.
    let mut file = fs::File::create(folder.path("models/sound/1/model.onnx.data")).unwrap();
    assert_eq!(server.mark("sound").ok(), Some(7), "{}", server.log());
    pause(Duration::from_millis(700));
    assert_eq!(server.mark("sound").ok(), Some(7), "what does not load takes nothing away");
    file.write_all(&marked_outside(8).1).unwrap();
    server.until_marked("sound", 8);
}

#[test]
fn a_version_that_is_slowly_copied_in_is_taken_when_it_is_whole() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 1);
    let server = folder.serve(&[]);
    while_answering(&server, "sound", &[1, 2], || {
        let content = marked(2);
        folder.write("sound/2/model.onnx", b"");
        let mut file = folder.open_in_place("sound", 2);
        for piece in content.chunks(content.len() / 10) {
            file.write_all(piece).unwrap();
            pause(Duration::from_millis(100));
        }
        server.until_marked("sound", 2);
    });
    assert!(!server.log().contains("not served"), "nothing half was tried: {}", server.log());
}

#[test]
fn a_new_version_that_is_damaged_leaves_the_old_one() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 1);
    let server = folder.serve(&[]);
    while_answering(&server, "sound", &[1, 3], || {
        let whole = marked(2);
        folder.put("sound", 2, &whole[..1000]);
        until("it is told", || {
            let is_failed = |(version, state, reason): &(String, String, String)| {
                version == "2" && state == "UNAVAILABLE" && reason.contains("is cut off")
            };
            server.index("sound").iter().any(is_failed)
        });
        assert!(server.log().contains("is cut off"), "{}", server.log());
        let metrics = server.send("GET", "/metrics", "").body;
        let failures = metrics.lines().filter(|line| line.contains("model=\"sound\""));
        assert!(failures.clone().any(|line| line.contains("failed")), "{metrics}");
        // The same version, damaged in its own place, and mended.
        folder.write("sound/1/model.onnx", b"");
        until("it is told", || server.log().contains("is empty"));
        assert_eq!(server.mark("sound").unwrap(), 1, "what is in memory answers on");
        folder.write("sound/2/model.onnx", &marked(3));
        server.until_marked("sound", 3);
    });
}

#[test]
fn a_manifest_that_turns_wrong_keeps_what_answers() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 1);
    let server = folder.serve(&[]);
    while_answering(&server, "sound", &[1, 2], || {
        folder.write("sound/model.toml", b"engin = 'auto'\n");
        until("it is told", || server.log().contains("did you mean engine?"));
        folder.put_marked("sound", 2, 2);
        // As long as it takes to be found and taken as whole, had it been taken.
        pause(Duration::from_millis(1000));
        assert_eq!(server.mark("sound").unwrap(), 1, "nothing new is loaded");
        let index = server.index("sound");
        let one = index.iter().find(|(version, ..)| version == "1").unwrap();
        assert_eq!(one.1, "READY", "{index:?}");
        folder.write("sound/model.toml", b"engine = 'auto'\n");
        server.until_marked("sound", 2);
    });
}

#[test]
fn a_model_that_is_deleted_goes_and_comes_back() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    folder.put_marked("gone", 1, 1);
    let server = folder.serve(&[]);
    while_answering(&server, "sound", &[7], || {
        for mark in 2..5 {
            fs::remove_dir_all(folder.path("models/gone")).unwrap();
            until("it is gone", || server.ask("gone").status == 404);
            assert!(server.index("gone").is_empty());
            folder.put_marked("gone", 1, mark);
            server.until_marked("gone", mark);
        }
    });
    // Moved away and back, as it was.
    let elsewhere = folder.path("elsewhere");
    fs::rename(folder.path("models/gone"), &elsewhere).unwrap();
    until("it is gone", || server.ask("gone").status == 404);
    fs::rename(&elsewhere, folder.path("models/gone")).unwrap();
    server.until_marked("gone", 4);
}

#[test]
fn what_takes_the_place_of_a_served_file_never_stops_the_server() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    folder.put_marked("changed", 1, 1);
    let server = folder.serve(&[]);
    let file = folder.path("models/changed/1/model.onnx");
    let takes: [(&str, &dyn Fn()); 3] = [
        ("a pipe", &|| {
            assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        }),
        ("a folder", &|| fs::create_dir(&file).unwrap()),
        ("a link to itself", &|| std::os::unix::fs::symlink("model.onnx", &file).unwrap()),
    ];
    let mut mark = 1;
    for (what, take) in takes {
        let told = server.log().matches("models/changed/1/model.onnx").count();
        fs::remove_file(&file).unwrap();
        take();
        until(what, || server.log().matches("models/changed/1/model.onnx").count() > told);
        assert_eq!(server.mark("sound").unwrap(), 7, "{what}");
        if file.is_dir() { fs::remove_dir(&file) } else { fs::remove_file(&file) }.unwrap();
        mark += 1;
        fs::write(&file, marked(mark)).unwrap();
        server.until_marked("changed", mark);
    }
}

#[test]
fn a_second_folder_of_one_number_takes_nothing_out_of_service() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 1);
    folder.put_marked("sound", 2, 2);
    let server = folder.serve(&[]);
    while_answering(&server, "sound", &[1, 2], || {
        folder.write("sound/01/model.onnx", &marked(5));
        until("it is told", || server.log().contains("version 1 is there twice"));
        assert_eq!(server.mark("sound").unwrap(), 2);
        fs::remove_dir_all(folder.path("models/sound/01")).unwrap();
    });
}

#[test]
fn a_place_that_vanishes_and_comes_back_loses_nothing() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 1);
    folder.put_marked("other", 1, 4);
    let server = folder.serve(&[]);
    let (models, away) = (folder.path("models"), folder.path("away"));
    while_answering(&server, "sound", &[1, 2, 3, 5], || {
        fs::rename(&models, &away).unwrap();
        until("it is told", || server.log().contains("cannot look for models"));
        assert_eq!(server.mark("other").unwrap(), 4, "what is in memory answers on");
        fs::rename(&away, &models).unwrap();
        folder.put_marked("sound", 2, 2);
        server.until_marked("sound", 2);

        // Another folder in its place, as after a new mount or a link that is switched.
        fs::rename(&models, &away).unwrap();
        fs::create_dir(&models).unwrap();
        for (model, mark) in [("sound", 3), ("other", 4)] {
            folder.put_marked(model, 3, mark);
        }
        let began = Instant::now();
        server.until_marked("sound", 3);
        let first = began.elapsed();
        // And its changes are heard of.
        folder.put_marked("sound", 5, 5);
        let began = Instant::now();
        server.until_marked("sound", 5);
        println!(
            "the new folder was seen after {first:?}, its changes after {:?}",
            began.elapsed()
        );
        assert!(first < Duration::from_secs(10), "{first:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    });
}

#[test]
fn fifty_models_at_once_are_all_served() {
    let folder = Folder::new();
    folder.put_marked("sound", 1, 7);
    let server = folder.serve(&[]);
    while_answering(&server, "sound", &[7], || {
        for number in 1..=50 {
            folder.put_marked(&format!("model{number}"), 1, number);
        }
        for number in 1..=50 {
            server.until_marked(&format!("model{number}"), number);
        }
        for number in 1..=50 {
            fs::remove_dir_all(folder.path(format!("models/model{number}"))).unwrap();
        }
        until("they are gone", || {
            let all = server.send("POST", "/v2/repository/index", "{}").json();
            all.as_array().unwrap().len() == 1
        });
    });
}
