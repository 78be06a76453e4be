//! One request over one connection, and its answer.

use std::time::Instant;

use bytes::Bytes;
use outhaul_protocol::DecodeLimits;
use outhaul_protocol::oip::{self, DecodedAnswer, EncodedRequest};
use outhaul_types::{ErrorKind, RequestContext, TraceParent, error_chain};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};

use super::CONNECT_TIMEOUT;
use crate::circuit::now;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const DEPTH: HeaderName = HeaderName::from_static("x-outhaul-depth");
const SHADOW: HeaderName = HeaderName::from_static("x-outhaul-shadow");
const PRIORITY: HeaderName = HeaderName::from_static("x-outhaul-priority");

/// The longest body of an answer, in bytes.
const LONGEST_ANSWER: usize = 256 << 20;

/// The longest body that is looked at for the text of an error, and the longest text, in characters.
const LONGEST_REFUSAL: usize = 64 << 10;
const LONGEST_MESSAGE: usize = 500;

/// A pooled connection that was idle for longer may have been closed by the other side.
const IDLE: std::time::Duration = std::time::Duration::from_secs(4);

/// Makes the client that all remotes share.
pub(super) fn client() -> reqwest::Result<Client> {
    // HTTP/1.1: two requests under way are two connections, which is what a hedged request is for.
    Client::builder()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("outhaul/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn late() -> Self {
        let message = "the deadline passed before there was an answer".to_owned();
        Failure { kind: ErrorKind::DeadlineExceeded, message }
    }

    pub(super) fn unconnected(reason: &str) -> Self {
        let message = format!("no connection can be made from here: {reason}");
        Failure { kind: ErrorKind::Unavailable, message }
    }

    fn garbled(message: String) -> Self {
        Failure { kind: ErrorKind::EngineFailed, message }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        // The address is told beside it.
        let message = error_chain(&error.without_url());
        Failure { kind: ErrorKind::Unavailable, message }
    }
}

/// What goes along with a request.
pub(super) struct Headers(HeaderMap);

impl Headers {
    pub(super) fn of(context: &RequestContext) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(DEPTH, HeaderValue::from(u16::from(context.depth.saturating_add(1))));
        if context.shadow {
            // A copy is neither copied nor kept over there.
            headers.insert(SHADOW, HeaderValue::from_static("1"));
        }
        // An id that is no header's value stays here.
        if let Ok(id) = HeaderValue::from_str(&context.id)
            && !id.is_empty()
        {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(trace) = context.trace.as_ref().map(traceparent) {
            headers.insert(TRACEPARENT, trace);
        }
        if let Some(priority) = context.priority {
            headers.insert(PRIORITY, HeaderValue::from_static(priority.as_str()));
        }
        Headers(headers)
    }
}

fn traceparent(trace: &TraceParent) -> HeaderValue {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (trace_id, span_id) = (hex(&trace.trace_id), hex(&trace.span_id));
    let text = format!("00-{trace_id}-{span_id}-{:02x}", u8::from(trace.sampled));
    HeaderValue::try_from(text).expect("hexadecimal digits and dashes")
}

/// Sends a request and reads the answer. The caller gives it up at `end`.
pub(super) async fn exchange(
    client: &Client,
    infer: &Url,
    body: &EncodedRequest,
    headers: &Headers,
    end: Instant,
) -> Result<DecodedAnswer, Failure> {
    // At least one: zero is no time-out.
    let left = end.saturating_duration_since(now()).as_millis().max(1);
    let left = HeaderValue::from(u64::try_from(left).unwrap_or(u64::MAX));
    let request = client
        .post(infer.clone())
        .headers(headers.0.clone())
        .header(CONTENT_TYPE, EncodedRequest::CONTENT_TYPE)
        .header(JSON_LENGTH, body.json_length)
        .header(REQUEST_TIMEOUT, left)
        .body(body.body.clone());
    let mut response = request.send().await?;
    if response.status() != StatusCode::OK {
        let status = response.status();
        let body = read(&mut response, LONGEST_REFUSAL).await.unwrap_or_default();
        return Err(refusal(status, &body));
    }
    let json_length = match response.headers().get(JSON_LENGTH) {
        None => None,
        Some(value) => {
            let length = value.to_str().ok().and_then(|text| text.parse().ok());
            let wrong = || Failure::garbled(format!("its header {JSON_LENGTH} is no number"));
            Some(length.ok_or_else(wrong)?)
        }
    };
    let body = read(&mut response, LONGEST_ANSWER).await?;
    let answer = oip::decode_answer(body, json_length, &DecodeLimits::default());
    answer.map_err(|error| Failure::garbled(format!("its answer cannot be read: {error}")))
}

