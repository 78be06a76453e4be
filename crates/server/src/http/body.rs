//! Reading bodies: whole, bounded in size and in time.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::StatusCode;
use http_body::{Body, Frame};
use tokio::time::{Instant, timeout_at};

use super::HttpConfig;
use super::answer::Failure;
use crate::pace::Pace;

/// What is reserved at once for a body of a declared length; a longer one must come to be believed.
const RESERVED: usize = 1 << 20;

/// Reads a whole body. `waiting` is called once where a piece of it has to be waited for.
///
/// # Errors
///
/// 413 where the body is too long, 408 where it comes too slowly, 400 where it ends early or is
/// damaged.
pub(crate) async fn read<B>(
    mut body: B,
    config: &HttpConfig,
    waiting: impl FnOnce(),
) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes> + Unpin,
{
    let limit = config.max_body_bytes;
    let declared = body.size_hint().exact();
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_long(limit));
    }
    // The body of a small request came with its head; then there is no timer and no copy.
    let Some(first) = poll_frame(&mut body).now_or_never() else {
        waiting();
        return read_slowly(body, BytesMut::new(), config).await;
    };
    let Some(first) = data(first, 0, declared)? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(too_long(limit));
    }
    if body.is_end_stream() || declared.is_some_and(|length| length <= first.len() as u64) {
        return Ok(first);
    }
    let reserved = declared.map_or(2 * first.len(), |length| length as usize).min(RESERVED);
    let mut received = BytesMut::with_capacity(reserved.max(first.len()));
    received.extend_from_slice(&first);
    waiting();
    read_slowly(body, received, config).await
}

async fn read_slowly<B>(
    mut body: B,
    mut received: BytesMut,
    config: &HttpConfig,
) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes> + Unpin,
{
    let limit = config.max_body_bytes;
    let declared = body.size_hint().exact().map(|rest| rest + received.len() as u64);
    let pace = Pace { timeout: config.body_timeout, min_rate: config.min_body_rate };
    let started = Instant::now();
    loop {
        let deadline = pace.deadline(started, received.len() as u64);
        let Ok(frame) = timeout_at(deadline, poll_frame(&mut body)).await else {
            return Err(too_slow(received.len(), declared));
        };
        let Some(piece) = data(frame, received.len(), declared)? else {
            return Ok(received.freeze());
        };
        if piece.len() > limit - received.len() {
            return Err(too_long(limit));
        }
        if received.is_empty() {
            let length = declared.map_or(piece.len(), |length| length as usize);
            if length == piece.len() && body.is_end_stream() {
                return Ok(piece);
            }
            received.reserve(length.min(RESERVED).max(piece.len()));
        }
        received.extend_from_slice(&piece);
    }
}

async fn poll_frame<B: Body + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// Returns the bytes of a frame: none for trailers, `None` at the end.
fn data<E>(
    frame: Option<Result<Frame<Bytes>, E>>,
    received: usize,
    declared: Option<u64>,
) -> Result<Option<Bytes>, Failure> {
    match frame {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        // The cause is a broken connection or a malformed chunk; what the client should know of it
        // is how far it got.
        Some(Err(_)) => Err(Failure::bad_request(match declared {
            Some(declared) => {
                format!("the body ended after {received} of the {declared} bytes it declares")
            }
            None => format!("the body broke off after {received} bytes"),
        })
        .and_close()),
    }
}

pub(crate) fn too_long(limit: usize) -> Failure {
    let message = format!("the body is longer than the limit of {limit} bytes");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message).and_close()
}

fn too_slow(received: usize, declared: Option<u64>) -> Failure {
    let of = declared.map_or_else(String::new, |declared| format!(" of {declared}"));
    let message = format!("the body came too slowly: {received}{of} bytes were received in time");
    Failure::new(StatusCode::REQUEST_TIMEOUT, message).and_close()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use super::*;

    /// A body whose pieces come one a second of paused time.
    struct Slow {
        pieces: VecDeque<Bytes>,
        timer: Option<Pin<Box<tokio::time::Sleep>>>,
    }

    impl Body for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let second = || Box::pin(tokio::time::sleep(Duration::from_secs(1)));
            let timer = self.timer.get_or_insert_with(second);
            std::task::ready!(timer.as_mut().poll(context));
            self.timer = None;
            Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn slow(pieces: usize, size: usize) -> Slow {
        Slow { pieces: vec![Bytes::from(vec![b'x'; size]); pieces].into(), timer: None }
    }

    fn config() -> HttpConfig {
        HttpConfig {
            max_body_bytes: 1_000,
            body_timeout: Duration::from_millis(2_500),
            min_body_rate: 100,
            ..HttpConfig::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_keeps_the_pace_may_take_longer_than_the_timeout() {
        let mut announced = false;
        let body = read(slow(8, 100), &config(), || announced = true).await.unwrap();
        assert_eq!(body.len(), 800);
        assert!(announced);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        let failure = read(slow(8, 10), &config(), || ()).await.unwrap_err();
        assert_eq!(failure.status, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(failure.message, "the body came too slowly: 20 bytes were received in time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_a_length_is_bounded_too() {
        let failure = read(slow(8, 200), &config(), || ()).await.unwrap_err();
        assert_eq!(failure.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_body_that_is_there_is_not_copied() {
        let bytes = Bytes::from(vec![1_u8; 100]);
        let body = http_body_util::Full::new(bytes.clone());
        let read = read(body, &config(), || panic!("nothing to wait for")).await.unwrap();
        assert_eq!(read.as_ptr(), bytes.as_ptr());
    }
}
