//! `outhaul models` against a server of the same binary.

use std::net::TcpListener;

use serde_json::Value;

use crate::served::{ANYWHERE, Server};
use crate::{Folder, Ran};

/// A server in explicit mode with `echo` in two versions, of which 1 is `stable`, and `broken`.
fn serve(folder: &Folder) -> Server {
    folder.model("identity_fp32", "models/echo/1/model.onnx");
    folder.model("identity_fp32", "models/echo/2/model.onnx");
    folder.write("models/echo/model.toml", "versions = 'all'\n\n[labels]\nstable = 1\n");
    folder.model("not_onnx", "models/broken/1/model.onnx");
    folder.model("identity_int64", "models/whole/1/model.onnx");
    let explicit = ["serve", "--mode", "explicit", "--load-model", "whole"];
    let arguments: Vec<&str> = explicit.iter().chain(&ANYWHERE).copied().collect();
    Server::start(folder, &arguments)
}

/// Runs `outhaul models` with the server's URL in the environment.
fn models(folder: &Folder, server: &Server, arguments: &[&str]) -> Ran {
    let arguments: Vec<&str> = ["models"].iter().chain(arguments).copied().collect();
    let mut command = folder.outhaul(&arguments);
    command.env("OUTHAUL_URL", format!("http://{}", server.address("HTTP")));
    Ran::new(command.output().unwrap())
}

/// Returns the table's rows as words, the header first.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn models_are_listed_loaded_and_unloaded() {
    let folder = Folder::new();
    let server = serve(&folder);
    let models = |arguments: &[&str]| models(&folder, &server, arguments);

    let listed = models(&["list"]).ok();
    let table = rows(&listed);
    assert_eq!(
        table[0],
        ["MODEL", "VERSION", "STATE", "LABELS", "ENGINE", "MEMORY", "LAST", "ERROR"]
    );
    let shown: Vec<&[&str]> = table[1..].iter().map(|row| &row[..4]).collect();
    assert_eq!(
        shown,
        [
            ["broken", "1", "unloaded", "-"],
            ["echo", "1", "unloaded", "stable"],
            ["echo", "2", "unloaded", "-"],
            ["whole", "1", "ready", "-"],
        ],
        "{listed}"
    );

    let loaded = models(&["load", "echo"]).ok();
    assert!(loaded.starts_with("echo loaded in "), "{loaded}");
    assert!(loaded.contains("\n  version 2 ready on embedded"), "{loaded}");
    let ready = models(&["list", "--state", "ready"]).ok();
    assert_eq!(rows(&ready).len(), 4, "{ready}");

    let unloaded = models(&["unload", "echo", "whole"]).ok();
    assert_eq!(unloaded, "echo unloaded\nwhole unloaded\n");
    let listed = models(&["list", "--output", "json"]).json();
    let standing: Vec<_> = listed.as_array().unwrap().iter().map(|entry| &entry["state"]).collect();
    assert!(standing.iter().all(|state| *state == "unloaded"), "{listed}");

    let one = models(&["load", "echo", "--version", "1", "--output", "json"]).json();
    assert_eq!((&one["model"], &one["versions"][0]["version"]), (&"echo".into(), &"1".into()));
    assert_eq!(one["versions"][0]["labels"], serde_json::json!(["stable"]));
}

#[test]
fn what_cannot_be_done_is_told() {
    let folder = Folder::new();
    let server = serve(&folder);
    let models = |arguments: &[&str]| models(&folder, &server, arguments);

    let error = models(&["load", "broken"]).failed();
    assert!(error.starts_with("error: 'broken' was not loaded: "), "{error}");
    let failed = models(&["list", "--state", "failed,dormant", "--output", "json"]).json();
    let [broken] = &failed.as_array().unwrap()[..] else { panic!("{failed}") };
    assert_eq!((&broken["name"], &broken["state"]), (&"broken".into(), &"failed".into()));
    assert!(broken["last_error"].as_str().is_some_and(|error| !error.is_empty()), "{broken}");
    let table = models(&["list", "--state", "failed"]).ok();
    assert!(rows(&table)[1].len() > 7, "the error stands in the table: {table}");

    let error = models(&["load", "echo", "--version", "9"]).failed();
    assert!(error.contains("version 9"), "{error}");
    let ran = models(&["unload", "nobody", "whole", "no_one"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), "whole unloaded\n"), "{ran:?}");
    assert!(ran.err.starts_with("error: 2 models were not unloaded\n  'nobody' was "), "{ran:?}");
    let ran = models(&["load", "../etc"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let ran = models(&["load", "echo", "--version", "stable"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let folder = Folder::new();
    // Bound and let go, so that nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    for arguments in [&["list"][..], &["load", "iris"], &["unload", "iris"]] {
        let error = folder.run(&[&["models"], arguments, &["--url", &url]].concat()).failed();
        let start = format!("error: nobody answers at {url}; start a server with `outhaul serve`");
        assert!(error.starts_with(&start), "{error}");
    }
    let error = folder.run(&["models", "list", "--url", "https://models.example"]).failed();
    assert!(error.contains("is not an http URL"), "{error}");
}

#[test]
fn another_server_is_told_from_an_empty_one() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let other = std::thread::spawn(move || {
        for answer in [
            "404 Not Found\r\ncontent-length: 4\r\n\r\nwhat",
            "200 OK\r\ncontent-length: 2\r\n\r\n[]",
        ] {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            // Its body is the end of the request.
            while !received.ends_with(b"{}") {
                let mut piece = [0; 4096];
                let length = stream.read(&mut piece).unwrap();
                assert_ne!(length, 0, "the request was cut short");
                received.extend_from_slice(&piece[..length]);
            }
            stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).unwrap();
        }
    });
    let error = folder.run(&["models", "list", "--url", &url]).failed();
    assert!(error.ends_with("does not list its models: status 404: what\n"), "{error}");
    let listed = folder.run(&["models", "list", "--url", &url, "--output", "json"]).json();
    assert_eq!(listed, Value::Array(Vec::new()));
    other.join().unwrap();
}
