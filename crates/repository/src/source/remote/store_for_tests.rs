//! A server on loopback that speaks enough S3 to be listed and read, and fails as it is told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, RetryConfig};
use sha2::{Digest, Sha256};
use url::Url;

use super::hexadecimal;

/// What goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    Nothing,
    /// Every answer has this status.
    Status(u16),
    /// Answers that are objects have this status.
    ObjectStatus(u16),
    /// This object is refused.
    Denied(&'static str),
    /// Bodies of objects end half-way.
    HalfABody,
    /// The next one does.
    HalfABodyOnce,
    /// Bodies of objects stop after so many bytes, and the connection stays open.
    Silence(usize),
    /// Bodies are one byte longer than the listing said.
    Longer,
    /// After the next listing, this object has this content.
    ChangesBehind(&'static str, &'static [u8]),
    /// Listings write tags without the quotes that conditions need.
    BareTagsInListings,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<String, Vec<u8>>,
    pub(super) fault: Fault,
    /// Methods and paths of all requests.
    pub(super) requests: Vec<String>,
    /// How many bodies stopped in the middle.
    pub(super) silent: usize,
}

/// The server. It ends with the test's process.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

/// What a request is about.
struct Request {
    method: String,
    url: Url,
    condition: Option<String>,
    skip: usize,
}

impl Store {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let store = Store { address: listener.local_addr().unwrap(), state: Arc::default() };
        let accepting = store.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (store, stream) = (accepting.clone(), stream.unwrap());
                thread::spawn(move || store.serve(&stream));
            }
        });
        store
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    pub(super) fn put(&self, name: &str, content: &[u8]) {
        self.state().objects.insert(name.to_owned(), content.to_owned());
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.state().fault = fault;
    }

    /// Waits until so many bodies have stopped in the middle.
    pub(super) fn wait_for_silence(&self, bodies: usize) {
        let patience = Duration::from_secs(30);
        let state = self.state();
        let waited =
            self.state.1.wait_timeout_while(state, patience, |state| state.silent < bodies);
        assert!(!waited.unwrap().1.timed_out(), "nobody asked for an object");
    }

    /// Returns a client for the bucket `bucket` that does not wait long.
    pub(super) fn client(address: SocketAddr) -> Arc<AmazonS3> {
        let millisecond = Duration::from_millis(1);
        let backoff =
            BackoffConfig { init_backoff: millisecond, max_backoff: millisecond, base: 2.0 };
        let retry_timeout = Duration::from_secs(5);
        let client = AmazonS3Builder::new()
            .with_endpoint(format!("http://{address}"))
            .with_allow_http(true)
            .with_bucket_name("bucket")
            .with_region("us-east-1")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_retry(RetryConfig { backoff, max_retries: 2, retry_timeout });
        Arc::new(client.build().unwrap())
    }

    fn serve(&self, stream: &TcpStream) {
        let mut lines = BufReader::new(stream);
        while let Some(request) = Request::read(&mut lines) {
            if self.answer(&request, stream).is_none() {
                return;
            }
        }
    }

    /// Answers a request; `None` where the connection ends with it.
    fn answer(&self, request: &Request, mut stream: &TcpStream) -> Option<()> {
        let key = request.url.path().trim_start_matches("/bucket").trim_start_matches('/');
        let mut state = self.state();
        state.requests.push(format!("{} {key}", request.method));
        let fault = state.fault.clone();
        if let Fault::Status(status) = fault {
            return refuse(stream, status);
        }
        if key.is_empty() {
            let mut page = list(&state.objects, &request.url);
            if fault == Fault::BareTagsInListings {
                page = page.replace('"', "");
            }
            if let Fault::ChangesBehind(name, content) = fault {
                state.objects.insert(name.to_owned(), content.to_owned());
                state.fault = Fault::Nothing;
            }
            return respond(stream, "200 OK", "", page.as_bytes(), page.len());
        }
        let status = match fault {
            Fault::ObjectStatus(status) => Some(status),
            Fault::Denied(denied) if denied == key => Some(403),
            _ => None,
        };
        if let Some(status) = status {
            return refuse(stream, status);
        }
        let Some(content) = state.objects.get(key).cloned() else { return refuse(stream, 404) };
        if fault == Fault::HalfABodyOnce {
            state.fault = Fault::Nothing;
        }
        drop(state);
        let tag = tag(&content);
        if request.condition.as_ref().is_some_and(|condition| *condition != tag) {
            return refuse(stream, 412);
        }
        let rest = content.get(request.skip..).unwrap_or_default();
        let mut body = rest.to_vec();
        if fault == Fault::Longer {
            body.push(b'!');
        }
        let length = body.len();
        let mut head = format!("ETag: {tag}\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n");
        let status = match request.skip {
            0 => "200 OK",
            skip => {
                let (last, all) = (content.len() - 1, content.len());
                head.push_str(&format!("Content-Range: bytes {skip}-{last}/{all}\r\n"));
                "206 Partial Content"
            }
        };
        match (request.method.as_str(), &fault) {
            ("HEAD", _) => body.clear(),
            (_, Fault::HalfABody | Fault::HalfABodyOnce) => body.truncate(rest.len() / 2),
            (_, Fault::Silence(bytes)) => body.truncate(*bytes),
            _ => {}
        }
        respond(stream, status, &head, &body, length)?;
        match fault {
            Fault::HalfABody | Fault::HalfABodyOnce => None,
            Fault::Silence(_) => {
                stream.flush().ok()?;
                self.state().silent += 1;
                self.state.1.notify_all();
                // Until the other side hangs up.
                let _ = BufReader::new(stream).read_line(&mut String::new());
                None
            }
            _ => Some(()),
        }
    }
}

