//! The gRPC listener: the Open Inference Protocol, TensorFlow Serving, health and reflection.
//!
//! The way of a call: [`listener`](serve) accepts the connection and speaks HTTP/2 on it;
//! [`GrpcService`] sends the call to the service that it names; that service reads what surrounds the
//! request (deadline, trace, id), decodes the message, asks [`Router::infer`], and encodes the answer.
//! What the services of predictions do alike is in `answer`.
//!
//! Invariants: a call that its client gives up, or whose connection ends, drops the router's future,
//! so work that still waits is never run. Answers on one stream keep the order of its requests. What
//! a caller did wrong is never `INTERNAL` or `UNKNOWN`, but for frames that break gRPC itself, where
//! its specification asks for `INTERNAL`.
//!
//! This does not use tonic's server loop: it would put six layers around each call, and cannot end
//! connections that outlive a drain. An answer is compressed where its request was, with the same
//! algorithm; Python's clients list every algorithm they know as acceptable, so listing one is not
//! asking for it.

mod answer;
mod context;
mod dispatch;
mod health;
mod listener;
mod service;
mod tensorflow;

use std::time::Duration;

#[cfg(doc)]
use outhaul_router::Router;

pub use dispatch::{GrpcService, service};
pub use listener::{DrainError, serve};

/// The contracts' names in the metrics.
const OPEN_INFERENCE: &str = "oip_grpc";
const TENSORFLOW: &str = "tensorflow_grpc";

/// How the gRPC listener behaves. Every field has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcConfig {
    /// The most bytes of one message received, after decompression. Default: 64 MiB.
    pub max_message_bytes: usize,
    /// The most bytes of one call's metadata. Default: 64 KiB. Beyond it the call is refused.
    pub max_head_bytes: u32,
    /// Connections of this listener open at once; further ones wait in the operating system's queue.
    /// Default: 4096.
    pub max_connections: usize,
    /// Calls in flight at once on one connection; a client holds further ones back. Default: 1024.
    pub max_calls: u32,
    /// Requests of one `ModelStreamInfer` stream answered at once. Default: 32.
    pub max_stream_requests: usize,
    /// The longest that a new connection may take to begin HTTP/2. Default: 10 s. Then it is closed.
    pub head_timeout: Duration,
    /// The time that the message of a call has to arrive once its headers are there. Default: 30 s, and
    /// one second more for every [`min_body_rate`](Self::min_body_rate) bytes that came. Messages of a
    /// stream may take as long as they like.
    pub body_timeout: Duration,
    /// The bytes a second that a client must bring on average to send a message for longer than
    /// [`body_timeout`](Self::body_timeout). Default: 64 KiB.
    pub min_body_rate: u64,
    /// The longest that a call may take from its headers to its answer, and a message of a stream from
    /// its arrival. Default: none; each model has its own limit. Callers can shorten either with their
    /// deadline.
    pub request_timeout: Option<Duration>,
    /// How long a connection may be silent before it is asked whether it is still there.
    /// Default: 30 s.
    pub keepalive_interval: Duration,
    /// How long it has to answer that. Default: 20 s.
    pub keepalive_timeout: Duration,
    /// How long calls in flight may take to finish after the shutdown began. Default: 30 s.
    pub drain: Duration,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        GrpcConfig {
            max_message_bytes: 64 << 20,
            max_head_bytes: 64 << 10,
            max_connections: 4096,
            max_calls: 1024,
            max_stream_requests: 32,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            min_body_rate: 64 << 10,
            request_timeout: None,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            drain: Duration::from_secs(30),
        }
    }
}
