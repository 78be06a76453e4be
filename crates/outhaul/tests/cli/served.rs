//! `serve`, `demo` and `bench`: a server from its start to its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use crate::Folder;

/// A server that runs until the test ends.
pub(crate) struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
    /// What was printed until it was ready.
    printed: String,
}

impl Server {
    pub(crate) fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let mut command = folder.outhaul(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        let mut server = Server { child, out, err, printed: String::new() };
        while !server.printed.contains("Ready.") {
            if server.out.read_line(&mut server.printed).unwrap() == 0 {
                let mut error = String::new();
                server.err.read_to_string(&mut error).unwrap();
                panic!("the server ended: {}\n{error}", server.printed);
            }
        }
        server
    }

    /// The address behind `HTTP` or `gRPC`.
    pub(crate) fn address(&self, protocol: &str) -> String {
        let line = self.printed.lines().find(|line| line.trim_start().starts_with(protocol));
        let address = line.expect(&self.printed).split_whitespace().last().unwrap();
        address.trim_start_matches("http://").to_owned()
    }

    fn send(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.address("HTTP")).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn infer(&self, model: &str, body: &str) -> String {
        self.send(&format!(
            "POST /v2/models/{model}/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }

    /// Reads the log up to a line that holds a text.
    fn log_until(&mut self, text: &str) -> String {
        let mut log = String::new();
        while !log.contains(text) {
            assert_ne!(self.err.read_line(&mut log).unwrap(), 0, "no '{text}' in {log}");
        }
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const ANYWHERE: [&str; 4] = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];

fn serve(folder: &Folder, more: &[&str]) -> Server {
    let arguments: Vec<&str> = ["serve"].iter().chain(&ANYWHERE).chain(more).copied().collect();
    Server::start(folder, &arguments)
}

fn echo(folder: &Folder) -> (String, String) {
    let signature = folder.run(&["inspect", "models/echo", "--output", "json"]).json();
    let input = signature["inputs"][0]["name"].as_str().unwrap().to_owned();
    let body = serde_json::json!({ "inputs": [{
        "name": input, "shape": [1, 2], "datatype": "FP32", "data": [0.5, 2.0],
    }] });
    (input, body.to_string())
}

#[test]
fn a_server_answers_reports_and_ends_in_order() {
    let folder = Folder::new();
    folder.model("identity_fp32", "models/echo/1/model.onnx");
    folder.model("not_onnx", "models/broken/1/model.onnx");
    folder.write("models/typo/model.toml", "engin = 'auto'\n");
    folder.model("identity_fp32", "models/typo/model.onnx");
    let (_, body) = echo(&folder);
    let mut server = serve(&folder, &[]);
    let printed = server.printed.clone();
    let row = printed.lines().find(|line| line.trim_start().starts_with("echo")).expect(&printed);
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..3], ["echo", "1", "embedded"], "{printed}");
    assert!(row.ends_with("exact, up to 32 rows"), "{printed}");
    assert!(printed.contains("\n  embedded: no ONNX Runtime library was found"), "{printed}");
    let typo = "models/typo/model.toml:1: engin = \"auto\": unknown key; did you mean engine?";
    assert!(printed.contains(typo), "{printed}");
    assert!(printed.contains("models/broken/1/model.onnx: "), "{printed}");

    let answer = server.infer("echo", &body);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("[0.5,2.0]"), "{answer}");
    let answer = server.infer("typo", &body);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("what is declared of it has problems"), "{answer}");

    server.signal("TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let mut log = String::new();
    server.err.read_to_string(&mut log).unwrap();
    assert!(log.contains("SIGTERM: requests in flight have 30s to finish"), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn a_request_in_flight_is_finished_and_a_second_signal_ends_it() {
    let folder = Folder::new();
    folder.model("identity_fp32", "models/echo/1/model.onnx");
    let (_, body) = echo(&folder);
    let half_sent = |server: &Server| {
        let mut stream = TcpStream::connect(server.address("HTTP")).unwrap();
        let head = format!(
            "POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: \
             100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // The server asks for the body: so it has the request.
        let mut reader = BufReader::new(stream);
        let mut asked = String::new();
        while !asked.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut asked).unwrap(), 0, "{asked}");
        }
        assert!(asked.starts_with("HTTP/1.1 100 "), "{asked}");
        reader
    };

    let mut server = serve(&folder, &[]);
    let mut request = half_sent(&server);
    server.signal("TERM");
    server.log_until("requests in flight");
    request.get_mut().write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));

    let mut server = serve(&folder, &[]);
    let request = half_sent(&server);
    server.signal("INT");
    server.log_until("Ctrl-C: requests in flight");
    server.signal("INT");
    assert_eq!(server.child.wait().unwrap().code(), Some(130));
    // The connection may be gone by now.
    let _ = request.get_ref().shutdown(Shutdown::Both);
}

