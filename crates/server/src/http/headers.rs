//! What a request's headers say beside its body.

use std::fmt::Write;
use std::time::{Duration, Instant};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue};
use outhaul_types::{Deadline, Name, RequestContext, Timings, TraceParent};

use super::answer::Failure;
use super::{HttpConfig, Shared};
use crate::{App, traffic};

/// The caller's id of the request, repeated in the answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The time that the caller gives the request, in whole milliseconds.
pub(crate) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// The length of the JSON in front of binary data.
pub(crate) const JSON_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");
/// Where the time of an answer went (W3C Server Timing).
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id that a caller may choose.
const LONGEST_ID: usize = 128;

/// Returns the request's id, with the header that repeats it. An id that is missing, too long or not
/// a token is replaced by one of ours, which the answer tells.
pub(crate) fn request_id(headers: &HeaderMap, app: &App) -> (Name, HeaderValue) {
    let chosen = headers.get(&REQUEST_ID);
    if let Some(value) = chosen
        && value.len() <= LONGEST_ID
        && !value.is_empty()
        && value.as_bytes().iter().all(|&byte| is_token(byte))
        && let Ok(text) = value.to_str()
    {
        return (text.into(), value.clone());
    }
    let id = app.next_request_id();
    let value = HeaderValue::from_str(&id).expect("our ids are hexadecimal");
    (id, value)
}

/// Whether a byte may stand in a token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns what surrounds the request that came at `now`.
///
/// # Errors
///
/// 400 where the timeout is not a positive whole number.
pub(crate) fn context(
    headers: &HeaderMap,
    id: Name,
    now: Instant,
    config: &HttpConfig,
) -> Result<RequestContext, Failure> {
    let asked = whole_number(headers, &REQUEST_TIMEOUT, "x-request-timeout-ms")?;
    if asked == Some(0) {
        return Err(malformed("x-request-timeout-ms", "0", "at least 1"));
    }
    let after = |timeout| Deadline::after(now, timeout);
    let asked = asked.and_then(|ms| after(Duration::from_millis(ms)));
    Ok(RequestContext {
        id,
        trace: trace(headers),
        deadline: Deadline::earlier(asked, config.request_timeout.and_then(after)),
        ..RequestContext::default()
    })
}

/// Returns what surrounds a prediction that came at `now`: the above, and what decides its way.
///
/// # Errors
///
/// 400 where a header cannot be understood.
pub(crate) fn surroundings(
    headers: &HeaderMap,
    id: Name,
    now: Instant,
    shared: &Shared,
) -> Result<RequestContext, Failure> {
    let mut context = context(headers, id, now, &shared.config)?;
    let app = &shared.app;
    traffic::read(headers, &app.config().caller_header.0, app.router(), &mut context)
        .map_err(|malformed| Failure::bad_request(malformed.0))?;
    Ok(context)
}

/// Returns the caller's place in its trace. One that is not valid counts as none.
pub(crate) fn trace(headers: &HeaderMap) -> Option<TraceParent> {
    TraceParent::parse(headers.get(&TRACEPARENT)?.to_str().ok()?)
}

/// Writes where the time went, in milliseconds, stages that took none left out.
pub(crate) fn server_timing(timings: &Timings) -> Option<HeaderValue> {
    let stages = [
        ("load", timings.load),
        ("transform", timings.transform),
        ("queue", timings.queue),
        ("assemble", timings.assemble),
        ("compute", timings.compute),
        ("split", timings.split),
    ];
    let mut text = String::with_capacity(96);
    for (stage, time) in stages.into_iter().filter(|(_, time)| !time.is_zero()) {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{stage};dur={:.3}", time.as_secs_f64() * 1e3);
    }
    HeaderValue::from_str(&text).ok().filter(|_| !text.is_empty())
}

/// Returns the length of the JSON in front of binary data.
///
/// # Errors
///
/// 400 where it is not a whole number.
pub(crate) fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Failure> {
    let length = whole_number(headers, &JSON_LENGTH, "Inference-Header-Content-Length")?;
    Ok(length.map(|length| usize::try_from(length).unwrap_or(usize::MAX)))
}

/// Returns the length that the request declares for its body, for the metrics.
pub(crate) fn declared_length(headers: &HeaderMap) -> usize {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Reads a header, which errors call `name`: as the protocol writes it.
fn whole_number(
    headers: &HeaderMap,
    header: &HeaderName,
    name: &str,
) -> Result<Option<u64>, Failure> {
    let mut values = headers.get_all(header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Failure::bad_request(format!("header {name} is given twice")));
    }
    let text = value.to_str().unwrap_or("?");
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(Some(number)),
        _ => Err(malformed(name, text, "a whole number")),
    }
}

fn malformed(name: &str, value: &str, expected: &str) -> Failure {
    let value: String = value.chars().take(64).collect();
    Failure::bad_request(format!("header {name} is '{value}', expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_timeout_is_a_positive_number_of_milliseconds() {
        let now = Instant::now();
        let deadline = |value, config: &HttpConfig| {
            let headers = one(REQUEST_TIMEOUT, value);
            context(&headers, Name::default(), now, config).map(|context| context.deadline)
        };
        let unlimited = HttpConfig::default();
        let ms = |ms| Deadline::after(now, Duration::from_millis(ms));
        assert_eq!(deadline("250", &unlimited).unwrap(), ms(250));
        assert!(deadline("18446744073709551615", &unlimited).is_ok(), "beyond any clock");
        for value in ["0", "-1", "+1", "1.5", "", "1s", "99999999999999999999999"] {
            assert!(deadline(value, &unlimited).is_err(), "{value}");
        }
        let limited = HttpConfig { request_timeout: Some(Duration::from_millis(100)), ..unlimited };
        assert_eq!(deadline("250", &limited).unwrap(), ms(100));
        assert_eq!(deadline("50", &limited).unwrap(), ms(50));
    }

    #[test]
    fn a_length_that_is_not_a_number_is_named() {
        let failure = json_length(&one(JSON_LENGTH, "12x")).unwrap_err();
        assert_eq!(
            failure.message,
            "header Inference-Header-Content-Length is '12x', expected a whole number"
        );
        assert_eq!(json_length(&one(JSON_LENGTH, "12")).unwrap(), Some(12));
        let twice = [one(JSON_LENGTH, "1"), one(JSON_LENGTH, "2")].into_iter().flatten();
        let mut headers = HeaderMap::new();
        twice.for_each(|(_, value)| {
            headers.append(JSON_LENGTH, value);
        });
        assert!(json_length(&headers).is_err());
    }
}
