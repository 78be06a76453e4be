//! What surrounds a call: its id, its trace and its deadline, read from its metadata.

use std::time::{Duration, Instant};

use outhaul_types::{Deadline, Name, RequestContext, TraceParent};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// The metadata key of the request's id, both ways.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// The metadata key of a call's deadline.
pub(super) const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The longest id that is taken from a caller.
const MAX_ID: usize = 128;

/// What surrounds a call.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) context: RequestContext,
    /// Whether the id is the caller's own, who then gets it back with every answer.
    pub(super) gave_id: bool,
}

impl Caller {
    /// Reads the metadata of a call that arrived at `now`. `new_id` makes an id where it has none.
    ///
    /// # Errors
    ///
    /// Fails where the deadline cannot be understood: to ignore it would be to answer too late.
    pub(super) fn read(
        metadata: &MetadataMap,
        now: Instant,
        new_id: impl FnOnce() -> Name,
    ) -> Result<Self, Status> {
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        let deadline = match metadata.get(GRPC_TIMEOUT) {
            None => None,
            Some(value) => {
                let timeout = value.to_str().ok().and_then(grpc_timeout).ok_or_else(|| {
                    Status::new(
                        Code::InvalidArgument,
                        "'grpc-timeout' must be up to 8 digits and one of H, M, S, m, u, n",
                    )
                })?;
                Deadline::after(now, timeout)
            }
        };
        let given = text(REQUEST_ID).filter(|id| !id.is_empty() && id.len() <= MAX_ID);
        let context = RequestContext {
            id: given.map_or_else(new_id, Name::from),
            trace: text("traceparent").and_then(TraceParent::parse),
            deadline,
            ..RequestContext::default()
        };
        Ok(Caller { context, gave_id: given.is_some() })
    }

    /// Shortens the deadline to what the server allows a request that came at `now`.
    pub(super) fn within(mut self, limit: Option<Duration>, now: Instant) -> Self {
        let own = limit.and_then(|limit| Deadline::after(now, limit));
        self.context.deadline = Deadline::earlier(self.context.deadline, own);
        self
    }
}

/// Reads the value of `grpc-timeout`: at most eight digits, then a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.len().checked_sub(1)?;
    let (digits, unit) = (text.get(..unit)?, text.get(unit..)?);
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_specification_says() {
        let cases = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            ("1.5S", None),
            ("999999999S", None),
            ("5\u{e9}", None),
        ];
        for (text, expected) in cases {
            assert_eq!(grpc_timeout(text), expected, "{text}");
        }
    }

    #[test]
    fn a_caller_is_read_from_metadata() {
        let now = Instant::now();
        let mut metadata = MetadataMap::new();
        let read = |metadata: &MetadataMap| Caller::read(metadata, now, || "made".into());
        let nobody = read(&metadata).unwrap();
        assert!(!nobody.gave_id && nobody.context.deadline.is_none());
        assert_eq!(nobody.context.id, "made");
        metadata.insert(REQUEST_ID, "mine".parse().unwrap());
        metadata.insert("grpc-timeout", "250m".parse().unwrap());
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        metadata.insert("traceparent", trace.parse().unwrap());
        let caller = read(&metadata).unwrap();
        assert!(caller.gave_id);
        assert_eq!(caller.context.id, "mine");
        assert_eq!(caller.context.deadline, Some(Deadline(now + Duration::from_millis(250))));
        assert_eq!(caller.context.trace, TraceParent::parse(trace));
        for (limit, expected) in [(Some(100), 100), (Some(300), 250), (None, 250)] {
            let limited = caller.clone().within(limit.map(Duration::from_millis), now);
            let expected = Deadline::after(now, Duration::from_millis(expected));
            assert_eq!(limited.context.deadline, expected, "{limit:?}");
        }
        metadata.insert("grpc-timeout", "soon".parse().unwrap());
        assert_eq!(read(&metadata).unwrap_err().code(), Code::InvalidArgument);
    }
}
