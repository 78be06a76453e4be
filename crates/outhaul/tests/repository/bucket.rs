//! A bucket on loopback that speaks enough S3 to be listed and read, slowly where it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::server::pause;

/// What one piece of a slow answer holds, and how long it waits for the next.
const PIECE: usize = 16 << 10;
const BETWEEN_PIECES: Duration = Duration::from_millis(12);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    is_slow: bool,
    /// Bodies of objects that have begun.
    begun: usize,
}

/// The bucket `bucket`. It ends with the test's process.
#[derive(Clone)]
pub(crate) struct Bucket {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Bucket {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bucket = Bucket { address: listener.local_addr().unwrap(), state: Arc::default() };
        let accepting = bucket.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (bucket, stream) = (accepting.clone(), stream.unwrap());
                thread::spawn(move || bucket.serve(&stream));
            }
        });
        bucket
    }

    pub(crate) fn put(&self, name: &str, content: Vec<u8>) {
        self.state.lock().unwrap().objects.insert(name.to_owned(), content);
    }

    pub(crate) fn be_slow(&self, is_slow: bool) {
        self.state.lock().unwrap().is_slow = is_slow;
    }

    pub(crate) fn begun(&self) -> usize {
        self.state.lock().unwrap().begun
    }

    /// Whether a file has the content of an object.
    pub(crate) fn holds(&self, content: &[u8]) -> bool {
        self.state.lock().unwrap().objects.values().any(|object| object == content)
    }

    /// Lets a command find the bucket.
    pub(crate) fn name_to(&self, command: &mut Command) {
        command.env("AWS_ENDPOINT_URL", format!("http://{}", self.address));
        let settings = [
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        command.envs(settings);
    }

    fn serve(&self, stream: &TcpStream) {
        let mut lines = BufReader::new(stream);
        // Whoever asked may have been killed.
        while let Some(request) = Request::read(&mut lines) {
            if self.answer(&request, stream).is_none() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request, mut stream: &TcpStream) -> Option<()> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let key = path.trim_start_matches("/bucket").trim_start_matches('/');
        let mut state = self.state.lock().unwrap();
        if key.is_empty() {
            let page = list(&state.objects, query);
            drop(state);
            return respond(stream, "200 OK", &tag(b""), page.as_bytes());
        }
        let Some(content) = state.objects.get(key).cloned() else {
            drop(state);
            return respond(
                stream,
                "404 Not Found",
                &tag(b""),
                b"<Error><Code>NoSuchKey</Code></Error>",
            );
        };
        let tag = tag(&content);
        if request.condition.as_ref().is_some_and(|condition| *condition != tag) {
            drop(state);
            return respond(stream, "412 Precondition Failed", &tag, b"");
        }
        state.begun += 1;
        let is_slow = state.is_slow;
        drop(state);
        if !is_slow {
            return respond(stream, "200 OK", &tag, &content);
        }
        stream.write_all(head("200 OK", &tag, content.len()).as_bytes()).ok()?;
        for piece in content.chunks(PIECE) {
            stream.write_all(piece).ok()?;
            pause(BETWEEN_PIECES);
        }
        Some(())
    }
}

struct Request {
    target: String,
    condition: Option<String>,
}

impl Request {
    fn read(lines: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        lines.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let target = line.split(' ').nth(1)?.to_owned();
        let mut request = Request { target, condition: None };
        loop {
            let mut header = String::new();
            lines.read_line(&mut header).ok()?;
            let Some((name, value)) = header.split_once(':') else { return Some(request) };
            if name.eq_ignore_ascii_case("if-match") {
                request.condition = Some(value.trim().to_owned());
            }
        }
    }
}

/// Tells contents apart: all models have one length and differ in their first weights.
fn tag(content: &[u8]) -> String {
    let sum = content.iter().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(1_099_511_628_211).wrapping_add(u64::from(*byte) + 1)
    });
    format!("\"{sum:016x}\"")
}

fn head(status: &str, tag: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: {tag}\r\n\
         Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n"
    )
}

fn respond(mut stream: &TcpStream, status: &str, tag: &str, body: &[u8]) -> Option<()> {
    let head = head(status, tag, body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).ok()
}

/// Lists the objects below a prefix, on one page.
fn list(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> String {
    let asked = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
        values.next().unwrap_or_default().replace("%2F", "/")
    };
    let prefix = asked("prefix");
    let entries = objects.iter().filter(|(name, _)| name.starts_with(&prefix));
    let entries = entries.map(|(name, content)| {
        let (size, tag) = (content.len(), tag(content));
        format!(
            "<Contents><Key>{name}</Key><Size>{size}</Size><ETag>{tag}</ETag>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        )
    });
    format!("<ListBucketResult>{}</ListBucketResult>", entries.collect::<String>())
}
