//! Listeners: HTTP and gRPC, limits, and the way of a request through them.
//!
//! Invariant: no caller can hold more of the server than the limits allow. Connections, heads, bodies,
//! what a compressed body may grow to, and the time for each of them are bounded before a byte is
//! believed; whatever arrives, the listener goes on.
//!
//! What a request means is decided elsewhere: `protocol` reads and writes the contracts, `router`
//! answers. Which models there are and which engine runs them is not known here.
//!
//! Start with [`App`], which all listeners share, then [`http::serve`].

mod answered;
mod app;
mod describe;
pub mod grpc;
pub mod http;
mod pace;
mod traffic;
mod workers;

pub use app::{App, AppConfig, CallerHeader};
