//! Clients that look at what they are answered: which version it was, and whether it had to be loaded.
//!
//! The load generator of `outhaul bench` drops the bodies of answers, so that it measures servers and
//! not itself. Here the bodies matter, and rates are moderate: each client is a thread with one
//! connection and blocking I/O.
//!
//! Invariant: a latency counts from the instant at which its request should have started, so a stall
//! shows in every request that it delayed.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use outhaul::load::{SampleInput, SampleSizes, inputs_over_http, json_body};

/// How long an answer may take.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);

/// The longest head of an answer.
const LONGEST_HEAD: usize = 64 << 10;

/// One connection to a server.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Connects to `HOST:PORT`.
    pub(crate) fn open(address: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LONGEST_ANSWER))?;
        Ok(Client { stream, received: Vec::new() })
    }

    /// Sends an encoded request and returns the answer's status and body.
    pub(crate) fn send(&mut self, request: &[u8]) -> anyhow::Result<(u16, &[u8])> {
        self.stream.write_all(request)?;
        self.received.clear();
        let head = loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(self.received.len() < LONGEST_HEAD, "the answer's head does not end");
            self.receive()?;
        };
        let text = std::str::from_utf8(&self.received[..head])?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.context("the answer has no status")?;
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length.then(|| value.trim().parse::<usize>().ok()).flatten()
        });
        let end = head + length.context("the answer does not say how long it is")?;
        while self.received.len() < end {
            self.receive()?;
        }
        Ok((status, &self.received[head..end]))
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk)? {
            0 => bail!("the server closed the connection"),
            count => self.received.extend_from_slice(&chunk[..count]),
        }
        Ok(())
    }

    /// Asks for something that must be there, and returns the body as text.
    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<String> {
        self.expect(path, encode("GET", path, ""))
    }

    /// Returns the repository's index: every version with its state.
    pub(crate) fn index(&mut self) -> anyhow::Result<Vec<Indexed>> {
        let path = "/v2/repository/index";
        Ok(serde_json::from_str(&self.expect(path, encode("POST", path, "{}"))?)?)
    }

    fn expect(&mut self, path: &str, request: Vec<u8>) -> anyhow::Result<String> {
        let (status, body) = self.send(&request)?;
        let body = String::from_utf8_lossy(body).into_owned();
        ensure!(status == 200, "{path}: status {status}: {body}");
        Ok(body)
    }
}

/// What the index says of a version, as far as it matters here.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Indexed {
    pub(crate) standing: String,
    pub(crate) memory_bytes: Option<u64>,
}

/// Encodes a request.
pub(crate) fn encode(method: &str, path: &str, body: &str) -> Vec<u8> {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n");
    let length = body.len();
    format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Encodes a prediction.
pub(crate) fn prediction(model: &str, body: &str) -> Vec<u8> {
    encode("POST", &format!("/v2/models/{model}/infer"), body)
}

/// Makes up the body of a request from what the model says it takes; sizes that it leaves open are 1 in
/// the first dimension, and `length` in the others.
pub(crate) fn sample(address: &str, model: &str, length: usize) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut inputs = runtime.block_on(inputs_over_http(address, "", model))?;
    for (_, _, shape) in &mut inputs {
        for (axis, size) in shape.iter_mut().enumerate() {
            *size = match *size {
                open if open < 0 && axis == 0 => 1,
                open if open < 0 => i64::try_from(length)?,
                fixed => fixed,
            };
        }
    }
    let inputs = SampleInput::from_metadata(model, inputs, &SampleSizes::default())?;
    Ok(String::from_utf8(json_body(&inputs))?)
}

/// A good answer, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Good {
    /// The version that answered.
    pub(crate) version: u64,
    /// How long the server says that it loaded the version for this request.
    pub(crate) load: Option<Duration>,
}

impl Good {
    fn read(body: &[u8]) -> Option<Good> {
        let version = number(body, b"\"model_version\":\"")?;
        let load = number(body, b"\"load_us\":").map(|load| Duration::from_secs_f64(load / 1e6));
        Some(Good { version: version as u64, load })
    }
}

