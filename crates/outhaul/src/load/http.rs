//! HTTP/1.1 connections: one request on its way at a time, the answer's body read and dropped.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Answer, LoadError, Outcome};

/// The largest answer that [`super::ask`] keeps.
const LARGEST_ANSWER: usize = 64 << 20;

/// One request, encoded.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// `GET` or `POST`.
    pub method: Method,
    /// The path and query, such as `/v2/models/iris/infer`.
    pub path: String,
    /// Headers beside `Host` and `Content-Length`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl HttpRequest {
    /// Makes a `GET`.
    pub fn get(path: impl Into<String>) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        HttpRequest { method: Method::GET, path: path.into(), headers, body }
    }

    /// Makes a `POST` of JSON.
    pub fn post_json(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        HttpRequest { method: Method::POST, path: path.into(), headers, body: body.into() }
    }
}

/// A server, and the requests that it is sent in turn.
#[derive(Clone, Debug)]
pub struct HttpTarget {
    /// Host and port, such as `127.0.0.1:8080`.
    pub address: String,
    /// At least one.
    pub requests: Vec<HttpRequest>,
}

/// A request with everything that does not change from one sending to the next.
struct Prepared {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Prepared {
    fn new(request: &HttpRequest, address: &str) -> Result<Self, LoadError> {
        let bad = |what: &str| LoadError::BadPlan(format!("'{what}' is not part of a URL"));
        let uri = request.path.parse().map_err(|_| bad(&request.path))?;
        let mut headers = request.headers.clone();
        headers.insert(HOST, HeaderValue::from_str(address).map_err(|_| bad(address))?);
        if request.method != Method::GET {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(request.body.len()));
        }
        Ok(Prepared { method: request.method.clone(), uri, headers, body: request.body.clone() })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

type Transport = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

pub(super) struct Connection {
    address: String,
    requests: Arc<[Prepared]>,
    sender: http1::SendRequest<Full<Bytes>>,
    /// Polled with each request and not spawned: a second task would cost a wake-up a request.
    transport: Pin<Box<Transport>>,
}

impl Connection {
    pub(super) async fn open(target: &HttpTarget) -> Result<Self, LoadError> {
        let address = target.address.clone();
        let prepared = target.requests.iter().map(|request| Prepared::new(request, &address));
        let requests: Arc<[Prepared]> = prepared.collect::<Result<Vec<_>, _>>()?.into();
        if requests.is_empty() {
            return Err(LoadError::BadPlan("there is no request to send".to_owned()));
        }
        let stream = TcpStream::connect(&address)
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| LoadError::Unreachable {
                address: address.clone(),
                source: source.into(),
            })?;
        let (sender, transport) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|source| {
                LoadError::Unreachable { address: address.clone(), source: source.into() }
            })?;
        Ok(Connection { address, requests, sender, transport: Box::pin(transport) })
    }

    pub(super) async fn send(&mut self, number: usize) -> Outcome {
        match self.exchange(number, None).await {
            Ok((200, _)) => Outcome::Answered,
            Ok((status, _)) => Outcome::Refused(format!("status {status}")),
            Err(reason) => Outcome::Broken(reason),
        }
    }

    pub(super) async fn ask(&mut self, number: usize) -> Result<Answer, LoadError> {
        let mut body = BytesMut::new();
        let (status, complete) = self
            .exchange(number, Some(&mut body))
            .await
            .map_err(|reason| LoadError::Broken { address: self.address.clone(), reason })?;
        if !complete {
            let reason = format!("the answer is larger than {LARGEST_ANSWER} bytes");
            return Err(LoadError::Broken { address: self.address.clone(), reason });
        }
        Ok(Answer {
            status: status.to_string(),
            is_ok: status == 200,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// Returns the status, and whether the whole body went into `kept`.
    async fn exchange(
        &mut self,
        number: usize,
        mut kept: Option<&mut BytesMut>,
    ) -> Result<(u16, bool), String> {
        let request = self.requests[number % self.requests.len()].request();
        let sender = &mut self.sender;
        let work = async move {
            sender.ready().await.map_err(|error| describe(&error))?;
            let response: Response<Incoming> =
                sender.send_request(request).await.map_err(|error| describe(&error))?;
            let status = response.status().as_u16();
            let mut complete = true;
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| describe(&error))?;
                if let (Some(kept), Some(data)) = (&mut kept, frame.data_ref()) {
                    complete &= kept.len() + data.len() <= LARGEST_ANSWER;
                    if complete {
                        kept.extend_from_slice(data);
                    }
                }
            }
            Ok((status, complete))
        };
        drive(self.transport.as_mut(), work).await
    }
}

/// Polls the transport and what waits for it in one task, until the latter is done.
async fn drive<T>(
    mut transport: Pin<&mut Transport>,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let mut work = pin!(work);
    let mut is_open = true;
    poll_fn(|context| {
        // The order matters: the work hands the request to the transport, which then sends it.
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        if is_open && let Poll::Ready(closed) = transport.as_mut().poll(context) {
            is_open = false;
            if let Err(error) = closed {
                return Poll::Ready(Err(describe(&error)));
            }
        }
        work.as_mut().poll(context)
    })
    .await
}

/// A few words without addresses or numbers that vary, since errors are counted by their text.
fn describe(error: &hyper::Error) -> String {
    let reason = if error.is_timeout() {
        "timed out"
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        "the server closed the connection"
    } else if error.is_parse() {
        "the answer is not HTTP/1.1"
    } else {
        return format!("connection failed: {}", outhaul_types::error_chain(error));
    };
    reason.to_owned()
}
