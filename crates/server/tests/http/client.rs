//! A client that sends exactly the bytes it is given.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::PATIENCE;

/// A valid prediction for every model of the fixture.
pub const PREDICTION: &str =
    r#"{"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;

pub struct Client {
    pub stream: TcpStream,
    /// Bytes that came after the last answer.
    left: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Client { stream: TcpStream::connect(address).await.unwrap(), left: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    pub async fn post(&mut self, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        self.send(post(path, headers, body)).await;
        self.answer().await
    }

    pub async fn get(&mut self, path: &str, headers: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).await;
        self.answer().await
    }

    pub async fn predict(&mut self, model: &str) -> Answer {
        self.post(&format!("/v2/models/{model}/infer"), "", PREDICTION).await
    }

    pub async fn answer(&mut self) -> Answer {
        self.answer_with(true).await
    }

    /// Reads one answer; one to HEAD has no body.
    pub async fn answer_with(&mut self, has_body: bool) -> Answer {
        let end = loop {
            match self.left.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => assert!(self.read().await > 0, "the connection ended before an answer"),
            }
        };
        let head = String::from_utf8(self.left.drain(..end).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if has_body {
            let length = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
            while self.left.len() < length {
                assert!(self.read().await > 0, "the connection ended within an answer");
            }
            answer.body = self.left.drain(..length).collect();
        }
        answer
    }

    /// Waits for the server to close the connection and returns what came before.
    pub async fn closed(&mut self) -> Vec<u8> {
        while self.read().await > 0 {}
        std::mem::take(&mut self.left)
    }

    async fn read(&mut self) -> usize {
        let mut piece = vec![0; 16 << 10];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut piece)).await;
        // A reset is an end as well.
        let read = read.expect("the server answers in time").unwrap_or(0);
        self.left.extend_from_slice(&piece[..read]);
        read
    }
}

pub fn post(path: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }

    pub fn error(&self) -> String {
        let json = self.json();
        assert_eq!(json.as_object().unwrap().len(), 1, "nothing but the error: {json}");
        json["error"].as_str().unwrap().to_owned()
    }
}
