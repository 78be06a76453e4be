//! The gRPC status of every kind of failure.

use std::time::Duration;

use outhaul_types::{Classify, ErrorKind};
use prost::Message;
use prost_types::Any;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The most bytes of a status message. It travels as a header, and clients bound those.
const MAX_MESSAGE: usize = 1024;

/// Returns the gRPC code of a kind of failure.
pub const fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidInput => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::NotReady | ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Overloaded => Code::ResourceExhausted,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        // Not ABORTED, which tells clients to try the same again.
        ErrorKind::Conflict => Code::FailedPrecondition,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::EngineFailed | ErrorKind::Internal => Code::Internal,
    }
}

/// Returns what a client is told of an error. With `retry_after`, the status says when to come back:
/// as `google.rpc.RetryInfo`, which gRPC libraries know, and as `retry-after` metadata in seconds.
pub fn status(error: &(impl Classify + ?Sized), retry_after: Option<Duration>) -> Status {
    let code = code(error.kind());
    let message = shortened(error.client_message());
    let Some(delay) = retry_after else {
        return Status::new(code, message);
    };
    let details = retry_details(code, &message, delay);
    let mut metadata = MetadataMap::new();
    let seconds = delay.as_secs_f64().ceil().max(1.0) as u64;
    metadata.insert("retry-after", MetadataValue::from(seconds));
    Status::with_details_and_metadata(code, message, details.into(), metadata)
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push_str(" [...]");
    }
    message
}

/// `google.rpc.Status`, the form in which gRPC carries details.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

fn retry_details(code: Code, message: &str, delay: Duration) -> Vec<u8> {
    let retry = RetryInfo { retry_delay: delay.try_into().ok() };
    let detail = Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: retry.encode_to_vec(),
    };
    let status =
        RpcStatus { code: code as i32, message: message.to_owned(), details: vec![detail] };
    status.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Failure(String, ErrorKind);

    impl Classify for Failure {
        fn kind(&self) -> ErrorKind {
            self.1
        }
    }

    #[test]
    fn what_a_caller_did_wrong_is_never_internal() {
        for kind in ErrorKind::ALL {
            let blames_us = matches!(code(kind), Code::Internal | Code::Unknown | Code::DataLoss);
            let ours = matches!(kind, ErrorKind::EngineFailed | ErrorKind::Internal);
            assert_eq!(blames_us, ours, "{kind}");
        }
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let error = Failure("queue is full".into(), ErrorKind::Overloaded);
        let status = status(&error, Some(Duration::from_millis(1500)));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.metadata().get("retry-after").unwrap(), "2");
        let details = RpcStatus::decode(status.details()).unwrap();
        assert_eq!((details.code, details.message.as_str()), (8, "queue is full"));
        let retry = RetryInfo::decode(&*details.details[0].value).unwrap();
        let expected = prost_types::Duration { seconds: 1, nanos: 500_000_000 };
        assert_eq!(retry.retry_delay, Some(expected));
    }

    #[test]
    fn a_message_fits_a_header_and_hides_what_is_ours() {
        let long = Failure("\u{e9}".repeat(4000), ErrorKind::NotFound);
        let message = status(&long, None).message().to_owned();
        assert!(message.len() < MAX_MESSAGE + 10 && message.ends_with("\u{e9} [...]"));
        let internal = Failure("secret".into(), ErrorKind::Internal);
        assert_eq!(status(&internal, None).message(), "internal error");
    }
}