/// Reads a body of at most `most` bytes.
async fn read(response: &mut Response, most: usize) -> Result<Bytes, Failure> {
    let too_long = || Failure::garbled(format!("its answer has more than {most} bytes"));
    let declared = response.content_length().map(usize::try_from);
    if declared.is_some_and(|length| length.is_ok_and(|length| length > most)) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// Says what an answer other than 200 means to us.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let said = said.as_ref().and_then(|body| body["error"].as_str()).unwrap_or_default();
    let kind = match status.as_u16() {
        // Triton says 400 for a model that is not there.
        400 if said.starts_with("Request for unknown model") => ErrorKind::NotFound,
        400 | 413 | 415 | 422 => ErrorKind::InvalidInput,
        404 => ErrorKind::NotFound,
        408 | 504 => ErrorKind::DeadlineExceeded,
        429 => ErrorKind::Overloaded,
        503 => ErrorKind::NotReady,
        500 => ErrorKind::EngineFailed,
        // Among them 401 and 403: that we may not ask is not our caller's mistake.
        _ => ErrorKind::Unavailable,
    };
    let said: String = said.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE).collect();
    let message = match said.is_empty() {
        true => format!("it answered with status {}", status.as_u16()),
        false => said,
    };
    Failure { kind, message }
}

#[cfg(test)]
mod tests {
    use outhaul_types::Priority;

    use super::*;

    #[test]
    fn every_status_has_its_kind() {
        use ErrorKind::*;
        for (status, body, kind, message) in [
            (400, r#"{"error":"no input"}"#, InvalidInput, "no input"),
            (400, r#"{"error":"Request for unknown model: 'a'"}"#, NotFound, "Request for unk"),
            (400, r#"{"error":{"code":1}}"#, InvalidInput, "it answered with status 400"),
            (401, "", Unavailable, "it answered with status 401"),
            (403, r#"{"error":"who are you"}"#, Unavailable, "who are you"),
            (404, "<html>", NotFound, "it answered with status 404"),
            (413, "", InvalidInput, "status 413"),
            (429, r#"{"error":"busy\n"}"#, Overloaded, "busy"),
            (301, "", Unavailable, "status 301"),
            (204, "", Unavailable, "status 204"),
            (500, r#"{"error":"crash"}"#, EngineFailed, "crash"),
            (502, "", Unavailable, "status 502"),
            (503, r#"{"error":"loading"}"#, NotReady, "loading"),
            (504, "", DeadlineExceeded, "status 504"),
        ] {
            let failure = refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!(failure.kind, kind, "{status} {body}");
            assert!(failure.message.contains(message), "{status}: {}", failure.message);
        }
        let long = format!("{{\"error\":\"{}\"}}", "ä".repeat(9_000));
        let failure = refusal(StatusCode::BAD_REQUEST, long.as_bytes());
        assert_eq!(failure.message.chars().count(), LONGEST_MESSAGE);
    }

    #[test]
    fn what_is_known_of_a_request_goes_along() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = RequestContext {
            id: "r1".into(),
            trace: TraceParent::parse(trace),
            priority: Some(Priority::Background),
            depth: 3,
            ..RequestContext::default()
        };
        let Headers(headers) = Headers::of(&context);
        let value = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(value(&REQUEST_ID), Some("r1"));
        assert_eq!(value(&TRACEPARENT), Some(trace));
        assert_eq!(value(&PRIORITY), Some("background"));
        assert_eq!(value(&DEPTH), Some("4"));
        let odd = RequestContext { id: "a\nb".into(), depth: 255, ..RequestContext::default() };
        let Headers(headers) = Headers::of(&odd);
        assert_eq!((headers.get(REQUEST_ID), headers.len()), (None, 1));
        assert_eq!(headers.get(DEPTH).unwrap(), "255");
    }
}