impl Request {
    fn read(lines: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        lines.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let mut words = line.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let url = Url::parse(&format!("http://host{path}")).ok()?;
        let mut request = Request { method, url, condition: None, skip: 0 };
        loop {
            let mut header = String::new();
            lines.read_line(&mut header).ok()?;
            let Some((name, value)) = header.split_once(':') else { return Some(request) };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "if-match" => request.condition = Some(value.to_owned()),
                "range" => {
                    let start = value.trim_start_matches("bytes=").split('-').next()?;
                    request.skip = start.parse().ok()?;
                }
                _ => {}
            }
        }
    }
}

fn tag(content: &[u8]) -> String {
    format!("\"{}\"", hexadecimal(&Sha256::digest(content)[..16]))
}

fn refuse(stream: &TcpStream, status: u16) -> Option<()> {
    let code = match status {
        403 => "AccessDenied",
        404 => "NoSuchKey",
        412 => "PreconditionFailed",
        _ => "InternalError",
    };
    let body = format!("<Error><Code>{code}</Code><Message>It is so.</Message></Error>");
    let head = "Connection: close\r\n";
    respond(stream, &format!("{status} No"), head, body.as_bytes(), body.len())?;
    // An answer to HEAD has no body, so that nothing may follow this one.
    None
}

fn respond(
    mut stream: &TcpStream,
    status: &str,
    head: &str,
    body: &[u8],
    length: usize,
) -> Option<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{head}\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}

fn list(objects: &BTreeMap<String, Vec<u8>>, url: &Url) -> String {
    let asked: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let text = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let after = text("continuation-token").max(text("start-after"));
    let limit = text("max-keys").parse().unwrap_or(1000);
    let matching = |name: &str| name.starts_with(&text("prefix")) && name > after.as_str();
    let mut page = objects.iter().filter(|(name, _)| matching(name)).peekable();
    let mut xml = "<ListBucketResult>".to_owned();
    let mut last = String::new();
    for (name, content) in page.by_ref().take(limit) {
        let (size, tag) = (content.len(), tag(content));
        xml.push_str(&format!(
            "<Contents><Key>{name}</Key><Size>{size}</Size><ETag>{tag}</ETag>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        ));
        last.clone_from(name);
    }
    if page.peek().is_some() {
        xml.push_str(&format!("<NextContinuationToken>{last}</NextContinuationToken>"));
    }
    xml + "</ListBucketResult>"
}