/// Returns the number that follows `key`. Parsing each answer whole would make the client the slower
/// part.
fn number(body: &[u8], key: &[u8]) -> Option<f64> {
    let rest = &body[find(body, key)? + key.len()..];
    let is_part = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let end = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// One request, as its client saw it. Durations count from its intended start.
#[derive(Debug)]
pub(crate) struct Record {
    /// When it should have started.
    pub(crate) intended: Instant,
    /// When it was sent: how late the client itself was.
    pub(crate) sent: Duration,
    /// When it was answered.
    pub(crate) took: Duration,
    /// The answer, or what came instead.
    pub(crate) outcome: Result<Good, String>,
}

/// Clients that send requests of a kind, all at the same pace.
#[derive(Clone, Copy)]
pub(crate) struct Crowd<'a> {
    /// The server.
    pub(crate) address: &'a str,
    /// Encoded requests to choose from.
    pub(crate) requests: &'a [Vec<u8>],
    /// Clients, each with one connection.
    pub(crate) clients: usize,
    /// Requests a second, of all clients together; where not set each client sends its next request
    /// when the last one is answered.
    pub(crate) rate: Option<f64>,
}

impl Crowd<'_> {
    /// Sends requests for as long as `work` takes. `choose` makes each client's way to choose the
    /// next request. Returns what `work` does, and the records of each client.
    pub(crate) fn during<T, C: FnMut() -> usize + Send>(
        &self,
        choose: impl Fn(usize) -> C,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, Vec<Vec<Record>>)> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let start = Instant::now();
            let threads: Vec<_> = (0..self.clients)
                .map(|index| {
                    let (stop, choose) = (&stop, choose(index));
                    scope.spawn(move || self.client(index, start, choose, stop))
                })
                .collect();
            let done = work();
            stop.store(true, Ordering::Relaxed);
            let mut records = Vec::new();
            for thread in threads {
                match thread.join() {
                    Ok(of_client) => records.push(of_client?),
                    Err(_) => bail!("a client panicked"),
                }
            }
            Ok((done?, records))
        })
    }

    fn client(
        &self,
        index: usize,
        start: Instant,
        mut choose: impl FnMut() -> usize,
        stop: &AtomicBool,
    ) -> anyhow::Result<Vec<Record>> {
        let mut client = Client::open(self.address)?;
        let mut records = Vec::new();
        for number in 0_u32.. {
            let intended = match self.rate {
                // Clients take turns, so that requests are spread evenly.
                Some(rate) => {
                    let turn = (f64::from(number) * self.clients as f64) + index as f64;
                    let due = start + Duration::from_secs_f64(turn / rate);
                    wait_until(due);
                    due
                }
                None => Instant::now(),
            };
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let sent = intended.elapsed();
            let outcome = ask(&mut client, &self.requests[choose()]);
            records.push(Record { intended, sent, took: intended.elapsed(), outcome });
            if records.last().is_some_and(|record| record.outcome.is_err()) {
                client = Client::open(self.address)?;
            }
        }
        Ok(records)
    }
}

fn ask(client: &mut Client, request: &[u8]) -> Result<Good, String> {
    match client.send(request) {
        Ok((200, body)) => Good::read(body).ok_or_else(|| "an answer without version".to_owned()),
        Ok((status, body)) => Err(format!("status {status}: {}", String::from_utf8_lossy(body))),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Waits until an instant that may have passed.
pub(crate) fn wait_until(due: Instant) {
    // Nobody unparks this thread: this is a sleep, which may end early.
    while let Some(early) = due.checked_duration_since(Instant::now())
        && !early.is_zero()
    {
        thread::park_timeout(early);
    }
}

/// Returns the failures among records, by what came instead of an answer.
pub(crate) fn failures<'r>(records: impl Iterator<Item = &'r Record>) -> Vec<String> {
    records.filter_map(|record| record.outcome.clone().err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_read_from_an_answer() {
        let body = br#"{"model_name":"m","model_version":"12","parameters":{"load_us":1500.5}}"#;
        let load = Some(Duration::from_nanos(1_500_500));
        assert_eq!(Good::read(body), Some(Good { version: 12, load }));
        let body = br#"{"model_version":"3","parameters":{"queue_us":0.0}}"#;
        assert_eq!(Good::read(body), Some(Good { version: 3, load: None }));
        assert_eq!(Good::read(b"{}"), None);
    }
}
