//! A folder of models, and the built server over it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::model::marked;

/// How long a test waits for what is to happen before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Lets time pass.
pub(crate) fn pause(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

/// Waits until something holds, looking again and again.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        pause(Duration::from_millis(5));
    }
}

/// What tells threads to stop, also where a test fails before it would: who starts them waits for them.
#[derive(Default)]
pub(crate) struct Stop(AtomicBool);

/// The end of which tells threads to stop.
pub(crate) struct StopAtEnd<'s>(&'s Stop);

impl Stop {
    pub(crate) fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn at_end(&self) -> StopAtEnd<'_> {
        StopAtEnd(self)
    }
}

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// A folder to run in, with models in `models`.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path("models")).unwrap();
        folder
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(path)
    }

    /// Writes a file below `models`.
    pub(crate) fn write(&self, path: impl AsRef<Path>, content: &[u8]) {
        let path = self.path("models").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Puts a version in place as a whole: it is written elsewhere and renamed.
    pub(crate) fn put(&self, model: &str, version: u64, content: &[u8]) {
        let coming = self.path("coming");
        fs::create_dir_all(&coming).unwrap();
        fs::write(coming.join("model.onnx"), content).unwrap();
        let folder = self.path("models").join(model);
        fs::create_dir_all(&folder).unwrap();
        fs::rename(coming, folder.join(version.to_string())).unwrap();
    }

    /// Puts a version of a mark in place.
    pub(crate) fn put_marked(&self, model: &str, version: u64, mark: u16) {
        self.put(model, version, &marked(mark));
    }

    /// Opens a version's file to write over what is there.
    pub(crate) fn open_in_place(&self, model: &str, version: u64) -> File {
        let path = self.path(format!("models/{model}/{version}/model.onnx"));
        File::options().write(true).open(path).unwrap()
    }

    /// The command, not yet run, in an environment without settings.
    pub(crate) fn outhaul(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outhaul"));
        let ours = std::env::vars_os().map(|(name, _)| name);
        for name in ours.filter(|name| name.to_string_lossy().starts_with("OUTHAUL_")) {
            command.env_remove(name);
        }
        for name in ["VIRTUAL_ENV", "CONDA_PREFIX", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(self.0.path()).env("HOME", self.0.path());
        command.stdin(Stdio::null());
        command
    }

    /// Starts a server over `models` that takes versions as whole soon, without waiting for it.
    pub(crate) fn spawn(&self, more: &[&str]) -> Server {
        let base = ["serve", "--http", "127.0.0.1:0", "--grpc", "off", "--settle", SETTLE];
        Server::spawn(self.outhaul(&[&base, more].concat()))
    }

    /// Starts such a server and waits until it is ready.
    pub(crate) fn serve(&self, more: &[&str]) -> Server {
        let server = self.spawn(more);
        server.wait_until_ready();
        server
    }
}

/// How long files must have been left alone in these tests.
pub(crate) const SETTLE: &str = "400ms";

/// What a process has printed so far.
#[derive(Default)]
struct Printed {
    text: Mutex<(String, bool)>,
    more: Condvar,
}

impl Printed {
    fn read(from: impl Read + Send + 'static) -> (Arc<Self>, JoinHandle<()>) {
        let printed = Arc::new(Printed::default());
        let writing = Arc::clone(&printed);
        let reader = thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let line = line.unwrap_or_default();
                writing.add(&String::from_utf8_lossy(&line), false);
            }
            writing.add("", true);
        });
        (printed, reader)
    }

    fn add(&self, line: &str, is_end: bool) {
        let mut text = self.text.lock().unwrap();
        text.0.push_str(line);
        text.0.push('\n');
        text.1 = is_end;
        self.more.notify_all();
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().0.clone()
    }

    /// Waits until `holds` of the text; false where the process ends before.
    fn wait(&self, holds: impl Fn(&str) -> bool) -> bool {
        let text = self.text.lock().unwrap();
        let waits = |(text, ended): &mut (String, bool)| !holds(text) && !*ended;
        let (text, waited) = self.more.wait_timeout_while(text, PATIENCE, waits).unwrap();
        assert!(!waited.timed_out(), "it never came: {}", text.0);
        holds(&text.0)
    }
}

/// A running server. It is killed where it is dropped.
pub(crate) struct Server {
    child: Child,
    out: Arc<Printed>,
    log: Arc<Printed>,
    readers: Vec<JoinHandle<()>>,
}

/// An answer to an HTTP request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl Server {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, reads_out) = Printed::read(child.stdout.take().unwrap());
        let (log, reads_log) = Printed::read(child.stderr.take().unwrap());
        Server { child, out, log, readers: vec![reads_out, reads_log] }
    }

    /// Waits until everything that is there answers or has failed.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        assert!(self.out.wait(|out| out.contains("\nReady.")), "it ended: {}", self.log());
    }

    /// Returns where it listens, once it does.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        assert!(self.out.wait(|out| out.contains("HTTP")), "it ended: {}", self.log());
        let out = self.out.text();
        let line = out.lines().find(|line| line.contains("HTTP  http://")).unwrap();
        line.rsplit('/').next().unwrap().parse().unwrap()
    }

    /// Returns what it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = send(self.address(), method, path, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}; {}", self.log()))
    }

    /// Asks a marked model, whichever version answers.
    #[track_caller]
    pub(crate) fn ask(&self, model: &str) -> Answer {
        self.send("POST", &format!("/v2/models/{model}/infer"), QUESTION)
    }

    /// Returns the mark of the model that answers; panics where it was not loaded whole.
    #[track_caller]
    pub(crate) fn mark(&self, model: &str) -> Result<u16, Answer> {
        let answer = self.ask(model);
        if answer.status == 200 { Ok(mark_of(&answer)) } else { Err(answer) }
    }

    /// Waits until a model of this mark answers.
    #[track_caller]
    pub(crate) fn until_marked(&self, model: &str, mark: u16) {
        let mut last = Ok(0);
        let began = Instant::now();
        while !matches!(last, Ok(answered) if answered == mark) {
            let problems = || format!("{model} never answered {mark}: {last:?}\n{}", self.log());
            assert!(began.elapsed() < PATIENCE, "{}", problems());
            pause(Duration::from_millis(5));
            last = self.mark(model);
        }
    }

    /// Returns the state and the reason of each version of a model.
    #[track_caller]
    pub(crate) fn index(&self, model: &str) -> Vec<(String, String, String)> {
        let listed = self.send("POST", "/v2/repository/index", "{}").json();
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let entries = listed.as_array().unwrap().iter().filter(|entry| entry["name"] == model);
        entries
            .map(|entry| (text(entry, "version"), text(entry, "state"), text(entry, "reason")))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// What marked models are asked.
pub(crate) const QUESTION: &str =
    r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[0,0]}]}"#;

/// Returns the mark that an answer tells.
#[track_caller]
pub(crate) fn mark_of(answer: &Answer) -> u16 {
    let json = answer.json();
    let data: Vec<f64> = serde_json::from_value(json["outputs"][0]["data"].clone()).unwrap();
    assert_eq!(data[0], data[1], "half a model was loaded");
    data[0] as u16
}

/// Sends a request on a connection of its own.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    let received = String::from_utf8_lossy(&received).into_owned();
    let unfinished = || io::Error::new(io::ErrorKind::UnexpectedEof, received.clone());
    let (head, body) = received.split_once("\r\n\r\n").ok_or_else(unfinished)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(unfinished)?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