#[test]
fn a_server_without_a_model_says_why_and_ends() {
    let folder = Folder::new();
    let ran = folder.run(&["serve", "--http", "127.0.0.1:0", "--grpc", "off"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("error: models: cannot be read: "), "{ran:?}");
    folder.model("not_onnx", "models/broken/1/model.onnx");
    let ran = folder.run(&["serve", "--http", "127.0.0.1:0", "--grpc", "off"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("error: models/broken/1/model.onnx: "), "{ran:?}");
}

#[test]
fn a_port_in_use_is_told_before_anything_is_loaded() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = folder.run(&["serve", "--http", &address]).failed();
    let expected = format!("error: cannot serve HTTP on {address} (flag --http); another program");
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn a_bench_measures_over_http_and_grpc() {
    let folder = Folder::new();
    folder.model("identity_fp32", "models/echo/1/model.onnx");
    let (_, body) = echo(&folder);
    let server = serve(&folder, &["--log-level", "warn"]);
    let http = format!("http://{}", server.address("HTTP"));
    let grpc = server.address("gRPC");
    let quick = ["--duration", "200ms", "--warmup", "50ms", "--concurrency", "4"];
    let bench = |arguments: &[&str]| {
        let all: Vec<&str> = ["bench"].iter().chain(arguments).chain(&quick).copied().collect();
        folder.run(&all)
    };
    folder.write("request.json", &body);
    let runs: [(&str, &[&str]); 4] = [
        ("closed", &[&http, "--model", "echo", "--rows", "3"]),
        ("open", &[&http, "--model", "echo", "--rate", "200"]),
        ("closed", &[&grpc, "--grpc", "--model", "echo"]),
        ("closed", &[&http, "--path", "/v2/models/echo/infer", "--input", "request.json"]),
    ];
    for (pace, arguments) in runs {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--output", "json"]).collect();
        let report = bench(&arguments).json();
        assert_eq!(report["pace"], pace, "{report}");
        assert_eq!(report["errors"], serde_json::json!({}), "{report}");
        assert!(report["answers_per_second"].as_f64().unwrap() > 0.0, "{report}");
        assert!(report["latency_us"]["max"].as_f64() >= report["latency_us"]["p50"].as_f64());
    }
    let text = bench(&[&http, "--model", "echo"]).ok();
    assert!(
        text.starts_with(&format!("echo at {http}: HTTP, closed loop, 4 connections")),
        "{text}"
    );

    let error = bench(&[&http, "--model", "nobody"]).failed();
    assert!(error.starts_with("error: the server refuses the metadata of 'nobody': "), "{error}");
    let error = bench(&[&http, "--model", "echo", "--shape", "zzz=1"]).failed();
    assert!(error.contains("the model has no input 'zzz'"), "{error}");
    let error = bench(&[&grpc, "--model", "echo"]).failed();
    assert!(error.starts_with("error: "), "HTTP/1.1 to the gRPC port: {error}");
}

#[test]
fn the_demo_shows_a_request_and_goes_on_serving() {
    let folder = Folder::new();
    folder.model("identity_fp32", "examples/models/echo/1/model.onnx");
    let arguments: Vec<&str> = ["demo"].iter().chain(&ANYWHERE).copied().collect();
    let mut server = Server::start(&folder, &arguments);
    let printed = server.printed.clone();
    assert!(printed.contains("\n$ curl http://127.0.0.1:"), "{printed}");
    assert!(printed.contains("\n{\"model_name\":\"echo\""), "{printed}");
    let (_, body) = {
        folder.model("identity_fp32", "models/echo/1/model.onnx");
        echo(&folder)
    };
    assert!(server.infer("echo", &body).starts_with("HTTP/1.1 200 "));
    server.signal("INT");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
